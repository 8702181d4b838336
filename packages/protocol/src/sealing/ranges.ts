import type { Epoch } from '../base/index.ts';

/** Epochs as ranges, both ends in them: ascending, neither overlapping nor touching. */
export type EpochRanges = readonly (readonly [from: Epoch, to: Epoch])[];

/** Whether an epoch is in one of the ranges. */
export const inRanges = (ranges: EpochRanges, epoch: Epoch): boolean =>
  ranges.some(([from, to]) => from <= epoch && epoch <= to);

/** The ranges with one epoch more. */
export function addToRanges(ranges: EpochRanges, epoch: Epoch): EpochRanges {
  const below = ranges.filter(([, to]) => to < epoch - 1);
  const above = ranges.filter(([from]) => from > epoch + 1);
  // What is left holds the epoch or touches it: all of it becomes one range.
  const touched = ranges.slice(below.length, ranges.length - above.length);
  const from = Math.min(epoch, touched[0]?.[0] ?? epoch);
  const to = Math.max(epoch, touched.at(-1)?.[1] ?? epoch);
  return [...below, [from, to], ...above];
}
