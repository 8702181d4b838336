import type { Cancel, Clock } from '../clock.ts';

/** Timers that end together. */
export class Timers {
  readonly #clock: Clock;
  readonly #set = new Set<Cancel>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `fn` once, `ms` from now at the earliest, unless it is cancelled or all are. */
  after(ms: number, fn: () => void): Cancel {
    const cancel = this.#clock.after(ms, () => {
      this.#set.delete(cancel);
      fn();
    });
    this.#set.add(cancel);
    return () => {
      this.#set.delete(cancel);
      cancel();
    };
  }

  cancelAll(): void {
    for (const cancel of this.#set) cancel();
    this.#set.clear();
  }
}
