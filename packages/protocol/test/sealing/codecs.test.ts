import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, concat, equalBytes, hex, jcs, utf8 } from '../../src/base/index.ts';
import type { ClusterId, Digest, Json, ReplicaId, Run } from '../../src/base/index.ts';
import {
  clusterOf,
  closeJson,
  encodeFrontier,
  encodeGenesis,
  encodeHeader,
  encodeReports,
  encodeRoster,
  encodeSlotList,
  epochAt,
  epochBounds,
  parseClose,
  parseFrontier,
  parseGenesis,
  parseHeader,
  parseReports,
  parseRoster,
  parseSlotList,
  quorumOf,
  TIME_MS_MAX,
  type Close,
  type Frontier,
  type Genesis,
  type Header,
  type Report,
  type Roster,
  type SlotEntry,
} from '../../src/sealing/index.ts';
import { addToRanges, inRanges, type EpochRanges } from '../../src/sealing/ranges.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { byteMutations, valueOr } from '../transparency/support.ts';

const DECODE_FAILED = expect.objectContaining({ code: 'DECODE_FAILED' });
const key = (name: string): string => base64.encode(testSigner(name).publicKey);
const bytesOf = (length: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: length, maxLength: length });
const replica = bytesOf(16).map((bytes) => hex.encode(bytes) as ReplicaId);
const digest = bytesOf(32).map((bytes) => hex.encode(bytes) as Digest);
const text32 = bytesOf(32).map(base64.encode);
const whole = fc.oneof(fc.nat(9), fc.maxSafeNat());
const run = whole.map((n) => Math.max(1, n) as Run);

const roster: fc.Arbitrary<Roster> = fc
  .uniqueArray(fc.record({ replica, transportKey: text32, logKey: text32, cosignerKey: text32 }), {
    minLength: 1,
    maxLength: 5,
    selector: (entry) => entry.replica,
  })
  .map((entries) => entries.sort((a, b) => (a.replica < b.replica ? -1 : 1)));

const genesis: fc.Arbitrary<Genesis> = fc.record({
  format: fc.constant(1 as const),
  name: fc.constantFrom('a', 'waggle.local', 'example.com/eu-1'),
  operatorKey: text32,
  startMs: fc.nat(),
  epochMs: fc.integer({ min: 1_000, max: 366 * 86_400_000 }),
  sealGraceMs: fc.integer({ min: 0, max: 366 * 86_400_000 }),
  roster,
});

const close: fc.Arbitrary<Close> = fc.record({
  replica,
  run,
  epoch: whole,
  slot: digest,
  salt: text32,
  formats: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 16 }),
  reports: digest,
  facts: digest,
});

const header: fc.Arbitrary<Header> = fc.record({
  format: fc.integer({ min: 1, max: 9 }),
  cluster: digest.map((id) => id as string as ClusterId),
  epoch: whole,
  previous: fc.option(digest),
  slots: fc.record({ digest, count: whole }),
  facts: digest,
  roster: digest,
  nextFormat: fc.integer({ min: 1, max: 9 }),
});

const inOrder = <T extends Report>(items: T[]): T[] =>
  items.sort(
    (a, b) => a.epoch - b.epoch || (a.replica < b.replica ? -1 : a.replica > b.replica ? 1 : 0) || a.run - b.run,
  );
const slotId = { replica: fc.constantFrom('0', '1').map((d) => d.repeat(32) as ReplicaId), run: run, epoch: whole };
const nameOf = (report: Report): string => `${report.replica} ${report.run} ${report.epoch}`;
const reports: fc.Arbitrary<Report[]> = fc
  .uniqueArray(fc.record({ ...slotId, digest, closed: fc.boolean() }), { selector: nameOf, maxLength: 5 })
  .map(inOrder);
const frontier: fc.Arbitrary<Frontier> = fc.record({
  facts: digest,
  closes: fc
    .uniqueArray(close, { maxLength: 3, selector: (one) => one.replica })
    .map((closes) => closes.sort((a, b) => (a.replica < b.replica ? -1 : 1)))
    .map((closes) =>
      closes.map(({ formats, replica: by, run: of, salt, slot }) => ({ formats, replica: by, run: of, salt, slot })),
    ),
  slots: reports,
});
const slotList: fc.Arbitrary<SlotEntry[]> = fc
  .uniqueArray(fc.record({ ...slotId, digest, closed: fc.boolean(), salt: fc.option(text32) }), {
    selector: nameOf,
    maxLength: 5,
  })
  .map(inOrder);

/** A form on disk or wire: how it is written and read, things of it, and JSON that is almost one. */
function describeForm<T>(
  name: string,
  arbitrary: fc.Arbitrary<T>,
  encode: (thing: T) => Uint8Array,
  parse: (bytes: Uint8Array) => T,
): void {
  describe(`the form of ${name}`, () => {
    it('comes back as it went', () => {
      fc.assert(
        fc.property(arbitrary, (thing) => {
          expect(parse(encode(thing))).toEqual(thing);
        }),
      );
    });

    it('is one or an error, whatever the bytes; no two byte strings are the same one', () => {
      const hostile = fc.oneof(
        fc.uint8Array(),
        fc.json().map(utf8),
        fc.jsonValue().map((value) => utf8(`${jcs(value as Json)}\n`)),
        arbitrary.chain((thing) =>
          byteMutations(concat(encode(thing), new Uint8Array(encode(thing).length === 0 ? 1 : 0))),
        ),
      );
      fc.assert(
        fc.property(hostile, (bytes) => {
          const thing = valueOr(['DECODE_FAILED'], () => parse(bytes));
          if (thing !== undefined) expect(equalBytes(encode(thing), bytes)).toBe(true);
        }),
        { numRuns: 300 },
      );
    });
  });
}

