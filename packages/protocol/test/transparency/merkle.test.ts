import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hex } from '../../src/base/index.ts';
import {
  appendToFrontier,
  EMPTY_FRONTIER,
  emptyRoot,
  frontierRoot,
  leafHash,
  rootOf,
  verifyConsistency,
  verifyInclusion,
} from '../../src/transparency/index.ts';
import { nodeCrypto } from '../support.ts';
import { codeOf, leaf, naiveTree, range } from './support.ts';

const SIZE_MAX = 70;
const tree = naiveTree(SIZE_MAX);
const leafHashes = range(0, SIZE_MAX).map((i) => leafHash(nodeCrypto, leaf(i)));
const flip = (bytes: Uint8Array, bit: number): Uint8Array =>
  bytes.map((byte, i) => (i === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte));

describe('RFC 6962 §2.1, Merkle tree hash', () => {
  it('gives the roots that Certificate Transparency tests itself with', () => {
    const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'];
    const roots = [
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
      '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
      'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
      'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
      '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
      '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
      'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
      '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
    ];
    const hashes = inputs.map((input) => leafHash(nodeCrypto, hex.decode(input)));
    expect(roots.map((_, size) => hex.encode(rootOf(nodeCrypto, hashes.slice(0, size))))).toEqual(roots);
    expect(hex.encode(emptyRoot(nodeCrypto))).toBe(roots[0]);
  });

  it('is the recursive definition for every size', () => {
    for (let size = 0; size <= SIZE_MAX; size++) {
      expect(rootOf(nodeCrypto, leafHashes.slice(0, size))).toEqual(tree.root(0, size));
    }
  });

  it('does not depend on how the leaves were divided into appends, and appending changes nothing given', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(20), { maxLength: 8 }), (batches) => {
        let frontier = EMPTY_FRONTIER;
        for (const batch of batches) {
          const before = { size: frontier.size, hashes: [...frontier.hashes] };
          const next = appendToFrontier(nodeCrypto, frontier, leafHashes.slice(0, batch));
          expect(frontier).toEqual(before);
          frontier = next;
        }
        const leaves = batches.flatMap((batch) => leafHashes.slice(0, batch));
        expect(frontier.size).toBe(leaves.length);
        expect(frontierRoot(nodeCrypto, frontier)).toEqual(rootOf(nodeCrypto, leaves));
      }),
    );
  });
});

describe('RFC 9162 §2.1.3.2, inclusion', () => {
  it('accepts the path of every leaf of every tree, and refuses another index, leaf, root, fewer and more hashes', () => {
    for (let size = 1; size <= SIZE_MAX; size++) {
      const root = tree.root(0, size);
      for (let index = 0; index < size; index++) {
        const proof = { index, size, hashes: tree.path(index, 0, size) };
        const hash = leafHashes[index]!;
        verifyInclusion(nodeCrypto, proof, hash, root);
        const other = { ...proof, index: (index + 1) % size };
        if (size > 1) expect(codeOf(() => verifyInclusion(nodeCrypto, other, hash, root))).toBe('PROOF_INVALID');
        const shorter = { ...proof, hashes: proof.hashes.slice(1) };
        if (size > 1) expect(codeOf(() => verifyInclusion(nodeCrypto, shorter, hash, root))).toBe('PROOF_INVALID');
        const longer = { ...proof, hashes: [...proof.hashes, hash] };
        expect(codeOf(() => verifyInclusion(nodeCrypto, longer, hash, root))).toBe('PROOF_INVALID');
        expect(codeOf(() => verifyInclusion(nodeCrypto, proof, flip(hash, index), root))).toBe('PROOF_INVALID');
        expect(codeOf(() => verifyInclusion(nodeCrypto, proof, hash, flip(root, index)))).toBe('PROOF_INVALID');
      }
    }
  });

  it('refuses a changed bit anywhere in the path', () => {
    const proof = { index: 41, size: SIZE_MAX, hashes: tree.path(41, 0, SIZE_MAX) };
    proof.hashes.forEach((hash, i) => {
      for (let bit = 0; bit < 256; bit++) {
        const changed = { ...proof, hashes: proof.hashes.with(i, flip(hash, bit)) };
        expect(codeOf(() => verifyInclusion(nodeCrypto, changed, leafHashes[41]!, tree.root(0, SIZE_MAX)))).toBe(
          'PROOF_INVALID',
        );
      }
    });
  });

  it('refuses indexes and sizes that are none, and hashes of another length', () => {
    const hash = leafHashes[0]!;
    for (const [index, size] of [
      [0, 0],
      [1, 1],
      [-1, 1],
      [0.5, 1],
      [0, Number.NaN],
      [0, 2 ** 53],
      [Number.NaN, 1],
    ] as const) {
      expect(codeOf(() => verifyInclusion(nodeCrypto, { index, size, hashes: [] }, hash, hash))).toBe('PROOF_INVALID');
    }
    const short = { index: 0, size: 2, hashes: [new Uint8Array(31)] };
    expect(codeOf(() => verifyInclusion(nodeCrypto, short, hash, hash))).toBe('PROOF_INVALID');
  });
});

describe('RFC 9162 §2.1.4.2, consistency', () => {
  it('accepts the proof between any two sizes, and refuses other sizes, roots, fewer and more hashes', () => {
    for (let newSize = 0; newSize <= SIZE_MAX; newSize++) {
      const newRoot = tree.root(0, newSize);
      for (let oldSize = 0; oldSize <= newSize; oldSize++) {
        const oldRoot = tree.root(0, oldSize);
        const proof = { oldSize, newSize, hashes: oldSize === 0 ? [] : tree.proof(oldSize, newSize) };
        verifyConsistency(nodeCrypto, proof, oldRoot, newRoot);
        const refused = (changed: typeof proof, a = oldRoot, b = newRoot): void =>
          expect(codeOf(() => verifyConsistency(nodeCrypto, changed, a, b))).toBe('PROOF_INVALID');
        refused({ ...proof, hashes: [...proof.hashes, oldRoot] });
        if (proof.hashes.length > 0) refused({ ...proof, hashes: proof.hashes.slice(1) });
        if (proof.hashes.length > 0) refused({ ...proof, hashes: proof.hashes.slice(0, -1) });
        refused(proof, flip(oldRoot, newSize));
        if (oldSize > 0) refused(proof, oldRoot, flip(newRoot, newSize));
        if (oldSize + 1 < newSize) refused({ ...proof, oldSize: oldSize + 1 });
        if (oldSize > 0 && oldSize < newSize) refused({ ...proof, oldSize: newSize, newSize: oldSize });
      }
    }
  });

  it('refuses a changed bit anywhere in the proof', () => {
    const proof = { oldSize: 37, newSize: SIZE_MAX, hashes: tree.proof(37, SIZE_MAX) };
    proof.hashes.forEach((hash, i) => {
      for (let bit = 0; bit < 256; bit++) {
        const changed = { ...proof, hashes: proof.hashes.with(i, flip(hash, bit)) };
        const run = (): void => verifyConsistency(nodeCrypto, changed, tree.root(0, 37), tree.root(0, SIZE_MAX));
        expect(codeOf(run)).toBe('PROOF_INVALID');
      }
    });
  });
});
