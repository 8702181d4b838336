import { assert, type CustomerId, type ReplicaId, type Run } from '@waggle/protocol/base';
import { DIMENSIONS, type Usage } from '@waggle/protocol/lattice';
import type { ControlRow, MonthRow, RequestRecord, UsageRegisterRow } from './types.ts';

/** What SQLite takes and gives. */
export type Value = string | number | Uint8Array | null;
/** One row, in the order of a statement's parameters: arrays cross to the worker faster than objects. */
export type Row = readonly Value[];

/** Many byte arrays as one, so that they cross to the worker at once and by transfer. */
export interface Packed {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly lengths: Uint32Array<ArrayBuffer>;
}

export function pack(parts: readonly Uint8Array[]): Packed {
  const lengths = Uint32Array.from(parts, (part) => part.length);
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return { bytes, lengths };
}

/** Views of the parts. */
export function unpack({ bytes, lengths }: Packed): Uint8Array[] {
  let offset = 0;
  return Array.from(lengths, (length) => bytes.subarray(offset, (offset += length)));
}

/** In the order of the columns. */
export const usageValues = (usage: Usage): number[] => DIMENSIONS.map((dimension) => usage[dimension]);

/** The usage that stands in a row of numbers from `at` on. One literal, so that all usages share a hidden class. */
const usageAt = (values: ArrayLike<unknown>, at: number): Usage => ({
  requests: values[at] as number,
  requestsFailed: values[at + 1] as number,
  bytesIn: values[at + 2] as number,
  bytesOut: values[at + 3] as number,
  pixelsIn: values[at + 4] as number,
  pixelsOut: values[at + 5] as number,
  cpuMicros: values[at + 6] as number,
});

/** Control registers by column. */
export interface ControlChunk {
  readonly replica: readonly string[];
  readonly key: readonly string[];
  readonly version: Float64Array<ArrayBuffer>;
  readonly value: readonly string[];
  readonly signature: readonly string[];
}

export const controlChunk = (rows: readonly Row[]): ControlChunk => ({
  replica: rows.map((row) => row[0] as string),
  key: rows.map((row) => row[1] as string),
  version: Float64Array.from(rows, (row) => row[2] as number),
  value: rows.map((row) => row[3] as string),
  signature: rows.map((row) => row[4] as string),
});

export const controlRows = (chunk: ControlChunk): ControlRow[] =>
  chunk.key.map((key, i) => ({
    replica: chunk.replica[i] as ReplicaId,
    key,
    version: chunk.version[i]!,
    value: chunk.value[i]!,
    signature: chunk.signature[i]!,
  }));

/** Usage registers: each name once, and per row 13 numbers: replica, run, epoch, customer, SKU, version, counts. */
export interface UsageChunk {
  readonly names: readonly string[];
  readonly numbers: Float64Array<ArrayBuffer>;
}

const USAGE_NUMBERS = 6 + DIMENSIONS.length;
/** Of replica, customer and SKU in a row as selected. */
const NAME_COLUMNS: ReadonlySet<number> = new Set([0, 3, 4]);

export function usageChunk(rows: readonly Row[]): UsageChunk {
  const places = new Map<string, number>();
  const numbers = new Float64Array(rows.length * USAGE_NUMBERS);
  let at = 0;
  for (const row of rows)
    for (let column = 0; column < USAGE_NUMBERS; column++) {
      const value = row[column] as string | number;
      if (!NAME_COLUMNS.has(column)) {
        numbers[at++] = value as number;
        continue;
      }
      let place = places.get(value as string);
      if (place === undefined) places.set(value as string, (place = places.size));
      numbers[at++] = place;
    }
  return { names: [...places.keys()], numbers };
}

export function usageRows({ names, numbers }: UsageChunk): UsageRegisterRow[] {
  const rows: UsageRegisterRow[] = [];
  for (let at = 0; at < numbers.length; at += USAGE_NUMBERS)
    rows.push({
      replica: names[numbers[at]!] as ReplicaId,
      run: numbers[at + 1] as Run,
      epoch: numbers[at + 2]!,
      customer: names[numbers[at + 3]!] as CustomerId,
      sku: names[numbers[at + 4]!]!,
      version: numbers[at + 5]!,
      usage: usageAt(numbers, at + 6),
    });
  return rows;
}

/** The rows of a month as selected: customer, counts. */
export const monthRows = (month: string, rows: readonly Row[]): MonthRow[] =>
  rows.map((row) => ({ month, customer: row[0] as CustomerId, usage: usageAt(row, 1) }));

/** A record as selected by `SELECT *`. */
export function recordOf(row: Row): RequestRecord {
  assert(row.length === 20, 'a record has 20 columns');
  return {
    seq: row[0] as number,
    timeMs: row[1] as number,
    customer: row[2] as CustomerId,
    keyId: row[3] as string,
    requestId: row[4] as string,
    operation: row[5] as string,
    epoch: row[6] as number,
    status: row[7] as number,
    code: row[8] as string | null,
    params: row[9] as string,
    sku: row[10] as string,
    usage: usageAt(row, 11),
    queueMicros: row[18] as number,
    processMicros: row[19] as number,
  };
}
