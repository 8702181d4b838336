import { describe, expect, it } from 'vitest';
import type { ReplicaId, Run } from '../../src/base/index.ts';
import { MESSAGE_BYTES_MAX, signControl, usageWriter, type UsageRow } from '../../src/lattice/index.ts';
import {
  ANSWER_BYTES_MIN,
  PAGES_MAX,
  ROUND_BYTES_MAX,
  SERVED_BYTES_PER_SECOND_MAX,
} from '../../src/replication/constants.ts';
import { decodeFrame, encodeFrame } from '../../src/replication/frames.ts';
import type { ReplicationEffect, ReplicationInput } from '../../src/replication/index.ts';
import {
  cheapSigner,
  Checker,
  CLUSTER,
  effectsOf,
  Network,
  newControl,
  replicaId,
  type Control,
  type Node,
} from './support.ts';

const bytesOut = (network: Network) => network.nodes.reduce((sum, node) => sum + node.replication.stats.bytes.out, 0);
const opened = (network: Network) =>
  network.nodes.reduce((sum, node) => sum + node.replication.stats.exchangesOpened, 0);

/** The registers of the first node, which has written that many before it starts. */
function startedWith(count: number): Control {
  const [id, control] = [replicaId(1), newControl()];
  const versions = Array.from({ length: count }, (_, i) => i + 1);
  control.apply(
    id,
    versions.map((version) =>
      signControl(cheapSigner('node 0'), CLUSTER, id, { key: `k${version}`, version, value: '1' }),
    ),
  );
  return control;
}

describe('an exchange', () => {
  it('costs little at rest, and about as much as its rows when there are some', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    network.run(60_500);
    expect(opened(network)).toBeGreaterThan(100);
    expect(bytesOut(network) / opened(network)).toBeLessThan(80);

    network.input(network.node(0), { type: 'members', live: [], dead: [], left: [] });
    network.input(network.node(1), { type: 'members', live: [], dead: [], left: [] });
    for (let i = 0; i < 1_000; i++) network.writeUsage(0, 0, `customer-${i}`, 1 + (i % 100));
    const before = bytesOut(network);
    network.announce();
    expect(network.settle(3_000)).toBe(true);
    // With the names of the customers, each new here.
    expect((bytesOut(network) - before) / 1_000).toBeLessThan(30);
  });

  it('brings a row once, however often it changed since the last', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    network.run(2_000);
    for (let i = 0; i < 500; i++) network.writeUsage(0, 0, 'c');
    network.run(3_000);
    expect(network.node(1).replication.stats.registers.usage.in).toBe(1);
    expect(network.node(1).usage.upTo(network.node(0).writer)).toBe(500);
  });

  it('is not held up by a member that does not answer', () => {
    const network = new Network({ nodes: 5, seed: 2 });
    network.node(4).isUp = false;
    network.run(1_000);
    for (let i = 0; i < 50; i++) {
      network.writeUsage(i % 4, 0, 'c');
      network.run(100);
    }
    expect(network.settle(5_000)).toBe(true);
    expect(network.node(0).replication.stats.exchangesLost).toBeGreaterThan(0);
  });

  it('knows how old its view of each member is', () => {
    const network = new Network({ nodes: 3, seed: 2 });
    const [first, second, third] = network.nodes;
    expect(first!.replication.lag(second!.id, 0)).toEqual({ control: null, usage: null });
    network.run(10_000);
    network.stop(2);
    network.announce();
    const stoppedMs = network.nowMs;
    network.run(10_000);
    for (const name of ['control', 'usage'] as const) {
      expect(first!.replication.lag(second!.id, network.nowMs)[name]).toBeLessThan(3_000);
      expect(first!.replication.lag(third!.id, network.nowMs)[name]).toBeGreaterThanOrEqual(network.nowMs - stoppedMs);
    }
    // Of one that left, too: what it counted is in the figures as of then.
    network.input(first!, { type: 'members', live: [second!.id], dead: [], left: [third!.id] });
    expect(first!.replication.lag(third!.id, network.nowMs).usage).toBeGreaterThanOrEqual(network.nowMs - stoppedMs);
    network.input(first!, { type: 'members', live: [second!.id], dead: [], left: [] });
    expect(first!.replication.lag(third!.id, network.nowMs).usage).toBeNull();
  });

  it('never says that it has all of a member when it has not (harvest)', () => {
    const writtenMs = new Map<Node, number[]>();
    const network = new Network({
      nodes: 4,
      seed: 3,
      breaksPerMille: 100,
      check: (node, of) => {
        for (const other of of.nodes) {
          if (other === node) continue;
          const { usage } = node.replication.lag(other.id, of.nowMs);
          const written = writtenMs.get(other)?.filter((ms) => usage !== null && ms < of.nowMs - usage).length ?? 0;
          expect(node.usage.upTo(other.writer)).toBeGreaterThanOrEqual(written);
        }
      },
    });
    for (const node of network.nodes) writtenMs.set(node, []);
    for (let i = 0; i < 400; i++) {
      const node = network.node(network.random.below(4));
      network.writeUsage(node.index, 0, `c${i % 7}`);
      writtenMs.get(node)!.push(network.nowMs);
      network.run(50);
    }
  });
});

