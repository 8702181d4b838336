import { parseCustomerId, parseRun, WaggleError, WireReader, WireWriter, type CustomerId } from '../base/index.ts';
import { DIMENSIONS, mapUsage, type Dimension } from './counts.ts';
import { parseUsageWriter, usageKey, usageWriter, type UsageRow, type WriterId } from './register.ts';
import type { Delta } from './registers.ts';
import {
  checkLength,
  MESSAGE_BYTES_MAX,
  readHead,
  readSpan,
  SECTIONS,
  varintBytes,
  writeHead,
  writeSpan,
} from './wire-delta.ts';

/** Rows of one delta. Columns of equal values take no bytes per row, so the bytes alone do not bound the rows. */
const USAGE_ROWS_MAX = MESSAGE_BYTES_MAX / 16;
/** Billing categories there may ever be. */
const SKUS_MAX = 64;
const SKU = /^[a-z][a-z0-9._-]{0,31}$/;
const CUSTOMER_BYTES_MAX = 64;

export type UsageDelta = Delta<UsageRow, WriterId>;

/**
 * A `sizeOf` for `Registers.delta`: the bytes that each next row of one delta takes at most, with the dictionaries' part
 * counted once. Make a new one for each delta.
 */
export function usageRowSizer(): (row: UsageRow) => number {
  const seen = new Set<string>();
  let last = 0;
  const entryBytes = (text: string): number => {
    if (seen.has(text)) return 0;
    seen.add(text);
    return 1 + text.length;
  };
  return ({ version, epoch, customer, sku, usage }) => {
    // Two bytes of index into each dictionary; versions and epochs go as differences, so these are bounds.
    let bytes = varintBytes(version - last) + varintBytes(epoch) + 2 + 1 + entryBytes(customer) + entryBytes(sku);
    for (const dimension of DIMENSIONS) bytes += varintBytes(usage[dimension]);
    last = version;
    // No less than what makes the budget of a message bound its rows, too.
    return Math.max(bytes, MESSAGE_BYTES_MAX / USAGE_ROWS_MAX);
  };
}

/**
 * `head ‖ run ‖ span ‖ count ‖ versions ‖ lowest epoch ‖ epochs ‖ customers ‖ SKUs ‖ counts`, by columns: versions as
 * differences less one; epochs as differences to the lowest; customers and SKUs as dictionaries in order of first appearance,
 * then indexes; one column per dimension. A delta has exactly one encoding.
 * Throws `DECODE_FAILED` for a delta above the bounds.
 */
export function encodeUsageDelta(delta: UsageDelta): Uint8Array<ArrayBuffer> {
  const { replica, run } = parseUsageWriter(delta.writer);
  const rows = delta.registers;
  if (rows.length > USAGE_ROWS_MAX)
    throw new WaggleError('DECODE_FAILED', `Expected at most ${USAGE_ROWS_MAX} rows, received ${rows.length}`);
  const wire = writeSpan(writeHead(new WireWriter(), SECTIONS.usageRows, replica).varint(run), delta).varint(
    rows.length,
  );
  if (rows.length > 0) {
    writeColumn(
      wire,
      rows.map(({ version }, i) => version - (rows[i - 1]?.version ?? delta.from) - 1),
    );
    const epochs = rows.map(({ epoch }) => epoch);
    const epochMin = epochs.reduce((least, epoch) => Math.min(least, epoch));
    wire.varint(epochMin);
    writeColumn(
      wire,
      epochs.map((epoch) => epoch - epochMin),
    );
    writeDictionary(
      wire,
      rows.map(({ customer }) => customer),
    );
    writeDictionary(
      wire,
      rows.map(({ sku }) => sku),
    );
    for (const dimension of DIMENSIONS)
      writeColumn(
        wire,
        rows.map(({ usage }) => usage[dimension]),
      );
  }
  const bytes = wire.finish();
  checkLength(bytes);
  return bytes;
}

