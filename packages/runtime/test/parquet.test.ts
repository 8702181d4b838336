import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet';
import { expect, it } from 'vitest';
import { ParquetFile, type ParquetColumn } from '../src/parquet.ts';
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
