import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import type { Epoch } from '@waggle/protocol/base';
import { syncPath } from '../data-directory.ts';
import { ParquetFile, type ParquetColumn } from '../parquet.ts';
import { DATABASE_FILE } from './database.ts';
import { USAGE_COLUMNS } from './schema.ts';

/** Rows of a row group: some MB in memory while it is written. */
const GROUP_ROWS = 20_000;

const text = (name: string): ParquetColumn => ({ name, type: 'STRING' });
const whole = (name: string): ParquetColumn => ({ name, type: 'INT64' });

/** The columns of a file of records. The epoch is in the path, hive-style. */
const COLUMNS: readonly ParquetColumn[] = [
  whole('seq'),
  { name: 'time_ms', type: 'TIMESTAMP' },
  ...['customer', 'key_id', 'request_id', 'operation'].map(text),
  whole('status'),
  { name: 'code', type: 'STRING', nullable: true },
  ...['params', 'sku'].map(text),
  ...USAGE_COLUMNS.map(whole),
  ...['queue_us', 'process_us'].map(whole),
];

/** One file: the records of an epoch up to a `seq`. */
export interface Part {
  readonly epoch: Epoch;
  /** 1, 2 …: a later one holds what came after the earlier ones were written. */
  readonly part: number;
  readonly lastSeq: number;
}

const folderOf = (directory: string, epoch: Epoch): string => join(directory, 'records', `epoch=${epoch}`);
const nameOf = (part: number): string => (part === 1 ? 'records.parquet' : `records-${part}.parquet`);

/** The first part from `part` on whose file is not there. */
export function freePart(directory: string, epoch: Epoch, part: number): number {
  let free = part;
  while (existsSync(join(folderOf(directory, epoch), nameOf(free)))) free++;
  return free;
}

/**
 * Writes the file of a part, over whatever an interrupted attempt left of it. Durable and in place on return; before that
 * it has a name that readers of `*.parquet` pass over.
 */
export function writeRecordFile(directory: string, { epoch, part, lastSeq }: Part): void {
  const folder = folderOf(directory, epoch);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const temporary = join(folder, `.${nameOf(part)}.tmp`);
  const database = new Database(join(directory, DATABASE_FILE), { readonly: true, fileMustExist: true });
  const file = new ParquetFile(temporary, COLUMNS);
  try {
    const group = database
      .prepare<[Epoch, number, number], (string | number | null)[]>(
        `SELECT ${COLUMNS.map(({ name }) => name).join(', ')} FROM record INDEXED BY record_epoch
        WHERE epoch = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ${GROUP_ROWS}`,
      )
      .raw();
    let rows = group.all(epoch, 0, lastSeq);
    while (rows.length > 0) {
      file.append(rows);
      rows = group.all(epoch, rows.at(-1)![0] as number, lastSeq);
    }
    file.finish();
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  } finally {
    file.close();
    database.close();
  }
  renameSync(temporary, join(folder, nameOf(part)));
  for (const path of [folder, dirname(folder), directory]) syncPath(path);
}
