import {
  assert,
  base64,
  compareText,
  digestOf,
  hex,
  jcs,
  jcsBytes,
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
} from '../base/index.ts';
import { assertAscending } from '../usage/index.ts';

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
const ROSTER_MAX = 49;

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
  /** Roster(0). */
  readonly roster: Roster;
}

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

/** The JCS text of a genesis; `parseGenesis` takes nothing else. */
export const encodeGenesis = (genesis: Genesis): string => jcs({ ...genesis, roster: genesis.roster.map(entryJson) });

/** Throws `DECODE_FAILED` unless the bytes are an encoded genesis. */
export function parseGenesis(bytes: Uint8Array): Genesis {
  const value = fields(
    parseJcs(bytes, 'a genesis'),
    ['format', 'name', 'operatorKey', 'startMs', 'epochMs', 'sealGraceMs', 'roster'],
    'a genesis',
  );
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
  return { genesis, id, origin: `${genesis.name}/${id.slice(0, 16)}` };
}

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
