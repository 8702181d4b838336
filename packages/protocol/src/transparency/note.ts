import { assert, base64, concat, equalBytes, hex, utf8, WaggleError, type Crypto, type Signer } from '../base/index.ts';

/** Signatures on one note. Go's note package refuses more, so nobody should write more. */
export const SIGNATURES_MAX = 100;
/** UTF-16 units of a whole note: room for a hundred post-quantum signatures of others. */
export const NOTE_LENGTH_MAX = 1_000_000;
const KEY_NAME_LENGTH_MAX = 255;
const KEY_ID_BYTES = 4;
const PUBLIC_KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;
const TIME_BYTES = 8;
const SIGNATURE_PREFIX = '— ';

/** The signature types that we make and check (c2sp.org/signed-note, Signature types). */
export const LOG_SIGNATURE = 0x01;
export const COSIGNATURE = 0x04;
export type SignatureType = typeof LOG_SIGNATURE | typeof COSIGNATURE;

/** A public key that may sign notes, under its name (c2sp.org/signed-note). */
export interface VerifierKey {
  /** Not empty, no spaces, no plus, at most 255 units. */
  readonly name: string;
  readonly type: SignatureType;
  /** 32 bytes of Ed25519. */
  readonly publicKey: Uint8Array;
  /** `SHA-256(name ‖ 0x0A ‖ type ‖ publicKey)[:4]` as 8 hexadecimal digits. Not unique: anyone can make it collide. */
  readonly keyId: string;
}

/** `— name base64(keyId ‖ payload)`. */
export interface SignatureLine {
  readonly name: string;
  /** 8 hexadecimal digits. */
  readonly keyId: string;
  /** What the signature type defines, at least one byte. */
  readonly payload: Uint8Array;
}

/** A text with its signature lines, none of them checked. */
export interface Note {
  /** Ends with a newline, and the newline belongs to what is signed. */
  readonly text: string;
  /** 1 to 100. */
  readonly signatures: readonly SignatureLine[];
}

/** A signature line that a known key made. */
export interface VerifiedSignature {
  readonly key: VerifierKey;
  readonly line: SignatureLine;
  /** When it was made, in Unix seconds by the signer's clock; null for a log signature, which has no time. */
  readonly unixSeconds: number | null;
}

/** A note with at least one good signature of a known key. */
export interface OpenedNote {
  readonly text: string;
  /** At most one per key, in the order of the note. */
  readonly verified: readonly VerifiedSignature[];
  /** Lines of keys that nobody here knows: they say nothing. */
  readonly unknown: readonly SignatureLine[];
}

function malformed(expected: string, received: string): never {
  throw new WaggleError('DECODE_FAILED', `Expected ${expected}, received ${JSON.stringify(received.slice(0, 60))}`);
}

/** Unicode's White_Space, which `\s` misses by one (U+0085) and exceeds by one (U+FEFF); plus; controls; lone surrogates. */
const NOT_IN_KEY_NAME = /[\s\u0085+\p{Cc}\p{Cs}]/u;

/** The name, if it may name a key. Throws `DECODE_FAILED`. */
export function parseKeyName(name: string): string {
  if (name === '' || name.length > KEY_NAME_LENGTH_MAX || NOT_IN_KEY_NAME.test(name))
    malformed(`a key name of 1 to ${KEY_NAME_LENGTH_MAX} characters without spaces and plus`, name);
  return name;
}

/** A verifier key with its id. Throws `DECODE_FAILED` for a name that is none. */
export function verifierKey(crypto: Crypto, name: string, type: SignatureType, publicKey: Uint8Array): VerifierKey {
  const digest = crypto.sha256(utf8(`${parseKeyName(name)}\n`), new Uint8Array([type]), publicKey);
  return { name, type, publicKey, keyId: hex.encode(digest.subarray(0, KEY_ID_BYTES)) };
}

/** The text of a verifier key, a `vkey`: `name+hex8(keyId)+base64(type ‖ publicKey)`. */
export const formatVerifierKey = ({ name, type, publicKey, keyId }: VerifierKey): string =>
  `${name}+${keyId}+${base64.encode(concat(new Uint8Array([type]), publicKey))}`;

/** The key of a `vkey`. Throws `DECODE_FAILED`, also for other types than 0x01 and 0x04 and for an id that is not its own. */
export function parseVerifierKey(crypto: Crypto, text: string): VerifierKey {
  // A name has no plus, and base64 may: only the first two separate.
  const [name = '', keyId = '', ...key] = text.slice(0, NOTE_LENGTH_MAX).split('+');
  const bytes = base64.decode(key.join('+'));
  const type = bytes[0];
  if (bytes.length !== 1 + PUBLIC_KEY_BYTES || (type !== LOG_SIGNATURE && type !== COSIGNATURE))
    return malformed('a verifier key of type 1 or 4', text);
  const parsed = verifierKey(crypto, name, type, bytes.subarray(1));
  if (parsed.keyId !== keyId) malformed(`the key id ${parsed.keyId}`, keyId);
  return parsed;
}

/** The text of a signature line, with its newline. */
export const formatSignatureLine = ({ name, keyId, payload }: SignatureLine): string =>
  `${SIGNATURE_PREFIX}${name} ${base64.encode(concat(hex.decode(keyId), payload))}\n`;

function parseLine(text: string): SignatureLine {
  const [name = '', encoded = '', ...more] = text.slice(SIGNATURE_PREFIX.length).split(' ');
  if (!text.startsWith(SIGNATURE_PREFIX) || more.length > 0) malformed('a signature line', text);
  const bytes = base64.decode(encoded);
  if (bytes.length <= KEY_ID_BYTES) malformed('a key id and a signature', encoded);
  const keyId = hex.encode(bytes.subarray(0, KEY_ID_BYTES));
  return { name: parseKeyName(name), keyId, payload: bytes.subarray(KEY_ID_BYTES) };
}

