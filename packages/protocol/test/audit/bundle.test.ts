import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AssertionError, compareText, concat, fromUtf8, present, utf8 } from '../../src/base/index.ts';
import {
  BUNDLE_FILES,
  bundleEpoch,
  collectBundle,
  packBundle,
  parseChainFile,
  streamBundle,
  totalsOf,
  unpackBundle,
  verifyBundle,
  type Bundle,
  type BundleFile,
} from '../../src/audit/index.ts';
import { DIMENSIONS } from '../../src/lattice/index.ts';
import { packTar, unpackTar } from '../../src/transparency/index.ts';
import { nodeCrypto } from '../support.ts';
import { byteMutations, codeOf, valueOr } from '../transparency/support.ts';
import { eventfulCluster, publish } from './support.ts';

const { bundles } = await publish(eventfulCluster({ members: 1 }));
const late = present(bundles[2], 'epoch 2');

describe('the archive of a bundle', () => {
  it('comes back as it went, with the files in order below the epoch', () => {
    for (const [epoch, bundle] of bundles.entries()) {
      const archive = packBundle(epoch, bundle);
      const files = unpackTar(archive).map(({ name }) => name);
      expect(files).toEqual([...bundle.keys()].map((name) => `epoch-${epoch}/${name}`).sort(compareText));
      expect(unpackBundle(archive)).toEqual(bundle);
      expect(packBundle(epoch, new Map([...bundle].reverse()))).toEqual(archive);
      expect(bundleEpoch(bundle)).toBe(epoch);
    }
  });

  it('holds what was counted before of a slot that grew', () => {
    expect(
      [...late.keys()]
        .filter((name) => name.includes('/'))
        .map((name) => name.split('/')[0]!)
        .sort(compareText),
    ).toEqual(['counted', 'slots', 'slots']);
  });

  it('is refused under another epoch, with files elsewhere, out of order or missing', () => {
    const pack = (
      change: (files: { name: string; bytes: Uint8Array }[]) => { name: string; bytes: Uint8Array }[],
    ): Uint8Array => packTar(change(unpackTar(packBundle(2, late))));
    expect(codeOf(() => unpackBundle(pack((files) => files)))).toBe('none');
    for (const [name, archive] of Object.entries({
      'another epoch': packBundle(3, late),
      'no epoch': pack((files) => files.map((file) => ({ ...file, name: file.name.replace('epoch-2/', '') }))),
      'a leading zero': pack((files) =>
        files.map((file) => ({ ...file, name: file.name.replace('epoch-2/', 'epoch-02/') })),
      ),
      'two folders': pack((files) =>
        files.map((file, i) => (i === 1 ? { ...file, name: file.name.replace('2/', '3/') } : file)),
      ),
      'another order': pack((files) => [...files].reverse()),
      'no chain file': pack((files) => files.filter((file) => !file.name.endsWith(BUNDLE_FILES.chain))),
      'a chain file of nonsense': pack((files) =>
        files.map((file) => (file.name.endsWith(BUNDLE_FILES.chain) ? { ...file, bytes: utf8('x') } : file)),
      ),
      nothing: packTar([]),
      'no bytes': new Uint8Array(0),
    }))
      expect(
        codeOf(() => unpackBundle(archive)),
        name,
      ).toBe('BUNDLE_MALFORMED');
  });

  it('is a bundle or an error, whatever the bytes', () => {
    const archive = packBundle(2, late);
    fc.assert(
      fc.property(fc.oneof(byteMutations(archive), fc.uint8Array({ maxLength: 4096 })), (bytes) => {
        const bundle = valueOr(['BUNDLE_MALFORMED'], () => unpackBundle(bytes));
        if (bundle !== undefined) expect(packBundle(bundleEpoch(bundle), bundle)).toEqual(Uint8Array.from(bytes));
      }),
      { numRuns: 200 },
    );
  });
});

