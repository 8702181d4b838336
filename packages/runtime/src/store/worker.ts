import { parentPort, workerData } from 'node:worker_threads';
import { assert, WaggleError } from '@waggle/protocol/base';
import { committer } from './commit.ts';
import { openDatabase, openReader } from './database.ts';
import { outcomeOf, type Outcome } from './failures.ts';
import { reader } from './reads.ts';
import { roller } from './roll.ts';
import type { StoreOptions } from './types.ts';

/** What the writing thread does for the main thread; arguments and results cross by structured clone. */
function writing(options: StoreOptions) {
  const database = openDatabase(options);
  return {
    ...roller(database, options.directory),
    commit: committer(database),
    close(): void {
      database.pragma('wal_checkpoint(TRUNCATE)');
      database.close();
    },
  };
}

/** And the reading one, which sees what is committed: however much is read, no commit waits for it. */
function reading({ directory }: StoreOptions) {
  const database = openReader(directory);
  return { ...reader(database), close: () => void database.close() };
}

const ROLES = { writing, reading };
export type Role = keyof typeof ROLES;
export type Operations<R extends Role> = ReturnType<(typeof ROLES)[R]>;

export interface WorkerTask {
  readonly role: Role;
  readonly options: StoreOptions;
}

export interface Request {
  readonly id: number;
  readonly operation: string;
  readonly args: readonly unknown[];
}
/** `id` 0 answers the start. */
export type Reply = Outcome & { readonly id: number };

const port = parentPort;
assert(port !== null, 'the store runs in a worker thread');

/** The first failure after which nothing on disk can be relied on: from then on this thread does nothing any more, nor is the other asked. */
let failed: WaggleError | null = null;

function answer(id: number, work: () => unknown): Outcome {
  const outcome = outcomeOf(() => {
    if (failed !== null) throw failed;
    return work();
  });
  if ('code' in outcome && outcome.code === 'STORE_FAILED') failed ??= new WaggleError(outcome.code, outcome.message);
  port!.postMessage({ ...outcome, id } satisfies Reply);
  return outcome;
}

let opened: Operations<Role> | undefined;
answer(0, () => {
  const { role, options } = workerData as WorkerTask;
  opened = ROLES[role](options);
});
const store = opened;
if (store !== undefined)
  port.on('message', ({ id, operation, args }: Request) => {
    const run = Reflect.get(store, operation) as (...args: readonly unknown[]) => unknown;
    answer(id, () => run(...args));
    if (operation === 'close') port.close();
  });
