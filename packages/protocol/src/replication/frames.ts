import {
  assert,
  hex,
  parseRun,
  utf8,
  WaggleError,
  WireReader,
  WireWriter,
  type ClusterId,
  type Digest,
  type Epoch,
  type ReplicaId,
  type Run,
} from '../base/index.ts';
import { MESSAGE_BYTES_MAX, parseUsageWriter, usageWriter } from '../lattice/index.ts';
import {
  BODY_BYTES_MAX,
  CHUNK_BYTES,
  CONTENT_BYTES_MAX,
  ENTRY_VERSIONS_MAX,
  SHOWN_EPOCHS_MAX,
  VERSION_MAJOR,
  VERSION_MAJOR_MIN,
  VERSION_MINOR,
} from './constants.ts';
import { CLASSES, type ClassName, type PerClass, type ShownEpoch } from './types.ts';

/**
 * What a node holds of one writer, as it says it to another. `pending` are the versions held in `(after, through]` without all
 * of their predecessors, ascending; the first window of a writer has `after = reached`, the last `through = VERSION_LAST`.
 */
export interface Entry {
  readonly writer: string;
  /** The version up to which everything is held. */
  readonly upTo: number;
  /** How far a catch-up has got, `upTo` if there is none: nothing up to there is to be sent. */
  readonly reached: number;
  readonly after: number;
  readonly through: number;
  readonly pending: readonly number[];
}

/** Above every version: a window that does not end. */
export const VERSION_LAST = Number.MAX_SAFE_INTEGER;

/** Entries of every writer in `(after, through]` of which anything is held, in order; null is before and after all of them. */
export interface Page {
  readonly after: string | null;
  readonly through: string | null;
  readonly entries: readonly Entry[];
}

type Encoded = readonly Uint8Array[];

export type Frame =
  /** News in `control`: deltas. */
  | { readonly type: 'rumor'; readonly deltas: Encoded }
  /** Opens an exchange with the digests of all that the sender holds (shortened: only chance could make two equal). */
  | { readonly type: 'open'; readonly exchange: number; readonly digests: PerClass<Uint8Array> }
  /** In which classes both hold the same; of the others the pages of the vector follow. */
  | { readonly type: 'answer'; readonly exchange: number; readonly same: PerClass<boolean> }
  | {
      readonly type: 'vector';
      readonly exchange: number;
      readonly class: ClassName;
      readonly isLast: boolean;
      readonly page: Page;
    }
  /** Asks for what the sender lacks beyond these entries. */
  | { readonly type: 'want'; readonly exchange: number; readonly class: ClassName; readonly entries: readonly Entry[] }
  | { readonly type: 'deltas'; readonly exchange: number; readonly class: ClassName; readonly deltas: Encoded }
  /** The end of the deltas: after a `want` (`isReply`), or of what the opener had for the other. */
  | {
      readonly type: 'done';
      readonly exchange: number;
      readonly class: ClassName;
      readonly isReply: boolean;
      readonly more: boolean;
      /** How many `deltas` of the exchange and class went before it: with fewer, some were lost. */
      readonly frames: number;
    }
  /** Who has this content? */
  | { readonly type: 'ask'; readonly digest: Digest }
  | { readonly type: 'have'; readonly digest: Digest; readonly length: number }
  | { readonly type: 'lack'; readonly digest: Digest }
  /** Asks for the next window of chunks. */
  | { readonly type: 'get'; readonly digest: Digest; readonly offset: number }
  | { readonly type: 'chunk'; readonly digest: Digest; readonly offset: number; readonly bytes: Uint8Array }
  /** Asks to be told when the receiver holds the sender's own registers (of usage: of that run) up to a version, or more of them. */
  | { readonly type: 'follow'; readonly class: ClassName; readonly run: Run; readonly version: number }
  /** How far the sender holds everything that the receiver wrote: the answer to a `follow`, as far as it is now. */
  | { readonly type: 'holds'; readonly class: ClassName; readonly run: Run; readonly upTo: number }
  /** Asks for sealed epochs, from this one on. */
  | { readonly type: 'epochs'; readonly from: Epoch }
  /** Sealed epochs, one after the other; none if the sender has sealed no more. */
  | { readonly type: 'sealed'; readonly epochs: readonly ShownEpoch[] }
  /** Two processes write as the receiver's replica: the runs that the sender hears. */
  | { readonly type: 'runs'; readonly newest: Run; readonly older: Run }
  /** The majors that the sender understands: the answer to a frame of another one. */
  | { readonly type: 'versions'; readonly least: number; readonly most: number };

