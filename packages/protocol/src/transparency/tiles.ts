import { assert, concat, WaggleError, type Crypto } from '../base/index.ts';
import { frontierRoot, HASH_BYTES, rootOf, type Frontier } from './merkle.ts';

/** Levels of the tree in one tile, and hashes in a full one (c2sp.org/tlog-tiles). */
export const TILE_HEIGHT = 8;
export const TILE_WIDTH = 2 ** TILE_HEIGHT;
const LEVEL_MAX = 63;
/** A leaf's length is 16 bits. */
export const ENTRY_BYTES_MAX = 65_535;

/** Which tile or entry bundle: `MTH(D[(index·256 + i)·256^level : …])` for i below width (c2sp.org/tlog-tiles). */
export interface TileCoordinates {
  /** 0 (leaf hashes) to 63, or the entries themselves. */
  readonly level: number | 'entries';
  /** 0, 1, 2 … within the level. */
  readonly index: number;
  /** Hashes or entries: 256, or 1 to 255 when partial. */
  readonly width: number;
}

/** `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`, without a leading slash. */
export function tilePath({ level, index, width }: TileCoordinates): string {
  const digits = String(index);
  const padded = digits.padStart(Math.ceil(digits.length / 3) * 3, '0');
  const groups = padded.match(/.{3}/g) ?? [];
  const name = groups.map((group, i) => (i < groups.length - 1 ? `x${group}` : group)).join('/');
  return `tile/${level}/${name}${width === TILE_WIDTH ? '' : `.p/${width}`}`;
}

const TILE_PATH = /^tile\/(entries|\d{1,2})\/((?:x\d{3}\/){0,5}\d{3})(?:\.p\/(\d{1,3}))?$/;

/** What a path names, or null if it is not the one path of a tile or entry bundle. */
export function parseTilePath(path: string): TileCoordinates | null {
  const match = TILE_PATH.exec(path);
  if (match === null) return null;
  const [, level = '', name = '', width] = match;
  const coordinates: TileCoordinates = {
    level: level === 'entries' ? level : Number(level),
    index: Number(name.replaceAll(/[x/]/g, '')),
    width: width === undefined ? TILE_WIDTH : Number(width),
  };
  if (coordinates.level !== 'entries' && coordinates.level > LEVEL_MAX) return null;
  if (!Number.isSafeInteger(coordinates.index) || coordinates.width < 1 || coordinates.width > TILE_WIDTH) return null;
  // Superfluous zeroes, and a full tile written as a partial one, do not survive the way back.
  return tilePath(coordinates) === path ? coordinates : null;
}

/** The bytes of an entry bundle: each entry (0 to 65 535 bytes) after its length as u16be; 1 to 256 entries. */
export function encodeEntryBundle(entries: readonly Uint8Array[]): Uint8Array {
  assert(entries.length >= 1 && entries.length <= TILE_WIDTH, `a bundle has 1 to ${TILE_WIDTH} entries`);
  const parts = entries.flatMap((entry) => {
    assert(entry.length <= ENTRY_BYTES_MAX, `an entry has at most ${ENTRY_BYTES_MAX} bytes`);
    return [new Uint8Array([entry.length >> 8, entry.length & 0xff]), entry];
  });
  return concat(...parts);
}

/** The entries of a bundle, as views of it. Throws `DECODE_FAILED` unless it is 1 to 256 whole entries. */
export function decodeEntryBundle(bytes: Uint8Array): Uint8Array[] {
  const entries: Uint8Array[] = [];
  let offset = 0;
  while (offset < bytes.length && entries.length < TILE_WIDTH) {
    const start = offset + 2;
    const [high = 0, low = 0] = bytes.subarray(offset, start);
    offset = start + high * 256 + low;
    entries.push(bytes.subarray(start, offset));
  }
  if (offset !== bytes.length || entries.length === 0) {
    const received = `${bytes.length} bytes, ${entries.length} entries up to ${offset}`;
    throw new WaggleError('DECODE_FAILED', `Expected 1 to ${TILE_WIDTH} whole entries, received ${received}`);
  }
  return entries;
}

/** A tile with its whole content so far. */
export interface Tile {
  /** 0 to 6. */
  readonly level: number;
  readonly index: number;
  /** 1 to 256 hashes of 32 bytes, one after the other, in an array of their own. */
  readonly hashes: Uint8Array;
}

/**
 * What is needed of a tree to append to its tiles: the partial tile of each level. Never changed: whoever appends gets
 * a new edge, and may drop it when its tiles could not be written.
 */
export interface TileEdge {
  /** Leaves, 0 to 2^53 − 1. */
  readonly size: number;
  /** Per level, 0 to 255 hashes of 32 bytes, one after the other. */
  readonly levels: readonly Uint8Array[];
}

export const EMPTY_EDGE: TileEdge = { size: 0, levels: [] };

/** The hashes of a tile (32 bytes each), as views of it. */
export const hashesOf = (tile: Uint8Array): Uint8Array[] =>
  Array.from({ length: tile.length / HASH_BYTES }, (_, i) => tile.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES));

/** One array of the hashes: a loop, since there can be more of them than a call may have arguments. */
function joined(first: Uint8Array, rest: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(first.length + rest.length * HASH_BYTES);
  whole.set(first);
  rest.forEach((hash, i) => {
    assert(hash.length === HASH_BYTES, `a hash has ${HASH_BYTES} bytes`);
    whole.set(hash, first.length + i * HASH_BYTES);
  });
  return whole;
}

/**
 * Appends leaves. Returns the edge after them and every tile that was created or grew, each once and with its whole
 * content, which replaces the partial one of the same level and index.
 */
export function appendLeaves(
  crypto: Crypto,
  edge: TileEdge,
  leafHashes: readonly Uint8Array[],
): { edge: TileEdge; tiles: Tile[] } {
  const size = edge.size + leafHashes.length;
  assert(Number.isSafeInteger(size), 'a tree has at most 2^53 - 1 leaves');
  const tileBytes = TILE_WIDTH * HASH_BYTES;
  const levels = [...edge.levels];
  const tiles: Tile[] = [];
  let added: readonly Uint8Array[] = leafHashes;
  for (let level = 0; added.length > 0; level++) {
    const hashes = joined(levels[level] ?? new Uint8Array(), added);
    const first = Math.floor(edge.size / TILE_WIDTH ** (level + 1));
    const parents: Uint8Array[] = [];
    for (let offset = 0; offset < hashes.length; offset += tileBytes) {
      const tile = hashes.slice(offset, offset + tileBytes);
      tiles.push({ level, index: first + offset / tileBytes, hashes: tile });
      if (tile.length === tileBytes) parents.push(rootOf(crypto, hashesOf(tile)));
    }
    levels[level] = hashes.slice(parents.length * tileBytes);
    added = parents;
  }
  return { edge: { size, levels }, tiles };
}

/** The frontier of the tree with this edge: each level's partial tile falls apart into its perfect subtrees. */
export function frontierOf(crypto: Crypto, edge: TileEdge): Frontier {
  const hashes: Uint8Array[] = [];
  for (const level of [...edge.levels].reverse()) {
    let rest = hashesOf(level);
    for (let width = TILE_WIDTH / 2; width >= 1; width /= 2) {
      if (rest.length < width) continue;
      hashes.push(rootOf(crypto, rest.slice(0, width)));
      rest = rest.slice(width);
    }
  }
  return { size: edge.size, hashes };
}

/** Root of the tree with this edge: 32 bytes. */
export const edgeRoot = (crypto: Crypto, edge: TileEdge): Uint8Array => frontierRoot(crypto, frontierOf(crypto, edge));
