import { assert, parseWhole, WaggleError } from '../base/index.ts';

/**
 * What is counted of a request, in the order of every encoding: requests with a result and requests without one; bytes taken
 * in and sent out; pixels decoded and encoded, frames summed; microseconds of CPU time.
 */
export const DIMENSIONS = [
  'requests',
  'requestsFailed',
  'bytesIn',
  'bytesOut',
  'pixelsIn',
  'pixelsOut',
  'cpuMicros',
] as const;

export type Dimension = (typeof DIMENSIONS)[number];

/** A vector of counts, each a whole number from 0 to 2^53 − 1. */
export type Usage = Readonly<Record<Dimension, number>>;

/** A usage with each count from a function. Always the same literal, so that all usages share one hidden class. */
export const mapUsage = (count: (dimension: Dimension) => number): Usage => ({
  requests: count('requests'),
  requestsFailed: count('requestsFailed'),
  bytesIn: count('bytesIn'),
  bytesOut: count('bytesOut'),
  pixelsIn: count('pixelsIn'),
  pixelsOut: count('pixelsOut'),
  cpuMicros: count('cpuMicros'),
});

export const ZERO_USAGE: Usage = Object.freeze(mapUsage(() => 0));

function whole(count: number): number {
  assert(Number.isSafeInteger(count) && count >= 0, 'a count is a whole number from 0 to 2^53 - 1');
  return count;
}

/** The sum of two usages. Asserts that every count stays below 2^53. */
export const addUsage = (a: Usage, b: Usage): Usage => mapUsage((dimension) => whole(a[dimension] + b[dimension]));

/** The sum of two usages, no count above 2^53 − 1. */
export const addUsageCapped = (a: Usage, b: Usage): Usage =>
  mapUsage((dimension) => Math.min(a[dimension] + b[dimension], Number.MAX_SAFE_INTEGER));

/** Entry-wise maximum: the join of two states of one counter. */
export const joinUsage = (a: Usage, b: Usage): Usage => mapUsage((dimension) => Math.max(a[dimension], b[dimension]));

/** a − b. Asserts that no count goes below zero. */
export const subtractUsage = (a: Usage, b: Usage): Usage => mapUsage((dimension) => whole(a[dimension] - b[dimension]));

export const equalUsage = (a: Usage, b: Usage): boolean =>
  DIMENSIONS.every((dimension) => a[dimension] === b[dimension]);

/** Whether every count of `a` is at least that of `b`: the order of the lattice. */
export const atLeast = (a: Usage, b: Usage): boolean => DIMENSIONS.every((dimension) => a[dimension] >= b[dimension]);

/** Parses an object of exactly the dimensions. Throws `DECODE_FAILED`. */
export function parseUsage(value: unknown): Usage {
  if (typeof value !== 'object' || value === null || Object.keys(value).length !== DIMENSIONS.length)
    throw new WaggleError('DECODE_FAILED', `Expected an object of ${DIMENSIONS.join(', ')} for a usage`);
  const counts = value as Readonly<Record<string, unknown>>;
  return mapUsage((dimension) =>
    parseWhole(Object.hasOwn(counts, dimension) ? counts[dimension] : undefined, dimension),
  );
}