/** Parses what `encodeUsageDelta` wrote, and nothing else. Throws `DECODE_FAILED`. */
export function decodeUsageDelta(bytes: Uint8Array): UsageDelta {
  checkLength(bytes);
  const wire = new WireReader(bytes);
  const replica = readHead(wire, SECTIONS.usageRows);
  const writer = usageWriter(replica, parseRun(wire.varint()));
  const span = readSpan(wire);
  const count = wire.varint(USAGE_ROWS_MAX);
  const registers = count === 0 ? [] : readRows(wire, span.from, span.to, count);
  wire.end();
  return { writer, ...span, registers };
}

function readRows(wire: WireReader, from: number, to: number, count: number): UsageRow[] {
  const steps = readColumn(wire, count, to - from - 1);
  const epochMin = wire.varint();
  const epochs = readColumn(wire, count, Number.MAX_SAFE_INTEGER - epochMin);
  if (!epochs.includes(0)) throw new WaggleError('DECODE_FAILED', 'Expected epochs as differences to the lowest');
  const customers = readDictionary(wire, count, count, CUSTOMER_BYTES_MAX, parseCustomerId);
  const skus = readDictionary(wire, count, SKUS_MAX, CUSTOMER_BYTES_MAX, parseSku);
  const columns = {} as Record<Dimension, number[]>;
  for (const dimension of DIMENSIONS) columns[dimension] = readColumn(wire, count, Number.MAX_SAFE_INTEGER);

  const keys = new Set<string>();
  const rows: UsageRow[] = [];
  let version = from;
  for (let i = 0; i < count; i++) {
    version += 1 + steps[i]!;
    const [epoch, customer, sku] = [epochMin + epochs[i]!, customers[i]!, skus[i]!];
    const key = usageKey(epoch, customer, sku);
    keys.add(key);
    rows.push({ key, version, epoch, customer, sku, usage: mapUsage((dimension) => columns[dimension][i]!) });
  }
  if (version > to || keys.size < count)
    throw new WaggleError('DECODE_FAILED', `Expected ${count} rows of different keys up to version ${to}`);
  return rows;
}

function parseSku(text: string): string {
  if (SKU.test(text)) return text;
  throw new WaggleError('DECODE_FAILED', `Expected a billing category, received ${JSON.stringify(text)}`);
}

const allEqual = (values: readonly number[]): boolean => values.every((value) => value === values[0]);

/** `1 ‖ value` if all are equal, else `0 ‖ value*`. */
function writeColumn(wire: WireWriter, values: readonly number[]): void {
  if (allEqual(values)) wire.varint(1).varint(values[0]!);
  else values.reduce((rest, value) => rest.varint(value), wire.varint(0));
}

function readColumn(wire: WireReader, count: number, max: number): number[] {
  if (wire.varint(1) === 1) {
    const value = wire.varint(max);
    return Array.from({ length: count }, () => value);
  }
  if (wire.left < count)
    throw new WaggleError('DECODE_FAILED', `Expected ${count} values, received ${wire.left} bytes`);
  const values: number[] = [];
  for (let i = 0; i < count; i++) values.push(wire.varint(max));
  if (allEqual(values)) throw new WaggleError('DECODE_FAILED', 'Expected a column of equal values in its short form');
  return values;
}

/** `count ‖ text* ‖ column of indexes` */
function writeDictionary(wire: WireWriter, values: readonly string[]): void {
  const indexes = new Map<string, number>();
  for (const value of values) if (!indexes.has(value)) indexes.set(value, indexes.size);
  wire.varint(indexes.size);
  for (const value of indexes.keys()) wire.text(value);
  writeColumn(
    wire,
    values.map((value) => indexes.get(value)!),
  );
}

function readDictionary<T extends CustomerId | string>(
  wire: WireReader,
  count: number,
  entriesMax: number,
  bytesMax: number,
  parse: (text: string) => T,
): T[] {
  const size = wire.varint(Math.min(count, entriesMax, wire.left));
  const entries: T[] = [];
  for (let i = 0; i < size; i++) entries.push(parse(wire.text(bytesMax)));
  const indexes = readColumn(wire, count, Math.max(size - 1, 0));
  let used = 0;
  for (const index of indexes) {
    if (index > used) break;
    if (index === used) used++;
  }
  if (used !== size || new Set(entries).size !== size)
    throw new WaggleError('DECODE_FAILED', 'Expected a dictionary in order of first appearance, without repeats');
  return indexes.map((index) => entries[index]!);
}
