import { describe, expect, it } from 'vitest';
import { DATAGRAM_BYTES_MAX, PROBE_INTERVAL_MS } from '../../src/membership/constants.ts';
import type { Member } from '../../src/membership/index.ts';
import { memberNamed, most, Network } from './network.ts';

const membersNamed = (n: number): Member[] => Array.from({ length: n }, (_, i) => memberNamed(`node ${i}`));

/** Periods until all n have heard of a member that joins at one of them, and bytes a node and second when nothing happens. */
function measure(n: number): { rounds: number; quietBytes: number } {
  const network = new Network({ seed: n });
  const members = membersNamed(n);
  const [joiner, seed] = members as [Member, Member];
  network.found(members.slice(1), members);
  network.run(2_000);
  const sum = (): number => network.processes.reduce((bytes, process) => bytes + process.bytes, 0);
  const before = sum();
  network.run(4_000);
  const quietBytes = (sum() - before) / 4 / (n - 1);
  const startMs = network.nowMs;
  network.start(joiner, members, [seed]);
  expect(
    network.runUntil(() => network.changes.filter(({ member }) => member === joiner).length === n - 1, 30_000),
  ).toBe(true);
  expect(network.changes.every(({ to }) => to === 'alive')).toBe(true);
  return { rounds: (network.nowMs - startMs) / PROBE_INTERVAL_MS, quietBytes };
}

describe('SWIM §5 scale', () => {
  it('news reaches all in a number of rounds that grows with the logarithm, and bytes per member do not grow', () => {
    const [ten, hundred, thousand] = [measure(10), measure(100), measure(1_000)];
    expect(ten.rounds).toBeLessThanOrEqual(4);
    expect(hundred.rounds).toBeLessThanOrEqual(7);
    expect(thousand.rounds).toBeLessThanOrEqual(10);
    for (const { quietBytes } of [hundred, thousand]) {
      expect(quietBytes).toBeLessThanOrEqual(1.1 * ten.quietBytes);
      expect(quietBytes).toBeGreaterThanOrEqual(0.9 * ten.quietBytes);
    }
  });

  it('sixty that start at once never send more than a datagram holds', () => {
    const network = new Network({ seed: 1, loss: 5, exchangeMs: 1_000 });
    const members = membersNamed(60);
    for (const member of members) network.start(member, members, members.slice(0, 3));
    network.run(15_000);
    expect(network.converged).toBe(true);
    const longest = most(network.processes.map((process) => process.longest));
    expect(longest).toBeGreaterThan(1_000);
    expect(longest).toBeLessThanOrEqual(DATAGRAM_BYTES_MAX);
    network.loss = 0;
    network.run(30_000);
    expect(most(network.processes.map(({ core }) => core.broadcasts))).toBe(0);
  });
});

describe('determinism', () => {
  const trace = (seed: number): string => {
    const network = new Network({
      seed,
      loss: 10,
      duplication: 10,
      delayMs: [1, 300],
      exchangeMs: 2_000,
      sampleLag: true,
    });
    const members = membersNamed(15);
    members.forEach((member, i) =>
      network.at(150 * i, () => network.start(member, members, members.slice(0, i > 0 ? 1 : 0))),
    );
    network.at(10_000, () => network.partition(members.slice(0, 6), members.slice(6)));
    network.at(40_000, () => network.partition());
    network.at(50_000, () => network.crash(members[3]!));
    network.at(70_000, () => network.start(members[3]!, members, [members[4]!]));
    network.at(80_000, () => network.input(network.process(members[5]!), { type: 'leave' }));
    network.at(85_000, () => {
      network.process(members[6]!).stops = {
        atMs: network.nowMs,
        stopMs: 2_000,
        runMs: 64,
        untilMs: network.nowMs + 20_000,
      };
    });
    network.run(120_000);
    expect(network.changes.length).toBeGreaterThan(200);
    return network.trace;
  };

  it('one seed is one run, to the byte; another seed is another', () => {
    expect(trace(1)).toBe(trace(1));
    expect(trace(1)).not.toBe(trace(2));
  });
});
