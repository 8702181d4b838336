import {
  base64,
  framed,
  hex,
  WaggleError,
  type ClusterId,
  type Crypto,
  type Json,
  type ReplicaId,
} from '../base/index.ts';

/**
 * The replica id that belongs to a transport key: the first 16 bytes of a hash of it. So nobody can be admitted under the id of
 * another, and a banned key has no second id. (The replicas of the genesis are bound to their keys by the genesis.)
 */
export const replicaIdOf = (transportKey: string, crypto: Crypto): ReplicaId =>
  hex.encode(crypto.sha256(framed('waggle-replica/v1', base64.decode(transportKey))).subarray(0, 16)) as ReplicaId;

/** What is signed of a fact or an invite: bound to one purpose and one cluster, so that it stands nowhere else. */
export const signingBytes = (domain: string, cluster: ClusterId, statement: Uint8Array): Uint8Array =>
  framed(domain, hex.decode(cluster), statement);

/** Throws `SIGNATURE_INVALID` unless the key (base64 of 32 bytes) signed the message; `what` is said in the error. */
export function demandSignature(
  crypto: Crypto,
  publicKey: string,
  message: Uint8Array,
  signature: string,
  what: string,
): void {
  if (!crypto.ed25519Verify(base64.decode(publicKey), message, base64.decode(signature)))
    throw new WaggleError('SIGNATURE_INVALID', `Expected ${what}`);
}

/** Throws `DECODE_FAILED` unless the value is the base64 of so many bytes. */
export function parseBase64(value: Json | undefined, length: number, what: string): string {
  if (typeof value === 'string' && base64.decode(value).length === length) return value;
  throw new WaggleError(
    'DECODE_FAILED',
    `Expected ${length} bytes in base64 for ${what}, received ${JSON.stringify(value)?.slice(0, 60)}`,
  );
}

/** Bytes of an Ed25519 public key, and of a signature. */
export const KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;
