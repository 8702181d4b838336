import { readFileSync } from 'node:fs';

/** What bounds a server, beside the limits of customers and the pool. */
export interface Bounds {
  /** Memory for bodies on their way in and at work, in bytes: 16 of the largest that the default limits allow. */
  readonly bodiesBytesMax: number;
  /** Memory for pictures on their way out, in bytes: those that clients have not taken yet. */
  readonly answersBytesMax: number;
  /** Requests at the same time that read the store. Each has one read under way, and metering waits behind them. */
  readonly readsMax: number;
  /** Archives at the same time: of each one slot's content, or a page of statements, is in memory. */
  readonly archivesMax: number;
  /** Connections at the same time. Anybody may open one; workers, links and files want descriptors too. */
  readonly connectionsMax: number;
  /** How long a client may take nothing of its answer, in ms, before its connection is cut. */
  readonly writeIdleMs: number;
}

/** Those of every node; tests set others. */
export const BOUNDS: Bounds = {
  bodiesBytesMax: 512 * 2 ** 20,
  answersBytesMax: 512 * 2 ** 20,
  readsMax: 16,
  archivesMax: 4,
  connectionsMax: Math.min(10_000, Math.floor(descriptorsMax() / 2)),
  writeIdleMs: 60_000,
};

/** How many descriptors this process may have; where the system does not say, more than connections ever take. */
function descriptorsMax(): number {
  try {
    return Number(/^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? Infinity);
  } catch {
    return Infinity;
  }
}
