import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CLOCK_SKEW_MS_MAX, HybridClock, type Hlc } from '../../src/base/index.ts';
import { isLwwKey, LwwMap, lwwKey, lwwValue, parseLww, type LwwEntry } from '../../src/lattice/index.ts';
import { decodes, replicaId } from './support.ts';

const NOW = 1_000_000;
const hlc = (ms: number, counter = 0): Hlc =>
  (ms.toString(16).padStart(12, '0') + counter.toString(16).padStart(4, '0')) as Hlc;
const entry = (
  replica: number,
  version: number,
  ms: number,
  value = `${replica}.${version}`,
  key = 'k',
): LwwEntry<string> => ({
  map: 'limits',
  key,
  value,
  hlc: hlc(ms),
  replica: replicaId(replica),
  version,
});

/** Replicas whose clocks go up with their versions, some of them far ahead of ours. */
const entries = fc
  .array(fc.record({ replica: fc.nat(2), key: fc.constantFrom('a', 'b'), step: fc.nat(30_000) }), { maxLength: 12 })
  .map((writes) => {
    const versions = [0, 0, 0];
    const clocks = [NOW, NOW, NOW];
    return writes.map(({ replica, key, step }) =>
      entry(replica, ++versions[replica]!, (clocks[replica]! += step), undefined, key),
    );
  });
const disordered = entries.chain((all) =>
  fc.record({ all: fc.constant(all), order: fc.shuffledSubarray([...all, ...all], { minLength: all.length * 2 }) }),
);

const isDue = (each: LwwEntry<string>, nowMs: number) =>
  Number.parseInt(each.hlc.slice(0, 12), 16) <= nowMs + CLOCK_SKEW_MS_MAX;

/**
 * The definition: of each replica its newest version if the clock has reached it, else the newest that was not ahead when it
 * came (at `NOW`); of these the highest (hlc, replica).
 */
function naive(all: readonly LwwEntry<string>[], key: string, nowMs: number): LwwEntry<string> | undefined {
  const current: LwwEntry<string>[] = [];
  for (const replica of [0, 1, 2].map(replicaId)) {
    const versions = all
      .filter((each) => each.key === key && each.replica === replica)
      .sort((a, b) => b.version - a.version);
    const due = versions.find((each, i) => isDue(each, i === 0 ? nowMs : NOW));
    if (due !== undefined) current.push(due);
  }
  return current.sort((a, b) => (a.hlc + a.replica < b.hlc + b.replica ? 1 : -1))[0];
}

describe('the LWW map', () => {
  it('has the same winner in any order and with repeats, now and when the clock has moved on', () => {
    fc.assert(
      fc.property(disordered, fc.array(fc.nat(200_000)), ({ all, order }, waits) => {
        const map = new LwwMap<string>();
        for (const each of order) {
          const before = map.get(each.map, each.key);
          expect(map.fold(each, NOW)).toBe(map.get(each.map, each.key) !== before);
        }
        let now = NOW;
        for (const wait of [0, ...waits]) {
          now += wait;
          const before = new Map(['a', 'b'].map((key) => [key, map.get('limits', key)]));
          const changed = map.tick(now);
          for (const key of ['a', 'b']) {
            const winner = map.get('limits', key);
            expect(winner).toEqual(naive(all, key, now));
            if (winner !== before.get(key)) expect(changed).toContainEqual(winner);
          }
          expect([...map.entries('limits')]).toHaveLength(
            new Set(['a', 'b'].filter((key) => naive(all, key, now) !== undefined)).size,
          );
        }
        map.tick(NOW + 10_000_000);
        expect(map.quarantined).toBe(0);
      }),
    );
  });

  it('breaks a tie by the replica', () => {
    const map = new LwwMap<string>();
    map.fold(entry(2, 1, NOW), NOW);
    expect(map.fold(entry(1, 1, NOW), NOW)).toBe(false);
    expect(map.fold(entry(3, 1, NOW), NOW)).toBe(true);
    expect(map.get('limits', 'k')?.value).toBe('3.1');
    expect(map.get('other', 'k')).toBeUndefined();
  });

  it('follows a replica that takes its own word back, even with an older clock', () => {
    const map = new LwwMap<string>();
    map.fold(entry(1, 1, NOW + 50), NOW);
    map.fold(entry(2, 1, NOW + 40), NOW);
    expect(map.fold(entry(1, 2, NOW), NOW)).toBe(true);
    expect(map.get('limits', 'k')?.value).toBe('2.1');
  });

  it('quarantines what is ahead of the clock, one for each field and replica, until the clock gets there', () => {
    const map = new LwwMap<string>();
    const ahead = NOW + CLOCK_SKEW_MS_MAX + 1;
    map.fold(entry(1, 1, NOW), NOW);
    expect(map.fold(entry(2, 1, ahead), NOW)).toBe(false);
    expect(map.fold(entry(2, 2, ahead + 5), NOW)).toBe(false);
    expect(map.fold(entry(2, 1, ahead), NOW)).toBe(false);
    expect([map.quarantined, map.get('limits', 'k')?.value]).toEqual([1, '1.1']);
    expect(map.tick(NOW + 5)).toEqual([]);
    expect(map.tick(NOW + 6)).toEqual([entry(2, 2, ahead + 5)]);
    expect([map.quarantined, map.get('limits', 'k')?.value]).toEqual([0, '2.2']);
    expect(map.fold(entry(2, 1, ahead), NOW)).toBe(false);
    expect(map.quarantined).toBe(0);
  });

  it('lets a replica end its own quarantine', () => {
    const map = new LwwMap<string>();
    map.fold(entry(1, 1, NOW * 2), NOW);
    expect(map.fold(entry(1, 2, NOW), NOW)).toBe(true);
    expect([map.quarantined, map.tick(NOW * 3), map.get('limits', 'k')?.value]).toEqual([0, [], '1.2']);
  });
});

describe('the registers of LWW fields', () => {
  it('are parsed as they were written', () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[^/]{1,20}$/),
        fc.string({ minLength: 1 }),
        fc.jsonValue(),
        fc.nat(),
        (map, key, json, ms) => {
          const value = JSON.parse(JSON.stringify(json)) as null;
          const stamp = new HybridClock().now(ms + 1);
          const register = { key: lwwKey(map, key), version: 4, value: lwwValue(stamp, value) };
          expect(isLwwKey(register.key)).toBe(true);
          expect(parseLww(replicaId(1), register)).toEqual({
            map,
            key,
            value,
            hlc: stamp,
            replica: replicaId(1),
            version: 4,
          });
        },
      ),
    );
  });

  it('are refused when they are anything else', () => {
    const good = { key: 'lww/m/k', version: 1, value: lwwValue(hlc(1), 5) };
    expect(decodes(() => parseLww(replicaId(1), good))).not.toBeNull();
    for (const key of ['', 'lww', 'lww/', 'lww/m', 'lww/m/', 'lww//k', 'fact/m/k'])
      expect(decodes(() => parseLww(replicaId(1), { ...good, key }))).toBeNull();
    for (const value of ['', 'null', '5', '{}', '[]', '{"hlc":"0","value":1}', `{"hlc":"${hlc(1)}"}`, '{"value":1}'])
      expect(decodes(() => parseLww(replicaId(1), { ...good, value }))).toBeNull();
    fc.assert(
      fc.property(
        fc.string(),
        fc.json(),
        (key, value) => void decodes(() => parseLww(replicaId(1), { key: `lww/${key}`, version: 1, value })),
      ),
    );
    fc.assert(fc.property(fc.string(), (value) => void decodes(() => parseLww(replicaId(1), { ...good, value }))));
  });
});
