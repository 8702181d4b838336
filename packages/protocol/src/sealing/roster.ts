import {
  assert,
  base64,
  compareText,
  digestOf,
  framed,
  hex,
  jcs,
  jcsBytes,
  parseClusterId,
  parseDigest,
  parseJcs,
  parseReplicaId,
  parseWhole,
  utf8,
  WaggleError,
  type ClusterId,
  type Crypto,
  type Digest,
  type Epoch,
  type Json,
  type ReplicaId,
  type Signer,
} from '../base/index.ts';
import { parseUsageWriter, usageWriter, type WriterId } from '../lattice/index.ts';
import { assertAscending } from '../usage/index.ts';
import type { EpochRanges } from './ranges.ts';

/** A replica that must close and may vote, with its public keys (Ed25519, base64 of 32 bytes). */
export interface RosterEntry {
  readonly replica: ReplicaId;
  /** Signs its control registers and receipts, and is its address in the swarm. */
  readonly transportKey: string;
  /** Signs checkpoints as the log (C2SP signed-note type 0x01). */
  readonly logKey: string;
  /** Cosigns checkpoints (C2SP tlog-cosignature type 0x04). */
  readonly cosignerKey: string;
}

/** The voters of an epoch, in ascending order of replica id: the roster order. */
export type Roster = readonly RosterEntry[];

/** Members of a roster at most: certificates stay below the 100 signatures that some verifiers take. */
export const ROSTER_MAX = 49;

/** How many of a roster must agree: the smallest majority. */
export const quorumOf = (roster: Roster): number => Math.floor(roster.length / 2) + 1;

/** Whether a replica is in a roster. */
export const isIn = (roster: Roster, replica: ReplicaId): boolean => roster.some((entry) => entry.replica === replica);

/** What founds a cluster. Its hash is the cluster id; all authority descends from `operatorKey`. */
export interface Genesis {
  readonly format: 1;
  /** The configured name: the origin of every checkpoint is `<name>/<cluster id, 16 hex>`. */
  readonly name: string;
  /** Ed25519 public key of the operator, base64. */
  readonly operatorKey: string;
  /** Unix ms at which epoch 0 starts, `EPOCH_MS_MAX` before `TIME_MS_MAX` at the latest. */
  readonly startMs: number;
  /** Length of an epoch in ms, 1 000 at least. */
  readonly epochMs: number;
  /** How long after its end an epoch waits for a member that has not closed it, in ms. */
  readonly sealGraceMs: number;
  /** The first roster: of epoch 0, or of the epoch that a successor begins with. */
  readonly roster: Roster;
  /** Only of a successor: what it continues. */
  readonly predecessor?: Predecessor;
}

/**
 * The cluster that a successor continues, because it had lost a majority of its roster for good: where its log ends, and what its
 * seals had counted, so that nothing is counted again. Epochs keep their numbers; the successor's own log begins empty.
 */
export interface Predecessor {
  readonly cluster: ClusterId;
  /** The epoch that it did not seal any more: the first one of the successor. */
  readonly epoch: Epoch;
  /** Leaf hash of the last header of all, which the successor's first one names; null if nothing was ever sealed. */
  readonly previous: Digest | null;
  /** The format that this header decided. */
  readonly format: number;
  /** The signed note of its last sealed epoch; null if it sealed none itself. */
  readonly checkpoint: string | null;
  /** Who could sign that checkpoint: the roster of that epoch, or of its genesis if there is no checkpoint. */
  readonly roster: Roster;
  /** As `ChainState`: ascending by slot name, and by writer. */
  readonly counted: readonly (readonly [slot: string, digest: Digest])[];
  readonly closed: readonly (readonly [writer: WriterId, epochs: EpochRanges])[];
  /** Whose registers go on to be read, ascending by replica. They neither connect nor vote, and write no more. */
  readonly writers: readonly PastWriter[];
  /** What the operator says about it. */
  readonly reason: string;
  /** Of the operator key over `successorBytes`: Ed25519, base64. */
  readonly signature: string;
}

