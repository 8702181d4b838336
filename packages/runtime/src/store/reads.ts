import type Database from 'better-sqlite3';
import { utf8, WaggleError, type CustomerId, type Digest, type Epoch } from '@waggle/protocol/base';
import { inflateContent } from './commit.ts';
import { controlChunk, recordOf, usageChunk, type ControlChunk, type Row, type UsageChunk } from './rows.ts';
import { USAGE_COLUMNS } from './schema.ts';
import { leafOf, STATEMENT_COLUMNS, statementOf, STATEMENTS, type StoredStatement } from './statements.ts';
import { LEAVES_PAGE_MAX, STATEMENTS_PAGE_MAX } from './types.ts';
import type {
  ContentEntry,
  IdempotencyRow,
  LeafRow,
  Loaded,
  RecordQuery,
  RequestRecord,
  SealedEpoch,
  SealedSummary,
  StatementRow,
  VectorRow,
} from './types.ts';

/** Registers read at once when loading. */
const CHUNK_ROWS = 10_000;

const SEALED = 'epoch, first_leaf AS firstLeaf, tree_size AS treeSize, root, header, checkpoint, details';
const SELECT_STATEMENTS = `SELECT ${STATEMENT_COLUMNS} FROM ${STATEMENTS}`;
const RECORD_PAGE = 'time_ms >= ? AND time_ms < ? AND (time_ms, seq) > (?, ?) ORDER BY time_ms, seq LIMIT ?';

/** A chunk of registers, and where the next one starts: null after the last. */
export interface Chunk<T> {
  readonly chunk: T;
  readonly next: Row | null;
}

const nextOf = (rows: readonly Row[], keys: readonly number[]): Row | null =>
  rows.length < CHUNK_ROWS ? null : keys.map((column) => rows.at(-1)![column]!);