type FrameOf<T extends Frame['type']> = Extract<Frame, { type: T }>;

/** Bytes of the cluster id in every frame: frames that strayed here, not attackers, are told apart by it. */
const CLUSTER_BYTES = 8;
const REPLICA_BYTES = 16;
const DIGEST_BYTES = 32;
/** Of a digest in `open`. */
export const SHORT_DIGEST_BYTES = 16;
/** A bound of one entry without its versions. */
const ENTRY_BYTES = REPLICA_BYTES + 6 * 8;

/** Bytes that an entry takes, at most. */
export const entryBytes = ({ pending }: Entry): number => ENTRY_BYTES + 8 * pending.length;

/** Bytes that a sealed epoch takes in a frame, at most. */
export const shownBytes = ({ header, checkpoint }: ShownEpoch): number =>
  7 + DIGEST_BYTES + header.length + utf8(checkpoint).length;

/** Bytes that an encoded delta takes in a frame, at most. */
export const packedBytes = (delta: Uint8Array): number => 3 + delta.length;

interface Codec<F extends Frame> {
  readonly id: number;
  readonly write: (wire: WireWriter, frame: F) => void;
  readonly read: (wire: WireReader) => Omit<F, 'type'>;
}

const readRun = (wire: WireReader): Run => parseRun(wire.varint());
const flag = (wire: WireReader): boolean => wire.varint(1) === 1;
const writeDigest = (wire: WireWriter, digest: Digest): WireWriter => wire.raw(hex.decode(digest));
const readDigest = (wire: WireReader): Digest => hex.encode(wire.raw(DIGEST_BYTES)) as Digest;
const writeClass = (wire: WireWriter, name: ClassName): WireWriter => wire.varint(CLASSES.indexOf(name));
const readClass = (wire: WireReader): ClassName => CLASSES[wire.varint(CLASSES.length - 1)]!;

function writeDeltas(wire: WireWriter, deltas: Encoded): void {
  wire.varint(deltas.length);
  for (const delta of deltas) wire.bytes(delta);
}

function readDeltas(wire: WireReader): Uint8Array[] {
  const deltas: Uint8Array[] = [];
  for (let count = wire.varint(wire.left); count > 0; count--) deltas.push(wire.bytes(BODY_BYTES_MAX));
  return deltas;
}

function writeWriter(wire: WireWriter, name: ClassName, writer: string): void {
  if (name === 'control') wire.raw(hex.decode(writer));
  else {
    const { replica, run } = parseUsageWriter(writer);
    wire.raw(hex.decode(replica)).varint(run);
  }
}

function readWriter(wire: WireReader, name: ClassName): string {
  const replica = hex.encode(wire.raw(REPLICA_BYTES)) as ReplicaId;
  return name === 'control' ? replica : usageWriter(replica, parseRun(wire.varint()));
}

/** `writer ‖ upTo ‖ reached − upTo ‖ after − reached ‖ (0 | through − after + 1) ‖ count ‖ (version − previous − 1)*` */
function writeEntry(wire: WireWriter, name: ClassName, entry: Entry): void {
  const { writer, upTo, reached, after, through, pending } = entry;
  writeWriter(wire, name, writer);
  wire
    .varint(upTo)
    .varint(reached - upTo)
    .varint(after - reached)
    .varint(through === VERSION_LAST ? 0 : through - after + 1)
    .varint(pending.length);
  let last = after;
  for (const version of pending) {
    wire.varint(version - last - 1);
    last = version;
  }
}

function readEntry(wire: WireReader, name: ClassName): Entry {
  const sum = (from: number): number => from + wire.varint(VERSION_LAST - from);
  const writer = readWriter(wire, name);
  const upTo = wire.varint();
  const reached = sum(upTo);
  const after = sum(reached);
  const length = wire.varint(VERSION_LAST - after);
  const through = length === 0 ? VERSION_LAST : after + length - 1;
  const pending: number[] = [];
  let last = after;
  for (let count = wire.varint(Math.min(wire.left, ENTRY_VERSIONS_MAX)); count > 0; count--) {
    if (last >= through) throw new WaggleError('DECODE_FAILED', `Expected versions up to ${through}`);
    last += 1 + wire.varint(through - last - 1);
    pending.push(last);
  }
  return { writer, upTo, reached, after, through, pending };
}

function writeEntries(wire: WireWriter, name: ClassName, entries: readonly Entry[]): void {
  wire.varint(entries.length);
  for (const entry of entries) writeEntry(wire, name, entry);
}

