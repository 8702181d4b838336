import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hex, seededRandom, type ClusterId, type Run } from '../../src/base/index.ts';
import { decodeDatagram, encodeDatagram, type Datagram } from '../../src/membership/codec.ts';
import { MEMBERS_MAX, RELAYS_MAX } from '../../src/membership/constants.ts';
import { Membership, type Effect, type Member, type MemberState } from '../../src/membership/index.ts';
import { MEMBER_STATES, overrides, type Update } from '../../src/membership/member.ts';
import { CLUSTER, memberNamed, Network } from './network.ts';

const membersNamed = (n: number): Member[] => Array.from({ length: n }, (_, i) => memberNamed(`node ${i}`));
const coreOf = (self: Member, known: readonly Member[], cluster = CLUSTER): Membership => {
  const core = new Membership({ cluster, self, run: 1 as Run, random: seededRandom(1) });
  core.handle({ type: 'known', members: known }, 0);
  return core;
};
const sends = (effects: readonly Effect[]): (Datagram & { to: string })[] =>
  effects.flatMap((effect) => (effect.type === 'send' ? [{ to: effect.to, ...decodeDatagram(effect.bytes) }] : []));

/** Speaks for a member, datagram by datagram. */
const speaker = (member: Member, cluster = CLUSTER): ((part?: Partial<Datagram>) => Uint8Array) => {
  let sequence = 0;
  return (part) =>
    encodeDatagram(hex.decode(cluster), {
      sender: member.id,
      run: 1 as Run,
      sequence: ++sequence,
      incarnation: 0,
      message: { type: 'ack', number: 1 },
      updates: [],
      ...part,
    });
};
const stateOf = (core: Membership, member: Member): MemberState | undefined =>
  core.members().find(({ replica }) => replica === member.replica)?.state;

describe('joining', () => {
  it('one after the other over one seed, with every tenth datagram lost, ends in one view', () => {
    const network = new Network({ seed: 2, loss: 10, delayMs: [1, 40] });
    const members = membersNamed(12);
    members.forEach((member, i) =>
      network.at(200 * i, () => network.start(member, members, members.slice(0, Math.min(i, 1)))),
    );
    expect(network.runUntil(() => network.processes.length === 12, 5_000)).toBe(true);
    expect(network.runUntil(() => network.converged, 15_000)).toBe(true);
  });

  it('needs no seed where the node directory names the others', () => {
    const network = new Network({ seed: 3, exchangeMs: 1_000 });
    const members = membersNamed(30);
    for (const member of members) network.start(member, members, []);
    expect(network.runUntil(() => network.converged, 20_000)).toBe(true);
    expect(network.changes.every(({ to }) => to === 'alive')).toBe(true);
    const views = network.processes.map(({ core }) => core.members().map((view) => ({ ...view, sinceMs: 0 })));
    for (const view of views) expect(view).toEqual(views[0]);
  });

  it('is refused to who is not in the node directory, until it is', () => {
    const [a, b] = membersNamed(2) as [Member, Member];
    const network = new Network({ seed: 4 });
    const core = network.start(a, [], []).core;
    network.start(b, [a, b], [a]);
    network.run(20_000);
    expect(core.members().map(({ replica }) => replica)).toEqual([a.replica]);
    expect(core.counts.unknown).toBeGreaterThan(10);
    network.input(network.process(a), { type: 'known', members: [a, b] });
    expect(network.runUntil(() => network.converged, 5_000)).toBe(true);
    expect(core.broadcasts).toBe(1);
    network.input(network.process(a), { type: 'known', members: [a] });
    expect(network.changes.at(-1)).toMatchObject({ member: b, from: 'alive', to: 'unheard' });
    expect([core.members().length, core.broadcasts]).toEqual([1, 0]);
  });

  it('pings seeds at once, eight at most', () => {
    const members = membersNamed(20);
    const core = coreOf(members[0]!, members);
    const pings = sends(core.handle({ type: 'join', seeds: members.slice(1) }, 0));
    expect(pings.map(({ to }) => to)).toEqual(members.slice(1, 9).map(({ key }) => key));
  });

  it('takes 10 000 members at most', () => {
    const members = membersNamed(MEMBERS_MAX + 2);
    const core = coreOf(members[0]!, members);
    const speak = (member: Member): Effect[] =>
      core.handle({ type: 'datagram', from: member.key, bytes: speaker(member)() }, 0);
    expect(speak(members[MEMBERS_MAX]!)).toHaveLength(1);
    expect(speak(members[MEMBERS_MAX + 1]!)).toEqual([]);
    expect(core.counts.unknown).toBe(1);
  });
});

