import { describe, expect, it, vi } from 'vitest';
import { base64, digestOf, jcs, utf8, type Digest, type Run } from '../../src/base/index.ts';
import { encodeFacts, parseFacts, type RosterFact } from '../../src/authority/index.ts';
import type { Alarm } from '../../src/member/index.ts';
import { closeJson } from '../../src/sealing/index.ts';
import { verifyBundle, type Verified } from '../../src/audit/index.ts';
import { statementsIn } from '../support.ts';
import { bundleOf } from './bundle.ts';
import { cheapCrypto, EPOCH_MS, memberKeyOf, START_MS, TestCluster, TestNode } from './harness.ts';

/** A close that says what none should. */
const someClose = {
  run: 1 as Run,
  slot: 'ab'.repeat(32) as Digest,
  salt: 'A'.repeat(43) + '=',
  formats: [1],
  reports: 'cd'.repeat(32) as Digest,
  facts: 'ef'.repeat(32) as Digest,
};

const roots = (node: TestNode): string[] =>
  node.disk.seals.map(({ sealed }) => Buffer.from(sealed.root).toString('hex'));
const keysOf = (node: TestNode): string[] => node.folded.map(({ register }) => register.key);

describe('a founder and others', () => {
  it('what one writes and meters, all hold, and all have the same seals', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(2_000);
    one.set(['fact/x/1', '"a"']);
    for (const node of test.nodes) node.meter(1);
    test.run(3_000);
    for (const node of test.nodes) {
      expect(keysOf(node)).toContain('fact/x/1');
      expect(node.counted).toEqual({ sealed: 0, unsealed: 3 });
      expect(node.member.members.map(({ state }) => state)).toEqual(['alive', 'alive', 'alive']);
    }
    test.run(2 * EPOCH_MS);
    expect(roots(founder)).toHaveLength(2);
    expect([roots(one), roots(two)]).toEqual([roots(founder), roots(founder)]);
    for (const node of test.nodes) {
      expect(node.counted).toEqual({ sealed: 3, unsealed: 0 });
      expect(node.alarms).toEqual([]);
      verifyBundle(bundleOf(node.cluster, node.disk, node.disk.seals[0]!), null, node.cluster.id, cheapCrypto);
    }
  });

  it('who is not in the roster closes, and writes neither ballot nor seal', () => {
    const test = new TestCluster(1);
    test.run(3 * EPOCH_MS);
    const kinds = (node: TestNode): string[] => [
      ...new Set([...node.disk.registersOf(node.replica).keys()].map((key) => key.split('/')[0]!)),
    ];
    expect(kinds(test.founder).sort()).toEqual(['ballot', 'close', 'roster', 'seal']);
    expect(kinds(test.nodes[1]!)).toEqual(['close']);
    expect(test.nodes[1]!.sealed).toEqual([0, 1]);
  });

  it('usage that a seal missed is counted by a later one, and the open figures never count it twice', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(3_000);
    one.meter(1);
    test.run(3_000);
    test.cut.add(one);
    one.meter(4);
    test.run(EPOCH_MS);
    expect(founder.counted).toEqual({ sealed: 1, unsealed: 0 });
    // It has closed the epoch, and knows of no seal.
    expect(one.counted).toEqual({ sealed: 0, unsealed: 5 });
    test.cut.clear();
    test.run(5_000);
    for (const node of [founder, one, two]) {
      const { sealed, unsealed } = node.counted;
      expect(sealed + unsealed).toBe(5);
    }
    test.run(2 * EPOCH_MS);
    for (const node of [founder, one, two]) expect(node.counted).toEqual({ sealed: 5, unsealed: 0 });
    const late = founder.disk.seals.flatMap(({ sealed }) =>
      statementsIn(sealed).filter(({ epoch }) => epoch < sealed.epoch),
    );
    expect(late).toHaveLength(1);
  });

  it('an open slot goes on from where it stands, though a seal has counted all of it', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    // The founder closes first: the other's clock is behind.
    one.clockOffsetMs = -5_000;
    one.meter(2);
    test.run(EPOCH_MS - 2_000);
    expect(founder.counted).toEqual({ sealed: 2, unsealed: 0 });
    expect(one.member.openEpoch).toBe(0);
    expect(one.done.get(one.meter(3))).toBe(0);
    test.run(3 * EPOCH_MS);
    for (const node of test.nodes) expect(node.counted).toEqual({ sealed: 5, unsealed: 0 });
    expect(one.disk.usage.size).toBe(0);
  });

  it('a restart asks again for what was counted of late slots, so that the open figures are right', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    one.meter(1);
    test.run(3_000);
    test.cut.add(one);
    one.meter(4);
    test.run(EPOCH_MS - 1_000);
    test.cut.clear();
    test.run(3_500);
    // Rows of a slot of which a part is sealed are on the founder's disk.
    expect(founder.counted).toEqual({ sealed: 1, unsealed: 4 });
    founder.start();
    expect(founder.counted).toEqual({ sealed: 1, unsealed: 4 });
    test.run(2 * EPOCH_MS);
    expect(founder.counted).toEqual({ sealed: 5, unsealed: 0 });
  });
});

