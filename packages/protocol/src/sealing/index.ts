export * from './ballots.ts';
export * from './effects.ts';
export type { EpochRanges } from './ranges.ts';
export * from './roster.ts';
export * from './sealing.ts';
export * from './value.ts';
