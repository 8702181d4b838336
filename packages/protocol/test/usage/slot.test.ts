import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromUtf8, utf8, WaggleError, type CustomerId, type ReplicaId, type Run } from '../../src/base/index.ts';
import { addUsage, DIMENSIONS, joinUsage, ZERO_USAGE, type Dimension, type Usage } from '../../src/lattice/index.ts';
import {
  addSlots,
  compareSlots,
  covers,
  encodeSlot,
  isSku,
  joinSlots,
  parseLines,
  parseSlot,
  SKUS,
  slotName,
  sortRows,
  subtractSlots,
  type Slot,
  type SlotId,
  type SlotRow,
} from '../../src/usage/index.ts';
import { nodeCrypto } from '../support.ts';
import { byteMutations, valueOr } from '../transparency/support.ts';

/** The dumb twin of a slot: a map from (customer, SKU) to its counts. */
type Twin = ReadonlyMap<string, Usage>;
const nameOf = (row: SlotRow): string => `${row.customer} ${row.sku}`;
const twinOf = (slot: Slot): Twin => new Map(slot.map((row) => [nameOf(row), row.usage]));
const merged = (a: Twin, b: Twin, merge: (x: Usage, y: Usage) => Usage): Twin =>
  new Map([...a.keys(), ...b.keys()].map((key) => [key, merge(a.get(key) ?? ZERO_USAGE, b.get(key) ?? ZERO_USAGE)]));
/** Without rows that say nothing: two slots that agree on this count the same. */
const counts = (slot: Slot): Twin =>
  new Map([...twinOf(slot)].filter(([, usage]) => DIMENSIONS.some((d) => usage[d] > 0)));

/** A usage with each figure from a function. */
const mapUsage = (figure: (dimension: Dimension) => number): Usage =>
  Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, figure(dimension)])) as unknown as Usage;

const usage = fc.array(fc.nat(5), { minLength: 7, maxLength: 7 }).map((figures) => {
  const left = [...figures];
  return mapUsage(() => left.pop()!);
});
const slots: fc.Arbitrary<Slot> = fc
  .uniqueArray(
    fc.record({
      // Capitals stand before small letters, '-' and '.' before digits: not the order of a locale.
      customer: fc.constantFrom('A', 'Z', 'a', 'a-b', 'a.b', 'a0', 'b').map((id) => id as CustomerId),
      sku: fc.constantFrom<string>('inspect', 'resize.png', 'resize.webp'),
      usage,
    }),
    { selector: nameOf, maxLength: 8 },
  )
  .map(sortRows);

