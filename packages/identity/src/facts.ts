import {
  parseCustomerId,
  parseWhole,
  WaggleError,
  type CustomerId,
  type Json,
  type ReplicaId,
} from '@waggle/protocol/base';
import type { LwwEntry } from '@waggle/protocol/lattice';
import { isLimit, isLimitName, type LimitsPatch } from './limits.ts';
import { SCOPES, TOKEN_ROLES, type Actor, type Scope, type TokenRole } from './principals.ts';

/*
 * The values of the registers that identity writes and reads: JSON texts. Every parser throws `DECODE_FAILED`. Fields
 * that are not known are ignored, so that a later version can add some.
 */

/** A control register to be written: the driver gives it a version, signs it and makes it durable. */
export interface Write {
  readonly key: string;
  /** JSON text. */
  readonly value: string;
}

/** 31 December 9999, the last day that RFC 3339 can write. */
const TIME_MS_MAX = 253_402_300_799_999;
const VALUE_LENGTH_MAX = 64 * 1024;

type Fields = Readonly<Record<string, unknown>>;

const refuse = (expected: string, received: unknown): never => {
  throw new WaggleError('DECODE_FAILED', `Expected ${expected}, received ${JSON.stringify(received)?.slice(0, 80)}`);
};

/** The value of a register as JSON of at most 64 Ki characters. */
export function parseValue(text: string): unknown {
  if (text.length > VALUE_LENGTH_MAX) refuse(`at most ${VALUE_LENGTH_MAX} characters`, text.length);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new WaggleError('DECODE_FAILED', `Expected JSON, received ${JSON.stringify(text.slice(0, 60))}`, { cause });
  }
}

const parseFields = (value: unknown): Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : refuse('an object', value);

const parseTime = (value: unknown): number => parseWhole(value, 'a time in ms', 0, TIME_MS_MAX);

const NAME = /^[^\p{Cc}\p{Cs}]{1,128}$/u;
/** Whether a text can be the name of a customer or token: 1 to 128 code points, none of them a control character. */
export const isName = (value: unknown): value is string => typeof value === 'string' && NAME.test(value);
const parseName = (value: unknown): string => (isName(value) ? value : refuse('a name of 1 to 128 characters', value));

function oneOf<T extends string>(values: readonly T[], value: unknown): T {
  return (values as readonly unknown[]).includes(value) ? (value as T) : refuse(`one of ${values.join(', ')}`, value);
}

/** Canonical: the last digit before the padding carries four bits. */
const BASE64_32_BYTES = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/;
/** By Buffer, not by the codec of the base, which takes four times as long: two for every key at a start. */
const parse32Bytes = (value: unknown, what: string): Uint8Array =>
  typeof value === 'string' && BASE64_32_BYTES.test(value)
    ? new Uint8Array(Buffer.from(value, 'base64'))
    : refuse(`32 bytes in base64 for ${what}`, value);

/** Order of two creations of one id: by time, then by replica. The lower one stands, at every node alike. */
export const isLower = (aMs: number, a: ReplicaId, bMs: number, b: ReplicaId): boolean =>
  aMs < bMs || (aMs === bMs && a < b);

/** A customer as it was created: `fact/customer/<id>`. */
export interface CustomerFact {
  readonly name: string;
  readonly limits: LimitsPatch | undefined;
  readonly createdMs: number;
}

function parseLimits(value: unknown): LimitsPatch {
  const limits: Record<string, number> = {};
  for (const [name, limit] of Object.entries(parseFields(value))) {
    if (!isLimitName(name)) continue;
    limits[name] = isLimit(name, limit) ? limit : refuse(`a limit in its range for ${name}`, limit);
  }
  return limits;
}

/** The value of `fact/customer/<id>`. Throws `DECODE_FAILED`. */
export function parseCustomerFact(id: CustomerId, text: string): CustomerFact {
  const fields = parseFields(parseValue(text));
  if (parseCustomerId(fields['id']) !== id) refuse(`the id ${id} of the register's key`, fields['id']);
  const limits = fields['limits'] === undefined ? undefined : parseLimits(fields['limits']);
  return { name: parseName(fields['name']), limits, createdMs: parseTime(fields['createdMs']) };
}

/** An API key: `fact/key/<keyId>`. No part of its secret. */
export interface KeyFact {
  readonly customer: CustomerId;
  /** SHA-256 of the whole text of the key. */
  readonly hash: Uint8Array;
  /** Public half of the Ed25519 key that signs URLs. */
  readonly urlKey: Uint8Array;
  readonly scopes: readonly Scope[];
  readonly createdMs: number;
}