describe('a catch-up', () => {
  it('of a node that was away for days: 100 000 rows within the budgets, at once, while news goes on', () => {
    let largest = 0;
    const network = new Network({ nodes: 4, seed: 5, delayMs: [1, 5] });
    network.stop(3);
    network.announce();
    const { writer } = network.node(0);
    for (let i = 0; i < 100_000; i++) network.writeUsage(0, Math.floor(i / 20_000), `customer-${i % 20_000}`);
    for (const delta of [network.node(0).usage.delta(writer, 0, Number.MAX_SAFE_INTEGER, () => 1)!])
      for (const other of [1, 2]) network.node(other).usage.join(delta);
    network.run(3_000);
    const away = network.node(3);
    away.isUp = true;
    for (const { replication } of network.nodes) {
      const original = replication.handle.bind(replication);
      replication.handle = (input, nowMs): ReplicationEffect[] => {
        const effects = original(input, nowMs);
        let bytes = 0;
        for (const effect of effects) {
          if (effect.type !== 'send') continue;
          largest = Math.max(largest, effect.bytes.length);
          bytes += effect.bytes.length;
        }
        expect(bytes).toBeLessThan(ROUND_BYTES_MAX + 2 * MESSAGE_BYTES_MAX);
        return effects;
      };
    }
    network.input(away, { type: 'start' });
    network.announce();
    const startMs = network.nowMs;
    network.run(20_000, () => away.usage.upTo(writer) === 100_000);
    expect(away.usage.upTo(writer)).toBe(100_000);
    expect(network.nowMs - startMs).toBeLessThan(3_000);
    expect(largest).toBeLessThanOrEqual(MESSAGE_BYTES_MAX);
    expect(network.isEqual).toBe(true);
    // Not everything from everyone.
    expect(away.replication.stats.registers.usage.in).toBeLessThan(300_000);
  });

  it.each([0, 1])('goes on at once while there is more, also if only node %i ever opens an exchange', (opener) => {
    const network = new Network({
      nodes: 2,
      seed: 5,
      delayMs: [1, 5],
      filter: ({ index }, { type }) =>
        type !== 'gossip' && type !== 'flush' && (index === opener || type !== 'exchange'),
    });
    const value = 'x'.repeat(8_000);
    network.writeControls(
      0,
      Array.from({ length: 1_000 }, (_, i) => [`k${i}`, value]),
    );
    network.run(2_500);
    expect(network.node(1).control.upTo(network.node(0).id)).toBe(1_000);
    expect(
      network.node(0).replication.stats.exchangesOpened + network.node(1).replication.stats.exchangesOpened,
    ).toBeGreaterThan(8);
  });

  it('that is not complete is not taken for all that the other has', () => {
    for (const opener of [1, 2]) {
      let isFree = false;
      const network = new Network({
        nodes: 3,
        seed: 4,
        filter: ({ index }, { type }) => isFree || index === opener || type !== 'exchange',
      });
      const { id, control } = network.node(0);
      network.node(0).isUp = false;
      network.writeControls(
        0,
        Array.from({ length: 40 }, (_, i) => [`k${i}`, '1']),
      );
      network.node(1).control.join(control.delta(id, 0, 1_000, () => 1)!);
      network.writeControls(
        0,
        Array.from({ length: 20 }, (_, i) => [`k${i}`, '2']),
      );
      network.node(2).control.join(control.delta(id, 0, 5, () => 1)!);
      network.announce();
      const lag = () => network.node(2).replication.lag(network.node(1).id, network.nowMs).control;
      network.run(4_000);
      expect(network.node(opener).replication.stats.exchangesOpened).toBeGreaterThan(2);
      expect(lag()).toBeNull();
      // Gives the catch-up up, whose source is gone, and takes what there is.
      if (opener === 1) network.node(2).control.restart(id);
      network.run(20_000);
      expect(network.node(2).control.upTo(id)).toBe(40);
      isFree = true;
      network.input(network.node(2), { type: 'exchange', round: opener === 1 ? 1 : -1 });
      network.run(5_000);
      expect(lag()).toBeLessThan(2_500);
    }
  });

  it('of thousands of writers, and of pending versions beyond one page', () => {
    // One opens, so that nothing comes twice because both asked.
    const network = new Network({
      nodes: 2,
      seed: 5,
      filter: ({ index }, { type }) => index === 1 || type !== 'exchange',
    });
    const [first, second] = network.nodes;
    const row = { key: '0/c/s', epoch: 0, customer: 'c', sku: 's' } as unknown as UsageRow;
    network.writeUsage(0, 0, 'c');
    const [{ usage }] = [...first!.usage.of(first!.writer)] as [UsageRow];
    for (let run = 10; run < 3_010; run++) {
      const writer = usageWriter(second!.id, run as Run);
      first!.usage.join({ writer, from: 0, to: 1, end: 1, registers: [{ ...row, version: 1, usage }] });
    }
    const other = usageWriter(second!.id, 9 as Run);
    first!.usage.join({ writer: other, from: 0, to: 1, end: 1, registers: [] });
    for (let version = 2; version < 12_000; version += 2)
      first!.usage.join({
        writer: other,
        from: version - 1,
        to: version,
        end: version,
        registers: [{ ...row, key: `0/c${version}/s`, customer: `c${version}` as never, version, usage }],
      });
    expect(network.settle(10_000)).toBe(true);
    expect(second!.usage.pendingVersions(other)).toHaveLength(5_998);
    expect(second!.replication.stats.registers.usage.in).toBe(1 + 3_000 + 5_999);
    expect(network.frames.every(({ length }) => length <= MESSAGE_BYTES_MAX)).toBe(true);
  });
});

