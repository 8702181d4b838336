import type { CustomerId, Digest, Epoch, ReplicaId, Run } from '@waggle/protocol/base';
import type { Usage } from '@waggle/protocol/lattice';

/** A control register and its writer. */
export interface ControlRow {
  readonly replica: ReplicaId;
  readonly key: string;
  readonly version: number;
  /** JSON text. */
  readonly value: string;
  /** Base64. */
  readonly signature: string;
}

/** A usage register and its writer, `(replica, run)`. */
export interface UsageRegisterRow {
  readonly replica: ReplicaId;
  readonly run: Run;
  readonly epoch: Epoch;
  readonly customer: CustomerId;
  readonly sku: string;
  readonly version: number;
  readonly usage: Usage;
}

/** How far everything of a writer is held; `writer` is the lattice's name for it. */
export interface VectorRow {
  readonly class: 'control' | 'usage';
  readonly writer: string;
  readonly upTo: number;
}

/** One request, as metered. */
export interface RequestRecord {
  /** Given by the store, growing, never used twice. */
  readonly seq: number;
  /** Unix ms. */
  readonly timeMs: number;
  readonly customer: CustomerId;
  /** What the customer used to authenticate. */
  readonly keyId: string;
  readonly requestId: string;
  readonly operation: string;
  readonly epoch: Epoch;
  /** HTTP status. */
  readonly status: number;
  /** Code of the error table, or null when there was none. */
  readonly code: string | null;
  /** JSON text of the request's parameters. */
  readonly params: string;
  readonly sku: string;
  readonly usage: Usage;
  /** Microseconds from arrival to the start of the work, and of the work. */
  readonly queueMicros: number;
  readonly processMicros: number;
}
export type NewRecord = Omit<RequestRecord, 'seq'>;

/** Bytes by their SHA-256, pinned until dropped; `epoch` is the last one that they were pinned for. */
export interface ContentRow {
  readonly digest: Digest;
  readonly epoch: Epoch;
  readonly bytes: Uint8Array;
}

/** What is needed of every sealed epoch at start. */
export interface SealedSummary {
  readonly epoch: Epoch;
  /** Index of the epoch's header leaf. */
  readonly firstLeaf: number;
  /** Size and root (32 bytes) of the tree with this epoch in it. */
  readonly treeSize: number;
  readonly root: Uint8Array;
}

export interface SealedEpoch extends SealedSummary {
  /** JCS text. */
  readonly header: string;
  /** Signed note. */
  readonly checkpoint: string;
  /** JSON text, the caller's own. */
  readonly details: string;
}

export interface StatementRow {
  readonly customer: CustomerId;
  /** Sealed in, and coming from: the same unless late. */
  readonly epoch: Epoch;
  readonly origin: Epoch;
  readonly leafIndex: number;
  /** The JCS form. */
  readonly bytes: Uint8Array;
}

export interface LeafRow {
  readonly index: number;
  readonly data: Uint8Array;
}

/** A tile of the log, whole or partial: 1 to 256 hashes of 32 bytes. */
export interface TileRow {
  readonly level: number;
  readonly index: number;
  readonly hashes: Uint8Array;
}

/** Usage of a customer in a calendar month (UTC). */
export interface MonthRow {
  /** As in "2026-11". */
  readonly month: string;
  readonly customer: CustomerId;
  readonly usage: Usage;
}

/** A request that may be repeated without being metered again. */
export interface IdempotencyRow {
  readonly customer: CustomerId;
  readonly key: string;
  readonly requestHash: string;
  /** JSON text: what to answer a repeat with. */
  readonly result: string;
  /** Unix ms. */
  readonly expiresMs: number;
  /** Repeats answered so far. */
  readonly repeats: number;
}

/**
 * One transaction. Rows replace those of the same primary key; registers only when their version is higher. Drops are
 * carried out before writes.
 *
 * Statements and leaves are not shown before the `sealed` row of their epoch, and tiles beyond the last sealed tree mean
 * nothing yet: so a large seal may be written in several commits, its `sealed` row in the last, and small commits need
 * not wait for a huge one.
 */
