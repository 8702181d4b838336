import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unpackBundle, packBundle, verifyBundle, type Verified } from '@waggle/protocol/audit';
import { HybridClock, seededRandom, WaggleError, type CustomerId, type Epoch } from '@waggle/protocol/base';
import { addUsage, ZERO_USAGE, type ControlRegister, type Usage } from '@waggle/protocol/lattice';
import { parseHeader, REGISTERS_KEPT_EPOCHS } from '@waggle/protocol/sealing';
import { readPast } from '../../src/driver/restart.ts';
import {
  Driver,
  nodeCrypto,
  openDataDirectory,
  openStore,
  readBundle,
  streamStatements,
  type DataDirectory,
  type Store,
} from '../../src/index.ts';
import { damagePages, ManualClock, metering, standingAlone } from '../support.ts';

const EPOCH_MS = 1_000;

const acme = 'acme' as CustomerId;
const one = (cpuMicros: number): Usage => ({
  requests: 1,
  requestsFailed: 0,
  bytesIn: 10,
  bytesOut: 5,
  pixelsIn: 100,
  pixelsOut: 25,
  cpuMicros,
});

interface Running {
  readonly driver: Driver;
  readonly store: Store;
  readonly registers: ControlRegister[];
  readonly close: () => Promise<void>;
}