describe('what both hold pending', () => {
  it('is not sent again with every exchange', () => {
    const network = new Network({ nodes: 2, seed: 3 });
    const [first, second] = network.nodes;
    const lost = new Network({ nodes: 5, seed: 3 });
    const [, register] = lost.writeControls(4, [
      ['a', '1'],
      ['b', '2'],
    ]);
    const third = network.add(lost.node(4).id, 'node 4');
    third.isUp = false;
    for (const { control } of network.up)
      control.join({ writer: third.id, from: 1, to: 2, end: 2, registers: [register!] });
    for (let i = 0; i < 50; i++) {
      network.writeControl(0, 'k');
      network.run(200);
    }
    const { registers } = second!.replication.stats;
    expect(registers.control.out).toBe(0);
    expect(first!.replication.stats.registers.control.in).toBe(0);
    const wants = network.frames.map((bytes) => decodeFrame(CLUSTER, bytes)).filter(({ type }) => type === 'want');
    expect(JSON.stringify(wants)).not.toContain(third.id);
  });
});

describe('writers', () => {
  it('that are not admitted are refused until they are', () => {
    const admitted = new Set<ReplicaId>();
    const network = new Network({
      nodes: 3,
      seed: 1,
      options: (index) => (index === 2 ? { keyOf: (id) => (admitted.has(id) ? keyOf(id) : undefined) } : {}),
    });
    const keyOf = (id: ReplicaId) => network.nodes.find((node) => node.id === id)?.signer.publicKey;
    const [first, , third] = network.nodes;
    network.writeControl(0, 'a');
    network.writeUsage(0, 0, 'c');
    network.run(5_000);
    expect(third!.control.writers()).toEqual([]);
    expect(third!.usage.writers()).toEqual([]);
    expect(third!.replication.stats.unknownWriters).toBeGreaterThan(0);
    expect(third!.replication.stats.misbehaviours).toBe(0);
    admitted.add(first!.id);
    network.run(5_000);
    expect([third!.control.upTo(first!.id), third!.usage.upTo(first!.writer)]).toEqual([1, 1]);
  });

  it('that are this node itself are not joined from others: more than it wrote says that its disk went back', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    for (let i = 0; i < 5; i++) network.writeControl(0, `k${i}`);
    network.run(3_000);
    // The same replica, from an older copy of its disk.
    network.node(0).isUp = false;
    const old = network.add(network.node(0).id, 'node 0');
    network.node(1).effects.length = 0;
    for (const bytes of network.frames.filter((frame) => decodeFrame(CLUSTER, frame).type === 'rumor'))
      network.input(old, { type: 'message', from: network.node(1).id, bytes });
    expect(effectsOf(old, 'overtaken').at(-1)).toEqual({ type: 'overtaken', version: 5 });
    expect(old.control.upTo(old.id)).toBe(0);
    expect(old.control.pendingVersions(old.id)).toEqual([]);
  });

  it('hide what they wrote themselves until they have compared it', () => {
    const network = new Network({ nodes: 2, seed: 1, options: (index) => ({ isHidden: index === 0 }) });
    const [first, second] = network.nodes;
    network.writeControl(0, 'a');
    network.writeControl(1, 'b');
    network.run(5_000);
    expect([second!.control.upTo(first!.id), first!.control.upTo(second!.id)]).toEqual([0, 1]);
    expect(first!.replication.lag(second!.id, network.nowMs).control).toBeLessThan(3_000);
    network.input(first!, { type: 'show' });
    network.run(100);
    expect(second!.control.upTo(first!.id)).toBe(1);
  });

  it('are not taken to have shown all while they hide what they had written, and yet compare with each other', () => {
    for (const opener of [0, 1])
      for (const hidden of [1, 2]) {
        const network = new Network({
          nodes: 2,
          seed: 1,
          options: (index) => ({ isHidden: index < hidden }),
          filter: ({ index }, { type }) => index === opener || type !== 'exchange',
          control: (index) => (index === 0 ? startedWith(3) : newControl()),
        });
        const [first, second] = network.nodes as [Node, Node];
        const lag = () => second.replication.lag(first.id, network.nowMs).control;
        network.run(10_000);
        expect(lag()).toBeNull();
        expect(network.node(opener).replication.isCompared(network.node(1 - opener).id)).toBe(true);
        network.input(first, { type: 'show' });
        network.run(10_000);
        expect(second.control.upTo(first.id)).toBe(3);
        expect(lag()).not.toBeNull();
      }
  });

  it('that went back learn it while they still hide', () => {
    const network = new Network({ nodes: 2, seed: 1, options: (index) => ({ isHidden: index === 2 }) });
    for (let i = 0; i < 5; i++) network.writeControl(0, `k${i}`);
    network.run(3_000);
    const [first, second] = network.nodes;
    first!.isUp = false;
    const old = network.add(first!.id, 'node 0');
    // The exchange of the two, by hand: the network knows them by their ids.
    const converse = (from: Node, to: Node, input: ReplicationInput): void => {
      for (const effect of from.replication.handle(input, network.nowMs))
        if (effect.type === 'send') converse(to, from, { type: 'message', from: from.id, bytes: effect.bytes });
        else if (effect.type !== 'timer') from.effects.push(effect);
    };
    converse(old, second!, { type: 'members', live: [second!.id], dead: [], left: [] });
    for (let round = 1; round < 4; round++) converse(old, second!, { type: 'exchange', round });
    expect(effectsOf(old, 'overtaken').at(-1)).toEqual({ type: 'overtaken', version: 5 });
    expect(old.control.upTo(old.id)).toBe(0);
  });

  it('that are two under one id are noticed: the register held is kept', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    const twin = new Network({ nodes: 2, seed: 1 });
    network.writeControl(0, 'a', 'one');
    twin.writeControl(0, 'a', 'other');
    network.run(2_000);
    twin.run(200);
    for (const bytes of twin.frames) network.input(network.node(1), { type: 'message', from: replicaId(1), bytes });
    const { id } = network.node(0);
    expect(effectsOf(network.node(1), 'conflict')[0]).toEqual({
      type: 'conflict',
      class: 'control',
      writer: id,
      version: 1,
    });
    expect(network.node(1).control.get(id, 'a')!.value).toBe('one');
  });
});

