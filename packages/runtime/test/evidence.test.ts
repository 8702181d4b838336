import { appendFileSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ClusterId, ReplicaId } from '@waggle/protocol/base';
import { EVIDENCE_BYTES_MAX, openEvidence, type EvidencePiece } from '../src/index.ts';
import { START_MS, temporaryDirectories } from './support.ts';

const temporary = temporaryDirectories();
const CLUSTER = '0'.repeat(64) as ClusterId;
const liar = 'ab'.repeat(16) as ReplicaId;
const register = (value = '{}') => ({ key: 'ballot/7', version: 3, value, signature: 'c2lnbmVk' });
const piece = (epoch: number, value?: string): EvidencePiece => ({
  epoch,
  replica: liar,
  what: 'noVote',
  code: 'DECODE_FAILED',
  registers: [register(value)],
});
const fileOf = (directory: string): string => join(directory, 'evidence.jsonl');
const linesOf = (directory: string): unknown[] =>
  readFileSync(fileOf(directory), 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as unknown);
const epochsOf = (directory: string): number[] => openEvidence(directory, CLUSTER).pieces.map(({ epoch }) => epoch);

describe('the evidence of a data directory', () => {
  it('is made with the first piece, for its owner only, with the registers', () => {
    const directory = temporary();
    const evidence = openEvidence(directory, CLUSTER);
    expect(statSync(fileOf(directory), { throwIfNoEntry: false })).toBeUndefined();
    expect(evidence.add(piece(7), START_MS)).toBe(true);
    expect(statSync(fileOf(directory)).mode & 0o777).toBe(0o600);
    expect(linesOf(directory)).toEqual([
      {
        seenAt: '2023-11-14T22:13:20.000Z',
        cluster: CLUSTER,
        epoch: 7,
        replica: liar,
        what: 'noVote',
        code: 'DECODE_FAILED',
        registers: [register()],
      },
    ]);
  });

  it('holds each piece once, over restarts too', () => {
    const directory = temporary();
    openEvidence(directory, CLUSTER).add(piece(1), START_MS);
    const again = openEvidence(directory, CLUSTER);
    expect([again.has(piece(1, 'other')), again.has(piece(2))]).toEqual([true, false]);
    expect(again.add(piece(1), START_MS + 1)).toBe(true);
    again.add({ ...piece(2), replica: null, registers: [] }, START_MS + 1);
    expect(again.pieces).toEqual(openEvidence(directory, CLUSTER).pieces);
    expect(linesOf(directory)).toMatchObject([{ epoch: 1 }, { epoch: 2, replica: null, registers: [] }]);
  });

  it('keeps what it has of the cluster before, and speaks of its own', () => {
    const directory = temporary();
    openEvidence(directory, CLUSTER).add(piece(1), START_MS);
    const successor = openEvidence(directory, '1'.repeat(64) as ClusterId);
    expect([successor.pieces, successor.has(piece(1))]).toEqual([[], false]);
    successor.add(piece(1), START_MS);
    expect(linesOf(directory)).toHaveLength(2);
    expect(epochsOf(directory)).toEqual([1]);
  });

  it('survives a crash in the middle of any line', () => {
    const directory = temporary();
    openEvidence(directory, CLUSTER).add(piece(1), START_MS);
    const whole = statSync(fileOf(directory)).size;
    openEvidence(directory, CLUSTER).add(piece(2), START_MS);
    const { size } = statSync(fileOf(directory));
    for (let length = size - 1; length >= whole; length--) {
      truncateSync(fileOf(directory), length);
      expect(epochsOf(directory)).toEqual([1]);
    }
    appendFileSync(fileOf(directory), '{"seenAt":"20');
    openEvidence(directory, CLUSTER).add(piece(3), START_MS);
    expect(linesOf(directory)).toMatchObject([{ epoch: 1 }, { epoch: 3 }]);
  });

  it('passes over lines that are not of its form', () => {
    const directory = temporary();
    writeFileSync(fileOf(directory), 'nonsense\n[]\nnull\n{"epoch":1,"what":"noVote"}\n');
    const evidence = openEvidence(directory, CLUSTER);
    expect(evidence.pieces).toEqual([]);
    evidence.add(piece(4), START_MS);
    expect(epochsOf(directory)).toEqual([4]);
  });

  it('takes no more than its bound, and what is too much for it is said', () => {
    const directory = temporary();
    const evidence = openEvidence(directory, CLUSTER);
    const taken = Array.from({ length: 30 }, (_, epoch) => evidence.add(piece(epoch, 'x'.repeat(48_000)), START_MS));
    expect([taken.at(0), taken.at(-1)]).toEqual([true, false]);
    expect(statSync(fileOf(directory)).size).toBeLessThanOrEqual(EVIDENCE_BYTES_MAX);
    expect(evidence.pieces).toHaveLength(taken.filter(Boolean).length);
    expect(openEvidence(directory, CLUSTER).add(piece(99, 'x'.repeat(48_000)), START_MS)).toBe(false);
    appendFileSync(fileOf(directory), 'y'.repeat(EVIDENCE_BYTES_MAX));
    const { size } = statSync(fileOf(directory));
    expect(openEvidence(directory, CLUSTER).add(piece(99), START_MS)).toBe(false);
    expect(statSync(fileOf(directory)).size).toBe(size);
  });

  it('is made anew when somebody has taken it away, and says what the disk says', () => {
    const directory = temporary();
    const evidence = openEvidence(directory, CLUSTER);
    evidence.add(piece(1), START_MS);
    rmSync(fileOf(directory));
    evidence.add(piece(2), START_MS);
    expect(linesOf(directory)).toMatchObject([{ epoch: 2 }]);
    rmSync(fileOf(directory));
    mkdirSync(fileOf(directory));
    expect(() => evidence.add(piece(3), START_MS)).toThrow('EISDIR');
    expect(evidence.has(piece(3))).toBe(false);
  });
});
