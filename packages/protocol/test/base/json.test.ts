import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8, jcs, jcsBytes, parseJcs, utf8, type Json } from '../../src/base/index.ts';

const DECODE_FAILED = expect.objectContaining({ code: 'DECODE_FAILED' });
const json = fc.jsonValue().map((value) => value as Json);
const reordered = (value: Json): Json =>
  value !== null && typeof value === 'object' && !Array.isArray(value)
    ? Object.fromEntries(
        Object.entries(value)
          .reverse()
          .map(([key, each]) => [key, reordered(each)]),
      )
    : value;

describe('the canonical form of JSON (RFC 8785)', () => {
  it('is that of the specification', () => {
    // Section 3.2.3, property order by UTF-16 units; section 3.2.2.3, numbers; section 3.2.2.2, strings.
    const value = { '\u20ac': 1, '\r': 2, '\ufb33': 3, 1: 4, '\u{1f600}': 5, '\u0080': 6, '\u00f6': 7 };
    expect(jcs(value)).toBe('{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\u{1f600}":5,"\ufb33":3}');
    const numbers = {
      numbers: [JSON.parse('333333333.33333329') as number, 1e30, 4.5, 2e-3, 0.000000000000000000000000001],
      string: '\u20ac$\u000f\u000aA\'\u0042\u0022\u005c\\"/',
      literals: [null, true, false],
    };
    expect(jcs(numbers)).toBe(
      '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
    );
  });

  it('does not depend on the order of fields, and is read back', () => {
    fc.assert(
      fc.property(json, (value) => {
        expect(jcs(reordered(value))).toBe(jcs(value));
        expect(jcs(parseJcs(jcsBytes(value), 'it'))).toBe(jcs(value));
      }),
    );
  });

  it('is the only form that is read', () => {
    for (const bad of [
      '',
      ' 1',
      '1 ',
      '{"b":1,"a":2}',
      '{"a":1,"a":1}',
      '1.0',
      '1e2',
      '"\\u0041"',
      '-0',
      '\ufeff1',
      '[1,]',
      '9007199254740993',
    ])
      expect(() => parseJcs(utf8(bad), 'it')).toThrow(DECODE_FAILED);
    expect(() => parseJcs(Uint8Array.of(0x22, 0xff, 0x22), 'it')).toThrow(DECODE_FAILED);
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
        try {
          expect(jcs(parseJcs(utf8(text), 'it'))).toBe(fromUtf8(utf8(text)));
        } catch (error) {
          expect(error).toEqual(DECODE_FAILED);
        }
      }),
    );
  });

  it('refuses nesting that no stack holds and numbers that JSON cannot write', () => {
    const deep = utf8('['.repeat(30_000) + ']'.repeat(30_000));
    expect(() => parseJcs(deep, 'it')).toThrow(DECODE_FAILED);
    expect(() => parseJcs(utf8('1e999'), 'it')).toThrow(DECODE_FAILED);
  });
});
