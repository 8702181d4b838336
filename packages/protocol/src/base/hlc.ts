import { WaggleError } from './errors.ts';

/**
 * A hybrid logical clock reading (Kulkarni et al. 2014) as 16 hexadecimal digits: 48 bits of Unix milliseconds,
 * 16 bits of counter. Text order is time order.
 */
export type Hlc = string & { readonly __hlc: unique symbol };

const MS_MAX = 2 ** 48 - 1;
const COUNTER_MAX = 2 ** 16 - 1;

function encode(ms: number, counter: number): Hlc {
  if (!Number.isInteger(ms) || ms < 0 || ms > MS_MAX)
    throw new WaggleError('CLOCK_OUT_OF_RANGE', `Expected whole milliseconds from 0 to ${MS_MAX}, received ${ms}`);
  return (ms.toString(16).padStart(12, '0') + counter.toString(16).padStart(4, '0')) as Hlc;
}

/** Throws `DECODE_FAILED` unless the text is a reading. */
export function parseHlc(text: unknown): Hlc {
  if (typeof text === 'string' && /^[0-9a-f]{16}$/.test(text)) return text as Hlc;
  throw new WaggleError(
    'DECODE_FAILED',
    `Expected 16 hexadecimal digits for an HLC, received ${JSON.stringify(text)?.slice(0, 60)}`,
  );
}

/** The physical part, in Unix ms. */
export const hlcMs = (hlc: Hlc): number => Number.parseInt(hlc.slice(0, 12), 16);
const hlcCounter = (hlc: Hlc): number => Number.parseInt(hlc.slice(12), 16);

/**
 * The clock itself. Its state is the high-water mark: whoever owns the clock writes `last` to disk with what it stamped,
 * and starts it again from there, so that readings never go back.
 */
export class HybridClock {
  #last: Hlc;
  constructor(last: Hlc = encode(0, 0)) {
    this.#last = last;
  }

  /** The greatest reading given or merged so far. */
  get last(): Hlc {
    return this.#last;
  }

  /** A reading above every one before. Throws `CLOCK_OUT_OF_RANGE`. */
  now(nowMs: number): Hlc {
    const lastMs = hlcMs(this.#last);
    if (nowMs > lastMs) this.#last = encode(nowMs, 0);
    else if (hlcCounter(this.#last) < COUNTER_MAX) this.#last = encode(lastMs, hlcCounter(this.#last) + 1);
    else this.#last = encode(lastMs + 1, 0);
    return this.#last;
  }

  /** Takes note of another's reading. Never call it with a quarantined one (`isAhead`). */
  merge(other: Hlc): void {
    if (other > this.#last) this.#last = other;
  }
}

/** How far a reading may be ahead of the local clock before it is quarantined, in ms. */
export const CLOCK_SKEW_MS_MAX = 60_000;

/** Whether a reading is so far ahead of the local clock that it must wait: stored and forwarded, but not folded. */
export const isAhead = (hlc: Hlc, nowMs: number): boolean => hlcMs(hlc) > nowMs + CLOCK_SKEW_MS_MAX;
