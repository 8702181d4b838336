import { base64, hex, WaggleError, type ReplicaId } from '@waggle/protocol/base';
import type { Authority, InviteAddress, RosterWarning } from '@waggle/protocol/authority';
import { INVITE_ADDRESSES_MAX } from '@waggle/protocol/authority';
import type { MemberState, MemberView } from '@waggle/protocol/membership';
import type { Lag } from '@waggle/protocol/replication';
import { isIn, quorumOf, ROSTER_MAX, type Evidence, type Roster, type SealingStatus } from '@waggle/protocol/sealing';
import type { ApartClock } from '@waggle/protocol/member';
import type { NodeEntry } from '@waggle/runtime';
import type { Address } from '@waggle/runtime/transport';
import { clockText, evidenceText } from './alarms.ts';

/** What a node knows of its cluster; the driver is one. Two nodes may know different things at the same time. */
export interface ClusterSource {
  readonly standing: { readonly replica: ReplicaId };
  /** This node and all others heard of since its start. */
  readonly members: readonly MemberView[];
  readonly authority: Pick<Authority, 'admittedReplicas' | 'statusOf'>;
  /** Of the epoch to be sealed next. */
  readonly roster: Roster;
  /** What is to be known of the roster after the next seal. */
  readonly rosterWarnings: readonly RosterWarning[];
  readonly directory: ReadonlyMap<ReplicaId, NodeEntry>;
  readonly openEpoch: number;
  readonly sealingEpoch: number;
  readonly sealingStatus: Pick<SealingStatus, 'mayLeave'>;
  /** Members whose clocks are more than a minute from their median, this node too. */
  readonly apartClocks: readonly ApartClock[];
  /** ms since all that a member had to show was held here; null if that has not been since the start. */
  lag(replica: ReplicaId): Lag;
  /** Who is known to hold this replica's registers up to a version, itself left out. */
  heldBy(version: number): readonly ReplicaId[];
}

/** A member as this node sees it. */
export interface MemberEntry {
  readonly replica: ReplicaId;
  /** Transport key, hexadecimal. */
  readonly member: string;
  /** The same in base64. */
  readonly transportKey: string;
  /** `unheard`: part of the cluster, but nothing was heard of it since this node's start. */
  readonly state: MemberState | 'unheard';
  /** When it got into this state, in ms of this node's monotonic clock; null if unheard. */
  readonly sinceMs: number | null;
  readonly incarnation: number;
  /** What the operator said of it. */
  readonly status: 'admitted' | 'retired';
  /** Whether it may vote on the epoch to be sealed next. */
  readonly votes: boolean;
  readonly lag: Lag;
  /** What it says of itself, unless that has not come yet. */
  readonly entry: NodeEntry | null;
}

const NO_LAG: Lag = { control: 0, usage: 0 };

/** Whether a member counts as reachable: a suspect is, until it is confirmed dead (SWIM §4.2). */
const isLive = ({ state }: Pick<MemberEntry, 'state'>): boolean => state === 'alive' || state === 'suspect';

/** All that belong to the cluster and may connect, in order of their ids, this node among them. */
export function memberEntries(source: ClusterSource): MemberEntry[] {
  const { members, authority, roster, directory, standing } = source;
  const heard = new Map(members.map((view) => [view.replica, view]));
  const voters = new Set(roster.map(({ replica }) => replica));
  return authority.admittedReplicas().map(({ replica, transportKey }) => {
    const view = heard.get(replica);
    const isSelf = replica === standing.replica;
    return {
      replica,
      member: hex.encode(base64.decode(transportKey)),
      transportKey,
      state: view?.state ?? (isSelf ? 'alive' : 'unheard'),
      sinceMs: view?.sinceMs ?? null,
      incarnation: view?.incarnation ?? 0,
      status: authority.statusOf(replica) === 'retired' ? 'retired' : 'admitted',
      votes: voters.has(replica),
      lag: isSelf ? NO_LAG : source.lag(replica),
      entry: directory.get(replica) ?? null,
    };
  });
}

