import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/base/index.ts';

describe('seeded chance', () => {
  it('is the same for the same seed, and another for another', () => {
    const draw = (seed: number) => [...seededRandom(seed).bytes(32)].join();
    fc.assert(
      fc.property(fc.nat(), fc.nat(), (a, b) => {
        expect(draw(a) === draw(b)).toBe(a === b);
      }),
    );
    const random = seededRandom(42);
    expect([1, 2, 3, 4].map(() => random.below(1_000))).toMatchInlineSnapshot(`
      [
        763,
        712,
        512,
        390,
      ]
    `);
  });

  it('stays within its bound and reaches all of it', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 20 }), (seed, bound) => {
        const random = seededRandom(seed);
        const seen = new Set(Array.from({ length: 40 * bound }, () => random.below(bound)));
        for (const value of seen) expect(Number.isInteger(value) && value >= 0 && value < bound).toBe(true);
        if (bound <= 4) expect(seen.size).toBe(bound);
      }),
      { seed: 1 },
    );
    const wide = seededRandom(1);
    expect(Math.max(...Array.from({ length: 100 }, () => wide.below(2 ** 32)))).toBeGreaterThan(2 ** 31);
    for (const bad of [0, -1, 1.5, 2 ** 32 + 1, Number.NaN]) expect(() => wide.below(bad)).toThrow('bound');
  });

  it('is even: chi-squared over ten values is within what one in a million draws exceeds', () => {
    const random = seededRandom(7);
    const counts = Array.from({ length: 10 }, () => 0);
    for (let i = 0; i < 10_000; i++) counts[random.below(10)]!++;
    const chiSquared = counts.reduce((sum, count) => sum + (count - 1_000) ** 2 / 1_000, 0);
    expect(chiSquared).toBeLessThan(45);
  });
});
