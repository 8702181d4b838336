import {
  base64,
  compareText,
  digestOf,
  WaggleError,
  type ClusterId,
  type Crypto,
  type Digest,
  type ReplicaId,
} from '../base/index.ts';
import type { Cluster, PastWriter, Roster, RosterEntry } from '../sealing/index.ts';
import { FactSet, heldFact, sortOf, type HeldFact } from './fact-set.ts';
import { encodeFacts, factKey, factLines, parseFact, parseFacts, type Admit, type RosterFact } from './facts.ts';
import { checkInvite } from './invite.ts';
import { replicaIdOf } from './proof.ts';
import { nextRoster, type RosterWarning } from './roster-change.ts';
import { verifyAdmit, verifyFact } from './verify.ts';

/** Facts held at most of each sort: admits; retirements by the replicas themselves; what the operator signed. */
export const FACTS_MAX = 10_000;

/** What the facts say of a replica: ban over retire, retire over admit. */
export type ReplicaStatus = 'unknown' | 'admitted' | 'retired' | 'banned';

/** The roster facts that a node holds, as a close names them. */
export interface FactsContent {
  /** As `encodeFacts`. */
  readonly bytes: Uint8Array;
  readonly digest: Digest;
}

export interface AuthorityOptions {
  readonly cluster: Cluster;
  readonly crypto: Crypto;
}

/**
 * A view: who belongs to the cluster, from the genesis and the roster facts in the registers of all replicas. A fact proves
 * itself, so it does not matter who wrote it; any order and repetition gives the same view, until a bound is met.
 *
 * Who connects and who votes are two things. All that a member has accepted may connect, also the second of two joiners with
 * one single-use invite, so that nothing that it counted is lost; who votes is for `nextRoster`. Whoever is banned keeps its
 * key: what it wrote before is held everywhere, and must be taken by those who come later.
 */
export class Authority {
  readonly #cluster: Cluster;
  readonly #crypto: Crypto;
  readonly #set: FactSet;
  readonly #founders: ReadonlyMap<ReplicaId, RosterEntry>;
  readonly #founderKeys: ReadonlyMap<string, ReplicaId>;
  /** Replicas of earlier clusters: what they wrote is read, and that is all. */
  readonly #past: ReadonlyMap<ReplicaId, PastWriter>;
  #refused = 0;
  #content: FactsContent | undefined;
  #admitted: readonly RosterEntry[] | undefined;

  constructor({ cluster, crypto }: AuthorityOptions) {
    this.#cluster = cluster;
    this.#crypto = crypto;
    this.#set = new FactSet(crypto);
    this.#founders = new Map(cluster.genesis.roster.map((entry) => [entry.replica, entry]));
    this.#founderKeys = new Map(cluster.genesis.roster.map((entry) => [entry.transportKey, entry.replica]));
    this.#past = new Map(cluster.genesis.predecessor?.writers.map((writer) => [writer.replica, writer]));
  }

  /** Registers that were no good: malformed, forged, or above a bound. They changed nothing. */
  get refused(): number {
    return this.#refused;
  }

  /** Takes in a register with a key of `isFactKey`, of whatever replica. Whether the view changed. */
  fold(key: string, value: string): boolean {
    try {
      return this.#add(key, value);
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      this.#refused++;
      return false;
    }
  }