/** A replica of an earlier cluster, and how its registers are signed. */
export interface PastWriter {
  readonly replica: ReplicaId;
  /** The cluster that its signatures are bound to. */
  readonly cluster: ClusterId;
  /** Ed25519 public key, base64. */
  readonly transportKey: string;
}

/** Bytes of an encoded genesis at most: room for what the seals of a long life have counted, some 195 bytes for each run. */
export const GENESIS_BYTES_MAX = 67_108_864;
/** Characters of a reason at most. */
export const REASON_LENGTH_MAX = 500;

/** Shortest and longest epoch, in ms: a second and a year. */
export const EPOCH_MS_MIN = 1_000;
export const EPOCH_MS_MAX = 366 * 86_400_000;
/** The last ms that RFC 3339 can write, 9999-12-31T23:59:59.999Z: no epoch ends later. */
export const TIME_MS_MAX = 253_402_300_799_999;
/** A name is what a C2SP key name may be: no white space, no plus sign. */
export const ORIGIN_NAME_PATTERN = '^[a-z0-9]([a-z0-9._/-]{0,62}[a-z0-9])?$';

const publicKey = (value: Json | undefined, what: string): string => {
  if (typeof value === 'string' && base64.decode(value).length === 32) return value;
  throw new WaggleError(
    'DECODE_FAILED',
    `Expected 32 bytes in base64 for ${what}, received ${JSON.stringify(value)?.slice(0, 60)}`,
  );
};

const fields = (value: Json | undefined, names: readonly string[], what: string): { readonly [key: string]: Json } => {
  if (
    value === null ||
    typeof value !== 'object' ||
    Array.isArray(value) ||
    Object.keys(value).length !== names.length ||
    !names.every((name) => Object.hasOwn(value, name))
  )
    throw new WaggleError('DECODE_FAILED', `Expected an object with ${names.join(', ')} for ${what}`);
  return value as { readonly [key: string]: Json };
};
export { fields as parseFields };

function parseEntries(value: Json | undefined): Roster {
  if (!Array.isArray(value) || value.length === 0 || value.length > ROSTER_MAX)
    throw new WaggleError('DECODE_FAILED', `Expected 1 to ${ROSTER_MAX} members of a roster`);
  const roster = value.map((item: Json) => {
    const entry = fields(item, ['replica', 'transportKey', 'logKey', 'cosignerKey'], 'a member of a roster');
    return {
      replica: parseReplicaId(entry['replica']),
      transportKey: publicKey(entry['transportKey'], 'a transport key'),
      logKey: publicKey(entry['logKey'], 'a log key'),
      cosignerKey: publicKey(entry['cosignerKey'], 'a cosigner key'),
    };
  });
  assertAscending(roster, (a, b) => compareText(a.replica, b.replica), 'members of a roster');
  return roster;
}

const entryJson = ({ replica, transportKey, logKey, cosignerKey }: RosterEntry): Json => ({
  replica,
  transportKey,
  logKey,
  cosignerKey,
});

/** The content that a header's roster digest is taken of: the JCS form of the members, in roster order. */
export const encodeRoster = (roster: Roster): Uint8Array => jcsBytes(roster.map(entryJson));

/** Throws `DECODE_FAILED` unless the bytes are an encoded roster. */
export const parseRoster = (bytes: Uint8Array): Roster => parseEntries(parseJcs(bytes, 'a roster'));

const genesisJson = ({ predecessor, ...genesis }: Genesis, isSigned: boolean): Json => ({
  ...genesis,
  roster: genesis.roster.map(entryJson),
  ...(predecessor === undefined ? {} : { predecessor: predecessorJson(predecessor, isSigned) }),
});

const predecessorJson = ({ signature, ...rest }: Predecessor, isSigned: boolean): Json => ({
  ...rest,
  roster: rest.roster.map(entryJson),
  counted: rest.counted.map((entry) => [...entry]),
  closed: rest.closed.map(([writer, epochs]) => [writer, epochs.map((range) => [...range])]),
  writers: rest.writers.map(({ replica, cluster, transportKey }) => ({ replica, cluster, transportKey })),
  ...(isSigned ? { signature } : {}),
});

/** The JCS text of a genesis; `parseGenesis` takes nothing else. */
export const encodeGenesis = (genesis: Genesis): string => jcs(genesisJson(genesis, true));

