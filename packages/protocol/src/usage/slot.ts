import {
  compareText,
  fromUtf8,
  jcsOrdered,
  parseCustomerId,
  parseJcs,
  utf8,
  WaggleError,
  type CustomerId,
  type Epoch,
  type Json,
  type ReplicaId,
  type Run,
} from '../base/index.ts';
import {
  addUsageCapped,
  equalUsage,
  joinUsage,
  parseUsage,
  subtractUsage,
  ZERO_USAGE,
  type Usage,
} from '../lattice/index.ts';
import { isSku } from './sku.ts';

/** Names one replica run's usage of one epoch. */
export interface SlotId {
  readonly replica: ReplicaId;
  readonly run: Run;
  readonly epoch: Epoch;
}

/** One customer's usage of one billing category in a slot. */
export interface SlotRow {
  readonly customer: CustomerId;
  readonly sku: string;
  readonly usage: Usage;
}

/** A slot's content: its rows in the order of `compareRows`, at most one for each customer and SKU. */
export type Slot = readonly SlotRow[];

/** `<replica>-<run>-<epoch>`: the name of a slot in files and maps. */
export const slotName = (id: SlotId): string => `${id.replica}-${id.run}-${id.epoch}`;

/** Order of slots in every list: by epoch, then replica, then run. */
export const compareSlots = (a: SlotId, b: SlotId): number =>
  a.epoch - b.epoch || compareText(a.replica, b.replica) || a.run - b.run;

const compareRows = (a: SlotRow, b: SlotRow): number =>
  compareText(a.customer, b.customer) || compareText(a.sku, b.sku);

/** Brings rows, at most one for each customer and SKU, into the order of a slot. */
export const sortRows = (rows: Iterable<SlotRow>): Slot => [...rows].sort(compareRows);

/**
 * The bytes that a slot digest is taken of: one line for each row, sorted bytewise by (customer, SKU), each the RFC 8785 form
 * of the row with all its fields, zeros too. An exported slot is checked with `sha256sum`.
 */
export const encodeSlot = (slot: Slot): Uint8Array<ArrayBuffer> =>
  utf8(slot.map((row) => `${rowText(row)}\n`).join(''));

function rowText({ customer, sku, usage }: SlotRow): string {
  const { bytesIn, bytesOut, cpuMicros, pixelsIn, pixelsOut, requests, requestsFailed } = usage;
  return jcsOrdered({ bytesIn, bytesOut, cpuMicros, customer, pixelsIn, pixelsOut, requests, requestsFailed, sku });
}

/** Parses what `encodeSlot` wrote, to the byte. Throws `DECODE_FAILED`. */
export function parseSlot(bytes: Uint8Array): Slot {
  const rows = linesOf(bytes, 'a slot row').map(parseRow);
  assertAscending(rows, compareRows, 'slot rows');
  return rows;
}

/** A row writes its own form: to compare with it is four times as fast as RFC 8785 for any JSON, which is most of a large seal. */
function parseRow(line: string): SlotRow {
  const { customer, sku, ...usage } = objectOf(parseJson(line), line, 'a slot row');
  if (typeof sku !== 'string' || !isSku(sku))
    throw new WaggleError('DECODE_FAILED', `Expected a billing category, received ${JSON.stringify(sku)}`);
  const row = { customer: parseCustomerId(customer), sku, usage: parseUsage(usage) };
  if (rowText(row) !== line)
    throw new WaggleError('DECODE_FAILED', 'Expected the canonical form (RFC 8785) of a slot row');
  return row;
}

function parseJson(line: string): Json {
  try {
    return JSON.parse(line) as Json;
  } catch (cause) {
    const received = JSON.stringify(line.slice(0, 60));
    throw new WaggleError('DECODE_FAILED', `Expected JSON for a slot row, received ${received}`, { cause });
  }
}

/** Parses JSON lines, each a canonical object and ended by a line feed. Throws `DECODE_FAILED`. */
export const parseLines = <T>(
  bytes: Uint8Array,
  what: string,
  parse: (value: { readonly [key: string]: Json }) => T,
): T[] => linesOf(bytes, what).map((line) => parse(objectOf(parseJcs(utf8(line), what), line, what)));

function linesOf(bytes: Uint8Array, what: string): string[] {
  if (bytes.length === 0) return [];
  const lines = fromUtf8(bytes).split('\n');
  if (lines.pop() !== '') throw new WaggleError('DECODE_FAILED', `Expected a line feed after the last line of ${what}`);
  return lines;
}

function objectOf(value: Json, line: string, what: string): { readonly [key: string]: Json } {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw new WaggleError('DECODE_FAILED', `Expected an object for ${what}, received ${line.slice(0, 60)}`);
  return value as { readonly [key: string]: Json };
}

/** Throws `DECODE_FAILED` unless each item is above the one before. */
export function assertAscending<T>(items: readonly T[], compare: (a: T, b: T) => number, what: string): void {
  for (let i = 1; i < items.length; i++)
    if (compare(items[i - 1]!, items[i]!) >= 0)
      throw new WaggleError('DECODE_FAILED', `Expected ${what} in ascending order, without repeats`);
}

/** Merges two slots row by row; where only one has a row, the other counts as zero. */
function mergeSlots(a: Slot, b: Slot, merge: (a: Usage, b: Usage) => Usage): SlotRow[] {
  const merged: SlotRow[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const x = a[i];
    const y = b[j];
    const order = x === undefined ? 1 : y === undefined ? -1 : compareRows(x, y);
    const row = (order <= 0 ? x : y)!;
    merged.push({ ...row, usage: merge(order <= 0 ? x!.usage : ZERO_USAGE, order >= 0 ? y!.usage : ZERO_USAGE) });
    if (order <= 0) i++;
    if (order >= 0) j++;
  }
  return merged;
}

/** Entry-wise maximum: what two holders know of one slot, together. */
export const joinSlots = (a: Slot, b: Slot): Slot => mergeSlots(a, b, joinUsage);

/**
 * Entry-wise sum: the usage of several slots. Capped at 2^53 − 1, which nobody honest gets near: one liar's figures must not keep an
 * epoch from being sealed.
 */
export const addSlots = (a: Slot, b: Slot): Slot => mergeSlots(a, b, addUsageCapped);

/** What `content` has beyond `counted`, rows without any left out. Asserts that nothing went backwards. */
export const subtractSlots = (content: Slot, counted: Slot): Slot =>
  mergeSlots(content, counted, subtractUsage).filter(({ usage }) => !equalUsage(usage, ZERO_USAGE));

/** Whether `content` has at least every figure of `counted`. */
export function covers(content: Slot, counted: Slot): boolean {
  const joined = joinSlots(content, counted);
  return joined.length === content.length && joined.every((row, i) => equalUsage(row.usage, content[i]!.usage));
}