describe('the driver of a cluster of one', () => {
  let parent: string;
  let directory: string;
  let clock: ManualClock;
  let sealedWaiters: { readonly epoch: Epoch; readonly resolve: () => void }[];
  let data: DataDirectory;

  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'waggle-driver-'));
    directory = join(parent, 'data');
    clock = new ManualClock();
    sealedWaiters = [];
    data = openDataDirectory(directory);
  });
  afterEach(() => {
    data.close();
    rmSync(parent, { recursive: true, force: true });
  });

  async function start(
    wrap: (store: Store) => Store = (store) => store,
    onFatal: (error: WaggleError) => void = () => undefined,
    pageCountMax?: number,
  ): Promise<Running> {
    const disk = await openStore({ directory, ...(pageCountMax === undefined ? {} : { pageCountMax }) });
    const store = wrap(disk);
    const registers: ControlRegister[] = [];
    try {
      const loaded = await store.load();
      const standing = await standingAlone(directory, store, loaded.meta, clock, EPOCH_MS);
      const driver = await Driver.start({
        store,
        loaded,
        standing,
        clock,
        hlc: new HybridClock(),
        random: seededRandom(1),
        onControl: (_, register) => registers.push(register),
        onSealed: (epoch) => {
          for (const waiter of sealedWaiters) if (waiter.epoch <= epoch) waiter.resolve();
        },
        onFatal,
      });
      return {
        driver,
        store,
        registers,
        close: async () => {
          await driver.close();
          await disk.close();
        },
      };
    } catch (error) {
      await disk.close();
      throw error;
    }
  }

  const sealed = (running: Running, epoch: Epoch): Promise<void> =>
    new Promise((resolve) => {
      if (running.driver.sealingEpoch > epoch) resolve();
      else sealedWaiters.push({ epoch, resolve });
    });

  /** What all sealed epochs count, each verified as the continuation of the one before. */
  async function auditTotals({ driver, store }: Running): Promise<Usage> {
    let verified: Verified | null = null;
    let totals = ZERO_USAGE;
    for (let epoch = 0; epoch < driver.sealingEpoch; epoch++) {
      const archive = packBundle(epoch, await readBundle(store, driver.standing.cluster, epoch, driver.openEpoch));
      const result: ReturnType<typeof verifyBundle> = verifyBundle(
        unpackBundle(archive),
        verified,
        driver.standing.cluster.id,
        nodeCrypto,
      );
      ({ verified } = result);
      for await (const statement of streamStatements(store, epoch)) {
        const { usage } = JSON.parse(Buffer.from(statement.bytes).toString()) as { usage: Record<string, Usage> };
        totals = Object.values(usage).reduce(addUsage, totals);
      }
    }
    return totals;
  }

  it('meters into the open epoch, closes it when its time has passed, and seals it', async () => {
    const running = await start();
    expect(await running.driver.meter(metering(one(1)))).toBe(0);
    expect(await running.driver.meter(metering(one(2)))).toBe(0);
    expect(running.driver.unsealed.usage(0, acme)).toEqual(addUsage(one(1), one(2)));
    clock.advance(EPOCH_MS);
    await sealed(running, 0);
    expect(await running.driver.meter(metering(one(4)))).toBe(1);
    expect(running.driver.unsealed.usage(0, acme)).toEqual(ZERO_USAGE);
    expect(running.driver.unsealed.usage(1, acme)).toEqual(one(4));
    expect(await auditTotals(running)).toEqual(addUsage(one(1), one(2)));
    await running.close();
  });

  it('goes on after a restart in mid-epoch: the earlier run counts once, and its own slot beside it', async () => {
    const first = await start();
    await first.driver.meter(metering(one(1)));
    await first.close();
    const second = await start();
    expect(second.driver.standing.cluster.id).toBe(first.driver.standing.cluster.id);
    expect(second.driver.standing.run).toBeGreaterThan(first.driver.standing.run);
    expect(second.driver.unsealed.usage(0, acme)).toEqual(one(1));
    await second.driver.meter(metering(one(2)));
    clock.advance(3 * EPOCH_MS);
    await sealed(second, 2);
    expect(await auditTotals(second)).toEqual(addUsage(one(1), one(2)));
    await second.close();
  });

  it('closes every epoch of a long downtime before it meters again', async () => {
    const first = await start();
    await first.driver.meter(metering(one(1)));
    await first.close();
    clock.advance(200 * EPOCH_MS);
    const second = await start();
    expect(second.driver.openEpoch).toBe(200);
    expect(await second.driver.meter(metering(one(2)))).toBe(200);
    await sealed(second, 199);
    expect(await auditTotals(second)).toEqual(one(1));
    await second.close();
  });

  it('finds the epochs sealed last on its disk, for signatures that come after a restart', async () => {
    const running = await start();
    const { driver, store } = running;
    expect(await readPast(store, driver.sealingEpoch)).toEqual([]);
    clock.advance(10 * EPOCH_MS);
    await sealed(running, 9);
    const past = await readPast(store, driver.sealingEpoch);
    const rows = await store.sealedRange(10 - REGISTERS_KEPT_EPOCHS, REGISTERS_KEPT_EPOCHS);
    expect(past.map(({ header, checkpoint }) => [parseHeader(header).epoch, checkpoint])).toEqual(
      rows.map(({ epoch, checkpoint }) => [epoch, checkpoint]),
    );
    expect(rows.at(-1)?.epoch).toBe(9);
    for (const { roster } of past) expect(roster).toEqual(driver.roster);
    await running.close();
  });

  it.each(['before', 'after'] as const)(
    'a crash right %s any transaction loses and doubles nothing (invariant 7)',
    async (when) => {
      let indeterminate = 0;
      let acknowledged = ZERO_USAGE;
      let attempted = ZERO_USAGE;
      for (let crashAt = 1; crashAt <= 14; crashAt++) {
        let commits = 0;
        const crashing = (store: Store): Store =>
          committing(store, async (batch) => {
            const isLast = ++commits > crashAt;
            if (isLast && when === 'before') throw new WaggleError('STORE_FAILED', 'crashed on purpose');
            await store.commit(batch);
            if (!isLast) return;
            indeterminate += batch.records?.length ?? 0;
            throw new WaggleError('STORE_FAILED', 'crashed on purpose');
          });
        const crash = new AbortController();
        const running = await start(crashing, () => crash.abort()).catch((error: unknown) => {
          expect(error).toBeInstanceOf(WaggleError);
          return undefined;
        });
        if (running === undefined) continue;
        for (let i = 0; !crash.signal.aborted && i < 20; i++) {
          attempted = addUsage(attempted, one(1));
          try {
            await running.driver.meter(metering(one(1)));
            acknowledged = addUsage(acknowledged, one(1));
          } catch (error) {
            expect(error).toBeInstanceOf(WaggleError);
          }
          clock.advance(EPOCH_MS / 2);
        }
        await running.close();
      }
      const survivor = await start();
      const last = survivor.driver.openEpoch;
      clock.advance(EPOCH_MS);
      await sealed(survivor, last);
      const kept = await auditTotals(survivor);
      // What was on disk when its client was not told so any more counts as well, once.
      expect(kept.requests).toBe(acknowledged.requests + indeterminate);
      expect(kept).toEqual({
        ...one(kept.requests),
        requests: kept.requests,
        bytesIn: 10 * kept.requests,
        bytesOut: 5 * kept.requests,
        pixelsIn: 100 * kept.requests,
        pixelsOut: 25 * kept.requests,
      });
      expect(kept.requests).toBeLessThanOrEqual(attempted.requests);
      await survivor.close();
    },
  );

  it('closes no epoch that ends while it goes: nobody else would hold the close', async () => {
    const running = await start();
    await running.driver.meter(metering(one(1)));
    expect(await running.driver.leave(1_000)).toBe(true);
    clock.advance(EPOCH_MS);
    await running.driver.meter(metering(one(2)));
    await running.close();
    expect(running.driver.openEpoch).toBe(0);
    const again = await start();
    await sealed(again, 0);
    expect(await auditTotals(again)).toEqual(addUsage(one(1), one(2)));
    await again.close();
  });

  it('writes control registers in order, delivers them once durable, and again at the next start', async () => {
    const first = await start();
    await first.driver.write([
      { key: 'fact/x/1', value: '"a"' },
      { key: 'fact/x/2', value: '"b"' },
    ]);
    await first.driver.write([{ key: 'fact/x/1', value: '"c"' }]);
    expect(first.registers.map(({ value }) => value)).toEqual(['"a"', '"b"', '"c"']);
    await first.close();
    const second = await start();
    expect(new Map(second.registers.map(({ key, value }) => [key, value]))).toEqual(
      new Map([
        ['fact/x/1', '"c"'],
        ['fact/x/2', '"b"'],
      ]),
    );
    await second.close();
  });

  it('a full disk refuses with STORE_FULL, keeps what was acknowledged, and closes and seals once there is room', async () => {
    const first = await start(undefined, undefined, 60);
    let acknowledged = ZERO_USAGE;
    const fill = async (running: Running): Promise<unknown> => {
      for (;;) {
        try {
          await running.driver.meter({ record: { ...metering(one(1)).record, params: `"${'x'.repeat(4_000)}"` } });
          acknowledged = addUsage(acknowledged, one(1));
        } catch (error) {
          return error;
        }
      }
    };
    const error = await fill(first);
    expect(error).toMatchObject({ code: 'STORE_FULL' });
    expect(first.driver.isFull).toBe(true);
    expect(first.driver.unsealed.usage(0, acme)).toEqual(acknowledged);
    clock.advance(2 * EPOCH_MS);
    await expect(first.driver.meter(metering(one(1)))).rejects.toMatchObject({ code: 'STORE_FULL' });
    await first.close();
    const second = await start();
    const last = await second.driver.meter(metering(one(1)));
    clock.advance(EPOCH_MS);
    await sealed(second, last);
    expect(await auditTotals(second)).toEqual(addUsage(acknowledged, one(1)));
    await second.close();
  });

  it('refuses while another process holds the database locked, and goes on afterwards', async () => {
    const fatal: WaggleError[] = [];
    const running = await start(undefined, (error) => fatal.push(error));
    await running.driver.meter(metering(one(1)));
    const other = new Database(join(directory, 'waggle.db'));
    other.exec('BEGIN IMMEDIATE');
    await expect(running.driver.meter(metering(one(2)))).rejects.toMatchObject({ code: 'STORE_FULL' });
    expect(running.driver.isFull).toBe(true);
    other.exec('COMMIT');
    other.close();
    expect(await running.driver.meter(metering(one(4)))).toBe(0);
    expect(running.driver.isFull).toBe(false);
    clock.advance(EPOCH_MS);
    await sealed(running, 0);
    expect(await auditTotals(running)).toEqual(addUsage(one(1), one(4)));
    expect(fatal).toEqual([]);
    await running.close();
  });

  it('ends when a page of the database cannot be read any more, and closes', async () => {
    const fatal: WaggleError[] = [];
    const first = await start();
    await first.driver.meter(metering(one(1)));
    await first.close();
    const running = await start(undefined, (error) => fatal.push(error));
    // What the start wrote is still in the write-ahead log, whose pages are whole.
    damagePages(join(directory, 'waggle.db'));
    const reads = await Promise.allSettled([
      running.store.load(),
      running.store.records({ fromMs: 0, toMs: 1, limit: 1 }),
    ]);
    expect(reads.some(({ status }) => status === 'rejected')).toBe(true);
    await expect(running.driver.meter(metering(one(2)))).rejects.toMatchObject({ code: 'STORE_FAILED' });
    expect(fatal).toEqual([expect.objectContaining({ code: 'STORE_FAILED' })]);
    await running.close().catch(() => undefined);
  });

  it('a large seal goes to disk in parts, meterings between them, and survives a crash between any two', async () => {
    const customers = 10_000;
    const first = await start();
    await Promise.all(
      Array.from({ length: customers }, (_, i) => first.driver.meter(metering(one(1), `c${i}` as CustomerId))),
    );
    await first.close();
    let parts = 0;
    for (let crashAt = 1; ; crashAt++) {
      let written = 0;
      const crash = new AbortController();
      const running = await start(
        (store) =>
          committing(store, async (batch) => {
            if ((batch.statements?.length ?? 0) > 0 && ++written > crashAt)
              throw new WaggleError('STORE_FAILED', 'crashed on purpose');
            await store.commit(batch);
          }),
        () => crash.abort(),
      );
      clock.advance(EPOCH_MS);
      const done = sealed(running, 0).then(() => true);
      const crashed = new Promise<boolean>((resolve) => crash.signal.addEventListener('abort', () => resolve(false)));
      const isDone =
        running.driver.sealingEpoch > 0 || (!crash.signal.aborted && (await Promise.race([done, crashed])));
      if (!isDone) {
        await running.close();
        continue;
      }
      parts = written;
      expect(running.driver.unsealed.usage(0)).toEqual(ZERO_USAGE);
      expect((await auditTotals(running)).requests).toBe(customers);
      await running.close();
      break;
    }
    expect(parts).toBeGreaterThan(2);
  });

  it('many meterings at once share transactions and all count', async () => {
    let commits = 0;
    const running = await start((store) =>
      committing(store, (batch) => {
        commits++;
        return store.commit(batch);
      }),
    );
    const counted = await Promise.all(
      Array.from({ length: 500 }, (_, i) => running.driver.meter(metering(one(i), `c${i % 7}` as CustomerId))),
    );
    expect(counted.every((epoch) => epoch === 0)).toBe(true);
    expect(running.driver.unsealed.usage(0).requests).toBe(500);
    expect(commits).toBeLessThan(50);
    await running.close();
  });
});

/** The store with another way to commit. */
const committing = (store: Store, commit: Store['commit']): Store =>
  new Proxy(store, {
    get: (target, name: keyof Store) =>
      name === 'commit' ? commit : (target[name] as (...args: unknown[]) => unknown).bind(target),
  });
