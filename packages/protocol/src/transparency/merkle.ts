import { assert, equalBytes, present, WaggleError, type Crypto } from '../base/index.ts';

/** Bytes of a hash of the tree (SHA-256). */
export const HASH_BYTES = 32;

/** Domain separation of leaves and nodes (RFC 6962 §2.1): no leaf can pass for a node. */
const LEAF_PREFIX = new Uint8Array([0x00]);
const NODE_PREFIX = new Uint8Array([0x01]);

/** Hash of one leaf: `SHA-256(0x00 ‖ data)`, 32 bytes (RFC 6962 §2.1). */
export const leafHash = (crypto: Crypto, data: Uint8Array): Uint8Array => crypto.sha256(LEAF_PREFIX, data);

/** Hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`, 32 bytes (RFC 6962 §2.1). */
export const nodeHash = (crypto: Crypto, left: Uint8Array, right: Uint8Array): Uint8Array =>
  crypto.sha256(NODE_PREFIX, left, right);

/** Root of the tree without leaves: `SHA-256("")` (RFC 6962 §2.1). */
export const emptyRoot = (crypto: Crypto): Uint8Array => crypto.sha256();

/** The largest power of two that is at most n; n from 1 to 2^53 − 1. No bit operators: they end at 32 bits. */
export function powerUpTo(n: number): number {
  let power = 1;
  while (power * 2 <= n) power *= 2;
  return power;
}

/**
 * What is needed of a tree to append to it and to know its root: the roots of the perfect subtrees that a tree of `size`
 * leaves consists of, largest first, one per 1 in the binary form of `size` (the compact range of a prefix).
 */
export interface Frontier {
  /** Leaves, 0 to 2^53 − 1. */
  readonly size: number;
  /** 32 bytes each. */
  readonly hashes: readonly Uint8Array[];
}

export const EMPTY_FRONTIER: Frontier = { size: 0, hashes: [] };

/** The frontier after the leaves with these hashes are appended. The given one stays as it is. */
export function appendToFrontier(crypto: Crypto, frontier: Frontier, leafHashes: Iterable<Uint8Array>): Frontier {
  const hashes = [...frontier.hashes];
  let { size } = frontier;
  for (const leaf of leafHashes) {
    let hash = leaf;
    // As a binary counter carries: every subtree of the same height on the left merges with the new one.
    for (let rest = size; rest % 2 === 1; rest = (rest - 1) / 2) {
      hash = nodeHash(crypto, present(hashes.pop(), 'the left subtree'), hash);
    }
    hashes.push(hash);
    size += 1;
  }
  assert(Number.isSafeInteger(size), 'a tree has at most 2^53 - 1 leaves');
  return { size, hashes };
}

/** Root of the tree: 32 bytes. */
export function frontierRoot(crypto: Crypto, { hashes }: Frontier): Uint8Array {
  if (hashes.length === 0) return emptyRoot(crypto);
  return hashes.reduceRight((right, left) => nodeHash(crypto, left, right));
}

/** Root of the tree with these leaf hashes: `MTH(D[n])` of RFC 6962 §2.1. */
export const rootOf = (crypto: Crypto, leafHashes: Iterable<Uint8Array>): Uint8Array =>
  frontierRoot(crypto, appendToFrontier(crypto, EMPTY_FRONTIER, leafHashes));

/** That a leaf stands at an index of a tree: `PATH(index, D[size])` of RFC 6962 §2.1.1. */
export interface InclusionProof {
  /** 0 to size − 1. */
  readonly index: number;
  /** Leaves of the tree. */
  readonly size: number;
  /** From the leaf's sibling up to a child of the root, 32 bytes each. */
  readonly hashes: readonly Uint8Array[];
}

/** That one tree is the beginning of another: `PROOF(oldSize, D[newSize])` of RFC 6962 §2.1.2. */
export interface ConsistencyProof {
  /** 0 to newSize. */
  readonly oldSize: number;
  readonly newSize: number;
  /** 32 bytes each; none when oldSize is 0 or newSize. */
  readonly hashes: readonly Uint8Array[];
}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new WaggleError('PROOF_INVALID', message);
}

const isSize = (n: number): boolean => Number.isSafeInteger(n) && n >= 0;

