import { base64, fromUtf8, WaggleError } from '@waggle/protocol/base';
import { quorumOf, type Cluster, type Roster } from '@waggle/protocol/sealing';
import {
  COSIGNATURE,
  cosignerKey,
  logKey,
  openCheckpoint,
  type Checkpoint,
  type VerifierKey,
} from '@waggle/protocol/transparency';
import { nodeCrypto } from './node-crypto.ts';

/** The keys that may sign checkpoints for a roster. */
export const keysOf = ({ origin }: Cluster, roster: Roster): VerifierKey[] =>
  roster.flatMap((member) => [
    logKey(nodeCrypto, origin, base64.decode(member.logKey)),
    cosignerKey(nodeCrypto, origin, member.replica, base64.decode(member.cosignerKey)),
  ]);

/** Opens a checkpoint of a cluster's log that one of the keys signed as the log. Throws `CHECKPOINT_INVALID`. */
export function openLog(
  note: Uint8Array,
  { origin }: Cluster,
  keys: readonly VerifierKey[],
): { readonly checkpoint: Checkpoint; readonly cosigners: readonly string[] } {
  try {
    const { checkpoint, verified } = openCheckpoint(nodeCrypto, fromUtf8(note), keys);
    if (checkpoint.origin !== origin)
      throw new WaggleError('CHECKPOINT_INVALID', `Expected origin ${origin}, received ${checkpoint.origin}`);
    const cosigners = verified
      .filter(({ key }) => key.type === COSIGNATURE)
      .map(({ key }) => key.name.slice(origin.length + 1));
    return { checkpoint, cosigners };
  } catch (error) {
    if (!(error instanceof WaggleError) || error.code !== 'DECODE_FAILED') throw error;
    throw new WaggleError('CHECKPOINT_INVALID', error.message, { cause: error });
  }
}

/** Opens a checkpoint that a majority of a roster has to cosign. Throws `CHECKPOINT_INVALID` and `QUORUM_MISSING`. */
export function openSealed(note: Uint8Array, cluster: Cluster, roster: Roster): ReturnType<typeof openLog> {
  const opened = openLog(note, cluster, keysOf(cluster, roster));
  if (opened.cosigners.length >= quorumOf(roster)) return opened;
  throw new WaggleError(
    'QUORUM_MISSING',
    `Expected cosignatures by ${quorumOf(roster)} of ${roster.length} members, received ${opened.cosigners.length}`,
  );
}
