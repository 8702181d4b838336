import type { ReplicaId, Run } from '../base/index.ts';
import { FOLLOW_MS, FOLLOWS_MAX, PEERS_MAX } from './constants.ts';
import type { Frame } from './frames.ts';
import type { Outbox } from './outbox.ts';
import { perClass } from './stats.ts';
import { CLASSES, type ClassName, type PerClass } from './types.ts';

type FrameOf<T extends Frame['type']> = Extract<Frame, { type: T }>;

interface VisibilityOptions {
  readonly run: Run;
  /** Up to where this node's own registers go. */
  readonly own: PerClass<() => number>;
  /** Up to where everything is held that a replica wrote, of usage under that run. */
  readonly heldOf: (name: ClassName, replica: ReplicaId, run: Run) => number;
}

/**
 * Who holds what this node wrote, as far as it is known. Exchanges tell in passing; whoever cannot wait for them follows: each
 * live member is asked once, by a frame of some 15 bytes, and says so as soon as it is there. What a link loses on the way is
 * asked for again, some times.
 *
 * It is the members' word: to wait for, not to count by. What they hold is in their memory, and on their disks a second later.
 */
export class Visibility {
  readonly #outbox: Outbox;
  readonly #options: VisibilityOptions;
  readonly #known = perClass(() => new Map<ReplicaId, number>());
  readonly #followed: Record<ClassName, number> = { control: 0, usage: 0 };
  /** Members who follow what this node holds of theirs. */
  readonly #followers = perClass(() => new Map<ReplicaId, { readonly run: Run; readonly version: number }>());
  /** Whether the one timer is set. */
  #isTimed = false;
  #asksLeft = 0;

  constructor(outbox: Outbox, options: VisibilityOptions) {
    this.#outbox = outbox;
    this.#options = options;
  }

  /** Those of `live`, and those known, who hold the own registers up to a version. */
  heldBy(name: ClassName, version: number, live: readonly ReplicaId[]): ReplicaId[] {
    const known = this.#known[name];
    return [...new Set([...live, ...known.keys()])].filter((member) => (known.get(member) ?? 0) >= version);
  }

  /** A member says that it holds the own registers up to there. */
  learn(member: ReplicaId, name: ClassName, claimed: number): void {
    const upTo = Math.min(claimed, this.#options.own[name]());
    if (upTo <= (this.#known[name].get(member) ?? 0)) return;
    this.#known[name].set(member, upTo);
    this.#outbox.add({ type: 'visible', replica: member, upTo, of: name });
  }

  /**
   * Asks all live members that are not known to hold so much. Whether it does: while they are being asked for as much or more, the
   * timer alone asks again, however often this is said.
   */
  follow(name: ClassName, version: number, live: readonly ReplicaId[]): boolean {
    const wanted = Math.min(version, this.#options.own[name]());
    const isAsked = wanted <= this.#followed[name] && this.#isTimed;
    this.#asksLeft = FOLLOWS_MAX;
    if (isAsked) return false;
    this.#followed[name] = Math.max(this.#followed[name], wanted);
    this.#ask(name, live);
    this.#schedule(live);
    return true;
  }

  /** Begins to ask again: what was followed may not have been shown so far. */
  again(live: readonly ReplicaId[]): void {
    this.#asksLeft = FOLLOWS_MAX;
    this.#schedule(live);
  }

  timer(live: readonly ReplicaId[]): void {
    this.#isTimed = false;
    if (this.#asksLeft-- <= 0 || !this.#isWaiting(live)) return;
    for (const name of CLASSES) this.#ask(name, live);
    this.#schedule(live);
  }

  onFollow(from: ReplicaId, { class: name, run, version }: FrameOf<'follow'>): void {
    const followers = this.#followers[name];
    if (this.#options.heldOf(name, from, run) < version && (followers.has(from) || followers.size < PEERS_MAX))
      followers.set(from, { run, version });
    else this.#tell(from, name, run);
  }

  onHolds(from: ReplicaId, { class: name, run, upTo }: FrameOf<'holds'>): void {
    // Any other run is an earlier process's.
    if (run === this.#options.run) this.learn(from, name, upTo);
  }

  /** More is held of what a replica wrote: it is told each step of the way to the version that it waits for. */
  progressed(name: ClassName, replica: ReplicaId): void {
    const follower = this.#followers[name].get(replica);
    if (follower !== undefined) this.#tell(replica, name, follower.run);
  }

  /** The link to a member is gone: it asks again. */
  linkClosed(member: ReplicaId): void {
    for (const name of CLASSES) this.#followers[name].delete(member);
  }

  /** Forgets members of whom nothing is known any more. */
  keep(members: ReadonlySet<ReplicaId>): void {
    for (const name of CLASSES)
      for (const map of [this.#known[name], this.#followers[name]])
        for (const member of map.keys()) if (!members.has(member)) map.delete(member);
  }

  #schedule(live: readonly ReplicaId[]): void {
    if (this.#isTimed || !this.#isWaiting(live)) return;
    this.#isTimed = true;
    this.#outbox.timer(FOLLOW_MS, { type: 'follows' });
  }

  #lack(name: ClassName, live: readonly ReplicaId[]): ReplicaId[] {
    return live.filter((member) => (this.#known[name].get(member) ?? 0) < this.#followed[name]);
  }

  #isWaiting(live: readonly ReplicaId[]): boolean {
    return CLASSES.some((name) => this.#lack(name, live).length > 0);
  }

  #ask(name: ClassName, live: readonly ReplicaId[]): void {
    const { run } = this.#options;
    for (const to of this.#lack(name, live))
      this.#outbox.send(to, { type: 'follow', class: name, run, version: this.#followed[name] });
  }

  #tell(to: ReplicaId, name: ClassName, run: Run): void {
    const upTo = this.#options.heldOf(name, to, run);
    if (upTo >= (this.#followers[name].get(to)?.version ?? 0)) this.#followers[name].delete(to);
    this.#outbox.send(to, { type: 'holds', class: name, run, upTo });
  }
}
