import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { assert, WaggleError, type Epoch } from '@waggle/protocol/base';
import { toWire } from './commit.ts';
import { DATABASE_FILE } from './database.ts';
import type { Outcome } from './failures.ts';
import type { Chunk } from './reads.ts';
import type { RecordFileTask } from './record-worker.ts';
import { controlRows, monthRows, usageRows, type Row } from './rows.ts';
import {
  CONTENTS_PAGE_MAX,
  LEAVES_PAGE_MAX,
  RECORDS_PAGE_MAX,
  SEALED_PAGE_MAX,
  STATEMENTS_PAGE_MAX,
  type RecordQuery,
  type RequestRecord,
  type Rolled,
  type Store,
  type StoreOptions,
} from './types.ts';
import type { Operations, Reply, Request, Role, WorkerTask } from './worker.ts';

/** Calls that may wait for a thread; the driver has one commit under way at a time. */
const CALLS_MAX = 1_024;

/** The threads' code: always the built one, also when the sources run (tests). */
const WORKER_URL = new URL('../../dist/store/worker.js', import.meta.url);
const RECORD_WORKER_URL = new URL('../../dist/store/record-worker.js', import.meta.url);

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: WaggleError) => void;
}

/** Calls of operations in one of the store's threads, by number. */
class Calls<R extends Role> {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #ended: WaggleError | null = null;
  #isGone = false;

  /** Resolves when the worker has opened the store. */
  readonly opened: Promise<unknown>;
  /** Resolves when the worker has ended. */
  readonly exited: Promise<void>;
  /** Told of a failure after which the worker does nothing any more, before whoever waits for it. */
  onFailed: ((error: WaggleError) => void) | undefined;

  constructor(role: R, options: StoreOptions) {
    this.#worker = new Worker(WORKER_URL, { workerData: { role, options } satisfies WorkerTask, execArgv: [] });
    this.opened = new Promise((resolve, reject) => this.#waiting.set(0, { resolve, reject }));
    this.#worker.on('message', (reply: Reply) => this.#settle(reply));
    this.#worker.on('error', (error) => this.#end(new WaggleError('STORE_FAILED', error.message, { cause: error })));
    this.exited = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        this.#isGone = true;
        this.#end(new WaggleError('STORE_FAILED', 'Expected an open store, but it is closed'));
        resolve();
      });
    });
  }

  #settle(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (!('code' in reply)) return waiting?.resolve(reply.value);
    const error = new WaggleError(reply.code, reply.message);
    if (reply.code === 'STORE_FAILED') this.onFailed?.(error);
    waiting?.reject(error);
  }

  /** Fails what waits and whatever comes. */
  #end(error: WaggleError): void {
    if (this.#ended === null) this.onFailed?.(error);
    this.#ended ??= error;
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }

  /** From now on new calls fail, but for `close`; those that wait are carried out. */
  refuse(error = new WaggleError('STORE_FAILED', 'Expected an open store, but it is closed')): void {
    this.#ended ??= error;
  }

  call<O extends string & keyof Operations<R>>(
    operation: O,
    args: Operations<R>[O] extends (...args: infer A) => unknown ? A : never,
    transfer: ArrayBuffer[] = [],
  ): Promise<Operations<R>[O] extends (...args: never) => infer V ? V : never> {
    // A thread that has failed still has to end; one that has ended would never answer.
    if (this.#ended !== null && (operation !== 'close' || this.#isGone)) return Promise.reject(this.#ended);
    if (this.#waiting.size >= CALLS_MAX && operation !== 'close')
      return Promise.reject(new WaggleError('STORE_BUSY', `Expected at most ${CALLS_MAX} waiting calls of the store`));
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Waiting['resolve'], reject });
      this.#worker.postMessage({ id, operation, args: args as readonly unknown[] } satisfies Request, transfer);
    });
  }
}

const checkPage = (limit: number, max: number): void =>
  assert(Number.isInteger(limit) && limit >= 1 && limit <= max, `a page of 1 to ${max}, not ${limit}`);

/** Reads chunk after chunk, the next one while this one is taken in. */
async function loadAll<T>(read: (after: Row | null) => Promise<Chunk<T>>, take: (chunk: T) => void): Promise<void> {
  let reading: Promise<Chunk<T>> | null = read(null);
  while (reading !== null) {
    const { chunk, next }: Chunk<T> = await reading;
    reading = next === null ? null : read(next);
    reading?.catch(() => undefined); // Seen at the next await; not lost if `take` throws.
    take(chunk);
  }
}

/** Writes a file of records in a thread of its own: commits go on meanwhile. */
async function writeRecordFile(task: RecordFileTask): Promise<void> {
  const worker = new Worker(RECORD_WORKER_URL, { workerData: task, execArgv: [] });
  const ended = once(worker, 'exit').then((): [Outcome] => [
    { code: 'STORE_FAILED', message: 'Expected a word from the thread that writes a file of records' },
  ]);
  const [outcome] = (await Promise.race([once(worker, 'message'), ended])) as [Outcome];
  if ('code' in outcome) throw new WaggleError(outcome.code, outcome.message);
}

const fileBytes = async (path: string): Promise<number> => {
  try {
    return (await stat(path)).size;
  } catch {
    return 0;
  }
};

/** A thread that has opened the store. */
async function started<R extends Role>(role: R, options: StoreOptions): Promise<Calls<R>> {
  const calls = new Calls(role, options);
  try {
    await calls.opened;
    return calls;
  } catch (error) {
    await calls.exited;
    throw error;
  }
}

