import { WaggleError } from '@waggle/protocol/base';
import type { Node } from './node.ts';

/** How old a probe may be before the next call starts another, and before calls wait for it, in ms. */
const FRESH_MS = 2_000;
const STALE_MS = 15_000;

/** What readiness asks of a node. */
export type Probed = Pick<Node, 'isDraining' | 'isInformed' | 'isBanned' | 'clock'> & {
  readonly driver: Pick<Node['driver'], 'isFull'>;
  readonly pool: Pick<Node['pool'], 'probe'>;
};

/** A node that has just joined, or started again. */
export const uninformed = (): WaggleError =>
  new WaggleError(
    'NOT_READY',
    "Expected a node that knows the cluster's customers; this one has joined or started and is still learning them",
  );

/** A node whose figures and changes nobody takes any more. */
export const banned = (): WaggleError =>
  new WaggleError(
    'NOT_READY',
    'Expected a member; the operator has banned this node, and what it counts or changes reaches nobody: ask another node',
  );

/**
 * Whether a node should get requests: it is not going away, can write, and a worker has just made a picture. Probes are made
 * when somebody asks, at most one every 2 s; whoever asks meanwhile gets the last result at once.
 */
export class Readiness {
  readonly #node: Probed;
  #last: { readonly atMs: number; readonly error: WaggleError | null } | null = null;
  #probing: Promise<void> | null = null;
  #isLeaving = false;

  constructor(node: Probed) {
    this.#node = node;
  }

  /** From now on it says `DRAINING`, while requests are still taken: balancers have to see it before they are not. */
  leave(): void {
    this.#isLeaving = true;
  }

  /** Null if ready, else why not: `DRAINING`, `STORE_FULL`, or `NOT_READY` when no worker works, it knows no customers yet, or is banned. */
  async check(): Promise<WaggleError | null> {
    const { isDraining, isInformed, isBanned, driver, clock } = this.#node;
    if (isDraining || this.#isLeaving) return new WaggleError('DRAINING');
    if (driver.isFull) return new WaggleError('STORE_FULL');
    if (isBanned) return banned();
    if (!isInformed) return uninformed();
    const ageMs = this.#last === null ? Number.POSITIVE_INFINITY : clock.monotonicMs() - this.#last.atMs;
    if (ageMs > FRESH_MS) this.#probing ??= this.#probe();
    if (ageMs > STALE_MS) await this.#probing;
    return this.#last?.error ?? null;
  }

  async #probe(): Promise<void> {
    const outcome = await this.#node.pool.probe();
    const error = outcome.ok
      ? null
      : new WaggleError('NOT_READY', `Expected a worker that makes a picture: ${outcome.error.message}`);
    this.#last = { atMs: this.#node.clock.monotonicMs(), error };
    this.#probing = null;
  }
}
