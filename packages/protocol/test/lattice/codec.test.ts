import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, utf8 } from '../../src/base/index.ts';
import {
  CONTROL_KEY_BYTES_MAX,
  CONTROL_VALUE_BYTES_MAX,
  controlRegisterBytes,
  decodeControlDelta,
  decodeUsageDelta,
  DELTA_BYTES_MAX,
  DIMENSIONS,
  encodeControlDelta,
  encodeUsageDelta,
  equalUsageRow,
  MESSAGE_BYTES_MAX,
  Registers,
  usageRowSizer,
  ZERO_USAGE,
  type ControlDelta,
  type UsageDelta,
  type UsageRow,
  type WriterId,
} from '../../src/lattice/index.ts';
import { decodes, mutate, mutation, replicaId, usage, usageRow, writerId } from './support.ts';

/** `(from, to]` and `end` around versions that start at 1 and go up by steps. */
const span = fc.record({ from: count(), beyond: count(), end: count() });
function count() {
  return fc.oneof(fc.nat(300), fc.nat(2 ** 31));
}
function around<R extends { version: number }>(
  { from, beyond, end }: { from: number; beyond: number; end: number },
  registers: R[],
) {
  const moved = registers.map((register) => ({ ...register, version: from + register.version }));
  const to = (moved.at(-1)?.version ?? from) + beyond;
  return { from, to, end: to + end, registers: moved };
}
/** Gives items the versions 1 + step, and so on up. */
function versioned<T>(items: readonly (T & { readonly step: number })[]): (T & { version: number })[] {
  let version = 0;
  return items.map(({ step, ...rest }) => ({ ...(rest as T), version: (version += 1 + step) }));
}

const text = (bytesMax: number) => fc.string({ unit: 'binary', minLength: 1, maxLength: Math.floor(bytesMax / 4) });
const controlDelta: fc.Arbitrary<ControlDelta> = fc
  .tuple(
    fc.nat(1_000),
    span,
    fc.array(
      fc.record({
        step: fc.nat(3),
        key: text(CONTROL_KEY_BYTES_MAX),
        value: text(400),
        signature: fc.uint8Array({ minLength: 64, maxLength: 64 }).map((bytes) => base64.encode(bytes)),
      }),
      { maxLength: 8 },
    ),
  )
  .map(([replica, bounds, items]) => ({ writer: replicaId(replica), ...around(bounds, versioned(items)) }));

const usageDelta: fc.Arbitrary<UsageDelta> = fc
  .tuple(
    fc.nat(1_000),
    fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    span,
    fc.uniqueArray(
      fc.record({
        step: fc.nat(3),
        epoch: fc.oneof(fc.nat(3), fc.maxSafeNat()),
        customer: fc.constantFrom('acme', 'b', 'C.1', 'x'.repeat(64)),
        sku: fc.constantFrom('resize.jpeg', 'resize.avif', 'inspect'),
        usage,
      }),
      { maxLength: 12, selector: ({ epoch, customer, sku }) => `${epoch}/${customer}/${sku}` },
    ),
  )
  .map(([replica, run, bounds, items]) => {
    const rows = versioned(items).map((row) => usageRow(row.version, row.epoch, row.customer, row.sku, row.usage));
    return { writer: writerId(replica, run), ...around(bounds, rows) };
  });

const codecs = [
  {
    name: 'control',
    delta: controlDelta as fc.Arbitrary<unknown>,
    encode: encodeControlDelta as (d: never) => Uint8Array,
    decode: decodeControlDelta,
  },
  {
    name: 'usage',
    delta: usageDelta as fc.Arbitrary<unknown>,
    encode: encodeUsageDelta as (d: never) => Uint8Array,
    decode: decodeUsageDelta,
  },
];

