import {
  base64,
  hex,
  parseReplicaId,
  parseWhole,
  utf8,
  WaggleError,
  type Random,
  type ReplicaId,
  type Run,
} from '@waggle/protocol/base';
import { clusterOf, encodeGenesis, epochAt, parseGenesis, type Cluster, type Genesis } from '@waggle/protocol/sealing';
import { createNodeKeys, createOperatorKey, readNodeKeys, readOperatorKey, type NodeKeys } from '../keys.ts';
import { nodeCrypto } from '../node-crypto.ts';
import type { Store } from '../store/types.ts';

/** What a new cluster is founded with. */
export interface FoundingOptions {
  /** The configured name: the first part of the origin of every checkpoint. */
  readonly name: string;
  readonly epochMs: number;
  readonly sealGraceMs: number;
}

/** Who this node is. */
export interface Standing {
  readonly cluster: Cluster;
  readonly replica: ReplicaId;
  readonly run: Run;
  readonly keys: NodeKeys;
  /** Whether this start founded the cluster. */
  readonly founded: boolean;
}

/** Names in the store's `meta`. */
export const META = {
  genesis: 'genesis',
  replica: 'replica',
  run: 'run',
  hlc: 'hlc',
  counted: 'counted',
  closed: 'closed',
} as const;

/**
 * Takes up the standing that the data directory holds, or founds a cluster of one, and draws the run of this start: all on
 * disk before it returns. Throws `DATA_DAMAGED` when the store and the key files do not belong together.
 */
export async function takeStanding(
  directory: string,
  store: Store,
  meta: ReadonlyMap<string, string>,
  founding: FoundingOptions,
  random: Random,
  nowMs: number,
): Promise<Standing> {
  const run = drawRun(meta.get(META.run), random, nowMs);
  const genesisText = meta.get(META.genesis);
  const stood = genesisText === undefined ? null : readStanding(directory, genesisText, meta.get(META.replica));
  const standing = stood ?? found(directory, founding, random, nowMs);
  await store.commit({
    meta: [
      [META.genesis, encodeGenesis(standing.cluster.genesis)],
      [META.replica, standing.replica],
      [META.run, String(run)],
    ],
  });
  return { ...standing, run, founded: stood === null };
}

/**
 * A run: ms since 1970 and 8 random bits, above every earlier one of this directory. Two processes that start from copies of
 * one directory do not draw the same.
 */
function drawRun(last: string | undefined, random: Random, nowMs: number): Run {
  const before = last === undefined ? 0 : parseWhole(Number(last), 'the run of the last start');
  return Math.max(before + 1, nowMs * 256 + random.below(256)) as Run;
}

function readStanding(
  directory: string,
  genesisText: string,
  replicaText: string | undefined,
): Omit<Standing, 'run' | 'founded'> {
  const cluster = clusterOf(parseGenesis(utf8(genesisText)), nodeCrypto);
  const keys = readNodeKeys(directory);
  const replica = parseReplicaId(replicaText);
  const entry = cluster.genesis.roster.find((member) => member.replica === replica);
  if (keys === null || (entry !== undefined && entry.transportKey !== base64.encode(keys.transport.publicKey)))
    throw new WaggleError(
      'DATA_DAMAGED',
      `Expected the keys of replica ${replica} in ${directory}/keys.json, ${keys === null ? 'which is missing' : 'found others'}`,
    );
  return { cluster, replica, keys };
}

/** Makes what is missing of operator key, node keys and genesis. A first start that crashed in between is taken up again. */
function found(
  directory: string,
  { name, epochMs, sealGraceMs }: FoundingOptions,
  random: Random,
  nowMs: number,
): Omit<Standing, 'run' | 'founded'> {
  const operator = readOperatorKey(directory) ?? createOperatorKey(directory);
  const keys = readNodeKeys(directory) ?? createNodeKeys(directory, random);
  const replica = hex.encode(random.bytes(16)) as ReplicaId;
  const genesis: Genesis = {
    format: 1,
    name,
    operatorKey: base64.encode(operator.publicKey),
    // Epochs of an hour start on the hour, whenever the cluster is founded.
    startMs: Math.floor(nowMs / epochMs) * epochMs,
    epochMs,
    sealGraceMs,
    roster: [
      {
        replica,
        transportKey: base64.encode(keys.transport.publicKey),
        logKey: base64.encode(keys.log.publicKey),
        cosignerKey: base64.encode(keys.cosigner.publicKey),
      },
    ],
  };
  const cluster = clusterOf(genesis, nodeCrypto);
  if (epochAt(genesis, nowMs) < 0)
    throw new WaggleError('CLOCK_OUT_OF_RANGE', `Expected a clock after 1970, received ${nowMs} ms`);
  return { cluster, replica, keys };
}
