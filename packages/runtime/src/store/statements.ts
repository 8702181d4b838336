import type Database from 'better-sqlite3';
import { fromUtf8, type CustomerId, type Epoch } from '@waggle/protocol/base';
import { statementLeaf } from '@waggle/protocol/transparency';
import { nodeCrypto } from '../node-crypto.ts';
import { compactStatement, expandStatement } from './compact.ts';
import type { StatementRow } from './types.ts';

/** The number of a row that has these values, put there if there is none. */
function numbering(database: Database.Database, table: string, columns: readonly string[]) {
  const values = columns.map(() => '?').join(', ');
  const find = database
    .prepare<unknown[], number>(
      `SELECT id FROM ${table} WHERE ${columns.map((column) => `${column} = ?`).join(' AND ')}`,
    )
    .pluck();
  const add = database.prepare(`INSERT INTO ${table} (${columns.join(', ')}) VALUES (${values})`);
  return (...row: readonly unknown[]): number => find.get(...row) ?? (add.run(...row).lastInsertRowid as number);
}

/** Puts statements into a table, in their compact form. Remembers nothing from one to the next: a transaction may be undone. */
export function statementWriter(database: Database.Database, table = 'statement') {
  const customerNumber = numbering(database, 'customer', ['name']);
  const frameNumber = numbering(database, 'frame', ['epoch', 'origin', 'text']);
  const put = database.prepare(
    `INSERT OR REPLACE INTO ${table} (leaf_index, customer, frame, bytes) VALUES (?, ?, ?, ?)`,
  );
  return (leafIndex: number, customer: CustomerId, epoch: Epoch, origin: Epoch, bytes: Uint8Array): void => {
    const compact = compactStatement(customer, bytes);
    put.run(leafIndex, customerNumber(customer), frameNumber(epoch, origin, compact.frame), compact.bytes);
  };
}

/** What to select of `STATEMENTS`, in this order of the tables: first the statements wanted, then what they refer to. */
export const STATEMENT_COLUMNS =
  'customer.name AS customer, epoch, origin, leaf_index AS leafIndex, frame.text AS frame, bytes';
export const STATEMENTS = `statement CROSS JOIN customer ON customer.id = statement.customer
  CROSS JOIN frame ON frame.id = statement.frame`;

export interface StoredStatement extends StatementRow {
  readonly frame: string;
}

/** A row as selected, expanded. Throws `DATA_DAMAGED`. */
export const statementOf = ({ customer, epoch, origin, leafIndex, frame, bytes }: StoredStatement): StatementRow => ({
  customer,
  epoch,
  origin,
  leafIndex,
  bytes: expandStatement({ frame, bytes }, customer),
});

/** The leaf that a statement has in the log. */
export const leafOf = ({ bytes, epoch }: Pick<StatementRow, 'bytes' | 'epoch'>): Uint8Array =>
  statementLeaf(fromUtf8(bytes), epoch, nodeCrypto);
