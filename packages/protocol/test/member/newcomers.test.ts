import { describe, expect, it } from 'vitest';
import { fromUtf8 } from '../../src/base/index.ts';
import { FOLLOWED_EPOCHS } from '../../src/sealing/index.ts';
import { statementsIn } from '../support.ts';
import { MemoryDisk } from './disk.ts';
import { admission, EPOCH_MS, TestCluster, TestNode } from './harness.ts';

const AGE_EPOCHS = 2 * FOLLOWED_EPOCHS;

/** A founder and others that have sealed some epochs, with usage in most, and keep the slots of none but the last ones. */
function oldCluster(others = 0): TestCluster {
  const test = new TestCluster(others);
  for (let epoch = 0; epoch < AGE_EPOCHS; epoch++) {
    if (epoch % 3 > 0) test.founder.meter(epoch);
    test.run(EPOCH_MS);
  }
  for (const { disk } of test.nodes) disk.sweep(AGE_EPOCHS - 2);
  return test;
}

/** A node that the founder lets in now. */
function join(test: TestCluster, name: string): TestNode {
  const { founder } = test;
  founder.set(admission(founder.cluster, name));
  const disk = new MemoryDisk(founder.cluster, founder.member.openEpoch);
  const node = new TestNode(founder.cluster, name, undefined, disk, founder.nowMs);
  (test.nodes as TestNode[]).push(node);
  return node;
}

const closesOf = (node: TestNode): string[] =>
  [...node.disk.registersOf(node.replica).keys()].filter((key) => key.startsWith('close/'));
const rosterOf = (node: TestNode): string[] => node.member.roster.map(({ replica }) => replica).sort();
const textsOf = (node: TestNode): string[] =>
  node.disk.seals.flatMap(({ sealed }) => [
    fromUtf8(sealed.value.header),
    sealed.checkpoint,
    ...statementsIn(sealed).map(({ text }) => text),
  ]);

describe('who joins a cluster that has let go of old slots', () => {
  it('follows by headers and statements, votes then, and says the same as everybody', () => {
    const test = oldCluster();
    const { founder } = test;
    const [one, two] = [join(test, 'n1'), join(test, 'n2')];
    test.run(8 * EPOCH_MS);
    for (const node of test.nodes) {
      expect(rosterOf(node)).toEqual(test.nodes.map(({ replica }) => replica).sort());
      expect(node.member.sealingEpoch).toBe(founder.member.sealingEpoch);
    }
    expect(founder.disk.seals.length).toBeGreaterThan(AGE_EPOCHS + 5);
    for (const node of [one, two]) {
      expect(textsOf(node)).toEqual(textsOf(founder));
      expect(node.alarms).toEqual([]);
      expect(node.member.evidence).toEqual([]);
    }
  });

  it('believes no statements that were not sealed, and goes on with those of a member that learned them likewise', () => {
    const test = oldCluster();
    const one = join(test, 'n1');
    test.run(3.5 * EPOCH_MS);
    expect(textsOf(one)).toEqual(textsOf(test.founder));
    test.founder.disk.told = 'wrong';
    const two = join(test, 'n2');
    test.run(12 * EPOCH_MS);
    expect(textsOf(two)).toEqual(textsOf(one));
    expect(textsOf(two)).toEqual(textsOf(test.founder));
    expect(two.member.evidence).toContainEqual({ epoch: 1, replica: null, what: 'otherRoot', code: 'ROOT_MISMATCH' });
    expect(rosterOf(two)).toHaveLength(3);
  });

  it('gets no vote while it cannot follow, and holds up nobody; its usage is sealed all the same', () => {
    const test = oldCluster();
    const { founder } = test;
    founder.disk.told = null;
    const [one, two] = [join(test, 'n1'), join(test, 'n2')];
    test.run(3.5 * EPOCH_MS);
    const ticket = one.meter(5_000);
    test.run(1_000);
    expect(one.done.get(ticket)).toBe(founder.member.openEpoch);
    test.run(7 * EPOCH_MS);
    expect(rosterOf(founder)).toEqual([founder.replica]);
    expect(founder.disk.seals.length).toBeGreaterThanOrEqual(AGE_EPOCHS + 9);
    expect(founder.counted.sealed).toBeGreaterThanOrEqual(5_000);
    for (const node of [one, two]) {
      expect(node.sealed.length).toBeLessThan(AGE_EPOCHS);
      expect(closesOf(node)).toEqual([]);
      expect(node.alarms).toEqual([]);
    }
    // Whatever kept it from following is over: it closes what it has not, and is let in.
    founder.disk.told = 'right';
    test.run(10 * EPOCH_MS);
    for (const node of test.nodes) {
      expect(rosterOf(node)).toHaveLength(3);
      expect(node.counted).toEqual(founder.counted);
      expect(textsOf(node)).toEqual(textsOf(founder));
    }
  });

  it('holds what the seals have counted of slots that may still grow, and counts the rest of them with the others', () => {
    const test = new TestCluster(2);
    const [founder, , lost] = test.nodes as [TestNode, TestNode, TestNode];
    test.run(5 * EPOCH_MS);
    lost.meter(7);
    test.run(EPOCH_MS / 2);
    test.cut.add(lost);
    lost.meter(3);
    lost.kill();
    test.run(AGE_EPOCHS * EPOCH_MS);
    for (const { disk } of test.nodes) disk.sweep(AGE_EPOCHS);
    const [counted] = founder.member.counted.values();
    const node = join(test, 'n3');
    test.run(6 * EPOCH_MS);
    expect(textsOf(node)).toEqual(textsOf(founder));
    expect(rosterOf(node)).toContain(node.replica);
    expect(node.disk.contents.has(counted!)).toBe(true);
    test.cut.delete(lost);
    lost.start();
    lost.nowMs = founder.nowMs;
    test.run(10 * EPOCH_MS);
    for (const each of test.nodes) expect(each.counted).toEqual({ sealed: 10, unsealed: 0 });
    for (const each of test.nodes) expect(textsOf(each)).toEqual(textsOf(founder));
  });
});
