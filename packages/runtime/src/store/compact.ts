import { fromUtf8, utf8, WaggleError, WireReader, WireWriter, type CustomerId } from '@waggle/protocol/base';
import type { Usage } from '@waggle/protocol/lattice';

/*
 * Statements as they lie on disk. The statements that one epoch seals differ in customer, salt and usage alone. What they
 * have in common is kept once, as a frame; what differs is kept as bytes: the salt, then for each SKU its number and seven
 * counts (varints). A statement of 500 bytes comes to some 65.
 */

/** The form of a statement on disk; bytes that are not a statement of the known form have the frame '' and stay as they are. */
export interface CompactStatement {
  /** The texts before the customer, between customer and salt, and between salt and usage, with LF between them. */
  readonly frame: string;
  readonly bytes: Uint8Array;
}

/** JCS writes no line feed: not between values, and in strings escaped. */
const SEPARATOR = '\n';
const STATEMENT = new RegExp(
  '^(\\{"cluster":"[0-9a-f]{64}","customer":")([^"\\\\]+)' +
    '(","end":"[0-9T:.Z-]{24}","epoch":[0-9]+,"format":1,"salt":")([0-9A-Za-z+/]{43}=)' +
    '(","sealedIn":[0-9]+,"start":"[0-9T:.Z-]{24}","usage":)(\\{.*\\})\\}$',
);

const SALT_BYTES = 32;
/** SKUs by number, from 1; 0 stands before a name. Names may be appended: nothing on disk has their numbers yet. */
const SKU_NUMBERS = [
  'inspect',
  'resize.avif',
  'resize.gif',
  'resize.jpeg',
  'resize.other',
  'resize.png',
  'resize.webp',
];
const SKU_NAME_BYTES_MAX = 256;

const view = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

function compactUsage(writer: WireWriter, text: string): void {
  const usage = JSON.parse(text) as Readonly<Record<string, Usage>>;
  for (const [sku, counts] of Object.entries(usage)) {
    const number = SKU_NUMBERS.indexOf(sku) + 1;
    writer.varint(number);
    if (number === 0) writer.text(sku);
    // What is no count throws; and if more than counts is there, it does not expand to what was given.
    writer.varint(counts.bytesIn).varint(counts.bytesOut).varint(counts.cpuMicros).varint(counts.pixelsIn);
    writer.varint(counts.pixelsOut).varint(counts.requests).varint(counts.requestsFailed);
  }
}

const expandCounts = (reader: WireReader): string =>
  `{"bytesIn":${reader.varint()},"bytesOut":${reader.varint()},"cpuMicros":${reader.varint()},"pixelsIn":${reader.varint()},` +
  `"pixelsOut":${reader.varint()},"requests":${reader.varint()},"requestsFailed":${reader.varint()}}`;

function expandUsage(reader: WireReader): string {
  let usage = '';
  while (reader.left > 0) {
    const number = reader.varint(SKU_NUMBERS.length);
    const sku = number === 0 ? JSON.stringify(reader.text(SKU_NAME_BYTES_MAX)) : `"${SKU_NUMBERS[number - 1]}"`;
    usage += `${usage === '' ? '' : ','}${sku}:${expandCounts(reader)}`;
  }
  return `{${usage}}`;
}

/** The text of a statement of the known form. Throws `DECODE_FAILED`. */
function textOf({ frame, bytes }: CompactStatement, customer: CustomerId): string {
  const [start, middle, end] = frame.split(SEPARATOR);
  const reader = new WireReader(bytes);
  const salt = view(reader.raw(SALT_BYTES)).toString('base64');
  return `${start}${customer}${middle}${salt}${end}${expandUsage(reader)}}`;
}

function tryCompact(customer: CustomerId, given: Uint8Array): CompactStatement | null {
  try {
    const text = fromUtf8(given);
    const [, start, of, middle, salt, end, usage] = STATEMENT.exec(text) ?? [];
    if (usage === undefined || of !== customer) return null;
    const writer = new WireWriter().raw(Buffer.from(salt!, 'base64'));
    compactUsage(writer, usage);
    const compact = { frame: `${start}${SEPARATOR}${middle}${SEPARATOR}${end}`, bytes: writer.finish() };
    return textOf(compact, customer) === text ? compact : null;
  } catch {
    return null;
  }
}

/** The form on disk of the bytes of a customer's statement. Expanding it gives exactly these bytes, whatever they are. */
export const compactStatement = (customer: CustomerId, bytes: Uint8Array): CompactStatement =>
  tryCompact(customer, bytes) ?? { frame: '', bytes };

/** The bytes of the statement. Throws `DATA_DAMAGED` when no statement has this form. */
export function expandStatement(compact: CompactStatement, customer: CustomerId): Uint8Array {
  if (compact.frame === '') return compact.bytes;
  try {
    return utf8(textOf(compact, customer));
  } catch (cause) {
    const message = `Expected the compact form of a statement of ${customer}, received other bytes`;
    throw new WaggleError('DATA_DAMAGED', message, { cause });
  }
}