describe.each(codecs)('the $name codec', ({ delta, encode, decode }) => {
  it('gives back what went in', () => {
    fc.assert(
      fc.property(delta, (value) => {
        expect(decode(encode(value as never))).toEqual(value);
      }),
    );
  });

  it('refuses arbitrary bytes, with DECODE_FAILED and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void decodes(() => decode(bytes))),
      { numRuns: 2_000 },
    );
    const head = encode({
      writer: decode === decodeControlDelta ? replicaId(1) : writerId(1),
      from: 0,
      to: 0,
      end: 0,
      registers: [],
    } as never);
    const tail = fc.uint8Array({ maxLength: 300 });
    fc.assert(
      fc.property(fc.nat(6), tail, (keep, bytes) => {
        decodes(() => decode(Uint8Array.from([...head.subarray(0, head.length - keep), ...bytes])));
      }),
      { numRuns: 2_000 },
    );
  });

  it('has one text for every value: what a changed message decodes to encodes to that message', () => {
    fc.assert(
      fc.property(delta, fc.array(mutation, { minLength: 1, maxLength: 3 }), (value, changes) => {
        const bytes = changes.reduce(mutate, encode(value as never));
        const decoded = decodes(() => decode(bytes));
        if (decoded !== null) expect(encode(decoded as never)).toEqual(bytes);
      }),
      { numRuns: 2_000 },
    );
  });

  it('refuses every cut of a message, and anything behind it', () => {
    fc.assert(
      fc.property(delta, (value) => {
        const bytes = encode(value as never);
        for (let length = 0; length < bytes.length; length++)
          expect(decodes(() => decode(bytes.subarray(0, length)))).toBeNull();
        expect(decodes(() => decode(Uint8Array.from([...bytes, 0])))).toBeNull();
      }),
      { numRuns: 20 },
    );
  });

  it('refuses messages above the bound', () => {
    expect(decodes(() => decode(new Uint8Array(MESSAGE_BYTES_MAX + 1)))).toBeNull();
  });
});

describe('bounds of the control codec', () => {
  const register = (key: string, value: string) => ({
    key,
    version: 1,
    value,
    signature: base64.encode(new Uint8Array(64)),
  });
  const delta = (key: string, value: string): ControlDelta => ({
    writer: replicaId(1),
    from: 0,
    to: 1,
    end: 1,
    registers: [register(key, value)],
  });

  it('takes the largest register in one message, and none that is larger', () => {
    const largest = delta('k'.repeat(CONTROL_KEY_BYTES_MAX), 'v'.repeat(CONTROL_VALUE_BYTES_MAX));
    expect(decodeControlDelta(encodeControlDelta(largest))).toEqual(largest);
    for (const bad of [
      delta('', 'v'),
      delta('k', ''),
      delta('é'.repeat(129), 'v'),
      delta('k', 'v'.repeat(CONTROL_VALUE_BYTES_MAX + 1)),
    ])
      expect(decodes(() => encodeControlDelta(bad))).toBeNull();
    const short = {
      ...delta('k', 'v'),
      registers: [{ ...register('k', 'v'), signature: base64.encode(new Uint8Array(63)) }],
    };
    expect(decodes(() => encodeControlDelta(short))).toBeNull();
  });

  it('knows the bytes of a register, at most', () => {
    fc.assert(
      fc.property(controlDelta, (value) => {
        const empty = encodeControlDelta({ ...value, registers: [] }).length;
        const bound = value.registers.reduce((sum, each) => sum + controlRegisterBytes(each), 0);
        expect(encodeControlDelta(value).length - empty).toBeLessThanOrEqual(bound + 2);
      }),
    );
  });
});

