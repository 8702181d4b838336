import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Registers, type Delta } from '../../src/lattice/index.ts';
import { nodeCrypto } from '../support.ts';
import { decodes, type Note } from './support.ts';

const create = (keysMax = 1_000) =>
  new Registers<Note, string>({ keysMax, equal: (a, b) => a.key === b.key && a.value === b.value });
const note = (key: string, version: number, value = `${key}@${version}`): Note => ({ key, version, value });
const delta = (from: number, to: number, registers: Note[], end = to): Delta<Note, string> => ({
  writer: 'w',
  from,
  to,
  end,
  registers,
});
const held = (registers: Registers<Note, string>, writer = 'w') => [...registers.of(writer)].map(({ value }) => value);
/** One at a time, as a rumor brings them. */
const single = (register: Note) => delta(register.version - 1, register.version, [register]);
const ONE = (): number => 1;

/** A writer's history: the keys it writes, version after version. */
const history = fc
  .array(fc.constantFrom('a', 'b', 'c', 'd', 'e'), { maxLength: 30 })
  .map((keys) => keys.map((key, i) => note(key, i + 1)));

/** The naive twin: a map, where the higher version wins. */
function naive(registers: Iterable<Note>): Map<string, Note> {
  const map = new Map<string, Note>();
  for (const register of registers)
    if ((map.get(register.key)?.version ?? 0) < register.version) map.set(register.key, register);
  return map;
}
const contents = (registers: Registers<Note, string>, writer = 'w') => naive(registers.of(writer));