/** What the operator key signs of a successor: all of its genesis but the signature. */
export const successorBytes = (genesis: Genesis): Uint8Array =>
  framed('waggle-successor/v1', jcsBytes(genesisJson(genesis, false)));

/** The genesis of a successor, signed by the operator. */
export function signSuccessor(
  genesis: Omit<Genesis, 'predecessor'>,
  predecessor: Omit<Predecessor, 'signature'>,
  operator: Signer,
): Genesis {
  const unsigned: Genesis = { ...genesis, predecessor: { ...predecessor, signature: '' } };
  const signature = base64.encode(operator.sign(successorBytes(unsigned)));
  return { ...unsigned, predecessor: { ...predecessor, signature } };
}

const GENESIS_FIELDS = ['format', 'name', 'operatorKey', 'startMs', 'epochMs', 'sealGraceMs', 'roster'];

/** Throws `DECODE_FAILED` unless the bytes are an encoded genesis. That the operator signed a successor's is not checked. */
export function parseGenesis(bytes: Uint8Array): Genesis {
  if (bytes.length > GENESIS_BYTES_MAX)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected at most ${GENESIS_BYTES_MAX} bytes of a genesis, received ${bytes.length}`,
    );
  const json = parseJcs(bytes, 'a genesis');
  const isSuccessor = json !== null && typeof json === 'object' && Object.hasOwn(json, 'predecessor');
  const value = fields(json, isSuccessor ? [...GENESIS_FIELDS, 'predecessor'] : GENESIS_FIELDS, 'a genesis');
  parseWhole(value['format'], 'the format of a genesis', 1, 1);
  const name = value['name'];
  if (typeof name !== 'string' || !new RegExp(ORIGIN_NAME_PATTERN).test(name))
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected a name of the form ${ORIGIN_NAME_PATTERN}, received ${JSON.stringify(name)}`,
    );
  return {
    format: 1,
    name,
    operatorKey: publicKey(value['operatorKey'], 'the operator key'),
    startMs: parseWhole(value['startMs'], 'startMs', 0, TIME_MS_MAX - EPOCH_MS_MAX),
    epochMs: parseWhole(value['epochMs'], 'epochMs', EPOCH_MS_MIN, EPOCH_MS_MAX),
    sealGraceMs: parseWhole(value['sealGraceMs'], 'sealGraceMs', 0, EPOCH_MS_MAX),
    roster: parseEntries(value['roster']),
    ...(isSuccessor ? { predecessor: parsePredecessor(value['predecessor']) } : {}),
  };
}

const PREDECESSOR_FIELDS = [
  'cluster',
  'epoch',
  'previous',
  'format',
  'checkpoint',
  'roster',
  'counted',
  'closed',
  'writers',
  'reason',
  'signature',
];

function parsePredecessor(json: Json | undefined): Predecessor {
  const value = fields(json, PREDECESSOR_FIELDS, 'a predecessor');
  const predecessor: Predecessor = {
    cluster: parseClusterId(value['cluster']),
    epoch: parseWhole(value['epoch'], 'an epoch'),
    previous: value['previous'] === null ? null : parseDigest(value['previous']),
    format: parseWhole(value['format'], 'a format', 1),
    checkpoint: value['checkpoint'] === null ? null : text(value['checkpoint'], 'a checkpoint'),
    roster: parseEntries(value['roster']),
    counted: list(value['counted'], 'what was counted').map(parseCounted),
    closed: list(value['closed'], 'what was closed').map(parseClosedEpochs),
    writers: list(value['writers'], 'past writers').map(parsePastWriter),
    reason: text(value['reason'], 'a reason', REASON_LENGTH_MAX),
    signature: text(value['signature'], 'a signature'),
  };
  const { epoch, previous, checkpoint, counted, closed, writers } = predecessor;
  // Each epoch before the first of the successor was sealed, and has a header.
  if ((previous === null) !== (epoch === 0) || (checkpoint !== null && previous === null))
    throw new WaggleError('DECODE_FAILED', `Expected the last header of a predecessor, if it sealed any epoch`);
  if (base64.decode(predecessor.signature).length !== 64)
    throw new WaggleError('DECODE_FAILED', 'Expected 64 bytes in base64 for a signature');
  assertAscending(counted, ([a], [b]) => compareText(a, b), 'counted slots');
  assertAscending(closed, ([a], [b]) => compareText(a, b), 'closed slots');
  assertAscending(writers, (a, b) => compareText(a.replica, b.replica), 'past writers');
  return predecessor;
}

