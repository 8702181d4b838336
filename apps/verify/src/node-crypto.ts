import { createHash, createHmac, createPublicKey, verify } from 'node:crypto';
import { concat, hex, type Crypto } from '@waggle/protocol/base';

/** DER before a raw Ed25519 public key (SPKI, RFC 8410). */
const SPKI_PREFIX = hex.decode('302a300506032b6570032100');

/** The primitives of the core by OpenSSL. The verifier signs nothing and keeps no secret. */
export const nodeCrypto: Crypto = {
  sha256: (...parts) => {
    const digest = createHash('sha256');
    for (const part of parts) digest.update(part);
    return new Uint8Array(digest.digest());
  },
  hmacSha256: (key, message) => new Uint8Array(createHmac('sha256', key).update(message).digest()),
  ed25519Verify(publicKey, message, signature) {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      const der = Buffer.from(concat(SPKI_PREFIX, publicKey));
      return verify(null, message, createPublicKey({ key: der, format: 'der', type: 'spki' }), signature);
    } catch {
      return false; // A point that is not on the curve.
    }
  },
};
