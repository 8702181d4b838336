import type { Run } from '../base/index.ts';
import { RUN_OLDER_MS, RUN_SETTLED_MS, RUN_TELL_MS, RUN_TWO_MS } from './constants.ts';

/** Two processes that are alive under one member's key and replica id. */
export interface TwoRuns {
  readonly newest: Run;
  readonly older: Run;
}

/**
 * Tells a member of which two processes are alive from one that was started anew. Every datagram says its run, and a run is above
 * all earlier ones: an older process is alive when it goes on speaking after a newer one was heard. Some of its datagrams may come
 * late, so it takes two of them with time between, well after the newer run was first heard.
 */
export class RunWatch {
  #newest = 0 as Run;
  /** When the newest run was first heard, and when last. */
  #newestMs = 0;
  #heardMs = 0;
  /** The first datagram of the older process that speaks now. */
  #older: { readonly run: Run; readonly sequence: number; readonly ms: number } | undefined;
  #two: { readonly older: Run; ms: number } | undefined;
  #toldMs = Number.NEGATIVE_INFINITY;

  /** A datagram came. Gives both runs when the member is to be told, at most once a second: whichever process is there hears it. */
  heard(run: Run, sequence: number, nowMs: number): TwoRuns | null {
    if (run > this.#newest) {
      this.#newest = run;
      this.#newestMs = nowMs;
      this.#older = undefined;
      this.#two = undefined;
    } else if (run < this.#newest && nowMs - this.#newestMs >= RUN_SETTLED_MS) this.#heardOlder(run, sequence, nowMs);
    if (run === this.#newest) this.#heardMs = nowMs;
    if (this.#two === undefined || nowMs - this.#two.ms > RUN_TWO_MS || nowMs - this.#toldMs < RUN_TELL_MS) return null;
    this.#toldMs = nowMs;
    return { newest: this.#newest, older: this.#two.older };
  }

  /** Whether the newest run has long been silent while an older process goes on: then that is the one to be heard from now on. */
  isOutlived(nowMs: number): boolean {
    return this.#two?.ms === nowMs && nowMs - this.#heardMs >= RUN_TWO_MS;
  }

  #heardOlder(run: Run, sequence: number, ms: number): void {
    if (this.#older?.run !== run) this.#older = { run, sequence, ms };
    else if (sequence > this.#older.sequence && ms - this.#older.ms >= RUN_OLDER_MS) this.#two = { older: run, ms };
  }
}
