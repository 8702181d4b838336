import { describe, expect, it } from 'vitest';
import { INDIRECT_PROBES, NACK_AFTER_MS, PROBE_INTERVAL_MS, PROBE_TIMEOUT_MS } from '../../src/membership/constants.ts';
import { decodeDatagram } from '../../src/membership/codec.ts';
import type { Member } from '../../src/membership/index.ts';
import { suspicionTimeoutMs } from '../../src/membership/suspicion.ts';
import { median, memberNamed, most, Network } from './network.ts';

const membersNamed = (n: number): Member[] => Array.from({ length: n }, (_, i) => memberNamed(`node ${i}`));

describe('SWIM §3.1 failure detector', () => {
  it('sends one ping a period, which is acked', () => {
    const network = new Network({ seed: 1 });
    const members = membersNamed(10);
    network.found(members);
    const sent = { ping: 0, ack: 0, pingRequest: 0, nack: 0, gossip: 0 };
    network.run(2_000);
    network.tap((bytes) => sent[decodeDatagram(bytes).message.type]++);
    network.run(100 * PROBE_INTERVAL_MS);
    expect(sent.ping).toBeGreaterThanOrEqual(990);
    expect(sent.ping).toBeLessThanOrEqual(1_010);
    expect(Math.abs(sent.ack - sent.ping)).toBeLessThanOrEqual(10);
    expect([sent.pingRequest, sent.nack, sent.gossip]).toEqual([0, 0, 0]);
  });

  it('a timer of a period that is over does nothing', () => {
    const network = new Network({ seed: 2 });
    const { core } = network.found(membersNamed(3))[0]!;
    const first = core.handle({ type: 'periodEnded', period: 0, dueMs: 0 }, 0);
    expect(first.map(({ type }) => type)).toEqual(['send', 'timer', 'timer']);
    expect(core.handle({ type: 'periodEnded', period: 0, dueMs: 0 }, 0)).toEqual([]);
    expect(core.handle({ type: 'probeTimedOut', period: 0, dueMs: 0 }, 0)).toEqual([]);
    expect(core.handle({ type: 'relayTimedOut', number: 1, dueMs: 0 }, 0)).toEqual([]);
  });

  it('an indirect probe gets around a link that is down: nobody is suspected', () => {
    const network = new Network({ seed: 2 });
    const members = membersNamed(6);
    network.found(members);
    const [a, b] = [members[0]!.key, members[1]!.key];
    network.route((from, to) => !((from === a && to === b) || (from === b && to === a)));
    const requests = new Map<string, number>();
    network.tap((bytes) => {
      const { sender, message } = decodeDatagram(bytes);
      if (message.type === 'pingRequest')
        requests.set(sender + message.number, (requests.get(sender + message.number) ?? 0) + 1);
    });
    network.run(300_000);
    expect(network.changes.filter(({ to }) => to !== 'alive')).toEqual([]);
    expect(requests.size).toBeGreaterThan(50);
    expect([...requests.values()].every((asked) => asked === INDIRECT_PROBES)).toBe(true);
    expect(network.process(members[0]!).core.health).toBe(0);
  });

  it('a helper without an ack says nack, before the deadline of who asked', () => {
    const network = new Network({ seed: 3 });
    const members = membersNamed(6);
    network.found(members);
    network.run(3_000);
    network.crash(members[0]!);
    const times = new Map<string, number>();
    const waits: number[] = [];
    network.tap((bytes, from, to) => {
      const { message } = decodeDatagram(bytes);
      if (message.type === 'pingRequest')
        times.set(`${from.member.id} ${to.member.id} ${message.number}`, network.nowMs);
      if (message.type === 'nack')
        waits.push(network.nowMs - times.get(`${to.member.id} ${from.member.id} ${message.number}`)!);
    });
    network.run(5_000);
    expect(waits.length).toBeGreaterThanOrEqual(INDIRECT_PROBES);
    for (const wait of waits) {
      expect(wait).toBeGreaterThanOrEqual(NACK_AFTER_MS);
      expect(wait).toBeLessThan(PROBE_TIMEOUT_MS);
    }
    expect(network.up.map(({ core }) => core.health)).toEqual([0, 0, 0, 0, 0]);
  });

  it('every crash is detected by all, by the first at the suspicion minimum plus about two seconds', () => {
    for (const n of [2, 3, 10, 30]) {
      const [first, all]: [number[], number[]] = [[], []];
      for (let seed = 1; seed <= 10; seed++) {
        const network = new Network({ seed });
        const members = membersNamed(n);
        network.found(members);
        network.run(10_000 + network.random.below(1_000));
        const crashedMs = network.nowMs;
        network.crash(members[0]!);
        // With two left, a few periods may pass before either of them probes it.
        const boundMs = suspicionTimeoutMs(n, 0) + (n > 3 ? 2_000 : 4_000);
        expect(network.runUntil(() => network.holding(members[0]!, 'dead') === n - 1, boundMs)).toBe(true);
        const dead = network.changes.filter(({ to }) => to === 'dead');
        expect(dead.every(({ member }) => member === members[0])).toBe(true);
        first.push(dead[0]!.atMs - crashedMs);
        all.push(network.nowMs - crashedMs);
      }
      const min = suspicionTimeoutMs(n, 2);
      expect(median(first)).toBeLessThanOrEqual(min + 2_200);
      expect(most(all)).toBeLessThanOrEqual(min + 10_000);
    }
  });

  it('half of a cluster crashing at once is found by the other half', () => {
    const network = new Network({ seed: 4, loss: 5 });
    const members = membersNamed(20);
    network.found(members);
    network.run(5_000);
    for (const member of members.slice(0, 10)) network.crash(member);
    expect(network.runUntil(() => network.converged, 90_000)).toBe(true);
    expect(members.slice(10).every((member) => network.holding(member, 'alive') === 9)).toBe(true);
  });
});

