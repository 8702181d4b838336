import { assert } from '@waggle/protocol/base';

/** Takes a timer back; harmless once it has fired. */
export type Cancel = () => void;

/** Time as an argument of drivers. */
export interface Clock {
  /** Wall clock: Unix time in whole ms. It may jump either way. */
  nowMs(): number;
  /** ms since some start, with fractions; never goes back. For durations. */
  monotonicMs(): number;
  /** Calls `fn` once, `ms` (0 or more) from now at the earliest. */
  after(ms: number, fn: () => void): Cancel;
}

/** The longest that setTimeout can wait: beyond it, Node fires at once. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** The clock of this machine. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(ms, fn) {
    assert(ms >= 0, `a delay of 0 ms or more, not ${ms}`);
    let timer: NodeJS.Timeout;
    const arm = (left: number): void => {
      timer =
        left > TIMEOUT_MS_MAX ? setTimeout(() => arm(left - TIMEOUT_MS_MAX), TIMEOUT_MS_MAX) : setTimeout(fn, left);
    };
    arm(ms);
    return () => clearTimeout(timer);
  },
};
