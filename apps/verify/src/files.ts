import { constants } from 'node:fs';
import { lstat, open, readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { constants as zlib, gunzipSync } from 'node:zlib';
import { BUNDLE_BYTES_MAX, BUNDLE_FILES, bundleEpoch, type Bundle } from '@waggle/protocol/audit';
import { WaggleError, type Epoch } from '@waggle/protocol/base';
import { TAR_FILES_MAX } from '@waggle/protocol/transparency';
import { openArchive } from './archive.ts';
import { mebibytes, TwiceError, UnusableError, type Item, type Source } from './source.ts';

/** `epoch-<n>`, as folders of bundles are called, also inside archives. */
const EPOCH_FOLDER = /^epoch-(0|[1-9][0-9]{0,14})$/;
/** The name of the first file in an archive is this long at most (POSIX ustar). */
const TAR_NAME_BYTES = 100;
/** Bytes of a compressed archive that have this name in them, at the least. */
const COMPRESSED_HEAD_BYTES = 4_096;

function malformed(message: string, cause?: unknown): never {
  throw new WaggleError('BUNDLE_MALFORMED', message, { cause });
}

/** Reads a regular file of at most `bytesMax` bytes whole. Throws `BUNDLE_MALFORMED`. */
export async function readWhole(path: string, bytesMax: number): Promise<Uint8Array> {
  // Without O_NONBLOCK, opening a pipe would wait for a writer.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) malformed(`Expected a regular file, received ${path}`);
    if (stats.size > bytesMax)
      malformed(`Expected at most ${mebibytes(bytesMax)}, received ${path} of ${mebibytes(stats.size)}`);
    const bytes = new Uint8Array(stats.size);
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await file.read(bytes, length, bytes.length - length, length);
      if (bytesRead === 0) malformed(`Expected ${bytes.length} bytes of ${path}, received ${length}`);
      length += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

const isCompressed = (path: string): boolean => path.endsWith('.gz');

/** The bytes of a file, or what they were before gzip compressed them. Throws `BUNDLE_MALFORMED`. */
function inflated(path: string, bytes: Uint8Array): Uint8Array {
  if (!isCompressed(path)) return bytes;
  try {
    return gunzipSync(bytes, { maxOutputLength: BUNDLE_BYTES_MAX });
  } catch (cause) {
    return malformed(`Expected at most ${mebibytes(BUNDLE_BYTES_MAX)} in gzip, received ${path}`, cause);
  }
}

/** The beginning of what gzip has compressed; nothing, if it is something else. */
function headOf(compressed: Uint8Array): Uint8Array {
  try {
    return gunzipSync(compressed, { finishFlush: zlib.Z_SYNC_FLUSH });
  } catch {
    return new Uint8Array();
  }
}

/** The bundle in an archive. Throws `BUNDLE_MALFORMED`. */
const loadArchive = async (path: string): Promise<Bundle> =>
  openArchive(inflated(path, await readWhole(path, BUNDLE_BYTES_MAX)));

/** The bundle in a folder: every file in it, and in its own folders. Throws `BUNDLE_MALFORMED`. */
async function loadFolder(path: string): Promise<Bundle> {
  const bundle = new Map<string, Uint8Array>();
  let left = BUNDLE_BYTES_MAX;
  const read = async (folder: string, prefix: string): Promise<void> => {
    for (const entry of await readdir(folder, { withFileTypes: true })) {
      const name = prefix + entry.name;
      const below = join(folder, entry.name);
      if (entry.isDirectory() && prefix === '') await read(below, `${name}/`);
      else if (entry.isFile() && bundle.size < TAR_FILES_MAX) {
        const bytes = await readWhole(below, left);
        left -= bytes.length;
        bundle.set(name, bytes);
      } else malformed(`Expected at most ${TAR_FILES_MAX} regular files in ${path}, received ${name}`);
    }
  };
  await read(path, '');
  const folder = EPOCH_FOLDER.exec(basename(path));
  if (folder !== null && Number(folder[1]) !== bundleEpoch(bundle))
    malformed(`Expected the bundle of epoch ${folder[1]} in ${path}, received that of epoch ${bundleEpoch(bundle)}`);
  return bundle;
}

/** The epoch that the name of an archive's first file says. Throws `BUNDLE_MALFORMED`. */
async function archiveEpoch(path: string): Promise<Epoch> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const bytes = new Uint8Array(isCompressed(path) ? COMPRESSED_HEAD_BYTES : TAR_NAME_BYTES);
    if (!(await file.stat()).isFile()) malformed(`Expected a regular file, received ${path}`);
    const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
    const read = bytes.subarray(0, bytesRead);
    const head = (isCompressed(path) ? headOf(read) : read).subarray(0, TAR_NAME_BYTES);
    const folder = EPOCH_FOLDER.exec(Buffer.from(head).toString('latin1').split('/', 1)[0]!);
    return folder === null
      ? malformed(`Expected an archive of a bundle below epoch-<n>/, received ${path}`)
      : Number(folder[1]);
  } finally {
    await file.close();
  }
}

const archiveItem = async (path: string): Promise<Item> => ({
  epoch: await archiveEpoch(path),
  where: path,
  listed: null,
  load: () => loadArchive(path),
});

/** One bundle by itself. Its epoch is only known from within, so it is loaded at once. */
async function folderItem(path: string): Promise<Item> {
  const bundle = await loadFolder(path);
  return { epoch: bundleEpoch(bundle), where: path, listed: null, load: () => Promise.resolve(bundle) };
}

/** All `epoch-<n>` folders and `.tar` or `.tar.gz` files in a folder, by epoch; what else there is, is not looked at. */
async function folderItems(path: string): Promise<Item[]> {
  const items: Item[] = [];
  for (const name of await readdir(path)) {
    const below = join(path, name);
    const folder = EPOCH_FOLDER.exec(name);
    if (folder !== null && (await stat(below)).isDirectory())
      items.push({ epoch: Number(folder[1]), where: below, listed: null, load: () => loadFolder(below) });
    else if (/\.tar(\.gz)?$/.test(name)) items.push(await archiveItem(below));
  }
  if (items.length === 0) throw new UnusableError(`Expected epoch-<n> folders or .tar files in ${path}, found none`);
  items.sort((a, b) => a.epoch - b.epoch);
  for (const [i, item] of items.entries())
    if (item.epoch === items[i + 1]?.epoch) throw new TwiceError(item, items[i + 1]!);
  return items;
}

/** A source of files: one archive, one unpacked bundle (it has a genesis.json), or a folder of both. Throws `UnusableError`. */
export async function openFiles(path: string): Promise<Source> {
  const stats = await stat(path).catch((cause: unknown) => {
    throw new UnusableError(`Expected a URL, a directory or a .tar file, received ${path}, which cannot be read`, {
      cause,
    });
  });
  const list = async (): Promise<Item[]> => {
    if (!stats.isDirectory()) return [await archiveItem(path)];
    const isBundle = await lstat(join(path, BUNDLE_FILES.genesis)).then(
      () => true,
      () => false,
    );
    return isBundle ? [await folderItem(path)] : folderItems(path);
  };
  return {
    genesis: null,
    log: null,
    async *items() {
      yield* await list();
    },
  };
}
