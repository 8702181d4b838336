import { assert, compareText, type Crypto, type ReplicaId } from '../base/index.ts';
import { ROSTER_MAX, type Roster, type RosterEntry } from '../sealing/index.ts';
import { byHash, FactSet, heldFact, type HeldAdmit } from './fact-set.ts';
import type { Admit, RosterFact } from './facts.ts';

/** What the operator should know of a roster. */
export type RosterWarning =
  /** It needs both: one lost disk ends sealing. */
  | { readonly type: 'rosterOfTwo' }
  /** Retired or banned, but nobody else would be left: it votes on. */
  | { readonly type: 'lastStays'; readonly replica: ReplicaId }
  /** Admitted, but with it there would be two: it counts and does not vote until a third comes. */
  | { readonly type: 'waitsForThird'; readonly replica: ReplicaId }
  /** Admitted, but there is no room: it counts and does not vote. */
  | { readonly type: 'rosterFull'; readonly replica: ReplicaId }
  /** Came with an invite that others had used up: it counts and does not vote. */
  | { readonly type: 'inviteUsed'; readonly replica: ReplicaId };

/** A roster, and what to say about it. */
export interface RosterChange {
  readonly roster: Roster;
  /** By type and replica. */
  readonly warnings: readonly RosterWarning[];
}

const entryOf = ({ replica, transportKey, logKey, cosignerKey }: Admit): RosterEntry => ({
  replica,
  transportKey,
  logKey,
  cosignerKey,
});
const byReplica = (a: RosterEntry, b: RosterEntry): number => compareText(a.replica, b.replica);

function setOf(facts: Iterable<RosterFact>, crypto: Crypto): FactSet {
  const set = new FactSet(crypto);
  for (const fact of facts) set.add(heldFact(fact, crypto));
  return set;
}

/**
 * The admit facts by which replicas outside the roster may vote, by ascending hash, one per replica. An invite's uses are taken
 * first by whoever is in the roster or was retired or banned, then by the lowest hashes: a use once taken stays so, and
 * nobody in the roster is put out by a latecomer.
 */
function newcomers(set: FactSet, roster: Roster): readonly HeldAdmit[] {
  const voters = new Set(roster.map(({ replica }) => replica));
  const winners = set.invites().flatMap((admits) => {
    const free = admits.filter(({ fact: { replica } }) => !voters.has(replica) && !set.isOut(replica));
    return free.slice(0, Math.max(0, admits[0]!.fact.grant.uses - (admits.length - free.length)));
  });
  const byReplicaId = new Map<ReplicaId, HeldAdmit>();
  for (const winner of winners.sort(byHash))
    if (!byReplicaId.has(winner.fact.replica)) byReplicaId.set(winner.fact.replica, winner);
  return [...byReplicaId.values()];
}

/** Who of a roster stays: at least one if nobody comes, one that is not banned if there is one, the lowest id. */
function staying(roster: Roster, set: FactSet, hasNewcomers: boolean): Roster {
  const stay = roster.filter(({ replica }) => !set.isOut(replica));
  if (stay.length > 0 || hasNewcomers) return stay;
  return [roster.find(({ replica }) => !set.isBanned(replica)) ?? roster[0]!];
}

/**
 * The roster that follows on one (PROTOCOL section 5), from verified facts. `seen` are the replicas that
 * follow the chain (sealing's `followingReplicas`): nobody votes before. The same roster, facts and `seen` give the same bytes at every node.
 *
 * 1. Whoever is retired or banned leaves; but the last one stays, as a roster of nobody could never seal again.
 * 2. Newcomers come within the uses of their invites; up to `ROSTER_MAX`, the lower hashes first. Nobody is replaced by one.
 * 3. No roster of two arises by a newcomer: it waits until a third can come with it.
 */
export function nextRoster(
  roster: Roster,
  facts: Iterable<RosterFact>,
  seen: ReadonlySet<ReplicaId>,
  crypto: Crypto,
): RosterChange {
  const set = setOf(facts, crypto);
  const free = newcomers(set, roster);
  const ready = free.filter(({ fact }) => seen.has(fact.replica)).map(({ fact }) => entryOf(fact));
  const stay = staying(roster, set, ready.length > 0);
  const room = ROSTER_MAX - stay.length;
  const come = ready.slice(0, room);
  const waiting = stay.length + come.length === 2 ? come.splice(-1) : [];
  const next = [...stay, ...come].sort(byReplica);
  assert(next.length > 0 && next.length <= ROSTER_MAX, `a roster of 1 to ${ROSTER_MAX}, not ${next.length}`);
  return {
    roster: next,
    warnings: [
      ...warn('inviteUsed', surplus(set, [...roster, ...free.map(({ fact }) => fact)])),
      ...warn(
        'lastStays',
        stay.filter(({ replica }) => set.isOut(replica)),
      ),
      ...warn('rosterFull', ready.slice(room)),
      ...(next.length === 2 ? [{ type: 'rosterOfTwo' } as const] : []),
      ...warn('waitsForThird', waiting),
    ],
  };
}

/** Who was admitted and neither votes nor may. */
function surplus(set: FactSet, others: Roster): RosterEntry[] {
  const rest = new Set(others.map(({ replica }) => replica));
  return set
    .invites()
    .flat()
    .map(({ fact }) => fact)
    .filter(({ replica }) => !rest.has(replica) && !set.isOut(replica));
}

const warn = (type: Exclude<RosterWarning['type'], 'rosterOfTwo'>, replicas: Roster): RosterWarning[] =>
  [...new Set(replicas.map(({ replica }) => replica))].sort(compareText).map((replica) => ({ type, replica }));
