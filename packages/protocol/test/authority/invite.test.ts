import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, base64url, concat, hex, seededRandom, utf8 } from '../../src/base/index.ts';
import {
  checkInvite,
  createInvite,
  INVITE_ADDRESSES_MAX,
  INVITE_LENGTH_MAX,
  INVITE_MS,
  INVITE_MS_MAX,
  INVITE_PREFIX,
  INVITE_USES_MAX,
  inviteId,
  parseInvite,
} from '../../src/authority/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { byteMutations, codeOf, mutations, valueOr } from '../transparency/support.ts';
import {
  ADDRESSES,
  CLUSTER,
  inviteOptions,
  keyText,
  NOW_MS,
  operatorOf,
  signerFromSeed,
  testCluster,
} from './support.ts';

const parse = (text: string) => parseInvite(text, nodeCrypto, signerFromSeed);
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** The text of bytes with the right checksum, as someone would make it who wants to deceive. */
const sealed = (body: Uint8Array): string =>
  INVITE_PREFIX + base64url.encode(concat(body, nodeCrypto.sha256(utf8(INVITE_PREFIX), body).subarray(0, 4)));
const bodyOf = (text: string): Uint8Array => base64url.decode(text.slice(INVITE_PREFIX.length)).subarray(0, -4);

const address = fc.record({
  transportKey: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(base64.encode),
  host: fc.ipV4(),
  port: fc.integer({ min: 1, max: 65_535 }),
});

