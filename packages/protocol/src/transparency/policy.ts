import { hex, WaggleError, type Crypto, type ReplicaId } from '../base/index.ts';
import { cosignerKey, logKey } from './checkpoint.ts';
import { formatVerifierKey } from './note.ts';

/** One voter of a roster, as its signatures are checked. */
export interface PolicyMember {
  readonly replica: ReplicaId;
  /** 32 bytes of Ed25519, type 0x01. */
  readonly logKey: Uint8Array;
  /** 32 bytes of Ed25519, type 0x04. */
  readonly cosignerKey: Uint8Array;
}

/**
 * The trust policy of a roster (c2sp.org/tlog-policy), so that generic tools can check its checkpoints: the log is
 * whoever of the roster signed as the log, the quorum a majority of the cosigners. Throws `DECODE_FAILED` for an empty
 * roster or one key used twice, which no policy can express.
 */
export function formatPolicy(crypto: Crypto, origin: string, roster: readonly PolicyMember[]): string {
  const keys = roster.flatMap((member) => [hex.encode(member.logKey), hex.encode(member.cosignerKey)]);
  if (roster.length === 0 || new Set(keys).size !== keys.length)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected a roster with keys of their own, received ${roster.length} members`,
    );
  const majority = Math.floor(roster.length / 2) + 1;
  return [
    `# Who speaks for ${origin}: https://c2sp.org/tlog-policy`,
    ...roster.map((member) => `log ${formatVerifierKey(logKey(crypto, origin, member.logKey))}`),
    ...roster.map(({ replica, cosignerKey: publicKey }) => {
      // Key names hold the beginning of the replica id only; these names must be unique.
      return `witness ${replica} ${formatVerifierKey(cosignerKey(crypto, origin, replica, publicKey))}`;
    }),
    `group roster ${majority} ${roster.map(({ replica }) => replica).join(' ')}`,
    'quorum roster',
    '',
  ].join('\n');
}