describe('SWIM §4.2 suspicion', () => {
  it('with 5 % of datagrams lost for two hours, many are suspected and nobody is ever found dead', () => {
    const network = new Network({ seed: 5, loss: 5, delayMs: [1, 30], duplication: 1 });
    const members = membersNamed(8);
    network.found(members);
    network.run(2 * 3_600_000);
    const suspected = network.changes.filter(({ to }) => to === 'suspect').length;
    expect(suspected).toBeGreaterThan(20);
    expect(network.changes.filter(({ to }) => to === 'dead')).toEqual([]);
    expect(network.runUntil(() => network.converged, 30_000)).toBe(true);
    expect(network.changes.filter(({ from, to }) => from === 'suspect' && to === 'alive')).toHaveLength(suspected);
  });

  it('a member cut off for less than the minimum refutes with a greater incarnation', () => {
    const network = new Network({ seed: 6 });
    const members = membersNamed(10);
    network.found(members);
    network.run(5_000);
    const [cut, ...rest] = members as [Member, ...Member[]];
    network.partition(rest);
    expect(network.runUntil(() => network.holding(cut, 'suspect') >= 5, 10_000)).toBe(true);
    network.partition();
    expect(network.runUntil(() => network.holding(cut, 'alive') === 9, 10_000)).toBe(true);
    expect(network.changes.filter(({ to }) => to === 'dead')).toEqual([]);
    const views = network.up.map(({ core }) => core.members().find(({ replica }) => replica === cut.replica)!);
    expect(views.every(({ incarnation, state }) => incarnation === 1 && state === 'alive')).toBe(true);
  });

  it('only its member raises an incarnation, and what is held of a member never goes back', () => {
    const network = new Network({ seed: 7, loss: 20, duplication: 20, delayMs: [1, 900] });
    const members = membersNamed(8);
    network.found(members);
    const held = new Map<string, number>();
    const own = new Map<string, number>();
    for (let i = 0; i < 300; i++) {
      network.run(500);
      for (const { core, member } of network.up)
        for (const { replica, incarnation } of core.members())
          if (replica === member.replica) own.set(replica, incarnation);
      for (const { core, member } of network.up)
        for (const { replica, incarnation } of core.members()) {
          const key = member.replica + replica;
          expect(incarnation).toBeGreaterThanOrEqual(held.get(key) ?? 0);
          expect(incarnation).toBeLessThanOrEqual(own.get(replica)!);
          held.set(key, incarnation);
        }
    }
    expect(most([...own.values()])).toBeGreaterThan(0);
  });
});

describe('partitions', () => {
  for (const [name, left] of [
    ['in halves', 10],
    ['of one node', 1],
  ] as const)
    for (const exchangeMs of [0, 1_000])
      it(`${name} are noticed, and heal ${exchangeMs > 0 ? 'with' : 'without'} exchanges`, () => {
        const network = new Network({ seed: 8 + left, exchangeMs, loss: 2 });
        const members = membersNamed(20);
        network.found(members);
        network.run(5_000);
        const [one, other] = [members.slice(0, left), members.slice(left)];
        network.partition(one, other);
        network.run(300_000);
        for (const member of one) expect(network.holding(member, 'dead')).toBe(20 - left);
        for (const member of other) expect(network.holding(member, 'dead')).toBe(left);
        network.partition();
        expect(network.runUntil(() => network.converged, 60_000)).toBe(true);
        const settledMs = network.nowMs;
        network.run(60_000);
        expect(network.changes.filter(({ to, atMs }) => to === 'dead' && atMs > settledMs)).toEqual([]);
      });
});
