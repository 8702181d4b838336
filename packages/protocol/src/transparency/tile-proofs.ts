import { assert, WaggleError, type Crypto } from '../base/index.ts';
import { frontierRoot, HASH_BYTES, powerUpTo, rootOf } from './merkle.ts';
import type { ConsistencyProof, Frontier, InclusionProof } from './merkle.ts';
import { frontierOf, hashesOf, TILE_HEIGHT, TILE_WIDTH, tilePath, type TileEdge } from './tiles.ts';

/**
 * Reads the first `width` (1 to 256) hashes of a tile: `width` · 32 bytes. A tile that has grown since serves its
 * beginning. Rejects if there is no such tile.
 */
export type ReadTile = (level: number, index: number, width: number) => Promise<Uint8Array>;

type TileLoader = (level: number, index: number) => Promise<Uint8Array>;

/** Reads each tile of a tree of that size at most once, as wide as it is in that tree, and checks its length. */
function tileLoader(read: ReadTile, size: number): TileLoader {
  const pending = new Map<string, Promise<Uint8Array>>();
  const load = async (level: number, index: number): Promise<Uint8Array> => {
    const width = Math.min(TILE_WIDTH, Math.floor(size / TILE_WIDTH ** level) - index * TILE_WIDTH);
    const tile = await read(level, index, width);
    if (tile.length === width * HASH_BYTES) return tile;
    const expected = `${width * HASH_BYTES} bytes of ${tilePath({ level, index, width })}`;
    throw new WaggleError('DECODE_FAILED', `Expected ${expected}, received ${tile.length}`);
  };
  return (level, index) => {
    const key = `${level}/${index}`;
    const tile = pending.get(key) ?? load(level, index);
    pending.set(key, tile);
    return tile;
  };
}

/** Leaves from `start` up to but without `end`. The split of RFC 6962 makes all but those at the right edge perfect. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** The ranges whose hashes are `PATH(index, D[size])`, in its order (RFC 6962 §2.1.1). */
function inclusionRanges(index: number, size: number): Range[] {
  const ranges: Range[] = [];
  let [start, end] = [0, size];
  while (end - start > 1) {
    const split = start + powerUpTo(end - start - 1);
    ranges.push(index < split ? { start: split, end } : { start, end: split });
    [start, end] = index < split ? [start, split] : [split, end];
  }
  return ranges.reverse();
}

/** The ranges whose hashes are `PROOF(oldSize, D[newSize])`, in its order (RFC 6962 §2.1.2). */
function consistencyRanges(oldSize: number, newSize: number): Range[] {
  const ranges: Range[] = [];
  let [start, end] = [0, newSize];
  while (oldSize < end) {
    const split = start + powerUpTo(end - start - 1);
    ranges.push(oldSize <= split ? { start: split, end } : { start, end: split });
    [start, end] = oldSize <= split ? [start, split] : [split, end];
  }
  // What is left ends with the old tree. If it is all of it, its root is known already.
  if (start > 0) ranges.push({ start, end });
  return ranges.reverse();
}

/** `MTH` of the `leaves` (a power of two) leaves from `start` on: from the lowest tile that shows its nodes. */
async function perfectHash(crypto: Crypto, tile: TileLoader, start: number, leaves: number): Promise<Uint8Array> {
  const level = Math.floor(Math.log2(leaves) / TILE_HEIGHT);
  const leavesPerHash = TILE_WIDTH ** level;
  const first = start / leavesPerHash;
  const index = Math.floor(first / TILE_WIDTH);
  const hashes = hashesOf(await tile(level, index));
  const offset = first - index * TILE_WIDTH;
  return rootOf(crypto, hashes.slice(offset, offset + leaves / leavesPerHash));
}

/** `MTH(D[start:end])` from the perfect subtrees that the range consists of. */
async function rangeHash(crypto: Crypto, tile: TileLoader, { start, end }: Range): Promise<Uint8Array> {
  const subtrees: Promise<Uint8Array>[] = [];
  for (let at = start; at < end;) {
    const leaves = powerUpTo(end - at);
    subtrees.push(perfectHash(crypto, tile, at, leaves));
    at += leaves;
  }
  return frontierRoot(crypto, { size: end - start, hashes: await Promise.all(subtrees) });
}

async function rangeHashes(
  crypto: Crypto,
  read: ReadTile,
  size: number,
  ranges: readonly Range[],
): Promise<Uint8Array[]> {
  const tile = tileLoader(read, size);
  return Promise.all(ranges.map((range) => rangeHash(crypto, tile, range)));
}

/**
 * The proof that leaf `index` is in the tree of `size` leaves, from its tiles: at most two tiles per level are read.
 * Throws what `read` throws, and `DECODE_FAILED` for a tile of another length.
 */
export async function inclusionProof(
  crypto: Crypto,
  read: ReadTile,
  index: number,
  size: number,
): Promise<InclusionProof> {
  assert(Number.isSafeInteger(size) && Number.isSafeInteger(index), 'index and size are whole numbers');
  assert(index >= 0 && index < size, `an index below the tree size, not ${index} of ${size}`);
  return { index, size, hashes: await rangeHashes(crypto, read, size, inclusionRanges(index, size)) };
}

/**
 * The proof that the tree of `oldSize` leaves is the beginning of that of `newSize`, from the tiles of the latter.
 * Throws what `read` throws, and `DECODE_FAILED` for a tile of another length.
 */
export async function consistencyProof(
  crypto: Crypto,
  read: ReadTile,
  oldSize: number,
  newSize: number,
): Promise<ConsistencyProof> {
  assert(Number.isSafeInteger(oldSize) && Number.isSafeInteger(newSize), 'tree sizes are whole numbers');
  assert(oldSize >= 0 && oldSize <= newSize, `growing tree sizes, not ${oldSize} and ${newSize}`);
  const ranges = oldSize === 0 ? [] : consistencyRanges(oldSize, newSize);
  return { oldSize, newSize, hashes: await rangeHashes(crypto, read, newSize, ranges) };
}

/** The edge of the tree of `size` leaves, to go on appending after a start; reads at most one tile per level. */
export async function edgeAt(read: ReadTile, size: number): Promise<TileEdge> {
  assert(Number.isSafeInteger(size) && size >= 0, `a tree size, not ${size}`);
  const tile = tileLoader(read, size);
  const levels: Promise<Uint8Array>[] = [];
  for (let hashes = size; hashes > 0; hashes = Math.floor(hashes / TILE_WIDTH)) {
    const index = Math.floor(hashes / TILE_WIDTH);
    levels.push(hashes % TILE_WIDTH === 0 ? Promise.resolve(new Uint8Array()) : tile(levels.length, index));
  }
  return { size, levels: await Promise.all(levels) };
}

/** The frontier of the tree of `size` leaves. */
export const frontierAt = async (crypto: Crypto, read: ReadTile, size: number): Promise<Frontier> =>
  frontierOf(crypto, await edgeAt(read, size));
