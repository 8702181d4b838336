import { describe, expect, it } from 'vitest';
import {
  base64,
  fromUtf8,
  present,
  utf8,
  WaggleError,
  type Digest,
  type ReplicaId,
  type Run,
} from '../../src/base/index.ts';
import {
  BUNDLE_FILES,
  verifyBreak,
  verifyBundle,
  verifySuccessor,
  type Bundle,
  type Succession,
  type Verified,
} from '../../src/audit/index.ts';
import { addUsage, ZERO_USAGE, type Usage } from '../../src/lattice/index.ts';
import {
  clusterOf,
  encodeGenesis,
  parseGenesis,
  type Cluster,
  type Genesis,
  type Predecessor,
} from '../../src/sealing/index.ts';
import { parseSlot } from '../../src/usage/index.ts';
import { statementTotal, usageOf } from '../sealing/harness.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { codeOf } from '../transparency/support.ts';
import { founder, succeed, successorOf } from './successor.ts';
import { eventfulCluster, publish } from './support.ts';

/** Three voters that sealed four epochs, and went on counting. One of them is left, with what it has of all. */
const lost = eventfulCluster({ members: 3 });
const survivor = lost.nodes[0]!;
for (const node of lost.nodes) lost.meter(node, 'shop', 10 + node.index);
lost.settle();
const before = await publish(lost, survivor);
/** After the break copies of slots surface that the old seals had counted: of an open one with more, of a closed one the same. */
const more = surface();
const { cluster, records, bundles } = succeed(lost, 2);

function surface(): Usage {
  const { chain, contents, sealed } = survivor.disk;
  let added = ZERO_USAGE;
  for (const [name, digest] of chain.counted) {
    const [replica, run, epoch] = name.split('-');
    const id = { replica: replica as ReplicaId, run: Number(run) as Run, epoch: Number(epoch) };
    const rows = parseSlot(present(contents.get(digest), name)).map((row) => ({
      ...row,
      usage: addUsage(row.usage, usageOf(2)),
    }));
    survivor.hold(id, rows);
    for (const _ of rows) added = addUsage(added, usageOf(2));
  }
  const closed = sealed.flatMap(({ sealed: { value } }) => value.slotList).filter((entry) => entry.closed);
  for (const { replica, run, epoch, digest } of closed)
    survivor.hold({ replica, run, epoch }, parseSlot(present(contents.get(digest), digest)));
  return added;
}

const verifyAll = (all: readonly Bundle[]): Verified =>
  present(
    all.reduce<Verified | null>((verified, bundle) => verifyBundle(bundle, verified, null, nodeCrypto).verified, null),
    'a bundle',
  );
const ended = verifyAll(before.bundles);
const successor = (...changes: Parameters<typeof successorOf> extends [unknown, ...infer C] ? C : never): Genesis =>
  successorOf(lost, ...changes);
const succession = (of: Cluster = cluster): Succession => present(verifySuccessor(of, nodeCrypto), 'a predecessor');

describe('a successor', () => {
  it('says by itself whom it succeeds, from where on, and who signed that', () => {
    const reason = 'The building burned down.';
    expect(succession()).toMatchObject({ epoch: 4, checkpoint: { size: ended.frontier.size }, reason });
    expect(succession().cosigners).toHaveLength(2);
    expect(verifySuccessor(lost.cluster, nodeCrypto)).toBe(null);
  });

  it('has a genesis of which no byte can be another', () => {
    const good = utf8(encodeGenesis(cluster.genesis));
    expect(parseGenesis(good)).toEqual(cluster.genesis);
    for (let i = 0; i < good.length; i++) {
      const bad = good.slice();
      bad[i]! ^= 1;
      expect(() => verifySuccessor(clusterOf(parseGenesis(bad), nodeCrypto), nodeCrypto), `byte ${i}`).toThrow(
        WaggleError,
      );
    }
  });

  it('goes on with the numbers of epochs and the chain of headers, in a log of its own', () => {
    const verified = verifyAll(bundles);
    expect(verified).toMatchObject({ fromGenesis: true, chain: { epoch: 6 } });
    expect(records.map(({ sealed }) => sealed.firstLeaf)[0]).toBe(0);
    const header = JSON.parse(fromUtf8(bundles[0]!.get(BUNDLE_FILES.header)!)) as { previous: string; epoch: number };
    expect(header).toMatchObject({ epoch: 4, previous: ended.chain.previous });
    verifyBreak(succession(), { cluster: lost.cluster, verified: ended }, nodeCrypto);
  });

  it('counts what was left uncounted, and nothing again', () => {
    expect(more.requests).toBeGreaterThan(0);
    const total = statementTotal(records);
    expect(total).toEqual([10, 11, 12].map(usageOf).reduce(addUsage, more));
    const all: Usage = addUsage(statementTotal(survivor.disk.sealed), total);
    // The eventful cluster has a copy with 3 more in each figure surface.
    const late = Object.fromEntries(Object.keys(ZERO_USAGE).map((name) => [name, 3])) as unknown as Usage;
    expect(all).toEqual([lost.acknowledged, late, more].reduce(addUsage, ZERO_USAGE));
  });

  it('is refused in a bundle that begins elsewhere, or with a word changed that the operator did not sign', () => {
    const first = bundles[0]!;
    const chain = JSON.parse(fromUtf8(first.get(BUNDLE_FILES.chain)!)) as Record<string, unknown>;
    const withChain = (changed: object): Bundle =>
      new Map([...first, [BUNDLE_FILES.chain, utf8(JSON.stringify({ ...chain, ...changed }))]]);
    for (const changed of [{ previous: null }, { epoch: 0 }, { epoch: 3 }])
      expect(codeOf(() => verifyBundle(withChain(changed), null, null, nodeCrypto))).toBe('HEADER_MISMATCH');
    const forged = successor({}, {}, testSigner('somebody'));
    const bundle = new Map([...first, [BUNDLE_FILES.genesis, utf8(encodeGenesis(forged))]]);
    expect(codeOf(() => verifyBundle(bundle, null, null, nodeCrypto))).toBe('GENESIS_MISMATCH');
  });
});

