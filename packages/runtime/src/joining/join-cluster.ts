import { concat, ERRORS, WaggleError, type Epoch, type ErrorCode, type Random } from '@waggle/protocol/base';
import {
  createAdmit,
  encodeFact,
  parseFacts,
  type Admit,
  type Invite,
  type InviteAddress,
  type JoinerKeys,
  type RosterFact,
} from '@waggle/protocol/authority';
import type { MemberKey } from '@waggle/protocol/membership';
import { clusterOf, parseGenesis, type Cluster } from '@waggle/protocol/sealing';
import type { Clock } from '../clock.ts';
import { nodeCrypto } from '../node-crypto.ts';
import type { JoinLink, Transport } from '../transport/index.ts';
import { decodeJoinFrame, decodeTold, encodeJoinFrame, plainText } from './frames.ts';

/** How often each address of an invite is tried. */
const ROUNDS = 3;
/** Between two rounds, in ms: this, then double; up to half more by chance. */
const BACK_OFF_MS = 1_000;
/** How long a member may take to answer, and then for each page, in ms. */
const ANSWER_MS_MAX = 30_000;
const PAGE_MS_MAX = 10_000;

/** What a member told a newcomer. */
export interface Joined {
  /** Of the genesis whose hash the invite names. */
  readonly cluster: Cluster;
  /** Those that the member held, and the newcomer's own. Not verified: `Authority.fold` does. */
  readonly facts: readonly RosterFact[];
  /** Of members. */
  readonly addresses: readonly InviteAddress[];
  /** The epoch that it meters in. */
  readonly openEpoch: Epoch;
}

export interface JoinOptions {
  /** Opened with the transport key and the invite's cluster. */
  readonly transport: Pick<Transport, 'join'>;
  readonly invite: Invite;
  readonly keys: JoinerKeys;
  readonly clock: Clock;
  readonly random: Random;
}

/** What every member would say: there is no use in asking another one, who might not have heard of it yet. */
const FINAL: ReadonlySet<ErrorCode> = new Set([
  'INVITE_INVALID',
  'INVITE_EXPIRED',
  'INVITE_USED',
  'FACT_REFUSED',
  'SIGNATURE_INVALID',
]);

/**
 * Asks the members that an invite names, one after the other, to be admitted with these keys. May be asked again with the same
 * ones: who is admitted already is told again. Throws `INVITE_INVALID`, `INVITE_EXPIRED`, `INVITE_USED`, `FACT_REFUSED` or
 * `SIGNATURE_INVALID` as the first member that answers says so; `PEER_UNREACHABLE` when none could be reached, or none could
 * admit anybody now.
 */
export async function joinCluster(options: JoinOptions): Promise<Joined> {
  const { invite, keys, clock, random } = options;
  let last: unknown;
  for (let round = 0; round < ROUNDS; round++) {
    if (round > 0) await wait(clock, BACK_OFF_MS * 2 ** (round - 1) + random.below(BACK_OFF_MS / 2));
    for (const address of invite.addresses)
      try {
        return await ask(options, createAdmit(invite, keys, clock.nowMs(), nodeCrypto), address);
      } catch (error) {
        if (!(error instanceof WaggleError)) throw error;
        if (FINAL.has(error.code)) throw advised(error, invite, clock.nowMs());
        last = error;
      }
  }
  const where = invite.addresses.map(({ host, port }) => `${host}:${port}`).join(', ');
  throw new WaggleError(
    'PEER_UNREACHABLE',
    `Expected a member that admits this node at ${where} (UDP), asked ${ROUNDS} times: ${(last as Error).message}`,
    { cause: last },
  );
}

/** A refusal, with what to do about it where that is plain. */
function advised(error: WaggleError, { grant }: Invite, nowMs: number): WaggleError {
  const { code, message } = error;
  const leftMs = grant.expiresMs - nowMs;
  // A newcomer's own fact says when it joined: with a clock that is ahead, members refuse the fact, and not its invite.
  if (code === 'INVITE_EXPIRED' || (code === 'FACT_REFUSED' && leftMs < 0)) {
    const seconds = Math.ceil(Math.abs(leftMs) / 1_000);
    const says = leftMs < 0 ? `it expired ${seconds} s ago` : `it is good for ${seconds} s more`;
    return new WaggleError(
      'INVITE_EXPIRED',
      `${message}. By the clock of this machine ${says}: check that clock, or make another with \`waggle invite\``,
    );
  }
  return code === 'INVITE_USED' ? new WaggleError(code, `${message}. Make another with \`waggle invite\``) : error;
}

const wait = (clock: Clock, ms: number): Promise<void> =>
  new Promise((resolve) => {
    clock.after(ms, resolve);
  });

/** Asks one member. Throws what it says, `DECODE_FAILED` for what no member says, `NOT_READY` when it is silent. */
async function ask({ transport, invite }: JoinOptions, admit: Admit, address: InviteAddress): Promise<Joined> {
  const { transportKey, host, port } = address;
  const send = (link: JoinLink, frame: Parameters<typeof encodeJoinFrame>[1]): boolean =>
    link.send(encodeJoinFrame(invite.cluster, frame));
  let link: JoinLink | undefined;
  const pages: Uint8Array[] = [];
  let held = 0;
  try {
    return await new Promise<Joined>((resolve, reject) => {
      const next = (bytes: Uint8Array): void => {
        const frame = decodeJoinFrame(invite.cluster, bytes);
        if (frame.type === 'refused') throw refusal(frame.code, frame.reason);
        if (frame.type !== 'page' || frame.offset !== held || frame.bytes.length === 0)
          throw new WaggleError('DECODE_FAILED', `Expected the page at ${held}, received something else`);
        pages.push(frame.bytes);
        held += frame.bytes.length;
        if (held >= frame.total) return resolve(joined(concat(...pages), invite, admit));
        link!.allow(PAGE_MS_MAX);
        send(link!, { type: 'next', offset: held });
      };
      const handlers = {
        message: (bytes: Uint8Array) => {
          try {
            next(bytes);
          } catch (error) {
            reject(error);
          }
        },
        closed: () => reject(new WaggleError('NOT_READY', `Expected ${host}:${port} to answer; it went away`)),
      };
      transport.join(transportKey as MemberKey, { host, port }, handlers).then((opened) => {
        link = opened;
        opened.allow(ANSWER_MS_MAX);
        send(opened, { type: 'ask', fact: encodeFact(admit) });
      }, reject);
    });
  } finally {
    link?.close();
  }
}

/** What a member said, as an error of ours. */
const refusal = (code: string, reason: string): WaggleError =>
  new WaggleError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : 'INTERNAL', plainText(reason));

function joined(bytes: Uint8Array, invite: Invite, admit: Admit): Joined {
  const told = decodeTold(bytes);
  const cluster = clusterOf(parseGenesis(told.genesis), nodeCrypto);
  if (cluster.id !== invite.cluster)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected the genesis of cluster ${invite.cluster}, received that of ${cluster.id}`,
    );
  const facts = parseFacts(told.facts);
  const isHeld = facts.some((fact) => fact.kind === 'admit' && fact.replica === admit.replica);
  return { cluster, facts: isHeld ? facts : [...facts, admit], addresses: told.addresses, openEpoch: told.openEpoch };
}
