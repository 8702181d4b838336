import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CLOCK_SKEW_MS_MAX,
  HybridClock,
  hlcMs,
  isAhead,
  parseHlc,
  WaggleError,
  type Hlc,
} from '../../src/base/index.ts';

const time = fc.nat(2 ** 31);
const hlc = fc.stringMatching(/^[0-9a-e][0-9a-f]{15}$/).map((text) => text as Hlc);

describe('the hybrid logical clock', () => {
  it('only goes up, whatever the wall clock does, what others say, and when it is started again from its mark', () => {
    const step = fc.oneof(
      time.map((nowMs) => ({ kind: 'now' as const, nowMs })),
      hlc.map((other) => ({ kind: 'merge' as const, other })),
      fc.constant({ kind: 'restart' as const }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
        let clock = new HybridClock();
        let last = clock.last;
        for (const each of steps) {
          if (each.kind === 'restart') clock = new HybridClock(clock.last);
          else if (each.kind === 'merge') {
            clock.merge(each.other);
            expect(clock.last >= last && clock.last >= each.other).toBe(true);
          } else {
            const reading = clock.now(each.nowMs);
            expect(reading > last).toBe(true);
            expect(hlcMs(reading)).toBeGreaterThanOrEqual(each.nowMs);
            expect(parseHlc(reading)).toBe(reading);
          }
          last = clock.last;
        }
      }),
    );
  });

  it('carries from the counter into the milliseconds', () => {
    const clock = new HybridClock('000000000005ffff' as Hlc);
    expect(clock.now(3)).toBe('0000000000060000');
    expect(clock.now(6)).toBe('0000000000060001');
    expect(clock.now(7)).toBe('0000000000070000');
  });

  it('refuses times it cannot encode', () => {
    for (const nowMs of [2 ** 48, 1.5, Number.POSITIVE_INFINITY]) {
      const clock = new HybridClock();
      expect(() => clock.now(nowMs)).toThrow(expect.objectContaining({ code: 'CLOCK_OUT_OF_RANGE' }));
      expect(clock.last).toBe('0000000000000000');
    }
    expect(() => new HybridClock('ffffffffffffffff' as Hlc).now(1)).toThrow(WaggleError);
  });

  it('says what is too far ahead', () => {
    const at = (ms: number) => new HybridClock().now(ms);
    expect(isAhead(at(5 + CLOCK_SKEW_MS_MAX), 5)).toBe(false);
    expect(isAhead(at(6 + CLOCK_SKEW_MS_MAX), 5)).toBe(true);
  });

  it('parses nothing but readings', () => {
    for (const bad of [
      '',
      '0'.repeat(15),
      '0'.repeat(17),
      'G'.repeat(16),
      'A'.repeat(16),
      `${'0'.repeat(16)}\n`,
      5,
      null,
      undefined,
    ])
      expect(() => parseHlc(bad)).toThrow(expect.objectContaining({ code: 'DECODE_FAILED' }));
  });
});
