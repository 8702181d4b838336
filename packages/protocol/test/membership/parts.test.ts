import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom, type Run } from '../../src/base/index.ts';
import { updateBytesMax } from '../../src/membership/codec.ts';
import { ACCUSATION_REFILL_MS, ACCUSATIONS_BURST, REORDER_MAX } from '../../src/membership/constants.ts';
import { Broadcasts, retransmissions } from '../../src/membership/dissemination.ts';
import { LocalHealth } from '../../src/membership/health.ts';
import { MEMBER_STATES, overrides, type MemberId, type Update } from '../../src/membership/member.ts';
import { healthOfFailure, Prober } from '../../src/membership/probe.ts';
import { ReplayWindow } from '../../src/membership/replay.ts';
import { AccusationLimit, Suspicion, suspicionTimeoutMs } from '../../src/membership/suspicion.ts';
import { MemberTable, type Peer } from '../../src/membership/table.ts';
import { memberNamed } from './network.ts';

const idOf = (name: string): MemberId => memberNamed(name).id;
const news = fc.record({ state: fc.constantFrom(...MEMBER_STATES), incarnation: fc.integer({ min: 0, max: 3 }) });

describe('SWIM §4.2 precedence', () => {
  it('alive overrides only with a greater incarnation, suspect and dead with an equal one too', () => {
    const over = (state: (typeof MEMBER_STATES)[number], incarnation: number): string[] =>
      MEMBER_STATES.filter((held) => overrides({ state, incarnation }, { state: held, incarnation: 5 }));
    expect(over('alive', 5)).toEqual([]);
    expect(over('alive', 6)).toEqual([...MEMBER_STATES]);
    expect(over('suspect', 5)).toEqual(['alive']);
    expect(over('dead', 5)).toEqual(['alive', 'suspect']);
    expect(over('left', 5)).toEqual(['alive', 'suspect', 'dead']);
    for (const state of MEMBER_STATES) expect(over(state, 4)).toEqual([]);
  });

  it('is a strict total order, so that news joins to the same in any order', () => {
    fc.assert(
      fc.property(news, news, news, (a, b, c) => {
        const equal = a.state === b.state && a.incarnation === b.incarnation;
        expect([overrides(a, b), overrides(b, a), equal].filter(Boolean)).toHaveLength(1);
        if (overrides(a, b) && overrides(b, c)) expect(overrides(a, c)).toBe(true);
      }),
    );
  });
});

describe('Lifeguard §IV-B suspicion timeout', () => {
  it('goes from six times the minimum to the minimum, the first confirmation counting most', () => {
    expect([0, 1, 2].map((c) => suspicionTimeoutMs(10, c))).toEqual([24_000, 11_381, 4_000]);
    expect([0, 1, 2].map((c) => suspicionTimeoutMs(100, c))).toEqual([48_000, 22_762, 8_000]);
    expect(suspicionTimeoutMs(1_000, 2)).toBe(12_000);
  });

  it('is the minimum at once where nobody is left to confirm', () => {
    expect([1, 2, 3].map((n) => suspicionTimeoutMs(n, 0))).toEqual([4_000, 4_000, 4_000]);
    expect(suspicionTimeoutMs(4, 0)).toBe(24_000);
    expect(new Suspicion(idOf('a'), 3, 0).needs(idOf('b'))).toBe(false);
  });

  it('counts each accuser once, and no more than it needs', () => {
    const suspicion = new Suspicion(idOf('a'), 10, 1_000);
    expect(suspicion.remainingMs(2_000)).toBe(23_000);
    expect(suspicion.needs(idOf('a'))).toBe(false);
    for (const name of ['b', 'c']) {
      expect(suspicion.needs(idOf(name))).toBe(true);
      suspicion.confirm(idOf(name));
      expect(suspicion.needs(idOf(name))).toBe(false);
    }
    expect(suspicion.needs(idOf('d'))).toBe(false);
    expect([2_000, 5_000, 9_000, 500].map((now) => suspicion.remainingMs(now))).toEqual([3_000, 0, 0, 4_000]);
    expect([suspicion.confirmations, suspicion.accuser]).toEqual([2, idOf('a')]);
  });
});

describe('the limit on accusations', () => {
  it('lets through a burst, and then no more than its rate, whatever the clock does', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3 * ACCUSATION_REFILL_MS }), { maxLength: 60 }), (gaps) => {
        const limit = new AccusationLimit();
        let [now, made] = [5_000_000, 0];
        const start = now;
        for (const gap of gaps) {
          now += gap;
          if (limit.take(now)) made++;
        }
        expect(made).toBeLessThanOrEqual(ACCUSATIONS_BURST + (now - start) / ACCUSATION_REFILL_MS);
        expect(made).toBeGreaterThanOrEqual(Math.min(gaps.length, ACCUSATIONS_BURST));
      }),
    );
    const limit = new AccusationLimit();
    for (let i = 0; i < ACCUSATIONS_BURST; i++) expect(limit.take(90_000)).toBe(true);
    expect([limit.take(90_000), limit.take(0), limit.take(ACCUSATION_REFILL_MS)]).toEqual([false, false, true]);
  });
});