/**
 * ms since all that a member that is there had to show was held here, or since it was found to be there: before, it could not be
 * in step.
 * `steadyMs` is now by the monotonic clock.
 */
export const lagOf = ({ lag, sinceMs }: MemberEntry, of: keyof Lag, steadyMs: number): number =>
  Math.min(lag[of] ?? Number.POSITIVE_INFINITY, Math.max(0, steadyMs - (sinceMs ?? steadyMs)));

/**
 * Whether this node holds all that a member had which knows the cluster's customers. Two newcomers that know nothing are level
 * with each other, too.
 */
export const hasCaughtUp = (source: ClusterSource): boolean =>
  source.members.some(
    ({ replica }) =>
      replica !== source.standing.replica &&
      source.directory.get(replica)?.informed === true &&
      source.lag(replica).control !== null,
  );

/** Whether the operator has put this node out of the cluster, and it knows: nobody takes what it counts or changes. */
export const isBanned = ({ authority, standing }: Pick<ClusterSource, 'authority' | 'standing'>): boolean =>
  authority.statusOf(standing.replica) === 'banned';

/** Those that are reachable, this node among them. */
export const liveEntries = (source: ClusterSource): MemberEntry[] => memberEntries(source).filter(isLive);

/** Those that somebody misses when they are gone: retired members are left out unless they still answer. */
export const countedEntries = (source: ClusterSource): MemberEntry[] =>
  memberEntries(source).filter((entry) => entry.status === 'admitted' || isLive(entry));

/** How far a change has got: live members that are known to have it, of all live members, this node among both. */
export interface VisibleAt {
  readonly members: number;
  readonly of: number;
}

/** How far the registers of this replica up to a version have got. */
export function visibleAt(source: ClusterSource, version: number): VisibleAt {
  const held = new Set<ReplicaId>([...source.heldBy(version), source.standing.replica]);
  const live = new Set([source.standing.replica, ...source.members.filter(isLive).map(({ replica }) => replica)]);
  return { members: [...live].filter((replica) => held.has(replica)).length, of: live.size };
}

/** Whose figures a cluster-wide sum holds, and how old they are: harvest (Fox and Brewer 1999). */
export interface Coverage {
  /**
   * As of when everything is in it that the live members had counted, in Unix ms; null while one of them was not compared since
   * this node's start: what that has counted, at any time, may be missing.
   */
  readonly asOfMs: number | null;
  /** As of when the figures of the member are that was compared longest ago, dead ones included, of those that were; in Unix ms. */
  readonly oldestMs: number;
  /** Members whose figures are in it as of a known time, of all that count. */
  readonly members: number;
  readonly of: number;
  readonly replicas: readonly {
    readonly replica: ReplicaId;
    readonly url: string | null;
    readonly state: MemberEntry['state'];
    /** Everything that it counted before is in it; null: not compared since this node's start, what is on disk here is in it. */
    readonly asOfMs: number | null;
  }[];
}

/** The coverage of a sum that is made now. */
export function coverageOf(source: ClusterSource, nowMs: number): Coverage {
  const entries = countedEntries(source);
  const ageMs = ({ lag }: MemberEntry): number[] => (lag.usage === null ? [] : [lag.usage]);
  const live = entries.filter(isLive);
  const isKnown = live.every(({ lag }) => lag.usage !== null);
  return {
    asOfMs: isKnown ? nowMs - Math.max(0, ...live.flatMap(ageMs)) : null,
    oldestMs: nowMs - Math.max(0, ...entries.flatMap(ageMs)),
    members: entries.flatMap(ageMs).length,
    of: entries.length,
    replicas: entries.map(({ replica, entry, state, lag }) => ({
      replica,
      url: entry?.url ?? null,
      state,
      asOfMs: lag.usage === null ? null : nowMs - lag.usage,
    })),
  };
}

