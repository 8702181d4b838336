import { hex } from './bytes.ts';
import type { Digest } from './ids.ts';

/** The primitives the core needs, handed in by a driver: pure functions of their arguments. */
export interface Crypto {
  /** SHA-256 of the parts, one after the other: 32 bytes (FIPS 180-4). */
  sha256(...parts: readonly Uint8Array[]): Uint8Array;
  /** HMAC-SHA-256: 32 bytes (RFC 2104). */
  hmacSha256(key: Uint8Array, message: Uint8Array): Uint8Array;
  /** Whether the 64-byte Ed25519 signature is good (RFC 8032). False for malformed keys and signatures; never throws. */
  ed25519Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
}

/** One Ed25519 key pair; the secret half stays with the driver. */
export interface Signer {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 64 bytes (RFC 8032, deterministic). */
  sign(message: Uint8Array): Uint8Array;
}

/** The address of a content: its SHA-256 in hexadecimal. */
export const digestOf = (crypto: Crypto, bytes: Uint8Array): Digest => hex.encode(crypto.sha256(bytes)) as Digest;
