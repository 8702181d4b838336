import { describe, expect, it } from 'vitest';
import { Registers, type Delta, type Joined, type UsageRow, type WriterId } from '../../src/lattice/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { Checker, effectsOf, Network, newUsage, type NetworkOptions, type Node } from './support.ts';

/** Random writes of all nodes for some seconds, with whatever the options do to the links. */
function storm(network: Network, seconds: number, writesPerSecond: number): void {
  const { random } = network;
  for (let step = 0; step < seconds * writesPerSecond; step++) {
    const { index } = network.up[random.below(network.up.length)]!;
    if (random.below(2) === 0) network.writeControl(index, `k${random.below(6)}`, `v${step}`);
    else network.writeUsage(index, random.below(2), `c${random.below(5)}`);
    network.run(1_000 / writesPerSecond);
  }
}

/** Everyone holds, of every writer, the join of all that anyone holds of it. */
function expectAll(network: Network): void {
  for (const node of network.up) {
    for (const [writer, written] of network.controlHistory) expect(node.control.upTo(writer)).toBe(written.length);
    for (const [writer, written] of network.usageHistory) expect(node.usage.upTo(writer)).toBe(written.length);
  }
}

/** What the effects told, folded, is what the node holds of the others. */
function expectFolded(node: Node): void {
  const folded = new Map<string, number>();
  for (const { writer, changes } of effectsOf(node, 'joined'))
    for (const { register, previous } of changes) {
      expect(folded.get(`${writer} ${register.key}`)).toBe(previous?.version);
      folded.set(`${writer} ${register.key}`, register.version);
    }
  const held = new Map<string, number>();
  for (const writer of node.control.writers())
    if (writer !== node.id)
      for (const { key, version } of node.control.of(writer)) held.set(`${writer} ${key}`, version);
  for (const writer of node.usage.writers())
    if (writer !== node.writer)
      for (const { key, version } of node.usage.of(writer)) held.set(`${writer} ${key}`, version);
  expect(folded).toEqual(held);
}

describe('convergence', () => {
  it.each([
    { nodes: 2, breaksPerMille: 50 },
    { nodes: 5, breaksPerMille: 20 },
    { nodes: 9, breaksPerMille: 10 },
  ])('of $nodes nodes under breaking links and partitions, with invariants 11 and 12 after every step', (options) => {
    for (const seed of [1, 2, 3]) {
      const checker = new Checker();
      const network = new Network({
        ...options,
        seed,
        delayMs: [1, 300],
        check: (node, of) => checker.vector(node, of),
      });
      storm(network, 3, 10);
      network.partition((a, b) => a.index % 2 !== b.index % 2);
      checker.digests(network);
      storm(network, 3, 10);
      checker.digests(network);
      network.partition();
      expect(network.settle(60_000)).toBe(true);
      checker.digests(network);
      expectAll(network);
      for (const node of network.nodes) expectFolded(node);
    }
  });

  it('of 40 nodes, with invariant 12 checked at every hundredth step', () => {
    const checker = new Checker();
    let steps = 0;
    const network = new Network({
      nodes: 40,
      seed: 7,
      breaksPerMille: 10,
      check: (node, of) => void (++steps % 100 === 0 && checker.vector(node, of)),
    });
    storm(network, 4, 25);
    expect(network.settle(60_000)).toBe(true);
    checker.digests(network);
    expectAll(network);
  });

  it('with real signatures', () => {
    const network = new Network({ nodes: 3, seed: 5, crypto: nodeCrypto, signer: testSigner });
    storm(network, 2, 10);
    expect(network.settle(30_000)).toBe(true);
    expectAll(network);
    for (const { replication } of network.nodes) expect(replication.stats.misbehaviours).toBe(0);
  });

  it('finds a partition that healed although each side believes the other dead', () => {
    const network = new Network({ nodes: 4, seed: 3 });
    const isCut = (a: Node, b: Node) => a.index < 2 !== b.index < 2;
    network.partition(isCut);
    network.writeControl(0, 'a');
    network.writeControl(3, 'b');
    network.run(2_000);
    expect(network.isEqual).toBe(false);
    network.partition();
    for (const node of network.nodes) {
      const others = network.nodes.filter((other) => other !== node);
      const ids = (cut: boolean) => others.filter((other) => isCut(node, other) === cut).map(({ id }) => id);
      network.input(node, { type: 'members', live: ids(false), dead: ids(true), left: [] });
    }
    expect(network.settle(30_000)).toBe(true);
    expectAll(network);
  });

  it('is one run for one seed', () => {
    const run = () => {
      const network = new Network({ nodes: 7, seed: 11, breaksPerMille: 30, delayMs: [1, 200] });
      storm(network, 5, 10);
      return { trace: network.trace, stats: network.nodes.map(({ replication }) => replication.stats) };
    };
    const first = run();
    expect(first.trace.length).toBeGreaterThan(100);
    expect(run()).toEqual(first);
  });
});

