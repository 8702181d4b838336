import { closeSync, existsSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { WaggleError } from '@waggle/protocol/base';
import { syncPath } from '../data-directory.ts';
import { asStoreError, isDamage } from './failures.ts';
import { APPLICATION_ID, MIGRATIONS } from './schema.ts';
import type { StoreOptions } from './types.ts';

export const DATABASE_FILE = 'waggle.db';

/** Pages of 4 KiB in the write-ahead log before it is moved into the database: 8 MiB, a few ms of stall per 8 MiB. */
const CHECKPOINT_PAGES = 2_000;
/** Bytes that the write-ahead log keeps after a burst. */
const WAL_BYTES_MAX = 64 * 1024 * 1024;
/** Findings of a check that are quoted. */
const FINDINGS_MAX = 3;

const damaged = (path: string, why: string, cause?: unknown): WaggleError =>
  new WaggleError('DATA_DAMAGED', `Expected a sound database at ${path}: ${why}. Nothing was overwritten.`, { cause });

/** Takes the migrations that are missing, each all or nothing. */
function migrate(database: Database.Database): void {
  const from = database.pragma('user_version', { simple: true }) as number;
  for (let version = from; version < MIGRATIONS.length; version++) {
    const { prepare, sql } = MIGRATIONS[version]!;
    prepare?.(database);
    database
      .transaction(() => {
        database.exec(sql);
        database.pragma(`user_version = ${version + 1}`);
      })
      .immediate();
  }
}

/** Builds an empty store beside its place and moves it there when it is whole: a file under the name is never half a store. */
function create(directory: string, path: string): void {
  const temporary = `${path}.new`;
  for (const suffix of ['', '-journal']) rmSync(`${temporary}${suffix}`, { force: true });
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    const database = new Database(temporary);
    database.pragma(`application_id = ${APPLICATION_ID}`);
    migrate(database);
    database.close();
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, path);
  syncPath(directory);
}

/** Looks a store over without writing to it. Throws `DATA_DAMAGED` and `DATA_NEWER`. */
function inspect(path: string, check: 'quick' | 'full'): void {
  let database: Database.Database | undefined;
  try {
    database = new Database(path, { readonly: true, fileMustExist: true });
    const version = database.pragma('user_version', { simple: true }) as number;
    if (database.pragma('application_id', { simple: true }) !== APPLICATION_ID || version === 0)
      throw damaged(path, 'it is empty, or of another program');
    if (version > MIGRATIONS.length)
      throw new WaggleError(
        'DATA_NEWER',
        `Expected schema version ${MIGRATIONS.length} at most in ${path}, received ${version}`,
      );
    const pragma = check === 'full' ? 'integrity_check' : 'quick_check';
    const findings = database.pragma(`${pragma}(${FINDINGS_MAX})`) as Record<string, string>[];
    const texts = findings.flatMap((row) => Object.values(row));
    if (texts.join() !== 'ok') throw damaged(path, texts.join('; '));
  } catch (error) {
    throw isDamage(error) ? damaged(path, (error as Error).message, error) : error;
  } finally {
    database?.close();
  }
}

/** Settings of a connection: durable at every commit (WAL with synchronous FULL: one fsync each). */
function configure(database: Database.Database, pageCountMax: number | undefined): void {
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  database.pragma('foreign_keys = ON');
  database.pragma('temp_store = MEMORY');
  database.pragma(`wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  database.pragma(`journal_size_limit = ${WAL_BYTES_MAX}`);
  if (pageCountMax !== undefined) database.pragma(`max_page_count = ${pageCountMax}`);
}

/** Opens the store of a data directory, or creates it. Throws as `openStore`. */
export function openDatabase(options: StoreOptions): Database.Database {
  const path = join(options.directory, DATABASE_FILE);
  try {
    if (existsSync(path)) {
      inspect(path, options.check ?? 'quick');
    } else {
      if (existsSync(`${path}-wal`)) throw damaged(path, 'only its write-ahead log is there');
      if (options.mayCreate === false) throw damaged(path, 'it is missing');
      create(options.directory, path);
    }
    const database = new Database(path, { fileMustExist: true });
    configure(database, options.pageCountMax);
    migrate(database);
    return database;
  } catch (error) {
    throw asStoreError(error);
  }
}

/** A second connection to a store that is open, for reading only. */
export const openReader = (directory: string): Database.Database =>
  new Database(join(directory, DATABASE_FILE), { readonly: true, fileMustExist: true });
