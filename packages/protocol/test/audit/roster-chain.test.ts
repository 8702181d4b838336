import { describe, expect, it } from 'vitest';
import { base64, jcs, present, utf8, type Json } from '../../src/base/index.ts';
import { verifyBundle, verifyRosters, verifyStatement } from '../../src/audit/index.ts';
import { chainStart, encodeRoster, placedStatements, type Cluster } from '../../src/sealing/index.ts';
import { formatLogProof, formatNote, inclusionProof, parseNote } from '../../src/transparency/index.ts';
import { bundleOf } from '../member/bundle.ts';
import { cheapCrypto } from '../member/harness.ts';
import { nodeCrypto } from '../support.ts';
import { codeOf } from '../transparency/support.ts';
import { grown, rosterLines as linesOf, tilesOf } from './grown.ts';
import { founder, succeed } from './successor.ts';
import { eventfulCluster } from './support.ts';

const test = grown();
const { cluster, disk } = test.founder;
const lines = await linesOf(disk.seals);
const bytes = (all: readonly string[]): Uint8Array => utf8(all.map((line) => `${line}\n`).join(''));
const verify = (all: readonly string[], of: Cluster = cluster): ReturnType<typeof verifyRosters> =>
  verifyRosters(of, bytes(all), cheapCrypto);
const refusal = (all: readonly string[], of?: Cluster): string => codeOf(() => verify(all, of));

