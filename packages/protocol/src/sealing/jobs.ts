import { assert, WaggleError, type Crypto } from '../base/index.ts';
import { compute, type Computed, type Job, type Results } from './compute.ts';
import type { SealingEffect } from './effects.ts';

/** Up to so many bytes (about 2 000 rows, some tens of ms) a job is done at once: asking another thread would take longer. */
const INLINE_BYTES = 512 * 1024;
/** Bytes of a row in a content, about. */
export const ROW_BYTES = 220;

/**
 * Jobs by name: done at once if they are small, else by whoever is told to `compute`. Until the result is there whoever needs it
 * waits, and asks again with each input. One is under way at a time.
 */
export class Jobs {
  readonly #crypto: Crypto;
  readonly #inlineBytes: number;
  readonly #results = new Map<string, Computed>();
  #running: { readonly name: string; isWanted: boolean } | undefined;

  constructor(crypto: Crypto, inlineBytes = INLINE_BYTES) {
    this.#crypto = crypto;
    this.#inlineBytes = inlineBytes;
  }

  /** The result of a job that reads so many bytes; undefined while it is not there. Throws what was wrong with what it read. */
  result<K extends Job['kind']>(
    name: string,
    bytes: number,
    job: () => Extract<Job, { kind: K }>,
    effects: SealingEffect[],
  ): Results[K] | undefined {
    let known = this.#results.get(name);
    if (known === undefined) {
      if (bytes > this.#inlineBytes) return this.#start(name, job, effects);
      this.#results.set(name, (known = compute(job(), this.#crypto)));
    }
    if (known.kind === 'failed') throw new WaggleError(known.code, known.message);
    return known as Results[K];
  }

  #start(name: string, job: () => Job, effects: SealingEffect[]): undefined {
    if (this.#running !== undefined) return;
    this.#running = { name, isWanted: true };
    effects.push({ type: 'compute', name, job: job() });
  }

  /** The one under way is done. What nobody wants any more is dropped. */
  done(name: string, result: Computed): void {
    assert(this.#running?.name === name, `the result of the job under way, not of ${name}`);
    if (this.#running.isWanted) this.#results.set(name, result);
    this.#running = undefined;
  }

  /** Lets go of jobs and results. */
  forget(isForgotten: (name: string) => boolean): void {
    for (const name of this.#results.keys()) if (isForgotten(name)) this.#results.delete(name);
    if (this.#running !== undefined && isForgotten(this.#running.name)) this.#running.isWanted = false;
  }
}
