import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addUsage,
  atLeast,
  DIMENSIONS,
  equalUsage,
  joinUsage,
  parseUsage,
  subtractUsage,
  ZERO_USAGE,
} from '../../src/lattice/index.ts';
import { decodes, smallUsage as usage } from './support.ts';

describe('usage', () => {
  it('is a join-semilattice under the entry-wise maximum', () => {
    fc.assert(
      fc.property(usage, usage, usage, (a, b, c) => {
        expect(joinUsage(a, b)).toEqual(joinUsage(b, a));
        expect(joinUsage(joinUsage(a, b), c)).toEqual(joinUsage(a, joinUsage(b, c)));
        expect(joinUsage(a, a)).toEqual(a);
        expect(joinUsage(a, ZERO_USAGE)).toEqual(a);
        expect(atLeast(joinUsage(a, b), a)).toBe(true);
        expect(atLeast(a, b)).toBe(equalUsage(joinUsage(a, b), a));
      }),
    );
  });

  it('takes back by subtraction what addition gave', () => {
    fc.assert(
      fc.property(usage, usage, (a, b) => {
        expect(subtractUsage(addUsage(a, b), b)).toEqual(a);
        expect(equalUsage(addUsage(a, b), addUsage(b, a))).toBe(true);
      }),
    );
  });

  it('never leaves the whole numbers below 2^53', () => {
    const one = { ...ZERO_USAGE, cpuMicros: 1 };
    expect(() => addUsage({ ...ZERO_USAGE, cpuMicros: Number.MAX_SAFE_INTEGER }, one)).toThrow('whole number');
    expect(() => subtractUsage(ZERO_USAGE, one)).toThrow('whole number');
  });

  it('parses exactly its dimensions', () => {
    fc.assert(
      fc.property(usage, (a) => {
        expect(parseUsage(JSON.parse(JSON.stringify(a)))).toEqual(a);
      }),
    );
    for (const dimension of DIMENSIONS) {
      const { [dimension]: _, ...rest } = ZERO_USAGE;
      for (const bad of [rest, { ...rest, other: 0 }, { ...rest, [dimension]: -1 }, { ...rest, [dimension]: '1' }])
        expect(decodes(() => parseUsage(bad))).toBeNull();
    }
    expect(decodes(() => parseUsage({ ...ZERO_USAGE, other: 0 }))).toBeNull();
    fc.assert(fc.property(fc.anything(), (value) => void decodes(() => parseUsage(value))));
  });
});