/** The text of a note. Throws `DECODE_FAILED` for what would not parse again. */
export function formatNote({ text, signatures }: Note): string {
  const note = `${text}\n${signatures.map(formatSignatureLine).join('')}`;
  parseNote(note);
  return note;
}

/** Controls other than newline, and halves of a character, which UTF-8 cannot write. */
// oxlint-disable-next-line no-control-regex -- finding them is the point
const NOT_IN_NOTE = /[\u0000-\u0009\u000b-\u001f\p{Cs}]/u;

/**
 * Splits a note into its text and its signature lines (c2sp.org/signed-note), strictly: canonical base64, at most 100
 * lines and 1 000 000 units. Nothing is checked: the text must not be believed yet. Throws `DECODE_FAILED`.
 */
export function parseNote(note: string): Note {
  if (note.length > NOTE_LENGTH_MAX || NOT_IN_NOTE.test(note)) malformed('a note without control characters', note);
  const split = note.lastIndexOf('\n\n');
  if (split < 0 || !note.endsWith('\n')) malformed('a text, a blank line and signature lines', note);
  const lines = note.slice(split + 2, -1).split('\n', SIGNATURES_MAX + 1);
  if (lines.length > SIGNATURES_MAX) malformed(`at most ${SIGNATURES_MAX} signature lines`, note);
  return { text: note.slice(0, split + 1), signatures: lines.map(parseLine) };
}

/** What a cosignature/v1 signs (c2sp.org/tlog-cosignature). */
const cosignedMessage = (text: string, unixSeconds: number): Uint8Array =>
  utf8(`cosignature/v1\ntime ${unixSeconds}\n${text}`);

/** Signs the text with a key of type 0x01: Ed25519 over the text itself. */
export const signNote = (signer: Signer, key: VerifierKey, text: string): SignatureLine => ({
  name: key.name,
  keyId: key.keyId,
  payload: signer.sign(utf8(text)),
});

/** Signs the text with a key of type 0x04: `u64be(time) ‖ Ed25519(cosignature/v1 message)`; time in Unix seconds, whole. */
export function cosignNote(signer: Signer, key: VerifierKey, text: string, unixSeconds: number): SignatureLine {
  assert(Number.isSafeInteger(unixSeconds) && unixSeconds >= 0, `whole Unix seconds, not ${unixSeconds}`);
  const time = new Uint8Array(TIME_BYTES);
  new DataView(time.buffer).setBigUint64(0, BigInt(unixSeconds));
  const signature = signer.sign(cosignedMessage(text, unixSeconds));
  return { name: key.name, keyId: key.keyId, payload: concat(time, signature) };
}

/** Per signature type: the message and the signature in a payload, or null if the payload has another form. */
const SIGNED = {
  [LOG_SIGNATURE]: (text, payload) =>
    payload.length === SIGNATURE_BYTES ? { message: utf8(text), signature: payload, unixSeconds: null } : null,
  [COSIGNATURE]: (text, payload) => {
    if (payload.length !== TIME_BYTES + SIGNATURE_BYTES) return null;
    const time = new DataView(payload.buffer, payload.byteOffset).getBigUint64(0);
    const unixSeconds = Number(time);
    // Beyond 2^53 s the decimal would not be the one that was signed; no clock is there.
    if (!Number.isSafeInteger(unixSeconds)) return null;
    return { message: cosignedMessage(text, unixSeconds), signature: payload.subarray(TIME_BYTES), unixSeconds };
  },
} satisfies Record<SignatureType, (text: string, payload: Uint8Array) => SignedMessage | null>;

interface SignedMessage {
  readonly message: Uint8Array;
  readonly signature: Uint8Array;
  readonly unixSeconds: number | null;
}

function verifyLine(crypto: Crypto, key: VerifierKey, text: string, line: SignatureLine): VerifiedSignature | null {
  const signed = SIGNED[key.type](text, line.payload);
  if (signed === null || !crypto.ed25519Verify(key.publicKey, signed.message, signed.signature)) return null;
  return { key, line, unixSeconds: signed.unixSeconds };
}

const sameKey = (a: VerifierKey, b: VerifierKey): boolean => a.type === b.type && equalBytes(a.publicKey, b.publicKey);

/**
 * Checks a note against the keys that are known here. Each line under the name and id of known keys must be the good
 * signature of one of them; a second one of the same key is checked and left out. Throws `DECODE_FAILED` for what is no
 * note, and `CHECKPOINT_INVALID` for a bad signature of a known key or when no known key signed.
 */
export function openNote(crypto: Crypto, note: string, keys: readonly VerifierKey[]): OpenedNote {
  const { text, signatures } = parseNote(note);
  const verified: VerifiedSignature[] = [];
  const unknown: SignatureLine[] = [];
  for (const line of signatures) {
    // Several keys can share an id, by chance or by design; then the line is good if it is good for one.
    const known = keys.filter((key) => key.name === line.name && key.keyId === line.keyId);
    if (known.length === 0) {
      unknown.push(line);
      continue;
    }
    const good = known.map((key) => verifyLine(crypto, key, text, line)).find((signature) => signature !== null);
    if (good === undefined)
      throw new WaggleError('CHECKPOINT_INVALID', `Expected a good signature by ${line.name} (${line.keyId})`);
    if (!verified.some((other) => sameKey(other.key, good.key))) verified.push(good);
  }
  if (verified.length === 0)
    throw new WaggleError(
      'CHECKPOINT_INVALID',
      `Expected a signature by one of ${keys.length} known keys, received none`,
    );
  return { text, verified, unknown };
}
