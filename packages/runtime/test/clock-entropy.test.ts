import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { entropy, systemClock } from '../src/index.ts';

describe('entropy', () => {
  it('stays below its bound and reaches every value', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 32 }), (n) => {
        const value = entropy.below(n);
        expect(Number.isInteger(value) && value >= 0 && value < n).toBe(true);
      }),
    );
    expect(new Set(Array.from({ length: 1_000 }, () => entropy.below(4)))).toEqual(new Set([0, 1, 2, 3]));
    for (const wrong of [0, -1, 1.5, 2 ** 32 + 1]) expect(() => entropy.below(wrong)).toThrow('a bound from 1 to 2^32');
  });

  it('gives other bytes every time', () => {
    expect(entropy.bytes(16)).toHaveLength(16);
    expect(entropy.bytes(16)).not.toEqual(entropy.bytes(16));
  });
});

describe('systemClock', () => {
  afterEach(() => vi.useRealTimers());

  it('counts on', () => {
    expect(Number.isInteger(systemClock.nowMs())).toBe(true);
    const before = systemClock.monotonicMs();
    expect(systemClock.monotonicMs()).toBeGreaterThanOrEqual(before);
  });

  it('fires once, not before its time, also beyond what setTimeout can wait', () => {
    vi.useFakeTimers();
    for (const ms of [0, 10, 2 ** 31 - 1, 2 ** 31, 40 * 86_400_000]) {
      const fn = vi.fn();
      systemClock.after(ms, fn);
      if (ms > 0) vi.advanceTimersByTime(ms - 1);
      expect(fn).toHaveBeenCalledTimes(0);
      vi.advanceTimersByTime(ms === 0 ? 1 : ms * 2);
      expect(fn).toHaveBeenCalledTimes(1);
    }
    expect(() => systemClock.after(Number.NaN, () => undefined)).toThrow('a delay of 0 ms or more');
  });

  it('does not fire once taken back, however long it had waited', () => {
    vi.useFakeTimers();
    const fn = vi.fn();
    const cancel = systemClock.after(2 ** 31 + 100, fn);
    vi.advanceTimersByTime(2 ** 31);
    cancel();
    vi.advanceTimersByTime(2 ** 31);
    cancel();
    expect(fn).not.toHaveBeenCalled();
  });
});
