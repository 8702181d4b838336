import { utf8, type ErrorCode } from '../base/index.ts';
import { CONTROL_KEY_BYTES_MAX, CONTROL_VALUE_BYTES_MAX } from '../lattice/index.ts';
import type { MemberInput, Write } from './types.ts';

/** Meterings and writes that may wait for a batch. */
const WAITING_MAX = 10_000;
/** Of these, how many one batch takes. */
const PER_BATCH_MAX = 1_024;

/** A metering or a write that someone waits for. */
export type Entry = Extract<MemberInput, { type: 'meter' | 'write' }>;

const isWithin = (text: string, bytesMax: number): boolean => {
  const { length } = utf8(text);
  return length >= 1 && length <= bytesMax;
};

/** Whether a register fits into a message to others. */
const fits = ({ key, value }: Write): boolean =>
  isWithin(key, CONTROL_KEY_BYTES_MAX) && isWithin(value, CONTROL_VALUE_BYTES_MAX);

/** What waits to be written, in the order in which it came. */
export class Entries {
  #waiting: Entry[] = [];

  get count(): number {
    return this.#waiting.length;
  }

  /** Takes one in, or gives the code of why not: `STORE_BUSY` or `REQUEST_INVALID`. */
  add(entry: Entry): ErrorCode | null {
    if (this.#waiting.length >= WAITING_MAX) return 'STORE_BUSY';
    if (entry.type === 'write' && !entry.writes.every(fits)) return 'REQUEST_INVALID';
    this.#waiting.push(entry);
    return null;
  }

  /** Takes the writes out, to be refused. */
  takeWrites(): Entry[] {
    const writes = this.#waiting.filter(({ type }) => type === 'write');
    this.#waiting = this.#waiting.filter(({ type }) => type !== 'write');
    return writes;
  }

  /** Those of the next batch. */
  take(): Entry[] {
    return this.#waiting.splice(0, PER_BATCH_MAX);
  }
}
