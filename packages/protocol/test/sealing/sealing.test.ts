import { describe, expect, it } from 'vitest';
import { base64, digestOf, hex, jcs, present, utf8 } from '../../src/base/index.ts';
import type { CustomerId, Json, ReplicaId, Run } from '../../src/base/index.ts';
import { addUsage, ZERO_USAGE } from '../../src/lattice/index.ts';
import {
  closeJson,
  encodeHeader,
  encodeRoster,
  encodeSlotList,
  outcomeOf,
  parseClose,
} from '../../src/sealing/index.ts';
import { parseHeader, parseReports, type Close, type SlotEntry } from '../../src/sealing/index.ts';
import { COSIGNATURE, cosignerKey, LOG_SIGNATURE, logKey, openCheckpoint } from '../../src/transparency/index.ts';
import { encodeSlot, parseSlot, slotName, type Slot } from '../../src/usage/index.ts';
import { nodeCrypto, slotsIn, statementsIn } from '../support.ts';
import { codeOf } from '../transparency/support.ts';
import { statementTotal, TestCluster, usageOf, type Node, type SealedRecord } from './harness.ts';

const recordsOf = (node: Node): SealedRecord[] => node.disk.sealed;
const entriesOf = (node: Node, epoch: number): readonly SlotEntry[] =>
  present(recordsOf(node)[epoch], 'epoch').sealed.value.slotList;

/** In every other run what a large epoch takes is not computed at once. */
const takesTime = (seed: number): number | undefined => (seed % 2 === 0 ? undefined : 0);

/** What a node's close of an epoch reports. */
const reportsOf = (node: Node, epoch: number): readonly unknown[] => {
  const close = parseClose(JSON.parse(present(node.disk.control.get(`close/${epoch}`), 'close').value) as Json);
  return close.reports === digestOf(nodeCrypto, new Uint8Array(0))
    ? []
    : parseReports(present(node.disk.contents.get(close.reports), 'reports'));
};

/** Σ statements = Σ acknowledged, at every node (invariant 3, everything sealed). */
function expectConserved(test: TestCluster): void {
  for (const node of test.live) expect(statementTotal(recordsOf(node))).toEqual(test.acknowledged);
}

/** One header, one root, the same statements, at every node (invariants 1 and 6). */
function expectAgreement(test: TestCluster): void {
  const said = test.live.map((node) =>
    recordsOf(node).map(({ sealed }) => ({
      header: hex.encode(sealed.value.header),
      root: hex.encode(sealed.root),
      treeSize: sealed.treeSize,
      statements: statementsIn(sealed),
      tiles: sealed.tiles,
    })),
  );
  for (const other of said) expect(other).toEqual(said[0]);
}

/** Every checkpoint is signed by a majority of its roster, as log and as cosigner. */
function expectCertificates(test: TestCluster): void {
  const { origin } = test.cluster;
  for (const node of test.live)
    for (const { sealed } of recordsOf(node)) {
      const keys = sealed.roster.flatMap((member) => [
        logKey(nodeCrypto, origin, base64.decode(member.logKey)),
        cosignerKey(nodeCrypto, origin, member.replica, base64.decode(member.cosignerKey)),
      ]);
      const { checkpoint, verified, unknown } = openCheckpoint(nodeCrypto, sealed.checkpoint, keys);
      expect(checkpoint).toEqual({ origin, size: sealed.treeSize, root: sealed.root });
      expect(unknown).toEqual([]);
      const quorum = Math.floor(sealed.roster.length / 2) + 1;
      for (const type of [LOG_SIGNATURE, COSIGNATURE])
        expect(verified.filter((signature) => signature.key.type === type)).toHaveLength(quorum);
    }
}

