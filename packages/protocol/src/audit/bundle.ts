import {
  assert,
  concat,
  hex,
  jcsBytes,
  parseDigest,
  parseJcs,
  parseReplicaId,
  parseRun,
  parseWhole,
  utf8,
  WaggleError,
  compareText,
  type Digest,
  type Epoch,
  type Json,
} from '../base/index.ts';
import { parseFields, type ChainState, type SlotEntry } from '../sealing/index.ts';
import { packTar, tarEnd, tarHeader, tarPadding, tarSize, unpackTar, type Frontier } from '../transparency/index.ts';
import { assertAscending, compareSlots, slotName, type SlotId } from '../usage/index.ts';

/**
 * A bundle is all that it takes to check one sealed epoch: files by name, in an archive `epoch-<n>/…` or in a folder.
 * There is no byte in it that the verifier does not account for.
 */
export type Bundle = ReadonlyMap<string, Uint8Array>;

/** The files that every bundle has; beside them only `slots/<slot>.jsonl` and `counted/<slot>.jsonl`. */
export const BUNDLE_FILES = {
  /** What founded the cluster: JCS. */
  genesis: 'genesis.json',
  /** Where the chain stood before this epoch: JCS. */
  chain: 'chain.json',
  /** The value of the epoch: JCS; the first leaf it appends. */
  header: 'header.json',
  /** The signed note. */
  checkpoint: 'checkpoint',
  /** Roster of this epoch and of the next: JCS. */
  roster: 'roster.json',
  nextRoster: 'next-roster.json',
  /** The roster facts that the epoch applies. */
  facts: 'facts.jsonl',
  /** The slot list. */
  slotList: 'slots.jsonl',
  /** The statements, one a line, in the order of their leaves. */
  statements: 'statements.jsonl',
} as const;

/** Where a bundle keeps the content of a slot that the slot list names. */
export const slotFile = (id: SlotId): string => `slots/${slotName(id)}.jsonl`;
/** Where it keeps what earlier seals counted of the same slot, if they did. */
export const countedFile = (id: SlotId): string => `counted/${slotName(id)}.jsonl`;

/** Leaves of a tree before an epoch at most: room for any epoch below the 2^53 of a tree size. */
const TREE_SIZE_MAX = 2 ** 52;

/** Bytes of one bundle at most that a verifier reads into memory. */
export const BUNDLE_BYTES_MAX = 1_073_741_824;

/** What of the chain a bundle says about the time before its epoch. */
export interface ChainFile {
  readonly epoch: Epoch;
  readonly format: number;
  readonly previous: Digest | null;
  /** The tree before this epoch. */
  readonly frontier: Frontier;
  /** What was counted before of the slots that this epoch counts more of. */
  readonly counted: readonly (SlotId & { readonly digest: Digest })[];
}

/** The chain file of an epoch: of `chain.counted` only what its slot list touches. */
export function encodeChainFile(chain: ChainState, frontier: Frontier, slotList: readonly SlotEntry[]): Uint8Array {
  const counted = slotList.flatMap(({ replica, run, epoch }) => {
    const digest = chain.counted.get(slotName({ replica, run, epoch }));
    return digest === undefined ? [] : [{ replica, run, epoch, digest }];
  });
  return jcsBytes({
    epoch: chain.epoch,
    format: chain.format,
    previous: chain.previous,
    frontier: { size: frontier.size, hashes: frontier.hashes.map(hex.encode) },
    counted,
  });
}

/** Throws `DECODE_FAILED`. */
export function parseChainFile(bytes: Uint8Array): ChainFile {
  const chain = parseFields(
    parseJcs(bytes, 'a chain file'),
    ['epoch', 'format', 'previous', 'frontier', 'counted'],
    'a chain file',
  );
  const frontier = parseFields(chain['frontier'], ['size', 'hashes'], 'a frontier');
  const counted = list(chain['counted'], 'what was counted').map((item) => {
    const slot = parseFields(item, ['replica', 'run', 'epoch', 'digest'], 'a counted slot');
    return {
      replica: parseReplicaId(slot['replica']),
      run: parseRun(slot['run']),
      epoch: parseWhole(slot['epoch'], 'an epoch'),
      digest: parseDigest(slot['digest']),
    };
  });
  assertAscending(counted, compareSlots, 'counted slots');
  const hashes = list(frontier['hashes'], 'the hashes of a frontier').map((hash) => hex.decode(parseDigest(hash)));
  const size = parseWhole(frontier['size'], 'a tree size', 0, TREE_SIZE_MAX);
  if (hashes.length !== bitsOf(size))
    throw new WaggleError('DECODE_FAILED', `Expected ${bitsOf(size)} hashes in a frontier of size ${size}`);
  return {
    epoch: parseWhole(chain['epoch'], 'an epoch'),
    format: parseWhole(chain['format'], 'a format', 1),
    previous: chain['previous'] === null ? null : parseDigest(chain['previous']),
    frontier: { size, hashes },
    counted,
  };
}