describe('what others wrote', () => {
  it('is written lazily, and fetched again if a crash loses it', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    one.isHolding = true;
    founder.set(['fact/x/1', '"a"']);
    founder.meter(7);
    test.run(2_000);
    expect(keysOf(one)).toContain('fact/x/1');
    expect(one.counted.unsealed).toBe(7);
    one.isHolding = false;
    one.start();
    one.folded.length = 0;
    expect(one.counted.unsealed).toBe(0);
    test.run(4_000);
    expect(keysOf(one)).toContain('fact/x/1');
    expect(one.counted.unsealed).toBe(7);
    one.start();
    expect(one.counted.unsealed).toBe(7);
    expect(one.disk.registersOf(founder.replica).has('fact/x/1')).toBe(true);
  });

  it('waits for room on a full disk, and is written then', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    one.isFull = true;
    founder.set(['fact/x/1', '"a"']);
    test.run(3_000);
    expect(keysOf(one)).toContain('fact/x/1');
    one.isFull = false;
    test.run(4_000);
    expect(one.disk.registersOf(founder.replica).has('fact/x/1')).toBe(true);
  });

  it('is refused when it is no message, and held without meaning when it is no close', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(2_000);
    founder.out.length = 0;
    founder.handle({ type: 'message', from: memberKeyOf('n1'), bytes: utf8('what?') });
    expect(founder.out).toEqual([{ type: 'misbehaviour', from: one.replica, code: 'DECODE_FAILED' }]);
    founder.handle({ type: 'message', from: memberKeyOf('a stranger'), bytes: utf8('what?') });
    expect(founder.out.splice(0)).toHaveLength(1);
    const forged = jcs(closeJson({ ...someClose, epoch: 0, replica: founder.replica }));
    one.set(['close/0', forged], ['close/1', '{}']);
    test.run(2_000);
    const wanted = ['close/0', 'close/1'].map((key) => ({
      what: 'malformed',
      replica: one.replica,
      key,
      code: 'DECODE_FAILED',
    }));
    expect(founder.alarms).toEqual(wanted);
    test.run(EPOCH_MS);
    expect(founder.sealed).toEqual([0]);
  });
});

describe('a disk that went back', () => {
  it('shows nothing that others know otherwise, and says so', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    const before = new Map(one.disk.control);
    const vectors = new Map([...one.disk.vectors].map(([key, row]) => [key, { ...row }]));
    one.set(['fact/x/1', '"a"']);
    test.run(2_000);
    one.disk.control.clear();
    one.disk.vectors.clear();
    for (const [key, row] of before) one.disk.control.set(key, row);
    for (const [key, row] of vectors) one.disk.vectors.set(key, row);
    one.start();
    test.run(5_000);
    one.set(['fact/x/1', '"b"']);
    test.run(5_000);
    expect(one.alarms).toContainEqual({ what: 'overtaken', version: 1 });
    expect(founder.alarms).toEqual([]);
    expect(founder.member.registers.control.get(one.replica, 'fact/x/1')?.value).toBe('"a"');
  });

  it('one that did not is shown after it was compared, and not before', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    test.cut.add(one);
    one.start();
    one.set(['fact/x/1', '"a"']);
    test.run(2_000);
    test.cut.clear();
    test.run(5_000);
    expect(founder.member.registers.control.get(one.replica, 'fact/x/1')?.value).toBe('"a"');
    expect(one.alarms).toEqual([]);
  });
});