describe('the chain of rosters', () => {
  it('leads from the genesis to every roster that sealed, through everyone who comes and goes', () => {
    const rosters = verify(lines);
    const sizes = rosters.map(({ roster }) => roster.length);
    expect([sizes[0], Math.max(...sizes), sizes.at(-1)]).toEqual([1, 5, 3]);
    for (const { sealed } of disk.seals) {
      const { roster } = present(
        rosters.findLast(({ from }) => from <= sealed.epoch),
        'a roster',
      );
      expect(encodeRoster(roster)).toEqual(encodeRoster(sealed.roster));
    }
    expect(verify([])).toEqual([{ from: 0, roster: cluster.genesis.roster }]);
  });

  it('is what later statements and bundles are checked by, which the genesis alone is not', async () => {
    const rosters = verify(lines);
    const record = present(
      disk.seals.findLast(({ sealed }) => sealed.roster.length >= 3 && placedStatements(sealed).length > 0),
      'an epoch',
    );
    const { sealed } = record;
    const known = present(
      rosters.findLast(({ from }) => from <= sealed.epoch),
      'a roster',
    ).roster;
    const [placed] = placedStatements(sealed);
    const { index, hashes } = await inclusionProof(cheapCrypto, tilesOf(disk.seals), placed!.leaf, sealed.treeSize);
    const proof = utf8(formatLogProof({ index, hashes, checkpoint: sealed.checkpoint }));
    const check = (roster: typeof known) => verifyStatement(placed!.bytes, proof, cluster, roster, cheapCrypto);
    expect(check(known)).toMatchObject({ sealedIn: sealed.epoch, treeSize: sealed.treeSize });
    expect(codeOf(() => check(cluster.genesis.roster))).toBe('CHECKPOINT_INVALID');
    const bundle = bundleOf(cluster, disk, record);
    expect(verifyBundle(bundle, null, cluster.id, cheapCrypto, known).report.roster).toBe(known.length);
    expect(codeOf(() => verifyBundle(bundle, null, cluster.id, cheapCrypto))).toBe('ROSTER_MISMATCH');
    // The first epoch is the genesis' own, whatever else is said to be known.
    const first = bundleOf(cluster, disk, disk.seals[0]!);
    expect(verifyBundle(first, null, cluster.id, cheapCrypto, known).report.roster).toBe(1);
  });

  it('is refused with a change left out, said twice, in another order, or of another cluster', () => {
    expect(lines.length).toBeGreaterThanOrEqual(3);
    for (let i = 0; i < lines.length - 1; i++) {
      const without = lines.filter((_, at) => at !== i);
      expect(refusal(without), `without ${i}`).toMatch(/^(CHECKPOINT_INVALID|QUORUM_MISSING)$/);
    }
    // What was left out at the end, nobody can miss.
    expect(verify(lines.slice(0, -1))).toEqual(verify(lines).slice(0, -1));
    expect(refusal([lines[0]!, ...lines])).toBe('ROSTER_MISMATCH');
    expect(refusal([...lines].reverse())).not.toBe('none');
    const other = eventfulCluster({ members: 1 }).cluster;
    expect(refusal(lines, other)).toBe('CHECKPOINT_INVALID');
  });

  it('is refused for other bytes', () => {
    const [first] = lines as [string];
    const change = JSON.parse(first) as { [key: string]: Json; header: string };
    const later = JSON.parse(lines.at(-1)!) as { [key: string]: Json };
    const said = (changed: { [key: string]: Json }): string => refusal([jcs({ ...change, ...changed })]);
    expect(said({})).toBe('none');
    expect(said({ header: later['header']! })).toBe('HEADER_MISMATCH');
    expect(said({ header: 'none' })).toBe('HEADER_MISMATCH');
    expect(
      said({
        header: change.header.replace('"facts":"', '"facts":"00').replace(/..","format/, '","format'),
      }),
    ).toBe('PROOF_INVALID');
    expect(said({ epoch: Number(change['epoch']) + 1 })).toBe('HEADER_MISMATCH');
    expect(said({ index: Number(change['index']) + 1 })).toBe('PROOF_INVALID');
    expect(said({ hashes: [...(change['hashes'] as Json[]), base64.encode(new Uint8Array(32))] })).toBe(
      'PROOF_INVALID',
    );
    expect(said({ roster: later['roster']! })).toBe('ROSTER_MISMATCH');
    expect(said({ more: 1 })).toBe('ROSTER_MISMATCH');
    expect(said({ roster: [] })).toBe('ROSTER_MISMATCH');
    expect(said({ checkpoint: '' })).toBe('CHECKPOINT_INVALID');
    expect(refusal(['null'])).toBe('ROSTER_MISMATCH');
    expect(codeOf(() => verifyRosters(cluster, utf8(first), cheapCrypto))).toBe('ROSTER_MISMATCH');
    // Any byte of it.
    for (let at = 0; at < first.length; at += 7) {
      const changed = first.slice(0, at) + (first[at] === '1' ? '2' : '1') + first.slice(at + 1);
      expect(refusal([changed, ...lines.slice(1)]), `${at}`).not.toBe('none');
    }
  });

  it('is refused where less than a majority of the roster in force signed', () => {
    const i = lines.findIndex(
      (line) => parseNote((JSON.parse(line) as { checkpoint: string }).checkpoint).signatures.length > 3,
    );
    const change = JSON.parse(lines[i]!) as { [key: string]: Json } & { checkpoint: string };
    const { text, signatures } = parseNote(change.checkpoint);
    const isLast = signatures.map(({ name }) => name).findLastIndex((name) => name.split('/').length > 2);
    const fewer = formatNote({ text, signatures: signatures.filter((_, at) => at !== isLast) });
    const minority = jcs({ ...change, checkpoint: fewer });
    expect(refusal([...lines.slice(0, i), minority, ...lines.slice(i + 1)])).toBe('QUORUM_MISSING');
  });

  it('of a successor begins with the roster of its genesis, which the operator has to have signed', () => {
    const { cluster: next } = succeed(eventfulCluster({ members: 3 }), 1);
    const { epoch } = chainStart(next);
    const read = (of: Cluster) => verifyRosters(of, new Uint8Array(), nodeCrypto);
    expect(epoch).toBeGreaterThan(0);
    expect(read(next)).toEqual([{ from: epoch, roster: [founder] }]);
    const { predecessor } = next.genesis;
    const forged = { ...next, genesis: { ...next.genesis, predecessor: { ...predecessor!, reason: 'Another.' } } };
    expect(codeOf(() => read(forged))).toBe('GENESIS_MISMATCH');
  });
});
