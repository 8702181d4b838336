import { compareText, digestOf, utf8, type Crypto, type Digest, type ReplicaId } from '../base/index.ts';
import { encodeFact, type Admit, type RosterFact } from './facts.ts';
import { inviteId } from './invite.ts';

/**
 * Replicas beyond its uses that are held of one invite. Two members that cannot hear each other may each accept a joiner with
 * one invite; both are part of the cluster then and bring their usage, though one only votes. Correct members never make
 * many of them: beyond this someone misuses the invite, and it is bounded.
 */
export const SURPLUS_MAX = 16;

/** A fact with what it is compared by. */
export interface HeldFact {
  readonly fact: RosterFact;
  /** As `encodeFact`. */
  readonly text: string;
  /** Digest of the text: of two joiners with one invite the lower is admitted. */
  readonly hash: Digest;
}

/** An admit fact with what it is compared by. */
export type HeldAdmit = HeldFact & { readonly fact: Admit };

/** Who can make facts: joiners with an invite, replicas about themselves, the operator. */
export type FactSort = 'admit' | 'own' | 'operator';

export const sortOf = (fact: RosterFact): FactSort => {
  if (fact.kind === 'admit') return 'admit';
  return fact.kind === 'retire' && fact.transportKey !== null ? 'own' : 'operator';
};

const isAdmit = (held: HeldFact): held is HeldAdmit => held.fact.kind === 'admit';

export const heldFact = (fact: RosterFact, crypto: Crypto): HeldFact => {
  const text = encodeFact(fact);
  return { fact, text, hash: digestOf(crypto, utf8(text)) };
};

/**
 * The union of facts, as a lattice: facts of one place compete, and the lowest hashes are kept. For admits the place is the
 * invite, with one fact per replica and `uses + SURPLUS_MAX` replicas; for the others it is replica, kind and who signed, with
 * one fact. So the same facts give the same set in any order, and nobody can fill it with facts that say the same.
 */
export class FactSet {
  readonly #crypto: Crypto;
  readonly #places = new Map<string, HeldFact[]>();
  readonly #byReplica = new Map<ReplicaId, HeldFact[]>();
  readonly #hashes = new Set<Digest>();
  readonly #counts: Record<FactSort, number> = { admit: 0, own: 0, operator: 0 };

  constructor(crypto: Crypto) {
    this.#crypto = crypto;
  }

  /** How many facts of a sort are held. */
  count(sort: FactSort): number {
    return this.#counts[sort];
  }

  has(hash: Digest): boolean {
    return this.#hashes.has(hash);
  }

  /** Takes a verified fact in. Whether the set changed. */
  add(held: HeldFact): boolean {
    const { fact } = held;
    const { place, most } = this.#placeOf(fact);
    const before = this.#places.get(place) ?? [];
    const same = before.find((other) => other.fact.replica === fact.replica);
    if (same !== undefined && same.hash <= held.hash) return false;
    const after = [...before.filter((other) => other !== same), held].sort(byHash);
    const dropped = [...after.splice(most), ...(same === undefined ? [] : [same])];
    if (dropped.includes(held)) return false;
    this.#places.set(place, after);
    for (const other of dropped) this.#unlist(other);
    this.#hashes.add(held.hash);
    this.#byReplica.set(fact.replica, [...this.of(fact.replica), held].sort(byHash));
    this.#counts[sortOf(fact)]++;
    return true;
  }

  /** The facts about a replica, by ascending hash. */
  of(replica: ReplicaId): readonly HeldFact[] {
    return this.#byReplica.get(replica) ?? [];
  }

  /** The admit fact about a replica with the lowest hash. */
  admitOf(replica: ReplicaId): Admit | undefined {
    return this.of(replica).find(isAdmit)?.fact;
  }

  isRetired(replica: ReplicaId): boolean {
    return this.of(replica).some(({ fact }) => fact.kind === 'retire');
  }

  isBanned(replica: ReplicaId): boolean {
    return this.of(replica).some(({ fact }) => fact.kind === 'ban');
  }

  /** Whether a replica was retired or banned: it votes no more. */
  isOut(replica: ReplicaId): boolean {
    return this.isRetired(replica) || this.isBanned(replica);
  }

  /** The admit facts of an invite that is known by one of them, by ascending hash. */
  withInviteOf(fact: Admit): readonly HeldAdmit[] {
    return (this.#places.get(this.#placeOf(fact).place) ?? []).filter(isAdmit);
  }

  /** The admit facts of each invite, by ascending hash. */
  invites(): (readonly HeldAdmit[])[] {
    return [...this.#places.values()].map((held) => held.filter(isAdmit)).filter((admits) => admits.length > 0);
  }

  *[Symbol.iterator](): Generator<HeldFact> {
    for (const held of this.#places.values()) yield* held;
  }

  #placeOf(fact: RosterFact): { readonly place: string; readonly most: number } {
    if (fact.kind === 'admit')
      return {
        place: `admit/${inviteId(fact.cluster, fact.grant, this.#crypto)}`,
        most: fact.grant.uses + SURPLUS_MAX,
      };
    return { place: `${fact.kind}/${fact.replica}/${sortOf(fact)}`, most: 1 };
  }

  #unlist(held: HeldFact): void {
    this.#hashes.delete(held.hash);
    this.#counts[sortOf(held.fact)]--;
    const left = this.of(held.fact.replica).filter((other) => other !== held);
    if (left.length > 0) this.#byReplica.set(held.fact.replica, left);
    else this.#byReplica.delete(held.fact.replica);
  }
}

/** Ascending by hash. */
export const byHash = (a: HeldFact, b: HeldFact): number => compareText(a.hash, b.hash);
