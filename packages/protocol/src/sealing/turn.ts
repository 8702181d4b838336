import type { Epoch, Random } from '../base/index.ts';

/** How long a member waits for one of a lower rank to recover an epoch before it does so itself, in ms. */
const STAGGER_MS = 1_000;
/** How long the others' closes are waited for at least, though the deadline may have passed: after a downtime, or without grace, in ms. */
const SETTLE_MS = 3_000;
/** How long a ballot is given before another is started, at least, at first and at most, in ms. */
const BACKOFF_MS = 2_000;
const BACKOFF_MS_MAX = 60_000;

/** When a member starts a ballot: after the sealing deadline, by its rank, and then after ever longer, random times. */
export class Turn {
  readonly #random: Random;
  #epoch: Epoch = -1;
  #dueMs = 0;
  #ballots = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** When the next ballot of an epoch is due, Unix ms. The first time it is asked sets the time. */
  dueMs(epoch: Epoch, deadlineMs: number, rank: number, nowMs: number): number {
    if (epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#ballots = 0;
      this.#dueMs = Math.max(deadlineMs, nowMs + SETTLE_MS) + rank * STAGGER_MS;
    }
    return this.#dueMs;
  }

  /** A ballot was started, by whomever: it is given time. */
  started(nowMs: number): void {
    const leastMs = Math.min(BACKOFF_MS * 2 ** Math.min(this.#ballots++, 10), BACKOFF_MS_MAX);
    this.#dueMs = nowMs + leastMs + this.#random.below(leastMs);
  }
}
