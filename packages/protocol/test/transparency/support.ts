import { expect } from 'vitest';
import fc from 'fast-check';
import { concat, utf8, WaggleError, type ErrorCode } from '../../src/base/index.ts';
import type { ReadTile, Tile } from '../../src/transparency/index.ts';
import { nodeCrypto } from '../support.ts';

/** The definitions of RFC 6962 §2.1, word for word, with nothing but a memory: the dumb twin of the tree. */
export class NaiveTree {
  readonly leaves: readonly Uint8Array[];
  readonly #roots = new Map<string, Uint8Array>();
  constructor(leaves: readonly Uint8Array[]) {
    this.leaves = leaves;
  }

  static split(n: number): number {
    let k = 1;
    while (k * 2 < n) k *= 2;
    return k;
  }

  /** MTH(D[start:end]) */
  root(start: number, end: number): Uint8Array {
    if (start === end) return nodeCrypto.sha256();
    const key = `${start}:${end}`;
    const known = this.#roots.get(key);
    if (known !== undefined) return known;
    const k = NaiveTree.split(end - start);
    const root =
      end - start === 1
        ? nodeCrypto.sha256(concat(new Uint8Array([0]), this.leaves[start]!))
        : nodeCrypto.sha256(concat(new Uint8Array([1]), this.root(start, start + k), this.root(start + k, end)));
    this.#roots.set(key, root);
    return root;
  }

  /** PATH(m, D[start:end]) */
  path(m: number, start: number, end: number): Uint8Array[] {
    const n = end - start;
    if (n === 1) return [];
    const k = NaiveTree.split(n);
    if (m < k) return [...this.path(m, start, start + k), this.root(start + k, end)];
    return [...this.path(m - k, start + k, end), this.root(start, start + k)];
  }

  /** PROOF(m, D[n]) */
  proof(m: number, n: number): Uint8Array[] {
    return this.#subproof(m, 0, n, true);
  }

  /** SUBPROOF(m, D[start:end], b) */
  #subproof(m: number, start: number, end: number, b: boolean): Uint8Array[] {
    const n = end - start;
    if (m === n) return b ? [] : [this.root(start, end)];
    const k = NaiveTree.split(n);
    if (m <= k) return [...this.#subproof(m, start, start + k, b), this.root(start + k, end)];
    return [...this.#subproof(m - k, start + k, end, false), this.root(start, start + k)];
  }
}

export const leaf = (i: number): Uint8Array => utf8(`leaf ${i}`);
export const range = (start: number, end: number): number[] => Array.from({ length: end - start }, (_, i) => start + i);
export const naiveTree = (size: number): NaiveTree => new NaiveTree(range(0, size).map(leaf));

/** Tiles in memory: the newest content of each, of which any beginning can be read. */
export class TileMap {
  readonly tiles = new Map<string, Uint8Array>();
  put(tiles: readonly Tile[]): void {
    for (const { level, index, hashes } of tiles) this.tiles.set(`${level}/${index}`, hashes);
  }
  readonly read: ReadTile = async (level, index, width) => {
    const tile = this.tiles.get(`${level}/${index}`);
    if (tile === undefined || tile.length < width * 32) throw new Error(`no tile ${level}/${index} of width ${width}`);
    return tile.subarray(0, width * 32);
  };
}

/** The value, or undefined when it failed with one of the codes. Any other failure fails the test. */
export function valueOr<T>(codes: readonly ErrorCode[], make: () => T): T | undefined {
  try {
    return make();
  } catch (error) {
    expect(error).toBeInstanceOf(WaggleError);
    expect(codes).toContain((error as WaggleError).code);
    return undefined;
  }
}

/** Runs and returns the code of the error, or 'none'. */
export function codeOf(run: () => unknown): ErrorCode | 'none' {
  try {
    run();
  } catch (error) {
    if (error instanceof WaggleError) return error.code;
    throw error;
  }
  return 'none';
}

/** The text with a few characters replaced, inserted, removed or swapped: almost what it was. */
export const mutations = (text: string): fc.Arbitrary<string> =>
  fc
    .array(
      fc.record({
        at: fc.nat(text.length),
        remove: fc.integer({ min: 0, max: 3 }),
        insert: fc.oneof(
          fc.constantFrom('\n', '\n\n', ' ', '+', '=', '— ', '0', 'A', 'x', '/', '\u0000', '\ud800', '\r\n'),
          fc.string({ unit: 'binary', maxLength: 3 }),
          fc.nat(text.length).map((from) => text.slice(from, from + 40)),
        ),
      }),
      { minLength: 1, maxLength: 3 },
    )
    .map((edits) =>
      edits.reduce((now, { at, remove, insert }) => now.slice(0, at) + insert + now.slice(at + remove), text),
    );

/** The bytes with a few of them changed, and perhaps cut or grown at the end. */
export const byteMutations = (bytes: Uint8Array): fc.Arbitrary<Uint8Array> =>
  fc
    .record({
      flips: fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 })), { maxLength: 4 }),
      cut: fc.oneof(fc.constant(0), fc.nat(bytes.length)),
      tail: fc.oneof(fc.constant(new Uint8Array()), fc.uint8Array({ maxLength: 1024 })),
    })
    .map(({ flips, cut, tail }) => {
      const changed = Uint8Array.from(bytes);
      for (const [at, flip] of flips) changed[at]! ^= flip;
      return concat(changed.subarray(0, bytes.length - cut), tail);
    });
