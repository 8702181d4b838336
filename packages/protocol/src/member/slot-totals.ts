import type { Epoch } from '../base/index.ts';
import { ZERO_USAGE, type Dimension, type Usage, type WriterId } from '../lattice/index.ts';

type Sums = Record<Dimension, number>;

/** What a counter has of each slot, all rows together: so a slot of very many rows can be taken out of it at once. */
export class SlotTotals {
  readonly #totals = new Map<WriterId, Map<Epoch, Sums>>();
  /** The one that was changed last: changes come slot by slot. */
  #last: { readonly writer: WriterId; readonly epoch: Epoch; readonly sums: Sums } | undefined;

  /** Of a row of the slot something else is counted than before. */
  move(writer: WriterId, epoch: Epoch, before: Usage, after: Usage): void {
    let last = this.#last;
    if (last === undefined || last.writer !== writer || last.epoch !== epoch)
      this.#last = last = { writer, epoch, sums: this.#sumsOf(writer, epoch) };
    addDifference(last.sums, after, before);
  }

  of(writer: WriterId, epoch: Epoch): Usage {
    return this.#totals.get(writer)?.get(epoch) ?? ZERO_USAGE;
  }

  /** Nothing of the slot is counted any more. */
  drop(writer: WriterId, epoch: Epoch): void {
    this.#last = undefined;
    const epochs = this.#totals.get(writer);
    epochs?.delete(epoch);
    if (epochs?.size === 0) this.#totals.delete(writer);
  }

  #sumsOf(writer: WriterId, epoch: Epoch): Sums {
    let epochs = this.#totals.get(writer);
    if (epochs === undefined) this.#totals.set(writer, (epochs = new Map()));
    let sums = epochs.get(epoch);
    if (sums === undefined) epochs.set(epoch, (sums = { ...ZERO_USAGE }));
    return sums;
  }
}

/** Adds a − b. Written out: a start does it for each row. */
export function addDifference(sums: Sums, a: Usage, b: Usage): void {
  sums.requests += a.requests - b.requests;
  sums.requestsFailed += a.requestsFailed - b.requestsFailed;
  sums.bytesIn += a.bytesIn - b.bytesIn;
  sums.bytesOut += a.bytesOut - b.bytesOut;
  sums.pixelsIn += a.pixelsIn - b.pixelsIn;
  sums.pixelsOut += a.pixelsOut - b.pixelsOut;
  sums.cpuMicros += a.cpuMicros - b.cpuMicros;
}
