import { base64, WaggleError } from '../base/index.ts';
import { parseCheckpoint } from './checkpoint.ts';
import { HASH_BYTES } from './merkle.ts';
import { NOTE_LENGTH_MAX, parseNote } from './note.ts';

const HEADER = 'c2sp.org/tlog-proof@v1';
/** A tree of at most 2^53 − 1 leaves is no higher. */
const HASHES_MAX = 53;
const EXTRA_BYTES_MAX = 1 << 20;
/** UTF-16 units: the checkpoint, `extra` in base64, the hashes. */
const PROOF_LENGTH_MAX = NOTE_LENGTH_MAX + 2 * EXTRA_BYTES_MAX;

/** A `.tlog-proof` file: that a leaf stands in the tree of a signed checkpoint (c2sp.org/tlog-proof). */
export interface LogProof {
  /** For the application, not authenticated by anything here; at most 1 MiB. */
  readonly extra?: Uint8Array;
  /** Of the leaf: 0 to tree size − 1. */
  readonly index: number;
  /** The inclusion proof: 32 bytes each, from the leaf's sibling up. */
  readonly hashes: readonly Uint8Array[];
  /** The signed checkpoint, verbatim. */
  readonly checkpoint: string;
}

/** The text of a proof. Throws `DECODE_FAILED` for what would not parse again. */
export function formatLogProof({ extra, index, hashes, checkpoint }: LogProof): string {
  const lines = [
    HEADER,
    ...(extra === undefined ? [] : [`extra ${base64.encode(extra)}`]),
    `index ${index}`,
    ...hashes.map((hash) => base64.encode(hash)),
  ];
  const text = `${lines.join('\n')}\n\n${checkpoint}`;
  parseLogProof(text);
  return text;
}

function check(condition: boolean, expected: string): asserts condition {
  if (!condition) throw new WaggleError('DECODE_FAILED', `Expected ${expected} in a ${HEADER} file`);
}

/**
 * The parts of a proof file, strictly: one text for one proof. The checkpoint's form is checked and its index against
 * its tree size; open it and verify the inclusion before you believe any of it. Throws `DECODE_FAILED`.
 */
export function parseLogProof(text: string): LogProof {
  check(text.length <= PROOF_LENGTH_MAX, `at most ${PROOF_LENGTH_MAX} characters`);
  const split = text.indexOf('\n\n');
  check(split >= 0, 'a blank line before the checkpoint');
  const checkpoint = text.slice(split + 2);
  const { size } = parseCheckpoint(parseNote(checkpoint).text);

  const [header, ...lines] = text.slice(0, split).split('\n', HASHES_MAX + 4);
  check(header === HEADER, `the first line ${HEADER}`);
  const extra = lines[0]?.startsWith('extra ') ? base64.decode(lines.shift()!.slice('extra '.length)) : undefined;
  check(extra === undefined || extra.length <= EXTRA_BYTES_MAX, `at most ${EXTRA_BYTES_MAX} bytes of extra data`);
  const position = /^index (0|[1-9][0-9]{0,15})$/.exec(lines.shift() ?? '')?.[1];
  check(position !== undefined && Number(position) < size, `an index below the tree size ${size}`);
  check(lines.length <= HASHES_MAX, `at most ${HASHES_MAX} hashes`);
  const hashes = lines.map((line) => base64.decode(line));
  check(
    hashes.every((hash) => hash.length === HASH_BYTES),
    `hashes of ${HASH_BYTES} bytes`,
  );
  return { ...(extra === undefined ? {} : { extra }), index: Number(position), hashes, checkpoint };
}