/** The worker's side of each read of `Store`; prepared once. Limits have been checked by the caller. */
export function reader(database: Database.Database) {
  const prepare = <T>(sql: string) => database.prepare<unknown[], T>(sql);
  const meta = prepare<{ key: string; value: string }>('SELECT key, value FROM meta');
  const vectors = prepare<VectorRow>('SELECT class, writer, up_to AS upTo FROM vector');
  const summaries = prepare<SealedSummary>(
    'SELECT epoch, first_leaf AS firstLeaf, tree_size AS treeSize, root FROM sealed ORDER BY epoch',
  );
  const control = prepare<Row>(
    `SELECT replica, key, version, value, signature FROM control WHERE (replica, key) > (?, ?)
    ORDER BY replica, key LIMIT ${CHUNK_ROWS}`,
  ).raw();
  const usage = prepare<Row>(
    `SELECT replica, run, epoch, customer, sku, version, ${USAGE_COLUMNS.join(', ')} FROM usage
    WHERE (replica, run, epoch, customer, sku) > (?, ?, ?, ?, ?)
    ORDER BY replica, run, epoch, customer, sku LIMIT ${CHUNK_ROWS}`,
  ).raw();
  const sealed = prepare<SealedEpoch>(`SELECT ${SEALED} FROM sealed WHERE epoch >= ? ORDER BY epoch LIMIT ?`);
  // One lower bound: of two SQLite searches by the first, and walks up to the other.
  const statements = prepare<StoredStatement>(
    `${SELECT_STATEMENTS} WHERE leaf_index >= max(? + 1, (SELECT first_leaf FROM sealed WHERE epoch = ?))
      AND leaf_index < (SELECT tree_size FROM sealed WHERE epoch = ?) ORDER BY leaf_index LIMIT ?`,
  );
  // Leaves of a customer ascend with epoch and origin.
  const statementsOf = prepare<StoredStatement>(
    `${SELECT_STATEMENTS} WHERE statement.customer = (SELECT id FROM customer WHERE name = ?)
      AND leaf_index >= (SELECT first_leaf FROM sealed WHERE epoch >= ? ORDER BY epoch LIMIT 1)
      AND leaf_index < (SELECT tree_size FROM sealed WHERE epoch <= ? ORDER BY epoch DESC LIMIT 1)
      ORDER BY leaf_index LIMIT ?`,
  );
  const statementsFrom = prepare<StoredStatement>(
    `${SELECT_STATEMENTS} WHERE leaf_index >= ? AND leaf_index < ?
      AND leaf_index < (SELECT tree_size FROM sealed ORDER BY epoch DESC LIMIT 1) ORDER BY leaf_index LIMIT ?`,
  );
  const headers = prepare<{ index: number; header: string }>(
    'SELECT first_leaf AS "index", header FROM sealed WHERE first_leaf >= ? AND first_leaf < ? ORDER BY first_leaf',
  );
  const month = prepare<Row>(
    `SELECT customer, ${USAGE_COLUMNS.join(', ')} FROM month WHERE month = ? AND customer > ?
    ORDER BY customer LIMIT ${CHUNK_ROWS}`,
  ).raw();
  const tile = prepare<Uint8Array>('SELECT hashes FROM tile WHERE level = ? AND idx = ?').pluck();
  const content = prepare<{ size: number; bytes: Uint8Array }>('SELECT size, bytes FROM content WHERE digest = ?');
  const contentSize = prepare<number>('SELECT size FROM content WHERE digest = ?').pluck();
  const contents = prepare<ContentEntry>(
    'SELECT digest, epoch, size FROM content WHERE digest > ? ORDER BY digest LIMIT ?',
  );
  const records = prepare<Row>(`SELECT * FROM record INDEXED BY record_time WHERE ${RECORD_PAGE}`).raw();
  const recordsOf = prepare<Row>(
    `SELECT * FROM record INDEXED BY record_customer WHERE customer = ? AND ${RECORD_PAGE}`,
  ).raw();
  const idempotency = prepare<IdempotencyRow>(
    `SELECT customer, key, request_hash AS requestHash, result, expires_ms AS expiresMs, repeats FROM idempotency
    WHERE customer = ? AND key = ? AND expires_ms > ?`,
  );

  return {
    load: (): Loaded => ({
      meta: new Map(meta.all().map(({ key, value }) => [key, value])),
      vectors: vectors.all(),
      sealed: summaries.all(),
    }),
    controlFrom(after: Row | null): Chunk<ControlChunk> {
      const rows = control.all(...(after ?? ['', '']));
      return { chunk: controlChunk(rows), next: nextOf(rows, [0, 1]) };
    },
    usageFrom(after: Row | null): Chunk<UsageChunk> {
      const rows = usage.all(...(after ?? ['', 0, 0, '', '']));
      return { chunk: usageChunk(rows), next: nextOf(rows, [0, 1, 2, 3, 4]) };
    },
    sealedRange: (from: Epoch, limit: number): SealedEpoch[] => sealed.all(from, limit),
    statements: (epoch: Epoch, afterLeaf: number, limit: number): StatementRow[] =>
      statements.all(afterLeaf, epoch, epoch, limit).map(statementOf),
    /** How many bytes a page of them is, short so that others need not wait for long: each is expanded to be measured. */
    statementBytesFrom(epoch: Epoch, after: Row | null): Chunk<number> {
      const rows = statements.all(after?.[0] ?? -1, epoch, epoch, STATEMENTS_PAGE_MAX);
      const chunk = rows.reduce((sum, row) => sum + statementOf(row).bytes.length, 0);
      return { chunk, next: rows.length < STATEMENTS_PAGE_MAX ? null : [rows.at(-1)!.leafIndex] };
    },
    statementsOf: (customer: CustomerId, from: Epoch, to: Epoch, limit: number): StatementRow[] =>
      statementsOf.all(customer, from, to, limit).map(statementOf),
    statementsFrom: (from: number, to: number, limit: number): StatementRow[] =>
      statementsFrom.all(from, to, limit).map(statementOf),
    monthFrom(of: string, after: Row | null): Chunk<readonly Row[]> {
      const rows = month.all(of, ...(after ?? ['']));
      return { chunk: rows, next: nextOf(rows, [0]) };
    },
    leaves(from: number, to: number): LeafRow[] {
      const ofHeaders = headers.all(from, to).map(({ index, header }) => ({ index, data: utf8(header) }));
      const ofStatements = statementsFrom
        .all(from, to, LEAVES_PAGE_MAX)
        .map((row) => ({ index: row.leafIndex, data: leafOf(statementOf(row)) }));
      return [...ofHeaders, ...ofStatements].sort((a, b) => a.index - b.index);
    },
    tile: (level: number, index: number): Uint8Array | null => tile.get(level, index) ?? null,
    content(digest: Digest): Uint8Array | null {
      const row = content.get(digest);
      if (row === undefined) return null;
      const bytes = inflateContent(digest, row.size, row.bytes);
      if (bytes === null) throw new WaggleError('DATA_DAMAGED', `Expected the content ${digest}, received other bytes`);
      return bytes;
    },
    contentSizes: (digests: readonly Digest[]): (number | null)[] =>
      digests.map((digest) => contentSize.get(digest) ?? null),
    lacks: (digests: readonly Digest[]): Digest[] => digests.filter((digest) => contentSize.get(digest) === undefined),
    contentDigests: (after: string, limit: number): ContentEntry[] => contents.all(after, limit),
    records({ customer, fromMs, toMs, after, limit }: RecordQuery): RequestRecord[] {
      // The index is searched by the first bound alone, so that is where the last page ended.
      const sinceMs = after?.timeMs ?? fromMs;
      const page = [sinceMs, toMs, sinceMs, after?.seq ?? 0, limit];
      const rows = customer === undefined ? records.all(...page) : recordsOf.all(customer, ...page);
      return rows.map(recordOf);
    },
    idempotency: (customer: CustomerId, key: string, nowMs: number): IdempotencyRow | null =>
      idempotency.get(customer, key, nowMs) ?? null,
  };
}