export interface Batch {
  readonly meta?: readonly (readonly [key: string, value: string])[];
  readonly control?: readonly ControlRow[];
  readonly usage?: readonly UsageRegisterRow[];
  readonly vectors?: readonly VectorRow[];
  readonly records?: readonly NewRecord[];
  readonly idempotency?: readonly IdempotencyRow[];
  readonly contents?: readonly ContentRow[];
  readonly sealed?: readonly SealedEpoch[];
  /** Sealed epochs whose checkpoint has got other signatures. */
  readonly checkpoints?: readonly Pick<SealedEpoch, 'epoch' | 'checkpoint'>[];
  readonly statements?: readonly StatementRow[];
  readonly tiles?: readonly TileRow[];
  /** To be added to what the month has; a count ends at 2^53 − 1. */
  readonly months?: readonly MonthRow[];
  readonly dropControl?: readonly { readonly replica: ReplicaId; readonly key: string }[];
  readonly dropUsage?: readonly { readonly replica: ReplicaId; readonly run: Run; readonly epoch: Epoch }[];
  readonly dropVectors?: readonly Omit<VectorRow, 'upTo'>[];
  readonly dropContents?: readonly Digest[];
  /** Contents that go unless an epoch from `before` on has pinned them. */
  readonly expireContents?: readonly { readonly digest: Digest; readonly before: Epoch }[];
  /** Drops up to `DROP_IDEMPOTENCY_MAX` of the results that expired before this time, in Unix ms. */
  readonly dropIdempotencyBeforeMs?: number;
  /** Drops up to `DROP_MONTHS_MAX` rows of earlier months than this one. */
  readonly dropMonthsBefore?: string;
}

/** Where a page of records ended. */
export type RecordCursor = Pick<RequestRecord, 'timeMs' | 'seq'>;

/** Records by time, then `seq`; `fromMs` inclusive, `toMs` exclusive. */
export interface RecordQuery {
  readonly customer?: CustomerId;
  readonly fromMs: number;
  readonly toMs: number;
  /** Only what comes after this one. */
  readonly after?: RecordCursor;
  /** 1 to `RECORDS_PAGE_MAX`. */
  readonly limit: number;
}

export interface Loaded {
  readonly meta: ReadonlyMap<string, string>;
  readonly vectors: readonly VectorRow[];
  /** By epoch. */
  readonly sealed: readonly SealedSummary[];
}

export interface ContentEntry {
  readonly digest: Digest;
  readonly epoch: Epoch;
  /** Of the content itself, in bytes. */
  readonly size: number;
}

/** Bytes on disk. */
export interface StoreSizes {
  readonly databaseBytes: number;
  readonly walBytes: number;
}

/** What a call of `rollRecords` moved. */
export interface Rolled {
  readonly files: number;
  readonly records: number;
}

/** Most rows of a page, each kind. */
export const RECORDS_PAGE_MAX = 1_000;
export const STATEMENTS_PAGE_MAX = 1_000;
export const SEALED_PAGE_MAX = 1_000;
export const CONTENTS_PAGE_MAX = 10_000;
export const LEAVES_PAGE_MAX = 256;
/** Expired results that one commit drops at most. */
export const DROP_IDEMPOTENCY_MAX = 1_000;
/** Rows of earlier months that one commit drops at most. */
export const DROP_MONTHS_MAX = 1_000;

/**
 * What a node keeps on disk. Commits are carried out one after the other, in the order they were made; a read sees every
 * commit that had resolved when it was asked for, and keeps none waiting. Every call may throw `STORE_BUSY`
 * (too many are waiting, or another process has held the database locked for 5 s), `STORE_FAILED` (the disk failed, in a read or
 * a write, or the store is closed: every later call fails too) and `DATA_DAMAGED` (what was read is not what was written).
 */
