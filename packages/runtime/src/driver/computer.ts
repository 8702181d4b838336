import { Worker } from 'node:worker_threads';
import { assert, WaggleError } from '@waggle/protocol/base';
import type { Computed, Job } from '@waggle/protocol/sealing';
import type { Answered, Asked } from './compute-worker.ts';

/** The thread's code: always the built one, also when the sources run (tests). */
const WORKER_URL = new URL('../../dist/driver/compute-worker.js', import.meta.url);

/**
 * Does jobs in a thread of its own, one at a time, so that a large epoch keeps no request and no answer to another member waiting.
 * The thread is started with the first job, which most nodes never have.
 */
export class Computer {
  readonly #onFatal: (error: WaggleError) => void;
  #worker: Worker | undefined;
  #done: ((result: Computed) => void) | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  /** `onFatal` is told, once, when the thread is gone though nobody stopped it. */
  constructor(onFatal: (error: WaggleError) => void) {
    this.#onFatal = onFatal;
  }

  /** Hands over a job; the next one comes after its result. */
  run(job: Job, done: (result: Computed) => void): void {
    assert(this.#done === undefined, 'one job at a time');
    this.#done = done;
    this.#worker ??= this.#start();
    // Packed rows go by transfer; contents are still needed here, and copied.
    this.#worker.postMessage(job satisfies Asked, job.kind === 'slot' ? [job.rows.numbers.buffer] : []);
  }

  /** Ends the thread; of a job under way nothing is heard any more. */
  async stop(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    this.#done = undefined;
    if (worker !== undefined) this.#ended = worker.terminate();
    await this.#ended;
  }

  #start(): Worker {
    const worker = new Worker(WORKER_URL, { execArgv: [] });
    const failed = (message: string, cause?: unknown): void => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      this.#onFatal(
        new WaggleError('INTERNAL', `Expected the thread that computes seals to go on: ${message}`, { cause }),
      );
    };
    worker.on('message', (result: Answered) => {
      const done = this.#done;
      this.#done = undefined;
      done?.(result);
    });
    worker.on('error', (error) => failed(error.message, error));
    worker.on('exit', (code) => failed(`it ended with code ${code}`));
    return worker;
  }
}