describe('a roster of one', () => {
  it('closes nothing before its time', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.meter(node!, 'shop', 3);
    test.toEndOf(0);
    test.nowMs -= 1;
    test.tick(node!);
    expect(node!.isBusy).toBe(false);
    expect(node!.sealing.wakeAtMs).toBe(test.nowMs + 1);
    test.nowMs += 1;
    // A clock that jumped: the members say that it is earlier.
    expect(node!.sealing.isClosable(test.nowMs, test.nowMs - 60_001)).toBe(false);
    expect(node!.sealing.isClosable(test.nowMs, test.nowMs - 60_000)).toBe(true);
    expect(node!.sealing.openEpoch).toBe(0);
    test.tick(node!);
    expect(node!.sealing.openEpoch).toBe(1);
  });

  it('seals epoch after epoch, empty ones too', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.meter(node!, 'shop', 3);
    test.meter(node!, 'shop', 4, 'resize.png');
    test.meter(node!, 'zoo', 1);
    test.sealUpTo(0);
    test.sealUpTo(1);
    test.meter(node!, 'shop', 2);
    test.sealUpTo(2);
    const sealed = recordsOf(node!).map((record) => record.sealed);
    expect(sealed.map(({ epoch, firstLeaf, treeSize }) => [epoch, firstLeaf, treeSize])).toEqual([
      [0, 0, 3],
      [1, 3, 4],
      [2, 4, 6],
    ]);
    expect(statementsIn(sealed[0]!).map(({ customer, epoch }) => [customer, epoch])).toEqual([
      ['shop', 0],
      ['zoo', 0],
    ]);
    expect(JSON.parse(statementsIn(sealed[0]!)[0]!.text)).toMatchObject({
      start: '2023-11-14T22:13:20.000Z',
      end: '2023-11-14T22:13:30.000Z',
      usage: { 'resize.jpeg': usageOf(3), 'resize.png': usageOf(4) },
    });
    expectConserved(test);
    expectCertificates(test);
    expect(sealed.map(({ value }) => parseHeader(value.header).previous)).toEqual([
      null,
      sealed[0]!.outcome.next.previous,
      sealed[1]!.outcome.next.previous,
    ]);
  });

  it('closes many missed epochs one after the other, and counts what came before them once', () => {
    for (const restarts of [false, true]) {
      const test = new TestCluster({ members: 1 });
      const [node] = test.nodes;
      test.meter(node!, 'shop', 5);
      if (restarts) node!.start();
      // More than it closes in one step.
      test.toEndOf(150);
      while (node!.sealing.isClosable(test.nowMs, null)) test.tick(node!);
      test.settle();
      expect(recordsOf(node!)).toHaveLength(151);
      expectConserved(test);
      expect(statementTotal(recordsOf(node!).slice(0, 1))).toEqual(usageOf(5));
    }
  });

  it('does not report a slot again that was sealed but whose rows are still there', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.meter(node!, 'shop', 5);
    test.toEndOf(0);
    test.tick(node!);
    while (!node!.effects.some((effect) => effect.type === 'sealed')) expect(test.step()).toBe(true);
    // The seal is not on disk yet, and the next epoch is over already.
    test.toEndOf(1);
    test.tick(node!);
    test.settle();
    expect(recordsOf(node!)).toHaveLength(2);
    expect(reportsOf(node!, 1)).toEqual([]);
    expectConserved(test);
  });

  it('does not report a slot that it closes in the same step', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.meter(node!, 'shop', 5);
    test.toEndOf(1);
    test.tick(node!);
    test.settle();
    expect(reportsOf(node!, 1)).toEqual([]);
    expectConserved(test);
  });

  it('writes one thing after the other, and pins each content once', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.meter(node!, 'shop', 5);
    node!.start();
    test.toEndOf(0);
    test.tick(node!);
    const pinned: string[] = [];
    const batches: string[][] = [];
    while (node!.isBusy) {
      pinned.push(...node!.effects.flatMap((effect) => (effect.type === 'content' ? [effect.digest] : [])));
      batches.push(node!.effects.flatMap((effect) => (effect.type === 'write' ? [effect.key] : [])));
      node!.commit();
    }
    // A close is on disk before there is a vote, and the vote before there is a cosignature.
    expect(batches).toEqual([['close/0'], ['ballot/0'], ['seal/0'], []]);
    expect(new Set(pinned).size).toBe(pinned.length);
  });

  it('counts all of a slot whose close it has seen before all of its rows', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    const stranger = 'e'.repeat(32) as ReplicaId;
    const id = { replica: stranger, run: 7 as Run, epoch: 0 };
    const row = (requests: number): Slot => [
      { customer: 'shop' as CustomerId, sku: 'inspect', usage: usageOf(requests) },
    ];
    const close: Close = {
      ...id,
      slot: digestOf(nodeCrypto, encodeSlot(row(9))),
      salt: base64.encode(new Uint8Array(32)),
      formats: [1],
      reports: digestOf(nodeCrypto, new Uint8Array(0)),
      facts: digestOf(nodeCrypto, new Uint8Array(0)),
    };
    node!.hold(id, row(4));
    node!.handle({ type: 'register', replica: stranger, key: 'close/0', value: jcs(closeJson(close)) });
    test.sealUpTo(0);
    expect(entriesOf(node!, 0).map(({ replica, closed }) => [replica, closed])).toContainEqual([stranger, false]);
    node!.hold(id, row(9));
    test.sealUpTo(3);
    test.acknowledged = usageOf(9);
    expectConserved(test);
  });

  it('counts the slot of an earlier run once, written off, and no more of it later', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.meter(node!, 'shop', 5);
    const first = node!.run;
    node!.start();
    test.meter(node!, 'shop', 2);
    test.sealUpTo(3);
    expect(entriesOf(node!, 0).map(({ run, closed, salt }) => [run, closed, salt !== null])).toEqual([
      [first, false, false],
      [first + 1, true, true],
    ]);
    for (const epoch of [1, 2, 3]) expect(entriesOf(node!, epoch)).toHaveLength(1);
    const name = slotName({ replica: node!.replica, run: first, epoch: 0 });
    expect([...node!.sealing.counted.keys()]).toEqual([name]);
    expect(statementsIn(recordsOf(node!)[0]!.sealed)).toHaveLength(1);
    expectConserved(test);
  });

  it('counts more of a slot that was written off as late usage, under the epoch it comes from', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.meter(node!, 'shop', 5);
    const id = { replica: node!.replica, run: node!.run, epoch: 0 };
    const early = node!.disk.slots.get(slotName(id))!.rows;
    node!.start();
    test.sealUpTo(1);
    // A copy of the slot surfaces that holds more of it than was counted, and a customer besides.
    node!.hold(id, [{ ...early[0]!, usage: usageOf(9) }]);
    node!.hold(id, [{ ...early[0]!, customer: 'zoo' as (typeof early)[0]['customer'], usage: usageOf(1) }]);
    test.acknowledged = usageOf(10);
    test.sealUpTo(5);
    expectConserved(test);
    const late = recordsOf(node!).flatMap(({ sealed }) =>
      statementsIn(sealed).filter(({ epoch }) => epoch < sealed.epoch),
    );
    expect(late.map(({ customer, epoch }) => [customer, epoch])).toEqual([
      ['shop', 0],
      ['zoo', 0],
    ]);
    expect(late.map(({ text }) => JSON.parse(text) as object)).toMatchObject([
      { epoch: 0, start: '2023-11-14T22:13:20.000Z', usage: { 'resize.jpeg': usageOf(4) } },
      { usage: { 'resize.jpeg': usageOf(1) } },
    ]);
  });

  it('counts at most 256 late slots in one seal, oldest first, and the rest next', () => {
    const test = new TestCluster({ members: 1 });
    const [node] = test.nodes;
    test.sealUpTo(0);
    for (let run = 1_000; run < 1_300; run++) {
      const id = { replica: node!.replica, run: run as Run, epoch: 0 };
      node!.hold(id, [{ customer: 'shop' as never, sku: 'inspect', usage: usageOf(1) }]);
      test.acknowledged = addUsage(test.acknowledged, usageOf(1));
    }
    test.sealUpTo(2);
    expect([1, 2].map((epoch) => entriesOf(node!, epoch).filter((entry) => entry.epoch === 0).length)).toEqual([
      256, 44,
    ]);
    expectConserved(test);
  });

  it('comes to the same, wherever it is killed (invariant 7)', () => {
    /** Epochs with work, an empty one, two at once; killed after so many durable effects; gives how many there were. */
    const live = (killAfter: number): { test: TestCluster; effects: number } => {
      const test = new TestCluster({ members: 1 });
      const node = test.nodes[0]!;
      let effects = 0;
      const settle = (): void => {
        for (let steps = 0; steps < 10_000; steps++) {
          if (node.isBusy) {
            node.commit(1);
            if (++effects === killAfter) {
              node.start();
              while (node.sealing.isClosable(test.nowMs, null)) test.tick(node);
            }
          } else if (!test.step()) return;
        }
      };
      const end = (epoch: number): void => {
        test.toEndOf(epoch);
        test.tick(node);
        settle();
      };
      test.meter(node, 'shop', 3);
      end(0);
      end(1);
      test.meter(node, 'shop', 1);
      test.meter(node, 'zoo', 2);
      // Two closes with one and the same report: of the run before.
      node.start();
      end(3);
      test.meter(node, 'zoo', 7);
      end(4);
      end(5);
      return { test, effects };
    };
    const total = live(0).effects;
    expect(total).toBeGreaterThan(30);
    for (let killAfter = 1; killAfter <= total; killAfter++) {
      const { test } = live(killAfter);
      expect(recordsOf(test.nodes[0]!), `killed after ${killAfter}`).toHaveLength(6);
      expectConserved(test);
      expectCertificates(test);
    }
  });

  it('seals the same figures after being killed again and again', () => {
    for (let seed = 0; seed < 15; seed++) {
      const test = new TestCluster({ members: 1, seed, inlineBytes: takesTime(seed) });
      const node = test.nodes[0]!;
      for (let epoch = 0; epoch < 8; epoch++) {
        for (let i = test.random.below(4); i > 0; i--)
          test.meter(node, `c${test.random.below(3)}`, 1 + test.random.below(5));
        test.toEndOf(epoch + test.random.below(2));
        test.tick(node);
        for (let i = test.random.below(12); i > 0; i--) {
          node.commit(test.random.below(4));
          test.step();
        }
        if (test.random.below(2) === 0) node.start();
        test.tick(node);
      }
      test.sealUpTo(12);
      test.settle();
      expect(recordsOf(node).length, `seed ${seed}`).toBe(13);
      expectConserved(test);
    }
  });
});

