/**
 * Handshakes of strangers in `WINDOW_MS`, of one source and of all: addresses can be forged, so both are bounded. A rack of
 * newcomers may be behind one address.
 */
const PER_SOURCE_MAX = 32;
const TOTAL_MAX = 64;
/** In ms. */
const WINDOW_MS = 10_000;

/** How many handshakes strangers may have. */
export class JoinGate {
  readonly #bySource = new Map<string, number>();
  #total = 0;
  #sinceMs = Number.NEGATIVE_INFINITY;

  /** Whether one more from this host is let through at this time (monotonic ms). */
  admits(host: string, nowMs: number): boolean {
    if (nowMs - this.#sinceMs >= WINDOW_MS) {
      this.#sinceMs = nowMs;
      this.#total = 0;
      this.#bySource.clear();
    }
    const count = this.#bySource.get(host) ?? 0;
    if (count >= PER_SOURCE_MAX || this.#total >= TOTAL_MAX) return false;
    this.#bySource.set(host, count + 1);
    this.#total++;
    return true;
  }
}
