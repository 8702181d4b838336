import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RosterFrom, Verified } from '@waggle/protocol/audit';
import {
  hex,
  jcsBytes,
  parseDigest,
  parseJcs,
  parseWhole,
  utf8,
  WaggleError,
  type Digest,
  type Json,
} from '@waggle/protocol/base';
import { parseUsageWriter, usageWriter, type WriterId } from '@waggle/protocol/lattice';
import {
  chainStart,
  clusterOf,
  encodeGenesis,
  encodeRoster,
  parseFields,
  parseGenesis,
  parseRoster,
  rosterDigest,
  type EpochRanges,
} from '@waggle/protocol/sealing';
import { nodeCrypto } from './node-crypto.ts';
import { UnusableError } from './source.ts';

/** The one file of a state directory. */
const FILE = 'waggle-verify.json';

/** What an earlier run verified, with the checkpoint that it ended with: what a later one is held against. */
export interface State {
  readonly verified: Verified;
  /** The signed note of the last epoch; null in states of format 1, which had none. */
  readonly checkpoint: string | null;
  /** The rosters that were decided, each from its epoch on, ascending; the first is that of the genesis. */
  readonly rosters: readonly RosterFrom[];
}

/** The rosters with the one that follows what was verified, if it is another. */
export function withRoster(rosters: readonly RosterFrom[], { cluster, chain }: Verified): readonly RosterFrom[] {
  const known = rosters.length > 0 ? rosters : [{ from: chainStart(cluster).epoch, roster: cluster.genesis.roster }];
  const last = known.at(-1)!;
  const isSame = rosterDigest(last.roster, nodeCrypto) === rosterDigest(chain.roster, nodeCrypto);
  return isSame || chain.epoch <= last.from ? known : [...known, { from: chain.epoch, roster: chain.roster }];
}

const FIELDS = [
  'format',
  'genesis',
  'epoch',
  'previous',
  'chainFormat',
  'roster',
  'counted',
  'closed',
  'size',
  'hashes',
];

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');

/** The JCS form of what was verified so far: all that it takes to go on. */
export function encodeState({ verified: { cluster, chain, frontier }, checkpoint, rosters }: State): Uint8Array {
  return jcsBytes({
    format: 2,
    checkpoint,
    rosters: rosters.map(({ from, roster }) => [from, text(encodeRoster(roster))]),
    genesis: encodeGenesis(cluster.genesis),
    epoch: chain.epoch,
    previous: chain.previous,
    chainFormat: chain.format,
    roster: text(encodeRoster(chain.roster)),
    counted: [...chain.counted],
    closed: [...chain.closed],
    size: frontier.size,
    hashes: frontier.hashes.map((hash) => hex.encode(hash)),
  });
}

function list(value: Json | undefined): readonly Json[] {
  if (Array.isArray(value)) return value;
  throw new WaggleError('DECODE_FAILED', 'Expected a list');
}

function string(value: Json | undefined): string {
  if (typeof value === 'string') return value;
  throw new WaggleError('DECODE_FAILED', 'Expected a text');
}

function parseClosed(value: Json): [WriterId, EpochRanges] {
  const [writer, ranges] = list(value);
  const { replica, run } = parseUsageWriter(string(writer));
  const parsed = list(ranges).map((range) => {
    const [from, to] = list(range);
    return [parseWhole(from, 'an epoch'), parseWhole(to, 'an epoch')] as const;
  });
  return [usageWriter(replica, run), parsed];
}

function parseRosterFrom(value: Json): RosterFrom {
  const [from, roster] = list(value);
  return { from: parseWhole(from, 'an epoch'), roster: parseRoster(utf8(string(roster))) };
}

/** Reads what `encodeState` wrote. Throws `DECODE_FAILED`. */
export function parseState(bytes: Uint8Array): State {
  const value = parseJcs(bytes, 'a state');
  const isFirst = value !== null && typeof value === 'object' && 'format' in value && value['format'] === 1;
  const state = parseFields(value, isFirst ? FIELDS : [...FIELDS, 'checkpoint', 'rosters'], 'a state');
  parseWhole(state['format'], 'the format of a state', 1, 2);
  const checkpoint = isFirst || state['checkpoint'] === null ? null : string(state['checkpoint']);
  const verified = parseVerified(state);
  const rosters = isFirst ? [] : list(state['rosters']).map(parseRosterFrom);
  return { verified, checkpoint, rosters: withRoster(rosters, verified) };
}

function parseVerified(state: Readonly<Record<string, Json>>): Verified {
  return {
    cluster: clusterOf(parseGenesis(utf8(string(state['genesis']))), nodeCrypto),
    chain: {
      epoch: parseWhole(state['epoch'], 'an epoch', 1),
      previous: parseDigest(state['previous']),
      format: parseWhole(state['chainFormat'], 'a format', 1),
      roster: parseRoster(utf8(string(state['roster']))),
      counted: new Map(
        list(state['counted']).map((entry): [string, Digest] => [string(list(entry)[0]), parseDigest(list(entry)[1])]),
      ),
      closed: new Map(list(state['closed']).map(parseClosed)),
    },
    frontier: {
      size: parseWhole(state['size'], 'a tree size', 1),
      hashes: list(state['hashes']).map((hash) => hex.decode(parseDigest(hash))),
    },
    fromGenesis: true,
  };
}

/** What was verified in earlier runs; null if nothing was. Throws `UnusableError` if it cannot be read. */
export async function readState(directory: string): Promise<State | null> {
  const path = join(directory, FILE);
  try {
    return parseState(new Uint8Array(await readFile(path)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new UnusableError(`Expected a state of waggle-verify in ${path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Writes what was verified, whole or not at all, for its owner only. Throws `UnusableError`. */
export async function writeState(directory: string, state: State): Promise<void> {
  const path = join(directory, FILE);
  const fresh = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const file = await open(fresh, 'wx', 0o600);
    try {
      await file.writeFile(encodeState(state));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(fresh, path);
    const folder = await open(directory, 'r');
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch (error) {
    await rm(fresh, { force: true });
    throw new UnusableError(`Expected to write ${path}: ${(error as Error).message}`, { cause: error });
  }
}
