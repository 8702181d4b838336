import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { concat, hex, utf8, WaggleError } from '../../src/base/index.ts';
import {
  appendLeaves,
  appendToFrontier,
  consistencyProof,
  decodeEntryBundle,
  edgeAt,
  edgeRoot,
  EMPTY_EDGE,
  EMPTY_FRONTIER,
  encodeEntryBundle,
  frontierAt,
  frontierOf,
  frontierRoot,
  inclusionProof,
  leafHash,
  parseTilePath,
  tilePath,
  verifyConsistency,
  verifyInclusion,
} from '../../src/transparency/index.ts';
import { nodeCrypto } from '../support.ts';
import { byteMutations, leaf, mutations, naiveTree, range, TileMap, valueOr } from './support.ts';

const SIZE_MAX = 70_000;
const tree = naiveTree(SIZE_MAX);
const tiles = new TileMap();
let leafHashes: Uint8Array[] = [];

beforeAll(() => {
  leafHashes = range(0, SIZE_MAX).map((i) => leafHash(nodeCrypto, leaf(i)));
  tiles.put(appendLeaves(nodeCrypto, EMPTY_EDGE, leafHashes).tiles);
});

/** As text: to compare thousands of arrays item by item is slow. */
const texts = (hashes: readonly Uint8Array[]): string[] => hashes.map(hex.encode);
const contents = ({ tiles: map }: TileMap): string[] =>
  [...map].map(([name, hashes]) => `${name} ${hex.encode(hashes)}`).sort();

/** Sizes around the places where tiles and levels begin, and any others. */
const sizes = fc.oneof(
  fc.constantFrom(0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 65_792, SIZE_MAX),
  fc.nat(SIZE_MAX),
);

describe('c2sp.org/tlog-tiles, Merkle tree', () => {
  it('has the tiles of the example in the specification for 70 000 leaves', () => {
    const byLevel = (level: number): number[] =>
      [...tiles.tiles].filter(([name]) => name.startsWith(`${level}/`)).map(([, hashes]) => hashes.length / 32);
    expect(byLevel(0)).toEqual([...Array<number>(273).fill(256), 112]);
    expect(byLevel(1)).toEqual([256, 17]);
    expect(byLevel(2)).toEqual([1]);
    expect(byLevel(3)).toEqual([]);
  });

  it('holds MTH(D[(n·256+i)·256^l : (n·256+i+1)·256^l]) at every place', () => {
    for (const [name, hashes] of tiles.tiles) {
      const [level = 0, index = 0] = name.split('/').map(Number);
      const span = 256 ** level;
      const expected = range(0, hashes.length / 32).map((i) => {
        const start = (index * 256 + i) * span;
        return tree.root(start, start + span);
      });
      expect(hex.encode(hashes)).toBe(hex.encode(concat(...expected)));
    }
  });

  it('comes to the same however the leaves were divided, tells every tile that grew, and changes nothing given', () => {
    const batch = fc.oneof(fc.nat(3), fc.nat(600), fc.constantFrom(255, 256, 257));
    fc.assert(
      fc.property(fc.array(batch, { maxLength: 12 }), (batches) => {
        const grown = new TileMap();
        let edge = EMPTY_EDGE;
        for (const count of batches) {
          const before = texts(edge.levels);
          const next = appendLeaves(nodeCrypto, edge, leafHashes.slice(edge.size, edge.size + count));
          expect(texts(edge.levels)).toEqual(before);
          expect(next.tiles.every((tile) => tile.hashes.buffer.byteLength === tile.hashes.length)).toBe(true);
          grown.put(next.tiles);
          edge = next.edge;
        }
        const whole = new TileMap();
        const once = appendLeaves(nodeCrypto, EMPTY_EDGE, leafHashes.slice(0, edge.size));
        whole.put(once.tiles);
        expect(edge.size).toBe(once.edge.size);
        expect(texts(edge.levels)).toEqual(texts(once.edge.levels));
        expect(contents(grown)).toEqual(contents(whole));
        expect(edgeRoot(nodeCrypto, edge)).toEqual(tree.root(0, edge.size));
      }),
      { numRuns: 40 },
    );
  });

  it('starts again from its tiles at any earlier size', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, async (size) => {
        const edge = await edgeAt(tiles.read, size);
        const frontier = await frontierAt(nodeCrypto, tiles.read, size);
        const appended = appendLeaves(nodeCrypto, EMPTY_EDGE, leafHashes.slice(0, size)).edge;
        expect([edge.size, texts(edge.levels)]).toEqual([size, texts(appended.levels)]);
        const expected = appendToFrontier(nodeCrypto, EMPTY_FRONTIER, leafHashes.slice(0, size));
        expect([frontier.size, texts(frontier.hashes)]).toEqual([size, texts(expected.hashes)]);
        expect(texts(frontierOf(nodeCrypto, edge).hashes)).toEqual(texts(expected.hashes));
        expect(frontierRoot(nodeCrypto, frontier)).toEqual(tree.root(0, size));
      }),
      { numRuns: 20 },
    );
  });
});

