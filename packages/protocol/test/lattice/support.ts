import fc from 'fast-check';
import { expect } from 'vitest';
import { WaggleError, type CustomerId, type ReplicaId, type Run } from '../../src/base/index.ts';
import {
  DIMENSIONS,
  usageKey,
  usageWriter,
  type Register,
  type Usage,
  type UsageRow,
} from '../../src/lattice/index.ts';

export const replicaId = (n: number): ReplicaId => n.toString(16).padStart(32, '0') as ReplicaId;
export const writerId = (n: number, run = 1) => usageWriter(replicaId(n), run as Run);

/** The plainest register: two of one key and version are equal if their values are. */
export interface Note extends Register {
  readonly value: string;
}

export const count = fc.oneof(fc.nat(300), fc.maxSafeNat());
export const usage: fc.Arbitrary<Usage> = fc
  .tuple(...DIMENSIONS.map(() => count))
  .map((counts) => Object.fromEntries(DIMENSIONS.map((dimension, i) => [dimension, counts[i]])) as unknown as Usage);
export const smallUsage: fc.Arbitrary<Usage> = fc
  .tuple(...DIMENSIONS.map(() => fc.nat(1_000)))
  .map((counts) => Object.fromEntries(DIMENSIONS.map((dimension, i) => [dimension, counts[i]])) as unknown as Usage);

export const usageRow = (version: number, epoch: number, customer: string, sku: string, of: Usage): UsageRow => ({
  key: usageKey(epoch, customer as CustomerId, sku),
  version,
  epoch,
  customer: customer as CustomerId,
  sku,
  usage: of,
});

/** Decoding gives a value or `DECODE_FAILED`, never anything else. The value, or null. */
export function decodes<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch (error) {
    expect(error).toBeInstanceOf(WaggleError);
    expect((error as WaggleError).code).toBe('DECODE_FAILED');
    return null;
  }
}

/** One change to some bytes: one replaced, inserted or removed, or the end cut off. */
export const mutation = fc.record({
  kind: fc.constantFrom('replace', 'insert', 'remove', 'cut'),
  at: fc.nat(),
  byte: fc.nat(255),
});

export function mutate(bytes: Uint8Array, { kind, at, byte }: { kind: string; at: number; byte: number }): Uint8Array {
  const list = [...bytes];
  const index = at % (list.length + 1);
  if (kind === 'replace') list[index] = byte;
  else if (kind === 'insert') list.splice(index, 0, byte);
  else if (kind === 'remove') list.splice(index, 1);
  else list.length = index;
  return Uint8Array.from(list);
}