export interface Store {
  /** All of `meta`, the vectors, and a summary of each sealed epoch. */
  load(): Promise<Loaded>;
  /** All control registers, by replica and key, in chunks. */
  loadControl(onChunk: (rows: ControlRow[]) => void): Promise<void>;
  /** All usage registers, by replica, run, epoch, customer and SKU, in chunks. */
  loadUsage(onChunk: (rows: UsageRegisterRow[]) => void): Promise<void>;
  /**
   * Carries a batch out: on disk when it resolves, nothing of it when it rejects with `STORE_FULL` or `STORE_BUSY` (then the
   * store goes on, and takes writes again when there is room, or no other process holds the database locked).
   */
  commit(batch: Batch): Promise<void>;
  sealedEpoch(epoch: Epoch): Promise<SealedEpoch | null>;
  /** Sealed epochs from this one on; `limit` 1 to `SEALED_PAGE_MAX`. */
  sealedRange(from: Epoch, limit: number): Promise<SealedEpoch[]>;
  /** The statements sealed in an epoch, by leaf, after that leaf; `limit` 1 to `STATEMENTS_PAGE_MAX`. */
  statements(epoch: Epoch, afterLeaf: number | null, limit: number): Promise<StatementRow[]>;
  /** How many bytes the statements sealed in an epoch are together. */
  statementBytes(epoch: Epoch): Promise<number>;
  /** The sealed statements whose leaf is from `from` up to, not including, `to`, by leaf; `limit` likewise. */
  statementsFrom(from: number, to: number, limit: number): Promise<StatementRow[]>;
  /** The usage of a month, by customer, in chunks. */
  loadMonth(month: string, onChunk: (rows: MonthRow[]) => void): Promise<void>;
  /** A customer's statements sealed in the epochs from–to (inclusive), by epoch and origin; `limit` likewise. */
  statementsOf(customer: CustomerId, fromEpoch: Epoch, toEpoch: Epoch, limit: number): Promise<StatementRow[]>;
  /**
   * The sealed leaves with an index from `from` up to, not including, `to`, derived from headers and statements;
   * `LEAVES_PAGE_MAX` at most.
   */
  leaves(from: number, to: number): Promise<LeafRow[]>;
  /** The newest form of a tile: hashes of 32 bytes, or null. */
  tile(level: number, index: number): Promise<Uint8Array | null>;
  /** A content, checked against its digest, or null. */
  content(digest: Digest): Promise<Uint8Array | null>;
  /** The sizes of contents in bytes, in the order asked for; null for one that is not held. */
  contentSizes(digests: readonly Digest[]): Promise<(number | null)[]>;
  /** Those of the contents that are not held. */
  lacks(digests: readonly Digest[]): Promise<Digest[]>;
  /** The contents held, by digest, after that one; `limit` 1 to `CONTENTS_PAGE_MAX`. */
  contentDigests(after: Digest | null, limit: number): Promise<ContentEntry[]>;
  /** A page of the records that are not rolled out. */
  records(query: RecordQuery): Promise<RequestRecord[]>;
  /** All of them, page by page: commits get in between. */
  streamRecords(query: Omit<RecordQuery, 'limit' | 'after'>): AsyncGenerator<RequestRecord>;
  /** The result kept under an idempotency key, unless it has expired. */
  idempotency(customer: CustomerId, key: string, nowMs: number): Promise<IdempotencyRow | null>;
  /**
   * Moves the records of every epoch below `epochBefore` into `<data>/records/epoch=<n>/records.parquet` (`records-2.parquet`
   * and so on for what came after), which DuckDB, Spark and Trino read in place. A crash at any point loses and doubles
   * nothing: the next call goes on where it ended. One call at a time.
   * After it, `records` no longer shows them. It ends early, between two files, when `goesOn` says so.
   */
  rollRecords(epochBefore: Epoch, goesOn?: () => boolean): Promise<Rolled>;
  sizes(): Promise<StoreSizes>;
  /** Waits for the calls under way, moves the write-ahead log into the database and closes it. Ends after a failure as well. */
  close(): Promise<void>;
}

export interface StoreOptions {
  /** The data directory: locked by this process. */
  readonly directory: string;
  /** Whether to create a store if there is none (default true). Without, a missing store throws `DATA_DAMAGED`. */
  readonly mayCreate?: boolean;
  /** How thoroughly to look for damage at start: structure only (default), or indexes against tables too, which is slow. */
  readonly check?: 'quick' | 'full';
  /** Most pages (4 KiB) of the database; beyond it, commits throw `STORE_FULL`. */
  readonly pageCountMax?: number;
}