describe('leaving', () => {
  it('is known to all for what it is, and nobody is ever suspected or found dead', () => {
    const network = new Network({ seed: 5, loss: 5 });
    const members = membersNamed(20);
    network.found(members);
    network.run(5_000);
    const leaver = members[7]!;
    network.input(network.process(leaver), { type: 'leave' });
    expect(network.process(leaver).core.handle({ type: 'join', seeds: members }, network.nowMs)).toEqual([]);
    expect(
      network
        .process(leaver)
        .core.members()
        .find(({ replica }) => replica === leaver.replica)?.state,
    ).toBe('left');
    network.crash(leaver);
    expect(network.runUntil(() => network.holding(leaver, 'left') === 19, 8_000)).toBe(true);
    network.run(60_000);
    expect(network.changes.filter(({ member, to }) => member === leaver && to !== 'alive' && to !== 'left')).toEqual(
      [],
    );
  });
});

describe('coming back', () => {
  const cluster = (seed: number): [Network, Member[]] => {
    const network = new Network({ seed, loss: 5, exchangeMs: 1_000 });
    const members = membersNamed(8);
    network.found(members);
    network.run(5_000);
    return [network, members];
  };

  it('with the same key and replica before anybody noticed', () => {
    const [network, members] = cluster(11);
    network.start(members[0]!, members, members.slice(1, 3));
    expect(network.runUntil(() => network.converged, 10_000)).toBe(true);
    network.run(60_000);
    expect(network.changes.filter(({ to }) => to === 'dead')).toEqual([]);
    network.loss = 0;
    expect(network.runUntil(() => network.converged, 30_000)).toBe(true);
  });

  it('with the same key and replica after it was found dead: it refutes', () => {
    const [network, members] = cluster(12);
    network.crash(members[0]!);
    expect(network.runUntil(() => network.holding(members[0]!, 'dead') === 7, 40_000)).toBe(true);
    const { core } = network.start(members[0]!, members, members.slice(1, 3));
    expect(network.runUntil(() => network.converged, 10_000)).toBe(true);
    expect(core.members().find(({ replica }) => replica === members[0]!.replica)?.incarnation).toBe(1);
  });

  it('with the same key and replica after it left', () => {
    const [network, members] = cluster(13);
    network.input(network.process(members[0]!), { type: 'leave' });
    network.crash(members[0]!);
    expect(network.runUntil(() => network.holding(members[0]!, 'left') === 7, 10_000)).toBe(true);
    network.start(members[0]!, members, members.slice(1, 3));
    expect(network.runUntil(() => network.converged, 10_000)).toBe(true);
  });

  it('with the same key but a lost disk: a new member, and the old one is found dead', () => {
    const [network, members] = cluster(14);
    const again = memberNamed('node 0', 1);
    const known = [...members, again];
    for (const process of network.up) network.input(process, { type: 'known', members: known });
    network.start(again, known, members.slice(1, 3));
    const settled = (): boolean =>
      network.holding(again, 'alive') === 7 && network.holding(members[0]!, 'dead') === 7 && network.converged;
    expect(network.runUntil(settled, 40_000)).toBe(true);
    network.run(60_000);
    network.loss = 0;
    expect(network.runUntil(() => network.converged, 30_000)).toBe(true);
    expect(network.changes.filter(({ member, to }) => to === 'dead' && member !== members[0])).toEqual([]);
  });

  it('at the same place with a new key: somebody else', () => {
    const [network, members] = cluster(15);
    const other = memberNamed('somebody else');
    const known = [...members, other];
    for (const process of network.up) network.input(process, { type: 'known', members: known });
    network.crash(members[0]!);
    network.start(other, known, members.slice(1, 3));
    const settled = (): boolean =>
      network.holding(other, 'alive') === 7 && network.holding(members[0]!, 'dead') >= 7 && network.converged;
    expect(network.runUntil(settled, 40_000)).toBe(true);
  });
});