/**
 * Where a joiner may ask: this node first, at the address that it gives the others, then other live members, one address of each as
 * long as there is room.
 */
export function inviteAddresses(source: ClusterSource, own: Address): InviteAddress[] {
  const isOwn = ({ replica }: MemberEntry): boolean => replica === source.standing.replica;
  return liveEntries(source)
    .sort((a, b) => Number(isOwn(b)) - Number(isOwn(a)))
    .flatMap((member) => {
      const { transportKey, entry } = member;
      const address = isOwn(member) ? own : entry?.addresses[0];
      return address === undefined ? [] : [{ transportKey, ...address }];
    })
    .slice(0, INVITE_ADDRESSES_MAX);
}

/** What to say of an invite with these addresses; empty if nothing. */
export const inviteWarnings = (addresses: readonly Pick<InviteAddress, 'host'>[]): string[] =>
  addresses.every(({ host }) => host.startsWith('127.'))
    ? [
        'Every address in it is a loopback address: it works on this machine only. Start the nodes with --swarm on an address that the others can reach, or with --swarm-advertise.',
      ]
    : [];

/** Epochs that wait to be sealed before someone should look: the one that just ended, and one more. */
const WAITING_EPOCHS_MAX = 2;
/** How long a live member may be out of step, in ms: 30 exchanges. */
const LAG_MS_MAX = 30_000;

/** Pieces of evidence that are told one by one: the last. */
const EVIDENCE_TEXTS_MAX = 64;

/**
 * What an operator should look into, as this node sees it: a sentence each. `steadyMs` is now by the monotonic clock; `evidence` is
 * what others wrote about sealing that no correct node writes.
 */
export function alarmsOf(source: ClusterSource, steadyMs: number, evidence: readonly Evidence[]): string[] {
  const entries = memberEntries(source);
  const own = source.authority.statusOf(source.standing.replica);
  const late = entries.filter(
    (entry) => isLive(entry) && (['control', 'usage'] as const).some((of) => lagOf(entry, of, steadyMs) > LAG_MS_MAX),
  );
  const waiting = source.openEpoch - source.sealingEpoch;
  return [
    ...(own === 'admitted' ? [] : [`This node was ${own}${own === 'retired' ? `: ${leaveText(source)}` : ''}.`]),
    ...votersAlarms(source, entries),
    ...source.rosterWarnings.flatMap((warning) => (warning.type === 'rosterOfTwo' ? [] : [rosterText(warning)])),
    ...late.map(({ replica }) => `Replica ${replica} answers, but has not been in step for ${LAG_MS_MAX / 1000} s.`),
    ...(waiting > WAITING_EPOCHS_MAX ? [`${waiting} epochs have ended and wait to be sealed.`] : []),
    ...clockAlarms(source),
    ...evidenceAlarms(evidence),
  ];
}

/** Whether a retired node may be stopped for good: seals that only leavers hold would be lost with them. */
function leaveText({ standing, roster, sealingStatus }: ClusterSource): string {
  if (isIn(roster, standing.replica)) return 'it votes until a seal has taken that up, let it run';
  return sealingStatus.mayLeave
    ? 'it may be stopped for good'
    : 'no majority of the voters is known to hold the last seal yet, so let it run and keep its disk';
}

const clockAlarms = ({ standing, apartClocks }: ClusterSource): string[] =>
  apartClocks.map(({ replica, aheadMs }) => {
    const text = clockText(replica === standing.replica ? null : replica, aheadMs);
    return `${text}: check it, epochs close by it.`;
  });

function evidenceAlarms(evidence: readonly Evidence[]): string[] {
  const texts = evidence.slice(-EVIDENCE_TEXTS_MAX).map((piece) => `${evidenceText(piece)}.`);
  const more = evidence.length - texts.length;
  return more === 0 ? texts : [`${more} earlier ones are in evidence.jsonl.`, ...texts];
}

