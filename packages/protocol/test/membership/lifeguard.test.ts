import { describe, expect, it } from 'vitest';
import { hex, seededRandom, type Run } from '../../src/base/index.ts';
import { decodeDatagram, encodeDatagram } from '../../src/membership/codec.ts';
import {
  ACCUSATION_REFILL_MS,
  ACCUSATIONS_BURST,
  PROBE_INTERVAL_MS,
  PROBE_TIMEOUT_MS,
} from '../../src/membership/constants.ts';
import { Membership, type Effect, type Member } from '../../src/membership/index.ts';
import type { Update } from '../../src/membership/member.ts';
import { CLUSTER, memberNamed, most, Network } from './network.ts';

const membersNamed = (n: number): Member[] => Array.from({ length: n }, (_, i) => memberNamed(`node ${i}`));

/** A node, and a voice for another that it knows. */
function duet(): {
  core: Membership;
  self: Member;
  other: Member;
  third: Member;
  hear: (...updates: Update[]) => Effect[];
} {
  const [self, other, third] = membersNamed(3) as [Member, Member, Member];
  const core = new Membership({ cluster: CLUSTER, self, run: 1 as Run, random: seededRandom(3) });
  core.handle({ type: 'known', members: [other, third] }, 0);
  let sequence = 0;
  const hear = (...updates: Update[]): Effect[] => {
    const message = { type: 'ping', number: 7, target: self.id } as const;
    const frame = { sender: other.id, run: 1 as Run, sequence: ++sequence, incarnation: 0, message, updates };
    return core.handle({ type: 'datagram', from: other.key, bytes: encodeDatagram(hex.decode(CLUSTER), frame) }, 0);
  };
  return { core, self, other, third, hear };
}

describe('Lifeguard §IV-A local health', () => {
  it('worsens by a refutation of one’s own and by event-loop lag above the timeout, and by nothing below', () => {
    const { core, self, other, hear } = duet();
    hear({ state: 'suspect', member: self.id, incarnation: 0, accuser: other.id });
    expect(core.health).toBe(1);
    hear({ state: 'suspect', member: self.id, incarnation: 0, accuser: other.id });
    expect(core.health).toBe(1);
    core.handle({ type: 'loopLag', lagMs: PROBE_TIMEOUT_MS }, 0);
    expect(core.health).toBe(1);
    core.handle({ type: 'loopLag', lagMs: PROBE_TIMEOUT_MS + 1 }, 0);
    expect(core.health).toBe(2);
  });

  it('stretches interval and timeout, and recovers with each success', () => {
    const network = new Network({ seed: 1 });
    const members = membersNamed(5);
    const [sick] = network.found(members);
    for (let i = 0; i < 9; i++) network.input(sick!, { type: 'loopLag', lagMs: 2_000 });
    expect(sick!.core.health).toBe(7);
    const pings: number[] = [];
    network.tap((bytes, from) => {
      if (from === sick && decodeDatagram(bytes).message.type === 'ping') pings.push(network.nowMs);
    });
    network.run(60_000);
    const gaps = pings.slice(1).map((at, i) => Math.round((at - pings[i]!) / PROBE_INTERVAL_MS));
    expect(gaps.slice(0, 9)).toEqual([8, 7, 6, 5, 4, 3, 2, 1, 1]);
    expect(sick!.core.health).toBe(0);
  });

  it('of a node that everybody is silent to goes to its worst; of the others it does not suffer', () => {
    const network = new Network({ seed: 2 });
    const members = membersNamed(10);
    const processes = network.found(members);
    network.run(3_000);
    network.partition(members.slice(1));
    network.run(30_000);
    expect(processes[0]!.core.health).toBeGreaterThanOrEqual(5);
    expect(most(processes.slice(1).map(({ core }) => core.health))).toBeLessThanOrEqual(1);
  });

  for (const timersFirst of [false, true])
    it(`processes that stop for 2 s and run for 64 ms condemn nobody (${timersFirst ? 'timers' : 'datagrams'} first)`, () => {
      for (let seed = 1; seed <= 3; seed++) {
        const network = new Network({ seed, timersFirst, sampleLag: true });
        const members = membersNamed(20);
        const processes = network.found(members);
        network.run(5_000);
        const sick = processes.slice(0, 3);
        sick.forEach((process, i) => {
          process.stops = { atMs: network.nowMs + 333 * i, stopMs: 2_000, runMs: 64, untilMs: network.nowMs + 180_000 };
        });
        network.run(120_000);
        expect(sick.every(({ core }) => core.health >= 5)).toBe(true);
        network.run(90_000);
        const healthy = new Set(members.slice(3));
        const wronged = network.changes.filter(({ member, to }) => to !== 'alive' && healthy.has(member));
        expect(wronged.filter(({ to }) => to === 'dead')).toEqual([]);
        expect(wronged.length).toBeLessThanOrEqual(20);
        expect(network.runUntil(() => network.converged, 60_000)).toBe(true);
        expect(network.runUntil(() => processes.every(({ core }) => core.health === 0), 120_000)).toBe(true);
      }
    });

  it('a process that stood still judges neither its probe nor its suspicions by what it did not hear', () => {
    const network = new Network({ seed: 4, timersFirst: true });
    const members = membersNamed(6);
    const [still] = network.found(members);
    network.run(5_000);
    // Too short to hear the answer to what it asks when it wakes.
    still!.stops = { atMs: network.nowMs, stopMs: 20_000, runMs: 1, untilMs: network.nowMs + 100_000 };
    network.run(100_000);
    expect(still!.core.counts.judgementsVoided).toBeGreaterThan(0);
    expect(network.changes.filter(({ by, to }) => by === still!.member && to !== 'alive')).toEqual([]);
  });
});

