import { assert, equalBytes, utf8, WaggleError } from '../base/index.ts';

const BLOCK_BYTES = 512;
/** Eleven octal digits of the size field (POSIX.1-1988 ustar). */
const FILE_BYTES_MAX = 8 ** 11 - 1;
/** Entries of one archive. */
export const TAR_FILES_MAX = 131_072;

/** One regular file of an archive. */
export interface TarFile {
  /** 1 to 100 of `A-Za-z0-9._-` and `/` between its parts; none of them is `.` or `..`. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

const NAME = /^[A-Za-z0-9._-]+(\/[A-Za-z0-9._-]+)*$/;
const isName = (name: string): boolean =>
  name.length <= 100 && NAME.test(name) && name.split('/').every((part) => part !== '.' && part !== '..');

/** Fields of a header and where they stand, in bytes (POSIX.1-1988 ustar). */
const NAME_AT = 0;
const NAME_BYTES = 100;
const SIZE_AT = 124;
const SIZE_DIGITS = 11;
const CHECKSUM_AT = 148;

/** The one header of a file of `size` bytes: mode 0644, owner 0, time 0, no names of people. What comes before its bytes. */
export function tarHeader(name: string, size: number): Uint8Array<ArrayBuffer> {
  assert(isName(name) && size <= FILE_BYTES_MAX, `${name} can stand in an archive`);
  const block = new Uint8Array(BLOCK_BYTES);
  const put = (offset: number, text: string): void => block.set(utf8(text), offset);
  put(NAME_AT, name);
  put(100, '0000644\0'); // mode
  put(108, '0000000\0'); // uid
  put(116, '0000000\0'); // gid
  put(SIZE_AT, `${size.toString(8).padStart(SIZE_DIGITS, '0')}\0`);
  put(136, '00000000000\0'); // modification time
  put(CHECKSUM_AT, '        '); // counts as spaces in the sum
  put(156, '0'); // type: a regular file
  put(257, 'ustar\x0000'); // magic and version
  put(329, '0000000\0'); // device numbers
  put(337, '0000000\0');
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(CHECKSUM_AT, `${sum.toString(8).padStart(6, '0')}\0 `);
  return block;
}

/** Bytes of a file's content with what fills its last block. */
const padded = (size: number): number => Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;

/** What comes after the bytes of a file of `size` bytes: zeros, 0 to 511. */
export const tarPadding = (size: number): Uint8Array<ArrayBuffer> => new Uint8Array(padded(size) - size);

/** What comes after the last file. */
export const tarEnd = (): Uint8Array<ArrayBuffer> => new Uint8Array(2 * BLOCK_BYTES);

/** Bytes of the archive of files with these names and sizes: at most `TAR_FILES_MAX`, their names distinct. */
export function tarSize(files: readonly { readonly name: string; readonly size: number }[]): number {
  assert(files.length <= TAR_FILES_MAX, `an archive has at most ${TAR_FILES_MAX} files`);
  assert(new Set(files.map((file) => file.name)).size === files.length, 'the names in an archive are distinct');
  return files.reduce((total, { size }) => total + BLOCK_BYTES + padded(size), 2 * BLOCK_BYTES);
}

/** A ustar archive of the files, in the order given: the same files give the same bytes, everywhere and always. */
export function packTar(files: readonly TarFile[]): Uint8Array<ArrayBuffer> {
  const archive = new Uint8Array(tarSize(files.map(({ name, bytes }) => ({ name, size: bytes.length }))));
  let offset = 0;
  const put = (piece: Uint8Array): void => {
    archive.set(piece, offset);
    offset += piece.length;
  };
  for (const { name, bytes } of files)
    for (const piece of [tarHeader(name, bytes.length), bytes, tarPadding(bytes.length)]) put(piece);
  put(tarEnd());
  return archive;
}

function malformed(what: string, offset: number): never {
  throw new WaggleError('BUNDLE_MALFORMED', `Expected ${what} at byte ${offset} of the archive`);
}

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);
const ascii = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

function nameOf(block: Uint8Array): string {
  const field = block.subarray(NAME_AT, NAME_AT + NAME_BYTES);
  const end = field.indexOf(0);
  return ascii(end < 0 ? field : field.subarray(0, end));
}

/**
 * The files of an archive, their bytes as views of it. It must be, to the byte, what `packTar` makes of them: every byte
 * of headers and padding is accounted for, so that nothing can be hidden in an archive or changed in it unseen. (The tar
 * libraries skip what they do not need; that is why this is code of our own.) Throws `BUNDLE_MALFORMED`.
 */
export function unpackTar(archive: Uint8Array): TarFile[] {
  const files: TarFile[] = [];
  const names = new Set<string>();
  let offset = 0;
  while (archive.length - offset > 2 * BLOCK_BYTES) {
    const block = archive.subarray(offset, offset + BLOCK_BYTES);
    const name = nameOf(block);
    const digits = ascii(block.subarray(SIZE_AT, SIZE_AT + SIZE_DIGITS));
    if (!isName(name) || !/^[0-7]+$/.test(digits)) malformed('the header of a file', offset);
    const size = Number.parseInt(digits, 8);
    if (!equalBytes(block, tarHeader(name, size))) malformed(`the one header of ${name}`, offset);
    if (names.has(name) || names.size === TAR_FILES_MAX) malformed(`at most ${TAR_FILES_MAX} distinct names`, offset);
    const start = offset + BLOCK_BYTES;
    const end = start + padded(size);
    if (end > archive.length || !isZero(archive.subarray(start + size, end)))
      malformed(`${size} bytes and zeros`, start);
    files.push({ name, bytes: archive.subarray(start, start + size) });
    names.add(name);
    offset = end;
  }
  if (archive.length - offset !== 2 * BLOCK_BYTES || !isZero(archive.subarray(offset)))
    malformed('two blocks of zeros and the end', offset);
  return files;
}