describe('a clock that is wrong', () => {
  const clockAlarms = (node: TestNode): Alarm[] => node.alarms.filter(({ what }) => what.startsWith('clock'));

  it('closes nothing early while the others say otherwise, raises an alarm, and goes on when they agree', () => {
    const test = new TestCluster(2);
    const one = test.nodes[1]!;
    test.run(3_000);
    one.clockOffsetMs = 3_600_000;
    test.run(4_000);
    // Sixty seconds of the median are believed, as clocks differ.
    const open = one.member.openEpoch;
    expect(open).toBeLessThanOrEqual(1 + 60_000 / EPOCH_MS);
    expect(one.alarms.filter(({ what }) => what === 'clockAhead')).toHaveLength(1);
    expect(one.done.get(one.meter(1))).toBe(open);
    one.clockOffsetMs = 0;
    test.run((open + 2) * EPOCH_MS);
    for (const node of test.nodes) expect(node.counted).toEqual({ sealed: 1, unsealed: 0 });
  });

  it('if it is behind it holds up nobody, and the others name it', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(3_000);
    two.clockOffsetMs = -3_600_000;
    test.run(2 * EPOCH_MS);
    for (const node of [founder, one]) {
      expect(node.sealed).toEqual([0, 1]);
      expect(clockAlarms(node)).toMatchObject([{ what: 'clockApart', replica: two.replica, isOwn: false }]);
      expect(node.member.apartClocks({ wallMs: START_MS + node.nowMs, steadyMs: node.nowMs })).toMatchObject([
        { replica: two.replica },
      ]);
    }
    expect(two.member.openEpoch).toBe(0);
    expect(clockAlarms(two)).toMatchObject([{ what: 'clockApart', replica: two.replica, isOwn: true }]);
  });

  it('if it is ahead at a start nothing is closed by it, and requests are metered', () => {
    const test = new TestCluster(2);
    const one = test.nodes[1]!;
    test.run(3_000);
    one.kill();
    one.clockOffsetMs = 3_600_000;
    one.start();
    expect(one.member.openEpoch).toBe(0);
    expect(one.done.get(one.meter(1))).toBe(0);
    test.run(5_000);
    expect(one.member.openEpoch).toBeLessThanOrEqual(1 + 60_000 / EPOCH_MS);
    expect(clockAlarms(one).map(({ what }) => what)).toEqual(['clockApart', 'clockAhead']);
  });

  it('with nobody within reach a node goes by its own clock after ten seconds, and one that is alone at once', () => {
    const test = new TestCluster(1);
    const { founder } = test;
    test.run(3_000);
    test.cut.add(founder);
    founder.kill();
    founder.clockOffsetMs = 30 * EPOCH_MS;
    founder.start();
    test.run(9_000);
    expect(founder.member.openEpoch).toBe(0);
    test.run(3_000);
    expect(founder.member.openEpoch).toBe(31);
    // When it is right again it says so, though nobody was heard.
    founder.clockOffsetMs = 0;
    test.run(11_000);
    expect(clockAlarms(founder)).toMatchObject([{ what: 'clockAhead', epoch: 31 }]);
    const alone = new TestNode(founder.cluster);
    alone.kill();
    alone.clockOffsetMs = 30 * EPOCH_MS;
    alone.start();
    expect(alone.member.openEpoch).toBe(30);
  });
});

describe('roster facts that prove nothing', () => {
  it('change no roster, whoever names them in a close, and nobody signs what the auditor would refuse', () => {
    const test = new TestCluster(2);
    const [founder, liar, other] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(3 * EPOCH_MS + 2_000);
    const all = test.nodes.map(({ replica }) => replica).sort();
    expect(founder.member.roster.map(({ replica }) => replica)).toEqual(all);
    const forged = [founder, other].map(({ replica }): RosterFact => ({
      kind: 'ban',
      cluster: founder.cluster.id,
      replica,
      signature: base64.encode(new Uint8Array(64)),
    }));
    const { authority } = liar.member;
    const bytes = encodeFacts([...parseFacts(authority.facts().bytes), ...forged]);
    vi.spyOn(authority, 'facts').mockReturnValue({ bytes, digest: digestOf(cheapCrypto, bytes) });
    const before = founder.disk.seals.length;
    test.run(3 * EPOCH_MS);
    expect(founder.disk.seals.length).toBeGreaterThan(before + 1);
    expect(liar.disk.contents.has(digestOf(cheapCrypto, bytes))).toBe(true);
    for (const node of test.nodes) expect(node.member.roster.map(({ replica }) => replica)).toEqual(all);
    let after: Verified | null = null;
    for (const record of founder.disk.seals)
      after = verifyBundle(bundleOf(founder.cluster, founder.disk, record), after, null, cheapCrypto).verified;
  });
});

