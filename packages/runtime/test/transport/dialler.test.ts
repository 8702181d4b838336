import { describe, expect, it } from 'vitest';
import { seededRandom } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import type { Cancel, Clock } from '../../src/clock.ts';
import { Dialler } from '../../src/transport/dialler.ts';
import { JoinGate } from '../../src/transport/gate.ts';
import type { Address } from '../../src/transport/index.ts';

/** Time that only goes on when it is told to. */
class VirtualClock implements Clock {
  #nowMs = 0;
  #timers: { atMs: number; fn: () => void }[] = [];
  nowMs = (): number => this.#nowMs;
  monotonicMs = (): number => this.#nowMs;
  after(ms: number, fn: () => void): Cancel {
    const timer = { atMs: this.#nowMs + ms, fn };
    this.#timers.push(timer);
    return () => (this.#timers = this.#timers.filter((other) => other !== timer));
  }
  run(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (;;) {
      const [next] = this.#timers.filter(({ atMs }) => atMs <= endMs).sort((a, b) => a.atMs - b.atMs);
      if (next === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.#nowMs = next.atMs;
      next.fn();
    }
    this.#nowMs = endMs;
  }
}

const key = (n: number): MemberKey => `key-${n}` as MemberKey;
const at = (port: number): Address => ({ host: '10.0.0.1', port });

function setUp(self = 'zzz') {
  const clock = new VirtualClock();
  const linked = new Set<MemberKey>();
  const dials: { key: MemberKey; port: number; atMs: number; done: () => void }[] = [];
  const dialler = new Dialler({
    self: self as MemberKey,
    clock,
    random: seededRandom(1),
    isLinked: (member) => linked.has(member),
    dial: (member, { port }, done) => void dials.push({ key: member, port, atMs: clock.nowMs(), done }),
  });
  return { clock, linked, dials, dialler };
}

describe('the dialler', () => {
  it('dials everyone who has an address and no link, four at once', () => {
    const { clock, dials, dialler, linked } = setUp();
    linked.add(key(0));
    const members = Array.from({ length: 8 }, (_, n) => [key(n), n === 1 ? [] : [at(n)]] as const);
    dialler.setTargets(new Map(members));
    clock.run(1_000);
    expect(dials).toHaveLength(4);
    for (const dial of dials.slice(0, 4)) dial.done();
    clock.run(1);
    expect(dials.length).toBeGreaterThanOrEqual(6);
    expect(new Set(dials.map((dial) => dial.key))).toEqual(new Set([2, 3, 4, 5, 6, 7].map(key)));
  });

  it('waits longer after every failure, half a minute at most, and tries each address', () => {
    const { clock, dials, dialler } = setUp();
    dialler.setTargets(new Map([[key(1), [at(1), at(2)]]]));
    dialler.found(key(1), [at(3)]);
    const waits: number[] = [];
    for (let n = 1; n < 15; n++) {
      clock.run(60_000);
      expect(dials).toHaveLength(n);
      const beforeMs = clock.nowMs();
      dials.at(-1)!.done();
      clock.run(60_000);
      waits.push(dials.at(-1)!.atMs - beforeMs);
      expect(dials).toHaveLength(n + 1);
    }
    for (const [n, wait] of waits.entries()) {
      const most = Math.min(30_000, 250 * 2 ** n);
      expect(wait).toBeGreaterThanOrEqual(most / 2);
      expect(wait).toBeLessThan(most);
    }
    expect(dials.slice(0, 6).map(({ port }) => port)).toEqual([1, 2, 3, 1, 2, 3]);
  });

  it('starts over with a link, a new address or a new member', () => {
    const { clock, dials, dialler, linked } = setUp();
    dialler.setTargets(new Map([[key(1), [at(1)]]]));
    for (let n = 1; n <= 8; n++) {
      clock.run(60_000);
      if (n < 8) dials.at(-1)!.done();
    }
    linked.add(key(1));
    dialler.connected(key(1));
    dials.at(-1)!.done();
    clock.run(60_000);
    expect(dials).toHaveLength(8);
    linked.delete(key(1));
    dialler.disconnected(key(1));
    clock.run(200);
    expect(dials).toHaveLength(9);
    dials.at(-1)!.done();
    dialler.setTargets(new Map([[key(1), [at(2)]]]));
    expect(dials.at(-1)).toMatchObject({ port: 2 });
    dialler.setTargets(new Map());
    dials.at(-1)!.done();
    dialler.found(key(1), [at(5)]);
    clock.run(60_000);
    expect(dials).toHaveLength(10);
  });

  it('dials whom it failed least before the others', () => {
    const { clock, dials, dialler } = setUp();
    const dead = new Map(Array.from({ length: 6 }, (_, n) => [key(n), [at(1)]] as const));
    dialler.setTargets(dead);
    for (let n = 0; n < 40; n++) {
      clock.run(5_000);
      dials.at(n)?.done();
    }
    clock.run(60_000);
    const open = dials.length;
    dialler.setTargets(new Map([...dead, [key(9), [at(9)]]]));
    clock.run(500);
    expect(dials).toHaveLength(open);
    dials.at(-1)!.done();
    expect(dials.at(-1)!.key).toBe(key(9));
  });

  it('gives the greater key a head start', () => {
    const [greater, smaller] = [setUp('zzz'), setUp('aaa')];
    for (const { clock, dialler } of [greater, smaller]) {
      dialler.setTargets(new Map([[key(1), [at(1)]]]));
      clock.run(1_000);
    }
    expect(greater.dials[0]!.atMs).toBeLessThan(100);
    expect(smaller.dials[0]!.atMs).toBeGreaterThanOrEqual(200);
  });

  it('dials nobody once stopped', () => {
    const { clock, dials, dialler } = setUp();
    dialler.setTargets(new Map([[key(1), [at(1)]]]));
    clock.run(1_000);
    dialler.stop();
    dials[0]!.done();
    dialler.found(key(1), [at(2)]);
    clock.run(60_000);
    expect(dials).toHaveLength(1);
  });
});

describe('the gate for strangers', () => {
  it('lets thirty-two of one source and sixty-four of all through in ten seconds', () => {
    const gate = new JoinGate();
    const admitted = (host: string, nowMs: number): number =>
      Array.from({ length: 100 }, () => gate.admits(host, nowMs)).filter(Boolean).length;
    expect(admitted('a', 0)).toBe(32);
    expect(Array.from({ length: 20 }, (_, n) => admitted(`b${n}`, 9_999)).reduce((sum, n) => sum + n)).toBe(32);
    expect(admitted('c', 9_999)).toBe(0);
    expect([admitted('c', 10_000), admitted('a', 10_000)]).toEqual([32, 32]);
  });
});
