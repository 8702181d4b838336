import Database from 'better-sqlite3';
import { WaggleError, type ErrorCode } from '@waggle/protocol/base';

/** No room: the transaction is undone and nothing is wrong with the file (https://sqlite.org/rescode.html). */
const FULL = /^(SQLITE_FULL|SQLITE_IOERR_WRITE|SQLITE_IOERR_SHMSIZE|ENOSPC|EDQUOT)$/;
/** Another process has held the database locked for longer than the time-out (5 s, the default of better-sqlite3). */
const BUSY = /^SQLITE_BUSY/;
/** The disk or the file. After a failed fsync nobody knows what is on disk, so there is no going on. */
const FAILED =
  /^(SQLITE_(IOERR|CORRUPT|NOTADB|CANTOPEN|READONLY|PROTOCOL|NOMEM|PERM|AUTH)|EIO$|EROFS$|EACCES$|EPERM$|EMFILE$)/;

/** The code of an error of SQLite or of Node's file system, or nothing. */
function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : '';
  return typeof code === 'string' ? code : '';
}

/** Whether SQLite says that the file is not, or no longer, a sound database. */
export const isDamage = (error: unknown): boolean =>
  error instanceof Database.SqliteError && /^SQLITE_(CORRUPT|NOTADB)/.test(error.code);

function classify(code: string): ErrorCode {
  if (FULL.test(code)) return 'STORE_FULL';
  if (BUSY.test(code)) return 'STORE_BUSY';
  return FAILED.test(code) ? 'STORE_FAILED' : 'INTERNAL';
}

/**
 * What a failure of SQLite or of the file system means to the node: `STORE_FULL` and `STORE_BUSY`, after which it goes on;
 * `STORE_FAILED`, after which it does not; `INTERNAL` for mistakes of ours.
 */
export function asStoreError(error: unknown): WaggleError {
  if (error instanceof WaggleError) return error;
  const code = codeOf(error);
  const text = error instanceof Error ? error.message : String(error);
  const received = code === '' || text.startsWith(code) ? text : `${code}: ${text}`;
  return new WaggleError(classify(code), `Expected the disk and the database to do it, received ${received}`, {
    cause: error,
  });
}

/** The result of a piece of work in a thread, as it crosses to another. */
export type Outcome = { readonly value: unknown } | { readonly code: ErrorCode; readonly message: string };

/** Does the work, and puts a failure in the store's terms. */
export function outcomeOf(work: () => unknown): Outcome {
  try {
    return { value: work() };
  } catch (thrown) {
    const { code, message } = asStoreError(thrown);
    return { code, message };
  }
}
