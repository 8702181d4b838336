import {
  isAhead,
  parseCustomerId,
  parseHlc,
  parseKeyId,
  WaggleError,
  type Crypto,
  type Hlc,
  type HybridClock,
  type ReplicaId,
  type Run,
} from '@waggle/protocol/base';
import { isLwwKey, parseLww, type ControlRegister } from '@waggle/protocol/lattice';
import { AuditLog } from './audit.ts';
import { Authentication } from './authentication.ts';
import { CUSTOMER_MAP, Customers } from './customers.ts';
import { Documents } from './documents.ts';
import { parseCustomerFact, parseKeyFact, parseStatus, parseTokenFact } from './facts.ts';
import type { Limits } from './limits.ts';

/** A control register as the driver hands it in; its signature was checked before. */
export type FoldedRegister = Omit<ControlRegister, 'signature'>;

/** The parts of a register's key after its kind, and its value. */
interface Input {
  readonly replica: ReplicaId;
  readonly parts: readonly string[];
  readonly register: FoldedRegister;
  readonly nowMs: number;
}
interface Handler {
  /** How many parts the key has after its kind. */
  readonly parts: number;
  readonly fold: (views: Views, input: Input) => void;
}

/** The longest key that is folded; ours are shorter. */
const REGISTER_KEY_LENGTH_MAX = 200;

/** By kind: what comes before the ids in a register's key. */
const HANDLERS: ReadonlyMap<string, Handler> = new Map<string, Handler>([
  [
    'fact/customer',
    {
      parts: 1,
      fold: ({ customers }, { replica, parts, register }) => {
        const id = parseCustomerId(parts[0]);
        customers.foldCreation(replica, id, parseCustomerFact(id, register.value));
      },
    },
  ],
  // Deletions and revocations hold by being there, whatever their value.
  [
    'fact/customer-deleted',
    { parts: 1, fold: ({ customers }, { parts }) => customers.foldDeletion(parseCustomerId(parts[0])) },
  ],
  [
    'fact/key',
    {
      parts: 1,
      fold: ({ authentication, customers }, { replica, parts, register }) => {
        const id = parseKeyId(parts[0]);
        const fact = parseKeyFact(register.value);
        authentication.keys.fold(replica, id, fact, customers.row(fact.customer));
      },
    },
  ],
  [
    'fact/key-revoked',
    { parts: 1, fold: ({ authentication }, { parts }) => authentication.foldRevocation('key', parseKeyId(parts[0])) },
  ],
  [
    'fact/token',
    {
      parts: 1,
      fold: ({ authentication }, { replica, parts, register }) =>
        authentication.foldToken(replica, parseKeyId(parts[0]), parseTokenFact(register.value)),
    },
  ],
  [
    'fact/token-revoked',
    { parts: 1, fold: ({ authentication }, { parts }) => authentication.foldRevocation('token', parseKeyId(parts[0])) },
  ],
  [
    'fact/audit',
    {
      parts: 1,
      fold: (views, { parts: [id = ''], register, nowMs }) => {
        views.audit.fold(id, register.value);
        views.mergeClock(parseHlc(id.slice(0, 16)), nowMs);
      },
    },
  ],
  [
    'status',
    {
      parts: 1,
      fold: ({ customers }, { parts, register }) =>
        customers.foldStatus(parseCustomerId(parts[0]), parseStatus(register.value)),
    },
  ],
  [
    `lww/${CUSTOMER_MAP}`,
    {
      parts: 2,
      fold: (views, { replica, register, nowMs }) => {
        const entry = parseLww(replica, register);
        views.customers.foldField(entry, nowMs);
        views.mergeClock(entry.hlc, nowMs);
      },
    },
  ],
  [
    'doc',
    {
      parts: 3,
      fold: ({ documents }, { replica, parts: [customer, generation = '', seq = ''], register }) =>
        documents.fold(replica, parseCustomerId(customer), generation, seq, register.value),
    },
  ],
]);

/** What the views are made of. */
export interface ViewsDeps {
  readonly crypto: Crypto;
  readonly clock: HybridClock;
  readonly replica: ReplicaId;
  readonly run: Run;
  /** Limits of customers without limits of their own. */
  readonly limits: Limits;
}

/** The views of identity over the control registers of all replicas, and their fold. */
export class Views {
  readonly customers: Customers;
  readonly authentication: Authentication;
  readonly documents: Documents;
  readonly audit = new AuditLog();
  readonly #clock: HybridClock;
  #refused = 0;

  constructor({ crypto, clock, replica, run, limits }: ViewsDeps) {
    this.customers = new Customers(limits);
    this.authentication = new Authentication(crypto);
    this.documents = new Documents(replica, run);
    this.#clock = clock;
  }

  /** As `Identity.fold`. */
  fold(replica: ReplicaId, register: FoldedRegister, nowMs: number): void {
    const { key } = register;
    // Without split for the most part: at a start this runs for every register that there is.
    let slash = key.indexOf('/');
    if (key.startsWith('fact/') || isLwwKey(key)) slash = key.indexOf('/', slash + 1);
    const kind = key.slice(0, slash);
    const handler = slash < 0 ? undefined : HANDLERS.get(kind);
    if (handler === undefined) return;
    try {
      const rest = key.slice(slash + 1);
      const parts = rest.includes('/') ? rest.split('/', handler.parts + 1) : [rest];
      if (parts.length !== handler.parts || key.length > REGISTER_KEY_LENGTH_MAX)
        throw new WaggleError(
          'DECODE_FAILED',
          `Expected ${handler.parts} parts after ${kind}, received ${JSON.stringify(key.slice(0, 80))}`,
        );
      handler.fold(this, { replica, parts, register, nowMs });
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      this.#refused++;
    }
  }

  /** Takes note of a reading that a register carries, so that later readings of this node are above it. */
  mergeClock(hlc: Hlc, nowMs: number): void {
    if (!isAhead(hlc, nowMs)) this.#clock.merge(hlc);
  }

  /** As `Identity.tick`. */
  tick(nowMs: number): void {
    for (const { hlc } of this.customers.tick(nowMs)) this.mergeClock(hlc, nowMs);
  }

  /** As `Identity.refused`. */
  get refused(): number {
    return this.#refused + this.documents.refused;
  }
}