describe('an invite', () => {
  it('says what it was made with, in one line that needs no quoting', () => {
    const options = fc.record({
      addresses: fc.array(address, { minLength: 1, maxLength: INVITE_ADDRESSES_MAX }),
      uses: fc.integer({ min: 1, max: INVITE_USES_MAX }),
      expiresInMs: fc.integer({ min: 1_000, max: INVITE_MS_MAX }),
      random: fc.nat().map(seededRandom),
    });
    fc.assert(
      fc.property(options, (changes) => {
        const made = createInvite(inviteOptions(changes));
        expect(made.invite).toMatch(/^wgi_[A-Za-z0-9_-]+$/);
        expect(made.invite.length).toBeLessThanOrEqual(INVITE_LENGTH_MAX);
        const read = parse(made.invite);
        expect(read.cluster).toBe(CLUSTER.id);
        expect(read.addresses).toEqual(changes.addresses);
        expect(read.grant).toMatchObject({ uses: made.uses, expiresMs: made.expiresMs, key: keyText(read.signer) });
        expect(made).toMatchObject({ uses: changes.uses, expiresMs: NOW_MS + changes.expiresInMs });
        expect(inviteId(read.cluster, read.grant, nodeCrypto)).toBe(made.id);
        expect(() => checkInvite(read, CLUSTER, made.expiresMs, nodeCrypto)).not.toThrow();
      }),
      { numRuns: 50 },
    );
  });

  it('is for one replica and an hour unless said otherwise', () => {
    expect(createInvite(inviteOptions())).toMatchObject({ uses: 1, expiresMs: NOW_MS + INVITE_MS });
  });

  it('fits into its bound with the most of everything', () => {
    const most = { transportKey: ADDRESSES[0].transportKey, host: '255.255.255.255', port: 65_535 };
    const addresses = Array.from({ length: INVITE_ADDRESSES_MAX }, () => most);
    const made = createInvite(
      inviteOptions({ addresses, uses: INVITE_USES_MAX, nowMs: 253_402_300_000_000 - INVITE_MS }),
    );
    expect(made.invite.length).toBeLessThanOrEqual(INVITE_LENGTH_MAX);
    expect(parse(made.invite).addresses).toEqual(addresses);
  });

  it('has a key of its own each time', () => {
    const random = seededRandom(3);
    const [one, two] = [1, 2].map(() => createInvite(inviteOptions({ random })));
    expect(one!.id).not.toBe(two!.id);
    expect(parse(one!.invite).grant.key).not.toBe(parse(two!.invite).grant.key);
  });

  it('is refused with any one character changed, left out, doubled or added', () => {
    const { invite: text } = createInvite(inviteOptions());
    for (let at = 0; at < text.length; at++) {
      for (const char of ALPHABET)
        if (char !== text[at])
          expect(codeOf(() => parse(text.slice(0, at) + char + text.slice(at + 1)))).toBe('DECODE_FAILED');
      expect(codeOf(() => parse(text.slice(0, at) + text.slice(at + 1)))).toBe('DECODE_FAILED');
      expect(codeOf(() => parse(text.slice(0, at) + text[at] + text.slice(at)))).toBe('DECODE_FAILED');
    }
    for (const extra of [' ', '\n', '=', 'A', '\u0000'])
      for (const changed of [text + extra, extra + text]) expect(codeOf(() => parse(changed))).toBe('DECODE_FAILED');
  });

  it('is refused for its length before anything is computed of it', () => {
    const sha256 = () => expect.unreachable();
    const text = INVITE_PREFIX + 'A'.repeat(INVITE_LENGTH_MAX);
    expect(codeOf(() => parseInvite(text, { ...nodeCrypto, sha256 }, signerFromSeed))).toBe('DECODE_FAILED');
  });

  it('never appears in the error that refuses it', () => {
    const { invite: text } = createInvite(inviteOptions());
    for (const changed of [`${text.slice(0, -1)}!`, text.slice(0, -1), `x${text}`, `${text}${text}${text}`]) {
      let message: string | undefined;
      try {
        parse(changed);
      } catch (error) {
        ({ message } = error as Error);
      }
      expect(message).toMatch(/^Expected a whole invite/);
      expect(message).not.toContain(text.slice(4, 24));
    }
  });

  it('is refused, by its form or by the signature, when its bytes are changed and the checksum made good', () => {
    const body = bodyOf(createInvite(inviteOptions()).invite);
    for (let at = 0; at < body.length; at++)
      for (const flip of [1, 0x40, 0x80]) {
        const changed = Uint8Array.from(body);
        changed[at]! ^= flip;
        const read = valueOr(['DECODE_FAILED'], () => parse(sealed(changed)));
        if (read !== undefined)
          expect(codeOf(() => checkInvite(read, CLUSTER, NOW_MS, nodeCrypto))).toBe('INVITE_INVALID');
      }
  });

  it('is refused past its time, in another cluster, and if another operator signed it', () => {
    const made = createInvite(inviteOptions());
    const read = parse(made.invite);
    const check = (cluster = CLUSTER, nowMs = NOW_MS) => codeOf(() => checkInvite(read, cluster, nowMs, nodeCrypto));
    expect(check()).toBe('none');
    expect(check(CLUSTER, made.expiresMs)).toBe('none');
    expect(check(CLUSTER, made.expiresMs + 1)).toBe('INVITE_EXPIRED');
    expect(check(testCluster('other'))).toBe('INVITE_INVALID');
    expect(check({ ...testCluster('other'), id: CLUSTER.id })).toBe('INVITE_INVALID');
  });

  it('is only made with the operator key of the cluster', () => {
    for (const operator of [operatorOf('other'), testSigner('a transport')])
      expect(codeOf(() => createInvite(inviteOptions({ operator })))).toBe('SIGNATURE_INVALID');
  });

  const one = ADDRESSES[0];
  it.each([
    ['no address', { addresses: [] }],
    ['nine addresses', { addresses: Array.from({ length: 9 }, () => one) }],
    ['a host name', { addresses: [{ ...one, host: 'localhost' }] }],
    ['IPv6', { addresses: [{ ...one, host: '::1' }] }],
    ['a number above 255', { addresses: [{ ...one, host: '1.2.3.256' }] }],
    ['leading zeros', { addresses: [{ ...one, host: '01.2.3.4' }] }],
    ['three numbers', { addresses: [{ ...one, host: '1.2.3' }] }],
    ['five numbers', { addresses: [{ ...one, host: '1.2.3.4.5' }] }],
    ['a line feed', { addresses: [{ ...one, host: '1.2.3.4\n' }] }],
    ['port 0', { addresses: [{ ...one, port: 0 }] }],
    ['port 65 536', { addresses: [{ ...one, port: 65_536 }] }],
    ['half a port', { addresses: [{ ...one, port: 80.5 }] }],
    ['a short key', { addresses: [{ ...one, transportKey: base64.encode(new Uint8Array(31)) }] }],
    ['no use', { uses: 0 }],
    ['too many uses', { uses: INVITE_USES_MAX + 1 }],
    ['half a use', { uses: 0.5 }],
    ['no time', { expiresInMs: 0 }],
    ['too much time', { expiresInMs: INVITE_MS_MAX + 1 }],
    ['the end of time', { nowMs: 253_402_300_799_999 }],
    ['a broken clock', { nowMs: Number.NaN }],
  ])('is not made with %s', (_, changes) =>
    expect(codeOf(() => createInvite(inviteOptions(changes)))).toBe('DECODE_FAILED'),
  );

  it('parses nothing else, whatever it is given', () => {
    const { invite: text } = createInvite(inviteOptions());
    const body = bodyOf(text);
    const anything = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 300 }),
      fc.string({ unit: 'binary', maxLength: 300 }).map((tail) => INVITE_PREFIX + tail),
      mutations(text),
      fc.uint8Array({ maxLength: 600 }).map(sealed),
      byteMutations(body).map(sealed),
    );
    fc.assert(
      fc.property(anything, (candidate) => {
        const read = valueOr(['DECODE_FAILED'], () => parse(candidate));
        if (read === undefined || candidate === text) return;
        // A form that holds together, made without the operator's key.
        expect(codeOf(() => checkInvite(read, CLUSTER, 0, nodeCrypto))).toBe('INVITE_INVALID');
      }),
      { numRuns: 2_000 },
    );
  });

  it('has the format that is written down', () => {
    const body = bodyOf(createInvite(inviteOptions({ uses: 3 })).invite);
    const read = parse(sealed(body));
    expect(hex.encode(body.subarray(0, 33))).toBe(`01${CLUSTER.id}`);
    expect(signerFromSeed(body.subarray(33, 65)).publicKey).toEqual(read.signer.publicKey);
    expect(base64.encode(body.subarray(-64))).toBe(read.grant.signature);
    // uses, one address: 127.0.0.1:20 000
    expect(hex.encode(body.subarray(71, 73))).toBe('0301');
    expect(hex.encode(body.subarray(105, 112))).toBe('7f000001a09c01');
    expect(body.length).toBe(176);
  });
});