describe('remembering', () => {
  it('the dead are forgotten after 24 h, and no exchange with one who still remembers brings them back', () => {
    const [a, b, c] = membersNamed(3) as [Member, Member, Member];
    const network = new Network({ seed: 6 });
    network.found([a, b, c]);
    network.run(3_000);
    network.crash(b);
    network.crash(c);
    const { core } = network.process(a);
    expect(network.runUntil(() => network.holding(c, 'dead') === 1, 40_000)).toBe(true);
    const remembering = core.exchangeFrames();
    network.run(23.9 * 3_600_000);
    expect(stateOf(core, c)).toBe('dead');
    expect(network.runUntil(() => stateOf(core, c) === undefined, 600_000)).toBe(true);
    expect(network.changes.filter(({ member, to }) => member === c && to === 'unheard')).toHaveLength(1);
    const other = coreOf(b, [a, c]);
    for (const bytes of remembering) other.handle({ type: 'exchange', from: a.key, bytes }, 0);
    expect([stateOf(other, a), stateOf(other, c)]).toEqual(['alive', undefined]);
  });
});

describe('an exchange', () => {
  it('merges a second-hand verdict as a suspicion, which its subject refutes', () => {
    const members = membersNamed(4);
    const [a, b, c] = members as [Member, Member, Member];
    const network = new Network({ seed: 8 });
    network.found(members);
    network.run(3_000);
    const wrong = coreOf(b, members);
    const tell = speaker(a);
    for (const state of ['alive', 'dead'] as const) {
      const bytes = tell({ updates: [{ state, member: c.id, incarnation: 0 }] });
      wrong.handle({ type: 'datagram', from: a.key, bytes }, 0);
    }
    expect(stateOf(wrong, c)).toBe('dead');
    for (const bytes of wrong.exchangeFrames())
      network.input(network.process(a), { type: 'exchange', from: b.key, bytes });
    expect(network.changes.at(-1)).toMatchObject({ by: a, member: c, to: 'suspect' });
    expect(network.runUntil(() => network.holding(c, 'alive') === 3, 10_000)).toBe(true);
    expect(network.changes.filter(({ to }) => to === 'dead')).toEqual([]);
  });

  it('goes in frames that together hold everybody', () => {
    const members = membersNamed(1_500);
    const core = coreOf(members[0]!, members);
    for (const member of members.slice(1))
      core.handle({ type: 'datagram', from: member.key, bytes: speaker(member)() }, 0);
    const other = coreOf(members[1]!, members);
    const frames = core.exchangeFrames();
    expect(frames).toHaveLength(3);
    for (const bytes of frames) {
      expect(bytes.length).toBeLessThan(64 * 1024);
      other.handle({ type: 'exchange', from: members[0]!.key, bytes }, 0);
    }
    expect(other.members()).toHaveLength(1_500);
    expect(other.broadcasts).toBe(0);
    const live = (of: typeof core): string[] => of.members().map(({ replica, state }) => `${replica} ${state}`);
    expect(live(other)).toEqual(live(core));
  });
});

describe('news', () => {
  it('in any order, in any number of copies, leads to the same', () => {
    const [self, sender, ...others] = membersNamed(5) as [Member, Member, Member, Member, Member];
    const update: fc.Arbitrary<Update> = fc
      .record({
        state: fc.constantFrom(...MEMBER_STATES),
        who: fc.nat(2),
        incarnation: fc.integer({ min: 0, max: 3 }),
        accuser: fc.nat(2),
      })
      .map(({ state, who, incarnation, accuser }) =>
        state === 'suspect'
          ? { state, member: others[who]!.id, incarnation, accuser: others[accuser]!.id }
          : { state, member: others[who]!.id, incarnation },
      );
    fc.assert(
      fc.property(fc.array(update, { maxLength: 12 }), fc.nat(), (updates, seed) => {
        const core = coreOf(self, [sender, ...others]);
        const random = seededRandom(seed);
        const speak = speaker(sender);
        const hear = (part: readonly Update[]): void =>
          void core.handle({ type: 'datagram', from: sender.key, bytes: speak({ updates: part }) }, 0);
        hear(others.map(({ id }) => ({ state: 'alive', member: id, incarnation: 0 })));
        const shuffled = [...updates, ...updates.slice(0, random.below(updates.length + 1))];
        shuffled.sort(() => random.below(3) - 1);
        for (const one of shuffled) hear([one]);
        for (const { id, replica } of others) {
          let best: { state: MemberState; incarnation: number } = { state: 'alive', incarnation: 0 };
          for (const one of updates) if (one.member === id && overrides(one, best)) best = one;
          expect(core.members().find((view) => view.replica === replica)).toMatchObject({
            state: best.state,
            incarnation: best.incarnation,
          });
        }
      }),
    );
  });
});

