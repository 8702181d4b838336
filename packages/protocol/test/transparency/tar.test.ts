import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AssertionError, concat, hex, utf8, WaggleError } from '../../src/base/index.ts';
import { packTar, tarEnd, tarHeader, tarPadding, tarSize, unpackTar } from '../../src/transparency/index.ts';
import { nodeCrypto } from '../support.ts';
import { byteMutations, codeOf, valueOr } from './support.ts';

const FILES = [
  { name: 'README', bytes: utf8('hello\n') },
  { name: 'epochs/00000007/header.json', bytes: utf8('x'.repeat(600)) },
  { name: 'empty', bytes: new Uint8Array() },
  { name: 'block', bytes: utf8('y'.repeat(512)) },
];
const ARCHIVE = packTar(FILES);

describe('the archive', () => {
  it('is, to the byte, what GNU tar writes', () => {
    // tar --format=ustar -b1 --mode=0644 --owner=0 --group=0 --numeric-owner --mtime=@0 -c README epochs/… empty block
    expect(hex.encode(nodeCrypto.sha256(ARCHIVE))).toBe(
      '189a0c55489074580a10246d111ea354bd34215e35f2bcae46883d2e992722a1',
    );
  });

  it('comes back as it went', () => {
    const part = fc.string({ unit: fc.constantFrom('a', 'Z', '0', '_', '-'), minLength: 1, maxLength: 24 });
    const name = fc.array(part, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'));
    const file = fc.record({ name, bytes: fc.uint8Array({ maxLength: 1_100 }) });
    fc.assert(
      fc.property(fc.uniqueArray(file, { selector: ({ name: key }) => key, maxLength: 5 }), (files) => {
        const archive = packTar(files);
        expect(archive.length % 512).toBe(0);
        expect(unpackTar(archive)).toEqual(files);
      }),
    );
    expect(packTar([])).toEqual(new Uint8Array(1_024));
  });

  it('is the same when it is put together piece by piece', () => {
    const pieces = FILES.flatMap(({ name, bytes: { length }, bytes }) => [
      tarHeader(name, length),
      bytes,
      tarPadding(length),
    ]);
    expect(concat(...pieces, tarEnd())).toEqual(ARCHIVE);
    expect(tarSize(FILES.map(({ name, bytes }) => ({ name, size: bytes.length })))).toBe(ARCHIVE.length);
    expect(() => tarHeader('large', 8 ** 11)).toThrow(AssertionError);
    expect(unpackTar(concat(tarHeader('empty', 0), tarEnd()))).toEqual([{ name: 'empty', bytes: new Uint8Array() }]);
  });

  it('accounts for every byte: outside of the contents, none can be changed', () => {
    const isContent = new Uint8Array(ARCHIVE.length);
    let offset = 0;
    for (const { bytes } of FILES) {
      isContent.fill(1, offset + 512, offset + 512 + bytes.length);
      offset += 512 + Math.ceil(bytes.length / 512) * 512;
    }
    for (let i = 0; i < ARCHIVE.length; i++) {
      for (const flip of [0x01, 0x10, 0x80, 0xff]) {
        const changed = ARCHIVE.with(i, ARCHIVE[i]! ^ flip);
        const code = codeOf(() => unpackTar(changed));
        if (code !== (isContent[i] ? 'none' : 'BUNDLE_MALFORMED')) expect.fail(`byte ${i} ^ ${flip}: ${code}`);
      }
    }
  });

  it('is refused when a block is missing, doubled or added anywhere', () => {
    for (let at = 0; at <= ARCHIVE.length; at += 512) {
      const [before, after] = [ARCHIVE.subarray(0, at), ARCHIVE.subarray(at)];
      const codes = [
        concat(before, after.subarray(512)),
        concat(before, new Uint8Array(512), after),
        concat(before, after.subarray(0, 512), after),
        before,
      ].map((changed) => codeOf(() => expect(packTar(unpackTar(changed))).toEqual(changed)));
      if (at < ARCHIVE.length) expect(codes[3]).toBe('BUNDLE_MALFORMED');
      expect(codes.every((code) => code === 'none' || code === 'BUNDLE_MALFORMED')).toBe(true);
    }
    expect(codeOf(() => unpackTar(concat(ARCHIVE, new Uint8Array(512))))).toBe('BUNDLE_MALFORMED');
  });

  it.each([
    '',
    '/etc/passwd',
    '../up',
    'a/../b',
    'a/./b',
    '.',
    '..',
    'a//b',
    'a/',
    'a b',
    'a\\b',
    'ä',
    'a\u0001',
    'x'.repeat(101),
  ])('does not hold a file named %j', (name) => {
    expect(() => packTar([{ name, bytes: new Uint8Array() }])).toThrow(AssertionError);
    // A forged archive: the header of another name of this length, with the name and the checksum put in.
    const forged = packTar([{ name: 'x'.repeat(Math.min(100, Math.max(1, name.length))), bytes: new Uint8Array() }]);
    forged.fill(0, 0, 100).set(utf8(name).subarray(0, 101), 0);
    forged.set(utf8('        '), 148);
    const sum = forged.subarray(0, 512).reduce((total, byte) => total + byte, 0);
    forged.set(utf8(`${sum.toString(8).padStart(6, '0')}\0 `), 148);
    expect(codeOf(() => unpackTar(forged))).toBe('BUNDLE_MALFORMED');
  });

  it('does not hold two files of one name', () => {
    const one = packTar([FILES[0]!]).subarray(0, -1_024);
    expect(codeOf(() => unpackTar(concat(one, one, new Uint8Array(1_024))))).toBe('BUNDLE_MALFORMED');
    expect(() => packTar([FILES[0]!, FILES[0]!])).toThrow(AssertionError);
  });

  it('that says it is larger than it is, is refused before anything is read', () => {
    const huge = Uint8Array.from(ARCHIVE);
    huge.set(utf8('77777777777'), 124);
    expect(() => unpackTar(huge)).toThrow(WaggleError);
  });

  it('has one form, whatever is unpacked', () => {
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 3_000 }), byteMutations(ARCHIVE)), (bytes) => {
        const files = valueOr(['BUNDLE_MALFORMED'], () => unpackTar(bytes));
        if (files !== undefined) expect(packTar(files)).toEqual(bytes);
      }),
      { numRuns: 500 },
    );
  });
});
