import { base64, WaggleError, type ClusterId, type Crypto, type ReplicaId, type Signer } from '../base/index.ts';
import { HASH_BYTES } from './merkle.ts';
import { COSIGNATURE, cosignNote, formatSignatureLine, LOG_SIGNATURE } from './note.ts';
import { openNote, parseKeyName, signNote, verifierKey } from './note.ts';
import type { OpenedNote, VerifierKey } from './note.ts';

/** What a log says of itself (c2sp.org/tlog-checkpoint). */
export interface Checkpoint {
  /** The name of the log, which is a key name: `<configured name>/<cluster id, first 16 digits>`. */
  readonly origin: string;
  /** Leaves, 0 to 2^53 − 1. */
  readonly size: number;
  /** 32 bytes. */
  readonly root: Uint8Array;
}

/** The origin of a cluster's log. Throws `DECODE_FAILED` for a configured name with a space or plus. */
export const originOf = (configuredName: string, cluster: ClusterId): string =>
  parseKeyName(`${configuredName}/${cluster.slice(0, 16)}`);

/** The key with which a replica signs as the log: type 0x01, named as the origin, like that of every other replica. */
export const logKey = (crypto: Crypto, origin: string, publicKey: Uint8Array): VerifierKey =>
  verifierKey(crypto, origin, LOG_SIGNATURE, publicKey);

/** The key with which a replica cosigns: type 0x04, named `<origin>/<replica, first 8 digits>`. */
export const cosignerKey = (crypto: Crypto, origin: string, replica: ReplicaId, publicKey: Uint8Array): VerifierKey =>
  verifierKey(crypto, `${origin}/${replica.slice(0, 8)}`, COSIGNATURE, publicKey);

/** The note text of a checkpoint: `origin LF size LF base64(root) LF`. */
export const checkpointText = ({ origin, size, root }: Checkpoint): string =>
  `${origin}\n${size}\n${base64.encode(root)}\n`;

/** The checkpoint of a note text: three lines exactly, no extension lines. Throws `DECODE_FAILED`. */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin = '', size = '', root = '', end, ...more] = text.split('\n', 5);
  const checkpoint: Checkpoint = { origin: parseKeyName(origin), size: Number(size), root: base64.decode(root) };
  const isWhole = /^(0|[1-9][0-9]{0,15})$/.test(size) && Number.isSafeInteger(checkpoint.size);
  if (!isWhole || checkpoint.root.length !== HASH_BYTES || end !== '' || more.length > 0) {
    const received = JSON.stringify(text.slice(0, 200));
    throw new WaggleError('DECODE_FAILED', `Expected origin, tree size and root of a checkpoint, received ${received}`);
  }
  return checkpoint;
}

/** The log signature of one replica under a checkpoint text: one signature line with its newline. */
export const signCheckpoint = (crypto: Crypto, text: string, origin: string, signer: Signer): string =>
  formatSignatureLine(signNote(signer, logKey(crypto, origin, signer.publicKey), text));

/** The cosignature of one replica under a checkpoint text, made at `unixSeconds` (whole) by its clock: one line, too. */
export function cosignCheckpoint(
  crypto: Crypto,
  text: string,
  origin: string,
  replica: ReplicaId,
  signer: Signer,
  unixSeconds: number,
): string {
  const key = cosignerKey(crypto, origin, replica, signer.publicKey);
  return formatSignatureLine(cosignNote(signer, key, text, unixSeconds));
}

/**
 * Opens a signed checkpoint against known keys, of which at least one must be a log key that is named as the origin and
 * signed it. Whether the cosignatures are enough is for the caller to count. Throws `DECODE_FAILED` for what is no
 * checkpoint, `CHECKPOINT_INVALID` for a bad signature of a known key or when the log's is missing.
 */
export function openCheckpoint(
  crypto: Crypto,
  note: string,
  keys: readonly VerifierKey[],
): OpenedNote & { readonly checkpoint: Checkpoint } {
  const opened = openNote(crypto, note, keys);
  const checkpoint = parseCheckpoint(opened.text);
  if (!opened.verified.some(({ key }) => key.type === LOG_SIGNATURE && key.name === checkpoint.origin))
    throw new WaggleError('CHECKPOINT_INVALID', `Expected a signature by the log ${checkpoint.origin}, received none`);
  return { ...opened, checkpoint };
}
