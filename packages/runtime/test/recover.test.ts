import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { describe, expect, it } from 'vitest';
import { unpackBundle, verifyBreak, verifyBundle, verifySuccessor, type Verified } from '@waggle/protocol/audit';
import { HybridClock, present, seededRandom, utf8, type CustomerId } from '@waggle/protocol/base';
import { addUsage, verifyControl, ZERO_USAGE, type ControlRegister, type Usage } from '@waggle/protocol/lattice';
import { encodeGenesis, REASON_LENGTH_MAX, type Cluster } from '@waggle/protocol/sealing';
import {
  createOperatorKey,
  Driver,
  entropy,
  nodeCrypto,
  openDataDirectory,
  openRecovery,
  openStore,
  readBundle,
  readNodeKeys,
  readOperatorKey,
  streamStatements,
  type MonthRow,
  type Recovery,
  type Store,
} from '../src/index.ts';
import { ManualClock, metering, standingAlone, temporaryDirectories } from './support.ts';

const EPOCH_MS = 1_000;
const acme = 'acme' as CustomerId;
const temporary = temporaryDirectories();
const coded = (code: string, message = '') =>
  expect.objectContaining({ code, message: expect.stringContaining(message) });

const one = (cpuMicros: number): Usage => ({ ...ZERO_USAGE, requests: 1, cpuMicros });
interface Running {
  readonly driver: Driver;
  readonly store: Store;
  readonly registers: Map<string, ControlRegister>;
  readonly sealed: (epoch: number) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** A node without network over a directory. */
async function start(directory: string, clock: ManualClock): Promise<Running> {
  const data = openDataDirectory(directory);
  const store = await openStore({ directory });
  const loaded = await store.load();
  const registers = new Map<string, ControlRegister>();
  const waiting: { readonly epoch: number; readonly resolve: () => void }[] = [];
  const close = async (): Promise<void> => {
    await store.close();
    data.close();
  };
  try {
    const standing = await standingAlone(directory, store, loaded.meta, clock, EPOCH_MS);
    const driver = await Driver.start({
      store,
      loaded,
      standing,
      clock,
      hlc: new HybridClock(),
      random: seededRandom(1),
      onControl: (replica, register) => registers.set(`${replica} ${register.key}`, register),
      onSealed: (epoch) => waiting.filter((each) => each.epoch <= epoch).forEach(({ resolve }) => resolve()),
      onFatal: (error) => {
        throw error;
      },
    });
    return {
      driver,
      store,
      registers,
      sealed: (epoch) =>
        new Promise((resolve) => {
          if (driver.sealingEpoch > epoch) resolve();
          else waiting.push({ epoch, resolve });
        }),
      close: async () => {
        await driver.close();
        await close();
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A node that sealed some epochs, then counted on: in an earlier run, and in one that was open to the end. */
async function ended(): Promise<{ directory: string; clock: ManualClock; cluster: Cluster; replica: string }> {
  const directory = join(temporary(), 'data');
  const clock = new ManualClock();
  const first = await start(directory, clock);
  await first.driver.meter(metering(one(1)));
  await first.driver.write([{ key: 'lww/customer/acme/name', value: '{"hlc":"0000000000000001","value":"Acme"}' }]);
  clock.advance(3 * EPOCH_MS);
  await first.sealed(2);
  await first.driver.meter(metering(one(2)));
  await first.close();
  const second = await start(directory, clock);
  await second.driver.meter(metering(one(4)));
  const { cluster, replica } = second.driver.standing;
  await second.close();
  return { directory, clock, cluster, replica };
}

async function recovery<T>(directory: string, use: (recovery: Recovery) => Promise<T>): Promise<T> {
  const opened = await openRecovery({ directory, random: entropy });
  try {
    return await use(opened);
  } finally {
    await opened.close();
  }
}

/** What the bundles of an archive are, verified one after the other. */
function verifyArchive(folder: string): Verified {
  const archives = readdirSync(folder).filter((name) => name.endsWith('.tar'));
  expect(archives.length).toBeGreaterThan(0);
  return present(
    archives
      .sort((a, b) => Number(/\d+/.exec(a)![0]) - Number(/\d+/.exec(b)![0]))
      .reduce<Verified | null>(
        (verified, name) =>
          verifyBundle(unpackBundle(new Uint8Array(readFileSync(join(folder, name)))), verified, null, nodeCrypto)
            .verified,
        null,
      ),
    'an archive',
  );
}

/** The sums of all that a store has sealed, each epoch verified as the continuation of the one before. */
async function auditTotals({ driver, store }: Running, from: number): Promise<Usage> {
  let verified: Verified | null = null;
  let totals = ZERO_USAGE;
  for (let epoch = from; epoch < driver.sealingEpoch; epoch++) {
    const bundle = await readBundle(store, driver.standing.cluster, epoch, driver.openEpoch);
    const found: ReturnType<typeof verifyBundle> = verifyBundle(bundle, verified, null, nodeCrypto);
    verified = found.verified;
    for await (const { bytes } of streamStatements(store, epoch)) {
      const { usage } = JSON.parse(Buffer.from(bytes).toString()) as { usage: Record<string, Usage> };
      totals = Object.values(usage).reduce(addUsage, totals);
    }
  }
  expect(verified?.fromGenesis).toBe(true);
  return totals;
}

const operatorOf = (directory: string) => present(readOperatorKey(directory), 'the operator key');

describe('recovering', () => {
  it('says what is there, and changes nothing by looking', async () => {
    const { directory, cluster, replica } = await ended();
    const before = readFileSync(join(directory, 'waggle.db'));
    await recovery(directory, async ({ surviving }) => {
      expect(surviving).toMatchObject({ cluster: { id: cluster.id }, replica, sealedUpTo: 2, nextEpoch: 3 });
      expect(surviving).toMatchObject({ voters: [replica], isOvertaken: false });
      expect(surviving.unsealed).toEqual([{ replica, slots: 2, usage: addUsage(one(2), one(4)) }]);
    });
    expect(readFileSync(join(directory, 'waggle.db')).equals(before)).toBe(true);
    expect(readdirSync(directory).filter((name) => name.startsWith('predecessor'))).toEqual([]);
  });

  it('founds a successor that counts what was left, once, and keeps the identity of the old replicas', async () => {
    const { directory, clock, cluster, replica } = await ended();
    const oldKeys = present(readNodeKeys(directory), 'keys');
    const successor = await recovery(directory, ({ succeed }) => succeed(operatorOf(directory), 'Two disks are gone.'));
    expect(successor.genesis.predecessor).toMatchObject({
      cluster: cluster.id,
      epoch: 3,
      reason: 'Two disks are gone.',
    });
    const running = await start(directory, clock);
    const { standing } = running.driver;
    expect(standing.cluster).toEqual(successor);
    expect(standing.replica).not.toBe(replica);
    expect(readNodeKeys(directory)!.transport.publicKey).not.toEqual(oldKeys.transport.publicKey);
    expect(running.driver.unsealed.usage(3, acme)).toEqual(addUsage(one(2), one(4)));
    const name = present(running.registers.get(`${replica} lww/customer/acme/name`), 'the name');
    verifyControl(nodeCrypto, oldKeys.transport.publicKey, cluster.id, replica as never, name);
    expect(running.driver.authority.boundTo(replica as never)).toBe(cluster.id);
    await running.driver.meter(metering(one(8)));
    clock.advance(2 * EPOCH_MS);
    await running.sealed(4);
    expect(await auditTotals(running, 3)).toEqual(addUsage(addUsage(one(2), one(4)), one(8)));
    await running.close();
    // The chain of what was counted is complete, from the first genesis on.
    const archive = join(directory, `predecessor-${cluster.id.slice(0, 16)}`);
    const succession = present(verifySuccessor(successor, nodeCrypto), 'a predecessor');
    verifyBreak(succession, { cluster, verified: verifyArchive(archive) }, nodeCrypto);
    const written = readdirSync(archive).filter((file) => file.startsWith('epoch-'));
    expect(written.toSorted()).toEqual(['epoch-0.tar', 'epoch-1.tar', 'epoch-2.tar']);
    for (const file of [...written, 'waggle.db']) expect(statSync(join(archive, file)).mode & 0o777).toBe(0o600);
    // A restart goes on as the same.
    const again = await start(directory, clock);
    expect(again.driver.standing).toMatchObject({ replica: standing.replica, founded: false });
    expect(again.driver.unsealed.usage(3, acme)).toEqual(ZERO_USAGE);
    await again.close();
  });

  it('keeps what was sealed last in the sums of the month, though the node was stopped before it added them up', async () => {
    const { directory, clock } = await ended();
    const database = new Database(join(directory, 'waggle.db'));
    database.exec("DELETE FROM month; DELETE FROM meta WHERE key = 'monthsThrough'");
    database.close();
    await recovery(directory, ({ succeed }) => succeed(operatorOf(directory), ''));
    const running = await start(directory, clock);
    clock.advance(EPOCH_MS);
    await running.sealed(3);
    await running.close();
    const store = await openStore({ directory });
    const months: MonthRow[] = [];
    await store.loadMonth('2023-11', (rows) => months.push(...rows));
    await store.close();
    const all = addUsage(one(1), addUsage(one(2), one(4)));
    expect(months).toEqual([{ month: '2023-11', customer: acme, usage: all }]);
  });

  it('can be done again for the successor, before it has sealed anything and after', async () => {
    const { directory, clock } = await ended();
    const operator = operatorOf(directory);
    const first = await recovery(directory, ({ succeed }) => succeed(operator, ''));
    const second = await recovery(directory, ({ succeed }) => succeed(operator, ''));
    expect(second.genesis.predecessor).toMatchObject({ cluster: first.id, epoch: 3, checkpoint: null });
    const running = await start(directory, clock);
    clock.advance(2 * EPOCH_MS);
    await running.sealed(4);
    expect(await auditTotals(running, 3)).toEqual(addUsage(one(2), one(4)));
    await running.close();
    const third = await recovery(directory, ({ succeed }) => succeed(operator, ''));
    expect(third.genesis.predecessor).toMatchObject({ cluster: second.id, epoch: 5 });
    expect(third.genesis.predecessor!.writers).toHaveLength(3);
    const last = await start(directory, clock);
    await last.driver.meter(metering(one(16)));
    clock.advance(EPOCH_MS);
    await last.sealed(5);
    expect(await auditTotals(last, 5)).toEqual(one(16));
    await last.close();
  });

  it('is taken up by the next start after a crash, before the store says so and after', async () => {
    const { directory, clock, cluster, replica } = await ended();
    const path = (name: string): string => join(directory, name);
    const oldKeys = readFileSync(path('keys.json'), 'utf8');
    const oldStore = join(temporary(), 'waggle.db');
    cpSync(path('waggle.db'), oldStore);
    const place = JSON.parse(readFileSync(path('place.json'), 'utf8')) as object;
    const successor = await recovery(directory, ({ succeed }) => succeed(operatorOf(directory), ''));
    const newStore = join(temporary(), 'waggle.db');
    cpSync(path('waggle.db'), newStore);
    const newKeys = JSON.parse(readFileSync(path('keys.json'), 'utf8')) as object;
    /** As it stands while the successor is being started: both pairs of keys, and a store of the one or the other. */
    const crashed = (store: string): void => {
      for (const suffix of ['-wal', '-shm']) rmSync(`${path('waggle.db')}${suffix}`, { force: true });
      cpSync(store, path('waggle.db'));
      writeFileSync(path('keys.json'), oldKeys);
      writeFileSync(path('joining.json'), JSON.stringify({ ...newKeys, cluster: cluster.id, place }));
    };
    crashed(oldStore);
    const before = await start(directory, clock);
    expect(before.driver.standing).toMatchObject({ cluster: { id: cluster.id }, replica });
    await before.close();
    crashed(newStore);
    const after = await start(directory, clock);
    expect(after.driver.standing).toMatchObject({
      cluster: { id: successor.id },
      replica: successor.genesis.roster[0]!.replica,
    });
    await after.close();
    expect(existsSync(path('joining.json'))).toBe(false);
  });

  it('carries what the seals of tens of thousands of restarts have counted', async () => {
    const { directory, clock, replica } = await ended();
    const database = new Database(join(directory, 'waggle.db'));
    const { digest } = database.prepare('SELECT digest FROM content LIMIT 1').get() as { digest: string };
    const add = (name: string, entries: readonly (readonly [string, unknown])[]): void => {
      const text = database.prepare('SELECT value FROM meta WHERE key = ?').pluck().get(name) as string;
      const all = [...(JSON.parse(text) as [string, unknown][]), ...entries];
      database.prepare('UPDATE meta SET value = ? WHERE key = ?').run(JSON.stringify(all), name);
    };
    const runs = Array.from({ length: 25_000 }, (_, i) => 300_000_000_000_000 + i);
    add(
      'counted',
      runs.map((run) => [`${replica}-${run}-1`, digest]),
    );
    add(
      'closed',
      runs.map((run) => [`${replica}/${run}`, [[0, 0]]]),
    );
    database.close();
    const { genesis } = await recovery(directory, ({ succeed }) => succeed(operatorOf(directory), ''));
    expect(encodeGenesis(genesis).length).toBeGreaterThan(4 * 1024 * 1024);
    expect(genesis.predecessor!.counted).toHaveLength(runs.length);
    const running = await start(directory, clock);
    expect(running.driver.unsealed.usage(3, acme)).toEqual(addUsage(one(2), one(4)));
    await running.close();
  });

  it('changes nothing if no node would take what it makes', async () => {
    const { directory, clock, cluster } = await ended();
    await recovery(directory, async ({ succeed }) => {
      await expect(succeed(operatorOf(directory), 'x'.repeat(REASON_LENGTH_MAX + 1))).rejects.toEqual(
        coded('DECODE_FAILED', 'a reason'),
      );
    });
    const running = await start(directory, clock);
    expect(running.driver.standing.cluster).toEqual(cluster);
    await running.close();
  });

  it('takes no other key, and no directory without a cluster', async () => {
    const { directory } = await ended();
    const elsewhere = temporary();
    await recovery(directory, async ({ succeed }) => {
      await expect(succeed(createOperatorKey(elsewhere), '')).rejects.toEqual(coded('CONFIG_INVALID', 'operator key'));
    });
    await expect(openRecovery({ directory: elsewhere, random: entropy })).rejects.toEqual(coded('CONFIG_INVALID'));
    expect(readdirSync(elsewhere)).toEqual(['operator.key']);
    const data = openDataDirectory(directory);
    await expect(openRecovery({ directory, random: entropy })).rejects.toEqual(coded('DATA_LOCKED'));
    data.close();
  });
});

describe('following a successor', () => {
  it('makes a node that needs an invite of it, and keeps what it alone holds', async () => {
    const { directory, clock, cluster, replica } = await ended();
    const other = join(temporary(), 'data');
    mkdirSync(dirname(other), { recursive: true });
    cpSync(directory, other, { recursive: true });
    const successor = await recovery(directory, ({ succeed }) => succeed(operatorOf(directory), ''));
    const genesis = utf8(encodeGenesis(successor.genesis));
    expect(await recovery(other, ({ follow }) => follow(genesis))).toEqual(successor);
    await expect(start(other, clock)).rejects.toEqual(
      coded('CONFIG_INVALID', `--join and an invite of cluster ${successor.id}`),
    );
    await recovery(other, async ({ surviving }) => {
      expect(surviving.cluster.id).toBe(successor.id);
      expect(surviving.unsealed).toEqual([{ replica, slots: 2, usage: addUsage(one(2), one(4)) }]);
    });
    expect(existsSync(join(other, `predecessor-${cluster.id.slice(0, 16)}`, 'epoch-2.tar'))).toBe(true);
  });

  it('is refused for another cluster, without the operator, and from before what this node holds sealed', async () => {
    const { directory } = await ended();
    const other = join(temporary(), 'data');
    cpSync(directory, other, { recursive: true });
    const successor = await recovery(directory, ({ succeed }) => succeed(operatorOf(directory), ''));
    const { genesis } = successor;
    const stranger = await ended();
    await recovery(stranger.directory, async ({ follow }) => {
      await expect(follow(utf8(encodeGenesis(genesis)))).rejects.toEqual(
        coded('CONFIG_INVALID', 'successor of cluster'),
      );
    });
    const unsigned = { ...genesis, predecessor: { ...genesis.predecessor!, reason: 'forged' } };
    await recovery(other, async ({ follow, surviving }) => {
      await expect(follow(utf8(encodeGenesis(unsigned)))).rejects.toEqual(coded('CONFIG_INVALID', 'signed'));
      await expect(follow(utf8(encodeGenesis(surviving.cluster.genesis)))).rejects.toEqual(coded('CONFIG_INVALID'));
    });
    // The other one seals one epoch more than the successor knows of.
    const ahead = await ended();
    const behind = join(temporary(), 'data');
    cpSync(ahead.directory, behind, { recursive: true });
    const running = await start(ahead.directory, ahead.clock);
    ahead.clock.advance(EPOCH_MS);
    await running.sealed(3);
    await running.close();
    const early = await recovery(behind, ({ succeed }) => succeed(operatorOf(behind), ''));
    await recovery(ahead.directory, async ({ follow }) => {
      await expect(follow(utf8(encodeGenesis(early.genesis)))).rejects.toEqual(
        coded('CONFIG_INVALID', 'from this node'),
      );
    });
  });
});
