import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createBan, createOwnRetire, encodeFact, factKey, type RosterFact } from '../../src/authority/index.ts';
import { present, type Run } from '../../src/base/index.ts';
import { MESSAGE_BYTES_MAX } from '../../src/lattice/index.ts';
import { mutate, mutation } from '../lattice/support.ts';
import { nodeCrypto } from '../support.ts';
import { EPOCH_MS, keysOf, memberKeyOf, operator, START_MS, TestCluster, TestNode } from './harness.ts';

const write = ({ key, value }: { key: string; value: string }): readonly [string, string] => [key, value];
const factWrite = (fact: RosterFact): readonly [string, string] =>
  write({ key: factKey(fact), value: encodeFact(fact) });
const alarmsOf = (node: TestNode, what: string): unknown[] => node.alarms.filter((alarm) => alarm.what === what);
const ownVersion = (node: TestNode): number => node.member.registers.control.upTo(node.replica);

describe('a write', () => {
  it('is known to be held by all who live, soon after it is followed', () => {
    const test = new TestCluster(4);
    test.run(15_000);
    const node = test.nodes[3]!;
    node.set(['fact/x/1', '"a"']);
    node.handle({ type: 'follow', version: ownVersion(node) });
    test.run(150);
    expect(node.member.heldBy(ownVersion(node))).toHaveLength(4);
  });

  it('of usage is known to be held by another before this node leaves', () => {
    const test = new TestCluster(2);
    test.run(5_000);
    const node = test.nodes[1]!;
    node.meter(3);
    const { usage } = node.member.registers;
    const version = usage.upTo(node.member.usageWriter);
    expect(version).toBeGreaterThan(0);
    expect(node.member.usageHeldBy(version)).toEqual([]);
    node.handle({ type: 'follow', of: 'usage', version });
    test.run(200);
    expect(node.member.usageHeldBy(version)).toHaveLength(2);
    expect(test.founder.counted.unsealed).toBe(3);
  });

  it('of a key that nobody knows is kept, forwarded and there after a restart', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(3_000);
    test.cut.add(two);
    one.set(['from-the-future/x', '{"v":[1,2,{"new":true}]}'], ['close-x/1', '1'], ['ä ö/\u{1f41d}', 'no JSON']);
    test.run(2_000);
    test.cut.clear();
    test.cut.add(one);
    founder.start();
    test.run(10_000);
    const held = two.member.registers.control.get(one.replica, 'from-the-future/x');
    expect(held?.value).toBe('{"v":[1,2,{"new":true}]}');
    expect(two.member.registers.control.get(one.replica, 'ä ö/\u{1f41d}')?.value).toBe('no JSON');
    expect([...founder.alarms, ...two.alarms].filter(({ what }) => what === 'malformed')).toEqual([]);
  });
});

describe('a disk that went back', () => {
  /**
   * One writes, its disk goes back to before, and it writes so many while nobody hears it. Then it is reached, and for so long
   * nobody answers but probes, in ms.
   */
  function goBack(rewritten: number, silenceMs = 0): { test: TestCluster; one: TestNode } {
    const test = new TestCluster(2);
    const one = test.nodes[1]!;
    test.run(5_000);
    const before = one.disk.copy();
    for (let i = 0; i < 3; i++) one.set([`fact/x/${i}`, '"lost"']);
    test.run(2_000);
    test.cut.add(one);
    before.run = one.disk.run;
    one.kill();
    one.disk = before;
    one.start();
    for (let i = 0; i < rewritten; i++) one.set([`fact/y/${i}`, '"written over it"']);
    test.run(500);
    test.cut.clear();
    for (const node of test.nodes) test.mute.add(node);
    test.run(silenceMs);
    test.mute.clear();
    test.run(10_000);
    return { test, one };
  }

  it('is noticed however much was written since, and nothing of that is ever shown', () => {
    for (const rewritten of [0, 1, 2, 3, 4, 9]) {
      const { test, one } = goBack(rewritten);
      expect(alarmsOf(one, 'overtaken')).toHaveLength(1);
      for (const other of test.nodes.filter((node) => node !== one)) {
        expect(other.alarms).toEqual([]);
        expect(other.member.registers.control.get(one.replica, 'fact/x/2')?.value).toBe('"lost"');
        expect(other.member.registers.control.get(one.replica, 'fact/y/0')).toBeUndefined();
      }
    }
  });

  it('ends its control writes: no answer but a refusal, no close, while requests are metered', () => {
    const { test, one } = goBack(2);
    const version = ownVersion(one);
    const ticket = one.set(['fact/z/1', '"a"']);
    const metered = one.meter(4);
    test.run(2 * EPOCH_MS);
    expect(one.refused.get(ticket)).toBe('NOT_READY');
    expect(one.done.has(metered)).toBe(true);
    expect(one.done.has(one.meter(1))).toBe(true);
    expect(ownVersion(one)).toBe(version);
    expect(one.member.isIdle).toBe(true);
    expect(test.founder.sealed.length).toBeGreaterThan(1);
    test.run(3_000);
    expect(test.founder.counted.sealed + test.founder.counted.unsealed).toBe(5);
  });

  it('is noticed though nobody answered for long after the start', () => {
    const { test, one } = goBack(2, 20_000);
    expect(alarmsOf(one, 'overtaken')).toHaveLength(1);
    for (const other of test.nodes.filter((node) => node !== one))
      expect(other.member.registers.control.get(one.replica, 'fact/y/0')).toBeUndefined();
  });

  it('is none after a normal restart, with whatever was written before anybody was reached', () => {
    const test = new TestCluster(3);
    test.run(5_000);
    for (let round = 0; round < 3; round++)
      for (const node of test.nodes) {
        node.set([`fact/x/${round}`, '"a"']);
        test.run(300);
        node.kill();
        test.run(100);
        node.start();
        node.set([`fact/y/${round}`, '"b"'], [`fact/x/${round}`, '"c"']);
        test.run(1_500);
      }
    test.run(20_000);
    for (const node of test.nodes) {
      expect(node.alarms).toEqual([]);
      for (const other of test.nodes)
        expect(other.member.registers.control.get(node.replica, 'fact/x/2')?.value).toBe('"c"');
    }
  });
});