describe('proofs from tiles', () => {
  it('are PATH and PROOF of RFC 6962 for every index and size of small trees', async () => {
    for (let size = 1; size <= 70; size++) {
      for (let i = 0; i < size; i++) {
        const inclusion = await inclusionProof(nodeCrypto, tiles.read, i, size);
        expect(texts(inclusion.hashes)).toEqual(texts(tree.path(i, 0, size)));
        const consistency = await consistencyProof(nodeCrypto, tiles.read, i + 1, size);
        expect(texts(consistency.hashes)).toEqual(texts(tree.proof(i + 1, size)));
      }
    }
  });

  it('are PATH and PROOF of RFC 6962 in trees of several levels, and verify', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, sizes, async (a, b) => {
        const [small, size] = [Math.min(a, b), Math.max(a, b)];
        const consistency = await consistencyProof(nodeCrypto, tiles.read, small, size);
        if (small > 0) expect(consistency.hashes).toEqual(tree.proof(small, size));
        verifyConsistency(nodeCrypto, consistency, tree.root(0, small), tree.root(0, size));
        if (small === size) return;
        const inclusion = await inclusionProof(nodeCrypto, tiles.read, small, size);
        expect(inclusion.hashes).toEqual(tree.path(small, 0, size));
        verifyInclusion(nodeCrypto, inclusion, leafHashes[small]!, tree.root(0, size));
      }),
      { numRuns: 200 },
    );
  });

  it('need at most two tiles per level, never one that the tree does not have yet, and check their length', async () => {
    const read: string[] = [];
    await inclusionProof(
      nodeCrypto,
      (level, index, width) => {
        read.push(tilePath({ level, index, width }));
        return tiles.read(level, index, width);
      },
      12_345,
      65_900,
    );
    expect(read.sort()).toEqual(['tile/0/048', 'tile/0/257.p/108', 'tile/1/000', 'tile/1/001.p/1']);
    const short = inclusionProof(nodeCrypto, async () => new Uint8Array(31), 0, 2);
    await expect(short).rejects.toMatchObject({ code: 'DECODE_FAILED' });
    await expect(inclusionProof(nodeCrypto, tiles.read, 0, SIZE_MAX + 1)).rejects.toThrow('no tile');
  });

  it('reach trees that are larger than 32 bits can count', async () => {
    // All leaves alike: then so are all perfect subtrees of one height.
    const perfect = [leafHash(nodeCrypto, utf8('same'))];
    for (let i = 1; i <= 52; i++)
      perfect.push(nodeCrypto.sha256(new Uint8Array([1]), perfect[i - 1]!, perfect[i - 1]!));
    const read = async (level: number, _: number, width: number): Promise<Uint8Array> =>
      concat(...Array<Uint8Array>(width).fill(perfect[level * 8]!));
    const [oldSize, size] = [2 ** 51 + 12_345_678_901, 2 ** 53 - 1];
    const roots = await Promise.all(
      [oldSize, size].map(async (n) => frontierRoot(nodeCrypto, await frontierAt(nodeCrypto, read, n))),
    );
    verifyInclusion(nodeCrypto, await inclusionProof(nodeCrypto, read, oldSize, size), perfect[0]!, roots[1]!);
    verifyConsistency(nodeCrypto, await consistencyProof(nodeCrypto, read, oldSize, size), roots[0]!, roots[1]!);
  });
});

