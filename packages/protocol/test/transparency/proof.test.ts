import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, utf8, type ReplicaId } from '../../src/base/index.ts';
import {
  checkpointText,
  cosignerKey,
  formatLogProof,
  formatPolicy,
  logKey,
  openCheckpoint,
  parseLogProof,
  parseVerifierKey,
  signCheckpoint,
  verifyInclusion,
} from '../../src/transparency/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { codeOf, mutations, naiveTree, valueOr } from './support.ts';

const ORIGIN = 'waggle.example/0123456789abcdef';
const log = testSigner('log');
const tree = naiveTree(7);
const text = checkpointText({ origin: ORIGIN, size: 7, root: tree.root(0, 7) });
const checkpoint = `${text}\n${signCheckpoint(nodeCrypto, text, ORIGIN, log)}`;
const proof = { index: 4, hashes: tree.path(4, 0, 7), checkpoint };

describe('c2sp.org/tlog-proof', () => {
  it('is written as the specification shows it', () => {
    const lines = formatLogProof({ extra: utf8('extra data'), ...proof }).split('\n');
    expect(lines.slice(0, 7)).toEqual([
      'c2sp.org/tlog-proof@v1',
      `extra ${base64.encode(utf8('extra data'))}`,
      'index 4',
      ...proof.hashes.map((hash) => base64.encode(hash)),
      '',
    ]);
    expect(lines.slice(7).join('\n')).toBe(checkpoint);
    expect(formatLogProof(proof).split('\n')[1]).toBe('index 4');
  });

  it('comes back as it went and proves the leaf', () => {
    for (const given of [proof, { extra: new Uint8Array([0, 255]), ...proof }]) {
      const parsed = parseLogProof(formatLogProof(given));
      expect(parsed).toEqual(given);
      const opened = openCheckpoint(nodeCrypto, parsed.checkpoint, [logKey(nodeCrypto, ORIGIN, log.publicKey)]);
      const { size, root } = opened.checkpoint;
      verifyInclusion(nodeCrypto, { index: parsed.index, size, hashes: parsed.hashes }, tree.root(4, 5), root);
    }
  });

  it('has no hashes in a tree of one leaf', () => {
    const small = checkpointText({ origin: ORIGIN, size: 1, root: tree.root(0, 1) });
    const one = { index: 0, hashes: [], checkpoint: `${small}\n${signCheckpoint(nodeCrypto, small, ORIGIN, log)}` };
    expect(parseLogProof(formatLogProof(one))).toEqual(one);
  });

  const valid = formatLogProof({ extra: utf8('e'), ...proof });
  it.each([
    ['another version', valid.replace('@v1', '@v2')],
    ['an index beyond the tree', valid.replace('index 4', 'index 7')],
    ['a leading zero', valid.replace('index 4', 'index 04')],
    ['two extras', valid.replace('extra', `extra ZQ==\nextra`)],
    ['extra after the index', valid.replace('index 4', 'index 4\nextra ZQ==')],
    ['no index', valid.replace('index 4\n', '')],
    ['a short hash', valid.replace('index 4', `index 4\n${base64.encode(new Uint8Array(31))}`)],
    ['54 hashes', valid.replace('index 4', `index 4${`\n${base64.encode(new Uint8Array(32))}`.repeat(54)}`)],
    ['no blank line', valid.replace('\n\n', '\n')],
    ['two blank lines', valid.replace('\n\n', '\n\n\n')],
    ['no checkpoint', valid.slice(0, valid.indexOf('\n\n') + 2)],
    ['a carriage return', valid.replace('index 4', 'index 4\r')],
    ['too much', `${valid}${'x'.repeat(4_000_000)}`],
  ])('refuses %s', (_, changed) => {
    expect(codeOf(() => parseLogProof(changed))).toBe('DECODE_FAILED');
  });

  it('has one text for one proof, whatever is parsed', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), mutations(valid)), (changed) => {
        const parsed = valueOr(['DECODE_FAILED'], () => parseLogProof(changed));
        if (parsed !== undefined) expect(formatLogProof(parsed)).toBe(changed);
      }),
      { numRuns: 2_000 },
    );
  });

  it('is not written when it could not be read', () => {
    expect(codeOf(() => formatLogProof({ ...proof, index: 7 }))).toBe('DECODE_FAILED');
    expect(codeOf(() => formatLogProof({ ...proof, checkpoint: text }))).toBe('DECODE_FAILED');
  });
});

describe('c2sp.org/tlog-policy', () => {
  const member = (digit: string) => ({
    replica: digit.repeat(32) as ReplicaId,
    logKey: testSigner(`log ${digit}`).publicKey,
    cosignerKey: testSigner(`cosigner ${digit}`).publicKey,
  });

  it.each([
    [1, 1],
    [2, 2],
    [3, 2],
    [4, 3],
    [5, 3],
  ])('asks for a majority of %i', (size, majority) => {
    const roster = ['1', '2', '3', '4', '5'].slice(0, size).map(member);
    const lines = formatPolicy(nodeCrypto, ORIGIN, roster)
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => line.split(' '));
    const keys = (keyword: string) =>
      lines.filter(([first]) => first === keyword).map((line) => parseVerifierKey(nodeCrypto, line.at(-1)!));
    expect(keys('log')).toEqual(roster.map((one) => logKey(nodeCrypto, ORIGIN, one.logKey)));
    expect(keys('witness')).toEqual(roster.map((one) => cosignerKey(nodeCrypto, ORIGIN, one.replica, one.cosignerKey)));
    expect(lines.filter(([first]) => first === 'witness').map(([, name]) => name)).toEqual(
      roster.map(({ replica }) => replica),
    );
    expect(lines.slice(-2)).toEqual([
      ['group', 'roster', String(majority), ...roster.map(({ replica }) => replica)],
      ['quorum', 'roster'],
    ]);
    expect(lines).toHaveLength(2 * size + 2);
  });

  it('refuses what no policy can express', () => {
    expect(codeOf(() => formatPolicy(nodeCrypto, ORIGIN, []))).toBe('DECODE_FAILED');
    expect(codeOf(() => formatPolicy(nodeCrypto, ORIGIN, [member('1'), member('1')]))).toBe('DECODE_FAILED');
  });
});
