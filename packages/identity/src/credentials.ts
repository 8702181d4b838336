import { utf8, WaggleError, type Crypto, type KeyId, type Random } from '@waggle/protocol/base';

/*
 * A credential as text: `wgl_<id>_<secret><checksum>`, `wgt_…` for tokens. The id has 12 base62 digits, the secret 43
 * (256 bits), the checksum 6: the CRC-32 (IEEE 802.3, as in zlib) of all that comes before it. The prefix and checksum
 * let secret scanners find leaked keys without asking anyone, and a mistyped key is refused without a look-up.
 */

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const ID_DIGITS = 12;
/** 62^43 is the first power of 62 above 2^256. */
const SECRET_DIGITS = 43;
/** 62^6 is the first power of 62 above 2^32. */
const CHECKSUM_DIGITS = 6;
const FORM = /^wg[lt]_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$/;
const SECRET_START = 'wgl_'.length + ID_DIGITS + '_'.length;
/** A token that an operator brought: no control characters, no spaces, not mistakable for one of ours. */
const OWN_TOKEN = /^(?!wg[lt]_)[!-~]{16,256}$/;
/** The longest text that is looked at. */
export const CREDENTIAL_LENGTH_MAX = 256;

/** The number that the bytes are, big-endian, as exactly that many base62 digits. */
function base62(bytes: Uint8Array, digits: number): string {
  let number = 0n;
  for (const byte of bytes) number = number * 256n + BigInt(byte);
  let text = '';
  for (let i = 0; i < digits; i++) {
    text = DIGITS[Number(number % 62n)]! + text;
    number /= 62n;
  }
  return text;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function checksum(text: string, length: number): string {
  let crc = 0xffffffff;
  for (let i = 0; i < length; i++) crc = CRC_TABLE[(crc ^ text.charCodeAt(i)) & 0xff]! ^ (crc >>> 8);
  let rest = ~crc >>> 0;
  let digits = '';
  for (let i = 0; i < CHECKSUM_DIGITS; i++) {
    digits = DIGITS[rest % 62]! + digits;
    rest = Math.floor(rest / 62);
  }
  return digits;
}

/** What a credential says of itself. A token that an operator brought has its id in its hash: `ownTokenId`. */
export interface Credential {
  readonly kind: 'key' | 'token';
  readonly id: KeyId | undefined;
}

/**
 * Reads the text of an API key or token; its secret is not looked at. Throws `KEY_MALFORMED`, also for a checksum that
 * is wrong, with a message that repeats nothing of the text.
 */
export function parseCredential(text: string): Credential {
  if (text.length <= CREDENTIAL_LENGTH_MAX) {
    if (OWN_TOKEN.test(text)) return { kind: 'token', id: undefined };
    const body = text.length - CHECKSUM_DIGITS;
    if (FORM.test(text) && checksum(text, body) === text.slice(body))
      return { kind: text[2] === 'l' ? 'key' : 'token', id: text.slice(4, 4 + ID_DIGITS) as KeyId };
  }
  throw new WaggleError(
    'KEY_MALFORMED',
    'Expected wgl_<key id>_<secret> with its checksum, or a token, received another text',
  );
}

/** A new credential of 256 random bits: of an API key (`wgl`) or a token (`wgt`). The text is shown once and never kept. */
export function makeCredential(prefix: 'wgl' | 'wgt', random: Random): { readonly id: KeyId; readonly text: string } {
  const id = randomDigits(random, ID_DIGITS) as KeyId;
  const body = `${prefix}_${id}_${base62(random.bytes(32), SECRET_DIGITS)}`;
  return { id, text: body + checksum(body, body.length) };
}

/** That many random base62 digits. */
export const randomDigits = (random: Random, digits: number): string =>
  Array.from({ length: digits }, () => DIGITS[random.below(62)]).join('');

/** SHA-256 of the whole presented text: the only form in which a credential is kept. 32 bytes. */
export const credentialHash = (crypto: Crypto, text: string): Uint8Array =>
  // Per request: a pooled Buffer takes a quarter of the time of a TextEncoder's array.
  crypto.sha256(Buffer.from(text, 'utf8'));

/** Whether the text can serve as an operator's own token: 16 to 256 printable ASCII characters, no spaces, not ours. */
export const isOwnToken = (text: string): boolean => OWN_TOKEN.test(text);

/** Id of an operator's own token: the first 12 of the 43 base62 digits of its hash. */
export const ownTokenId = (hash: Uint8Array): KeyId => base62(hash, SECRET_DIGITS).slice(0, ID_DIGITS) as KeyId;

/**
 * Seed of the Ed25519 key that signs a customer's URLs: HMAC-SHA-256 under the 43 digits of the secret, as ASCII. Whoever
 * has the key text can derive it; the nodes keep its public half only. `text` is a well-formed `wgl_` credential. 32 bytes.
 */
export const urlKeySeed = (crypto: Crypto, text: string): Uint8Array =>
  crypto.hmacSha256(utf8(text.slice(SECRET_START, SECRET_START + SECRET_DIGITS)), utf8('waggle signed url v1'));