describe('join', () => {
  it('is associative, commutative, idempotent and monotone: the naive twin in any order, with repeats', () => {
    const shuffled = history.chain((registers) =>
      fc.record({ registers: fc.constant(registers), order: fc.shuffledSubarray([...registers, ...registers]) }),
    );
    fc.assert(
      fc.property(shuffled, ({ order }) => {
        const registers = create();
        const seen: Note[] = [];
        for (const register of order) {
          const before = naive(seen);
          const { changed, conflicts } = registers.join(single(register));
          seen.push(register);
          const isNew = (before.get(register.key)?.version ?? 0) < register.version;
          expect(changed).toEqual(isNew ? [{ register, previous: before.get(register.key) }] : []);
          expect(conflicts).toEqual([]);
          expect(contents(registers)).toEqual(naive(seen));
          expect(registers.get('w', register.key)).toEqual(naive(seen).get(register.key));
        }
        const versions = new Set(seen.map(({ version }) => version));
        let upTo = 0;
        while (versions.has(upTo + 1)) upTo++;
        expect(registers.upTo('w')).toBe(upTo);
        expect(registers.pendingVersions('w')).toEqual([...versions].filter((v) => v > upTo).sort((a, b) => a - b));
      }),
    );
  });

  it('reports what is really new, in version order, with what it replaces', () => {
    const registers = create();
    registers.join(delta(0, 2, [note('a', 1), note('b', 2)]));
    const { changed } = registers.join(delta(1, 4, [note('b', 2), note('c', 3), note('a', 4)]));
    expect(changed).toEqual([
      { register: note('c', 3), previous: undefined },
      { register: note('a', 4), previous: note('a', 1) },
    ]);
  });

  it('keeps the first of two registers under one version, and reports the other', () => {
    const registers = create();
    registers.join(delta(0, 1, [note('a', 1)]));
    registers.join(single(note('b', 5)));
    for (const rival of [note('a', 1, 'x'), note('z', 1), note('b', 5, 'x')]) {
      const { conflicts, changed } = registers.join(single(rival));
      expect(conflicts).toEqual([{ held: note(rival.version === 1 ? 'a' : 'b', rival.version), received: rival }]);
      expect(changed).toEqual([]);
    }
    expect(held(registers)).toEqual(['a@1', 'b@5']);
  });

  it('refuses ranges out of order, before anything changes', () => {
    const registers = create();
    registers.join(single(note('a', 1)));
    const before = registers.digest(nodeCrypto);
    const bad = [
      delta(3, 2, []),
      delta(1, 3, [], 2),
      delta(-1, 2, []),
      delta(0, 1.5, []),
      delta(0, 2 ** 53, []),
      delta(1, 3, [note('b', 3), note('c', 2)]),
      delta(1, 3, [note('b', 2), note('c', 2)]),
      delta(1, 3, [note('b', 1)]),
      delta(1, 3, [note('b', 4)]),
      delta(1, 3, [note('b', Number.NaN)]),
    ];
    for (const each of bad) expect(decodes(() => registers.join(each))).toBeNull();
    expect(registers.digest(nodeCrypto)).toBe(before);
  });

  it('refuses more keys than a writer may have, before anything changes, and counts pending ones', () => {
    const registers = create(3);
    registers.join(delta(0, 2, [note('a', 1), note('b', 2)]));
    registers.join(single(note('b', 5)));
    expect(registers.room('w')).toBe(1);
    expect(decodes(() => registers.join(delta(2, 4, [note('c', 3), note('d', 4)])))).toBeNull();
    expect(held(registers)).toEqual(['a@1', 'b@5']);
    registers.join(single(note('c', 7)));
    expect(registers.room('w')).toBe(0);
    registers.join(delta(2, 9, [note('b', 5), note('c', 8), note('a', 9)]));
    expect(registers.room('w')).toBe(0);
    registers.drop('w', ['a']);
    expect(registers.room('w')).toBe(1);
    expect(
      decodes(() =>
        registers.join({
          ...delta(
            0,
            4,
            ['p', 'q', 'r', 's'].map((key, i) => note(key, i + 1)),
          ),
          writer: 'x',
        }),
      ),
    ).toBeNull();
    expect(registers.writers()).toEqual(['w']);
  });

  it('knows what it holds of a writer in bytes, in any order, with repeats, drops and a restore', () => {
    const sizeOf = ({ value }: Note): number => value.length;
    const sized = () => new Registers<Note, string>({ keysMax: 100, sizeOf, equal: () => true });
    const sum = (registers: Registers<Note, string>): number =>
      [...registers.of('w')].reduce((bytes, register) => bytes + sizeOf(register), 0);
    const steps = history.chain((registers) =>
      fc.record({
        all: fc.constant(registers),
        order: fc.shuffledSubarray([...registers, ...registers]),
        drops: fc.array(fc.tuple(fc.nat(60), fc.constantFrom('a', 'b', 'c'))),
      }),
    );
    fc.assert(
      fc.property(steps, ({ all, order, drops }) => {
        const registers = sized();
        order.forEach((register, i) => {
          registers.join(single({ ...register, value: 'x'.repeat(1 + register.version) }));
          for (const [at, key] of drops) if (at === i) registers.drop('w', [key]);
          expect(registers.bytes('w')).toBeGreaterThanOrEqual(sum(registers));
          if (registers.pendingVersions('w').length === 0) expect(registers.bytes('w')).toBe(sum(registers));
        });
        for (const register of all) registers.join(single({ ...register, value: 'y'.repeat(40) }));
        expect(registers.bytes('w')).toBe(sum(registers));
        const restored = sized();
        for (const register of registers.of('w')) restored.restore('w', register);
        restored.restored([['w', registers.upTo('w') - 1]]);
        expect(restored.bytes('w')).toBe(sum(registers));
      }),
    );
  });

  it('refuses more bytes than a writer may have, of one key too, before anything changes, and lets go of what was overwritten', () => {
    const sizeOf = ({ value }: Note): number => value.length;
    const registers = new Registers<Note, string>({ keysMax: 100, bytesMax: 64, sizeOf, equal: () => true });
    const large = (version: number): Note => note('a', version, 'x'.repeat(20));
    for (const version of [9, 7, 5]) registers.join(single(large(version)));
    const before = registers.digest(nodeCrypto);
    expect(decodes(() => registers.join(single(large(3))))).toBeNull();
    expect(registers.digest(nodeCrypto)).toBe(before);
    expect(registers.bytes('w')).toBe(60);
    registers.join(delta(0, 9, [large(9)]));
    expect(registers.bytes('w')).toBe(20);
    for (let version = 10; version < 50; version++) registers.join(single(large(version)));
    expect(registers.bytes('w')).toBe(20);
  });

  it('bounds what is pending of one key', () => {
    const registers = create(4);
    for (let version = 2; version < 100; version += 2) registers.join(single(note('a', version)));
    expect(registers.pendingVersions('w').length).toBeLessThanOrEqual(8);
    expect(registers.get('w', 'a')).toEqual(note('a', 98));
    // A catch-up that lost something to the bound has to be started over.
    registers.join(delta(0, 10, [note('a', 5), note('b', 10)], 20));
    expect(registers.wanted('w')).toBe(10);
    for (let version = 101; version < 120; version += 2) registers.join(single(note('a', version)));
    expect(registers.wanted('w')).toBe(0);
    registers.join(delta(0, 119, [note('b', 10), note('a', 119)]));
    expect(registers.upTo('w')).toBe(119);
    expect(registers.pendingVersions('w')).toEqual([]);
  });
});

