import type { LevelWithSilent } from 'pino';

/** Everything an operator can set, validated. docs/OPERATING.md lists flags and variables. */
export interface Config {
  /** Where the HTTP API listens; port 0 takes any. */
  readonly http: { readonly host: string; readonly port: number };
  /** What others call this node; null: from the address it listens on. */
  readonly publicUrl: string | null;
  /** Absolute path of the one directory for everything this node keeps. */
  readonly data: string;
  /** First start of a new cluster: the name in every checkpoint. */
  readonly origin: string;
  readonly epochMs: number;
  readonly sealGraceMs: number;
  /** Resize processes. */
  readonly workers: number;
  /** First start of a new cluster: the operator's own token; null: one is made. */
  readonly operatorToken: string | null;
  readonly logLevel: LevelWithSilent;
  /** Requests that may wait for a worker. */
  readonly queueMax: number;
  /** Data-segment limit of a worker, in bytes. */
  readonly workerMemoryBytes: number;
  /** How long request records stay in the database before they are rolled into Parquet files, in ms. */
  readonly recordRetentionMs: number;
  /** How long the node stays up, not ready, before it stops taking requests, in ms: balancers notice meanwhile. */
  readonly drainMs: number;
  /** Whether anyone may read the log (checkpoint, tiles, epochs without statements), or auditors only. */
  readonly publicLog: boolean;
  /** Most bytes of the database; null: what the disk holds. */
  readonly databaseBytesMax: number | null;
}
