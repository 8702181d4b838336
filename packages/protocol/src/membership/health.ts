import { HEALTH_MAX } from './constants.ts';

/**
 * How well this node itself is doing, from 0 (well) to 7: the worse, the more time it gives others before it accuses them
 * (Lifeguard §IV-A, local health multiplier).
 */
export class LocalHealth {
  #score = 0;

  get score(): number {
    return this.#score;
  }

  /** What interval and timeout of probes are multiplied with: 1 to 8. */
  get multiplier(): number {
    return this.#score + 1;
  }

  /** Worse by `delta`, better if negative; kept within the bounds. */
  change(delta: number): void {
    this.#score = Math.min(HEALTH_MAX, Math.max(0, this.#score + delta));
  }
}
