import fc from 'fast-check';
import { expect, it } from 'vitest';
import { base64, utf8, type ClusterId, type CustomerId } from '@waggle/protocol/base';
import { encodeStatement, type Statement } from '@waggle/protocol/transparency';
import { SKUS } from '@waggle/protocol/usage';
import { compactStatement, expandStatement } from '../../src/store/compact.ts';

const count = fc.oneof(fc.nat(1000), fc.maxSafeNat());
const usage = fc.record({
  requests: count,
  requestsFailed: count,
  bytesIn: count,
  bytesOut: count,
  pixelsIn: count,
  pixelsOut: count,
  cpuMicros: count,
});
const salt = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => base64.encode(bytes));
const statement: fc.Arbitrary<Statement> = fc.record({
  cluster: fc.constant('0123456789abcdef'.repeat(4) as ClusterId),
  customer: fc.stringMatching(/^[a-z0-9._-]{1,40}$/).map((text) => text as CustomerId),
  sealedIn: fc.nat(),
  epoch: fc.nat(),
  startMs: fc.nat(2 ** 42),
  endMs: fc.nat(2 ** 42),
  usage: fc.dictionary(fc.oneof(fc.constantFrom(...SKUS), fc.stringMatching(/^[a-z][a-z.]{0,30}$/)), usage, {
    maxKeys: 8,
    noNullPrototype: true,
  }),
  salt,
});

const roundTrip = (customer: CustomerId, bytes: Uint8Array): Uint8Array =>
  expandStatement(compactStatement(customer, bytes), customer);

it('makes every statement small, with the one frame of its epoch, and gives it back', () => {
  fc.assert(
    fc.property(statement, salt, (one, otherSalt) => {
      const bytes = utf8(encodeStatement(one));
      const compact = compactStatement(one.customer, bytes);
      const skus = Object.keys(one.usage);
      const names = skus.filter((sku) => !(SKUS as readonly string[]).includes(sku));
      expect(compact.bytes.length).toBeLessThanOrEqual(
        32 + skus.length * 57 + names.reduce((n, sku) => n + 1 + sku.length, 0),
      );
      expect(Buffer.from(expandStatement(compact, one.customer)).equals(bytes)).toBe(true);
      const other = { ...one, customer: 'other' as CustomerId, salt: otherSalt, usage: {} };
      expect(compactStatement(other.customer, utf8(encodeStatement(other))).frame).toBe(compact.frame);
      expect(compact.frame).not.toBe('');
    }),
  );
});

it('gives back whatever else it is given', () => {
  const edits = [
    '-0',
    '1e3',
    '1.5',
    '9007199254740993',
    'null',
    '[]',
    ' ',
    '\n',
    '"',
    '\\',
    '{',
    '}',
    'ü',
    '__proto__',
    '7',
  ];
  const edit = fc.tuple(fc.constantFrom(...edits), fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(3));
  fc.assert(
    fc.property(statement, fc.array(edit, { maxLength: 3 }), fc.boolean(), (one, changes, isOwn) => {
      let text = encodeStatement(one);
      for (const [insert, where, removed] of changes) {
        const at = Math.floor(where * text.length);
        text = text.slice(0, at) + insert + text.slice(at + removed);
      }
      const bytes = utf8(text);
      const customer = isOwn ? one.customer : ('someone else' as CustomerId);
      expect(Buffer.from(roundTrip(customer, bytes)).equals(bytes)).toBe(true);
    }),
    { numRuns: 500 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      expect(roundTrip('acme' as CustomerId, bytes)).toEqual(bytes);
    }),
  );
});

it('says that bytes are no statement rather than make one up', () => {
  const one = fc.sample(statement, { numRuns: 1, seed: 1 })[0]!;
  const { frame, bytes } = compactStatement(
    one.customer,
    utf8(encodeStatement({ ...one, usage: { 'resize.webp': fc.sample(usage, { numRuns: 1, seed: 1 })[0]! } })),
  );
  for (const damaged of [bytes.subarray(0, 31), bytes.subarray(0, -1), Buffer.concat([bytes, Buffer.of(99)])])
    expect(() => expandStatement({ frame, bytes: damaged }, one.customer)).toThrow(
      expect.objectContaining({ code: 'DATA_DAMAGED' }),
    );
});
