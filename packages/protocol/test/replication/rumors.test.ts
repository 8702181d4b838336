import { describe, expect, it } from 'vitest';
import { rumorSendsMax } from '../../src/replication/constants.ts';
import { nodeCrypto } from '../support.ts';
import { Network, quantile, type NetworkOptions } from './support.ts';

/** Virtual ms until all nodes hold a write, for so many writes one after the other, with one link in twenty dead. */
function dissemination(nodes: number, writes: number, extra: Partial<NetworkOptions> = {}) {
  const network = new Network({ nodes, seed: nodes, delayMs: [1, 20], ...extra });
  const dead = new Set<string>();
  for (let a = 0; a < nodes; a++)
    for (let b = a + 1; b < nodes; b++) if (network.random.below(20) === 0) dead.add(`${a} ${b}`);
  network.partition((a, b) => dead.has(`${Math.min(a.index, b.index)} ${Math.max(a.index, b.index)}`));
  // Nobody has noticed yet.
  network.announce();
  network.run(1_500);
  const all: number[] = [];
  const each: number[] = [];
  let missed = 0;
  for (let i = 0; i < writes; i++) {
    const writer = network.node(network.random.below(nodes));
    const startMs = network.nowMs;
    network.writeControl(writer.index, 'k', `v${i}`);
    const version = writer.control.upTo(writer.id);
    const lacking = new Set(network.nodes);
    const isKnown = () => {
      for (const node of lacking)
        if (node.control.get(writer.id, 'k')?.version === version) {
          lacking.delete(node);
          each.push(network.nowMs - startMs);
        }
      return lacking.size === 0;
    };
    network.run(6_000, isKnown);
    if (lacking.size > 0) missed++;
    else all.push(network.nowMs - startMs);
    network.run(50);
  }
  return { all, each, missed, network };
}

describe('rumors (Demers et al. 1987)', () => {
  it.each([40, 100])('reach all of %i nodes within a second, with one link in twenty dead', (nodes) => {
    const { all, each, missed } = dissemination(nodes, 60);
    expect(missed).toBe(0);
    expect(quantile(each, 0.99)).toBeLessThan(500);
    expect(quantile(all, 0.99)).toBeLessThan(1_000);
  });

  it('hardly need the exchange', () => {
    const { all, missed } = dissemination(40, 60, { filter: (_, { type }) => type !== 'exchange' });
    expect(missed / (missed + all.length)).toBeLessThan(0.1);
  });

  it('go out at most so often from each node, and to nobody twice', () => {
    const network = new Network({ nodes: 30, seed: 6, filter: (_, { type }) => type !== 'exchange' });
    network.writeControl(3, 'a');
    network.run(10_000);
    for (const { replication } of network.nodes)
      expect(replication.stats.messages.out).toBeLessThanOrEqual(rumorSendsMax(30));
    expect(rumorSendsMax(30)).toBe(8);
    expect(new Set(network.trace.map((line) => line.split(' ')[1])).size).toBe(network.trace.length);
    expect(network.isEqual).toBe(true);
  });

  it('are gathered for 20 ms', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: (_, { type }) => type !== 'exchange' });
    for (let i = 0; i < 10; i++) network.writeControl(0, `k${i}`);
    network.run(1_000);
    expect(network.node(0).replication.stats.messages.out).toBe(1);
    expect(network.node(1).control.upTo(network.node(0).id)).toBe(10);
  });

  it('ask for a gap at once, of whoever told of what comes after it', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: (_, { type }) => type !== 'exchange' });
    const [first, second] = network.nodes;
    network.partition(() => true);
    network.announce();
    network.writeControl(0, 'a');
    network.run(1_000);
    network.partition();
    network.writeControl(0, 'b');
    network.run(100);
    expect(second!.control.upTo(first!.id)).toBe(2);
  });

  it('give way under a flood, which the exchange then carries', () => {
    const network = new Network({ nodes: 3, seed: 8 });
    const value = 'x'.repeat(1_000);
    network.writeControls(
      0,
      Array.from({ length: 3_000 }, (_, i) => [`k${i}`, value]),
    );
    expect(network.settle(20_000)).toBe(true);
    expect(network.node(0).replication.stats.rumorsDropped).toBeGreaterThan(0);
    expect(network.node(1).control.digest(nodeCrypto)).toBe(network.node(0).control.digest(nodeCrypto));
  });
});