describe('tile paths', () => {
  it('are those of the specification', () => {
    expect(tilePath({ level: 0, index: 1_234_067, width: 256 })).toBe('tile/0/x001/x234/067');
    expect(tilePath({ level: 'entries', index: 0, width: 1 })).toBe('tile/entries/000.p/1');
    expect(parseTilePath('tile/63/x001/000.p/255')).toEqual({ level: 63, index: 1_000, width: 255 });
  });

  it('come back as they went', () => {
    const level = fc.oneof(fc.integer({ min: 0, max: 63 }), fc.constant('entries' as const));
    fc.assert(
      fc.property(level, fc.maxSafeNat(), fc.integer({ min: 1, max: 256 }), (at, index, width) => {
        expect(parseTilePath(tilePath({ level: at, index, width }))).toEqual({ level: at, index, width });
      }),
    );
  });

  it.each([
    '',
    'tile',
    'tile/0',
    'tile/0/0',
    'tile/0/00',
    'tile/0/0000',
    'tile/00/000',
    'tile/01/000',
    'tile/64/000',
    'tile/-1/000',
    'tile/data/000',
    'tile/0/x000/000',
    'tile/0/x000',
    'tile/0/001/002',
    'tile/0/X001/000',
    'tile/0/000.p/0',
    'tile/0/000.p/256',
    'tile/0/000.p/01',
    'tile/0/000.p/',
    'tile/0/000.p',
    'tile/0/000/',
    '/tile/0/000',
    'tile/0/000\n',
    'tile/0/x999/x999/x999/x999/x999/999',
    'tile/entries/../000',
    'tile/0/٠٠٠',
  ])('refuse %j', (path) => {
    expect(parseTilePath(path)).toBeNull();
  });

  it('have one spelling, whatever is parsed', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), mutations('tile/12/x001/x234/067.p/25')), (path) => {
        const parsed = parseTilePath(path);
        if (parsed !== null) expect(tilePath(parsed)).toBe(path);
      }),
    );
  });
});

describe('entry bundles', () => {
  it('put the length before each entry as u16be', () => {
    expect(encodeEntryBundle([utf8('ab'), new Uint8Array()])).toEqual(new Uint8Array([0, 2, 0x61, 0x62, 0, 0]));
    const long = new Uint8Array(65_535).fill(7);
    expect(decodeEntryBundle(encodeEntryBundle([long, utf8('x')]))).toEqual([long, utf8('x')]);
  });

  it('come back as they went, and are refused when cut', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 256 }), (entries) => {
        const bundle = encodeEntryBundle(entries);
        expect(decodeEntryBundle(bundle)).toEqual(entries);
        const last = 2 + entries.at(-1)!.length;
        for (let cut = 1; cut < last; cut++)
          expect(() => decodeEntryBundle(bundle.subarray(0, -cut))).toThrow(WaggleError);
      }),
    );
  });

  it('have one form, whatever is decoded', () => {
    const valid = encodeEntryBundle([utf8('one'), utf8('two'), new Uint8Array(), utf8('x'.repeat(300))]);
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 600 }), byteMutations(valid)), (bytes) => {
        const entries = valueOr(['DECODE_FAILED'], () => decodeEntryBundle(bytes));
        if (entries !== undefined) expect(encodeEntryBundle(entries)).toEqual(bytes);
      }),
    );
    expect(() => decodeEntryBundle(new Uint8Array(257 * 2))).toThrow(WaggleError);
    expect(() => decodeEntryBundle(new Uint8Array())).toThrow(WaggleError);
  });
});
