import { WaggleError } from './errors.ts';

/** One writer: 16 random bytes as 32 hexadecimal digits, made when a data directory is first created. */
export type ReplicaId = string & { readonly __replicaId: unique symbol };
/** Hash of the genesis: 64 hexadecimal digits. */
export type ClusterId = string & { readonly __clusterId: unique symbol };
/** 1 to 64 of `A-Za-z0-9._-`, the first a letter or digit; chosen by the operator or made. */
export type CustomerId = string & { readonly __customerId: unique symbol };
/** 12 base62 digits: the public part of an API key or token. */
export type KeyId = string & { readonly __keyId: unique symbol };
/** A SHA-256 digest as 64 hexadecimal digits: the address of a content. */
export type Digest = string & { readonly __digest: unique symbol };
/** One process start of a replica: grows with every start, unique to it; 1 to 2^53 − 1. */
export type Run = number & { readonly __run: unique symbol };
/** A billing period: 0, 1, 2 …; epoch n ends at genesis + (n + 1) · epochMs. */
export type Epoch = number;

function parser<T>(what: string, expected: string, pattern: RegExp): (text: unknown) => T {
  return (text) => {
    if (typeof text === 'string' && pattern.test(text)) return text as T;
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected ${expected} for ${what}, received ${JSON.stringify(text)?.slice(0, 80)}`,
    );
  };
}

/** Each throws `DECODE_FAILED` unless the text is of the form given at its type. */
export const parseReplicaId = parser<ReplicaId>('a replica id', '32 hexadecimal digits', /^[0-9a-f]{32}$/);
export const parseClusterId = parser<ClusterId>('a cluster id', '64 hexadecimal digits', /^[0-9a-f]{64}$/);
export const parseDigest = parser<Digest>('a digest', '64 hexadecimal digits', /^[0-9a-f]{64}$/);
export const CUSTOMER_ID_PATTERN = '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$';
export const parseCustomerId = parser<CustomerId>(
  'a customer id',
  '1 to 64 letters, digits, ".", "_" or "-", the first a letter or digit,',
  new RegExp(CUSTOMER_ID_PATTERN),
);
export const parseKeyId = parser<KeyId>('a key id', '12 base62 digits', /^[0-9A-Za-z]{12}$/);

/** Throws `DECODE_FAILED` unless the value is a whole number from 0 (or `min`) to 2^53 − 1 (or `max`). */
export function parseWhole(value: unknown, what: string, min = 0, max = Number.MAX_SAFE_INTEGER): number {
  if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) return value as number;
  throw new WaggleError(
    'DECODE_FAILED',
    `Expected a whole number from ${min} to ${max} for ${what}, received ${JSON.stringify(value)?.slice(0, 80)}`,
  );
}

export const parseRun = (value: unknown): Run => parseWhole(value, 'a run', 1) as Run;