describe('a writer that dies', () => {
  it('in the middle of its rumors: what one node got reaches all, and those beyond it stay pending everywhere', () => {
    const checker = new Checker();
    const network = new Network({ nodes: 6, seed: 2, check: (node, of) => checker.vector(node, of) });
    network.run(3_000);
    const { id } = network.node(0);
    // Version 1 goes nowhere, version 2 to a single node.
    const [, second] = network.writeControls(0, [
      ['a', '1'],
      ['b', '2'],
    ]);
    network.stop(0);
    network.announce();
    const delta: Delta<typeof second & object, typeof id> = {
      writer: id,
      from: 1,
      to: 2,
      end: 2,
      registers: [second!],
    };
    network.node(1).control.join(delta);
    expect(network.settle(20_000)).toBe(true);
    for (const { control } of network.up) {
      expect([control.upTo(id), control.pendingVersions(id)]).toEqual([0, [2]]);
      expect(control.get(id, 'b')).toEqual(second);
    }
    expect(network.isEqual).toBe(true);
  });

  it('in the middle of a catch-up: it starts over with what the others have', () => {
    const network = new Network({ nodes: 3, seed: 4 });
    const { id, control } = network.node(0);
    const keys = Array.from({ length: 40 }, (_, i) => [`k${i}`, 'x'.repeat(4_000)] as const);
    network.node(0).isUp = false;
    network.writeControls(0, keys);
    const sizeOf = () => 1;
    network.node(1).control.join(control.delta(id, 0, 1_000, sizeOf)!);
    // Overwrites what the third will be sent of it.
    network.writeControls(0, keys.slice(0, 20));
    network.node(2).control.join(control.delta(id, 0, 5, sizeOf)!);
    expect(network.node(2).control.missing(id)).toEqual({ from: 25, to: 60 });
    network.announce();
    expect(network.settle(30_000)).toBe(true);
    for (const node of network.up) expect(node.control.upTo(id)).toBe(40);
    expect(network.node(2).replication.stats.restarts).toBeGreaterThan(0);
    expect(network.isEqual).toBe(true);
  });
});

