import type Database from 'better-sqlite3';
import { equalBytes, WaggleError } from '@waggle/protocol/base';
import { leafOf, statementWriter } from './statements.ts';
import type { StatementRow } from './types.ts';

/** Statements of one transaction: some MB in memory. */
const COMPACTION_ROWS = 2_000;

/** Where compact statements are gathered until all are there. */
const TABLES = `
  CREATE TABLE IF NOT EXISTS customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE IF NOT EXISTS frame (
    id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, origin INTEGER NOT NULL, text TEXT NOT NULL,
    UNIQUE (epoch, origin, text)
  ) STRICT;
  CREATE TABLE IF NOT EXISTS compact (
    leaf_index INTEGER PRIMARY KEY, customer INTEGER NOT NULL, frame INTEGER NOT NULL, bytes BLOB NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS statement_customer ON compact (customer);
`;

type Stored = StatementRow & { readonly leaf: Uint8Array | null };

/**
 * Copies the statements of a store in which they are not compact yet, some thousand to a transaction: what is there after a
 * crash is gone on from. As their leaves are let go of, they are compared with what they are derived from from now on.
 * Throws `DATA_DAMAGED` where they differ.
 */
export function compactAll(database: Database.Database): void {
  database.exec(TABLES);
  const headers = database
    .prepare<[], number>(
      'SELECT idx FROM leaf JOIN sealed ON first_leaf = idx WHERE data <> CAST(header AS BLOB) LIMIT 1',
    )
    .pluck();
  const last = database.prepare<[], number>('SELECT ifnull(max(leaf_index), -1) FROM compact').pluck();
  const next = database.prepare<[number], Stored>(
    `SELECT leaf_index AS leafIndex, customer, epoch, origin, bytes, leaf.data AS leaf
    FROM statement LEFT JOIN leaf ON idx = leaf_index WHERE leaf_index > ? ORDER BY leaf_index LIMIT ${COMPACTION_ROWS}`,
  );
  const write = statementWriter(database, 'compact');
  const some = database.transaction((): number => {
    const rows = next.all(last.get()!);
    for (const row of rows) {
      if (row.leaf !== null && !equalBytes(row.leaf, leafOf(row))) throw mismatch(row.leafIndex);
      write(row.leafIndex, row.customer, row.epoch, row.origin, row.bytes);
    }
    return rows.length;
  });
  const header = headers.get();
  if (header !== undefined) throw mismatch(header);
  while (some.immediate() === COMPACTION_ROWS);
}

const mismatch = (index: number): WaggleError =>
  new WaggleError('DATA_DAMAGED', `Expected leaf ${index} of the log to be what its statement or header says`);