describe('datagrams that are not for us', () => {
  const [self, other, stranger] = membersNamed(3) as [Member, Member, Member];
  const CHANGES_NOTHING: Effect[] = [];

  it('of another cluster or version, from a stranger, or under a false name, are counted and ignored', () => {
    const core = coreOf(self, [other]);
    const hear = (from: Member, bytes: Uint8Array): Effect[] =>
      core.handle({ type: 'datagram', from: from.key, bytes }, 0);
    expect(hear(other, speaker(other, 'd2'.repeat(32) as ClusterId)())).toEqual(CHANGES_NOTHING);
    const later = speaker(other)();
    later[0] = 2;
    expect(hear(other, later)).toEqual(CHANGES_NOTHING);
    expect(hear(stranger, speaker(stranger)())).toEqual(CHANGES_NOTHING);
    expect(hear(stranger, speaker(other)())).toEqual(CHANGES_NOTHING);
    expect(hear(other, speaker(other)().subarray(0, 60))).toEqual(CHANGES_NOTHING);
    expect(hear(other, new Uint8Array())).toEqual(CHANGES_NOTHING);
    expect(core.counts).toMatchObject({ foreign: 2, unknown: 2, malformed: 2, replayed: 0 });
    expect(core.members()).toHaveLength(1);
  });

  it('that came before change nothing: a whole history played again', () => {
    const network = new Network({ seed: 9, loss: 5, duplication: 10, delayMs: [1, 400] });
    const members = membersNamed(6);
    network.found(members);
    const heard: { to: Member; from: Member; bytes: Uint8Array }[] = [];
    network.tap((bytes, from, to) => heard.push({ to: to.member, from: from.member, bytes }));
    network.at(10_000, () => network.crash(members[0]!));
    network.at(30_000, () => network.input(network.process(members[1]!), { type: 'leave' }));
    network.run(60_000);
    const before = network.up.map(({ core }) => [core.members(), core.health, core.broadcasts]);
    expect(heard.length).toBeGreaterThan(500);
    for (const { to, from, bytes } of heard) {
      const { core, up } = network.process(to);
      if (!up) continue;
      expect(core.handle({ type: 'datagram', from: from.key, bytes }, network.nowMs)).toEqual(CHANGES_NOTHING);
    }
    expect(network.up.map(({ core }) => [core.members(), core.health, core.broadcasts])).toEqual(before);
    expect(network.process(members[3]!).core.counts.replayed).toBeGreaterThan(100);
  });

  it('an ack or a nack that answers nothing, and a ping for the replica before, get no answer', () => {
    const core = coreOf(self, [other]);
    const speak = speaker(other);
    const earlier = memberNamed('node 0', 1);
    for (const message of [
      { type: 'ack', number: 5 },
      { type: 'nack', number: 5 },
      { type: 'ping', number: 5, target: earlier.id },
    ] as const)
      expect(sends(core.handle({ type: 'datagram', from: other.key, bytes: speak({ message }) }, 0))).toEqual([]);
    const ping = { type: 'ping', number: 5, target: self.id } as const;
    expect(sends(core.handle({ type: 'datagram', from: other.key, bytes: speak({ message: ping }) }, 0))).toMatchObject(
      [{ to: other.key, message: { type: 'ack', number: 5 } }],
    );
  });

  it('indirect probes for others are bounded', () => {
    const core = coreOf(self, [other, stranger]);
    const speak = speaker(other);
    let pings = 0;
    for (let number = 1; number <= RELAYS_MAX + 20; number++) {
      const message = { type: 'pingRequest', number, target: stranger.id } as const;
      pings += sends(core.handle({ type: 'datagram', from: other.key, bytes: speak({ message }) }, 0)).length;
    }
    expect([pings, core.counts.relaysRefused]).toEqual([RELAYS_MAX, 20]);
  });
});