describe('Lifeguard §IV-B suspicion', () => {
  it('each accuser’s word travels, so that confirmations add up everywhere', () => {
    const network = new Network({ seed: 5 });
    const members = membersNamed(10);
    network.found(members);
    network.run(3_000);
    network.crash(members[0]!);
    const accusers = new Set<string>();
    network.tap((bytes) => {
      for (const update of decodeDatagram(bytes).updates) if (update.state === 'suspect') accusers.add(update.accuser);
    });
    network.run(20_000);
    expect(accusers.size).toBeGreaterThanOrEqual(3);
    expect(network.holding(members[0]!, 'dead')).toBe(9);
  });

  it('without confirmations it lasts six times as long', () => {
    const { core, other, third, hear } = duet();
    const extra = membersNamed(6).slice(3);
    core.handle({ type: 'known', members: [other, third, ...extra] }, 0);
    hear(...[third, ...extra].map(({ id }): Update => ({ state: 'alive', member: id, incarnation: 0 })));
    const timers = (accuser: Member): number[] =>
      hear({ state: 'suspect', member: third.id, incarnation: 0, accuser: accuser.id }).flatMap((effect) =>
        effect.type === 'timer' && effect.input.type === 'suspicionExpired' ? [effect.afterMs] : [],
      );
    expect([other, other, extra[0]!, extra[0]!, extra[1]!, extra[2]!].map((accuser) => timers(accuser))).toEqual([
      [24_000],
      [],
      [11_381],
      [],
      [4_000],
      [],
    ]);
  });

  it('a timer that a refutation has overtaken does nothing, however late', () => {
    const { core, other, third, hear } = duet();
    hear({ state: 'alive', member: third.id, incarnation: 0 });
    const timer = hear({ state: 'suspect', member: third.id, incarnation: 0, accuser: other.id }).find(
      (effect) => effect.type === 'timer',
    )!;
    hear({ state: 'alive', member: third.id, incarnation: 1 });
    expect(core.handle(timer.input, 4_000)).toEqual([]);
    const again = hear({ state: 'suspect', member: third.id, incarnation: 1, accuser: other.id }).find(
      (effect) => effect.type === 'timer',
    )!;
    expect(core.handle(timer.input, 4_000)).toEqual([]);
    expect(core.handle(timer.input, 400_000)).toEqual([]);
    expect(core.handle(again.input, 4_000)).toMatchObject([{ type: 'notify', change: { to: 'dead', member: third } }]);
    expect(core.handle(again.input, 4_000)).toEqual([]);
  });
});

describe('Lifeguard §IV-C buddy system', () => {
  it('who pings or is pinged while held for not alive is told so first', () => {
    for (const state of ['suspect', 'dead', 'left'] as const) {
      const { other, third, hear } = duet();
      const claim: Update =
        state === 'suspect'
          ? { state, member: other.id, incarnation: 0, accuser: third.id }
          : { state, member: other.id, incarnation: 0 };
      const fresh: Update = { state: 'alive', member: third.id, incarnation: 0 };
      const [, answer] = hear(claim, fresh).flatMap((effect) =>
        effect.type === 'send' ? [undefined, decodeDatagram(effect.bytes)] : [],
      );
      expect(answer?.updates[0]).toEqual(claim);
      expect(answer?.updates).toHaveLength(2);
    }
  });
});

describe('the limit on accusations', () => {
  it('keeps a node that hears nobody from accusing more than a few', () => {
    const network = new Network({ seed: 6 });
    const members = membersNamed(40);
    const [deaf] = network.found(members);
    network.run(3_000);
    // It is heard, but hears nobody: the worst to have in a cluster.
    network.route((_, to) => to !== deaf!.member.key);
    network.run(120_000);
    const accused = network.changes.filter(({ by, to }) => by === deaf!.member && to === 'suspect').length;
    expect(accused).toBeGreaterThanOrEqual(ACCUSATIONS_BURST);
    expect(accused).toBeLessThanOrEqual(ACCUSATIONS_BURST + 120_000 / ACCUSATION_REFILL_MS);
    expect(
      network.changes.filter(({ by, to, member }) => by !== deaf!.member && to === 'dead' && member !== deaf!.member),
    ).toEqual([]);
    network.partition();
    expect(network.runUntil(() => network.converged, 120_000)).toBe(true);
  });

  it('withholds what is above it', () => {
    const network = new Network({ seed: 7 });
    const [alone] = network.found(membersNamed(30));
    const { core } = alone!;
    // A clock that stands still, and probes that never succeed.
    for (let period = 0; period <= 20; period++) core.handle({ type: 'periodEnded', period, dueMs: 0 }, 0);
    expect(core.members().filter(({ state }) => state === 'suspect')).toHaveLength(ACCUSATIONS_BURST);
    expect(core.counts.accusationsWithheld).toBe(20 - ACCUSATIONS_BURST);
  });

  it('counts an accusation once, however often its probes fail', () => {
    const network = new Network({ seed: 8 });
    const { core } = network.found(membersNamed(3))[0]!;
    for (let period = 0; period <= 20; period++) core.handle({ type: 'periodEnded', period, dueMs: 0 }, 0);
    expect(core.members().filter(({ state }) => state === 'suspect')).toHaveLength(2);
    expect(core.counts.accusationsWithheld).toBe(0);
  });
});
