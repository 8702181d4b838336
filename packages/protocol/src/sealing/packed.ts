import { utf8, type CustomerId, type Epoch } from '../base/index.ts';
import type { Usage } from '../lattice/index.ts';
import type { SlotRow } from '../usage/index.ts';

/*
 * What there is a hundred thousand of, in a few large pieces: it crosses to another thread and back in the time that a copy of the
 * bytes takes, where as many objects would keep both threads busy.
 */

/** Rows of usage, in any order. */
export interface PackedRows {
  /** One name to a row, with line feeds between them. */
  readonly customers: string;
  /** Each billing category once. */
  readonly skus: readonly string[];
  /** To a row eight: the place of its category in `skus`, then its counts. */
  readonly numbers: Float64Array<ArrayBuffer>;
}

const NUMBERS_PER_ROW = 8;

export function packRows(rows: readonly SlotRow[]): PackedRows {
  const numbers = new Float64Array(rows.length * NUMBERS_PER_ROW);
  const places = new Map<string, number>();
  let at = 0;
  for (const { sku, usage } of rows) {
    let place = places.get(sku);
    if (place === undefined) places.set(sku, (place = places.size));
    numbers[at] = place;
    numbers[at + 1] = usage.requests;
    numbers[at + 2] = usage.requestsFailed;
    numbers[at + 3] = usage.bytesIn;
    numbers[at + 4] = usage.bytesOut;
    numbers[at + 5] = usage.pixelsIn;
    numbers[at + 6] = usage.pixelsOut;
    numbers[at + 7] = usage.cpuMicros;
    at += NUMBERS_PER_ROW;
  }
  return { customers: rows.map(({ customer }) => customer).join('\n'), skus: [...places.keys()], numbers };
}

export function unpackRows({ customers, skus, numbers }: PackedRows): SlotRow[] {
  const names = customers.split('\n');
  return Array.from({ length: numbers.length / NUMBERS_PER_ROW }, (_, i) => ({
    customer: names[i] as CustomerId,
    sku: skus[numbers[i * NUMBERS_PER_ROW]!]!,
    usage: usageAt(numbers, i * NUMBERS_PER_ROW + 1),
  }));
}

const usageAt = (numbers: Float64Array, at: number): Usage => ({
  requests: numbers[at]!,
  requestsFailed: numbers[at + 1]!,
  bytesIn: numbers[at + 2]!,
  bytesOut: numbers[at + 3]!,
  pixelsIn: numbers[at + 4]!,
  pixelsOut: numbers[at + 5]!,
  cpuMicros: numbers[at + 6]!,
});

/** The statements of an epoch, in the order of their leaves. */
export interface PackedStatements {
  readonly count: number;
  /** Their JCS texts, one after the other, and where each ends. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly ends: Float64Array<ArrayBuffer>;
  /** The UTF-8 bytes of their customers, likewise. */
  readonly customers: Uint8Array<ArrayBuffer>;
  readonly customerEnds: Float64Array<ArrayBuffer>;
  /** The epochs in which the usage happened. */
  readonly epochs: Float64Array<ArrayBuffer>;
}

/** One statement: `bytes` is its JCS text, a view of the packed ones. */
export interface StatementBytes {
  readonly customer: CustomerId;
  readonly epoch: Epoch;
  readonly bytes: Uint8Array;
}

export function packStatements(
  statements: readonly { readonly customer: CustomerId; readonly epoch: Epoch; readonly text: string }[],
): PackedStatements {
  const texts = packTexts(statements.map(({ text }) => text));
  const customers = packTexts(statements.map(({ customer }) => customer));
  return {
    count: statements.length,
    bytes: texts.bytes,
    ends: texts.ends,
    customers: customers.bytes,
    customerEnds: customers.ends,
    epochs: Float64Array.from(statements, ({ epoch }) => epoch),
  };
}

/** The statements from an index up to, not including, another. */
export function unpackStatements(packed: PackedStatements, from = 0, to: number = packed.count): StatementBytes[] {
  const { bytes, ends, customers, customerEnds, epochs } = packed;
  const end = Math.min(to, packed.count);
  return Array.from({ length: Math.max(0, end - from) }, (_, i) => ({
    customer: asciiOf(viewOf(customers, customerEnds, from + i)) as CustomerId,
    epoch: epochs[from + i]!,
    bytes: viewOf(bytes, ends, from + i),
  }));
}

const viewOf = (bytes: Uint8Array, ends: Float64Array, i: number): Uint8Array =>
  bytes.subarray(i === 0 ? 0 : ends[i - 1]!, ends[i]);

/** Customer ids are ASCII: twice as fast as decoding UTF-8 for such short ones. */
const asciiOf = (bytes: Uint8Array): string => String.fromCharCode(...bytes);

function packTexts(texts: readonly string[]): { bytes: Uint8Array<ArrayBuffer>; ends: Float64Array<ArrayBuffer> } {
  const parts = texts.map(utf8);
  const ends = new Float64Array(parts.length);
  let length = 0;
  for (const [i, part] of parts.entries()) ends[i] = length += part.length;
  const bytes = new Uint8Array(length);
  for (const [i, part] of parts.entries()) bytes.set(part, ends[i]! - part.length);
  return { bytes, ends };
}
