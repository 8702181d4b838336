import { describe, expect, it } from 'vitest';
import type { Run } from '../../src/base/index.ts';
import { FOLLOWS_MAX } from '../../src/replication/constants.ts';
import { encodeFrame } from '../../src/replication/frames.ts';
import { cheapCrypto, CLUSTER, effectsOf, Network, type Node } from './support.ts';

/** A network that checks of every member said to hold something that it does. */
const watched = (options: Partial<ConstructorParameters<typeof Network>[0]> = {}): Network =>
  new Network({
    nodes: 5,
    seed: 1,
    ...options,
    check: (node, network) => {
      for (const { replica, upTo, of } of effectsOf(node, 'visible')) {
        const other = network.nodes.find(({ id }) => id === replica)!;
        const held = of === 'control' ? other.control.upTo(node.id) : other.usage.upTo(node.writer);
        expect(held).toBeGreaterThanOrEqual(upTo);
      }
    },
  });

const holders = (node: Node, version = node.control.upTo(node.id)): string[] =>
  node.replication.heldBy('control', version);
const follow = (network: Network, node: Node, version = node.control.upTo(node.id)): void =>
  network.input(node, { type: 'follow', of: 'control', version });

describe('who holds what was written', () => {
  it('is known to whoever follows a write as soon as all hold it, without an exchange', () => {
    for (let seed = 1; seed <= 10; seed++) {
      const network = watched({ seed });
      network.run(5_000);
      const node = network.node(2);
      const before = network.frames.length;
      network.writeControl(2, 'a');
      follow(network, node);
      expect(holders(node)).toEqual([]);
      network.run(150);
      expect(holders(node)).toHaveLength(4);
      const own = network.frames.slice(before).filter((bytes) => bytes[10] === 13 || bytes[10] === 14);
      expect(own).toHaveLength(8);
      expect(own.reduce((sum, bytes) => sum + bytes.length, 0)).toBeLessThan(8 * 20);
    }
  });

  it('is known from exchanges in time to whoever does not ask, also when nothing changes any more', () => {
    const network = watched();
    network.writeControl(0, 'a');
    network.writeUsage(0, 0, 'acme');
    network.run(60_000, () => holders(network.node(0)).length === 4);
    expect(holders(network.node(0))).toHaveLength(4);
    network.run(60_000, () => network.node(0).replication.heldBy('usage', 1).length === 4);
    expect(network.node(0).replication.heldBy('usage', 1)).toHaveLength(4);
    expect(network.frames.some((bytes) => bytes[10] === 13)).toBe(false);
  });

  it('is found out over links that break, and with a write after the other', () => {
    const network = watched({ breaksPerMille: 100, delayMs: [1, 100] });
    for (let i = 0; i < 50; i++) {
      network.writeControl(0, `k${i % 5}`);
      follow(network, network.node(0));
      network.run(60);
    }
    network.run(10_000, () => holders(network.node(0)).length === 4);
    expect(holders(network.node(0))).toHaveLength(4);
  });

  it('costs no more when it is followed again and again: the one timer asks, once a second', () => {
    let isDeaf = false;
    let timers = 0;
    const network = new Network({
      nodes: 5,
      seed: 1,
      filter: ({ index }, { type }) => {
        if (index === 0 && type === 'follows') timers++;
        return !isDeaf || index !== 0 || type !== 'message';
      },
    });
    const node = network.node(0);
    network.run(2_000);
    isDeaf = true;
    network.writeControl(0, 'a');
    const before = network.frames.length;
    for (let i = 0; i < 200; i++) {
      follow(network, node);
      network.run(25);
    }
    expect(network.frames.slice(before).filter((bytes) => bytes[10] === 13)).toHaveLength(4 * (1 + timers));
    expect(timers).toBeGreaterThanOrEqual(4);
    expect(timers).toBeLessThanOrEqual(5);
  });

  it('grows step by step while writes go on: who waits for an earlier one is not held up by later ones', () => {
    const network = watched({ delayMs: [5, 5] });
    const node = network.node(0);
    network.run(2_000);
    const first = network.writeControl(0, 'first').version;
    for (let i = 0; i < 100; i++) {
      follow(network, node);
      network.run(10);
      network.writeControl(0, 'again');
    }
    expect(holders(node, first)).toHaveLength(4);
  });

  it('leaves out whom nobody reaches, asks some more times, and gives it up', () => {
    const network = watched();
    network.partition((a, b) => (a.index === 4) !== (b.index === 4));
    network.writeControl(0, 'a');
    follow(network, network.node(0));
    network.run(2_000);
    expect(holders(network.node(0))).toHaveLength(3);
    network.partition((a, b) => a.index === 0 || b.index === 0);
    network.announce();
    network.writeControl(0, 'b');
    follow(network, network.node(0));
    network.run((FOLLOWS_MAX + 5) * 1_000);
    const asked = network.frames.filter((bytes) => bytes[10] === 13).length;
    network.run(20_000);
    expect(network.frames.filter((bytes) => bytes[10] === 13)).toHaveLength(asked);
    expect(holders(network.node(0))).toEqual([]);
  });

  it('of usage is found out by exchanges that are opened at once', () => {
    const network = watched();
    network.run(5_000);
    const node = network.node(1);
    network.writeUsage(1, 0, 'acme', 5);
    network.input(node, { type: 'follow', of: 'usage', version: 1 });
    network.run(200);
    expect(node.replication.heldBy('usage', 1).length).toBeGreaterThanOrEqual(3);
    expect(node.replication.heldBy('usage', 0)).toHaveLength(4);
  });

  it('is nothing that another process was told, nor more than was written', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    const [node, other] = network.nodes as [Node, Node];
    network.partition(() => true);
    network.writeControl(0, 'a');
    const holds = (run: number, upTo: number): void =>
      network.input(node, {
        type: 'message',
        from: other.id,
        bytes: encodeFrame(CLUSTER, { type: 'holds', class: 'control', run: run as Run, upTo }),
      });
    holds(7, 1);
    expect(holders(node)).toEqual([]);
    holds(1, 99);
    expect(effectsOf(node, 'visible')).toEqual([{ type: 'visible', replica: other.id, upTo: 1, of: 'control' }]);
    expect(node.control.digest(cheapCrypto)).toBeTruthy();
  });
});

describe('two processes of one replica', () => {
  const told = (run: number, newest: number, older: number): Run[] => {
    const network = new Network({ nodes: 2, seed: 1, options: () => ({ run: run as Run }) });
    const [first, second] = network.nodes as [Node, Node];
    for (let i = 0; i < 3; i++) {
      network.input(second, { type: 'runs', member: first.id, newest: newest as Run, older: older as Run });
      network.run(100);
    }
    return effectsOf(first, 'duplicate').map((effect) => effect.run);
  };

  it('each hear once of the other, and nobody of processes before', () => {
    expect(told(5, 9, 5)).toEqual([9]);
    expect(told(9, 9, 5)).toEqual([5]);
    expect(told(7, 9, 5)).toEqual([9]);
    expect(told(12, 9, 5)).toEqual([]);
    expect(told(9, 9, 9)).toEqual([]);
  });
});
