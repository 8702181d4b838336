import { unpackBundle, type Bundle } from '@waggle/protocol/audit';
import { compareText, WaggleError } from '@waggle/protocol/base';

const BLOCK_BYTES = 512;
/** Where a header has the name of its file and its size, in octal digits (POSIX ustar). */
const NAME_BYTES = 100;
const SIZE_AT = 124;
const SIZE_DIGITS = 11;

/** The names of the files in an archive, as far as it can be read; nothing else of it is looked at. */
function namesIn(archive: Uint8Array): string[] {
  const names: string[] = [];
  for (let offset = 0; offset + BLOCK_BYTES <= archive.length;) {
    const header = Buffer.from(archive.buffer, archive.byteOffset + offset, BLOCK_BYTES).toString('latin1');
    const name = header.slice(0, NAME_BYTES).split('\0', 1)[0]!;
    const size = Number.parseInt(header.slice(SIZE_AT, SIZE_AT + SIZE_DIGITS), 8);
    if (name === '' || !Number.isSafeInteger(size)) break;
    names.push(name);
    offset += BLOCK_BYTES + Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
  }
  return names;
}

/** Which file of an archive is there twice or in the wrong place, in words; null if none is. */
function explainNames(archive: Uint8Array): string | null {
  const names = namesIn(archive);
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) return `${name} is in it twice`;
    seen.add(name);
  }
  const i = names.findIndex((name, at) => at > 0 && compareText(names[at - 1]!, name) > 0);
  return i < 0 ? null : `${names[i]} stands after ${names[i - 1]}, before which it belongs`;
}

/** The bundle in an archive. Throws `BUNDLE_MALFORMED`, and says which file is there twice or in the wrong place. */
export function openArchive(archive: Uint8Array): Bundle {
  try {
    return unpackBundle(archive);
  } catch (error) {
    const why = error instanceof WaggleError ? explainNames(archive) : null;
    throw why === null
      ? error
      : new WaggleError('BUNDLE_MALFORMED', `Expected a canonical archive: ${why}`, { cause: error });
  }
}
