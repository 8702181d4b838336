import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, concat, hex, WaggleError, WireWriter, type ClusterId } from '@waggle/protocol/base';
import {
  decodeAddresses,
  decodeJoinFrame,
  decodeTold,
  encodeAddresses,
  encodeJoinFrame,
  encodeTold,
  PAGE_BYTES_MAX,
  plainText,
  TOLD_MAX,
  type JoinFrame,
} from '../../src/joining/frames.ts';
import { MESSAGE_BYTES_MAX } from '../../src/transport/index.ts';

const CLUSTER = 'c1'.repeat(32) as ClusterId;
const whole = fc.nat({ max: 1_000_000 });
const bytes = (maxLength: number) => fc.uint8Array({ maxLength });
const frames: fc.Arbitrary<JoinFrame> = fc.oneof(
  fc.record({ type: fc.constant('ask' as const), fact: fc.string({ maxLength: 500 }) }),
  fc.record({
    type: fc.constant('refused' as const),
    code: fc.string({ maxLength: 16 }),
    reason: fc.string({ maxLength: 99 }),
  }),
  fc.record({ type: fc.constant('page' as const), total: whole, offset: whole, bytes: bytes(300) }),
  fc.record({ type: fc.constant('next' as const), offset: whole }),
);
const address = fc.record({
  transportKey: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((key) => base64.encode(key)),
  host: fc.ipV4().filter((host) => host !== '0.0.0.0'),
  port: fc.integer({ min: 1, max: 65_535 }),
});
const failed = expect.objectContaining({ code: 'DECODE_FAILED' });

describe('frames about joining', () => {
  it('decode to what was encoded, and to nothing when a byte is missing or too many', () => {
    fc.assert(
      fc.property(frames, fc.nat(), (frame, cut) => {
        const encoded = encodeJoinFrame(CLUSTER, frame);
        expect(decodeJoinFrame(CLUSTER, encoded)).toEqual(frame);
        expect(() => decodeJoinFrame(CLUSTER, encoded.subarray(0, cut % encoded.length))).toThrow(failed);
        expect(() => decodeJoinFrame(CLUSTER, concat(encoded, Uint8Array.of(0)))).toThrow(failed);
      }),
    );
  });

  it('throw nothing but DECODE_FAILED, whatever the bytes', () => {
    const head = encodeJoinFrame(CLUSTER, { type: 'next', offset: 0 });
    fc.assert(
      fc.property(fc.nat({ max: 5 }), bytes(200), (type, rest) => {
        const frame = concat(head.subarray(0, 1), Uint8Array.of(type), head.subarray(2, 34), rest);
        for (const received of [rest, frame])
          try {
            decodeJoinFrame(CLUSTER, received);
          } catch (error) {
            expect(error).toEqual(failed);
            expect(error).toBeInstanceOf(WaggleError);
          }
      }),
    );
  });

  it('are of one cluster, one format and bounded', () => {
    const ask = encodeJoinFrame('c2'.repeat(32) as ClusterId, { type: 'ask', fact: 'x' });
    expect(() => decodeJoinFrame(CLUSTER, ask)).toThrow(failed);
    expect(() =>
      decodeJoinFrame(
        CLUSTER,
        concat(Uint8Array.of(2), encodeJoinFrame(CLUSTER, { type: 'next', offset: 0 }).subarray(1)),
      ),
    ).toThrow(failed);
    const long = encodeJoinFrame(CLUSTER, { type: 'ask', fact: 'x'.repeat(2_049) });
    expect(() => decodeJoinFrame(CLUSTER, long)).toThrow(failed);
    const page = { type: 'page', total: 2 ** 25, offset: 2 ** 24, bytes: new Uint8Array(PAGE_BYTES_MAX) } as const;
    expect(encodeJoinFrame(CLUSTER, page).length).toBeLessThanOrEqual(MESSAGE_BYTES_MAX);
    const reason = plainText('\u{1f41d}'.repeat(9_999));
    const refused = { type: 'refused', code: 'INTERNAL', reason } as const;
    expect(decodeJoinFrame(CLUSTER, encodeJoinFrame(CLUSTER, refused))).toEqual(refused);
    expect(plainText('a\u001b[31mb\nc')).toBe('a?[31mb?c');
  });
});

describe('what a newcomer is told', () => {
  it('decodes to what was encoded', () => {
    fc.assert(
      fc.property(
        bytes(99),
        bytes(99),
        fc.array(address, { maxLength: 5 }),
        whole,
        (genesis, facts, addresses, openEpoch) => {
          const told = { genesis, facts, addresses, openEpoch };
          expect(decodeTold(encodeTold(told))).toEqual(told);
        },
      ),
    );
  });

  it('holds so many addresses, and none that cannot be dialled', () => {
    const one = { transportKey: base64.encode(new Uint8Array(32)), host: '10.0.0.1', port: 7070 };
    const many = Array.from({ length: TOLD_MAX + 1 }, (_, i) => ({ ...one, port: i + 1 }));
    expect(decodeAddresses(encodeAddresses(many))).toEqual(many.slice(0, TOLD_MAX));
    for (const broken of [
      { ...one, host: '0.0.0.0' },
      { ...one, port: 0 },
      { ...one, port: 65_536 },
    ])
      expect(() => decodeAddresses(encodeAddresses([broken]))).toThrow(failed);
    expect(() => decodeAddresses(new WireWriter().varint(TOLD_MAX + 1).finish())).toThrow(failed);
    expect(() => decodeAddresses(hex.decode('01'))).toThrow(failed);
  });
});