describe('a member that was started anew', () => {
  /** It starts, and writes, while two live of whom only the founder answers more than probes: whether others see it then. */
  function isSeen(afterMs: number): boolean {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(5_000);
    test.mute.add(two);
    one.start();
    one.set(['fact/x/1', '"a"']);
    test.run(afterMs);
    expect(one.member.members.map(({ state }) => state)).toEqual(['alive', 'alive', 'alive']);
    expect(one.member.lag(founder.replica, { wallMs: 0, steadyMs: one.nowMs }).control).not.toBeNull();
    expect(one.member.lag(two.replica, { wallMs: 0, steadyMs: one.nowMs }).control).toBeNull();
    expect(one.alarms).toEqual([]);
    return founder.member.registers.control.get(one.replica, 'fact/x/1') !== undefined;
  }

  it('shows nothing while one that it reaches has not compared, but not for ever', () => {
    expect(isSeen(9_500)).toBe(false);
    expect(isSeen(12_500)).toBe(true);
  });

  it('waits as long for a majority of the other voters, and then does without', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(4 * EPOCH_MS);
    expect(one.member.roster).toHaveLength(3);
    test.cut.add(two);
    test.run(15_000);
    one.start();
    one.set(['fact/x/1', '"a"']);
    const isShown = (): boolean => founder.member.registers.control.get(one.replica, 'fact/x/1') !== undefined;
    test.run(8_000);
    expect(one.member.members.map(({ replica, state }) => [replica, state])).toContainEqual([founder.replica, 'alive']);
    expect(one.member.members.find(({ replica }) => replica === two.replica)?.state).not.toBe('alive');
    expect(isShown()).toBe(false);
    test.run(6_000);
    expect(isShown()).toBe(true);
    expect(one.alarms).toEqual([]);
  });
});

