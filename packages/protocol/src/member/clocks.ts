import type { Epoch, ReplicaId } from '../base/index.ts';
import { CLOSE_SKEW_MS_MAX, epochBounds, type Genesis } from '../sealing/index.ts';
import type { Alarm, Now } from './types.ts';

/** How long a clock that was heard counts, in ms: longer than a member takes to start again, as its clock goes on meanwhile. */
const HEARD_MS_MAX = 300_000;
/** How long a node waits after its start for the clocks of others before it goes by its own, in ms. */
const AWAITED_MS_MAX = 10_000;
/** Of so many others the clocks are awaited after a start: with its own that makes three, of which one may be wrong. */
const AWAITED_MAX = 2;

/** Whose clocks count. */
interface Standings {
  /** Whether it may vote on the epoch to be sealed next. */
  isVoter(replica: ReplicaId): boolean;
  /** Whether it belongs to the cluster, neither retired nor banned. */
  isMember(replica: ReplicaId): boolean;
  /** How many others are members. */
  others(): number;
}

/** What the clocks say at one moment. */
interface Reading {
  /** Unix ms by the median of the clocks that count, the own one among them: the own one if none was heard. */
  readonly medianMs: number;
  /** As `medianMs`; null if none was heard, and minus infinity while others are awaited after a start: then nothing is over yet. */
  readonly membersClockMs: number | null;
  /** Members whose clocks are more than a minute from the median, this node too, and how far ahead of it each is, in ms. */
  readonly apart: readonly ApartClock[];
}

export interface ApartClock {
  readonly replica: ReplicaId;
  /** Negative: behind. */
  readonly aheadMs: number;
}

/**
 * The clocks of the members, as their messages say them. The median is the upper one, of the voters' clocks if two of them were
 * heard, else of all members', and of this node's: of three one may be wrong, either way; of two nobody can say which it is, and a
 * node is not held up by another that is behind.
 */
export class Clocks {
  readonly #self: ReplicaId;
  readonly #of: Standings;
  /** By member, how far its wall clock is ahead of our steady one, and when it was heard. */
  readonly #heard = new Map<ReplicaId, { readonly aheadMs: number; readonly atMs: number }>();
  #startedMs: number | undefined;
  #isAwaiting = true;
  /** Of whom it was said that their clocks are apart. */
  #alarmed: ReadonlySet<ReplicaId> = new Set();
  #alarmedEpoch = -1;

  constructor(self: ReplicaId, of: Standings) {
    this.#self = self;
    this.#of = of;
  }

  /** This node starts: from now on others are awaited, if there are any. */
  started(steadyMs: number): void {
    this.#startedMs ??= steadyMs;
  }

  heard(member: ReplicaId, wallMs: number, steadyMs: number): void {
    this.#heard.set(member, { aheadMs: wallMs - steadyMs, atMs: steadyMs });
  }

  read({ wallMs, steadyMs }: Now): Reading {
    for (const [member, { atMs }] of this.#heard) if (steadyMs - atMs > HEARD_MS_MAX) this.#heard.delete(member);
    const heard = [...this.#heard].filter(([member]) => this.#of.isMember(member));
    const voters = heard.filter(([member]) => this.#of.isVoter(member));
    const own = wallMs - steadyMs;
    const counted = [own, ...(voters.length >= 2 ? voters : heard).map(([, { aheadMs }]) => aheadMs)];
    const median = counted.sort((a, b) => a - b)[Math.floor(counted.length / 2)] ?? own;
    const apart = [[this.#self, own] as const, ...heard.map(([member, { aheadMs }]) => [member, aheadMs] as const)]
      .map(([replica, aheadMs]) => ({ replica, aheadMs: aheadMs - median }))
      .filter(({ aheadMs }) => Math.abs(aheadMs) > CLOSE_SKEW_MS_MAX);
    const medianMs = steadyMs + median;
    const membersClockMs = heard.length === 0 ? null : medianMs;
    const isAwaiting = this.#awaits(heard.length, steadyMs);
    return { medianMs, membersClockMs: isAwaiting ? Number.NEGATIVE_INFINITY : membersClockMs, apart };
  }

  /** Alarms that are new: each is raised once, until what it says is over. None of the open epoch while others are awaited. */
  alarms(now: Now, genesis: Genesis, openEpoch: Epoch): Alarm[] {
    const { medianMs, membersClockMs, apart } = this.read(now);
    const alarms: Alarm[] = apart
      .filter(({ replica }) => !this.#alarmed.has(replica))
      .map(({ replica, aheadMs }) => ({ what: 'clockApart', replica, aheadMs, isOwn: replica === this.#self }));
    this.#alarmed = new Set(apart.map(({ replica }) => replica));
    const { startMs, endMs } = epochBounds(genesis, openEpoch);
    // Its own clock was ahead, and is right again, or it is the only one that is: then it is held open by the others'.
    const isEarly = startMs - medianMs > CLOSE_SKEW_MS_MAX;
    const isHeldOpen = now.wallMs >= endMs && endMs - medianMs > CLOSE_SKEW_MS_MAX;
    const isAwaiting = membersClockMs === Number.NEGATIVE_INFINITY;
    if (!isAwaiting && (isHeldOpen || isEarly) && this.#alarmedEpoch !== openEpoch) {
      this.#alarmedEpoch = openEpoch;
      alarms.push({ what: 'clockAhead', epoch: openEpoch, membersClockMs: medianMs });
    }
    return alarms;
  }

  /** Whether it is too early after the start to go by a clock: only then can nothing that it closes be too much. */
  #awaits(heard: number, steadyMs: number): boolean {
    if (!this.#isAwaiting) return false;
    if (heard >= Math.min(AWAITED_MAX, this.#of.others())) this.#isAwaiting = false;
    if (this.#startedMs !== undefined && steadyMs - this.#startedMs >= AWAITED_MS_MAX) this.#isAwaiting = false;
    return this.#isAwaiting;
  }
}
