import {
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  hash,
  sign,
  timingSafeEqual,
  verify,
  type KeyObject,
} from 'node:crypto';
import { assert, concat, hex, type Crypto, type Signer } from '@waggle/protocol/base';

/** DER before a raw Ed25519 seed (PKCS #8) and before a raw Ed25519 public key (SPKI), RFC 8410. */
const PKCS8_PREFIX = hex.decode('302e020100300506032b657004220420');
const SPKI_PREFIX = hex.decode('302a300506032b6570032100');

/** Parsed public keys kept: more than any cluster has replicas, about 1 KiB each. */
const PUBLIC_KEYS_MAX = 1024;
const publicKeys = new Map<string, KeyObject>();

/** Parsing costs as much as a third of a verification, so keys are kept; the oldest makes room. Throws when malformed. */
function publicKeyObject(publicKey: Uint8Array): KeyObject {
  const name = Buffer.from(publicKey.buffer, publicKey.byteOffset, publicKey.byteLength).toString('latin1');
  let key = publicKeys.get(name);
  if (key === undefined) {
    key = createPublicKey({ key: Buffer.from(concat(SPKI_PREFIX, publicKey)), format: 'der', type: 'spki' });
    const oldest = publicKeys.keys().next();
    if (publicKeys.size >= PUBLIC_KEYS_MAX && !oldest.done) publicKeys.delete(oldest.value);
    publicKeys.set(name, key);
  }
  return key;
}

/** The same bytes as a plain array: a Buffer would slice by reference and compare unequal to one. */
const plain = (buffer: Buffer): Uint8Array => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);

/** Parts up to this many bytes together are copied into one. */
const ONE_SHOT_BYTES_MAX = 4_096;

/** The primitives of the core by OpenSSL. */
export const nodeCrypto: Crypto = {
  sha256(...parts) {
    const [only] = parts;
    if (parts.length === 1 && only !== undefined) return plain(hash('sha256', only, 'buffer'));
    const bytes = parts.reduce((total, { length }) => total + length, 0);
    // Leaves and nodes of the log: putting them together costs less than a hash object.
    if (bytes <= ONE_SHOT_BYTES_MAX) return plain(hash('sha256', Buffer.concat(parts, bytes), 'buffer'));
    const digest = createHash('sha256');
    for (const part of parts) digest.update(part);
    return plain(digest.digest());
  },
  hmacSha256: (key, message) => plain(createHmac('sha256', key).update(message).digest()),
  ed25519Verify(publicKey, message, signature) {
    if (publicKey.length !== 32 || signature.length !== 64) return false;
    try {
      return verify(null, message, publicKeyObject(publicKey), signature);
    } catch {
      return false; // A point that is not on the curve.
    }
  },
};

/** Signs with a private Ed25519 key that OpenSSL has parsed. */
export function signerFromKeyObject(privateKey: KeyObject): Signer {
  assert(privateKey.type === 'private' && privateKey.asymmetricKeyType === 'ed25519', 'a private Ed25519 key');
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return {
    publicKey: new Uint8Array(spki.subarray(SPKI_PREFIX.length)),
    sign: (message) => plain(sign(null, message, privateKey)),
  };
}

/** The key pair of a 32-byte seed (RFC 8032 §5.1.5). */
export function signerFromSeed(seed: Uint8Array): Signer {
  assert(seed.length === 32, `a seed of 32 bytes, not ${seed.length}`);
  const der = Buffer.from(concat(PKCS8_PREFIX, seed));
  return signerFromKeyObject(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
}

/** Equal length and bytes, in a time that depends on the lengths only. */
export const constantTimeEqual = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && timingSafeEqual(a, b);