describe('the checkers bite', () => {
  class Overclaiming extends Registers<UsageRow, WriterId> {
    override join(delta: Delta<UsageRow, WriterId>): Joined<UsageRow> {
      return super.join({ ...delta, from: 0, end: delta.to });
    }
  }
  class Amnesiac extends Registers<UsageRow, WriterId> {
    override join(delta: Delta<UsageRow, WriterId>): Joined<UsageRow> {
      if (delta.to % 4 === 0) this.forget(delta.writer);
      return super.join(delta);
    }
  }
  /** A row under its key is lost when the next one is joined. */
  class Leaky extends Registers<UsageRow, WriterId> {
    override join(delta: Delta<UsageRow, WriterId>): Joined<UsageRow> {
      const joined = super.join(delta);
      const [first] = delta.registers;
      if (first !== undefined && first.version % 3 === 0) this.drop(delta.writer, [first.key]);
      return joined;
    }
  }
  const options = { keysMax: 1_000, equal: (a: UsageRow, b: UsageRow) => a.usage.requests === b.usage.requests };

  const stormy = (extra: Partial<NetworkOptions>) => {
    const checker = new Checker();
    const network = new Network({
      nodes: 4,
      seed: 9,
      breaksPerMille: 100,
      delayMs: [1, 300],
      check: (node, of) => checker.vector(node, of),
      ...extra,
    });
    storm(network, 10, 10);
    const isEqual = network.settle(30_000);
    checker.digests(network);
    if (!isEqual) throw new Error('not converged');
  };

  it('but not for nothing', () => stormy({}));

  it('12: a vector that claims what a register pending was sent for', () => {
    const broken = (index: number) => (index === 1 ? new Overclaiming(options) : newUsage());
    // Only exchanges bring usage, so a gap takes a pending row: one that is handed over without its predecessors.
    const checker = new Checker();
    const network = new Network({ nodes: 2, seed: 9, usage: broken });
    for (let i = 0; i < 3; i++) network.writeUsage(0, 0, `c${i}`);
    const { usage, writer } = network.node(0);
    const last = [...usage.of(writer)].at(-1)!;
    network.node(1).usage.join({ writer, from: 2, to: 3, end: 3, registers: [last] });
    expect(() => checker.vector(network.node(1), network)).toThrow('invariant 12');
  });

  it('12: a vector that goes down', () => {
    expect(() => stormy({ usage: (index) => (index === 2 ? new Amnesiac(options) : newUsage()) })).toThrow(
      'invariant 12: the vector',
    );
  });

  it('12: a register that is claimed and lost', () => {
    expect(() => stormy({ usage: (index) => (index === 2 ? new Leaky(options) : newUsage()) })).toThrow(
      'without holding it',
    );
  });

  it('11: a digest that leaves out what is pending', () => {
    class Forgetful extends Registers<UsageRow, WriterId> {
      override pendingVersions(): number[] {
        return [];
      }
      override digest(): ReturnType<typeof Registers.prototype.digest> {
        const plain = newUsage();
        for (const [writer, upTo] of this.vector()) plain.join({ writer, from: 0, to: upTo, end: upTo, registers: [] });
        return plain.digest(nodeCrypto);
      }
    }
    const network = new Network({ nodes: 2, seed: 1, usage: () => new Forgetful(options) });
    network.node(0).isUp = false;
    for (let i = 0; i < 2; i++) network.writeUsage(0, 0, `c${i}`);
    const { usage, writer } = network.node(0);
    const third = network.add();
    third.usage.join({ writer, from: 1, to: 2, end: 2, registers: [[...usage.of(writer)].at(-1)!] });
    expect(() => new Checker().digests(network)).toThrow('invariant 11');
  });

  it('a forged register', () => {
    const network = new Network({ nodes: 2, seed: 1, crypto: { ...nodeCrypto, ed25519Verify: () => true } });
    const checker = new Checker();
    network.writeControl(0, 'a', 'true');
    const forger = new Network({ nodes: 2, seed: 1, signer: () => testSigner('someone else') });
    forger.writeControl(0, 'a', 'forged');
    forger.run(100);
    const rumor = forger.frames.find((frame) => Buffer.from(frame).includes('forged'))!;
    network.input(network.node(1), { type: 'message', from: network.node(0).id, bytes: rumor });
    expect(() => checker.vector(network.node(1), network)).toThrow('never written');
  });

  it('convergence: no exchange, and a rumor that was lost', () => {
    expect(() => stormy({ filter: (_, { type }) => type !== 'exchange' })).toThrow('not converged');
  });
});