describeForm('a genesis', genesis, (thing) => utf8(encodeGenesis(thing)), parseGenesis);
describeForm('a roster', roster, encodeRoster, parseRoster);
describeForm(
  'a close',
  close,
  (thing) => utf8(jcs(closeJson(thing))),
  (bytes) => {
    const text = new TextDecoder().decode(bytes);
    const value = ((): Json => {
      try {
        return JSON.parse(text) as Json;
      } catch {
        return null;
      }
    })();
    const thing = parseClose(value);
    // A register's value need not be canonical; what it says must be.
    return jcs(closeJson(thing)) === text ? thing : parseClose(null);
  },
);
describeForm('a header', header, encodeHeader, parseHeader);
describeForm('a list of reports', reports, encodeReports, parseReports);
describeForm('a frontier', frontier, encodeFrontier, parseFrontier);
describeForm('a slot list', slotList, encodeSlotList, parseSlotList);

const entry = (digit: string): Roster[number] => ({
  replica: digit.repeat(32) as ReplicaId,
  transportKey: key('transport'),
  logKey: key('log'),
  cosignerKey: key('cosigner'),
});

const GENESIS: Genesis = {
  format: 1,
  name: 'waggle.example',
  operatorKey: key('operator'),
  startMs: 1_000_000,
  epochMs: 5_000,
  sealGraceMs: 0,
  roster: [entry('a')],
};

describe('a genesis', () => {
  it('has the hash of its canonical form as cluster id, and an origin of both', () => {
    const cluster = clusterOf(GENESIS, nodeCrypto);
    expect(cluster.id).toBe(hex.encode(nodeCrypto.sha256(utf8(jcs(GENESIS as unknown as Json)))));
    expect(cluster.origin).toBe(`waggle.example/${cluster.id.slice(0, 16)}`);
  });

  it('keeps to its bounds', () => {
    const bad: Record<string, unknown>[] = [
      { format: 2 },
      { name: '' },
      { name: 'With Space' },
      { name: 'a+b' },
      { name: 'a\n' },
      { name: `a${'b'.repeat(64)}` },
      { operatorKey: base64.encode(new Uint8Array(31)) },
      { startMs: -1 },
      { startMs: TIME_MS_MAX },
      { epochMs: 999 },
      { epochMs: 366 * 86_400_000 + 1 },
      { sealGraceMs: -1 },
      { roster: [] },
      { roster: [entry('b'), entry('a')] },
      { roster: [entry('a'), entry('a')] },
      { roster: [{ ...entry('a'), more: 1 }] },
      { roster: [{ ...entry('a'), replica: 'a' }] },
      { roster: {} },
      { more: 1 },
    ];
    for (const change of bad)
      expect(
        () => parseGenesis(utf8(jcs({ ...GENESIS, ...change } as unknown as Json))),
        JSON.stringify(change),
      ).toThrow(DECODE_FAILED);
    expect(() => parseGenesis(utf8(` ${encodeGenesis(GENESIS)}`))).toThrow(DECODE_FAILED);
  });

  it('cuts time into epochs, end exclusive', () => {
    expect(epochBounds(GENESIS, 3)).toEqual({ startMs: 1_015_000, endMs: 1_020_000 });
    expect([999_999, 1_000_000, 1_004_999, 1_005_000].map((ms) => epochAt(GENESIS, ms))).toEqual([-1, 0, 0, 1]);
    expect(() => epochBounds(GENESIS, -1)).toThrow('an epoch');
  });
});

describe('a roster', () => {
  it('has at most 49 members, and a majority as its quorum', () => {
    const of = (n: number): Roster =>
      Array.from({ length: n }, (_, i) => ({
        ...entry('a'),
        replica: (i + 10).toString(16).padStart(32, '0') as ReplicaId,
      }));
    expect([1, 2, 3, 4, 5, 49].map((n) => quorumOf(of(n)))).toEqual([1, 2, 2, 3, 3, 25]);
    expect(parseRoster(encodeRoster(of(49)))).toHaveLength(49);
    expect(() => parseRoster(encodeRoster(of(50)))).toThrow(DECODE_FAILED);
  });
});

describe('ranges of epochs', () => {
  it('hold what was put in, in as few ranges as there can be', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(30)), (epochs) => {
        const ranges = epochs.reduce<EpochRanges>(addToRanges, []);
        for (let epoch = 0; epoch < 33; epoch++) expect(inRanges(ranges, epoch)).toBe(epochs.includes(epoch));
        const distinct = [...new Set(epochs)];
        expect(ranges).toHaveLength(distinct.filter((epoch) => !distinct.includes(epoch - 1)).length);
        for (const [i, [from, to]] of ranges.entries())
          expect(i === 0 ? from <= to : from > ranges[i - 1]![1] + 1).toBe(true);
      }),
    );
  });
});
