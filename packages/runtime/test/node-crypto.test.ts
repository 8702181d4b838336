import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concat, hex, utf8 } from '@waggle/protocol/base';
import { constantTimeEqual, entropy, nodeCrypto, signerFromSeed } from '../src/index.ts';

const bytes = (maxLength = 100) => fc.uint8Array({ maxLength });

describe('nodeCrypto', () => {
  it('hashes parts as their concatenation, as OpenSSL does', () => {
    expect(hex.encode(nodeCrypto.sha256(utf8('abc')))).toBe(
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
    fc.assert(
      fc.property(fc.array(bytes(), { maxLength: 4 }), (parts) => {
        const whole = concat(...parts);
        expect(nodeCrypto.sha256(...parts)).toEqual(nodeCrypto.sha256(whole));
        expect(hex.encode(nodeCrypto.sha256(whole))).toBe(createHash('sha256').update(whole).digest('hex'));
      }),
    );
  });

  it('authenticates messages (RFC 4231, test case 2)', () => {
    expect(hex.encode(nodeCrypto.hmacSha256(utf8('Jefe'), utf8('what do ya want for nothing?')))).toBe(
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    );
  });

  it('signs and verifies (RFC 8032 §7.1, test 2)', () => {
    const signer = signerFromSeed(hex.decode('4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb'));
    const signature =
      '92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da' +
      '085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00';
    expect(hex.encode(signer.publicKey)).toBe('3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c');
    expect(hex.encode(signer.sign(Uint8Array.of(0x72)))).toBe(signature);
    expect(nodeCrypto.ed25519Verify(signer.publicKey, Uint8Array.of(0x72), hex.decode(signature))).toBe(true);
  });

  it('says no to every changed byte, and to anything malformed, without throwing', () => {
    const signer = signerFromSeed(nodeCrypto.sha256(utf8('seed')));
    const message = utf8('a message');
    const signature = signer.sign(message);
    for (const [which, length] of [0, 1, 2].map((i) => [i, [signer.publicKey, message, signature][i]!.length] as const))
      for (let at = 0; at < length; at++) {
        const parts = [signer.publicKey, message, signature].map((part) => new Uint8Array(part));
        parts[which]![at]! ^= 1;
        expect(nodeCrypto.ed25519Verify(parts[0]!, parts[1]!, parts[2]!)).toBe(false);
      }
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), bytes(), fc.uint8Array({ maxLength: 80 }), (key, text, sign) => {
        expect(nodeCrypto.ed25519Verify(key, text, sign)).toBe(false);
      }),
    );
  });

  it('tells keys apart when there are more of them than it keeps parsed', () => {
    const message = utf8('m');
    const signers = Array.from({ length: 1_200 }, (_, i) => signerFromSeed(nodeCrypto.sha256(utf8(`${i}`))));
    const signatures = signers.map((signer) => signer.sign(message));
    for (const [i, { publicKey }] of signers.entries()) {
      expect(nodeCrypto.ed25519Verify(publicKey, message, signatures[i]!)).toBe(true);
      expect(nodeCrypto.ed25519Verify(publicKey, message, signatures[(i + 1) % signatures.length]!)).toBe(false);
    }
    expect(nodeCrypto.ed25519Verify(signers[0]!.publicKey, message, signatures[0]!)).toBe(true);
  });

  it('gives plain arrays, whose slices are copies', () => {
    expect(nodeCrypto.sha256(utf8('x')).constructor).toBe(Uint8Array);
    expect(nodeCrypto.hmacSha256(utf8('x'), utf8('x')).constructor).toBe(Uint8Array);
    expect(entropy.bytes(3).constructor).toBe(Uint8Array);
  });
});

it('constantTimeEqual is equality', () => {
  fc.assert(
    fc.property(bytes(4), bytes(4), (a, b) => {
      expect(constantTimeEqual(a, b)).toBe(hex.encode(a) === hex.encode(b));
      expect(constantTimeEqual(a, new Uint8Array(a))).toBe(true);
    }),
  );
});