describe('a slot', () => {
  it('is written as one canonical line for each row, zeros too, as sha256sum sees it', () => {
    const row = {
      customer: 'shop' as CustomerId,
      sku: 'resize.jpeg',
      usage: { ...ZERO_USAGE, requests: 3, bytesIn: 9 },
    };
    const text =
      '{"bytesIn":9,"bytesOut":0,"cpuMicros":0,"customer":"shop","pixelsIn":0,"pixelsOut":0,"requests":3,"requestsFailed":0,"sku":"resize.jpeg"}\n';
    expect(fromUtf8(encodeSlot([row]))).toBe(text);
    expect(encodeSlot([])).toEqual(new Uint8Array(0));
    expect(parseSlot(utf8(text))).toEqual([row]);
    expect(parseSlot(new Uint8Array(0))).toEqual([]);
  });

  it('comes back as it went', () => {
    fc.assert(
      fc.property(slots, (slot) => {
        expect(parseSlot(encodeSlot(slot))).toEqual(slot);
      }),
    );
  });

  it('has one form only', () => {
    const line = fromUtf8(encodeSlot([{ customer: 'b' as CustomerId, sku: 'inspect', usage: ZERO_USAGE }]));
    const other = line.replace('"b"', '"a"');
    expect(parseSlot(utf8(other + line))).toHaveLength(2);
    for (const text of [
      line + other, // order
      line + line, // a row twice
      line.slice(0, -1), // no line feed
      `${line}\n`, // an empty line
      `\n${line}`,
      line.replace('{', '{ '),
      line.replace('"inspect"', '"resize.tiff"'),
      line.replace('"inspect"', '7'),
      line.replace('"requests":0', '"requests":-1'),
      line.replace('"requests":0', '"requests":0.5'),
      line.replace('"requests":0', '"requests":9007199254740992'),
      line.replace('"requests":0,', ''),
      line.replace('"requests":0', '"requests":"0"'),
      line.replace('"b"', '"b c"'),
      line.replace('{', '{"aaa":0,'),
      '[]\n',
      'null\n',
      'x\n',
    ])
      expect(() => parseSlot(utf8(text)), text).toThrow(expect.objectContaining({ code: 'DECODE_FAILED' }));
  });

  it('is a slot or an error, whatever the bytes, and no two byte strings are one slot', () => {
    const good = encodeSlot([
      { customer: 'a' as CustomerId, sku: 'inspect', usage: ZERO_USAGE },
      { customer: 'b' as CustomerId, sku: 'inspect', usage: ZERO_USAGE },
    ]);
    fc.assert(
      fc.property(fc.oneof(byteMutations(good), fc.uint8Array(), fc.string().map(utf8)), (bytes) => {
        const slot = valueOr(['DECODE_FAILED'], () => parseSlot(bytes));
        if (slot !== undefined) expect(encodeSlot(slot)).toEqual(Uint8Array.from(bytes));
      }),
      { numRuns: 500 },
    );
  });

  it('joins and adds like its naive twin', () => {
    fc.assert(
      fc.property(slots, slots, (a, b) => {
        expect(twinOf(joinSlots(a, b))).toEqual(merged(twinOf(a), twinOf(b), joinUsage));
        expect(twinOf(addSlots(a, b))).toEqual(merged(twinOf(a), twinOf(b), addUsage));
        for (const slot of [joinSlots(a, b), addSlots(a, b)]) expect(parseSlot(encodeSlot(slot))).toEqual(slot);
      }),
    );
  });

  it('joins associatively, commutatively and idempotently; the sum is commutative and has a zero', () => {
    fc.assert(
      fc.property(slots, slots, slots, (a, b, c) => {
        expect(joinSlots(joinSlots(a, b), c)).toEqual(joinSlots(a, joinSlots(b, c)));
        expect(joinSlots(a, b)).toEqual(joinSlots(b, a));
        expect(joinSlots(a, a)).toEqual(a);
        expect(addSlots(addSlots(a, b), c)).toEqual(addSlots(a, addSlots(b, c)));
        expect(addSlots(a, b)).toEqual(addSlots(b, a));
        expect(addSlots(a, [])).toEqual(a);
      }),
    );
  });

  it('covers what it joined, and subtracting gives back what was added', () => {
    fc.assert(
      fc.property(slots, slots, (a, b) => {
        expect(covers(joinSlots(a, b), a)).toBe(true);
        expect(covers(a, b)).toBe(
          [...twinOf(b)].every(([name, figures]) => {
            const held = twinOf(a).get(name);
            return held !== undefined && DIMENSIONS.every((dimension) => held[dimension] >= figures[dimension]);
          }),
        );
        expect(counts(subtractSlots(addSlots(a, b), b))).toEqual(counts(a));
        expect(subtractSlots(a, a)).toEqual([]);
        if (!covers(a, b) && counts(subtractable(a, b)).size > 0)
          expect(() => subtractSlots(a, b)).toThrow('a whole number');
      }),
    );
  });

  it('adds up to 2^53 - 1 at most', () => {
    const row = (requests: number): Slot => [
      { customer: 'a' as CustomerId, sku: 'inspect', usage: { ...ZERO_USAGE, requests } },
    ];
    expect(addSlots(row(Number.MAX_SAFE_INTEGER - 1), row(2))).toEqual(row(Number.MAX_SAFE_INTEGER));
  });
});

/** The figures in which `b` is above `a`. */
const subtractable = (a: Slot, b: Slot): Slot =>
  b.map((row) => {
    const held = twinOf(a).get(nameOf(row)) ?? ZERO_USAGE;
    return { ...row, usage: mapUsage((dimension) => Math.max(0, row.usage[dimension] - held[dimension])) };
  });

describe('slots', () => {
  it('stand in the order of epoch, replica, run', () => {
    const id = (replica: string, run: number, epoch: number): SlotId => ({
      replica: replica.repeat(32) as ReplicaId,
      run: run as Run,
      epoch,
    });
    const sorted = [id('a', 2, 0), id('a', 10, 0), id('b', 1, 0), id('a', 1, 9), id('a', 1, 10)];
    expect([...sorted].reverse().sort(compareSlots)).toEqual(sorted);
    expect(slotName(id('a', 10, 3))).toBe(`${'a'.repeat(32)}-10-3`);
  });

  it('have categories of a fixed list, sorted, at most 64', () => {
    expect([...SKUS].sort()).toEqual([...SKUS]);
    expect(SKUS.length).toBeLessThanOrEqual(64);
    expect(SKUS.every(isSku)).toBe(true);
    expect(isSku('constructor')).toBe(false);
  });

  it('are told by their digest', () => {
    const row = { customer: 'a' as CustomerId, sku: 'inspect', usage: ZERO_USAGE };
    expect(nodeCrypto.sha256(encodeSlot([row]))).not.toEqual(nodeCrypto.sha256(encodeSlot([])));
  });
});

describe('JSON lines', () => {
  it('are objects, each ended by a line feed', () => {
    const read = (text: string): unknown => parseLines(utf8(text), 'it', (value) => value);
    expect(read('{"a":1}\n{}\n')).toEqual([{ a: 1 }, {}]);
    for (const text of ['{}', '{}\n\n', '[]\n', '1\n', '{"b":1,"a":1}\n', '{}\r\n'])
      expect(() => read(text), text).toThrow(WaggleError);
  });
});
