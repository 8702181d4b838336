import { describe, expect, it } from 'vitest';
import type { Run } from '../../src/base/index.ts';
import { encodeControlDelta, usageWriter } from '../../src/lattice/index.ts';
import { decodeFrame, encodeFrame, type Frame } from '../../src/replication/frames.ts';
import { Checker, CLUSTER, Network, replicaId, type NetworkOptions, type Node } from './support.ts';

const frameOf = (bytes: Uint8Array): Frame => decodeFrame(CLUSTER, bytes) as Frame;
const CLASSES = ['control', 'usage'] as const;

/** Two nodes of which one opens all exchanges, without rumors. */
function pair(opener: number, options: Partial<NetworkOptions>): [Network, Node, Node] {
  const network = new Network({
    nodes: 2,
    seed: 3,
    filter: ({ index }, { type }) => type !== 'flush' && (index === opener || type !== 'exchange'),
    ...options,
  });
  return [network, ...(network.nodes as [Node, Node])];
}

describe('a message lost alone', () => {
  it.each([0, 1])('of deltas is not taken for held, if node %i opens the exchanges', (opener) => {
    for (const lost of ['all', 'one'] as const) {
      let isLossy = true;
      let deltas = 0;
      const [network, first, second] = pair(opener, {
        options: (index) => ({ isHidden: index === 1 }),
        loses: (from, _, bytes) => {
          if (!isLossy || from.index !== 0) return false;
          const { type } = frameOf(bytes);
          if (type === 'done') deltas = 0;
          return type === 'deltas' && (lost === 'all' || deltas++ === 1);
        },
      });
      const value = 'x'.repeat(20_000);
      network.writeControls(
        0,
        Array.from({ length: 9 }, (_, i) => [`k${i}`, value]),
      );
      for (let i = 0; i < 8_000; i++) network.writeUsage(0, 0, `customer-${i}`);
      const heldAll = (): boolean => second.control.upTo(first.id) === 9 && second.usage.upTo(first.writer) === 8_000;
      for (let i = 0; i < 40 && !heldAll(); i++) {
        network.run(250);
        const { control, usage } = second.replication.lag(first.id, network.nowMs);
        if (second.control.upTo(first.id) < 9) {
          expect(control).toBeNull();
          expect(second.replication.isCompared(first.id)).toBe(false);
        }
        if (second.usage.upTo(first.writer) < 8_000) expect(usage).toBeNull();
      }
      if (lost === 'all') expect(heldAll()).toBe(false);
      isLossy = false;
      network.run(20_000);
      expect(heldAll()).toBe(true);
      expect(second.replication.isCompared(first.id)).toBe(true);
      for (const name of CLASSES) expect(second.replication.lag(first.id, network.nowMs)[name]).not.toBeNull();
    }
  });

  it.each([0, 1, 2, 3])('of a vector, page %i of four, is not taken for all that the other has', (lost) => {
    for (const opener of [0, 1]) {
      let isLossy = true;
      let pages = 0;
      const [network, first, second] = pair(opener, {
        loses: (_, __, bytes) => {
          const frame = frameOf(bytes);
          if (!isLossy || frame.type !== 'vector' || frame.class !== 'usage') return false;
          const page = pages++;
          if (frame.isLast) pages = 0;
          return page === lost;
        },
        options: () => ({ keyOf: () => new Uint8Array(32) }),
      });
      // Each has a writer of each page that the other lacks.
      const old = network.nodes.map(({ usage }, index) => {
        const writers = Array.from({ length: 3_500 }, (_, i) =>
          usageWriter(replicaId(100 + (i >> 10)), (i + 1) as Run),
        );
        const held = writers.filter((_, i) => (i % 50 === 0 ? (i / 50) % 2 === index : true));
        for (const writer of held) usage.join({ writer, from: 0, to: 1, end: 1, registers: [] });
        return held;
      });
      const heldAll = (node: Node): boolean => old.flat().every((writer) => node.usage.upTo(writer) === 1);
      for (let i = 0; i < 12; i++) {
        network.run(500);
        for (const [node, other] of [
          [first, second],
          [second, first],
        ] as const)
          if (!heldAll(node)) expect(node.replication.lag(other.id, network.nowMs).usage).toBeNull();
      }
      isLossy = false;
      network.run(6_000);
      expect([heldAll(first), heldAll(second)]).toEqual([true, true]);
      expect(network.node(opener).replication.lag(network.node(1 - opener).id, network.nowMs).usage).not.toBeNull();
    }
  });

  it('of any kind changes nothing of what is said to be held, nor of what is in the end', () => {
    const written = new Map<Node, { readonly ms: number; readonly control: number; readonly usage: number }[]>();
    const checker = new Checker();
    let isLossy = true;
    const network = new Network({
      nodes: 4,
      seed: 5,
      loses: (_, __, bytes) => isLossy && network.random.below(frameOf(bytes).type === 'deltas' ? 3 : 10) === 0,
      check: (node, of) => {
        checker.vector(node, of);
        for (const [other, versions] of written) {
          if (other === node) continue;
          const lag = node.replication.lag(other.id, of.nowMs);
          for (const name of CLASSES) {
            const before = versions.findLast(({ ms }) => ms < of.nowMs - (lag[name] ?? Infinity))?.[name] ?? 0;
            const held = name === 'control' ? node.control.upTo(other.id) : node.usage.upTo(other.writer);
            expect(held).toBeGreaterThanOrEqual(before);
          }
        }
      },
    });
    for (const node of network.nodes) written.set(node, []);
    for (let i = 0; i < 300; i++) {
      const node = network.node(network.random.below(4));
      network.writeUsage(node.index, 0, `c${i % 7}`);
      if (i % 5 === 0) network.writeControl(node.index, `k${i % 3}`);
      const [control, usage] = [node.control.upTo(node.id), node.usage.upTo(node.writer)];
      written.get(node)!.push({ ms: network.nowMs, control, usage });
      network.run(50);
    }
    isLossy = false;
    expect(network.settle(30_000)).toBe(true);
  });
});

