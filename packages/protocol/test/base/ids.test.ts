import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  parseClusterId,
  parseCustomerId,
  parseDigest,
  parseKeyId,
  parseReplicaId,
  parseRun,
  parseWhole,
} from '../../src/base/index.ts';

const DECODE_FAILED = expect.objectContaining({ code: 'DECODE_FAILED' });
const h = 'a'.repeat(64);

describe.each([
  {
    name: 'a replica id',
    parse: parseReplicaId,
    good: [h.slice(32), '0123456789abcdef'.repeat(2)],
    bad: [h.slice(33), h, h.slice(32).toUpperCase()],
  },
  { name: 'a cluster id', parse: parseClusterId, good: [h], bad: [h.slice(1), `${h}a`, `${h.slice(1)}g`] },
  { name: 'a digest', parse: parseDigest, good: [h], bad: [h.slice(1), `${h}\n`] },
  {
    name: 'a customer id',
    parse: parseCustomerId,
    good: ['a', '0', 'Acme.co_1-x', h],
    bad: ['', '.a', '-a', '_a', 'a/b', 'a b', 'é', `${h}a`, 'a\n'],
  },
  {
    name: 'a key id',
    parse: parseKeyId,
    good: ['0123456789aZ'],
    bad: ['0123456789a', '0123456789aZ0', '0123456789a_'],
  },
])('$name', ({ parse, good, bad }) => {
  it('is parsed if it is of its form, and refused otherwise', () => {
    for (const each of good) expect(parse(each)).toBe(each);
    for (const each of [...bad, null, undefined, 5, [], [good[0]], {}])
      expect(() => parse(each)).toThrow(DECODE_FAILED);
    fc.assert(
      fc.property(fc.anything(), (value) => {
        try {
          expect(parse(value)).toBe(value);
        } catch (error) {
          expect(error).toEqual(DECODE_FAILED);
        }
      }),
    );
  });
});

describe('whole numbers', () => {
  it('are parsed within their range only', () => {
    fc.assert(
      fc.property(fc.oneof(fc.anything(), fc.integer({ min: -5, max: 20 })), (value) => {
        const good = Number.isInteger(value) && (value as number) >= 3 && (value as number) <= 9;
        if (good) expect(parseWhole(value, 'it', 3, 9)).toBe(value);
        else expect(() => parseWhole(value, 'it', 3, 9)).toThrow(DECODE_FAILED);
      }),
    );
    expect(parseWhole(Number.MAX_SAFE_INTEGER, 'it')).toBe(Number.MAX_SAFE_INTEGER);
    for (const bad of [2 ** 53, 0.5, Number.NaN, '1']) expect(() => parseWhole(bad, 'it')).toThrow(DECODE_FAILED);
    expect(() => parseRun(0)).toThrow(DECODE_FAILED);
    expect(parseRun(1)).toBe(1);
  });
});
