import type Database from 'better-sqlite3';
import { compactAll } from './compaction.ts';

/** `PRAGMA application_id`: "Wagl". */
export const APPLICATION_ID = 0x5761676c;

/** The columns of a usage, in the order of `DIMENSIONS`. */
export const USAGE_COLUMNS = [
  'requests',
  'requests_failed',
  'bytes_in',
  'bytes_out',
  'pixels_in',
  'pixels_out',
  'cpu_micros',
] as const;

const USAGE_DEFINITIONS = USAGE_COLUMNS.map((name) => `${name} INTEGER NOT NULL`).join(', ');

/** A step of the schema, for stores that have taken all before it. */
interface Migration {
  /** Long work, in as many transactions as it likes: it is done again, from where it was, until the step is taken. */
  readonly prepare?: (database: Database.Database) => void;
  /** Takes the step, in one transaction. */
  readonly sql: string;
}

/**
 * The schema, by numbered steps: `PRAGMA user_version` is how many have been taken. A step that was released never
 * changes. WITHOUT ROWID where rows are small or only ever read in key order.
 */
export const MIGRATIONS: readonly Migration[] = [
  {
    sql: `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

  CREATE TABLE control (
    replica TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value TEXT NOT NULL, signature TEXT NOT NULL,
    PRIMARY KEY (replica, key)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE usage (
    replica TEXT NOT NULL, run INTEGER NOT NULL, epoch INTEGER NOT NULL, customer TEXT NOT NULL, sku TEXT NOT NULL,
    version INTEGER NOT NULL, ${USAGE_DEFINITIONS},
    PRIMARY KEY (replica, run, epoch, customer, sku)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE vector (class TEXT NOT NULL, writer TEXT NOT NULL, up_to INTEGER NOT NULL, PRIMARY KEY (class, writer))
  STRICT, WITHOUT ROWID;

  -- AUTOINCREMENT: a seq is not used again, even after every record has been rolled out.
  CREATE TABLE record (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, customer TEXT NOT NULL, key_id TEXT NOT NULL,
    request_id TEXT NOT NULL, operation TEXT NOT NULL, epoch INTEGER NOT NULL, status INTEGER NOT NULL, code TEXT,
    params TEXT NOT NULL, sku TEXT NOT NULL, ${USAGE_DEFINITIONS},
    queue_us INTEGER NOT NULL, process_us INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX record_customer ON record (customer, time_ms);
  CREATE INDEX record_time ON record (time_ms);
  CREATE INDEX record_epoch ON record (epoch);

  -- state: 0 the file is being written, 1 it is there and the rows are being deleted, 2 done.
  CREATE TABLE rolled (
    epoch INTEGER NOT NULL, part INTEGER NOT NULL, last_seq INTEGER NOT NULL, state INTEGER NOT NULL,
    PRIMARY KEY (epoch, part)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE idempotency (
    customer TEXT NOT NULL, key TEXT NOT NULL, request_hash TEXT NOT NULL, result TEXT NOT NULL,
    expires_ms INTEGER NOT NULL, repeats INTEGER NOT NULL,
    PRIMARY KEY (customer, key)
  ) STRICT;
  CREATE INDEX idempotency_expires ON idempotency (expires_ms);

  -- size: of the content; deflated (zlib) when bytes are fewer.
  CREATE TABLE content (digest TEXT PRIMARY KEY, epoch INTEGER NOT NULL, size INTEGER NOT NULL, bytes BLOB NOT NULL) STRICT;

  CREATE TABLE sealed (
    epoch INTEGER PRIMARY KEY, first_leaf INTEGER NOT NULL, tree_size INTEGER NOT NULL, root BLOB NOT NULL,
    header TEXT NOT NULL, checkpoint TEXT NOT NULL, details TEXT NOT NULL
  ) STRICT;

  -- Appended by leaf, so that a seal writes its statements in order.
  CREATE TABLE statement (
    leaf_index INTEGER PRIMARY KEY, customer TEXT NOT NULL, epoch INTEGER NOT NULL, origin INTEGER NOT NULL,
    bytes BLOB NOT NULL, UNIQUE (customer, epoch, origin)
  ) STRICT;

  CREATE TABLE leaf (idx INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;

  CREATE TABLE tile (level INTEGER NOT NULL, idx INTEGER NOT NULL, hashes BLOB NOT NULL, PRIMARY KEY (level, idx)) STRICT;
  `,
  },
  {
    sql: `
  -- Derived from statement: sums by UTC month, of the start of the epoch of origin ("2026-11").
  CREATE TABLE month (month TEXT NOT NULL, customer TEXT NOT NULL, ${USAGE_DEFINITIONS}, PRIMARY KEY (month, customer))
  STRICT, WITHOUT ROWID;
  `,
  },
  {
    // Statements become compact, and leaves are derived from them.
    prepare: compactAll,
    sql: `
  DROP TABLE leaf;
  DROP TABLE statement;
  ALTER TABLE compact RENAME TO statement;
  CREATE INDEX sealed_leaf ON sealed (first_leaf);
  `,
  },
];
