/** Time as the client sees it; another one may be given for tests. */
export interface Clock {
  /** Ms since any moment; never goes back. */
  nowMs(): number;
  /** Runs something after `ms`; the function that comes back prevents it. */
  after(ms: number, run: () => void): () => void;
}

/** The clock of this machine. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

/** Resolves after `ms`; rejects with the reason of the signal. */
export function pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      cancel();
      reject(signal?.reason as Error);
    };
    const cancel = clock.after(ms, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    if (signal?.aborted === true) return onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** What may end one exchange early: the caller's signal, and one time limit at a time. */
export class Lifeline {
  readonly #controller = new AbortController();
  readonly #clock: Clock;
  readonly #outer: AbortSignal | undefined;
  readonly #onAbort = (): void => this.#controller.abort(this.#outer?.reason);
  #cancelLimit = (): void => {};

  constructor(clock: Clock, outer: AbortSignal | undefined) {
    this.#clock = clock;
    this.#outer = outer;
    if (outer?.aborted === true) this.#onAbort();
    else outer?.addEventListener('abort', this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Ends the exchange with that error in `ms`, in place of the limit before. */
  limit(ms: number, errorOf: () => Error): void {
    this.#cancelLimit();
    this.#cancelLimit = this.#clock.after(ms, () => this.#controller.abort(errorOf()));
  }

  /** No limit until the next. */
  unlimit(): void {
    this.#cancelLimit();
  }

  /** Ends the exchange now. */
  abort(): void {
    this.#controller.abort();
  }

  /** The exchange is over: lets go of timer and signal. */
  end(): void {
    this.#cancelLimit();
    this.#outer?.removeEventListener('abort', this.#onAbort);
  }

  /** What to throw when something failed: the reason why it was ended, if it was, else what `otherwise` makes of it. */
  errorOf(otherwise: () => unknown): unknown {
    return this.signal.aborted ? (this.signal.reason as unknown) : otherwise();
  }
}