/** Of the voters on the epoch to be sealed next: who is reachable, and who is not and why. Banned ones connect no more. */
function votersOf({ roster, authority }: ClusterSource, entries: readonly MemberEntry[]) {
  const states = new Map(entries.map((entry) => [entry.replica, entry]));
  const gone = roster.flatMap(({ replica }) => {
    const entry = states.get(replica);
    if (authority.statusOf(replica) === 'banned') return [{ replica, why: 'was banned' }];
    return entry !== undefined && isLive(entry) ? [] : [{ replica, why: `is ${entry?.state ?? 'unheard'}` }];
  });
  return { gone, reachable: roster.length - gone.length, quorum: quorumOf(roster) };
}

function votersAlarms(source: ClusterSource, entries: readonly MemberEntry[]): string[] {
  const { roster } = source;
  const { gone, reachable, quorum } = votersOf(source, entries);
  const alarms = gone.map(
    ({ replica, why }) => `Replica ${replica} may vote and ${why}: every seal waits for it until its deadline.`,
  );
  if (reachable < quorum)
    alarms.push(`${reachable} of ${roster.length} voters are reachable: no epoch is sealed until ${quorum} are.`);
  const isOfTwo = roster.length === 2 || source.rosterWarnings.some(({ type }) => type === 'rosterOfTwo');
  return isOfTwo ? [...alarms, TWO_VOTERS] : alarms;
}

/** Who votes, or does not, other than its status says. */
function rosterText({ type, replica }: Exclude<RosterWarning, { readonly type: 'rosterOfTwo' }>): string {
  switch (type) {
    case 'lastStays':
      return `Replica ${replica} was put out and votes on: nobody else would. Let others join.`;
    case 'waitsForThird':
      return `Replica ${replica} counts, and does not vote until a third node has joined.`;
    case 'rosterFull':
      return `Replica ${replica} counts, and does not vote: ${ROSTER_MAX} others do.`;
    case 'inviteUsed':
      return `Replica ${replica} counts, and does not vote: others had used up its invite at the same time. Let it join anew with another.`;
  }
}

const TWO_VOTERS = 'Of two voters both are needed, and one lost disk ends sealing: let a third join.';

/** What to say when a voter was put out. */
export function rosterWarnings(source: ClusterSource): string[] {
  const { roster, authority } = source;
  const staying = roster.filter(({ replica }) => authority.statusOf(replica) === 'admitted');
  const { reachable, quorum } = votersOf(source, memberEntries(source));
  const stuck =
    `It takes effect once an epoch is sealed, which takes ${quorum} of the ${roster.length} voters: ${reachable} are reachable. ` +
    'Until the others are back, nothing is sealed.';
  return [...(staying.length === 2 ? [TWO_VOTERS] : []), ...(reachable < quorum ? [stuck] : [])];
}

/**
 * Throws `BAN_REFUSED` where banning a replica leaves fewer voters than the epoch to be sealed next takes: the roster only changes
 * with a seal, so that no later one would come.
 */
export function demandQuorumWithout(source: ClusterSource, replica: ReplicaId): void {
  const { roster, authority } = source;
  if (roster.every((entry) => entry.replica !== replica)) return;
  const live = new Set(liveEntries(source).map((entry) => entry.replica));
  const left = roster.filter(
    (entry) => entry.replica !== replica && live.has(entry.replica) && authority.statusOf(entry.replica) === 'admitted',
  ).length;
  const quorum = quorumOf(roster);
  if (left >= quorum) return;
  throw new WaggleError(
    'BAN_REFUSED',
    `Expected ${quorum} of the ${roster.length} voters to be left and reachable, which every seal takes, received a ban that ` +
      `leaves ${left}: let others join and wait until they vote, or ban it all the same with force (--force)`,
  );
}
