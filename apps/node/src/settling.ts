import type { Clock } from '@waggle/runtime';

/** How long a node that has started waits to hear of the others what it may have lost, in ms. */
export const SETTLING_MS_MAX = 5_000;

export interface SettlingOptions {
  readonly clock: Pick<Clock, 'monotonicMs'>;
  /** Whether others are known at the start. */
  readonly hasOthers: boolean;
  /** Whether all is held that one of the others has. */
  readonly hasCaughtUp: () => boolean;
}

/**
 * The first moments of a member that was there before. What others sent last may not have got to its disk before it was killed: a
 * key that was made, or one that was revoked. Cut off from all others it goes on with what it has, a little later.
 */
export class Settling {
  readonly #options: SettlingOptions;
  readonly #untilMs: number;
  #isOver: boolean;

  constructor(options: SettlingOptions) {
    this.#options = options;
    this.#isOver = !options.hasOthers;
    this.#untilMs = options.clock.monotonicMs() + SETTLING_MS_MAX;
  }

  get isOver(): boolean {
    const { clock, hasCaughtUp } = this.#options;
    this.#isOver ||= hasCaughtUp() || clock.monotonicMs() >= this.#untilMs;
    return this.#isOver;
  }
}
