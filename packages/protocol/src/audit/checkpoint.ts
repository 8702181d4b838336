import { base64, fromUtf8, WaggleError, type Crypto, type ErrorCode } from '../base/index.ts';
import { quorumOf, type Roster } from '../sealing/index.ts';
import {
  COSIGNATURE,
  cosignerKey,
  formatNote,
  logKey,
  openCheckpoint,
  parseNote,
  type Checkpoint,
} from '../transparency/index.ts';

/** Runs a part and gives its decoding errors the code of what was being read. */
export function named<T>(code: ErrorCode, what: string, part: () => T): T {
  try {
    return part();
  } catch (error) {
    if (error instanceof WaggleError && error.code === 'DECODE_FAILED')
      throw new WaggleError(code, `${what}: ${error.message}`, { cause: error });
    throw error;
  }
}

/**
 * Opens a checkpoint of a log against a roster: every line a good one of its members, a majority of cosigners among them. Throws
 * `CHECKPOINT_INVALID` and `QUORUM_MISSING`.
 */
export function readCheckpoint(
  bytes: Uint8Array,
  origin: string,
  roster: Roster,
  crypto: Crypto,
): { checkpoint: Checkpoint; cosigners: string[] } {
  return named('CHECKPOINT_INVALID', 'checkpoint', () => {
    const note = fromUtf8(bytes);
    const keys = roster.flatMap((member) => [
      logKey(crypto, origin, base64.decode(member.logKey)),
      cosignerKey(crypto, origin, member.replica, base64.decode(member.cosignerKey)),
    ]);
    const parsed = parseNote(note);
    const { checkpoint, verified, unknown } = openCheckpoint(crypto, note, keys);
    if (checkpoint.origin !== origin)
      throw new WaggleError('CHECKPOINT_INVALID', `Expected origin ${origin}, received ${checkpoint.origin}`);
    if (unknown.length > 0 || verified.length !== parsed.signatures.length || formatNote(parsed) !== note)
      throw new WaggleError(
        'CHECKPOINT_INVALID',
        `Expected signatures of the roster only, each once, received one by ${unknown[0]?.name ?? 'a key twice'}`,
      );
    const cosigners = verified
      .filter(({ key }) => key.type === COSIGNATURE)
      .map(({ key }) => key.name.slice(origin.length + 1));
    if (cosigners.length < quorumOf(roster))
      throw new WaggleError(
        'QUORUM_MISSING',
        `Expected cosignatures by ${quorumOf(roster)} of ${roster.length} members, received ${cosigners.length}`,
      );
    return { checkpoint, cosigners };
  });
}
