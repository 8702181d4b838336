import type { Epoch } from '@waggle/protocol/base';

export interface KeepingOptions {
  /** Moves the records of earlier epochs into files. */
  readonly rollRecords: (before: Epoch) => Promise<unknown>;
  /** Drops old slots from an epoch on, so many epochs at once at most; gives the first that may still have all of its slots. */
  readonly sweepSlots: (from: Epoch, nowMs: number) => Promise<Epoch>;
  /** One of the two did not get through. */
  readonly failed: (error: unknown) => void;
}

/**
 * Moves old records out and drops old slots whenever a further epoch is old enough: one after the other, each whether or not the
 * other can, as on a full disk the one that makes room must not wait for the one that needs some. What failed is tried again when
 * the next epoch is old enough, or after the next start.
 */
export class Keeping {
  readonly #options: KeepingOptions;
  #keeping: Promise<unknown> = Promise.resolve();
  /** Records of epochs below were moved, or are about to be. */
  #rolledBefore: Epoch = 0;
  /** Slots of epochs below were dropped, or are about to be. */
  #sweptBefore: Epoch = 0;
  /** Where the next sweep begins. */
  #sweepFrom: Epoch = 0;

  constructor(options: KeepingOptions) {
    this.#options = options;
  }

  /** What is to be done by now: `records` and `slots` are the first epochs whose own are not old enough yet. */
  tick({ records, slots, nowMs }: { readonly records: Epoch; readonly slots: Epoch; readonly nowMs: number }): void {
    const { rollRecords, sweepSlots } = this.#options;
    if (records > this.#rolledBefore) {
      this.#rolledBefore = records;
      this.#queue(() => rollRecords(records));
    }
    if (slots > this.#sweptBefore) {
      this.#sweptBefore = slots;
      this.#queue(async () => {
        this.#sweepFrom = await sweepSlots(this.#sweepFrom, nowMs);
        // There was more than goes at once: the next tick goes on.
        this.#sweptBefore = Math.min(this.#sweptBefore, this.#sweepFrom);
      });
    }
  }

  /** Resolves when nothing is under way. */
  get idle(): Promise<unknown> {
    return this.#keeping;
  }

  #queue(run: () => Promise<unknown>): void {
    this.#keeping = this.#keeping.then(run).catch((error: unknown) => this.#options.failed(error));
  }
}