describe('two processes with one key and id', () => {
  /** A copy of a member's disk, started as one more process. */
  function twinOf(test: TestCluster, node: TestNode): TestNode {
    const disk = node.disk.copy();
    disk.run = node.disk.run + 7;
    const twin = new TestNode(node.cluster, node.name, Number.MAX_SAFE_INTEGER, disk, node.nowMs);
    test.twins.push(twin);
    return twin;
  }

  it('both hear of it through the others, and the newer one must stop', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(8_000);
    const twin = twinOf(test, one);
    test.run(25_000);
    expect(alarmsOf(one, 'duplicate')).toEqual([{ what: 'duplicate', run: twin.run, mustStop: false }]);
    expect(alarmsOf(twin, 'duplicate')).toEqual([{ what: 'duplicate', run: one.run, mustStop: true }]);
    expect([...founder.alarms, ...two.alarms].filter(({ what }) => what === 'duplicate')).toEqual([]);
    expect(twin.refused.get(twin.set(['fact/x/1', '"a"']))).toBe('NOT_READY');
    expect(one.refused.has(one.set(['fact/x/1', '"a"']))).toBe(false);
  });

  it('leave the older one alive for all, both ways, some time after the newer one has stopped', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(8_000);
    const twin = twinOf(test, one);
    test.run(15_000);
    twin.kill();
    test.run(45_000);
    for (const node of [founder, one, two])
      expect(node.member.members.map(({ state }) => state)).toEqual(['alive', 'alive', 'alive']);
    one.set(['fact/x/1', '"a"']);
    test.run(5_000);
    expect(two.member.registers.control.get(one.replica, 'fact/x/1')?.value).toBe('"a"');
  });

  it('are no more than one when it is started again, many times, at once or after a while', () => {
    const test = new TestCluster(2);
    test.run(5_000);
    for (let i = 0; i < 12; i++) {
      const node = test.nodes[i % 3]!;
      node.kill();
      test.run(i % 4 === 0 ? 8_000 : 50 * i);
      node.start();
      test.run(i % 2 === 0 ? 500 : 4_000);
    }
    test.run(30_000);
    for (const node of test.nodes) expect(alarmsOf(node, 'duplicate')).toEqual([]);
  });
});

describe('runs that are over', () => {
  it('leave the vectors, in memory and on disk, at every node alike, however often a node was started', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    let metered = 0;
    for (let i = 0; i < 60; i++) {
      one.meter(1);
      metered++;
      test.run(1_200);
      if (i % 20 !== 19) one.start();
      test.run(300);
    }
    test.run(3 * EPOCH_MS);
    for (const node of [founder, one]) {
      expect(node.counted).toEqual({ sealed: metered, unsealed: 0 });
      expect(node.member.registers.usage.writers().length).toBeLessThanOrEqual(3);
      node.start();
      expect([...node.disk.vectors.keys()].filter((key) => key.startsWith('usage/')).length).toBeLessThanOrEqual(3);
    }
    test.run(5_000);
    const digests = test.nodes.map((node) => node.member.registers.usage.digest(nodeCrypto));
    expect(digests[0]).toBe(digests[1]);
  });

  it('come back with a row that nobody has counted, and are counted then', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(3_000);
    one.meter(1);
    test.run(3_000);
    test.cut.add(one);
    one.meter(5);
    test.run(100);
    one.start();
    one.meter(2);
    test.run(3 * EPOCH_MS);
    test.cut.clear();
    test.run(4 * EPOCH_MS);
    for (const node of [founder, one, two]) expect(node.counted).toEqual({ sealed: 8, unsealed: 0 });
    expect(founder.member.registers.usage.writers()).not.toContain(`${one.replica}/1`);
  });

  it('are few after thousands of starts', () => {
    const { founder } = new TestCluster(0);
    for (let i = 0; i < 1_500; i++) {
      founder.start();
      if (i % 10 === 0) founder.meter(1);
      founder.advance(i % 10 === 0 ? 1_000 : 10);
    }
    founder.advance(3 * EPOCH_MS);
    expect(founder.counted).toEqual({ sealed: 150, unsealed: 0 });
    expect(founder.member.registers.usage.writers().length).toBeLessThanOrEqual(2);
    expect([...founder.disk.vectors.keys()].length).toBeLessThanOrEqual(3);
  });
});

describe('who is put out', () => {
  it('is neither heard nor sent to from the moment of the ban, and is told so when it still hears it', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(4_000);
    founder.set(factWrite(createBan(founder.cluster.id, one.replica, operator)));
    const admitted = founder.out.findLast((effect) => effect.type === 'admitted');
    expect(admitted?.type === 'admitted' && admitted.replicas.map(({ replica }) => replica)).not.toContain(one.replica);
    founder.out.length = 0;
    const before = founder.member.registers.control.digest(nodeCrypto);
    for (const effect of one.out.splice(0))
      if (effect.type === 'send') founder.handle({ type: 'message', from: memberKeyOf(one.name), bytes: effect.bytes });
    expect(founder.member.registers.control.digest(nodeCrypto)).toBe(before);
    test.run(5_000);
    expect(founder.member.members.map(({ replica }) => replica)).not.toContain(one.replica);
    expect(two.member.members.map(({ replica }) => replica)).not.toContain(one.replica);
    one.set(factWrite(createBan(founder.cluster.id, one.replica, operator)));
    expect(alarmsOf(one, 'banned')).toEqual([{ what: 'banned' }]);
    one.start();
    expect(alarmsOf(one, 'banned')).toHaveLength(2);
  });

  it('is told of the ban by a farewell of whoever heard of it, and nobody else is told anything', () => {
    const test = new TestCluster(2);
    const [founder, one, two] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(4_000);
    const farewell = (by: TestNode, to: TestNode): Uint8Array | null =>
      by.member.farewell(memberKeyOf(to.name), { wallMs: START_MS + by.nowMs, steadyMs: by.nowMs });
    expect(farewell(founder, one)).toBeNull();
    test.cut.add(one);
    founder.set(['fact/x/1', '"a"'], factWrite(createBan(founder.cluster.id, one.replica, operator)));
    test.run(1_000);
    expect(one.alarms).toEqual([]);
    expect(farewell(founder, two)).toBeNull();
    for (const by of [founder, two, founder])
      one.handle({ type: 'message', from: memberKeyOf(by.name), bytes: present(farewell(by, one), 'a farewell') });
    expect(one.alarms).toEqual([{ what: 'banned' }]);
  });

  it('is told of its own retirement, and goes on being heard', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    one.set(factWrite(createOwnRetire(founder.cluster.id, one.replica, keysOf(one.name).transport)));
    expect(alarmsOf(one, 'retired')).toEqual([{ what: 'retired' }]);
    one.meter(2);
    test.run(4_000);
    expect(founder.member.authority.statusOf(one.replica)).toBe('retired');
    expect(founder.counted.unsealed).toBe(2);
  });
});

