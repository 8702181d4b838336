import { equalBytes, WaggleError } from '@waggle/protocol/base';
import {
  COSIGNATURE,
  formatNote,
  formatVerifierKey,
  openNote,
  parseCheckpoint,
  parseNote,
  type Checkpoint,
  type VerifierKey,
} from '@waggle/protocol/transparency';
import { nodeCrypto } from './node-crypto.ts';

/** A signed checkpoint as text, and where it was found. */
export interface Witnessed {
  readonly note: string;
  readonly where: string;
}

/**
 * Two checkpoints of one log with one tree size and different roots, both signed by one key: whoever holds that key has shown two
 * histories. Anyone can check it with the key alone.
 */
export interface Misbehaviour {
  /** The verifier key (c2sp.org/signed-note) that signed both; a cosigner's if one did. */
  readonly key: string;
  readonly treeSize: number;
  readonly checkpoints: readonly [Witnessed, Witnessed];
}

/** A misbehaviour as a finding. */
export class MisbehaviourError extends WaggleError {
  readonly misbehaviour: Misbehaviour;
  constructor(misbehaviour: Misbehaviour) {
    const [first, second] = misbehaviour.checkpoints;
    super(
      'HISTORY_CHANGED',
      `Expected one root of the tree of ${misbehaviour.treeSize} leaves, received two that one key signed: in ${first.where} and ${second.where}`,
    );
    this.misbehaviour = misbehaviour;
  }
}

/** What a note says, if it is a checkpoint at all. */
function checkpointIn({ note }: Witnessed): Checkpoint | null {
  try {
    return parseCheckpoint(parseNote(note).text);
  } catch (error) {
    if (error instanceof WaggleError) return null;
    throw error;
  }
}

/** The keys among these that signed the note well. Each line by itself: a bad one beside it takes nothing from a good one. */
function signersOf({ note }: Witnessed, keys: readonly VerifierKey[]): VerifierKey[] {
  const { text, signatures } = parseNote(note);
  return signatures.flatMap((line) => {
    try {
      return openNote(nodeCrypto, formatNote({ text, signatures: [line] }), keys).verified.map(({ key }) => key);
    } catch (error) {
      if (error instanceof WaggleError) return [];
      throw error;
    }
  });
}

/** The proof that one of the keys signed two roots of one size, if these two checkpoints are one; else null. */
export function misbehaviourIn(first: Witnessed, second: Witnessed, keys: readonly VerifierKey[]): Misbehaviour | null {
  const [a, b] = [checkpointIn(first), checkpointIn(second)];
  if (a === null || b === null || a.origin !== b.origin || a.size !== b.size || equalBytes(a.root, b.root)) return null;
  const also = new Set(signersOf(second, keys).map(formatVerifierKey));
  const both = signersOf(first, keys).filter((key) => also.has(formatVerifierKey(key)));
  const key = both.find(({ type }) => type === COSIGNATURE) ?? both[0];
  return key === undefined ? null : { key: formatVerifierKey(key), treeSize: a.size, checkpoints: [first, second] };
}
