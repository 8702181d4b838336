import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { utf8, type ClusterId, type Epoch } from '@waggle/protocol/base';
import type { ControlRegister } from '@waggle/protocol/lattice';
import type { Member } from '@waggle/protocol/member';
import type { Evidence } from '@waggle/protocol/sealing';
import { syncPath } from './data-directory.ts';

/** A name in the data directory. */
const FILE = 'evidence.jsonl';
/** The file grows no further, in bytes: a liar must not fill the disk. The largest piece takes some 200 KiB. */
export const EVIDENCE_BYTES_MAX = 1024 * 1024;
const KINDS = ['close', 'ballot', 'seal'] as const;
const WHATS: ReadonlySet<unknown> = new Set<Evidence['what']>([
  'malformed',
  'closedTwice',
  'ahead',
  'noVote',
  'otherRoot',
]);
const LINE_FEED = 0x0a;

/** What was refused, with the registers that its writer signed about that epoch, as they are held here. */
export interface EvidencePiece extends Evidence {
  readonly registers: readonly ControlRegister[];
}

/** Evidence of the file, without its registers. */
export type KeptEvidence = Evidence & {
  /** RFC 3339. */
  readonly seenAt: string;
  readonly cluster: ClusterId;
};

/** What a member has found, with the registers that show it; none of what came from nobody in particular. */
export const evidenceOf = ({ evidence, registers }: Pick<Member, 'evidence' | 'registers'>): EvidencePiece[] =>
  evidence.map((found) => ({ ...found, registers: registersOf(registers.control, found) }));

const registersOf = (
  control: Member['registers']['control'],
  { replica, epoch }: Pick<Evidence, 'replica' | 'epoch'>,
): ControlRegister[] =>
  replica === null ? [] : KINDS.flatMap((kind) => control.get(replica, `${kind}/${epoch}`) ?? []);

/** What makes two pieces the same one: their registers may have changed meanwhile. */
export const evidenceName = ({ epoch, replica, what, code }: Evidence): string =>
  JSON.stringify([epoch, replica, what, code]);

/** The evidence of a data directory: lines of JSON, each durable once `add` returns. Made by `openEvidence`. */
export interface EvidenceFile {
  /** In the order in which it was seen. */
  readonly pieces: readonly KeptEvidence[];
  /** Whether it is in the file. */
  has(piece: Evidence): boolean;
  /** Adds a piece, once. False if the file has no room for it. Throws what the disk says; then the file is as it was. */
  add(piece: EvidencePiece, seenMs: number): boolean;
}

/**
 * Reads what the file has of a cluster (of those before it, it stays in the file), and makes it with the first piece. A last line that a crash left unfinished is cut off; lines that are not of the
 * form are passed over. Throws what the disk says.
 */
export function openEvidence(directory: string, cluster: ClusterId): EvidenceFile {
  const path = join(directory, FILE);
  const { lines, end } = read(path);
  const pieces = lines.flatMap((line) => parse(line) ?? []).filter((piece) => piece.cluster === cluster);
  const names = new Set(pieces.map(evidenceName));
  let size = end;
  return {
    pieces,
    has: (piece) => names.has(evidenceName(piece)),
    add(piece, seenMs) {
      if (names.has(evidenceName(piece))) return true;
      const { epoch, replica, what, code } = piece;
      const registers = piece.registers.map(({ key, version, value, signature }) => ({
        key,
        version,
        value,
        signature,
      }));
      const kept: KeptEvidence = { seenAt: new Date(seenMs).toISOString(), cluster, epoch, replica, what, code };
      const bytes = utf8(`${JSON.stringify({ ...kept, registers })}\n`);
      if (size + bytes.length > EVIDENCE_BYTES_MAX) return false;
      size = append(path, bytes, size);
      pieces.push(kept);
      names.add(evidenceName(kept));
      return true;
    },
  };
}

/** The whole lines of the file, and where the last of them ends: what comes behind it goes. */
function read(path: string): { readonly lines: readonly string[]; readonly end: number } {
  if (statSync(path, { throwIfNoEntry: false }) === undefined) return { lines: [], end: 0 };
  const fd = openSync(path, constants.O_RDONLY);
  try {
    // More than the bound was not written here: the rest is left alone, and nothing is added.
    const { size } = fstatSync(fd);
    const bytes = Buffer.alloc(Math.min(size, EVIDENCE_BYTES_MAX));
    const length = readSync(fd, bytes, 0, bytes.length, 0);
    const end = bytes.subarray(0, length).lastIndexOf(LINE_FEED) + 1;
    return {
      lines: bytes.subarray(0, end).toString('utf8').split('\n'),
      end: size > EVIDENCE_BYTES_MAX ? size : end,
    };
  } finally {
    closeSync(fd);
  }
}

function parse(line: string): KeptEvidence | undefined {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { seenAt, cluster, epoch, replica, what, code } = Object(json) as Record<string, unknown>;
  const isText = [seenAt, cluster, code, replica ?? ''].every((text) => typeof text === 'string');
  if (!isText || !WHATS.has(what) || !Number.isSafeInteger(epoch)) return undefined;
  return { seenAt, cluster, epoch: epoch as Epoch, replica: replica ?? null, what, code } as KeptEvidence;
}

/** Writes behind the lines that are there, and gives where the file ends now. What was written in part is cut off again. */
function append(path: string, bytes: Uint8Array, end: number): number {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  try {
    // Shorter if somebody took it away meanwhile.
    const from = Math.min(end, fstatSync(fd).size);
    ftruncateSync(fd, from);
    try {
      for (let offset = 0; offset < bytes.length;)
        offset += writeSync(fd, bytes, offset, bytes.length - offset, from + offset);
      fsyncSync(fd);
      if (from === 0) syncPath(dirname(path));
    } catch (error) {
      ftruncateSync(fd, from);
      throw error;
    }
    return from + bytes.length;
  } finally {
    closeSync(fd);
  }
}