describe('contents that nobody has', () => {
  it('are looked for no more once the epoch that named them is sealed without them', () => {
    const test = new TestCluster(2);
    const [founder, other, liar] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(3.5 * EPOCH_MS);
    expect(founder.member.roster).toHaveLength(3);
    const epoch = founder.member.openEpoch;
    liar.set([`close/${epoch}`, jcs(closeJson({ ...someClose, replica: liar.replica, epoch }))]);
    const most = new Map<TestNode, number>();
    for (let seconds = 0; seconds < 40; seconds++) {
      test.run(1_000);
      for (const node of [founder, other]) most.set(node, Math.max(most.get(node) ?? 0, node.member.wanted));
    }
    for (const node of [founder, other]) {
      expect(most.get(node)).toBeGreaterThan(0);
      expect(node.member.sealingEpoch).toBeGreaterThan(epoch);
      expect(node.member.wanted).toBe(0);
    }
  });
});

describe('a full disk', () => {
  it('takes no more sealed epochs from others than it can write', () => {
    const test = new TestCluster(2);
    const [founder, , full] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(4 * EPOCH_MS);
    full.isFull = true;
    full.meter(1);
    const before = full.disk.seals.length;
    test.run(15 * EPOCH_MS);
    expect(founder.disk.seals.length).toBeGreaterThan(before + 10);
    expect(full.disk.seals.length).toBe(before);
    // Alone, it has what it had in memory.
    test.cut.add(full);
    full.isFull = false;
    full.advance(3_000);
    expect(full.disk.seals.length).toBeLessThanOrEqual(before + 2);
    test.cut.clear();
    test.run(2 * EPOCH_MS);
    expect(full.disk.seals.length).toBe(founder.disk.seals.length);
  });

  it.each(['is full', 'hangs'])(
    'of a voter that %s lets neither seals nor closes pile up, and none is missing',
    (what) => {
      const test = new TestCluster(3);
      const [founder, full] = test.nodes as [TestNode, TestNode];
      test.run(4.5 * EPOCH_MS);
      expect(founder.member.roster).toHaveLength(4);
      full.isFull = what === 'is full';
      full.isHolding = what === 'hangs';
      const before = full.disk.seals.length;
      for (let epoch = 0; epoch < 20; epoch++) {
        for (const node of test.nodes) if (node !== full) node.meter(1);
        test.run(EPOCH_MS);
      }
      expect(founder.disk.seals.length).toBeGreaterThan(before + 15);
      // In memory as on disk, about: what the votes of the others bring waits with them.
      expect(full.member.sealingEpoch).toBe(before);
      expect(full.member.sealingStatus.epoch).toBeLessThanOrEqual(before + 3);
      const batches = full.batches.length;
      full.isFull = false;
      full.isHolding = false;
      if (full.held.length > 0) full.write();
      full.advance(1_000);
      const closes = full.batches[batches]!.control.filter(
        ({ replica, key }) => replica === full.replica && key.startsWith('close/'),
      );
      expect(closes.length).toBeLessThanOrEqual(12);
      test.run(3 * EPOCH_MS);
      for (const node of test.nodes) {
        expect(node.disk.seals.length).toBe(founder.disk.seals.length);
        expect(node.counted).toEqual({ sealed: 60, unsealed: 0 });
        expect([node.member.wanted, node.alarms]).toEqual([0, []]);
      }
      const last = full.member.openEpoch - 1;
      expect(full.disk.registersOf(full.replica).has(`close/${last}`)).toBe(true);
    },
  );
});