/** The value of `fact/key/<keyId>`. Throws `DECODE_FAILED`. */
export function parseKeyFact(text: string): KeyFact {
  const fields = parseFields(parseValue(text));
  const scopes = fields['scopes'];
  if (!Array.isArray(scopes) || scopes.length > SCOPES.length) return refuse('a list of scopes', scopes);
  return {
    customer: parseCustomerId(fields['customer']),
    hash: parse32Bytes(fields['hash'], 'the hash of a key'),
    urlKey: parse32Bytes(fields['urlKey'], 'a URL key'),
    scopes: scopes.map((scope) => oneOf(SCOPES, scope)),
    createdMs: parseTime(fields['createdMs']),
  };
}

/** A token: `fact/token/<tokenId>`. */
export interface TokenFact {
  readonly role: TokenRole;
  readonly name: string;
  /** SHA-256 of the whole text of the token. */
  readonly hash: Uint8Array;
  readonly createdMs: number;
}

/** The value of `fact/token/<tokenId>`. Throws `DECODE_FAILED`. */
export function parseTokenFact(text: string): TokenFact {
  const fields = parseFields(parseValue(text));
  return {
    role: oneOf(TOKEN_ROLES, fields['role']),
    name: parseName(fields['name']),
    hash: parse32Bytes(fields['hash'], 'the hash of a token'),
    createdMs: parseTime(fields['createdMs']),
  };
}

/** In the order in which they win within a generation. */
const STATUSES = ['active', 'suspended'] as const;
/** Whether a customer is suspended: `status/<customer>`. The greater generation wins; within one, suspended does. */
export interface StatusRegister {
  readonly generation: number;
  readonly status: (typeof STATUSES)[number];
}

/** The value of `status/<customer>`. Throws `DECODE_FAILED`. */
export function parseStatus(text: string): StatusRegister {
  const fields = parseFields(parseValue(text));
  return { generation: parseWhole(fields['generation'], 'a generation'), status: oneOf(STATUSES, fields['status']) };
}

/**
 * Checks a field of the LWW map `customer`: `<id>/name` or `<id>/limit.<limit>` (`null`: the node's default again).
 * Undefined for a field that is not known.
 */
export function parseLwwField(entry: LwwEntry<Json>): LwwEntry<string | number | null> | undefined {
  const { key, value } = entry;
  const slash = key.indexOf('/');
  parseCustomerId(key.slice(0, slash));
  const field = key.slice(slash + 1);
  if (field === 'name') return { ...entry, value: parseName(value) };
  const limit = field.startsWith('limit.') ? field.slice('limit.'.length) : '';
  if (!isLimitName(limit)) return undefined;
  if (value === null || isLimit(limit, value)) return { ...entry, value };
  return refuse(`a limit in its range, or null, for ${limit}`, value);
}

/** One change that someone made: `fact/audit/<hlc>-<random>`. */
export interface AuditEntry {
  /** The HLC of the change and 8 random base62 digits: text order is time order. */
  readonly id: string;
  /** When, by the clock of the node, in Unix ms. */
  readonly atMs: number;
  readonly actor: Actor;
  /** Replica at which it was made. */
  readonly node: string;
  /** As `customer.create`, `key.revoke`. */
  readonly action: string;
  /** Id of what was changed. */
  readonly target: string;
  /** What else there is to say; never a secret. */
  readonly details: Json;
}

const AUDIT_ID = /^[0-9a-f]{16}-[0-9A-Za-z]{8}$/;

/** Throws `DECODE_FAILED` unless the text has the form of an audit entry's id. */
export function checkAuditId(id: string): void {
  if (!AUDIT_ID.test(id)) refuse('the id of an audit entry', id);
}

/** The value of `fact/audit/<id>`. Throws `DECODE_FAILED`. */
export function parseAuditEntry(id: string, text: string): AuditEntry {
  const fields = parseFields(parseValue(text));
  const actor = parseFields(fields['actor']);
  const short = (value: unknown, what: string): string =>
    typeof value === 'string' && value.length <= 200
      ? value
      : refuse(`a text of at most 200 characters for ${what}`, value);
  return {
    id,
    atMs: parseTime(fields['atMs']),
    actor: {
      credential: short(actor['credential'], 'a credential'),
      role: oneOf([...TOKEN_ROLES, 'customer', 'node'], actor['role']),
    },
    node: short(fields['node'], 'a node'),
    action: short(fields['action'], 'an action'),
    target: short(fields['target'], 'a target'),
    details: (fields['details'] ?? null) as Json,
  };
}