const bitsOf = (size: number): number => [...size.toString(2)].filter((bit) => bit === '1').length;

function list(value: Json | undefined, what: string): readonly Json[] {
  if (Array.isArray(value)) return value;
  throw new WaggleError('DECODE_FAILED', `Expected a list for ${what}`);
}

/** A file of a bundle that is read when its turn comes. */
export interface BundleFile {
  readonly name: string;
  /** In bytes. */
  readonly size: number;
  /** Reads it, in pieces that are `size` bytes together. */
  readonly read: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** The files of an archive, below the epoch's folder and in the order of their names. */
const placed = <T extends { readonly name: string }>(epoch: Epoch, files: readonly T[]): T[] =>
  files.map((file) => ({ ...file, name: `epoch-${epoch}/${file.name}` })).sort((a, b) => compareText(a.name, b.name));

/** The archive of a bundle: the same bytes at every node. */
export const packBundle = (epoch: Epoch, bundle: Bundle): Uint8Array<ArrayBuffer> =>
  packTar(
    placed(
      epoch,
      Array.from(bundle, ([name, bytes]) => ({ name, bytes })),
    ),
  );

/** The archive that `packBundle` makes of the same files. */
export interface BundleStream {
  /** In bytes. */
  readonly size: number;
  /** Made as they are taken, file by file. Fails with what a file fails with. */
  readonly pieces: AsyncGenerator<Uint8Array, void, undefined>;
}

/** The archive of a bundle, of which no more than one file is read at a time. */
export function streamBundle(epoch: Epoch, files: readonly BundleFile[]): BundleStream {
  const inOrder = placed(epoch, files);
  return { size: tarSize(inOrder), pieces: piecesOf(inOrder) };
}

async function* piecesOf(files: readonly BundleFile[]): AsyncGenerator<Uint8Array, void, undefined> {
  for (const file of files) {
    yield tarHeader(file.name, file.size);
    // If it is of another size this fails: an archive with that is none, and must not be taken for one.
    yield* contentOf(file);
    yield tarPadding(file.size);
  }
  yield tarEnd();
}

async function* contentOf({ name, size, read }: BundleFile): AsyncGenerator<Uint8Array, void, undefined> {
  let length = 0;
  for await (const piece of read()) {
    length += piece.length;
    yield piece;
  }
  assert(length === size, `${name} has the ${size} bytes that were announced, not ${length}`);
}

/** All files of a bundle, read one after the other. */
export async function collectBundle(files: readonly BundleFile[]): Promise<Bundle> {
  const bundle = new Map<string, Uint8Array>();
  for (const file of files) {
    const pieces: Uint8Array[] = [];
    for await (const piece of contentOf(file)) pieces.push(piece);
    bundle.set(file.name, concat(...pieces));
  }
  return bundle;
}

/** Reads an archive that `packBundle` made. Throws `BUNDLE_MALFORMED` for any other bytes. */
export function unpackBundle(archive: Uint8Array): Bundle {
  const files = unpackTar(archive);
  const folder = /^epoch-(0|[1-9][0-9]*)\//.exec(files[0]?.name ?? '')?.[0];
  if (folder === undefined) throw new WaggleError('BUNDLE_MALFORMED', 'Expected files below epoch-<n>/ in the archive');
  const bundle = new Map<string, Uint8Array>();
  let last = '';
  for (const { name, bytes } of files) {
    if (!name.startsWith(folder) || compareText(last, name) >= 0)
      throw new WaggleError('BUNDLE_MALFORMED', `Expected files below ${folder} in ascending order, received ${name}`);
    last = name;
    bundle.set(name.slice(folder.length), bytes);
  }
  // The number in the folder's name is part of the bytes: it must be the epoch's.
  const epoch = bundleEpoch(bundle);
  if (folder !== `epoch-${epoch}/`)
    throw new WaggleError(
      'BUNDLE_MALFORMED',
      `Expected epoch-${epoch}/ for the bundle of epoch ${epoch}, received ${folder}`,
    );
  return bundle;
}

/** The epoch that a bundle says it is of. Throws `BUNDLE_MALFORMED`. */
export function bundleEpoch(bundle: Bundle): Epoch {
  const bytes = bundle.get(BUNDLE_FILES.chain);
  if (bytes === undefined)
    throw new WaggleError('BUNDLE_MALFORMED', `Expected the file ${BUNDLE_FILES.chain}, which is missing`);
  try {
    return parseChainFile(bytes).epoch;
  } catch (cause) {
    if (!(cause instanceof WaggleError)) throw cause;
    throw new WaggleError('BUNDLE_MALFORMED', `${BUNDLE_FILES.chain}: ${cause.message}`, { cause });
  }
}

/** One text line file. */
export const encodeLines = (texts: readonly string[]): Uint8Array<ArrayBuffer> =>
  utf8(texts.map((text) => `${text}\n`).join(''));
