import { base64 as scureBase64, base64urlnopad, hex as scureHex } from '@scure/base';
import { WaggleError } from './errors.ts';

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** UTF-8 bytes of a string. */
export const utf8 = (text: string): Uint8Array<ArrayBuffer> => encoder.encode(text);

/** The string of UTF-8 bytes, byte for byte. Throws `DECODE_FAILED` on bytes that are not UTF-8. */
export function fromUtf8(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch (cause) {
    throw new WaggleError('DECODE_FAILED', 'Expected UTF-8, received other bytes', { cause });
  }
}

const codec = (name: string, coder: { encode(bytes: Uint8Array): string; decode(text: string): Uint8Array }) => ({
  encode: (bytes: Uint8Array): string => coder.encode(bytes),
  /** Throws `DECODE_FAILED` on anything but the one canonical text of some bytes. */
  decode: (text: string): Uint8Array => {
    let bytes: Uint8Array | undefined;
    try {
      bytes = coder.decode(text);
    } catch {
      // Said below, in our words.
    }
    if (bytes === undefined || coder.encode(bytes) !== text)
      throw new WaggleError('DECODE_FAILED', `Expected ${name}, received ${JSON.stringify(text.slice(0, 40))}`);
    return bytes;
  },
});

/** Lower-case hexadecimal. */
export const hex = codec('lower-case hexadecimal', scureHex);
/** RFC 4648 section 4, padded, canonical. */
export const base64 = codec('base64', scureBase64);
/** RFC 4648 section 5, no padding. */
export const base64url = codec('unpadded base64url', base64urlnopad);

/** One array with all the parts, in order. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let length = 0;
  for (const part of parts) length += part.length;
  const whole = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** Bytewise order, as `memcmp`: negative, zero or positive. Not constant-time: never for secrets. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** Order by UTF-8 bytes, which is the order by code points. The cheap path holds for ASCII, our ids. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    // Surrogates (0xd800 to 0xdfff) stand for code points above every other unit.
    if (x >= 0xd800 && y >= 0xd800) return compareBytes(utf8(a), utf8(b));
    return x - y;
  }
  return a.length - b.length;
}

/** Equal length and bytes. Not constant-time: never for secrets. */
export const equalBytes = (a: Uint8Array, b: Uint8Array): boolean => compareBytes(a, b) === 0;
