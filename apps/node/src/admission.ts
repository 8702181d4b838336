import { WaggleError, type CustomerId } from '@waggle/protocol/base';
import type { Limits } from '@waggle/identity';

interface Tally {
  inFlight: number;
  /** Requests that may start now without exceeding the rate: a token bucket of one second's worth. */
  tokens: number;
  filledMs: number;
}

/** Customers of whom a tally is kept at most; the longest idle go first, and come back with a full bucket. */
const TALLIES_MAX = 100_000;

/** Decides in microseconds, before any work, whether a customer may have one more request in flight at this node. */
export class Admission {
  readonly #tallies = new Map<CustomerId, Tally>();

  /**
   * Takes a place for a request and gives what gives it back. `nowMs` is monotonic.
   * Throws `LIMIT_EXCEEDED` over `concurrentRequestsMax` or `requestsPerSecond`.
   */
  enter(customer: CustomerId, limits: Limits, nowMs: number): () => void {
    const { concurrentRequestsMax, requestsPerSecond } = limits;
    const tally = this.#tally(customer, requestsPerSecond, nowMs);
    if (tally.inFlight >= concurrentRequestsMax)
      throw new WaggleError(
        'LIMIT_EXCEEDED',
        `Expected at most ${concurrentRequestsMax} requests in flight (concurrentRequestsMax)`,
      );
    tally.tokens = Math.min(requestsPerSecond, tally.tokens + ((nowMs - tally.filledMs) / 1000) * requestsPerSecond);
    tally.filledMs = nowMs;
    if (tally.tokens < 1)
      throw new WaggleError(
        'LIMIT_EXCEEDED',
        `Expected at most ${requestsPerSecond} requests a second (requestsPerSecond)`,
      );
    tally.tokens--;
    tally.inFlight++;
    let isInside = true;
    return () => {
      if (isInside) tally.inFlight--;
      isInside = false;
    };
  }

  #tally(customer: CustomerId, full: number, nowMs: number): Tally {
    const tally = this.#tallies.get(customer) ?? { inFlight: 0, tokens: full, filledMs: nowMs };
    // Last in the map is the last to go.
    this.#tallies.delete(customer);
    this.#tallies.set(customer, tally);
    if (this.#tallies.size > TALLIES_MAX) this.#evict();
    return tally;
  }

  #evict(): void {
    for (const [customer, { inFlight }] of this.#tallies) {
      if (inFlight > 0) continue;
      this.#tallies.delete(customer);
      return;
    }
  }
}
