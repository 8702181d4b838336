import {
  base64,
  fromUtf8,
  hex,
  parseWhole,
  utf8,
  WaggleError,
  type ClusterId,
  type Epoch,
  type Random,
  type ReplicaId,
  type Run,
} from '@waggle/protocol/base';
import { encodeFact, encodeFacts, factKey, parseFacts, replicaIdOf, type Invite } from '@waggle/protocol/authority';
import type { MemberKey } from '@waggle/protocol/membership';
import { clusterOf, encodeGenesis, epochAt, type Cluster, type Genesis } from '@waggle/protocol/sealing';
import type { Clock } from '../clock.ts';
import { decodeAddresses, encodeAddresses, joinCluster } from '../joining/index.ts';
import {
  adoptJoiningKeys,
  createNodeKeys,
  createOperatorKey,
  readNodeKeys,
  readOperatorKey,
  type NodeKeys,
} from '../keys.ts';
import { nodeCrypto } from '../node-crypto.ts';
import { placeOf, writePlace } from '../place.ts';
import type { Store } from '../store/types.ts';
import { ADDRESSES_MAX, type Address, type Transport } from '../transport/transport.ts';
import { chooseWay, META, type InviteSource, type Meta, type Stood } from './way.ts';

export { META, type InviteSource } from './way.ts';

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
  /** The first epoch that this replica meters in, unless a close of its own says more. */
  readonly firstEpoch: Epoch;
  /** The roster facts that a member showed when this node joined, as registers: theirs may not have come yet. */
  readonly facts: readonly { readonly key: string; readonly value: string }[];
  /** Where that member knew others, and itself, to be. */
  readonly hints: ReadonlyMap<MemberKey, readonly Address[]>;
}

export interface StandingOptions<T extends Pick<Transport, 'join'>> {
  /** The data directory, locked by this process, and its store with the `meta` that was loaded. */
  readonly directory: string;
  readonly store: Pick<Store, 'commit'>;
  readonly meta: Meta;
  /** For a first start without an invite. */
  readonly founding: FoundingOptions;
  /** The invite to join a cluster with: for a first start, and for a copy. Otherwise looked at only if it is at hand. */
  readonly invite: InviteSource | null;
  /** The operator says that the directory was moved, and is the only copy. */
  readonly isMoved: boolean;
  readonly random: Random;
  readonly clock: Clock;
  /** Opens this node's transport, once: it admits nobody yet. The seeds are where members may be. */
  readonly openTransport: (cluster: ClusterId, keys: NodeKeys, seeds: readonly Address[]) => Promise<T>;
}

/**
 * Takes up the standing that the data directory holds, founds a cluster of one, or asks to be admitted to one; opens the
 * transport, and draws the run of this start. All is on disk when it resolves. After a crash at any point the same call goes
 * on: with the same keys when it asked to be admitted.
 *
 * Throws what `chooseWay` throws, what `openTransport` and `joinCluster` throw, and `STORE_FULL` or `STORE_FAILED`. The transport stays open: whoever opened it closes it.
 */
export async function takeStanding<T extends Pick<Transport, 'join'>>(
  options: StandingOptions<T>,
): Promise<{ readonly standing: Standing; readonly transport: T }> {
  const { directory, meta, founding, invite, isMoved, random, clock, openTransport } = options;
  const way = chooseWay(directory, meta, { invite, isMoved }, random);
  if (way.type === 'join') return join(options, way.invite, way.keys);
  const stood = way.type === 'stay' ? way.stood : foundCluster(directory, founding, random, clock.nowMs());
  const told = toldOf(meta);
  // Before anything is committed: a port that is taken leaves no cluster behind that nobody was told of.
  const transport = await openTransport(stood.cluster.id, stood.keys, [...told.hints.values()].flat());
  const run = await commitStanding(options, stood, []);
  return { standing: { ...stood, run, founded: way.type === 'found', ...told }, transport };
}

/** What the store holds stays: the registers of the replica that a copy was are another's now. */
async function join<T extends Pick<Transport, 'join'>>(
  options: StandingOptions<T>,
  invite: Invite,
  keys: NodeKeys,
): Promise<{ readonly standing: Standing; readonly transport: T }> {
  const { directory, random, clock, openTransport } = options;
  const seeds = invite.addresses.map(({ host, port }) => ({ host, port }));
  const transport = await openTransport(invite.cluster, keys, seeds);
  const { cluster, facts, addresses, openEpoch } = await joinCluster({ transport, invite, keys, clock, random });
  const stood = { cluster, replica: replicaIdOf(base64.encode(keys.transport.publicKey), nodeCrypto), keys };
  const told: [name: string, value: string][] = [
    [META.joinFacts, fromUtf8(encodeFacts(facts))],
    [META.joinAddresses, base64.encode(encodeAddresses(addresses))],
    // The member's clock may be ahead: what this node meters must not wait for that time to come.
    [META.firstEpoch, String(Math.min(openEpoch, epochAt(cluster.genesis, clock.nowMs()) + 1))],
  ];
  // First of all: from here on the keys are this replica's, whichever file they stand in.
  const run = await commitStanding(options, stood, told);
  writePlace(directory, placeOf(directory));
  adoptJoiningKeys(directory);
  return { standing: { ...stood, run, founded: false, ...toldOf(new Map(told)) }, transport };
}

/** Draws the run, and makes the standing durable with it. */
async function commitStanding(
  { store, meta, random, clock }: Pick<StandingOptions<Transport>, 'store' | 'meta' | 'random' | 'clock'>,
  { cluster, replica }: Stood,
  told: readonly (readonly [name: string, value: string])[],
): Promise<Run> {
  const run = drawRun(meta, random, clock.nowMs());
  await store.commit({
    meta: [[META.genesis, encodeGenesis(cluster.genesis)], [META.replica, replica], [META.run, String(run)], ...told],
  });
  return run;
}

/** What a standing says that was told when the node joined; nothing for who founded. */
function toldOf(meta: Meta): Pick<Standing, 'firstEpoch' | 'facts' | 'hints'> {
  const addresses = decodeAddresses(base64.decode(meta.get(META.joinAddresses) ?? base64.encode(encodeAddresses([]))));
  const hints = new Map<MemberKey, Address[]>();
  for (const { transportKey, host, port } of addresses) {
    const known = hints.get(transportKey as MemberKey) ?? [];
    if (known.length < ADDRESSES_MAX) hints.set(transportKey as MemberKey, [...known, { host, port }]);
  }
  return {
    firstEpoch: parseWhole(Number(meta.get(META.firstEpoch) ?? 0), 'the first epoch of this replica'),
    facts: parseFacts(utf8(meta.get(META.joinFacts) ?? '')).map((fact) => ({
      key: factKey(fact),
      value: encodeFact(fact),
    })),
    hints,
  };
}

/**
 * A run: ms since 1970 and 8 random bits, above every earlier one of this directory. Two processes that start from copies of
 * one directory do not draw the same.
 */
function drawRun(meta: Meta, random: Random, nowMs: number): Run {
  const last = meta.get(META.run);
  const before = last === undefined ? 0 : parseWhole(Number(last), 'the run of the last start');
  return Math.max(before + 1, nowMs * 256 + random.below(256)) as Run;
}

/** Makes what is missing of operator key, node keys and genesis. A first start that crashed in between is taken up again. */
function foundCluster(
  directory: string,
  { name, epochMs, sealGraceMs }: FoundingOptions,
  random: Random,
  nowMs: number,
): Stood {
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