  #add(key: string, value: string): boolean {
    const fact = parseFact(value);
    if (key !== factKey(fact))
      throw new WaggleError('DECODE_FAILED', `Expected the fact of register ${key.slice(0, 80)}, received another`);
    const held = heldFact(fact, this.#crypto);
    // Many replicas hold the same fact: its signatures are checked once.
    if (this.#set.has(held.hash)) return false;
    verifyFact(fact, this.#cluster, this.#crypto);
    return this.#hold(held);
  }

  #hold(held: HeldFact): boolean {
    if (this.#set.count(sortOf(held.fact)) >= FACTS_MAX)
      throw new WaggleError('DECODE_FAILED', `Expected at most ${FACTS_MAX} roster facts of a sort`);
    if (!this.#set.add(held)) return false;
    this.#content = undefined;
    this.#admitted = undefined;
    return true;
  }

  /** What the facts say of a replica. */
  statusOf(replica: ReplicaId): ReplicaStatus {
    if (this.#set.isBanned(replica)) return 'banned';
    if (this.#set.isRetired(replica)) return 'retired';
    return this.#entryOf(replica) === undefined ? 'unknown' : 'admitted';
  }

  /** The text of the fact by which the holder of a transport key (base64) is banned, and its register's key; null unless it is. */
  banOf(transportKey: string): { readonly key: string; readonly text: string } | null {
    const replica = this.replicaOf(transportKey);
    const ban = replica === undefined ? undefined : this.#set.of(replica).find(({ fact }) => fact.kind === 'ban');
    return ban === undefined ? null : { key: factKey(ban.fact), text: ban.text };
  }

  /** Whether the holder of a transport key (base64) may connect: of the genesis or ever admitted, retired or not, and not banned. */
  mayConnect(transportKey: string): boolean {
    const replica = this.replicaOf(transportKey);
    return replica !== undefined && !this.#set.isBanned(replica);
  }

  /** The replica of a transport key (base64), banned or not; undefined for a stranger's. Throws `DECODE_FAILED` unless it is base64. */
  replicaOf(transportKey: string): ReplicaId | undefined {
    const founder = this.#founderKeys.get(transportKey);
    if (founder !== undefined) return founder;
    const replica = replicaIdOf(transportKey, this.#crypto);
    return this.#set.admitOf(replica) === undefined ? undefined : replica;
  }

  /** The transport key that signs a replica's control registers, 32 bytes, banned or not; undefined for a stranger. */
  keyOf(replica: ReplicaId): Uint8Array | undefined {
    const entry = this.#entryOf(replica) ?? this.#past.get(replica);
    return entry === undefined ? undefined : base64.decode(entry.transportKey);
  }

  /** The cluster that the signatures of a replica's control registers are bound to: of its own time. */
  boundTo(replica: ReplicaId): ClusterId {
    return this.#past.get(replica)?.cluster ?? this.#cluster.id;
  }

  /** All that may connect, in roster order. */
  admittedReplicas(): readonly RosterEntry[] {
    return (this.#admitted ??= this.#connecting());
  }

  /** The facts held, as a close names them. */
  facts(): FactsContent {
    if (this.#content === undefined) {
      const bytes = factLines(Array.from(this.#set, ({ text }) => text));
      this.#content = { bytes, digest: digestOf(this.#crypto, bytes) };
    }
    return this.#content;
  }

  /** Of a content that a close or frontier names, the facts that prove themselves; of one that is none, nothing. */
  proven(bytes: Uint8Array): Uint8Array {
    const isProven = (fact: RosterFact): boolean => {
      try {
        if (!this.#set.has(heldFact(fact, this.#crypto).hash)) verifyFact(fact, this.#cluster, this.#crypto);
        return true;
      } catch (error) {
        if (error instanceof WaggleError) return false;
        throw error;
      }
    };
    try {
      return encodeFacts(parseFacts(bytes).filter(isProven));
    } catch (error) {
      if (error instanceof WaggleError) return new Uint8Array(0);
      throw error;
    }
  }

  /**
   * Whether this node may accept a joiner now, by its own clock and by what it has heard; asked again for the same replica and
   * invite it gives the same answer. Whoever accepts writes the fact into its own registers, under `factKey`.
   * Throws `INVITE_INVALID` and `INVITE_EXPIRED` as `checkInvite`, `INVITE_USED`, `FACT_REFUSED` for a replica that was retired
   * or banned, and `SIGNATURE_INVALID` for a fact that does not prove itself.
   */
  checkJoin(fact: Admit, nowMs: number): void {
    checkInvite(fact, this.#cluster, nowMs, this.#crypto);
    verifyAdmit(fact, this.#cluster, this.#crypto);
    const status = this.statusOf(fact.replica);
    if (status === 'retired' || status === 'banned')
      throw new WaggleError('FACT_REFUSED', `Expected a replica in good standing, received one that was ${status}`);
    const others = this.#set.withInviteOf(fact).filter((held) => held.fact.replica !== fact.replica);
    if (others.length >= fact.grant.uses)
      throw new WaggleError(
        'INVITE_USED',
        `Expected an invite that is not used up; this one was good for ${fact.grant.uses} and ${others.length} joined with it`,
      );
  }

  /** What the operator should know of the roster that would follow on one now, as far as is known here (`nextRoster`). */
  rosterWarnings(roster: Roster, seen: ReadonlySet<ReplicaId>): readonly RosterWarning[] {
    const facts = Array.from(this.#set, ({ fact }) => fact);
    return nextRoster(roster, facts, seen, this.#crypto).warnings;
  }

  #entryOf(replica: ReplicaId): RosterEntry | undefined {
    return this.#founders.get(replica) ?? this.#set.admitOf(replica);
  }

  #connecting(): RosterEntry[] {
    const entries = new Map(this.#founders);
    for (const { fact } of this.#set)
      if (fact.kind === 'admit') entries.set(fact.replica, this.#set.admitOf(fact.replica)!);
    return [...entries.values()]
      .filter(({ replica }) => !this.#set.isBanned(replica))
      .sort((a, b) => compareText(a.replica, b.replica))
      .map(({ replica, transportKey, logKey, cosignerKey }) => ({ replica, transportKey, logKey, cosignerKey }));
  }
}