describe('the break between a predecessor and its successor', () => {
  const breaks = (genesis: Genesis, verified: Verified | null = ended): string =>
    codeOf(() =>
      verifyBreak(succession(clusterOf(genesis, nodeCrypto)), { cluster: lost.cluster, verified }, nodeCrypto),
    );

  it('is good only where the predecessor ends', () => {
    const shorter = verifyAll(before.bundles.slice(0, -1));
    expect(breaks(successor(), shorter)).toBe('HISTORY_CHANGED');
    expect(breaks(successor(), null)).toBe('HISTORY_CHANGED');
    expect(breaks(successor(), { ...ended, fromGenesis: false })).toBe('GENESIS_MISMATCH');
    expect(breaks(successor({ previous: '0'.repeat(64) as Digest }))).toBe('HISTORY_CHANGED');
    expect(breaks(successor({ epoch: 5 }))).toBe('HISTORY_CHANGED');
    expect(breaks(successor({ format: 2 }))).toBe('HISTORY_CHANGED');
    expect(breaks(successor({ checkpoint: null }))).toBe('HISTORY_CHANGED');
  });

  it('is not good when what was counted is left out, or is more', () => {
    const { counted, closed } = present(successor().predecessor, 'a predecessor');
    expect(counted.length).toBeGreaterThan(0);
    expect(breaks(successor({ counted: counted.slice(1) }))).toBe('CONSERVATION_BROKEN');
    expect(breaks(successor({ closed: closed.slice(1) }))).toBe('CONSERVATION_BROKEN');
    const [[writer, [[from, to]]], ...rest] = closed as unknown as [[never, [[number, number]]]];
    expect(breaks(successor({ closed: [[writer, [[from, to + 1]]], ...rest] }))).toBe('CONSERVATION_BROKEN');
  });

  it('is not good with another cluster, operator, name, clock of epochs, or old replicas as new voters', () => {
    expect(breaks(successor({}, { startMs: 0 }))).toBe('GENESIS_MISMATCH');
    expect(breaks(successor({}, { epochMs: 1_000 }))).toBe('GENESIS_MISMATCH');
    const other = testSigner('another operator');
    const operatorKey = base64.encode(other.publicKey);
    expect(breaks(successor({}, { operatorKey }, other))).toBe('GENESIS_MISMATCH');
    expect(breaks(successor({}, { roster: lost.cluster.genesis.roster }))).toBe('GENESIS_MISMATCH');
    const writers = successor().predecessor!.writers.map((writer) => ({ ...writer, transportKey: founder.logKey }));
    expect(breaks(successor({ writers }))).toBe('GENESIS_MISMATCH');
    // The checkpoint is signed for the log of one cluster, under one name.
    expect(codeOf(() => verifySuccessor(clusterOf(successor({}, { name: 'x' }), nodeCrypto), nodeCrypto))).toBe(
      'GENESIS_MISMATCH',
    );
    const alien = 'a'.repeat(64) as Predecessor['cluster'];
    expect(codeOf(() => verifySuccessor(clusterOf(successor({ cluster: alien }), nodeCrypto), nodeCrypto))).toBe(
      'GENESIS_MISMATCH',
    );
  });
});
