import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { framed, hex, utf8, WireReader, WireWriter } from '../../src/base/index.ts';

const DECODE_FAILED = expect.objectContaining({ code: 'DECODE_FAILED' });
const whole = fc.oneof(fc.nat(300), fc.maxSafeNat());
const text = fc.string({ unit: 'binary', maxLength: 40 });

describe('the wire', () => {
  it('gives back what was written, in order', () => {
    const item = fc.oneof(
      whole.map((value) => ({ kind: 'varint' as const, value })),
      fc.uint8Array({ maxLength: 600 }).map((value) => ({ kind: 'bytes' as const, value })),
      text.map((value) => ({ kind: 'text' as const, value })),
    );
    fc.assert(
      fc.property(fc.array(item), (items) => {
        const writer = new WireWriter();
        for (const each of items) {
          if (each.kind === 'varint') writer.varint(each.value);
          else if (each.kind === 'bytes') writer.bytes(each.value);
          else writer.text(each.value);
        }
        const bytes = writer.finish();
        expect(bytes.length).toBe(writer.length);
        const reader = new WireReader(bytes);
        for (const each of items) {
          if (each.kind === 'varint') expect(reader.varint()).toBe(each.value);
          else if (each.kind === 'bytes') expect(reader.bytes(600)).toEqual(each.value);
          else expect(reader.text(1_000)).toBe(each.value);
        }
        expect(reader.left).toBe(0);
        reader.end();
      }),
    );
  });

  it('writes varints as unsigned LEB128, in the shortest form', () => {
    const forms: [number, string][] = [
      [0, '00'],
      [127, '7f'],
      [128, '8001'],
      [16_384, '808001'],
      [2 ** 32, '8080808010'],
      [Number.MAX_SAFE_INTEGER, 'ffffffffffffff0f'],
    ];
    for (const [value, expected] of forms) expect(hex.encode(new WireWriter().varint(value).finish())).toBe(expected);
  });

  it('reads varints in the shortest form only, and within their bound', () => {
    for (const bad of ['', '80', '8000', 'ff00', 'ffffffffffffff10', 'ffffffffffffff7f', 'ffffffffffffffff01'])
      expect(() => new WireReader(hex.decode(bad)).varint()).toThrow(DECODE_FAILED);
    expect(new WireReader(hex.decode('05')).varint(5)).toBe(5);
    expect(() => new WireReader(hex.decode('06')).varint(5)).toThrow(DECODE_FAILED);
    for (const bad of [-1, 1.5, 2 ** 53, Number.NaN]) expect(() => new WireWriter().varint(bad)).toThrow(DECODE_FAILED);
  });

  it('never reads beyond the end or a bound', () => {
    const bytes = new WireWriter().text('abc').finish();
    expect(() => new WireReader(bytes).text(2)).toThrow(DECODE_FAILED);
    expect(() => new WireReader(bytes.subarray(0, 3)).text(10)).toThrow(DECODE_FAILED);
    expect(() => new WireReader(bytes).raw(5)).toThrow(DECODE_FAILED);
    expect(() => new WireReader(bytes).end()).toThrow(DECODE_FAILED);
    expect(() => new WireReader(hex.decode('02c328')).text(10)).toThrow(DECODE_FAILED);
  });

  it('reads arbitrary bytes as varints that it would write the same', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), (bytes) => {
        const reader = new WireReader(bytes);
        let value: number;
        try {
          value = reader.varint();
        } catch (error) {
          expect(error).toEqual(DECODE_FAILED);
          return;
        }
        expect(new WireWriter().varint(value).finish()).toEqual(bytes.slice(0, bytes.length - reader.left));
      }),
      { numRuns: 1_000 },
    );
  });

  it('frames parts so that no two lists give the same message', () => {
    const message = fc.tuple(text, fc.array(fc.uint8Array({ maxLength: 3 }), { maxLength: 3 }));
    fc.assert(
      fc.property(message, message, ([domain, parts], [otherDomain, otherParts]) => {
        const same = domain === otherDomain && JSON.stringify(parts) === JSON.stringify(otherParts);
        expect(hex.encode(framed(domain, ...parts)) === hex.encode(framed(otherDomain, ...otherParts))).toBe(same);
      }),
      { numRuns: 1_000 },
    );
    expect(framed('a', utf8('b'))).not.toEqual(framed('ab', new Uint8Array()));
  });
});