describe('Lifeguard §IV-A local health', () => {
  it('stays between 0 and 7', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -3, max: 3 })), (deltas) => {
        const health = new LocalHealth();
        let naive = 0;
        for (const delta of deltas) {
          health.change(delta);
          naive = Math.max(0, Math.min(7, naive + delta));
          expect([health.score, health.multiplier]).toEqual([naive, naive + 1]);
        }
      }),
    );
  });

  it('suffers from a failed probe by the nacks that were missed, by one if there was nobody to ask', () => {
    const failure = (helpers: string[], nacks: string[]): number => {
      const prober = new Prober(seededRandom(1));
      const probe = prober.start({ member: memberNamed('t') } as Peer);
      for (const name of helpers) probe.helpers.add(idOf(name));
      for (const name of nacks) prober.nack(probe.number, idOf(name));
      return healthOfFailure(probe);
    };
    expect(failure([], [])).toBe(1);
    expect(failure(['a', 'b', 'c'], [])).toBe(3);
    expect(failure(['a', 'b', 'c'], ['b', 'b'])).toBe(2);
    expect(failure(['a', 'b'], ['a', 'b', 'x'])).toBe(0);
  });
});

describe('SWIM §3.1 answers', () => {
  it('count only from whom they were asked of', () => {
    const prober = new Prober(seededRandom(1));
    const [target, requester] = ['t', 'r'].map((name) => ({ member: memberNamed(name) }) as Peer) as [Peer, Peer];
    const probe = prober.start(target);
    probe.helpers.add(idOf('h'));
    prober.ack(probe.number, idOf('x'));
    prober.ack(probe.number + 1, idOf('t'));
    expect(probe.acked).toBe(false);
    prober.ack(probe.number, idOf('h'));
    expect(probe.acked).toBe(true);
    const relay = { requester, number: 5, target };
    const number = prober.relay(relay)!;
    expect(prober.ack(number, idOf('x'))).toBeUndefined();
    expect(prober.ack(number, idOf('t'))).toBe(relay);
    expect([prober.ack(number, idOf('t')), prober.endRelay(number)]).toEqual([undefined, undefined]);
  });
});