/** The position of a node and of the last node of its row, which both go up the tree together (RFC 9162 §2.1.3.2). */
class Climb {
  node: number;
  last: number;
  constructor(node: number, last: number) {
    this.node = node;
    this.last = last;
  }
  up(): void {
    this.node = Math.floor(this.node / 2);
    this.last = Math.floor(this.last / 2);
  }
  get isRight(): boolean {
    return this.node % 2 === 1;
  }
  /** Whether the next hash of the proof stands on the left of the node: it is a right child, or the end of its row. */
  get hasLeft(): boolean {
    return this.isRight || this.node === this.last;
  }
  /** Up over the rows in which the node, the last of its row, has no sibling. */
  skipLonely(): void {
    while (!this.isRight && this.node > 0) this.up();
  }
}

/**
 * Checks that the leaf hash (32 bytes) stands at the proof's index of the tree with that root (RFC 9162 §2.1.3.2).
 * Throws `PROOF_INVALID`.
 */
export function verifyInclusion(crypto: Crypto, proof: InclusionProof, leaf: Uint8Array, root: Uint8Array): void {
  const { index, size, hashes } = proof;
  check(
    isSize(index) && isSize(size) && index < size,
    `Expected an index below the tree size, received ${index} of ${size}`,
  );
  const climb = new Climb(index, size - 1);
  let hash = leaf;
  for (const other of hashes) {
    check(other.length === HASH_BYTES, `Expected hashes of ${HASH_BYTES} bytes, received ${other.length}`);
    check(climb.last > 0, `Expected fewer hashes for leaf ${index} of ${size}, received ${hashes.length}`);
    if (climb.hasLeft) {
      hash = nodeHash(crypto, other, hash);
      climb.skipLonely();
    } else {
      hash = nodeHash(crypto, hash, other);
    }
    climb.up();
  }
  check(climb.last === 0, `Expected more hashes for leaf ${index} of ${size}, received ${hashes.length}`);
  check(equalBytes(hash, root), `Expected leaf ${index} to lead to the root of the tree of ${size} leaves`);
}

/**
 * Checks that the tree with the new root begins with the tree with the old root (RFC 9162 §2.1.4.2; besides, every tree
 * begins with the empty one). Throws `PROOF_INVALID`.
 */
export function verifyConsistency(
  crypto: Crypto,
  proof: ConsistencyProof,
  oldRoot: Uint8Array,
  newRoot: Uint8Array,
): void {
  const { oldSize, newSize, hashes } = proof;
  check(
    isSize(oldSize) && isSize(newSize) && oldSize <= newSize,
    `Expected growing tree sizes, received ${oldSize} and ${newSize}`,
  );
  const oldIsEmpty = oldSize === 0;
  check(!oldIsEmpty || equalBytes(oldRoot, emptyRoot(crypto)), 'Expected the empty root for tree size 0');
  if (oldIsEmpty || oldSize === newSize) {
    check(hashes.length === 0, `Expected no hashes from ${oldSize} to ${newSize} leaves, received ${hashes.length}`);
    check(
      oldSize < newSize || equalBytes(oldRoot, newRoot),
      `Expected one root for tree size ${oldSize}, received two`,
    );
    return;
  }
  // A perfect old tree is a node of the new one, so its root begins the path and need not be sent.
  const [first, ...rest] = powerUpTo(oldSize) === oldSize ? [oldRoot, ...hashes] : hashes;
  check(first !== undefined, `Expected hashes from ${oldSize} to ${newSize} leaves, received none`);
  const climb = new Climb(oldSize - 1, newSize - 1);
  while (climb.isRight) climb.up();
  let [oldHash, newHash] = [first, first];
  for (const other of rest) {
    check(climb.last > 0, `Expected fewer hashes from ${oldSize} to ${newSize} leaves, received ${hashes.length}`);
    if (climb.hasLeft) {
      oldHash = nodeHash(crypto, other, oldHash);
      newHash = nodeHash(crypto, other, newHash);
      climb.skipLonely();
    } else {
      newHash = nodeHash(crypto, newHash, other);
    }
    climb.up();
  }
  check(
    hashes.every((hash) => hash.length === HASH_BYTES),
    `Expected hashes of ${HASH_BYTES} bytes`,
  );
  check(climb.last === 0, `Expected more hashes from ${oldSize} to ${newSize} leaves, received ${hashes.length}`);
  check(equalBytes(oldHash, oldRoot), `Expected the proof to lead to the root of the tree of ${oldSize} leaves`);
  check(equalBytes(newHash, newRoot), `Expected the proof to lead to the root of the tree of ${newSize} leaves`);
}
