import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { framed, hex, utf8, WaggleError } from '@waggle/protocol/base';
import { writePrivateFile } from './data-directory.ts';
import { nodeCrypto } from './node-crypto.ts';

/**
 * Where a data directory lies, as far as a copy of it lies elsewhere. A directory that is renamed keeps its place; one that is
 * copied, put back from a backup or cloned with its disk does not.
 */
export interface Place {
  /** Hash of the machine id (machine-id(5), which says not to show the id itself); null where there is none, as in containers. */
  readonly machine: string | null;
  /** Id of the kernel's current start; null where there is none. */
  readonly boot: string | null;
  /** Number of the file system, the same for one start of the kernel only, and of the directory on it (stat(2)). */
  readonly device: string;
  readonly inode: string;
}

const PLACE_FILE = 'place.json';
const FORMAT = 1;
const MACHINE_ID_FILE = '/etc/machine-id';
const BOOT_ID_FILE = '/proc/sys/kernel/random/boot_id';

/** The first line of a file of the system, or null if there is none of that form. */
function systemId(path: string, form: RegExp): string | null {
  try {
    const text = readFileSync(path, 'utf8').trim();
    return form.test(text) ? text : null;
  } catch {
    return null;
  }
}

/** Where the directory lies now. */
export function placeOf(directory: string): Place {
  const { dev, ino } = statSync(directory, { bigint: true });
  const machineId = systemId(MACHINE_ID_FILE, /^[0-9a-f]{32}$/);
  return {
    machine:
      machineId === null
        ? null
        : hex.encode(nodeCrypto.sha256(framed('waggle-machine/v1', utf8(machineId)))).slice(0, 32),
    boot: systemId(BOOT_ID_FILE, /^[0-9a-f-]{36}$/),
    device: String(dev),
    inode: String(ino),
  };
}

/**
 * What tells a place from another, in words; none: the same place. The number of a file system is compared within one start of
 * the kernel only: it may be another after the next. What is not known of either is not compared.
 */
export function differences(before: Place, now: Place): string[] {
  const differ = (a: string | null, b: string | null): boolean => a !== null && b !== null && a !== b;
  return [
    ...(differ(before.machine, now.machine) ? ['it was last used on another machine'] : []),
    ...(before.boot === now.boot && before.device !== now.device
      ? [`it was last used on file system ${before.device}, and lies on ${now.device}`]
      : []),
    ...(before.inode === now.inode ? [] : [`it was last used as inode ${before.inode}, and is ${now.inode}`]),
  ];
}

/** Throws `DECODE_FAILED` unless the value is a place. */
export function parsePlace(value: unknown): Place {
  const { machine, boot, device, inode } = (value ?? {}) as Record<string, unknown>;
  const isId = (id: unknown): id is string | null => id === null || (typeof id === 'string' && id.length <= 64);
  const isNumber = (text: unknown): text is string => typeof text === 'string' && /^[0-9]{1,20}$/.test(text);
  if (isId(machine) && isId(boot) && isNumber(device) && isNumber(inode)) return { machine, boot, device, inode };
  throw new WaggleError('DECODE_FAILED', 'Expected machine, boot, device and inode for a place');
}

/** Where the directory lay when it was last used, or null if that was not remembered. Throws `DATA_DAMAGED`, `DATA_NEWER`. */
export function readPlace(directory: string): Place | null {
  const path = join(directory, PLACE_FILE);
  if (!existsSync(path)) return null;
  let format: unknown;
  try {
    const file = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    format = file['format'];
    if (format === FORMAT) return parsePlace(file);
  } catch (cause) {
    throw new WaggleError('DATA_DAMAGED', `Expected in ${path} where the directory lay: it is malformed`, { cause });
  }
  if (Number.isSafeInteger(format) && (format as number) > FORMAT)
    throw new WaggleError('DATA_NEWER', `Expected format ${FORMAT} in ${path}, received ${String(format)}`);
  throw new WaggleError('DATA_DAMAGED', `Expected in ${path} where the directory lay: it is of no known format`);
}

/** Remembers that this is where the directory lies. */
export const writePlace = (directory: string, place: Place): void =>
  writePrivateFile(join(directory, PLACE_FILE), `${JSON.stringify({ format: FORMAT, ...place }, null, 2)}\n`);