describe('the version vector (invariant 12)', () => {
  it('waits for the predecessors of what is pending, and says what is missing', () => {
    const registers = create();
    expect(registers.join(single(note('b', 4))).missing).toEqual({ from: 0, to: 3 });
    expect(registers.join(single(note('a', 1))).missing).toEqual({ from: 1, to: 3 });
    expect([registers.upTo('w'), registers.pendingVersions('w')]).toEqual([1, [4]]);
    expect(registers.join(delta(1, 3, [note('c', 3)])).missing).toBeNull();
    expect([registers.upTo('w'), registers.pendingVersions('w')]).toEqual([4, []]);
    expect(held(registers)).toEqual(['a@1', 'c@3', 'b@4']);
  });

  it('does not advance by a cut delta before the rest is there, wherever it comes from', () => {
    const [whole, half, late] = [create(), create(), create()];
    half.apply('w', [note('k', 1), note('j', 2)]);
    whole.apply('w', [note('k', 1), note('j', 2), note('k', 3)]);
    const cut = whole.delta('w', 0, 1, ONE)!;
    expect(cut).toEqual(delta(0, 2, [note('j', 2)], 3));
    expect(late.join(cut).missing).toEqual({ from: 2, to: 3 });
    // k@1 was left out: to say "up to 2" would claim it.
    expect(late.upTo('w')).toBe(0);
    expect(late.digest(nodeCrypto)).not.toBe(half.digest(nodeCrypto));
    expect(late.wanted('w')).toBe(2);
    late.join(whole.delta('w', 2, 1, ONE)!);
    expect(late.digest(nodeCrypto)).toBe(whole.digest(nodeCrypto));
  });

  it('can be healed by a node that has less, when the one with more is gone', () => {
    const [whole, half, late] = [create(), create(), create()];
    half.apply('w', [note('k', 1), note('j', 2)]);
    whole.apply('w', [note('k', 1), note('j', 2), note('k', 3)]);
    late.join(whole.delta('w', 0, 1, ONE)!);
    expect(half.delta('w', late.wanted('w'), 1, ONE)).toBeNull();
    late.restart('w');
    late.join(half.delta('w', 0, 1, ONE)!);
    expect(late.digest(nodeCrypto)).toBe(half.digest(nodeCrypto));
    expect(contents(late)).toEqual(contents(half));
  });

  it('takes its own writes as the next versions only', () => {
    const registers = create();
    expect(registers.apply('w', [note('a', 1), note('a', 2)])).toEqual([
      { register: note('a', 1), previous: undefined },
      { register: note('a', 2), previous: note('a', 1) },
    ]);
    expect(() => registers.apply('w', [note('b', 2)])).toThrow('next version');
    expect(() => registers.apply('w', [note('b', 4)])).toThrow('next version');
    registers.join(single(note('b', 4)));
    expect(() => registers.apply('w', [note('c', 3)])).toThrow('missing');
    expect(() => create(1).apply('w', [note('a', 1), note('b', 2)])).toThrow('bound');
  });
});

describe('delta', () => {
  it('is a prefix in version order, cut at the budget but never empty by it, without what was overwritten', () => {
    fc.assert(
      fc.property(history, fc.nat(35), fc.nat(6), (writes, from, budget) => {
        const registers = create();
        registers.apply('w', writes);
        const got = registers.delta('w', from, budget, ONE);
        if (from >= writes.length) {
          expect(got).toBeNull();
          return;
        }
        const live = [...naive(writes).values()]
          .filter(({ version }) => version > from)
          .sort((a, b) => a.version - b.version);
        const sent = live.slice(0, Math.max(budget, 1));
        expect(got!.registers).toEqual(sent);
        expect(got!.to).toBe(sent.length < live.length ? live[sent.length]!.version - 1 : writes.length);
        expect(got!.end).toBe(writes.length);
      }),
    );
  });

  it('leaves pending registers out: each goes as a delta of its own', () => {
    const registers = create();
    registers.join(delta(0, 2, [note('a', 1), note('b', 2)]));
    registers.join(single(note('a', 4)));
    expect(registers.delta('w', 0, 9, ONE)).toEqual(delta(0, 2, [note('a', 1), note('b', 2)]));
    expect(registers.pendingDelta('w', 4)).toEqual(single(note('a', 4)));
    expect([registers.pendingDelta('w', 2), registers.pendingDelta('w', 3), registers.pendingDelta('x', 1)]).toEqual([
      null,
      null,
      null,
    ]);
    expect(held(registers)).toEqual(['b@2', 'a@4']);
  });

  it('stays right over many overwrites and compactions of the log', () => {
    const registers = create();
    for (let version = 1; version <= 5_000; version++)
      registers.apply('w', [note(`k${(version * 7919) % 50}`, version)]);
    const all = registers.delta('w', 0, 1_000, ONE)!;
    expect(all.registers.map(({ version }) => version)).toEqual(Array.from({ length: 50 }, (_, i) => 4_951 + i));
    expect(registers.delta('w', 4_990, 1_000, ONE)!.registers).toHaveLength(10);
  });
});

