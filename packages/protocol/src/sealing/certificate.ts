import {
  base64,
  digestOf,
  equalBytes,
  parseDigest,
  WaggleError,
  type Crypto,
  type Digest,
  type Json,
  type ReplicaId,
  type Signer,
} from '../base/index.ts';
import {
  checkpointText,
  COSIGNATURE,
  cosignCheckpoint,
  cosignerKey,
  formatSignatureLine,
  LOG_SIGNATURE,
  logKey,
  openCheckpoint,
  signCheckpoint,
  type Checkpoint,
  type VerifierKey,
} from '../transparency/index.ts';
import { parseFields, quorumOf, type Roster, type RosterEntry } from './roster.ts';

/** Two signature lines with names of 255 characters at most. */
const SEAL_LINES_LENGTH_MAX = 1_024;

/** `seal/<epoch>`: a member's two signature lines under the checkpoint, and the header that it took for chosen. */
export interface SealRegister {
  readonly header: Digest;
  readonly lines: string;
}

/** Throws `DECODE_FAILED` unless the value is a seal register's. */
export function parseSeal(value: Json): SealRegister {
  const { header, lines } = parseFields(value, ['header', 'lines'], 'a seal');
  if (typeof lines !== 'string' || lines.length > SEAL_LINES_LENGTH_MAX || !/^(— [^\n]+\n){2}$/.test(lines))
    throw new WaggleError('DECODE_FAILED', 'Expected two signature lines in a seal');
  return { header: parseDigest(header), lines };
}

/** A member's lines under a checkpoint, signed at `unixSeconds` (whole) by its clock. */
export function signLines(
  crypto: Crypto,
  checkpoint: Checkpoint,
  replica: ReplicaId,
  { logSigner, cosigner }: { readonly logSigner: Signer; readonly cosigner: Signer },
  unixSeconds: number,
): string {
  const text = checkpointText(checkpoint);
  const log = signCheckpoint(crypto, text, checkpoint.origin, logSigner);
  return log + cosignCheckpoint(crypto, text, checkpoint.origin, replica, cosigner, unixSeconds);
}

const keysOf = (crypto: Crypto, origin: string, member: RosterEntry): VerifierKey[] => [
  logKey(crypto, origin, base64.decode(member.logKey)),
  cosignerKey(crypto, origin, member.replica, base64.decode(member.cosignerKey)),
];

/** Whether the lines are a member's own, under this checkpoint and no other. */
export function areLinesOf(crypto: Crypto, checkpoint: Checkpoint, member: RosterEntry, lines: string): boolean {
  const keys = keysOf(crypto, checkpoint.origin, member);
  try {
    const { verified } = openCheckpoint(crypto, `${checkpointText(checkpoint)}\n${lines}`, keys);
    return verified.length === keys.length;
  } catch (error) {
    if (error instanceof WaggleError) return false;
    throw error;
  }
}

/**
 * The signed note of a checkpoint: its text and the lines of the first majority, in roster order, of all that are held. So nodes
 * that hold the same signatures hold the same bytes. Null if there is no majority.
 */
export function noteOf(checkpoint: Checkpoint, roster: Roster, held: ReadonlyMap<ReplicaId, string>): string | null {
  const lines = roster.flatMap(({ replica }) => held.get(replica) ?? []);
  const quorum = quorumOf(roster);
  return lines.length < quorum ? null : `${checkpointText(checkpoint)}\n${lines.slice(0, quorum).join('')}`;
}

/**
 * Opens a signed note that a majority of a roster must have signed, each as the log and as cosigner. Throws `DECODE_FAILED`,
 * `CHECKPOINT_INVALID` or `QUORUM_MISSING`.
 */
export function openNoteOf(
  crypto: Crypto,
  origin: string,
  roster: Roster,
  note: string,
): { readonly checkpoint: Checkpoint; readonly lines: ReadonlyMap<ReplicaId, string> } {
  const { checkpoint, verified } = openCheckpoint(
    crypto,
    note,
    roster.flatMap((member) => keysOf(crypto, origin, member)),
  );
  if (checkpoint.origin !== origin)
    throw new WaggleError('CHECKPOINT_INVALID', `Expected origin ${origin}, received ${checkpoint.origin}`);
  const lineOf = (type: number, publicKey: string): string => {
    const found = verified.find(({ key }) => key.type === type && equalBytes(key.publicKey, base64.decode(publicKey)));
    return found === undefined ? '' : formatSignatureLine(found.line);
  };
  const lines = new Map<ReplicaId, string>();
  for (const member of roster) {
    const both = [lineOf(LOG_SIGNATURE, member.logKey), lineOf(COSIGNATURE, member.cosignerKey)];
    if (!both.includes('')) lines.set(member.replica, both.join(''));
  }
  if (lines.size < quorumOf(roster))
    throw new WaggleError(
      'QUORUM_MISSING',
      `Expected cosignatures by ${quorumOf(roster)} of ${roster.length} members, received ${lines.size}`,
    );
  return { checkpoint, lines };
}

/** What a restart needs of an epoch that was sealed lately: more signatures may still come. */
export interface PastEpoch {
  readonly roster: Roster;
  readonly header: Uint8Array;
  /** The signed note. */
  readonly checkpoint: string;
}

/** The signatures that come in under one chosen checkpoint, checked once each. */
export class Certificate {
  readonly #crypto: Crypto;
  readonly roster: Roster;
  readonly header: Digest;
  readonly checkpoint: Checkpoint;
  readonly #good = new Map<ReplicaId, string>();
  readonly #refused = new Set<SealRegister>();

  constructor(crypto: Crypto, roster: Roster, header: Digest, checkpoint: Checkpoint) {
    this.#crypto = crypto;
    this.roster = roster;
    this.header = header;
    this.checkpoint = checkpoint;
  }

  /** The certificate of a sealed epoch, with the signatures of its note. Throws as `openNoteOf`, and `DECODE_FAILED`. */
  static of(crypto: Crypto, origin: string, { roster, header, checkpoint: note }: PastEpoch): Certificate {
    const { checkpoint, lines } = openNoteOf(crypto, origin, roster, note);
    const certificate = new Certificate(crypto, roster, digestOf(crypto, header), checkpoint);
    certificate.takeOpened(lines);
    return certificate;
  }

  /** Takes in registers. Gives the members whose signatures are under something else, each once. */
  take(seals: ReadonlyMap<ReplicaId, SealRegister>): ReplicaId[] {
    return this.roster.flatMap((member) => {
      const seal = seals.get(member.replica);
      if (seal === undefined || this.#good.has(member.replica) || this.#refused.has(seal)) return [];
      if (seal.header === this.header && areLinesOf(this.#crypto, this.checkpoint, member, seal.lines)) {
        this.#good.set(member.replica, seal.lines);
        return [];
      }
      this.#refused.add(seal);
      return [member.replica];
    });
  }

  /** Takes in the lines of a note that was opened. */
  takeOpened(lines: ReadonlyMap<ReplicaId, string>): void {
    for (const [replica, text] of lines) if (!this.#good.has(replica)) this.#good.set(replica, text);
  }

  /** The signed note, as `noteOf`. */
  note(): string | null {
    return noteOf(this.checkpoint, this.roster, this.#good);
  }
}
