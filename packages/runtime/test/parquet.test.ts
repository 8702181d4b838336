import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { expect, it } from 'vitest';
import { parquetChunks, ParquetFile, type ParquetColumn } from '../src/parquet.ts';
import { temporaryDirectories } from './support.ts';

const temporary = temporaryDirectories();
const COLUMNS: readonly ParquetColumn[] = [
  { name: 'text', type: 'STRING' },
  { name: 'maybe', type: 'STRING', nullable: true },
  { name: 'count', type: 'INT64' },
  { name: 'time', type: 'TIMESTAMP' },
];
type Cells = [string, string | null, number, number];

async function read(path: string): Promise<Cells[]> {
  const rows = await parquetReadObjects({ file: await asyncBufferFromFile(path) });
  return rows.map((row) => [row['text'], row['maybe'] ?? null, Number(row['count']), (row['time'] as Date).getTime()]);
}

it('writes what hyparquet reads back equal, whatever the row groups', async () => {
  const cells = fc.tuple(
    fc.string({ unit: 'grapheme', maxLength: 20 }),
    fc.option(fc.string({ maxLength: 5 })),
    fc.maxSafeNat(),
    fc.integer({ min: 0, max: 4e12 }),
  );
  const path = join(temporary(), 'file.parquet');
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(cells, { minLength: 1, maxLength: 50 }), { maxLength: 5 }), async (groups) => {
      const file = new ParquetFile(path, COLUMNS);
      for (const group of groups) file.append(group);
      file.finish();
      file.close();
      expect(await read(path)).toEqual(groups.flat());
    }),
    { numRuns: 50 },
  );
});

it('declares 64-bit integers, UTF-8 and UTC milliseconds, as other readers need', async () => {
  const path = join(temporary(), 'file.parquet');
  const file = new ParquetFile(path, COLUMNS);
  file.append([['x', null, 2 ** 53 - 1, 1_700_000_000_000]]);
  file.finish();
  file.close();
  const { schema } = await parquetMetadataAsync(await asyncBufferFromFile(path));
  expect(
    schema.slice(1).map(({ type, converted_type, repetition_type }) => [type, converted_type, repetition_type]),
  ).toEqual([
    ['BYTE_ARRAY', 'UTF8', 'REQUIRED'],
    ['BYTE_ARRAY', 'UTF8', 'OPTIONAL'],
    ['INT64', undefined, 'REQUIRED'],
    ['INT64', 'TIMESTAMP_MILLIS', 'REQUIRED'],
  ]);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readFileSync(path).subarray(0, 4).toString()).toBe('PAR1');
});

it('comes in chunks that are the same file, one for each row group', async () => {
  const columns: readonly ParquetColumn[] = [...COLUMNS, { name: 'amount', type: 'DOUBLE' }];
  const groups = [0, 1, 2].map((group) =>
    Array.from({ length: 10 ** group }, (_, i) => [`row ${i}`, i % 2 === 0 ? null : 'x', i, 1e12 + i, i / 4]),
  );
  async function* source(): AsyncGenerator<(typeof groups)[number]> {
    for (const group of groups) yield await Promise.resolve(group);
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of parquetChunks(columns, source())) chunks.push(chunk);
  expect(chunks).toHaveLength(groups.length + 1);
  const path = join(temporary(), 'file.parquet');
  const file = new ParquetFile(path, columns);
  for (const group of groups) file.append(group);
  file.finish();
  file.close();
  expect(Buffer.concat(chunks).equals(readFileSync(path))).toBe(true);
  const rows = await parquetReadObjects({ file: await asyncBufferFromFile(path) });
  expect(rows.map((row) => row['amount'])).toEqual(groups.flat().map((row) => row[4]));
});