describe('who is to vote next', () => {
  it('is said with what stands against it', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(4_000);
    // Nobody votes before it has written something.
    expect(founder.member.rosterWarnings).toEqual([]);
    test.run(EPOCH_MS);
    for (const node of test.nodes)
      expect(node.member.rosterWarnings).toEqual([{ type: 'waitsForThird', replica: one.replica }]);
    founder.set(factWrite(createOwnRetire(founder.cluster.id, founder.replica, keysOf(founder.name).transport)));
    expect(founder.member.rosterWarnings).toEqual([]);
    one.set(factWrite(createOwnRetire(founder.cluster.id, one.replica, keysOf(one.name).transport)));
    test.run(3_000);
    for (const node of test.nodes)
      expect(node.member.rosterWarnings).toEqual([{ type: 'lastStays', replica: founder.replica }]);
  });
});

describe('whoever is behind', () => {
  it('asks a member for sealed epochs from the one on that it lacks, and is answered from its disk', () => {
    const test = new TestCluster(1);
    const [founder, one] = test.nodes as [TestNode, TestNode];
    test.run(3_000);
    test.cut.add(one);
    test.run(12 * EPOCH_MS);
    const lacking = one.member.sealingEpoch;
    test.cut.clear();
    founder.asked.length = 0;
    test.run(3_000);
    expect(founder.asked).toContainEqual({ from: lacking, to: one.replica });
    test.run(10_000);
    expect(one.sealed).toEqual(founder.sealed);
    expect(one.disk.seals.map(({ sealed }) => sealed.root)).toEqual(
      founder.disk.seals.map(({ sealed }) => sealed.root),
    );
    expect(one.alarms).toEqual([]);
  });
});

describe('what comes from others', () => {
  it('is no reason to throw, to change anything or to grow, whatever was recorded and broken', () => {
    const test = new TestCluster(2);
    test.run(8_000);
    for (const node of test.nodes) {
      node.set(['fact/x/1', `"${node.name}"`]);
      node.handle({ type: 'follow', version: ownVersion(node) });
    }
    test.run(15_000);
    const target = test.nodes[1]!;
    const other = new TestCluster(2);
    other.run(9_000);
    const frames = [...test.frames, ...other.frames].flatMap((effect) =>
      effect.type === 'send' || effect.type === 'datagram' ? [effect] : [],
    );
    const digest = (): string => target.member.registers.control.digest(nodeCrypto);
    const before = digest();
    target.isHolding = true;
    fc.assert(
      fc.property(
        fc.constantFrom(...frames),
        fc.option(mutation),
        fc.constantFrom('founder', 'n2', 'nobody'),
        (frame, change, from) => {
          const bytes = change === null ? frame.bytes : mutate(frame.bytes, change);
          const type = frame.type === 'send' ? 'message' : 'datagram';
          target.handle({ type, from: memberKeyOf(from), bytes });
          expect(bytes.length).toBeLessThanOrEqual(MESSAGE_BYTES_MAX + 16);
          expect(digest()).toBe(before);
          expect(target.alarms.filter(({ what }) => what !== 'foreignVersion' && what !== 'duplicate')).toEqual([]);
        },
      ),
      { numRuns: 3_000 },
    );
    expect(target.run).toBe(1 as Run);
  });
});