describe('what every node drops by rule', () => {
  const isDropped = (_: string, register: { readonly key: string }) => register.key.startsWith('0/');

  it('does not come back, whoever still has it, as its predecessors or beyond a gap', () => {
    const hasSealed = new Set<number>();
    const checker = new Checker(isDropped);
    const network = new Network({
      nodes: 4,
      seed: 4,
      check: (node, of) => checker.vector(node, of),
      options: (index) => ({
        usageRules: { isDropped: (_, row) => hasSealed.has(index) && isDropped('', row), isForgotten: () => false },
      }),
    });
    const { writer, usage } = network.node(0);
    for (let i = 0; i < 6; i++) network.writeUsage(0, i % 2, `c${i}`);
    // The third row gets to one node alone, without its predecessors: epoch 0, like the first.
    const third = [...usage.of(writer)][2]!;
    network.node(1).usage.join({ writer, from: 2, to: 3, end: 3, registers: [third] });
    network.stop(0);
    network.announce();
    const seal = (index: number) => {
      hasSealed.add(index);
      const rows = [...network.node(index).usage.of(writer)].filter((row) => isDropped('', row));
      network.node(index).usage.drop(
        writer,
        rows.map(({ key }) => key),
      );
      network.node(index).effects.length = 0;
    };
    seal(2);
    network.run(10_000);
    expect(network.node(2).usage.writers().length).toBeLessThanOrEqual(1);
    expect(network.node(2).usage.pendingVersions(writer)).toEqual([]);
    expect(effectsOf(network.node(2), 'joined')).toEqual([]);
    expect(network.node(3).usage.pendingVersions(writer)).toEqual([3]);
    seal(1);
    seal(3);
    expect(network.settle(10_000)).toBe(true);
    // The writer comes back: what it says of epoch 1 is taken, and the vector passes over the rest.
    network.node(0).isUp = true;
    network.input(network.node(0), { type: 'start' });
    network.announce();
    expect(network.settle(20_000)).toBe(true);
    for (const index of [1, 2, 3]) {
      expect(network.node(index).usage.upTo(writer)).toBe(6);
      expect([...network.node(index).usage.of(writer)].map(({ version }) => version)).toEqual([2, 4, 6]);
    }
  });

  it('is taken when it brings more than was counted', () => {
    const network = new Network({
      nodes: 2,
      seed: 4,
      options: () => ({
        usageRules: { isDropped: (_, { usage }) => usage.requests <= 5, isForgotten: () => false },
      }),
    });
    const { writer } = network.node(0);
    network.writeUsage(0, 0, 'c', 5);
    network.run(3_000);
    expect([network.node(1).usage.upTo(writer), [...network.node(1).usage.of(writer)]]).toEqual([1, []]);
    network.writeUsage(0, 0, 'c', 1);
    network.run(3_000);
    expect([...network.node(1).usage.of(writer)].map(({ usage }) => usage.requests)).toEqual([6]);
  });

  it('includes runs that are counted: they leave at each node in its time, and come back only with what is not', () => {
    const forgets = new Set<number>();
    const old = usageWriter(replicaId(9), 1 as Run);
    const counted = new Set([`0/c/s`]);
    const network = new Network({
      nodes: 3,
      seed: 4,
      options: (index) => ({
        keyOf: () => new Uint8Array(32),
        usageRules: {
          isDropped: (_, { key }) => forgets.has(index) && counted.has(key),
          isForgotten: (writer) => forgets.has(index) && writer === old,
        },
      }),
    });
    const row = (version: number, epoch: number) =>
      ({
        key: `${epoch}/c/s`,
        version,
        epoch,
        customer: 'c',
        sku: 's',
        usage: network.node(0).usage.get(network.node(0).writer, '2/x/resize.jpeg')!.usage,
      }) as UsageRow;
    network.writeUsage(0, 2, 'x');
    for (const { usage } of network.nodes) usage.join({ writer: old, from: 0, to: 1, end: 1, registers: [row(1, 0)] });
    // One node alone has late usage of it.
    network.node(2).usage.join({ writer: old, from: 1, to: 2, end: 2, registers: [row(2, 1)] });
    network.node(2).isUp = false;
    network.announce();
    const forget = (index: number) => {
      forgets.add(index);
      network.node(index).replication.forget(old);
    };
    forget(0);
    network.run(5_000);
    expect(network.node(0).usage.upTo(old)).toBe(0);
    forget(1);
    expect(network.settle(5_000)).toBe(true);
    network.node(2).isUp = true;
    network.input(network.node(2), { type: 'start' });
    network.announce();
    network.run(10_000);
    for (const index of [0, 1]) expect([...network.node(index).usage.of(old)]).toEqual([row(2, 1)]);
    // Once that is counted, too, it leaves for good.
    counted.add('1/c/s');
    for (const index of [0, 1, 2]) forget(index);
    network.run(5_000);
    for (const { usage } of network.nodes) expect(usage.writers()).not.toContain(old);
    expect(network.isEqual).toBe(true);
  });
});

