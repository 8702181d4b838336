import { describe, expect, it } from 'vitest';
import { parseJcs, present, utf8, type Digest, type Epoch } from '../../src/base/index.ts';
import { parseBallotState, parseFrontier, parseHeader, parseReports, parseSlotList } from '../../src/sealing/index.ts';
import { EPOCH_MS, TestCluster, type TestNode } from './harness.ts';

/** The contents that the closes and ballots of a node name, on its disk, and the epoch of each register. */
function* named({ disk, replica }: TestNode): Generator<readonly [what: string, Digest, Epoch]> {
  const bytes = (digest: Digest): Uint8Array => present(disk.content(digest), digest);
  for (const row of disk.control.values()) {
    const [kind, number] = row.key.split('/');
    const epoch = Number(number);
    // Those of sealed epochs were released with them.
    if (row.replica !== replica || epoch < disk.chain.epoch) continue;
    if (kind === 'close') {
      const close = parseJcs(utf8(row.value), 'a close') as unknown as Record<'slot' | 'reports', Digest>;
      const reports = parseReports(bytes(close.reports));
      for (const digest of [close.slot, close.reports, ...reports.map((report) => report.digest)])
        yield [row.key, digest, epoch];
    }
    if (kind === 'ballot') {
      const { accepted, frontier } = parseBallotState(parseJcs(utf8(row.value), 'a ballot'));
      if (accepted !== null) {
        const list = parseHeader(bytes(accepted.value)).slots.digest;
        for (const digest of [accepted.value, list, ...parseSlotList(bytes(list)).map((slot) => slot.digest)])
          yield [row.key, digest, epoch];
      }
      if (frontier === null) continue;
      const { closes, slots } = parseFrontier(bytes(frontier));
      for (const digest of [frontier, ...closes.map(({ slot }) => slot), ...slots.map((slot) => slot.digest)])
        yield [row.key, digest, epoch];
    }
  }
}

describe('contents on disk', () => {
  it('are pinned for every epoch that is not sealed and names them, whenever they were pinned first', () => {
    const test = new TestCluster(3);
    const [founder, one, two, three] = test.nodes as [TestNode, TestNode, TestNode, TestNode];
    const seen = { closes: 0, ballots: 0 };
    const step = (): void => {
      test.run(1_000);
      for (const node of test.nodes)
        for (const [key, digest, epoch] of named(node)) {
          const kept = present(node.disk.contents.get(digest), `${key} of ${node.name} names ${digest}`);
          expect(kept.epoch, `${key} of ${node.name} names ${digest}`).toBeGreaterThanOrEqual(epoch);
          if (key.startsWith('close')) seen.closes++;
          else seen.ballots++;
        }
    };
    const run = (epochs: number, nodes: readonly TestNode[]): void => {
      for (let i = 0; i < epochs * EPOCH_MS; i += 1_000) {
        for (const [k, node] of nodes.entries()) node.meter(1 + ((i + k * 104_729) % 1_009));
        step();
      }
    };
    run(4, test.nodes);
    // Half is away: nothing is sealed, and what is known of the lost is reported with one close after the other.
    test.cut.add(two).add(three);
    run(4, [founder, one]);
    founder.kill();
    founder.start();
    run(1, [one]);
    test.cut.clear();
    run(3, test.nodes);
    expect(founder.disk.chain.epoch).toBeGreaterThan(7);
    expect(
      founder.disk.seals.some(({ sealed: { epoch, value } }) => value.slotList.some((slot) => slot.epoch < epoch)),
    ).toBe(true);
    expect(seen.closes).toBeGreaterThan(100);
    expect(seen.ballots).toBeGreaterThan(10);
  });
});