/**
 * Opens the store of a data directory, which must be locked, or creates it. It runs in two threads of its own. Throws
 * `DATA_DAMAGED` and `DATA_NEWER`, having written nothing, `STORE_FULL` and `STORE_FAILED`.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const calls = await started('writing', options);
  const reads = await started('reading', options).catch(async (error: unknown) => {
    await calls.call('close', []).catch(() => undefined);
    await calls.exited;
    throw error;
  });
  // What one thread finds damaged the other must not go on with.
  calls.onFailed = reads.onFailed = (error) => {
    calls.refuse(error);
    reads.refuse(error);
  };
  let closing: Promise<void> | null = null;
  let rolling: Promise<unknown> | null = null;

  async function recordsPage(query: RecordQuery): Promise<RequestRecord[]> {
    checkPage(query.limit, RECORDS_PAGE_MAX);
    return reads.call('records', [query]);
  }

  async function* streamRecords(query: Omit<RecordQuery, 'limit' | 'after'>): AsyncGenerator<RequestRecord> {
    let page = await recordsPage({ ...query, limit: RECORDS_PAGE_MAX });
    while (page.length > 0) {
      yield* page;
      const after = page.at(-1)!;
      page = page.length < RECORDS_PAGE_MAX ? [] : await recordsPage({ ...query, after, limit: RECORDS_PAGE_MAX });
    }
  }

  async function roll(epochBefore: Epoch, goesOn: () => boolean): Promise<Rolled> {
    let files = 0;
    let records = 0;
    while (goesOn()) {
      const step = await calls.call('rollStep', [epochBefore]);
      if (step.kind === 'done') break;
      if (step.kind === 'deleted') {
        records += step.records;
        continue;
      }
      await writeRecordFile({ directory: options.directory, part: step.part });
      await calls.call('rollWritten', [step.part]);
      files++;
    }
    return { files, records };
  }

  async function close(): Promise<void> {
    // A reader that has failed has nothing more to say; the writer is to be closed all the same.
    const unread = reads.call('close', []).catch(() => undefined);
    reads.refuse();
    try {
      // The last connection moves the write-ahead log into the database, which a reader cannot.
      await unread;
      await reads.exited;
      const closed = calls.call('close', []);
      calls.refuse();
      await closed;
    } finally {
      await calls.exited;
      // It may be writing a file; the directory is not free before.
      await rolling?.catch(() => undefined);
    }
  }

  return {
    load: () => reads.call('load', []),
    loadControl: (onChunk) =>
      loadAll(
        (after) => reads.call('controlFrom', [after]),
        (chunk) => onChunk(controlRows(chunk)),
      ),
    loadUsage: (onChunk) =>
      loadAll(
        (after) => reads.call('usageFrom', [after]),
        (chunk) => onChunk(usageRows(chunk)),
      ),
    async commit(batch) {
      const { wire, transfer } = toWire(batch);
      await calls.call('commit', [wire], transfer);
    },
    async sealedEpoch(epoch) {
      const [found] = await reads.call('sealedRange', [epoch, 1]);
      return found?.epoch === epoch ? found : null;
    },
    async sealedRange(from, limit) {
      checkPage(limit, SEALED_PAGE_MAX);
      return reads.call('sealedRange', [from, limit]);
    },
    async statements(epoch, afterLeaf, limit) {
      checkPage(limit, STATEMENTS_PAGE_MAX);
      return reads.call('statements', [epoch, afterLeaf ?? -1, limit]);
    },
    async statementBytes(epoch) {
      let bytes = 0;
      await loadAll(
        (after) => reads.call('statementBytesFrom', [epoch, after]),
        (chunk) => (bytes += chunk),
      );
      return bytes;
    },
    async statementsFrom(from, to, limit) {
      checkPage(limit, STATEMENTS_PAGE_MAX);
      return reads.call('statementsFrom', [from, to, limit]);
    },
    loadMonth: (month, onChunk) =>
      loadAll(
        (after) => reads.call('monthFrom', [month, after]),
        (rows) => onChunk(monthRows(month, rows)),
      ),
    async statementsOf(customer, fromEpoch, toEpoch, limit) {
      checkPage(limit, STATEMENTS_PAGE_MAX);
      return reads.call('statementsOf', [customer, fromEpoch, toEpoch, limit]);
    },
    async leaves(from, to) {
      assert(to - from <= LEAVES_PAGE_MAX, `at most ${LEAVES_PAGE_MAX} leaves, not ${to - from}`);
      return reads.call('leaves', [from, to]);
    },
    tile: (level, index) => reads.call('tile', [level, index]),
    content: (digest) => reads.call('content', [digest]),
    contentSizes: (digests) => reads.call('contentSizes', [digests]),
    lacks: (digests) => reads.call('lacks', [digests]),
    async contentDigests(after, limit) {
      checkPage(limit, CONTENTS_PAGE_MAX);
      return reads.call('contentDigests', [after ?? '', limit]);
    },
    records: recordsPage,
    streamRecords,
    idempotency: (customer, key, nowMs) => reads.call('idempotency', [customer, key, nowMs]),
    async rollRecords(epochBefore, goesOn = () => true) {
      if (rolling !== null) throw new WaggleError('STORE_BUSY', 'Expected one call of rollRecords at a time');
      const under = roll(epochBefore, goesOn);
      rolling = under;
      try {
        return await under;
      } finally {
        rolling = null;
      }
    },
    async sizes() {
      const path = join(options.directory, DATABASE_FILE);
      const [databaseBytes, walBytes] = await Promise.all([fileBytes(path), fileBytes(`${path}-wal`)]);
      return { databaseBytes, walBytes };
    },
    close() {
      closing ??= close();
      return closing;
    },
  };
}
