import { base64, jcs, parseWhole, utf8, WaggleError, type Crypto, type Epoch, type Json } from '../base/index.ts';
import {
  chainStart,
  parseFields,
  parseHeader,
  parseRoster,
  rosterDigest,
  type Cluster,
  type Roster,
} from '../sealing/index.ts';
import { leafHash, verifyInclusion } from '../transparency/index.ts';
import { parseLines } from '../usage/index.ts';
import { named, readCheckpoint } from './checkpoint.ts';
import { verifySuccessor } from './succession.ts';

/** A roster, and the first epoch that it may vote on. */
export interface RosterFrom {
  readonly from: Epoch;
  readonly roster: Roster;
}

/** A sealed epoch that decided another roster, with what proves it to whoever knows the roster before. */
export interface RosterChange {
  readonly epoch: Epoch;
  /** JCS text: the leaf. */
  readonly header: string;
  /** The signed note of that epoch. */
  readonly checkpoint: string;
  /** Of the header's leaf. */
  readonly index: number;
  /** Its inclusion in the tree of the checkpoint: 32 bytes each, from the leaf's sibling up. */
  readonly hashes: readonly Uint8Array[];
  /** Who votes from the next epoch on. */
  readonly roster: Roster;
}

const FIELDS = ['epoch', 'header', 'checkpoint', 'index', 'hashes', 'roster'];

/** A line of the chain of rosters, without its line feed: JCS. */
export const encodeRosterChange = ({ hashes, roster, ...change }: RosterChange): string =>
  jcs({
    ...change,
    hashes: hashes.map((hash) => base64.encode(hash)),
    roster: roster.map((entry) => ({ ...entry })),
  });

function parseChange(value: Json): RosterChange {
  const change = parseFields(value, FIELDS, 'a change of the roster');
  const { hashes } = change;
  if (!Array.isArray(hashes)) throw new WaggleError('DECODE_FAILED', 'Expected a list of hashes');
  return {
    epoch: parseWhole(change['epoch'], 'an epoch'),
    header: parseText(change['header']),
    checkpoint: parseText(change['checkpoint']),
    index: parseWhole(change['index'], 'an index'),
    hashes: hashes.map((hash: Json) => base64.decode(parseText(hash))),
    roster: parseRoster(utf8(jcs(change['roster']!))),
  };
}

function parseText(value: Json | undefined): string {
  if (typeof value === 'string') return value;
  throw new WaggleError('DECODE_FAILED', 'Expected a text');
}

/**
 * Checks the chain of rosters, trusting nothing but the genesis: each change is in a tree that a majority of the roster in force
 * has cosigned. Gives all rosters, ascending, the first being that of the genesis. That nothing was left out at the end it cannot
 * know; a change that is left out before shows by the signatures of those who came with it, unless somebody takes these away and a
 * majority of the older roster has signed as well.
 * Throws `ROSTER_MISMATCH` for lines that are none, in the wrong order, or with another roster than the header names,
 * `CHECKPOINT_INVALID`, `QUORUM_MISSING`, `HEADER_MISMATCH`, `PROOF_INVALID`, `HISTORY_CHANGED` for a tree that does not grow, and
 * `GENESIS_MISMATCH` for the genesis of a successor that the operator did not sign.
 */
export function verifyRosters(cluster: Cluster, lines: Uint8Array, crypto: Crypto): RosterFrom[] {
  verifySuccessor(cluster, crypto);
  const changes = named('ROSTER_MISMATCH', 'the chain of rosters', () =>
    parseLines(lines, 'a change of the roster', parseChange),
  );
  const { epoch, roster } = chainStart(cluster);
  const rosters: RosterFrom[] = [{ from: epoch, roster }];
  let treeSize = 0;
  for (const change of changes) {
    treeSize = said(change, () => verifyChange(cluster, change, rosters.at(-1)!, treeSize, crypto));
    rosters.push({ from: change.epoch + 1, roster: change.roster });
  }
  return rosters;
}

/** Says of which change an error speaks. */
function said<T>({ epoch }: RosterChange, part: () => T): T {
  try {
    return part();
  } catch (cause) {
    if (!(cause instanceof WaggleError)) throw cause;
    throw new WaggleError(cause.code, `The change of the roster in epoch ${epoch}: ${cause.message}`, { cause });
  }
}

/** Checks a change against the roster before it, and a tree no larger than the one before; gives the size of its tree. */
function verifyChange(
  { id, origin }: Cluster,
  { epoch, header: text, checkpoint: note, index, hashes, roster }: RosterChange,
  before: RosterFrom,
  treeSize: number,
  crypto: Crypto,
): number {
  if (epoch < before.from)
    throw new WaggleError('ROSTER_MISMATCH', `Expected an epoch from ${before.from} on, received ${epoch}`);
  const { checkpoint } = readCheckpoint(utf8(note), origin, before.roster, crypto);
  const header = named('HEADER_MISMATCH', 'header', () => parseHeader(utf8(text)));
  if (header.cluster !== id || header.epoch !== epoch)
    throw new WaggleError(
      'HEADER_MISMATCH',
      `Expected the header of epoch ${epoch} of cluster ${id}, received that of epoch ${header.epoch} of ${header.cluster}`,
    );
  verifyInclusion(crypto, { index, size: checkpoint.size, hashes }, leafHash(crypto, utf8(text)), checkpoint.root);
  if (index < treeSize)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected its header after ${treeSize} leaves, received it as leaf ${index}`,
    );
  if (rosterDigest(roster, crypto) !== header.roster || rosterDigest(before.roster, crypto) === header.roster)
    throw new WaggleError('ROSTER_MISMATCH', 'Expected the roster that its header names, and another than before');
  return checkpoint.size;
}
