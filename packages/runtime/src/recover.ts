import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import Database from 'better-sqlite3';
import {
  base64,
  compareText,
  parseReplicaId,
  present,
  utf8,
  WaggleError,
  type Digest,
  type Epoch,
  type Random,
  type ReplicaId,
  type Signer,
} from '@waggle/protocol/base';
import { streamBundle, verifySuccessor } from '@waggle/protocol/audit';
import { Authority, parseFacts, encodeFact, factKey, isFactKey, replicaIdOf } from '@waggle/protocol/authority';
import { addUsage, parseUsageWriter, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import {
  clusterOf,
  encodeGenesis,
  isCountedClosed,
  parseGenesis,
  parseRoster,
  signSuccessor,
  type ChainState,
  type Cluster,
  type Genesis,
  type PastWriter,
  type Predecessor,
} from '@waggle/protocol/sealing';
import {
  joinSlots,
  parseSlot,
  slotName,
  sortRows,
  subtractSlots,
  type Slot,
  type SlotId,
} from '@waggle/protocol/usage';
import { openDataDirectory, syncPath, writePrivatePieces } from './data-directory.ts';
import { bundleFiles, outlineFiles, parseDetails } from './driver/epochs.ts';
import { META } from './driver/founding.ts';
import { settleMonths } from './driver/months.ts';
import { readChain } from './driver/restart.ts';
import { adoptJoiningKeys, createJoiningKeys } from './keys.ts';
import { nodeCrypto } from './node-crypto.ts';
import { placeOf, writePlace } from './place.ts';
import { DATABASE_FILE } from './store/database.ts';
import { openStore, type Loaded, type SealedEpoch, type Store } from './store/index.ts';

/** What a replica has metered and no seal has counted, as far as it is held here. */
export interface Unsealed {
  readonly replica: ReplicaId;
  readonly slots: number;
  readonly usage: Usage;
}

/** What a data directory holds of a cluster that is to end. */
export interface Surviving {
  /** The cluster, and who this directory is in it. */
  readonly cluster: Cluster;
  readonly replica: ReplicaId;
  /** The last epoch of its log that is sealed here; null if none is. */
  readonly sealedUpTo: Epoch | null;
  /** The first epoch of a successor. */
  readonly nextEpoch: Epoch;
  /** Who may vote on that epoch, this replica or not. */
  readonly voters: readonly ReplicaId[];
  /** Whether members were seen to hold more of this replica than this directory does: it votes no more, whoever else does. */
  readonly isOvertaken: boolean;
  /** By replica, those with anything. */
  readonly unsealed: readonly Unsealed[];
  /** Where the sealed epochs of this cluster will be kept, as bundles, beside the database as it was. */
  readonly archive: string;
}

/** The data directory of a stopped node, held by this process until it is closed. */
export interface Recovery {
  readonly surviving: Surviving;
  /**
   * Ends the cluster here and founds its successor, with this node as a new replica and its only voter. Throws `CONFIG_INVALID`
   * unless it is the operator key. After a crash at any point it can be asked again, or the node is the successor's already.
   */
  readonly succeed: (operator: Signer, reason: string) => Promise<Cluster>;
  /**
   * Ends the cluster here for a successor that was founded elsewhere, given by its genesis: at its next start the node needs an
   * invite of that. Throws `CONFIG_INVALID` unless it succeeds this cluster, by the operator's word, from an epoch that this node
   * has not gone beyond.
   */
  readonly follow: (genesis: Uint8Array) => Promise<Cluster>;
  readonly close: () => Promise<void>;
}

export interface RecoveryOptions {
  readonly directory: string;
  readonly random: Random;
}

/**
 * Opens the data directory of a node that is not running, to end a cluster that has lost a majority of its roster for good. Nothing
 * is changed by looking. Throws `CONFIG_INVALID` for a directory without a cluster, `DATA_LOCKED`, `DATA_DAMAGED` and `DATA_NEWER`.
 */
export async function openRecovery({ directory, random }: RecoveryOptions): Promise<Recovery> {
  if (!existsSync(join(directory, DATABASE_FILE)))
    throw new WaggleError('CONFIG_INVALID', `Expected the data directory of a node, received ${resolve(directory)}`);
  const data = openDataDirectory(directory);
  let store: Store | undefined;
  const close = async (): Promise<void> => {
    try {
      await store?.close();
    } finally {
      store = undefined;
      data.close();
    }
  };
  try {
    store = await openStore({ directory: data.path, mayCreate: false });
    const held = await readHeld(store, data.path);
    const end = async (genesis: Genesis, replica: ReplicaId, follows: boolean): Promise<Cluster> => {
      const cluster = clusterOf(genesis, nodeCrypto);
      const open = present(store, 'an open store');
      // A node that was stopped right after a large seal has not added all of it up yet, and the statements go.
      await settleMonths({ store: open, genesis: held.surviving.cluster.genesis }, await open.load());
      await archive(open, held);
      await open.close();
      store = undefined;
      convert(data.path, held, { genesis, replica, follows });
      return cluster;
    };
    return {
      surviving: held.surviving,
      succeed: async (operator, reason) => {
        const genesis = successor(data.path, held, operator, reason, random);
        const cluster = await end(genesis, genesis.roster[0]!.replica, false);
        // From here on the keys are this replica's, whichever file they stand in: a start would do the same.
        writePlace(data.path, placeOf(data.path));
        adoptJoiningKeys(data.path);
        return cluster;
      },
      follow: async (genesis) => end(checkFollowed(genesis, held), held.surviving.replica, true),
      close,
    };
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
}

/** What is read once, at the beginning. */
interface Held {
  readonly surviving: Surviving;
  readonly chain: ChainState;
  readonly last: { readonly checkpoint: string; readonly roster: Predecessor['roster'] } | null;
  readonly writers: readonly PastWriter[];
}

async function readHeld(store: Store, directory: string): Promise<Held> {
  const loaded = await store.load();
  const text = loaded.meta.get(META.genesis);
  if (text === undefined)
    throw new WaggleError('CONFIG_INVALID', `Expected a node that belongs to a cluster in ${directory}`);
  const cluster = clusterOf(parseGenesis(utf8(text)), nodeCrypto);
  const replica = parseReplicaId(loaded.meta.get(META.replica));
  const chain = await readChain(store, loaded, cluster);
  const sealedUpTo = loaded.sealed.at(-1)?.epoch ?? null;
  const row = sealedUpTo === null ? null : present(await store.sealedEpoch(sealedUpTo), 'the last sealed epoch');
  const slots = await readSlots(store);
  const writers = await readWriters(
    store,
    loaded,
    cluster,
    chain,
    [...slots.values()].map(({ id }) => id.replica),
  );
  return {
    surviving: {
      cluster,
      replica,
      sealedUpTo,
      nextEpoch: chain.epoch,
      voters: chain.roster.map((entry) => entry.replica),
      isOvertaken: loaded.meta.get(META.overtaken) === replica,
      unsealed: await unsealedOf(store, chain, slots.values()),
      archive: join(directory, `predecessor-${cluster.id.slice(0, 16)}`),
    },
    chain,
    last: row === null ? null : { checkpoint: row.checkpoint, roster: parseRoster(utf8(parseDetails(row).roster)) },
    writers,
  };
}

/** The slots of which rows are held, by name. */
async function readSlots(store: Store): Promise<Map<string, { readonly id: SlotId; rows: Slot[number][] }>> {
  const slots = new Map<string, { readonly id: SlotId; rows: Slot[number][] }>();
  await store.loadUsage((rows) => {
    for (const { replica, run, epoch, customer, sku, usage } of rows) {
      const id = { replica, run, epoch };
      const name = slotName(id);
      const slot = slots.get(name) ?? { id, rows: [] };
      slot.rows.push({ customer, sku, usage });
      slots.set(name, slot);
    }
  });
  return slots;
}

async function unsealedOf(
  store: Store,
  chain: ChainState,
  slots: Iterable<{ readonly id: SlotId; readonly rows: Slot }>,
): Promise<Unsealed[]> {
  const sums = new Map<ReplicaId, Unsealed>();
  for (const { id, rows } of slots) {
    if (isCountedClosed(chain, id)) continue;
    const counted = await countedOf(store, chain, id);
    const left = subtractSlots(joinSlots(sortRows(rows), counted), counted);
    if (left.length === 0) continue;
    const before = sums.get(id.replica) ?? { replica: id.replica, slots: 0, usage: ZERO_USAGE };
    const usage = left.reduce((sum, row) => addUsage(sum, row.usage), before.usage);
    sums.set(id.replica, { ...before, slots: before.slots + 1, usage });
  }
  return [...sums.values()].sort((a, b) => compareText(a.replica, b.replica));
}

async function countedOf(store: Store, chain: ChainState, id: SlotId): Promise<Slot> {
  const digest = chain.counted.get(slotName(id));
  const bytes = digest === undefined ? null : await store.content(digest);
  return bytes === null ? [] : parseSlot(bytes);
}

/** Everyone who wrote anything that is held or was counted, with the key that signs it. Who has none was never heard here. */
async function readWriters(
  store: Store,
  { meta }: Loaded,
  cluster: Cluster,
  { counted, closed }: ChainState,
  metering: readonly ReplicaId[],
): Promise<PastWriter[]> {
  const authority = new Authority({ cluster, crypto: nodeCrypto });
  const replicas = new Set<ReplicaId>([
    ...metering,
    ...(cluster.genesis.predecessor?.writers ?? []).map(({ replica }) => replica),
    ...Array.from(closed.keys(), (writer) => parseUsageWriter(writer).replica),
    ...Array.from(counted.keys(), (slot) => parseReplicaId(slot.slice(0, slot.indexOf('-')))),
  ]);
  for (const fact of parseFacts(utf8(meta.get(META.joinFacts) ?? ''))) authority.fold(factKey(fact), encodeFact(fact));
  await store.loadControl((rows) => {
    for (const { replica, key, value } of rows) {
      replicas.add(replica);
      if (isFactKey(key)) authority.fold(key, value);
    }
  });
  for (const { replica } of authority.admittedReplicas()) replicas.add(replica);
  return [...replicas].sort(compareText).flatMap((replica) => {
    const key = authority.keyOf(replica);
    if (key === undefined) return [];
    return [{ replica, cluster: authority.boundTo(replica), transportKey: base64.encode(key) }];
  });
}

/**
 * The successor's genesis. Its keys stand beside those of the old replica until the store says whose they are. Throws `DECODE_FAILED`
 * for one that no node would take: it is too large, or its reason too long.
 */
function successor(
  directory: string,
  { surviving, chain, last, writers }: Held,
  operator: Signer,
  reason: string,
  random: Random,
): Genesis {
  const { cluster, nextEpoch } = surviving;
  const { name, startMs, epochMs, sealGraceMs, operatorKey } = cluster.genesis;
  if (base64.encode(operator.publicKey) !== operatorKey)
    throw new WaggleError('CONFIG_INVALID', `Expected the operator key of cluster ${cluster.id}, received another`);
  const keys = createJoiningKeys(directory, cluster.id, placeOf(directory), random);
  const transportKey = base64.encode(keys.transport.publicKey);
  const self = {
    replica: replicaIdOf(transportKey, nodeCrypto),
    transportKey,
    logKey: base64.encode(keys.log.publicKey),
    cosignerKey: base64.encode(keys.cosigner.publicKey),
  };
  const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => compareText(a, b);
  const genesis = signSuccessor(
    { format: 1, name, operatorKey, startMs, epochMs, sealGraceMs, roster: [self] },
    {
      cluster: cluster.id,
      epoch: nextEpoch,
      previous: chain.previous,
      format: chain.format,
      checkpoint: last?.checkpoint ?? null,
      roster: last?.roster ?? cluster.genesis.roster,
      counted: [...chain.counted].sort(byName),
      closed: [...chain.closed].sort(byName),
      writers,
      reason,
    },
    operator,
  );
  // As every start will read it: the old standing is gone by then.
  return parseGenesis(utf8(encodeGenesis(genesis)));
}

function checkFollowed(bytes: Uint8Array, { surviving }: Held): Genesis {
  const refuse = (message: string, cause?: unknown): never => {
    throw new WaggleError('CONFIG_INVALID', message, { cause });
  };
  const { cluster, nextEpoch } = surviving;
  let genesis: Genesis;
  try {
    genesis = parseGenesis(bytes);
    verifySuccessor(clusterOf(genesis, nodeCrypto), nodeCrypto);
  } catch (cause) {
    return refuse(`Expected the genesis of a successor: ${(cause as Error).message}`, cause);
  }
  const { predecessor, operatorKey } = genesis;
  if (predecessor?.cluster !== cluster.id || operatorKey !== cluster.genesis.operatorKey)
    return refuse(`Expected the genesis of a successor of cluster ${cluster.id}, signed by its operator`);
  if (predecessor.epoch < nextEpoch)
    return refuse(
      `Expected a successor from epoch ${nextEpoch} on: this node holds all before it sealed, and the successor begins with epoch ${predecessor.epoch}. Recover from this node instead`,
    );
  return genesis;
}

/** Keeps what is sealed as bundles, which `waggle-verify` reads, and the database as it is. May be done again. */
async function archive(store: Store, { surviving }: Held): Promise<void> {
  const { archive: folder, cluster, sealedUpTo, nextEpoch } = surviving;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (sealedUpTo === null) return;
  for (let from: Epoch = 0; ;) {
    const page: SealedEpoch[] = await store.sealedRange(from, ARCHIVE_PAGE);
    for (const { epoch } of page) {
      const files = await bundleFiles(store, cluster, epoch, nextEpoch).catch((error: unknown) => {
        if (error instanceof WaggleError && error.code === 'SLOTS_EXPIRED')
          return outlineFiles(store, cluster, epoch, nextEpoch);
        throw error;
      });
      await writePrivatePieces(join(folder, `epoch-${epoch}.tar`), streamBundle(epoch, files).pieces);
    }
    const last = page.at(-1);
    if (last === undefined) return;
    from = last.epoch + 1;
  }
}

const ARCHIVE_PAGE = 100;

/** The part of `meta` that belongs to a standing, and to a log: gone with the old ones. */
const META_GONE = [
  META.counted,
  META.closed,
  META.joinFacts,
  META.joinAddresses,
  META.firstEpoch,
  META.overtaken,
  META.follows,
] as const;

/**
 * Makes the database one of the successor, in one transaction: its log is empty; of contents only those stay that the chain still
 * needs; of control registers all but those about sealing and about who belonged to the old cluster. Usage stays: what of it was
 * counted the genesis says.
 */
function convert(
  directory: string,
  { chain, surviving }: Held,
  { genesis, replica, follows }: { readonly genesis: Genesis; readonly replica: ReplicaId; readonly follows: boolean },
): void {
  const database = new Database(join(directory, DATABASE_FILE), { fileMustExist: true });
  try {
    database.pragma('synchronous = FULL');
    const copy = join(surviving.archive, DATABASE_FILE);
    // What an attempt before this one left may be half a copy.
    rmSync(copy, { force: true });
    writeFileSync(copy, '', { mode: 0o600, flag: 'wx' });
    database.prepare('VACUUM INTO ?').run(copy);
    // SQLite leaves it to the system when the copy is on the disk; what it was copied from is gone with this transaction.
    for (const path of [copy, surviving.archive]) syncPath(path);
    const counted: Digest[] = [...chain.counted.values()];
    const meta: [string, string][] = [
      [META.genesis, encodeGenesis(genesis)],
      [META.replica, replica],
      // Months go on from their sums, with the first leaf of the new log.
      ['monthsThrough', '0'],
      // Who follows must not write under the old id any more: it starts with an invite, as a new replica.
      ...(follows ? [META.overtaken, META.follows].map((key): [string, string] => [key, replica]) : []),
    ];
    database
      .transaction(() => {
        database.exec('DELETE FROM sealed; DELETE FROM statement; DELETE FROM tile;');
        database
          .prepare('DELETE FROM content WHERE digest NOT IN (SELECT value FROM json_each(?))')
          .run(JSON.stringify(counted));
        for (const pattern of ['close/*', 'ballot/*', 'seal/*', 'roster/*'])
          database.prepare('DELETE FROM control WHERE key GLOB ?').run(pattern);
        for (const key of META_GONE) database.prepare('DELETE FROM meta WHERE key = ?').run(key);
        const put = database.prepare('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)');
        for (const entry of meta) put.run(...entry);
      })
      .immediate();
  } finally {
    database.close();
  }
}