describe('a roster of three', () => {
  it('seals at ballot 0: one header, one root, the same statements and a majority, whatever the network does', () => {
    for (let seed = 0; seed < 6; seed++) {
      const test = new TestCluster({ members: 3, seed, inlineBytes: takesTime(seed) });
      for (let epoch = 0; epoch < 4; epoch++) {
        for (const node of test.nodes) {
          test.meter(node, 'shop', 1 + test.random.below(9));
          test.meter(node, `only-${node.index}`, 1, 'inspect');
          for (let i = test.random.below(6); i > 0; i--) test.step();
        }
        test.toEndOf(epoch);
        for (const node of test.nodes) test.tick(node);
        test.settle();
      }
      for (const node of test.nodes) expect(recordsOf(node), `seed ${seed}`).toHaveLength(4);
      expectAgreement(test);
      expectConserved(test);
      expectCertificates(test);
      const ballots = test.nodes.flatMap((node) => [...node.shown]).filter(([key]) => key.startsWith('ballot/'));
      for (const [, value] of ballots) expect(JSON.parse(value)).toMatchObject({ promised: { round: 0 } });
    }
  });

  it('seals each epoch only when all have closed it, at different times and with members behind', () => {
    const test = new TestCluster({ members: 3, seed: 7 });
    const [a, b, c] = test.nodes as [Node, Node, Node];
    test.meter(a, 'shop', 1);
    test.meter(c, 'shop', 2);
    test.toEndOf(2);
    test.tick(a);
    test.tick(b);
    test.settle();
    expect(test.nodes.map((node) => recordsOf(node).length)).toEqual([0, 0, 0]);
    // The two others have reported what they hold of the third; its close speaks for itself.
    test.tick(c);
    test.settle();
    expect(test.nodes.map((node) => recordsOf(node).length)).toEqual([3, 3, 3]);
    expectAgreement(test);
    expectConserved(test);
    expect(statementTotal(recordsOf(a).slice(0, 1))).toEqual(usageOf(3));
  });

  it('counts earlier runs once, and agrees, with members killed at any time', () => {
    for (let seed = 0; seed < 8; seed++) {
      const test = new TestCluster({ members: seed % 5 === 0 ? 5 : 3, seed });
      for (let epoch = 0; epoch < 6; epoch++) {
        for (const node of test.nodes) {
          for (let i = test.random.below(3); i > 0; i--)
            test.meter(node, `c${test.random.below(3)}`, 1 + test.random.below(5));
          for (let i = test.random.below(10); i > 0; i--) test.step();
        }
        test.toEndOf(epoch);
        for (const node of test.nodes) {
          if (test.random.below(3) > 0) test.tick(node);
          for (let i = test.random.below(20); i > 0; i--) test.step();
          if (test.random.below(4) > 0) continue;
          node.commit(test.random.below(5));
          node.start();
        }
      }
      test.sealUpTo(9);
      for (const node of test.nodes) expect(recordsOf(node), `seed ${seed}`).toHaveLength(10);
      expectAgreement(test);
      expectConserved(test);
      expectCertificates(test);
    }
  });

  it('ends with the same bytes of each checkpoint at all members, killed ones too', () => {
    for (let seed = 0; seed < 10; seed++) {
      const test = new TestCluster({ members: 3, seed });
      for (let epoch = 0; epoch < 3; epoch++) {
        test.toEndOf(epoch);
        const killed = test.nodes[test.random.below(3)]!;
        let isKilled = false;
        for (let rounds = 0; test.live.some((node) => node.disk.chain.epoch <= epoch); rounds++) {
          expect(rounds, `epoch ${epoch} is sealed`).toBeLessThan(200);
          for (const node of test.live) test.tick(node);
          test.settle(() => {
            if (isKilled || killed.disk.chain.epoch <= epoch) return;
            isKilled = true;
            killed.start();
          });
          test.nowMs += 100;
        }
        expect(isKilled).toBe(true);
      }
      const notes = test.live.map((node) => recordsOf(node).map(({ sealed }) => sealed.checkpoint));
      for (const other of notes) expect(other, `seed ${seed}`).toEqual(notes[0]);
      expectAgreement(test);
      expectCertificates(test);
    }
  });

  it('shows an epoch sealed before a restart to a member that votes on it, and goes back on no vote', () => {
    const test = new TestCluster({ members: 3, seed: 2 });
    test.sealUpTo(0);
    const [node] = test.nodes as [Node];
    const before = present(node.disk.control.get('ballot/0'), 'its vote').value;
    const round = 7;
    node.start();
    const [, other] = test.nodes as [Node, Node];
    const ballot = { round, replica: other.replica };
    const value = jcs({
      ...(JSON.parse(present(other.disk.control.get('ballot/0'), 'a vote').value) as object),
      promised: ballot,
    });
    node.handle({ type: 'register', replica: other.replica, key: 'ballot/0', value });
    const written = node.effects.flatMap((effect) =>
      effect.type === 'write' && effect.key === 'ballot/0' ? [effect.value] : [],
    );
    const accepted = (text: string): unknown => (JSON.parse(text) as { accepted: unknown }).accepted;
    expect(written.map(accepted)).toEqual([accepted(before)]);
    expect(accepted(before)).not.toBeNull();
  });

  it('takes registers that make no sense for an error, and goes on', () => {
    const test = new TestCluster({ members: 3 });
    const [a, b] = test.nodes as [Node, Node];
    const bad: [string, string][] = [
      ['close/0', 'nonsense'],
      ['close/0', '{}'],
      ['ballot/0', '[1]'],
      ['ballot/0', '{"accepted": null}'],
      ['seal/0', '{"header":"x","lines":""}'],
      ['seal/0', `{"header":"${'0'.repeat(64)}","lines":"— a b\\n"}`],
    ];
    for (const [key, value] of bad)
      expect(
        codeOf(() => a.handle({ type: 'register', replica: b.replica, key, value })),
        key,
      ).toBe('DECODE_FAILED');
    for (const key of ['close/x', 'close/00', 'lww/a/b', 'seal', ''])
      expect(codeOf(() => a.handle({ type: 'register', replica: b.replica, key, value: '{}' }))).toBe('none');
    // Of someone who has no vote: noted, and never counted.
    const stranger = 'e'.repeat(32) as ReplicaId;
    const ballot = '{"accepted":null,"frontier":null,"promised":{"replica":"","round":0}}';
    a.handle({ type: 'register', replica: stranger, key: 'ballot/0', value: ballot });
    test.sealUpTo(0);
    for (const node of test.nodes) expect(recordsOf(node)).toHaveLength(1);
  });

  it('refuses a close of another replica or epoch than its register says', () => {
    const test = new TestCluster({ members: 3 });
    const [a, b] = test.nodes as [Node, Node];
    test.toEndOf(0);
    test.tick(b);
    b.commit();
    const value = b.disk.control.get('close/0')!.value;
    expect(codeOf(() => a.handle({ type: 'register', replica: b.replica, key: 'close/1', value }))).toBe(
      'DECODE_FAILED',
    );
    expect(codeOf(() => a.handle({ type: 'register', replica: a.replica, key: 'close/0', value }))).toBe(
      'DECODE_FAILED',
    );
  });
});

