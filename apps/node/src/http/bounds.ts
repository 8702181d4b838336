/** What bounds a server, beside the limits of customers and the pool. */
export interface Bounds {
  /** Memory for bodies on their way in and at work, in bytes: 16 of the largest that the default limits allow. */
  readonly bodiesBytesMax: number;
  /** Memory for pictures on their way out, in bytes: those that clients have not taken yet. */
  readonly answersBytesMax: number;
  /** Requests at the same time that read the store. Each has one read under way, and metering waits behind them. */
  readonly readsMax: number;
  /** Archives at the same time: each is in memory as a whole until it is sent. */
  readonly archivesMax: number;
  /** How long a client may take nothing of its answer, in ms, before its connection is cut. */
  readonly writeIdleMs: number;
}

/** Those of every node; tests set others. */
export const BOUNDS: Bounds = {
  bodiesBytesMax: 512 * 2 ** 20,
  answersBytesMax: 512 * 2 ** 20,
  readsMax: 16,
  archivesMax: 4,
  writeIdleMs: 60_000,
};
