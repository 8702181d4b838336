import type { MemberEffect, MemberTimer } from './types.ts';

/** How often to look whether an epoch is over, at least and at most, in ms: the wall clock may jump, a timer does not. */
const LOOK_MS_MAX = 10_000;
const LOOK_MS_MIN = 1_000;
/** How much too early a timer may fire, in ms. */
const EARLY_MS = 20;

export type OwnTimer = (MemberTimer & { core: 'member' })['input'];

/**
 * In ms: how long what others sent may wait to be written; how long to wait before more rows of a large slot that was sealed go, and
 * before a full disk is asked again; how often to look whether others have sealed more.
 */
const AFTER_MS = { lazy: 1_000, tidy: 10, full: 1_000, catchUp: 2_000 } satisfies Partial<Record<OwnTimer, number>>;

/** The timers of the member's own, each of them set once at a time. All times are steady ms. */
export class Timers {
  readonly #send: (effect: MemberEffect) => void;
  readonly #set = new Set<OwnTimer>();
  /** When the timer for the epoch is due. */
  #lookAtMs = Number.POSITIVE_INFINITY;

  constructor(send: (effect: MemberEffect) => void) {
    this.#send = send;
  }

  fired(timer: OwnTimer, nowMs: number): void {
    this.#set.delete(timer);
    // A later one that was set before stays stale.
    if (timer === 'epoch' && nowMs >= this.#lookAtMs - EARLY_MS) this.#lookAtMs = Number.POSITIVE_INFINITY;
  }

  set(timer: keyof typeof AFTER_MS): void {
    if (!this.#set.has(timer)) this.#start(timer, AFTER_MS[timer]);
  }

  #start(timer: OwnTimer, afterMs: number): void {
    this.#set.add(timer);
    this.#send({ type: 'timer', afterMs, timer: { core: 'member', input: timer } });
  }

  /** Sees to it that the wall clock is looked at, when something is due `leftMs` from now by that clock. */
  lookIn(leftMs: number, nowMs: number): void {
    const afterMs = leftMs > 0 ? Math.min(leftMs, LOOK_MS_MAX) : LOOK_MS_MIN;
    // One more when it is sooner, or the last one is overdue.
    if (nowMs + afterMs >= this.#lookAtMs && nowMs - this.#lookAtMs <= LOOK_MS_MIN) return;
    this.#lookAtMs = nowMs + afterMs;
    this.#start('epoch', afterMs);
  }
}