describe('the outcome of a value', () => {
  const test = new TestCluster({ members: 1 });
  const node = test.nodes[0]!;
  test.meter(node, 'shop', 5);
  node.start();
  test.meter(node, 'shop', 1);
  test.sealUpTo(1);
  const [first, second] = recordsOf(node).map(({ sealed, chain }) => ({
    chain,
    value: {
      header: sealed.value.header,
      slotList: sealed.value.slotList,
      facts: sealed.value.facts,
      nextRoster: encodeRoster(sealed.value.nextRoster),
    },
    outcome: { statements: statementsIn(sealed), slots: slotsIn(sealed), next: sealed.outcome.next },
  })) as [never, never] as {
    chain: SealedRecord['chain'];
    value: Parameters<typeof outcomeOf>[2];
    outcome: Pick<ReturnType<typeof outcomeOf>, 'statements' | 'slots' | 'next'>;
  }[];
  const contentOf = (digest: string): ReturnType<typeof parseSlot> =>
    parseSlot(present(node.disk.contents.get(digest as never), digest));
  const outcome = (
    chain = first!.chain,
    value = first!.value,
    content: (digest: string) => ReturnType<typeof parseSlot> = contentOf,
  ): ReturnType<typeof outcomeOf> => outcomeOf(test.cluster, chain, value, content, nodeCrypto);

  it('is the same for whoever computes it', () => {
    expect(outcome()).toMatchObject(first!.outcome);
    expect(outcome(first!.outcome.next, second!.value)).toMatchObject(second!.outcome);
  });

  it('is refused if the header does not follow', () => {
    const header = parseHeader(first!.value.header);
    const bad = [
      { format: 2 },
      { cluster: '0'.repeat(64) as never },
      { epoch: 1 },
      { previous: '0'.repeat(64) as never },
      { slots: { ...header.slots, count: 3 } },
      { slots: { ...header.slots, digest: '0'.repeat(64) as never } },
      { facts: '0'.repeat(64) as never },
      { nextFormat: 2 },
    ];
    for (const change of bad)
      expect(
        codeOf(() => outcome(first!.chain, { ...first!.value, header: encodeHeader({ ...header, ...change }) })),
      ).toBe('HEADER_MISMATCH');
    expect(
      codeOf(() =>
        outcome(first!.chain, {
          ...first!.value,
          header: encodeHeader({ ...header, roster: '0'.repeat(64) as never }),
        }),
      ),
    ).toBe('ROSTER_MISMATCH');
    expect(codeOf(() => outcome({ ...first!.chain, format: 2 }))).toBe('HEADER_MISMATCH');
    expect(codeOf(() => outcome(second!.chain))).toBe('HEADER_MISMATCH');
  });

  it('is refused if the header names what this format does not know', () => {
    const header = parseHeader(first!.value.header);
    const facts = utf8(`{"replica":"${'e'.repeat(32)}"}\n`);
    const withFacts = encodeHeader({ ...header, facts: digestOf(nodeCrypto, facts) });
    expect(codeOf(() => outcome(first!.chain, { ...first!.value, header: withFacts, facts }))).toBe('ROSTER_MISMATCH');
    const [member] = first!.chain.roster;
    const nextRoster = encodeRoster([{ ...member!, replica: 'f'.repeat(32) as ReplicaId }]);
    const withRoster = encodeHeader({ ...header, roster: digestOf(nodeCrypto, nextRoster) });
    expect(codeOf(() => outcome(first!.chain, { ...first!.value, header: withRoster, nextRoster }))).toBe(
      'ROSTER_MISMATCH',
    );
    const salt = base64.encode(new Uint8Array(32));
    for (const change of [{ salt }, { epoch: 1 }]) {
      const slotList = first!.value.slotList.map((entry) => (entry.closed ? entry : { ...entry, ...change }));
      const digest = digestOf(nodeCrypto, encodeSlotList(slotList));
      const withList = encodeHeader({ ...header, slots: { digest, count: slotList.length } });
      expect(codeOf(() => outcome(first!.chain, { ...first!.value, header: withList, slotList }))).toBe(
        'HEADER_MISMATCH',
      );
    }
  });

  it('is refused if figures go backwards or a closed slot comes again; sums end at 2^53 - 1', () => {
    const closed = first!.value.slotList.find((entry) => entry.closed)!;
    const open = first!.value.slotList.find((entry) => !entry.closed)!;
    const before = { ...first!.chain, counted: new Map([[slotName(open), closed.digest]]) };
    const more = (digest: string): ReturnType<typeof parseSlot> =>
      contentOf(digest).map((row) => (digest === closed.digest ? { ...row, usage: usageOf(6) } : row));
    expect(codeOf(() => outcome(before, first!.value, more))).toBe('CONSERVATION_BROKEN');
    const again = { ...first!.chain, closed: first!.outcome.next.closed };
    expect(codeOf(() => outcome(again))).toBe('CONSERVATION_BROKEN');
    const huge = (digest: string): ReturnType<typeof parseSlot> =>
      contentOf(digest).map((row) => ({ ...row, usage: { ...ZERO_USAGE, requests: Number.MAX_SAFE_INTEGER } }));
    const [statement] = outcome(first!.chain, first!.value, huge).statements;
    expect(JSON.parse(statement!.text)).toMatchObject({
      usage: { 'resize.jpeg': { requests: Number.MAX_SAFE_INTEGER } },
    });
  });
});
