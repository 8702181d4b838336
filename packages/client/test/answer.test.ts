import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseReceipt, parseTiming, parseUsage } from '../src/answer.ts';

const ZERO = { requests: 0, requestsFailed: 0, bytesIn: 0, bytesOut: 0, pixelsIn: 0, pixelsOut: 0, cpuMicros: 0 };

describe('waggle-usage', () => {
  it('is read by name, with room for more names', () => {
    expect(parseUsage('requests=1, bytes-in=2,bytes-out=3, pixels-in=4, pixels-out=5, cpu-micros=6')).toEqual({
      ...ZERO,
      requests: 1,
      bytesIn: 2,
      bytesOut: 3,
      pixelsIn: 4,
      pixelsOut: 5,
      cpuMicros: 6,
    });
    expect(parseUsage('requests=0, requests-failed=1, joules=9, flag, ratio=0.5, name="x";p=1')).toEqual({
      ...ZERO,
      requestsFailed: 1,
    });
  });
  it.each([null, '', 'nonsense', 'requests=-1', 'requests=one'])('%j is none', (text) => {
    expect(parseUsage(text)).toBeNull();
  });
});

describe('server-timing', () => {
  it('is durations by name', () => {
    expect(parseTiming('queue;dur=0.10, process;dur=16.34, commit;dur=1.42, total;dur=18, cache;desc="hit"')).toEqual({
      queue: 0.1,
      process: 16.34,
      commit: 1.42,
      total: 18,
    });
    expect(parseTiming(null)).toEqual({});
  });
});

describe('waggle-receipt', () => {
  it('is kept as it is, and taken apart', () => {
    const claims = { customer: 'açme', epoch: 1 };
    const text = `e30.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`;
    expect(parseReceipt(text)).toEqual({ text, claims });
    expect(parseReceipt(null)).toBeNull();
  });
  it('that cannot be read has no claims', () => {
    for (const text of ['', 'x', 'a.b.c', 'a.!!!.c', 'a.bnVsbA.c'])
      expect(parseReceipt(text)).toEqual({ text, claims: null });
  });
});

it('no header makes any of them throw', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      parseUsage(text);
      parseTiming(text);
      expect(parseReceipt(text)?.text).toBe(text);
    }),
  );
});