describe('the usage codec with many rows', () => {
  const writer = writerId(1);
  const rows = (length: number, customers: number): UsageRow[] =>
    Array.from({ length }, (_, i) => {
      const requests = 1 + (i % 3);
      return usageRow(i + 1, 500_000 + Math.floor(i / customers), `cust-${(i * 7919) % customers}`, 'resize.jpeg', {
        requests,
        requestsFailed: 0,
        bytesIn: requests * 180_000 + i,
        bytesOut: requests * 15_000 + i,
        pixelsIn: requests * 2_000_000,
        pixelsOut: requests * 90_000,
        cpuMicros: requests * 12_000 + (i % 997),
      });
    });
  const registers = (all: readonly UsageRow[]) => {
    const lattice = new Registers<UsageRow, WriterId>({ keysMax: 100_000, equal: equalUsageRow });
    lattice.apply(writer, all);
    return lattice;
  };

  it('takes about twenty bytes a row, dictionary included', () => {
    const delta = registers(rows(3_000, 100)).delta(writer, 0, DELTA_BYTES_MAX, usageRowSizer())!;
    expect(delta.registers.length).toBeGreaterThan(2_000);
    expect(encodeUsageDelta(delta).length / delta.registers.length).toBeLessThan(21);
  });

  it('fits every delta within the budget into a message, and is whole at the other end', () => {
    const from = registers(rows(20_000, 7_000));
    const to = registers([]);
    for (let round = 0; round < 50 && to.upTo(writer) < from.upTo(writer); round++) {
      const delta = from.delta(writer, to.wanted(writer), DELTA_BYTES_MAX, usageRowSizer())!;
      to.join(decodeUsageDelta(encodeUsageDelta(delta)));
    }
    expect([...to.of(writer)]).toEqual([...from.of(writer)]);
  });

  it('never exceeds what its sizer says', () => {
    fc.assert(
      fc.property(usageDelta, (delta) => {
        const sizeOf = usageRowSizer();
        const bound = delta.registers.reduce((sum, row) => sum + sizeOf(row), 0);
        expect(encodeUsageDelta(delta).length).toBeLessThanOrEqual(bound + 128);
      }),
    );
  });

  it('bounds rows even if they take no bytes', () => {
    const bytes = Uint8Array.from(encodeUsageDelta({ writer, from: 0, to: 2 ** 40, end: 2 ** 40, registers: [] }));
    // A count of 2^20 rows in place of the last byte, 0.
    expect(
      decodes(() => decodeUsageDelta(Uint8Array.from([...bytes.subarray(0, -1), 0x80, 0x80, 0x40, 1, 0, 1, 1, 0]))),
    ).toBeNull();
    expect(
      decodes(() => encodeUsageDelta({ writer, from: 0, to: 5_000, end: 5_000, registers: rows(4_097, 100) })),
    ).toBeNull();
  });

  it('refuses rows with one key', () => {
    const [row] = rows(1, 1);
    const twice = encodeUsageDelta({ writer, from: 0, to: 2, end: 2, registers: [row!, { ...row!, version: 2 }] });
    expect(decodes(() => decodeUsageDelta(twice))).toBeNull();
  });

  it('refuses every other way to write the same rows', () => {
    const row = (version: number, epoch: number, customer: string) =>
      usageRow(version, epoch, customer, 'inspect', ZERO_USAGE);
    const head = encodeUsageDelta({ writer, from: 0, to: 2, end: 2, registers: [] }).subarray(0, -1);
    const same = [1, 0];
    const names = (...customers: string[]) => [
      customers.length,
      ...customers.flatMap((name) => [name.length, ...utf8(name)]),
    ];
    const message = (parts: { count?: number; versions?: number[]; epochs?: number[]; customers?: number[] }) =>
      Uint8Array.from([
        ...head,
        parts.count ?? 2,
        ...(parts.versions ?? same),
        ...(parts.epochs ?? [5, ...same]),
        ...(parts.customers ?? [...names('a', 'b'), 0, 0, 1]),
        ...names('inspect'),
        ...same,
        ...DIMENSIONS.flatMap(() => same),
      ]);
    const good = { writer, from: 0, to: 2, end: 2, registers: [row(1, 5, 'a'), row(2, 5, 'b')] };
    expect(message({})).toEqual(encodeUsageDelta(good));
    expect(decodeUsageDelta(message({}))).toEqual(good);
    const others = [
      { versions: [0, 0, 0] },
      { versions: [1, 1] },
      { versions: [2, 0] },
      { versions: [0, 0, 1] },
      { epochs: [4, 1, 1] },
      { epochs: [5, 0, 0, 0] },
      { customers: [...names('b', 'a'), 0, 1, 0] },
      { epochs: [5, 0, 0, 1], customers: [...names('a', 'a'), 0, 0, 1] },
      { customers: [...names('a', 'b'), ...same] },
      { customers: [...names('a'), 0, 0, 1] },
      { customers: [...names('a', 'b', 'c'), 0, 0, 1] },
      { customers: [...names(), ...same] },
      { customers: [...names('a', '/'), 0, 0, 1] },
      { count: 3 },
    ];
    for (const other of others) expect(decodes(() => decodeUsageDelta(message(other)))).toBeNull();
  });
});
