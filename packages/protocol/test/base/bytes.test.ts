import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  base64,
  base64url,
  compareBytes,
  compareText,
  concat,
  equalBytes,
  fromUtf8,
  hex,
  utf8,
} from '../../src/base/index.ts';

const DECODE_FAILED = expect.objectContaining({ code: 'DECODE_FAILED' });
const bytes = fc.uint8Array({ maxLength: 40 });
const text = fc.string({ unit: 'binary', maxLength: 20 });
const node = (encoding: 'hex' | 'base64' | 'base64url') => (input: Uint8Array) => Buffer.from(input).toString(encoding);

describe.each([
  { name: 'hex', codec: hex, reference: node('hex'), bad: ['0', 'AB', 'zz', ' 00', '00\n'] },
  {
    name: 'base64',
    codec: base64,
    reference: node('base64'),
    bad: ['A', 'AA', 'AA=', 'AB==', 'AAB=', '_-8=', 'AA==\n', 'AA==AA=='],
  },
  { name: 'base64url', codec: base64url, reference: node('base64url'), bad: ['A', 'AB', 'AA==', '+/8', 'AA '] },
])('$name', ({ codec, reference, bad }) => {
  it('is the text that everyone writes, and is read back', () => {
    fc.assert(
      fc.property(bytes, (input) => {
        expect(codec.encode(input)).toBe(reference(input));
        expect(codec.decode(codec.encode(input))).toEqual(input);
      }),
    );
  });

  it('has one text for some bytes, and refuses the others', () => {
    for (const each of bad) expect(() => codec.decode(each)).toThrow(DECODE_FAILED);
    fc.assert(
      fc.property(fc.string(), (input) => {
        try {
          expect(codec.encode(codec.decode(input))).toBe(input);
        } catch (error) {
          expect(error).toEqual(DECODE_FAILED);
        }
      }),
    );
  });
});

describe('text and bytes', () => {
  it('are exact both ways, byte order marks too', () => {
    fc.assert(
      fc.property(text, (input) => {
        expect(fromUtf8(utf8(input))).toBe(input);
      }),
    );
    expect(fromUtf8(utf8('\ufeffa'))).toBe('\ufeffa');
    for (const bad of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe2, 0x82]])
      expect(() => fromUtf8(Uint8Array.from(bad))).toThrow(DECODE_FAILED);
  });

  it('are ordered alike: texts by their UTF-8', () => {
    const sign = (n: number) => Math.sign(n);
    fc.assert(
      fc.property(text, text, (a, b) => {
        expect(sign(compareText(a, b))).toBe(sign(Buffer.compare(utf8(a), utf8(b))));
        expect(sign(compareBytes(utf8(a), utf8(b)))).toBe(sign(Buffer.compare(utf8(a), utf8(b))));
        expect(equalBytes(utf8(a), utf8(b))).toBe(a === b);
      }),
      { numRuns: 1_000 },
    );
    // UTF-16 units would order these the other way round.
    expect(compareText('\u{10000}', '\uffff')).toBeGreaterThan(0);
    expect(compareText('a\u{1f600}', 'a\ufb01')).toBeGreaterThan(0);
    expect(compareText('ab', 'a')).toBeGreaterThan(0);
  });

  it('are put together in order', () => {
    fc.assert(
      fc.property(fc.array(bytes), (parts) => {
        expect([...concat(...parts)]).toEqual(parts.flatMap((part) => [...part]));
      }),
    );
  });
});