describe('drop, forget, restore', () => {
  it('drops keys, keeps the vector, and does not take the dropped back', () => {
    const registers = create();
    registers.join(delta(0, 2, [note('a', 1), note('b', 2)]));
    registers.join(single(note('c', 5)));
    expect(registers.drop('w', ['a', 'c', 'z'])).toBe(2);
    expect(registers.room('w')).toBe(999);
    expect(registers.drop('x', ['a'])).toBe(0);
    expect([held(registers), registers.upTo('w'), registers.pendingVersions('w')]).toEqual([['b@2'], 2, []]);
    expect(registers.join(delta(0, 2, [note('a', 1), note('b', 2)])).changed).toEqual([]);
    expect(registers.join(single(note('a', 3))).changed).toEqual([{ register: note('a', 3), previous: undefined }]);
    expect(registers.delta('w', 0, 9, ONE)!.registers).toEqual([note('b', 2), note('a', 3)]);
  });

  it('forgets a writer as if it had never been', () => {
    const [registers, other] = [create(), create()];
    registers.apply('w', [note('a', 1)]);
    registers.forget('w');
    expect(registers.digest(nodeCrypto)).toBe(other.digest(nodeCrypto));
    expect([registers.writers(), registers.upTo('w'), held(registers)]).toEqual([[], 0, []]);
  });

  it('is after a restore what it was before, whatever the order', () => {
    const shuffled = history.chain((writes) =>
      fc.record({
        writes: fc.constant(writes),
        order: fc.shuffledSubarray([...naive(writes).values()], { minLength: naive(writes).size }),
      }),
    );
    fc.assert(
      fc.property(shuffled, ({ writes, order }) => {
        const [before, after] = [create(), create()];
        before.apply('w', writes);
        for (const register of order) after.restore('w', register);
        after.restored(before.vector());
        expect(after.digest(nodeCrypto)).toBe(before.digest(nodeCrypto));
        expect(held(after)).toEqual(held(before));
        const next = note('a', writes.length + 1);
        after.apply('w', [next]);
        expect(after.delta('w', 0, 99, ONE)).toEqual(before.apply('w', [next]) && before.delta('w', 0, 99, ONE));
      }),
    );
  });

  it('claims nothing after a restore from a disk that may have lost something to a register beyond the vector', () => {
    const registers = create();
    // The disk has one register per key: k@1 went for k@5, which came before 3 and 4.
    for (const register of [note('k', 5), note('j', 2)]) registers.restore('w', register);
    registers.restored([['w', 2]]);
    expect([registers.upTo('w'), registers.pendingVersions('w'), registers.missing('w')]).toEqual([
      0,
      [2, 5],
      { from: 0, to: 1 },
    ]);
    expect(held(registers)).toEqual(['j@2', 'k@5']);
    expect(() => registers.apply('w', [note('x', 1)])).toThrow('missing');
    registers.join(delta(0, 4, [note('k', 1), note('j', 2), note('i', 4)]));
    expect([registers.upTo('w'), registers.pendingVersions('w'), held(registers)]).toEqual([
      5,
      [],
      ['j@2', 'i@4', 'k@5'],
    ]);
  });

  it('finds the prefix in what it restores beyond the vector', () => {
    const registers = create();
    for (const version of [5, 2, 1]) registers.restore('w', note(`k${version}`, version));
    registers.restored([]);
    expect([registers.upTo('w'), registers.pendingVersions('w'), registers.missing('w')]).toEqual([
      2,
      [5],
      { from: 2, to: 4 },
    ]);
  });

  it('restores each key once', () => {
    const registers = create();
    registers.restore('w', note('a', 1));
    expect(() => registers.restore('w', note('a', 2))).toThrow('one register per key');
  });

  it('orders versions however far apart', () => {
    const registers = create();
    const versions = [2 ** 40, 7, 2 ** 52, 3];
    for (const version of versions) registers.restore('w', note(`k${version}`, version));
    registers.restored([['w', 2 ** 52]]);
    expect([...registers.of('w')].map(({ version }) => version)).toEqual([3, 7, 2 ** 40, 2 ** 52]);
  });
});