describe('the archive of a bundle, file by file', () => {
  const inPieces = (bytes: Uint8Array, length: number): Uint8Array[] =>
    Array.from({ length: Math.ceil(bytes.length / length) }, (_, i) => bytes.subarray(i * length, (i + 1) * length));
  const all = async (pieces: AsyncIterable<Uint8Array>): Promise<Uint8Array> => {
    const taken: Uint8Array[] = [];
    for await (const piece of pieces) taken.push(piece);
    return concat(...taken);
  };

  it('is the same bytes, whatever the order of the files and the pieces they come in', async () => {
    const order = fc.shuffledSubarray([...late], { minLength: late.size });
    await fc.assert(
      fc.asyncProperty(order, fc.integer({ min: 1, max: 700 }), async (given, length) => {
        const files = given.map(([name, bytes]): BundleFile => ({
          name,
          size: bytes.length,
          read: () => inPieces(bytes, length),
        }));
        const { size, pieces } = streamBundle(2, files);
        const archive = await all(pieces);
        expect(archive).toEqual(packBundle(2, late));
        expect(size).toBe(archive.length);
        expect(await collectBundle(files)).toEqual(late);
      }),
      { numRuns: 50 },
    );
  });

  it('reads a file when its turn comes, none after the one that it is given up in, and lets go of that', async () => {
    const seen: string[] = [];
    const files = ['b', 'c', 'a'].map((name): BundleFile => ({
      name,
      size: 2,
      async *read() {
        seen.push(`open ${name}`);
        try {
          yield utf8('x');
          yield utf8('y');
        } finally {
          seen.push(`close ${name}`);
        }
      },
    }));
    const { pieces } = streamBundle(2, files);
    expect(seen).toEqual([]);
    for (const expected of ['header', 'x', 'y', 'padding', 'header', 'x']) {
      const { value } = await pieces.next();
      expect([512, 1, 1, 510]).toContain(present(value ?? undefined, expected).length);
    }
    expect(seen).toEqual(['open a', 'close a', 'open b']);
    await pieces.return();
    expect(seen).toEqual(['open a', 'close a', 'open b', 'close b']);
  });

  it('does not end as if it were whole when a file fails or is not of its size', async () => {
    const file = (name: string, size: number): BundleFile => ({ name, size, read: () => [utf8('1234')] });
    for (const size of [3, 5]) {
      await expect(all(streamBundle(0, [file('a', size)]).pieces)).rejects.toThrow(AssertionError);
      await expect(collectBundle([file('a', size)])).rejects.toThrow(AssertionError);
    }
    const failing: BundleFile = {
      ...file('b', 4),
      async *read() {
        yield utf8('12');
        throw new Error('gone');
      },
    };
    await expect(all(streamBundle(0, [file('a', 4), failing, file('c', 4)]).pieces)).rejects.toThrow('gone');
    expect(() => streamBundle(0, [file('a', 4), file('a', 4)])).toThrow(AssertionError);
  });
});

describe('a chain file', () => {
  const text = fromUtf8(present(late.get(BUNDLE_FILES.chain), 'chain'));

  it('keeps to its form', () => {
    const chain = parseChainFile(utf8(text));
    expect(chain).toMatchObject({ epoch: 2, format: 1, counted: [{ epoch: 0 }] });
    const frontier = /"frontier":\{"hashes":\[[^\]]*\],"size":[0-9]+\}/;
    for (const bad of [
      '',
      'null',
      '{}',
      ` ${text}`,
      text.replace('"epoch":2', '"epoch":-1'),
      text.replace('"format":1', '"format":0'),
      text.replace(frontier, '"frontier":null'),
      text.replace(frontier, '"frontier":{"hashes":[],"size":1}'),
      text.replace(frontier, '"frontier":{"hashes":{},"size":0}'),
      text.replace(frontier, `"frontier":{"hashes":["${'0'.repeat(64)}"],"size":9007199254740992}`),
      // A tree to which no epoch could append any more.
      text.replace(
        frontier,
        `"frontier":{"hashes":[${Array(53)
          .fill(`"${'0'.repeat(64)}"`)
          .join()}],"size":9007199254740991}`,
      ),
      text.replace(/"counted":\[[^\]]*\]/, '"counted":7'),
      text.replace(/"counted":\[([^\]]*)\]/, '"counted":[$1,$1]'),
    ])
      expect(() => parseChainFile(utf8(bad)), bad).toThrow(expect.objectContaining({ code: 'DECODE_FAILED' }));
  });

  it('is one or an error, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.oneof(byteMutations(utf8(text)), fc.json().map(utf8), fc.uint8Array()), (bytes) => {
        valueOr(['DECODE_FAILED'], () => parseChainFile(bytes));
      }),
      { numRuns: 500 },
    );
  });
});

describe('totals', () => {
  it('have no bound', () => {
    const most = Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, Number.MAX_SAFE_INTEGER])) as never;
    const totals = totalsOf([most, most, most]);
    expect(totals.requests).toBe(3n * BigInt(Number.MAX_SAFE_INTEGER));
    expect(totalsOf([totals, totals]).cpuMicros).toBe(6n * BigInt(Number.MAX_SAFE_INTEGER));
    expect(totalsOf([]).bytesIn).toBe(0n);
  });
});

describe('a bundle of arbitrary files', () => {
  it('is refused with an error of the table', () => {
    const names = [...late.keys()];
    const junk = fc.oneof(
      fc.uint8Array(),
      fc.json().map(utf8),
      fc.constantFrom(...bundles.flatMap((bundle) => [...bundle.values()])),
      fc.constantFrom(...late.values()).chain((bytes) => byteMutations(concat(bytes, utf8('\n')))),
    );
    const changes = fc.array(fc.tuple(fc.constantFrom(...names, 'slots/x', ''), fc.option(junk)), {
      minLength: 1,
      maxLength: 3,
    });
    fc.assert(
      fc.property(changes, (edits) => {
        const bundle = new Map(late);
        for (const [name, bytes] of edits)
          if (bytes === null) bundle.delete(name);
          else bundle.set(name, bytes);
        const same =
          [...bundle].every(([name, bytes]) => Buffer.from(bytes).equals(late.get(name) ?? utf8('?'))) &&
          bundle.size === late.size;
        expect(codeOf(() => verifyBundle(bundle as Bundle, null, null, nodeCrypto)) === 'none').toBe(same);
      }),
      { numRuns: 500 },
    );
  });
});