function readEntries(wire: WireReader, name: ClassName): Entry[] {
  const entries: Entry[] = [];
  for (let count = wire.varint(Math.floor(wire.left / REPLICA_BYTES)); count > 0; count--)
    entries.push(readEntry(wire, name));
  return entries;
}

function writeBound(wire: WireWriter, name: ClassName, writer: string | null): void {
  wire.varint(writer === null ? 0 : 1);
  if (writer !== null) writeWriter(wire, name, writer);
}

const readBound = (wire: WireReader, name: ClassName): string | null => (flag(wire) ? readWriter(wire, name) : null);

/** `count ‖ (epoch of the first ‖ (header ‖ checkpoint ‖ (0 | 1 ‖ statements[32]))*)`, the latter unless there are none */
function writeEpochs(wire: WireWriter, epochs: readonly ShownEpoch[]): void {
  wire.varint(epochs.length);
  if (epochs.length > 0) wire.varint(epochs[0]!.epoch);
  for (const { header, checkpoint, statements } of epochs) {
    wire
      .bytes(header)
      .text(checkpoint)
      .varint(statements === undefined ? 0 : 1);
    if (statements !== undefined) writeDigest(wire, statements);
  }
}

function readEpochs(wire: WireReader): ShownEpoch[] {
  const count = wire.varint(SHOWN_EPOCHS_MAX);
  const first = count === 0 ? 0 : wire.varint(VERSION_LAST - count);
  // Copies: they are kept until the epochs before them are sealed here.
  return Array.from({ length: count }, (_, i) => ({
    epoch: first + i,
    header: wire.bytes(BODY_BYTES_MAX).slice(),
    checkpoint: wire.text(BODY_BYTES_MAX),
    ...(flag(wire) ? { statements: readDigest(wire) } : {}),
  }));
}

const CODECS: { readonly [T in Frame['type']]: Codec<FrameOf<T>> } = {
  rumor: {
    id: 1,
    write: (wire, { deltas }) => writeDeltas(wire, deltas),
    read: (wire) => ({ deltas: readDeltas(wire) }),
  },
  open: {
    id: 2,
    write: (wire, { exchange, digests }) => {
      wire.varint(exchange);
      for (const name of CLASSES) wire.raw(digests[name]);
    },
    read: (wire) => ({
      exchange: wire.varint(),
      digests: { control: wire.raw(SHORT_DIGEST_BYTES), usage: wire.raw(SHORT_DIGEST_BYTES) },
    }),
  },
  answer: {
    id: 3,
    write: (wire, { exchange, same }) => {
      wire.varint(exchange);
      for (const name of CLASSES) wire.varint(Number(same[name]));
    },
    read: (wire) => ({ exchange: wire.varint(), same: { control: flag(wire), usage: flag(wire) } }),
  },
  vector: {
    id: 4,
    write: (wire, { exchange, class: name, isLast, page }) => {
      writeClass(wire.varint(exchange), name).varint(Number(isLast));
      writeBound(wire, name, page.after);
      writeBound(wire, name, page.through);
      writeEntries(wire, name, page.entries);
    },
    read: (wire) => {
      const [exchange, name, isLast] = [wire.varint(), readClass(wire), flag(wire)];
      const [after, through] = [readBound(wire, name), readBound(wire, name)];
      return { exchange, class: name, isLast, page: { after, through, entries: readEntries(wire, name) } };
    },
  },
  want: {
    id: 5,
    write: (wire, { exchange, class: name, entries }) =>
      writeEntries(writeClass(wire.varint(exchange), name), name, entries),
    read: (wire) => {
      const [exchange, name] = [wire.varint(), readClass(wire)];
      return { exchange, class: name, entries: readEntries(wire, name) };
    },
  },
  deltas: {
    id: 6,
    write: (wire, { exchange, class: name, deltas }) => writeDeltas(writeClass(wire.varint(exchange), name), deltas),
    read: (wire) => ({ exchange: wire.varint(), class: readClass(wire), deltas: readDeltas(wire) }),
  },
  done: {
    id: 7,
    write: (wire, { exchange, class: name, isReply, more, frames }) =>
      void writeClass(wire.varint(exchange), name).varint(Number(isReply)).varint(Number(more)).varint(frames),
    read: (wire) => ({
      exchange: wire.varint(),
      class: readClass(wire),
      isReply: flag(wire),
      more: flag(wire),
      frames: wire.varint(),
    }),
  },
  ask: {
    id: 8,
    write: (wire, { digest }) => void writeDigest(wire, digest),
    read: (wire) => ({ digest: readDigest(wire) }),
  },
  have: {
    id: 9,
    write: (wire, { digest, length }) => void writeDigest(wire, digest).varint(length),
    read: (wire) => ({ digest: readDigest(wire), length: wire.varint(CONTENT_BYTES_MAX) }),
  },
  lack: {
    id: 10,
    write: (wire, { digest }) => void writeDigest(wire, digest),
    read: (wire) => ({ digest: readDigest(wire) }),
  },
  get: {
    id: 11,
    write: (wire, { digest, offset }) => void writeDigest(wire, digest).varint(offset),
    read: (wire) => ({ digest: readDigest(wire), offset: wire.varint(CONTENT_BYTES_MAX) }),
  },
  chunk: {
    id: 12,
    write: (wire, { digest, offset, bytes }) => void writeDigest(wire, digest).varint(offset).bytes(bytes),
    read: (wire) => ({
      digest: readDigest(wire),
      offset: wire.varint(CONTENT_BYTES_MAX),
      bytes: wire.bytes(CHUNK_BYTES),
    }),
  },
  follow: {
    id: 13,
    write: (wire, { class: name, run, version }) => void writeClass(wire, name).varint(run).varint(version),
    read: (wire) => ({ class: readClass(wire), run: readRun(wire), version: wire.varint() }),
  },
  holds: {
    id: 14,
    write: (wire, { class: name, run, upTo }) => void writeClass(wire, name).varint(run).varint(upTo),
    read: (wire) => ({ class: readClass(wire), run: readRun(wire), upTo: wire.varint() }),
  },
  epochs: {
    id: 15,
    write: (wire, { from }) => void wire.varint(from),
    read: (wire) => ({ from: wire.varint() }),
  },
  sealed: {
    id: 16,
    write: (wire, { epochs }) => writeEpochs(wire, epochs),
    read: (wire) => ({ epochs: readEpochs(wire) }),
  },
  runs: {
    id: 17,
    write: (wire, { newest, older }) => void wire.varint(newest).varint(older),
    read: (wire) => ({ newest: readRun(wire), older: readRun(wire) }),
  },
  versions: {
    id: 18,
    write: (wire, { least, most }) => void wire.varint(least).varint(most),
    read: (wire) => ({ least: wire.varint(), most: wire.varint() }),
  },
};

