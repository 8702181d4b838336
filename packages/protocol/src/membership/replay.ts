import { REORDER_MAX } from './constants.ts';
import type { Run } from '../base/index.ts';

/**
 * Which datagrams of one sender came already: a sliding window over its sequence numbers (as RFC 4303 §3.4.3), begun anew by
 * each greater run of it. The sender counts over all its destinations, so here the numbers have gaps.
 */
export class ReplayWindow {
  #run = 0;
  #top = 0;
  /** Bit i: whether `#top − i` came. */
  #seen = 0;

  /** Whether the datagram is new; if so it counts as come. */
  accept(run: Run, sequence: number): boolean {
    if (run < this.#run) return false;
    if (run > this.#run) {
      this.#run = run;
      this.#top = 0;
      this.#seen = 0;
    }
    const behind = this.#top - sequence;
    if (behind >= REORDER_MAX) return false;
    if (behind < 0) {
      this.#seen = -behind < REORDER_MAX ? ((this.#seen << -behind) | 1) >>> 0 : 1;
      this.#top = sequence;
      return true;
    }
    const bit = 2 ** behind;
    if ((this.#seen & bit) !== 0) return false;
    this.#seen = (this.#seen | bit) >>> 0;
    return true;
  }
}