describe('the window against replays', () => {
  it('takes every number once, and forgets none that it could still take', () => {
    const sequence = fc.array(fc.record({ run: fc.integer({ min: 1, max: 3 }), n: fc.integer({ min: 1, max: 90 }) }));
    fc.assert(
      fc.property(sequence, (datagrams) => {
        const window = new ReplayWindow();
        let [run, top] = [0, 0];
        const seen = new Set<string>();
        for (const datagram of datagrams) {
          if (datagram.run > run) [run, top] = [datagram.run, 0];
          const key = `${datagram.run}/${datagram.n}`;
          const fresh = datagram.run === run && datagram.n > top - REORDER_MAX && !seen.has(key);
          expect(window.accept(datagram.run as Run, datagram.n)).toBe(fresh);
          if (fresh) seen.add(key);
          if (datagram.run === run) top = Math.max(top, datagram.n);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('SWIM §4.1 dissemination', () => {
  const alive = (name: string, incarnation = 0): Update => ({ state: 'alive', member: idOf(name), incarnation });
  const suspect = (name: string, accuser: string): Update => ({
    state: 'suspect',
    member: idOf(name),
    incarnation: 0,
    accuser: idOf(accuser),
  });
  const drain = (broadcasts: Broadcasts, bytes: number, limit: number): Update[][] => {
    const datagrams: Update[][] = [];
    while (broadcasts.size > 0) datagrams.push(broadcasts.take(bytes, limit, idOf('nobody')));
    return datagrams;
  };

  it('sends each update as often as the size of the cluster asks', () => {
    expect([1, 9, 10, 99, 100, 999, 1_000].map(retransmissions)).toEqual([4, 4, 8, 8, 12, 12, 16]);
    const broadcasts = new Broadcasts();
    const updates = ['a', 'b', 'c', 'd', 'e', 'f', 'g'].map((name) => alive(name));
    updates.forEach((update) => broadcasts.put(update));
    const datagrams = drain(broadcasts, 3 * updateBytesMax(updates[0]!), 4);
    for (const update of updates) expect(datagrams.flat().filter((sent) => sent === update)).toHaveLength(4);
    expect(datagrams).toHaveLength(Math.ceil((7 * 4) / 3));
    for (const datagram of datagrams) expect(new Set(datagram).size).toBe(datagram.length);
  });

  it('prefers what was sent least, and keeps within the bytes', () => {
    const broadcasts = new Broadcasts();
    broadcasts.put(alive('a'));
    broadcasts.put(alive('b'));
    expect(broadcasts.take(120, 8, idOf('x'))).toEqual([alive('a'), alive('b')]);
    broadcasts.put(alive('c'));
    expect(broadcasts.take(70, 8, idOf('x'))).toEqual([alive('c')]);
    expect(broadcasts.take(70, 8, idOf('x'))).toEqual([alive('a')]);
    expect(broadcasts.take(10, 8, idOf('x'))).toEqual([]);
  });

  it('tells nobody about itself, and does not count that as sent', () => {
    const broadcasts = new Broadcasts();
    broadcasts.put(alive('a'));
    expect(broadcasts.take(500, 1, idOf('a'))).toEqual([]);
    expect(broadcasts.take(500, 1, idOf('b'))).toEqual([alive('a')]);
    expect(broadcasts.size).toBe(0);
  });

  it('drops what newer news makes obsolete; accusations by different members stand beside each other', () => {
    const broadcasts = new Broadcasts();
    broadcasts.put(alive('a'));
    for (const accuser of ['x', 'y', 'z']) broadcasts.put(suspect('a', accuser));
    broadcasts.put(alive('b'));
    expect(broadcasts.size).toBe(4);
    broadcasts.put(alive('a', 1));
    expect(broadcasts.take(1_000, 8, idOf('n'))).toEqual([alive('b'), alive('a', 1)]);
    broadcasts.drop(idOf('b'));
    expect(broadcasts.take(1_000, 8, idOf('n'))).toEqual([alive('a', 1)]);
  });
});

describe('SWIM §4.3 round-robin', () => {
  const table = (names: readonly string[], seed: number): [MemberTable, Peer[]] => {
    const held = new MemberTable(memberNamed('self'), seededRandom(seed));
    held.setKnown(names.map((name) => memberNamed(name)));
    const peers = [...held.peers()];
    for (const peer of peers) held.set(peer, 'alive', 0, 0);
    return [held, peers];
  };

  it('probes each live member once a round, in an order drawn anew', () => {
    const names = Array.from({ length: 20 }, (_, i) => `m${i}`);
    const [held] = table(names, 3);
    for (let i = 0; i < 20; i++) held.next();
    const rounds = Array.from({ length: 3 }, () => names.map(() => held.next()!.member.id));
    for (const round of rounds) expect(new Set(round).size).toBe(20);
    expect(rounds[0]).not.toEqual(rounds[1]);
    expect(rounds[1]).not.toEqual(rounds[2]);
  });

  it('passes over nobody when one that had its turn goes', () => {
    const names = Array.from({ length: 10 }, (_, i) => `m${i}`);
    const [held] = table(names, 4);
    for (let i = 0; i < 10; i++) held.next();
    const probed = [1, 2, 3, 4].map(() => held.next()!);
    for (const peer of probed.slice(0, 3)) held.set(peer, 'dead', 0, 0);
    const rest = [1, 2, 3, 4, 5, 6].map(() => held.next()!);
    expect(new Set([...probed, ...rest]).size).toBe(10);
  });

  it('keeps exactly the live ones under any changes, and none waits for more than two rounds', () => {
    const step = fc.record({ who: fc.nat(9), state: fc.constantFrom(...MEMBER_STATES), probes: fc.nat(3) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(), (steps, seed) => {
        const [held, peers] = table(
          Array.from({ length: 10 }, (_, i) => `m${i}`),
          seed,
        );
        for (const { who, state, probes } of steps) {
          held.set(peers[who]!, state, 0, 0);
          const live = peers.filter((peer) => peer.state === 'alive' || peer.state === 'suspect');
          expect(held.liveCount).toBe(live.length);
          for (let i = 0; i < probes; i++) {
            const next = held.next();
            expect(next === undefined ? live : [next]).toEqual(
              next === undefined ? [] : live.filter((p) => p === next),
            );
          }
        }
        const live = peers.filter((peer) => peer.state === 'alive' || peer.state === 'suspect');
        const seen = new Set(Array.from({ length: 2 * live.length }, () => held.next()));
        expect(seen.size).toBe(live.length);
      }),
    );
  });

  it('draws different helpers, of those that are accepted', () => {
    const [held, peers] = table(['a', 'b', 'c', 'd', 'e'], 5);
    const [a] = peers;
    for (let i = 0; i < 50; i++) {
      const picked = held.pickLive(3, (peer) => peer !== a);
      expect(new Set(picked).size).toBe(3);
      expect(picked).not.toContain(a);
    }
    expect(held.pickLive(9, (peer) => peer === a)).toEqual([a]);
    expect(held.pickLive(9, () => false)).toEqual([]);
  });
});
