import { assert, utf8, WaggleError, type Epoch, type ReplicaId } from '@waggle/protocol/base';
import { parseFact, type Admit, type Authority, type InviteAddress } from '@waggle/protocol/authority';
import type { MemberKey } from '@waggle/protocol/membership';
import { encodeGenesis, type Cluster } from '@waggle/protocol/sealing';
import type { Clock } from '../clock.ts';
import type { JoinHandlers, JoinLink } from '../transport/index.ts';
import {
  decodeJoinFrame,
  encodeJoinFrame,
  encodeTold,
  PAGE_BYTES_MAX,
  plainText,
  TOLD_BYTES_MAX,
  type JoinFrame,
} from './frames.ts';

/** How long the disk may take to hold an admit fact, others before it included, in ms. */
const ADMIT_MS_MAX = 30_000;
/** How long a newcomer may take to call for the next page, in ms. */
const PAGE_MS_MAX = 10_000;

export interface WelcomeOptions {
  readonly cluster: Cluster;
  readonly authority: Pick<Authority, 'checkJoin' | 'facts' | 'replicaOf' | 'statusOf'>;
  readonly clock: Pick<Clock, 'nowMs'>;
  /** Where the members that this node knows are, itself included. */
  readonly addresses: () => readonly InviteAddress[];
  /** The epoch that this node meters in: the first one for the newcomer. */
  readonly openEpoch: () => Epoch;
  /** Writes the fact into a register of this replica, under `factKey`: resolves when it is on disk and in `authority`. */
  readonly admit: (fact: Admit) => Promise<void>;
  /** A newcomer was admitted that was not before. */
  readonly joined: (replica: ReplicaId) => void;
  /** One was sent away, and why. */
  readonly refused: (from: MemberKey, error: WaggleError) => void;
}

/** One newcomer, while its link lasts. */
interface Visit {
  readonly link: JoinLink;
  hasAsked: boolean;
  isClosed: boolean;
  /** What it is told, and how much of it was sent. */
  told: Uint8Array | null;
  sent: number;
}

/**
 * A member's side of joining: checks who asks, writes the admit fact, and tells the newcomer what it needs to be a member.
 * A newcomer asks once per link. Who was admitted before is told again, whatever became of its invite: it may have crashed
 * before it could keep what it was told.
 *
 * Admissions come one after the other, so that of two that ask at once with one single-use invite this node takes one. How many
 * strangers there are, and how long one that has shown nothing may stay, is for the transport to bound.
 */
export class Welcome {
  readonly #options: WelcomeOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: WelcomeOptions) {
    this.#options = options;
  }

  /** As `TransportHandlers.joiner`. */
  readonly joiner = (link: JoinLink): JoinHandlers => {
    const visit: Visit = { link, hasAsked: false, isClosed: false, told: null, sent: 0 };
    return {
      message: (bytes) => this.#message(visit, bytes),
      closed: () => {
        visit.isClosed = true;
        visit.told = null;
      },
    };
  };

  #message(visit: Visit, bytes: Uint8Array): void {
    // After a refusal, what was on its way is of no interest.
    if (visit.isClosed) return;
    try {
      const frame = decodeJoinFrame(this.#options.cluster.id, bytes);
      if (frame.type === 'ask' && !visit.hasAsked) this.#asked(visit, frame.fact);
      else if (frame.type === 'next' && visit.told !== null && frame.offset === visit.sent)
        this.#page(visit, visit.told);
      else throw new WaggleError('DECODE_FAILED', `Expected one request to join, received ${frame.type}`);
    } catch (error) {
      this.#refuse(visit, error);
    }
  }

  #asked(visit: Visit, text: string): void {
    visit.hasAsked = true;
    const fact = parseFact(text);
    if (fact.kind !== 'admit' || fact.transportKey !== visit.link.key)
      throw new WaggleError('FACT_REFUSED', `Expected a fact that admits ${visit.link.key}, received another`);
    this.#check(visit, fact);
    visit.link.allow(ADMIT_MS_MAX);
    this.#last = this.#last.then(async () => {
      if (visit.isClosed) return;
      try {
        await this.#admit(visit, fact);
        this.#tell(visit);
      } catch (error) {
        this.#refuse(visit, error);
      }
    });
  }

  /** Whether the newcomer is part of the cluster already; throws if it must not become one. */
  #check(visit: Visit, fact: Admit): boolean {
    const { authority, clock } = this.#options;
    // By the key that the link proves: what an unchecked fact says of its replica may be another's.
    const replica = authority.replicaOf(visit.link.key);
    if (replica !== undefined && authority.statusOf(replica) === 'admitted') return true;
    authority.checkJoin(fact, clock.nowMs());
    return false;
  }

  async #admit(visit: Visit, fact: Admit): Promise<void> {
    // Again: another may have taken the invite's last use meanwhile.
    if (this.#check(visit, fact)) return;
    await this.#options.admit(fact);
    this.#options.joined(fact.replica);
  }

  #tell(visit: Visit): void {
    if (visit.isClosed) return;
    const { cluster, authority, addresses, openEpoch } = this.#options;
    const told = encodeTold({
      genesis: utf8(encodeGenesis(cluster.genesis)),
      facts: authority.facts().bytes,
      addresses: addresses(),
      openEpoch: openEpoch(),
    });
    assert(told.length <= TOLD_BYTES_MAX, `at most ${TOLD_BYTES_MAX} bytes for a newcomer, not ${told.length}`);
    visit.told = told;
    this.#page(visit, told);
  }

  #page(visit: Visit, told: Uint8Array): void {
    const bytes = told.subarray(visit.sent, visit.sent + PAGE_BYTES_MAX);
    visit.link.allow(PAGE_MS_MAX);
    if (!this.#send(visit, { type: 'page', total: told.length, offset: visit.sent, bytes })) return visit.link.close();
    visit.sent += bytes.length;
    // The newcomer closes when it has all: closed from here, the last page might be cut.
    if (visit.sent === told.length) visit.told = null;
  }

  #refuse(visit: Visit, cause: unknown): void {
    const error = cause instanceof WaggleError ? cause : new WaggleError('INTERNAL', undefined, { cause });
    this.#options.refused(visit.link.key, error);
    if (visit.isClosed) return;
    visit.isClosed = true;
    this.#send(visit, { type: 'refused', code: error.code, reason: plainText(error.message) });
    visit.link.close();
  }

  #send({ link }: Visit, frame: JoinFrame): boolean {
    return link.send(encodeJoinFrame(this.#options.cluster.id, frame));
  }
}
