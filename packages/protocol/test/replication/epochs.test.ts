import { describe, expect, it } from 'vitest';
import { MESSAGE_BYTES_MAX } from '../../src/lattice/index.ts';
import { encodeFrame } from '../../src/replication/frames.ts';
import type { ShownEpoch } from '../../src/replication/index.ts';
import { CLUSTER, effectsOf, Network, type Node } from './support.ts';

const shown = (epoch: number, bytes = 100): ShownEpoch => ({
  epoch,
  header: new Uint8Array(bytes).fill(epoch),
  checkpoint: `checkpoint of ${epoch}\n`,
});
const range = (from: number, to: number, bytes?: number): ShownEpoch[] =>
  Array.from({ length: to - from }, (_, i) => shown(from + i, bytes));

const got = (node: Node): number[] =>
  effectsOf(node, 'epochs').flatMap(({ epochs }) => epochs.map(({ epoch }) => epoch));

describe('sealed epochs', () => {
  it('come in order from the one that seems to have them, from the one on that is lacking', () => {
    const network = new Network({ nodes: 4, seed: 1 });
    network.node(2).sealed.push(...range(0, 9));
    network.input(network.node(0), { type: 'behind', from: 4, hint: network.node(2).id });
    network.run(500);
    expect(effectsOf(network.node(0), 'epochs')).toEqual([
      { type: 'epochs', from: network.node(2).id, epochs: range(4, 9) },
    ]);
    for (const index of [1, 3]) expect(effectsOf(network.node(index), 'readSealed')).toEqual([]);
  });

  it('are as many as fit into a message, and none after a gap', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    network.node(1).sealed.push(...range(0, 40, 5_000));
    network.input(network.node(0), { type: 'behind', from: 0 });
    network.run(500);
    expect(got(network.node(0)).length).toBeGreaterThan(10);
    expect(got(network.node(0))).toEqual(range(0, got(network.node(0)).length).map(({ epoch }) => epoch));
    expect(Math.max(...network.frames.map(({ length }) => length))).toBeLessThanOrEqual(MESSAGE_BYTES_MAX);
    network.node(1).sealed.splice(0, 40, shown(3), shown(4), shown(6));
    network.input(network.node(0), { type: 'behind', from: 3 });
    network.run(500);
    expect(got(network.node(0)).slice(-2)).toEqual([3, 4]);
  });

  it('are asked of another when one has none, is silent or gone, of three at most', () => {
    for (const trouble of ['none', 'silent', 'gone'] as const) {
      const network = new Network({
        nodes: 3,
        seed: 1,
        filter: (node, { type }) => !(trouble === 'silent' && node.index === 1 && type === 'message'),
      });
      network.node(2).sealed.push(...range(0, 3));
      network.input(network.node(0), { type: 'behind', from: 0, hint: network.node(1).id });
      if (trouble === 'gone') {
        network.stop(1);
        network.announce();
      }
      network.run(5_000);
      expect(got(network.node(0))).toEqual([0, 1, 2]);
    }
    const network = new Network({ nodes: 8, seed: 1 });
    network.input(network.node(0), { type: 'behind', from: 5 });
    network.run(20_000);
    expect(network.nodes.flatMap((node) => effectsOf(node, 'readSealed'))).toHaveLength(3);
  });

  it('that nobody asked for are left alone, and one question is under way at a time', () => {
    const network = new Network({ nodes: 3, seed: 1 });
    const bytes = encodeFrame(CLUSTER, { type: 'sealed', epochs: range(0, 2) });
    network.input(network.node(0), { type: 'message', from: network.node(1).id, bytes });
    expect(got(network.node(0))).toEqual([]);
    for (let i = 0; i < 5; i++) network.input(network.node(0), { type: 'behind', from: 0, hint: network.node(1).id });
    network.input(network.node(0), { type: 'message', from: network.node(2).id, bytes });
    expect(got(network.node(0))).toEqual([]);
    network.node(1).sealed.push(...range(0, 2));
    network.run(500);
    expect(got(network.node(0))).toEqual([0, 1]);
    expect(network.frames.filter((frame) => frame[10] === 15)).toHaveLength(1);
  });

  it('are read for one who asks again only when the last answer is out', () => {
    const network = new Network({ nodes: 2, seed: 1 });
    const ask = encodeFrame(CLUSTER, { type: 'epochs', from: 0 });
    for (let i = 0; i < 50; i++)
      network.input(network.node(0), { type: 'message', from: network.node(1).id, bytes: ask });
    expect(effectsOf(network.node(0), 'readSealed')).toHaveLength(1);
  });
});
