import { createPrivateKey, createPublicKey, sign } from 'node:crypto';
import {
  concat,
  hex,
  HybridClock,
  seededRandom,
  utf8,
  WaggleError,
  type ReplicaId,
  type Run,
  type Signer,
} from '@waggle/protocol/base';
import { nodeCrypto } from '../../protocol/test/support.ts';
import { Identity, type Actor, type Limits, type Write } from '../src/index.ts';
import type { FoldedRegister } from '../src/views.ts';

export { nodeCrypto };

/** DER around a raw Ed25519 seed (RFC 8410, PKCS #8). */
const PKCS8_PREFIX = hex.decode('302e020100300506032b657004220420');

export function signerFromSeed(seed: Uint8Array): Signer {
  const privateKey = createPrivateKey({ key: Buffer.from(concat(PKCS8_PREFIX, seed)), format: 'der', type: 'pkcs8' });
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return {
    publicKey: new Uint8Array(spki.subarray(12)),
    sign: (message) => new Uint8Array(sign(null, message, privateKey)),
  };
}

const ACTOR: Actor = { credential: 'tests', role: 'node' };
/** 2026-01-01T00:00:00Z. */
export const START_MS = 1_767_225_600_000;

export interface Folded {
  readonly replica: ReplicaId;
  readonly register: FoldedRegister;
}

/** A driver in memory: gives versions to writes, keeps them, folds them. */
export class TestNode {
  readonly identity: Identity;
  readonly replica: ReplicaId;
  /** Everything that this node has written. */
  readonly written: Folded[] = [];
  nowMs = START_MS;

  constructor(name: string, limits: Partial<Limits> = {}, run = 1) {
    this.replica = hex.encode(nodeCrypto.sha256(utf8(name)).subarray(0, 16)) as ReplicaId;
    const random = seededRandom(Number.parseInt(this.replica.slice(0, 8), 16) + run);
    const clock = new HybridClock();
    this.identity = new Identity({
      crypto: nodeCrypto,
      random,
      signerFromSeed,
      clock,
      replica: this.replica,
      run: run as Run,
      limits,
    });
  }

  get context(): { actor: Actor; nowMs: number } {
    return { actor: ACTOR, nowMs: this.nowMs };
  }

  /** Writes what a command returned: `node.do(node.identity.suspend(node.context, id))`. */
  do<T extends Write[] | { readonly writes: Write[] }>(change: T): T {
    for (const write of Array.isArray(change) ? change : change.writes) {
      const folded = { replica: this.replica, register: { ...write, version: this.written.length + 1 } };
      this.written.push(folded);
      this.identity.fold(folded.replica, folded.register, this.nowMs);
    }
    return change;
  }

  take(folded: Iterable<Folded>): this {
    for (const { replica, register } of folded) this.identity.fold(replica, register, this.nowMs);
    return this;
  }

  /** A customer with a key: the text of the key. */
  customer(id: string): string {
    this.do(this.identity.createCustomer(this.context, { id, name: id }));
    return this.do(this.identity.issueKey(this.context, id)).key;
  }
}

/** The code of the error that this throws; `none` if it does not. */
export function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof WaggleError) return error.code;
    throw error;
  }
  return 'none';
}