const SLOT_NAME = /^[0-9a-f]{32}-[1-9][0-9]{0,15}-(0|[1-9][0-9]{0,15})$/;

function list(value: Json | undefined, what: string, length?: number): readonly Json[] {
  if (Array.isArray(value) && (length === undefined || value.length === length)) return value;
  throw new WaggleError('DECODE_FAILED', `Expected a list${length === undefined ? '' : ` of ${length}`} for ${what}`);
}

function text(value: Json | undefined, what: string, lengthMax = Number.MAX_SAFE_INTEGER): string {
  if (typeof value === 'string' && value.length <= lengthMax) return value;
  throw new WaggleError('DECODE_FAILED', `Expected a text for ${what}`);
}

function parseCounted(value: Json): readonly [string, Digest] {
  const [name, digest] = list(value, 'a counted slot', 2);
  if (typeof name !== 'string' || !SLOT_NAME.test(name))
    throw new WaggleError('DECODE_FAILED', 'Expected the name of a slot that was counted');
  return [name, parseDigest(digest)];
}

function parseClosedEpochs(value: Json): readonly [WriterId, EpochRanges] {
  const [name, epochs] = list(value, 'closed slots', 2);
  const { replica, run } = parseUsageWriter(text(name, 'a writer'));
  const ranges = list(epochs, 'epochs').map((range) => {
    const [from, to] = list(range, 'a range of epochs', 2);
    const first = parseWhole(from, 'an epoch');
    return [first, parseWhole(to, 'an epoch', first)] as const;
  });
  if (ranges.length === 0 || ranges.some(([from], i) => i > 0 && from <= ranges[i - 1]![1] + 1))
    throw new WaggleError('DECODE_FAILED', 'Expected ascending ranges of epochs that do not touch');
  return [usageWriter(replica, run), ranges];
}

function parsePastWriter(value: Json): PastWriter {
  const writer = fields(value, ['replica', 'cluster', 'transportKey'], 'a past writer');
  return {
    replica: parseReplicaId(writer['replica']),
    cluster: parseClusterId(writer['cluster']),
    transportKey: publicKey(writer['transportKey'], 'a transport key'),
  };
}

/** A genesis with the two names that follow from it. */
export interface Cluster {
  readonly genesis: Genesis;
  /** SHA-256 of the encoded genesis. */
  readonly id: ClusterId;
  /** `<name>/<id, 16 hex>`: the first line of every checkpoint, and the name of the log's keys. */
  readonly origin: string;
}

/** The cluster that a genesis founds. */
export function clusterOf(genesis: Genesis, crypto: Crypto): Cluster {
  const id = hex.encode(crypto.sha256(utf8(encodeGenesis(genesis)))) as ClusterId;
  return { genesis, id, origin: originOf(genesis.name, id) };
}

/** The origin of a cluster's log. */
export const originOf = (name: string, id: ClusterId): string => `${name}/${id.slice(0, 16)}`;

/** Digest of an encoded roster, as headers name it. */
export const rosterDigest = (roster: Roster, crypto: Crypto): Digest => digestOf(crypto, encodeRoster(roster));

/** When an epoch starts and ends (end exclusive), in Unix ms. */
export function epochBounds(genesis: Genesis, epoch: Epoch): { readonly startMs: number; readonly endMs: number } {
  assert(Number.isSafeInteger(epoch) && epoch >= 0, `an epoch, not ${epoch}`);
  const startMs = genesis.startMs + epoch * genesis.epochMs;
  return { startMs, endMs: startMs + genesis.epochMs };
}

/** The epoch that a time falls in; −1 before the genesis. */
export const epochAt = (genesis: Genesis, nowMs: number): number =>
  Math.max(-1, Math.floor((nowMs - genesis.startMs) / genesis.epochMs));