const TYPES = new Map(Object.entries(CODECS).map(([type, { id }]) => [id, type as Frame['type']]));

/** Why a frame is left alone, without anyone being at fault. */
type Ignored =
  { readonly type: 'foreignCluster' | 'unknownType' } | { readonly type: 'foreignVersion'; readonly major: number };

/** `cluster[8] ‖ major ‖ minor ‖ type ‖ body`, of at most 64 KiB: a longer one is a fault of this node, never of a member. */
export function encodeFrame(cluster: ClusterId, frame: Frame): Uint8Array<ArrayBuffer> {
  const codec = CODECS[frame.type] as Codec<Frame>;
  const wire = new WireWriter().raw(hex.decode(cluster).subarray(0, CLUSTER_BYTES));
  codec.write(wire.varint(VERSION_MAJOR).varint(VERSION_MINOR).varint(codec.id), frame);
  assert(wire.length <= MESSAGE_BYTES_MAX, `a frame ${frame.type} of ${wire.length} bytes fits into a message`);
  return wire.finish();
}

/** Parses what `encodeFrame` wrote, to the byte; views of the input. Throws `DECODE_FAILED`. */
export function decodeFrame(cluster: ClusterId, bytes: Uint8Array): Frame | Ignored {
  checkLength(bytes.length);
  const wire = new WireReader(bytes);
  if (hex.encode(wire.raw(CLUSTER_BYTES)) !== cluster.slice(0, 2 * CLUSTER_BYTES)) return { type: 'foreignCluster' };
  const major = wire.varint();
  if (major < VERSION_MAJOR_MIN || major > VERSION_MAJOR) return { type: 'foreignVersion', major };
  const [minor, id] = [wire.varint(), wire.varint()];
  const type = TYPES.get(id);
  if (type === undefined) {
    if (minor > VERSION_MINOR) return { type: 'unknownType' };
    throw new WaggleError('DECODE_FAILED', `Expected a type of frame of version ${VERSION_MAJOR}, received ${id}`);
  }
  const body = CODECS[type].read(wire);
  wire.end();
  return { type, ...body } as Frame;
}

function checkLength(length: number): void {
  if (length > MESSAGE_BYTES_MAX)
    throw new WaggleError('DECODE_FAILED', `Expected at most ${MESSAGE_BYTES_MAX} bytes, received ${length}`);
}