describe('a catch-up over slow links', () => {
  it('is not thrown away by exchanges with other newcomers', () => {
    let isBusy = false;
    const network = new Network({
      nodes: 1,
      seed: 5,
      delayMs: [1_000, 1_000],
      loses: (from, to) => isBusy && (from.index === 0 || to.index === 0),
    });
    const { id, control } = network.node(0);
    const value = 'x'.repeat(40_000);
    network.writeControls(
      0,
      Array.from({ length: 100 }, (_, i) => [`k${i}`, value]),
    );
    // No rumors of it: it is old.
    network.run(60_000);
    const newcomers = [1, 2, 3, 4].map(() => network.add());
    network.announce();
    network.run(60_000, () => newcomers.some((node) => node.control.wanted(id) > 0));
    // The one that has all of it has no time for them: they meet each other only.
    isBusy = true;
    network.run(60_000);
    for (const { replication } of newcomers) expect(replication.stats.restarts).toBe(0);
    isBusy = false;
    network.run(100_000, () => newcomers.every((node) => node.control.upTo(id) === control.upTo(id)));
    expect(network.isEqual).toBe(true);
    for (const { replication } of newcomers) expect(replication.stats.restarts).toBe(0);
  });

  it('starts over when its source has no more than before, or is gone', () => {
    for (const fate of ['gone', 'went back'] as const) {
      const network = new Network({ nodes: 4, seed: 4 });
      const { id, control } = network.node(0);
      for (const node of network.nodes) node.isUp = false;
      network.writeControls(
        0,
        Array.from({ length: 40 }, (_, i) => [`k${i}`, '1']),
      );
      for (const index of [1, 2]) network.node(index).control.join(control.delta(id, 0, 1_000, () => 1)!);
      network.writeControls(
        0,
        Array.from({ length: 20 }, (_, i) => [`k${i}`, '2']),
      );
      const piece = control.delta(id, 0, 5, () => 1)!;
      for (const index of [1, 2, 3]) network.node(index).isUp = true;
      network.announce(({ index }) => index > 0);
      const source = fate === 'gone' ? id : network.node(1).id;
      const bytes = encodeFrame(CLUSTER, {
        type: 'deltas',
        exchange: 1,
        class: 'control',
        deltas: [encodeControlDelta(piece)],
      });
      network.input(network.node(3), { type: 'message', from: source, bytes });
      expect(network.node(3).control.wanted(id)).toBeGreaterThan(network.node(3).control.upTo(id));
      network.run(60_000);
      expect(network.node(3).control.upTo(id)).toBe(40);
      expect(network.node(3).replication.stats.restarts).toBe(1);
    }
  });

  it('is not asked for once more with each rumor', () => {
    let asked = 0;
    const network = new Network({
      nodes: 1,
      seed: 5,
      delayMs: [100, 100],
      loses: (_, __, bytes) => {
        const frame = frameOf(bytes);
        if (frame.type === 'want' && frame.exchange === 0) asked++;
        return false;
      },
    });
    const value = 'x'.repeat(40_000);
    network.writeControls(
      0,
      Array.from({ length: 500 }, (_, i) => [`k${i}`, value]),
    );
    network.run(60_000);
    const { id, control } = network.node(0);
    const newcomer = network.add();
    network.announce();
    network.run(5_000, () => newcomer.control.wanted(id) > 0);
    asked = 0;
    for (let i = 0; i < 200 && newcomer.control.upTo(id) < 500; i++) {
      network.writeControl(0, `news ${i}`);
      network.run(100);
    }
    expect(newcomer.control.upTo(id)).toBeGreaterThanOrEqual(500);
    expect(asked).toBeLessThanOrEqual(2);
    expect(network.settle(10_000)).toBe(true);
    expect(newcomer.control.upTo(id)).toBe(control.upTo(id));
  });
});

describe('a new link', () => {
  it('brings an exchange at once, whatever was under way on the one before', () => {
    let isLossy = true;
    const [network, first, second] = pair(0, { loses: () => isLossy });
    network.run(1_500);
    // The exchange that was opened is lost, and is not given up yet.
    network.writeControls(1, [['key', 'value']]);
    isLossy = false;
    network.input(first, { type: 'linkOpened', member: second.id });
    network.run(500);
    expect(first.control.upTo(second.id)).toBe(1);
  });
});
