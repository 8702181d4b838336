import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  accessSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import Database from 'better-sqlite3';
import { utf8, WaggleError } from '@waggle/protocol/base';

/** Says whose directory this is, to people and to the next start. */
const MARKER = 'waggle-data';
const MARKER_TEXT = 'This directory belongs to a Waggle node. Change nothing in it while the node runs.\n';
const LOCK = 'lock';
/** Left by a process that found the directory locked, for the one that has it: the id of that process. */
const REFUSED = 'refused';
/** What may stand in a directory that is taken: what a crashed first start leaves, and what a fresh volume holds. */
const NOTHING_MUCH: ReadonlySet<string> = new Set([LOCK, REFUSED, `${MARKER}.tmp`, 'lost+found']);

/** A process that was not given a directory, because another one has it. */
export interface Refused {
  /** Its id, where it runs; null if what it left cannot be read. */
  readonly pid: number | null;
}

/** A directory that this process alone may use, until it closes it or ends. */
export interface DataDirectory {
  /** Absolute. */
  readonly path: string;
  /** Who was refused it last since the last call; null if nobody was. */
  refused(): Refused | null;
  /** Gives the directory up. */
  close(): void;
}

/** Held here too: a lock whose handle is collected as garbage would be a lock lost. */
const locks = new Set<Database.Database>();

/** Makes a file durable, or the entries of a directory (a create, a rename, a delete). */
export function syncPath(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a file of mode 0600 as a whole or not at all, durable on return: under a temporary name first, then renamed.
 * What stood under the name is replaced. One writer at a time per name.
 */
export function writePrivateFile(path: string, content: string | Uint8Array): void {
  const fd = openTemporary(path);
  try {
    writeAll(fd, typeof content === 'string' ? utf8(content) : content);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  moveIntoPlace(path);
}

/** The same of a content that need not fit into memory. What cannot be read to its end leaves the file as it was. */
export async function writePrivatePieces(path: string, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  const fd = openTemporary(path);
  try {
    for await (const piece of pieces) writeAll(fd, piece);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  moveIntoPlace(path);
}

const temporaryOf = (path: string): string => `${path}.tmp`;

function openTemporary(path: string): number {
  rmSync(temporaryOf(path), { force: true }); // Left by a crash, perhaps with other rights.
  return openSync(temporaryOf(path), 'wx', 0o600);
}

function writeAll(fd: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length;) offset += writeSync(fd, bytes, offset);
}

function moveIntoPlace(path: string): void {
  renameSync(temporaryOf(path), path);
  syncPath(dirname(path));
}

const refuse = (path: string, why: string, cause?: unknown): never => {
  throw new WaggleError('CONFIG_INVALID', `Expected a directory of a Waggle node, or none, at ${path}: ${why}`, {
    cause,
  });
};

/** Runs a step on the directory, and says which one failed when it does. */
function attempt<T>(path: string, why: string, step: () => T): T {
  try {
    return step();
  } catch (cause) {
    return refuse(path, `${why} (${(cause as Error).message})`, cause);
  }
}

/** Creates the directory if there is none, and refuses one that is not ours. */
function enter(path: string): void {
  const stat = attempt(path, 'it cannot be reached', () => statSync(path, { throwIfNoEntry: false }));
  if (stat?.isDirectory() === false) refuse(path, 'it is not a directory');
  attempt(path, 'it cannot be created', () => mkdirSync(path, { recursive: true, mode: 0o700 }));
  attempt(path, 'it cannot be written', () => accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK));
  const names = attempt(path, 'it cannot be read', () => readdirSync(path));
  const foreign = names.includes(MARKER) ? undefined : names.find((name) => !NOTHING_MUCH.has(name));
  if (foreign !== undefined)
    refuse(path, `it is not empty and not of a Waggle node (it holds ${JSON.stringify(foreign)})`);
}

/** Takes every right from group and others; symbolic links are left to whoever made them. */
function tighten(path: string): void {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  // Whoever is refused the directory writes into it, and the owner takes that away.
  if (stat === undefined) return;
  const mode = stat.isDirectory() ? 0o700 : 0o600;
  if ((stat.isDirectory() || stat.isFile()) && (stat.mode & 0o077) !== 0) chmodSync(path, mode);
}

/**
 * A lock that the kernel drops when the process ends, however it ends: an exclusive transaction, never committed, on an
 * empty SQLite file. (Node has no advisory file locks of its own.)
 */
function lock(path: string): Database.Database {
  const file = join(path, LOCK);
  let database: Database.Database | undefined;
  try {
    // Only ever opened here when new: to close a file drops every lock that this process has on it (fcntl).
    if (!existsSync(file)) closeSync(openSync(file, 'a', 0o600));
    database = new Database(file, { timeout: 0 });
    database.exec('BEGIN EXCLUSIVE');
  } catch (cause) {
    database?.close();
    if ((cause as { code?: string }).code !== 'SQLITE_BUSY')
      return refuse(path, `it cannot be locked (${(cause as Error).message})`, cause);
    leaveWord(path);
    throw new WaggleError('DATA_LOCKED', `Expected ${path} to be free, but a running process has locked it`, { cause });
  }
  locks.add(database);
  return database;
}

/** Tells the process that has the directory, if the disk takes it. */
function leaveWord(path: string): void {
  try {
    writeFileSync(join(path, REFUSED), `${process.pid}\n`, { mode: 0o600 });
  } catch {
    // Whoever was refused says so all the same.
  }
}

/** Reads and removes what `leaveWord` left. */
function takeWord(path: string): Refused | null {
  const file = join(path, REFUSED);
  if (!existsSync(file)) return null;
  const pid = readPid(file);
  try {
    rmSync(file, { force: true });
  } catch {
    return null; // It is there the next time.
  }
  return { pid };
}

/** Null for what another user left, or what is no process id. */
function readPid(file: string): number | null {
  try {
    const text = readFileSync(file, 'utf8').trim();
    return /^[0-9]{1,10}$/.test(text) ? Number(text) : null;
  } catch {
    return null;
  }
}

/**
 * Opens the directory for everything this node keeps, or creates it: mode 0700, its files 0600 (wider rights are taken
 * away). Throws `CONFIG_INVALID` when it cannot be used or holds something else, which is left alone, and `DATA_LOCKED`
 * when another process has it.
 */
export function openDataDirectory(path: string): DataDirectory {
  const absolute = resolve(path);
  enter(absolute);
  const held = lock(absolute);
  try {
    attempt(absolute, 'its permissions cannot be tightened', () => {
      for (const at of [absolute, ...readdirSync(absolute).map((name) => join(absolute, name))]) tighten(at);
    });
    rmSync(join(absolute, REFUSED), { force: true }); // For whoever had it before.
    if (!existsSync(join(absolute, MARKER))) writePrivateFile(join(absolute, MARKER), MARKER_TEXT);
  } catch (error) {
    release(held);
    throw error;
  }
  return { path: absolute, refused: () => takeWord(absolute), close: () => release(held) };
}

function release(held: Database.Database): void {
  locks.delete(held);
  held.close();
}
