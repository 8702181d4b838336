import canonicalize from 'canonicalize';
import { assert } from './assert.ts';
import { fromUtf8, utf8 } from './bytes.ts';
import { WaggleError } from './errors.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** The RFC 8785 (JCS) text of a value: the only JSON that is ever hashed or signed. */
export function jcs(value: Json): string {
  const text = canonicalize(value);
  assert(text !== undefined, 'a JSON value has a canonical text');
  return text;
}

/**
 * The JCS text of a value whose objects were written down with their keys in order: the same bytes at a fifth of the time,
 * for what there are a hundred thousand of. Asserts nothing: the tests of each format hold it against `jcs`.
 */
export const jcsOrdered = (value: Json): string => JSON.stringify(value);

/** The JCS text as UTF-8 bytes. */
export const jcsBytes = (value: Json): Uint8Array<ArrayBuffer> => utf8(jcs(value));

/**
 * Parses bytes that must be the JCS form of a value, to the byte: a text that parses but is not canonical is refused.
 * Throws `DECODE_FAILED`.
 */
export function parseJcs(bytes: Uint8Array, what: string): Json {
  const text = fromUtf8(bytes);
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch (cause) {
    throw new WaggleError('DECODE_FAILED', `Expected JSON for ${what}, received ${JSON.stringify(text.slice(0, 60))}`, {
      cause,
    });
  }
  if (canonicalText(value) !== text)
    throw new WaggleError('DECODE_FAILED', `Expected the canonical form (RFC 8785) of ${what}`);
  return value;
}

/** The JCS text of JSON from outside; undefined if it has none: nested deeper than the stack, or a number beyond IEEE 754. */
function canonicalText(value: Json): string | undefined {
  try {
    return jcs(value);
  } catch {
    return undefined;
  }
}
