export * from './ballots.ts';
export * from './roster.ts';
export * from './sealing.ts';
export * from './value.ts';
