import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/base/index.ts';
import { encodeControlDelta, signControl } from '../../src/lattice/index.ts';
import { FANOUT, rumorSendsMax } from '../../src/replication/constants.ts';
import { decodeFrame, encodeFrame } from '../../src/replication/frames.ts';
import { Outbox } from '../../src/replication/outbox.ts';
import { Rumors } from '../../src/replication/rumors.ts';
import { newStats } from '../../src/replication/stats.ts';
import { nodeCrypto } from '../support.ts';
import { CLUSTER, Network, replicaId, quantile, type NetworkOptions } from './support.ts';

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

  it('end, and their timer with them', () => {
    let rounds = 0;
    const network = new Network({
      nodes: 30,
      seed: 6,
      filter: (_, { type }) => {
        if (type === 'gossip') rounds++;
        return type !== 'exchange';
      },
    });
    network.writeControl(3, 'a');
    network.run(60_000);
    expect(rounds).toBeLessThanOrEqual(30 * rumorSendsMax(30));
  });

  it('go to nobody who has told of them', () => {
    const network = new Network({ nodes: 30, seed: 6, filter: ({ index }) => index === 7 });
    const other = new Network({ nodes: 2, seed: 6 });
    other.writeControl(0, 'a');
    other.run(50);
    const bytes = other.frames.find((each) => decodeFrame(CLUSTER, each).type === 'rumor')!;
    for (const { id } of network.nodes)
      if (id !== network.node(7).id) network.input(network.node(7), { type: 'message', from: id, bytes });
    const sent = () => network.frames.filter((each) => decodeFrame(CLUSTER, each).type === 'rumor').length;
    expect(sent()).toBe(FANOUT);
    network.run(5_000);
    expect(sent()).toBe(FANOUT);
  });

  it('are kept from those that are known to have them', () => {
    const outbox = new Outbox(CLUSTER, newStats());
    const rumors = new Rumors(outbox, seededRandom(1));
    const live = [1, 2, 3, 4].map(replicaId);
    rumors.add('id', new Uint8Array(5), 1, live[0]!);
    rumors.heard('id', live[1]!);
    rumors.spread(live);
    rumors.spread(live);
    expect(outbox.take().map((effect) => effect.type === 'send' && effect.to)).toEqual(live.slice(2));
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

  it('ask for the gaps of one writer once at a time', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: (_, { type }) => type !== 'exchange' });
    const [first, second] = network.nodes;
    network.partition(() => true);
    const registers = network.writeControls(
      0,
      Array.from({ length: 10 }, (_, i) => [`k${i}`, 'v']),
    );
    const wants = registers.slice(1).flatMap((register) => {
      const { version } = register;
      const span = { from: version - 1, to: version, end: version };
      const delta = encodeControlDelta({ writer: first!.id, ...span, registers: [register] });
      const bytes = encodeFrame(CLUSTER, { type: 'rumor', deltas: [delta] });
      const effects = second!.replication.handle({ type: 'message', from: first!.id, bytes }, network.nowMs);
      return effects.filter((effect) => effect.type === 'send' && decodeFrame(CLUSTER, effect.bytes).type === 'want');
    });
    expect(wants).toHaveLength(1);
    expect(second!.control.pendingVersions(first!.id)).toHaveLength(9);
  });

  it('ask for the first of a gap with more holes than fit into a message, and hold that against nobody', () => {
    const network = new Network({ nodes: 2, seed: 1, filter: () => false });
    const [first, second] = network.nodes;
    const registerOf = (version: number) =>
      signControl(first!.signer, CLUSTER, first!.id, { key: `k${version}`, version, value: '1' });
    // As after a crash between two pieces of a large writer: all is pending, and there is no vector.
    for (let version = 2; version < 100_000; version++)
      if (version % 3 > 0) second!.control.restore(first!.id, registerOf(version));
    second!.control.restored([]);
    const span = { from: 199_999, to: 200_000, end: 200_000 };
    const delta = encodeControlDelta({ writer: first!.id, ...span, registers: [registerOf(200_000)] });
    const bytes = encodeFrame(CLUSTER, { type: 'rumor', deltas: [delta] });
    const effects = second!.replication.handle({ type: 'message', from: first!.id, bytes }, network.nowMs);
    expect(effects.filter(({ type }) => type === 'misbehaviour')).toEqual([]);
    const wants = effects.flatMap((effect) => {
      const frame = effect.type === 'send' ? decodeFrame(CLUSTER, effect.bytes) : undefined;
      return frame?.type === 'want' ? frame.entries : [];
    });
    expect(wants[0]).toMatchObject({ writer: first!.id, upTo: 0, after: 0 });
    expect(wants.flatMap(({ pending }) => pending).length).toBeGreaterThan(1_000);
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
