import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { describe, expect, it } from 'vitest';
import {
  openDataDirectory,
  openStore,
  type NewRecord,
  type Store,
  type StoreOptions,
  type UsageRegisterRow,
} from '../../src/index.ts';
import { collect, customerOf, describeStore, digestOf, everything, recordOf, withoutSeq } from '../store-compliance.ts';
import { damagePages, temporaryDirectories } from '../support.ts';

const temporary = temporaryDirectories();

describeStore('SQLite', async () => {
  const directory = temporary();
  return { open: () => openStore({ directory }), destroy: async () => undefined };
});

/** A closed store with some hundred records in it. */
async function filled(): Promise<{ directory: string; path: string }> {
  const directory = temporary();
  const store = await openStore({ directory });
  await store.commit({ records: Array.from({ length: 500 }, (_, n) => recordOf(n)), meta: [['a', '1']] });
  await store.close();
  return { directory, path: join(directory, 'waggle.db') };
}

describe('opening', () => {
  it('makes a file that only its owner can read', async () => {
    const { path } = await filled();
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  const damages: Record<string, (bytes: Buffer) => Buffer> = {
    'a header that was overwritten': (bytes) => Buffer.concat([Buffer.alloc(100, 'x'), bytes.subarray(100)]),
    'pages in the middle that were overwritten': (bytes) => {
      bytes.fill(0xa5, 4 * 4096, 12 * 4096);
      return bytes;
    },
    'a file that was cut': (bytes) => bytes.subarray(0, 6 * 4096),
    'an empty file': () => Buffer.alloc(0),
    'a file of something else': () => Buffer.from('Dear diary, today I was a database.'.repeat(200)),
  };
  it.each(Object.entries(damages))('refuses %s, and leaves it as it is', async (_, damage) => {
    const { directory, path } = await filled();
    const bytes = damage(readFileSync(path));
    writeFileSync(path, bytes);
    await expect(openStore({ directory })).rejects.toMatchObject({
      code: 'DATA_DAMAGED',
      message: expect.stringContaining(path),
    });
    expect(readFileSync(path).equals(bytes)).toBe(true);
  });

  it('refuses damage while a write-ahead log is there, and leaves both as they are', async () => {
    const directory = temporary();
    await killed(directory, 1, 20);
    const path = join(directory, 'waggle.db');
    const bytes = Buffer.alloc(4096, 'x');
    writeFileSync(path, bytes);
    const log = readFileSync(`${path}-wal`);
    expect(log.length).toBeGreaterThan(0);
    await expect(openStore({ directory })).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
    expect(readFileSync(path).equals(bytes)).toBe(true);
    expect(readFileSync(`${path}-wal`).equals(log)).toBe(true);
  });

  it('refuses an index that disagrees with its table, when asked to look that closely', async () => {
    const { directory, path } = await filled();
    const database = new Database(path);
    database.unsafeMode().pragma('writable_schema = ON');
    database.exec(
      "UPDATE sqlite_schema SET sql = 'CREATE INDEX record_epoch ON record (status)' WHERE name = 'record_epoch'",
    );
    database.close();
    await expect(openStore({ directory, check: 'full' })).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
  });

  it('refuses a missing store where there must be one, and a write-ahead log alone', async () => {
    const directory = temporary();
    await expect(openStore({ directory, mayCreate: false })).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
    expect(readdirSync(directory)).toEqual([]);
    writeFileSync(join(directory, 'waggle.db-wal'), 'x');
    await expect(openStore({ directory })).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
    expect(readdirSync(directory)).toEqual(['waggle.db-wal']);
  });

  it('starts over a creation that was interrupted', async () => {
    const directory = temporary();
    writeFileSync(join(directory, 'waggle.db.new'), 'half a database');
    const store = await openStore({ directory });
    await store.close();
    expect(readdirSync(directory)).toEqual(['waggle.db']);
  });

  it('refuses the schema of a newer version, and an SQLite file of another program', async () => {
    const { directory, path } = await filled();
    const database = new Database(path);
    const version = database.pragma('user_version', { simple: true }) as number;
    database.pragma(`user_version = ${version + 1}`);
    database.close();
    const bytes = readFileSync(path);
    await expect(openStore({ directory })).rejects.toMatchObject({ code: 'DATA_NEWER' });
    expect(readFileSync(path).equals(bytes)).toBe(true);
    const other = temporary();
    new Database(join(other, 'waggle.db')).exec('CREATE TABLE t (a); PRAGMA user_version = 1').close();
    await expect(openStore({ directory: other })).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
  });
});

it('says that a content was damaged on disk rather than give it out', async () => {
  const { directory, path } = await filled();
  const bytes = Buffer.alloc(10_000, 'some words to press flat ');
  let store = await openStore({ directory });
  await store.commit({ contents: [{ digest: digestOf(bytes), epoch: 0, bytes }] });
  await store.close();
  const database = new Database(path);
  database.prepare('UPDATE content SET bytes = ?').run(Buffer.from('not deflated'));
  database.close();
  store = await openStore({ directory });
  await expect(store.content(digestOf(bytes))).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
  await store.commit({ meta: [['still', 'writing']] });
  await store.close();
});

describe('a failed read', () => {
  /** An open store whose pages are overwritten on disk, all but the first. */
  async function damaged(): Promise<{ directory: string; store: Store }> {
    const { directory, path } = await filled();
    const store = await openStore({ directory });
    damagePages(path);
    return { directory, store };
  }
  const failed = { code: 'STORE_FAILED', message: expect.stringContaining('SQLITE_CORRUPT') };

  it('is the last of the whole store: nothing is read or written any more, and it still closes', async () => {
    const { directory, store } = await damaged();
    await expect(store.load()).rejects.toMatchObject(failed);
    // At once, before anybody else has asked: who hears of the failure finds no half of the store going on.
    await expect(store.commit({ meta: [['a', '2']] })).rejects.toMatchObject(failed);
    await expect(store.load()).rejects.toMatchObject(failed);
    await expect(store.rollRecords(1)).rejects.toMatchObject(failed);
    await store.close().catch(() => undefined);
    // Whoever opens it next is told.
    await expect(openStore({ directory })).rejects.toMatchObject({ code: 'DATA_DAMAGED' });
  });

  it('lets a store close that is closing when it comes, with calls that wait', async () => {
    const { store } = await damaged();
    const calls = [store.load(), store.tile(0, 0), store.records({ ...everything, limit: 10 })];
    const closed = store.close().catch(() => undefined);
    for (const { status } of await Promise.allSettled(calls)) expect(status).toBe('rejected');
    await closed;
    await expect(store.commit({ meta: [['a', '2']] })).rejects.toMatchObject({ code: 'STORE_FAILED' });
  });

  it('of the writer ends the reader too, and it still closes', async () => {
    const { store } = await damaged();
    await expect(store.rollRecords(1)).rejects.toMatchObject(failed);
    await expect(store.load()).rejects.toMatchObject(failed);
    await store.close().catch(() => undefined);
  });
});

it('says that the database is locked by another connection, writes nothing of it, and goes on afterwards', async () => {
  const { directory, path } = await filled();
  const store = await openStore({ directory });
  const other = new Database(path);
  other.exec('BEGIN IMMEDIATE');
  await expect(store.commit({ meta: [['a', '2']], records: [recordOf(1_000)] })).rejects.toMatchObject({
    code: 'STORE_BUSY',
  });
  expect((await store.load()).meta.get('a')).toBe('1');
  other.exec('ROLLBACK');
  other.close();
  await store.commit({ meta: [['b', '3']] });
  const { meta } = await store.load();
  expect([meta.get('a'), meta.get('b')]).toEqual(['1', '3']);
  expect(await store.records({ ...everything, limit: 1_000 })).toHaveLength(500);
  await store.close();
});

describe('a full disk', () => {
  const large = (n: number): NewRecord => recordOf(n, { params: JSON.stringify('x'.repeat(2_000)) });
  const fill = async (store: Store): Promise<number> => {
    for (let n = 0; ; n++) {
      try {
        await store.commit({ records: [large(n)], meta: [['last', String(n)]] });
      } catch (error) {
        expect(error).toMatchObject({ code: 'STORE_FULL' });
        return n;
      }
    }
  };

  it('undoes what did not fit, keeps what did, and takes writes again when there is room', async () => {
    const directory = temporary();
    let store = await openStore({ directory, pageCountMax: 100 });
    const fitted = await fill(store);
    expect(fitted).toBeGreaterThan(10);
    const kept = withoutSeq(await store.records({ ...everything, limit: 1_000 }));
    expect(kept).toEqual(Array.from({ length: fitted }, (_, n) => large(n)));
    expect((await store.load()).meta.get('last')).toBe(String(fitted - 1));
    await store.close();
    store = await openStore({ directory, pageCountMax: 200 });
    await store.commit({ records: [large(fitted)] });
    expect(await store.records({ ...everything, limit: 1_000 })).toHaveLength(fitted + 1);
    await store.close();
  });

  it('makes room without a restart when records are rolled out', async () => {
    const directory = temporary();
    const store = await openStore({ directory, pageCountMax: 100 });
    const fitted = await fill(store);
    await store.rollRecords(1);
    await store.commit({ records: [large(fitted)] });
    expect(withoutSeq(await store.records({ ...everything, limit: 10 }))).toEqual([large(fitted)]);
    await store.close();
  });
});

describe('rolling records out', () => {
  const fileOf = (directory: string, epoch: number, name = 'records.parquet'): string =>
    join(directory, 'records', `epoch=${epoch}`, name);

  /** The records of a file, in our terms. */
  async function read(file: string, epoch: number): Promise<NewRecord[]> {
    const rows = await parquetReadObjects({ file: await asyncBufferFromFile(file) });
    const number = (value: unknown): number => Number(value);
    return rows.map((row) => ({
      timeMs: (row['time_ms'] as Date).getTime(),
      customer: row['customer'],
      keyId: row['key_id'],
      requestId: row['request_id'],
      operation: row['operation'],
      epoch,
      status: number(row['status']),
      code: row['code'] ?? null,
      params: row['params'],
      sku: row['sku'],
      usage: {
        requests: number(row['requests']),
        requestsFailed: number(row['requests_failed']),
        bytesIn: number(row['bytes_in']),
        bytesOut: number(row['bytes_out']),
        pixelsIn: number(row['pixels_in']),
        pixelsOut: number(row['pixels_out']),
        cpuMicros: number(row['cpu_micros']),
      },
      queueMicros: number(row['queue_us']),
      processMicros: number(row['process_us']),
    })) as NewRecord[];
  }

  const inEpoch = (epoch: number, from: number, to: number): NewRecord[] =>
    Array.from({ length: to - from }, (_, i) => recordOf(from + i, { epoch }));

  it('writes whole epochs that read back equal, and keeps the rest', async () => {
    const directory = temporary();
    const store = await openStore({ directory });
    const [first, second, third] = [inEpoch(3, 0, 25_000), inEpoch(5, 25_000, 25_010), inEpoch(6, 25_010, 25_020)];
    for (const records of [first, second, third]) await store.commit({ records });
    expect(await store.rollRecords(6)).toEqual({ files: 2, records: 25_010 });
    expect(await read(fileOf(directory, 3), 3)).toEqual(first);
    expect(await read(fileOf(directory, 5), 5)).toEqual(second);
    expect(withoutSeq(await store.records({ ...everything, limit: 1_000 }))).toEqual(third);
    expect(await store.rollRecords(6)).toEqual({ files: 0, records: 0 });
    const metadata = await parquetMetadataAsync(await asyncBufferFromFile(fileOf(directory, 3)));
    expect(metadata.row_groups.map(({ num_rows }) => Number(num_rows))).toEqual([20_000, 5_000]);
    expect(statSync(fileOf(directory, 3)).mode & 0o777).toBe(0o600);
    await store.close();
  });

  it('writes what came later into files of its own, and numbers no record twice', async () => {
    const directory = temporary();
    let store = await openStore({ directory });
    await store.commit({ records: inEpoch(0, 0, 10) });
    const before = await store.records({ ...everything, limit: 1_000 });
    await store.rollRecords(1);
    await store.close();
    store = await openStore({ directory });
    await store.commit({ records: inEpoch(0, 10, 20) });
    const after = await store.records({ ...everything, limit: 1_000 });
    expect(after[0]!.seq).toBeGreaterThan(before.at(-1)!.seq);
    // A file that the store knows nothing of, from a copy of the directory, say.
    writeFileSync(fileOf(directory, 0, 'records-2.parquet'), 'precious');
    await store.rollRecords(1);
    expect(await read(fileOf(directory, 0), 0)).toEqual(inEpoch(0, 0, 10));
    expect(await read(fileOf(directory, 0, 'records-3.parquet'), 0)).toEqual(inEpoch(0, 10, 20));
    expect(readFileSync(fileOf(directory, 0, 'records-2.parquet'), 'utf8')).toBe('precious');
    await store.close();
  });

  it('goes on where a crash ended it: nothing is lost and nothing is there twice', async () => {
    // As each step leaves the disk: planned; file half written; file in place; noted so; some records deleted.
    const crashes: ((database: Database.Database, directory: string, whole: Buffer) => void)[] = [
      () => undefined,
      (_, directory) => writeFileSync(fileOf(directory, 0, '.records.parquet.tmp'), 'PAR1 half'),
      (_, directory, whole) => writeFileSync(fileOf(directory, 0), whole),
      (database, directory, whole) => {
        writeFileSync(fileOf(directory, 0), whole);
        database.exec('UPDATE rolled SET state = 1');
      },
      (database, directory, whole) => {
        writeFileSync(fileOf(directory, 0), whole);
        database.exec('UPDATE rolled SET state = 1; DELETE FROM record WHERE seq <= 40');
      },
    ];
    const whole = temporary();
    let store = await openStore({ directory: whole });
    await store.commit({ records: inEpoch(0, 0, 100) });
    await store.rollRecords(1);
    await store.close();
    const file = readFileSync(fileOf(whole, 0));
    for (const crash of crashes) {
      const directory = temporary();
      store = await openStore({ directory });
      await store.commit({ records: inEpoch(0, 0, 100) });
      await store.close();
      const database = new Database(join(directory, 'waggle.db'));
      database.exec('INSERT INTO rolled VALUES (0, 1, 100, 0)');
      mkdirSync(join(directory, 'records', 'epoch=0'), { recursive: true });
      crash(database, directory, file);
      database.close();
      store = await openStore({ directory });
      await store.commit({ records: inEpoch(0, 100, 105) });
      await store.rollRecords(1);
      const parts = await Promise.all(
        ['records.parquet', 'records-2.parquet'].map((name) => read(fileOf(directory, 0, name), 0)),
      );
      expect(parts).toEqual([inEpoch(0, 0, 100), inEpoch(0, 100, 105)]);
      expect(readdirSync(join(directory, 'records', 'epoch=0'))).toHaveLength(2);
      expect(await store.records({ ...everything, limit: 10 })).toEqual([]);
      await store.close();
    }
  });

  it('lets commits through meanwhile, and one roll at a time', async () => {
    const directory = temporary();
    const store = await openStore({ directory });
    await store.commit({ records: inEpoch(0, 0, 5_000) });
    const rolling = store.rollRecords(1);
    await expect(store.rollRecords(1)).rejects.toMatchObject({ code: 'STORE_BUSY' });
    let others = 0;
    const commits = (async () => {
      while (others < 50) await store.commit({ records: [recordOf(others++, { epoch: 1 })] });
    })();
    expect(await rolling).toEqual({ files: 1, records: 5_000 });
    await commits;
    expect(await store.records({ ...everything, limit: 1_000 })).toHaveLength(50);
    await store.close();
  });

  it('ends early when it is told to, between two files, and goes on another time', async () => {
    const directory = temporary();
    const store = await openStore({ directory });
    for (const epoch of [0, 1, 2]) await store.commit({ records: inEpoch(epoch, 10 * epoch, 10 * epoch + 10) });
    const early = await store.rollRecords(3, () => !existsSync(fileOf(directory, 0)));
    expect(early.files).toBe(1);
    expect(existsSync(fileOf(directory, 1))).toBe(false);
    const rest = await store.rollRecords(3);
    expect(rest).toEqual({ files: 2, records: 30 - early.records });
    expect(await store.records({ ...everything, limit: 100 })).toEqual([]);
    await store.close();
  });

  it('leaves the records where they are when the file cannot be written', async () => {
    const directory = temporary();
    const store = await openStore({ directory });
    await store.commit({ records: inEpoch(0, 0, 10) });
    writeFileSync(join(directory, 'records'), 'in the way');
    await expect(store.rollRecords(1)).rejects.toThrow('ENOTDIR');
    expect(await store.records({ ...everything, limit: 100 })).toHaveLength(10);
    await store.close();
    expect(existsSync(join(directory, 'records', 'epoch=0'))).toBe(false);
  });
});

const committer = fileURLToPath(new URL('committer.js', import.meta.url));

/** Kills a process that commits, once it has said that many commits are on disk; the numbers it said. */
async function killed(directory: string, first: number, enough: number): Promise<number[]> {
  const child = spawn(process.execPath, [committer, directory, String(first)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const said: number[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    said.push(Number(line));
    if (said.length === enough) child.kill('SIGKILL');
  }
  expect((await exited)[1]).toBe('SIGKILL');
  return said;
}

it('keeps all that it acknowledged when the process is killed, once each, and lets go of its lock', async () => {
  const directory = temporary();
  let acknowledged: number[] = [];
  for (const enough of [1, 37, 150])
    acknowledged.push(...(await killed(directory, (acknowledged.at(-1) ?? 0) + 1_000, enough)));
  const held = openDataDirectory(directory);
  const store = await openStore({ directory });
  const records = [];
  for await (const record of store.streamRecords(everything)) records.push(record.requestId);
  expect(new Set(records).size).toBe(records.length);
  expect(new Set(records)).toEqual(new Set([...records, ...acknowledged.map((n) => `request-${n}`)]));
  const [row, ...others] = await collect<UsageRegisterRow>((take) => store.loadUsage(take));
  expect(others).toEqual([]);
  // The register and the record of one commit are there together.
  expect(`request-${row!.usage.requests}`).toBe(records.at(-1));
  await store.close();
  held.close();
});

it('finds the whole store when options change nothing', async () => {
  const { directory } = await filled();
  const options: StoreOptions = { directory, check: 'full', mayCreate: false };
  const store = await openStore(options);
  expect(await store.records({ ...everything, customer: customerOf(0), limit: 1_000 })).toHaveLength(167);
  const { databaseBytes, walBytes } = await store.sizes();
  expect(databaseBytes).toBeGreaterThan(4096);
  expect(walBytes).toBeGreaterThanOrEqual(0);
  await store.close();
});
