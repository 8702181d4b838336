import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom, utf8, WaggleError } from '@waggle/protocol/base';
import {
  credentialHash,
  isOwnToken,
  makeCredential,
  ownTokenId,
  parseCredential,
  urlKeySeed,
} from '../src/credentials.ts';
import { codeOf, nodeCrypto, TestNode } from './support.ts';

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const base62 = (text: string): bigint =>
  [...text].reduce((number, digit) => number * 62n + BigInt(DIGITS.indexOf(digit)), 0n);

describe('credentials', () => {
  it('are prefix, id, secret and the CRC-32 of what comes before', () => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom('wgl', 'wgt'), (seed, prefix) => {
        const { id, text } = makeCredential(prefix, seededRandom(seed));
        expect(text).toMatch(new RegExp(`^${prefix}_${id}_[0-9A-Za-z]{49}$`));
        expect(base62(text.slice(-6))).toBe(BigInt(crc32(text.slice(0, -6))));
        expect(base62(text.slice(17, 60)) < 2n ** 256n).toBe(true);
        expect(parseCredential(text)).toEqual({ kind: prefix === 'wgl' ? 'key' : 'token', id });
      }),
    );
  });

  it('keep the whole of the 256 random bits', () => {
    const bytes = Uint8Array.from({ length: 32 }, (_, i) => 255 - i);
    const { text } = makeCredential('wgl', { below: () => 0, bytes: () => bytes });
    expect(base62(text.slice(17, 60))).toBe(BigInt(`0x${Buffer.from(bytes).toString('hex')}`));
  });

  it('are refused after a change of any one character, without a look-up', () => {
    const node = new TestNode('a');
    const key = node.customer('acme');
    const token = node.do(node.identity.createToken(node.context, { role: 'operator', name: 'ops' })).token;
    expect(node.identity.authenticate(key)).toMatchObject({ kind: 'customer', customer: 'acme' });
    expect(node.identity.authenticate(token)).toMatchObject({ kind: 'token', role: 'operator' });
    for (const text of [key, token])
      for (let i = 0; i < text.length; i++)
        for (const other of `${DIGITS}_- é\n`) {
          if (other === text[i]) continue;
          const changed = text.slice(0, i) + other + text.slice(i + 1);
          // With another prefix it may pass for an operator's own token, which is then not known.
          const expected =
            changed.startsWith('wgl_') || changed.startsWith('wgt_')
              ? ['KEY_MALFORMED']
              : ['KEY_MALFORMED', 'KEY_UNKNOWN'];
          expect(expected).toContain(codeOf(() => node.identity.authenticate(changed)));
        }
  });

  it('are refused when cut or lengthened', () => {
    const { text } = makeCredential('wgl', seededRandom(1));
    for (let i = 4; i < text.length; i++) expect(codeOf(() => parseCredential(text.slice(0, i)))).toBe('KEY_MALFORMED');
    expect(codeOf(() => parseCredential(`${text}0`))).toBe('KEY_MALFORMED');
  });

  it('take any text for an answer, and never repeat it in an error', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary', maxLength: 300 }), fc.string({ maxLength: 300 })), (text) => {
        try {
          expect(parseCredential(text).kind).toMatch(/^(key|token)$/);
        } catch (error) {
          expect(error).toBeInstanceOf(WaggleError);
          expect((error as WaggleError).code).toBe('KEY_MALFORMED');
          if (text.length > 8) expect((error as WaggleError).message).not.toContain(text);
        }
      }),
    );
  });

  it('can be an operator’s own: 16 to 256 printable ASCII characters', () => {
    expect(isOwnToken('correct-horse-battery')).toBe(true);
    for (const text of [
      'short',
      'with a space in it',
      'wgl_0123456789abcdef',
      'wgt_0123456789abcdef',
      'ünïcödé-0123456789',
      'x'.repeat(257),
    ])
      expect(isOwnToken(text)).toBe(false);
    const id = ownTokenId(credentialHash(nodeCrypto, 'correct-horse-battery'));
    const digest = BigInt(`0x${Buffer.from(nodeCrypto.sha256(utf8('correct-horse-battery'))).toString('hex')}`);
    expect(base62(id)).toBe(digest / 62n ** 31n);
  });

  it('give the seed of the URL key to whoever has the text, and only then', () => {
    const { text } = makeCredential('wgl', seededRandom(7));
    const secret = text.split('_')[2]!.slice(0, 43);
    expect(urlKeySeed(nodeCrypto, text)).toEqual(nodeCrypto.hmacSha256(utf8(secret), utf8('waggle signed url v1')));
  });
});