describe('bounds', () => {
  it('answers no flood of openings', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: (_, { type }) => type !== 'exchange' });
    const [first, second] = network.nodes;
    const digests = { control: new Uint8Array(16), usage: new Uint8Array(16) };
    const bytes = encodeFrame(CLUSTER, { type: 'open', exchange: 1, digests });
    for (let i = 0; i < 9_000; i++)
      first!.replication.handle({ type: 'message', from: second!.id, bytes }, network.nowMs);
    // The answer, and a page of each class.
    expect(first!.replication.stats.messages.out).toBeLessThanOrEqual(
      (3 * SERVED_BYTES_PER_SECOND_MAX) / ANSWER_BYTES_MIN,
    );
  });

  it('shows a vector of any length, so many pages at a time', () => {
    const network = new Network({
      nodes: 2,
      seed: 1,
      options: () => ({ keyOf: () => new Uint8Array(32) }),
      filter: ({ index }, { type }) => index === 1 || type !== 'exchange',
    });
    const [first, second] = network.nodes;
    for (let replica = 10; replica < 15; replica++)
      for (let run = 1; run <= 4_000; run++)
        first!.usage.join({
          writer: usageWriter(replicaId(replica), run as Run),
          from: 0,
          to: 1,
          end: 1,
          registers: [],
        });
    const pages = () => network.frames.filter((bytes) => decodeFrame(CLUSTER, bytes).type === 'vector').length;
    network.run(1_200, () => pages() > 0);
    expect(pages()).toBe(PAGES_MAX);
    for (let i = 0; i < 60 && second!.usage.writers().length < 20_000; i++) network.run(1_000);
    expect(second!.usage.writers()).toHaveLength(20_000);
  });

  it('does not let a stale timer open exchanges', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    network.run(3_000);
    const { exchangesOpened } = network.node(0).replication.stats;
    for (let round = 0; round < 3; round++) network.input(network.node(0), { type: 'exchange', round });
    expect(network.node(0).replication.stats.exchangesOpened).toBe(exchangesOpened);
  });

  it('serves one member so much in a second and no more', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: (_, { type }) => type !== 'exchange' });
    const [first] = network.nodes;
    network.writeControls(
      0,
      Array.from({ length: 40 }, (_, i) => [`k${i}`, 'x'.repeat(40_000)]),
    );
    network.run(5_000);
    const entry = { writer: first!.id, upTo: 0, reached: 0, after: 0, through: Number.MAX_SAFE_INTEGER, pending: [] };
    const bytes = encodeFrame(CLUSTER, { type: 'want', exchange: 1, class: 'control', entries: [entry] });
    const before = first!.replication.stats.bytes.out;
    for (let i = 0; i < 100; i++) network.input(first!, { type: 'message', from: network.node(1).id, bytes });
    const served = first!.replication.stats.bytes.out - before;
    expect(served).toBeGreaterThan(SERVED_BYTES_PER_SECOND_MAX / 2);
    expect(served).toBeLessThan(SERVED_BYTES_PER_SECOND_MAX + 2 * ROUND_BYTES_MAX);
    network.nowMs += 1_000;
    network.input(first!, { type: 'message', from: network.node(1).id, bytes });
    expect(first!.replication.stats.bytes.out - before).toBeGreaterThan(served + 500_000);
  });

  it('takes no more runs of one replica than there can be', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    const [first, second] = network.nodes;
    network.writeUsage(0, 0, 'c');
    const [row] = [...first!.usage.of(first!.writer)] as [UsageRow];
    for (let run = 10; run < 5_010; run++)
      first!.usage.join({ writer: usageWriter(first!.id, run as Run), from: 0, to: 1, end: 1, registers: [row] });
    network.run(10_000);
    expect(second!.usage.writers()).toHaveLength(4_096);
  });
});
