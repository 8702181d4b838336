import { parquetMetadata, parquetReadObjects } from 'hyparquet';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DIMENSIONS, ZERO_USAGE, addUsage, type Dimension, type Usage } from '@waggle/protocol/lattice';
import { utf8, type CustomerId } from '@waggle/protocol/base';
import { epochBounds } from '@waggle/protocol/sealing';
import { tableOf } from '../../src/http/columns.ts';
import { customerOf, openTestNode, PNG, until, type Caller, type TestNode } from './support.ts';

const IMAGE = { 'content-type': 'image/png' };

let test: TestNode;
let acme: Caller;
let auditor: Caller;
/** The last of the epochs that the work is in. */
let sealedUpTo = 0;
const statements: { epoch: number; usage: Record<string, Usage>; customer: string }[] = [];

beforeAll(async () => {
  test = await openTestNode({ epochMs: 1_000 });
  acme = await customerOf(test, 'acme');
  const brick = await customerOf(test, 'brick');
  const { token } = (await test.operator('POST', '/v1/tokens', { role: 'auditor', name: 'a' })).json<{
    token: string;
  }>();
  auditor = test.as(token);
  for (const [caller, format] of [
    [acme, 'png'],
    [brick, 'webp'],
    [acme, 'jpeg'],
  ] as const)
    expect((await caller('POST', `/v1/resize?width=2&format=${format}`, PNG, IMAGE)).statusCode).toBe(200);
  const { openEpoch } = test.node.driver;
  await until(() => test.node.driver.sealingEpoch > openEpoch);
  sealedUpTo = openEpoch;
  for (let epoch = 0; epoch <= sealedUpTo; epoch++)
    statements.push(
      ...(await get(`/v1/epochs/${epoch}/statements.jsonl`)).body
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as (typeof statements)[number]),
    );
});
afterAll(() => test.close());

const get = async (path: string, caller: Caller = auditor) => {
  const response = await caller('GET', path);
  expect([path, response.statusCode]).toEqual([path, 200]);
  return response;
};

type Row = Record<string, string | number | bigint | Date | null | undefined>;

async function parquet(path: string, caller: Caller = auditor): Promise<Row[]> {
  const { rawPayload, headers } = await get(path, caller);
  expect(headers['content-type']).toBe('application/vnd.apache.parquet');
  const file = rawPayload.buffer.slice(rawPayload.byteOffset, rawPayload.byteOffset + rawPayload.length) as ArrayBuffer;
  return (await parquetReadObjects({ file })) as Row[];
}

/** A CSV without quotes, each value as Parquet gives it: that no field needs any is what the test is about, too. */
async function csv(path: string, caller: Caller = auditor): Promise<Row[]> {
  const { body, headers } = await get(path, caller);
  expect(headers['content-type']).toBe('text/csv; charset=utf-8');
  expect(body).not.toContain('"');
  const [head, ...lines] = body.split('\r\n');
  expect(lines.pop()).toBe('');
  const names = head!.split(',');
  return lines.map((line) => {
    const cells = line.split(',');
    expect(cells).toHaveLength(names.length);
    return Object.fromEntries(names.map((name, i) => [name, cells[i]]));
  });
}

/** As CSV would write it. */
const texts = (rows: readonly Row[]): Row[] =>
  rows.map((row) =>
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [
        name,
        value instanceof Date ? value.toISOString() : String(value ?? ''),
      ]),
    ),
  );

async function all(read: (path: string) => Promise<Row[]>, name: string): Promise<Row[]> {
  const rows: Row[] = [];
  for (let epoch = 0; epoch <= sealedUpTo; epoch++) rows.push(...(await read(`/v1/epochs/${epoch}/${name}`)));
  return rows;
}

describe('exports of an epoch', () => {
  it('have a row for each customer and SKU, equal in CSV and Parquet, and as sealed', async () => {
    const rows = await all(csv, 'statements.csv');
    expect(texts(await all(parquet, 'statements.parquet'))).toEqual(rows);
    expect(rows.map(({ customer, sku }) => `${String(customer)} ${String(sku)}`).sort()).toEqual([
      'acme resize.jpeg',
      'acme resize.png',
      'brick resize.webp',
    ]);
    const expected = statements.flatMap(({ epoch, customer, usage }) =>
      Object.entries(usage).map(([sku, counts]) => ({ epoch: String(epoch), customer, sku, counts })),
    );
    expect(
      rows.map(({ epoch, customer, sku, ...row }) => ({
        epoch,
        customer,
        sku,
        counts: Object.fromEntries(DIMENSIONS.map((name) => [name, Number(row[name])])),
      })),
    ).toEqual(expected);
  });

  it('have the names, types and values of FOCUS with columns=focus, and the same sums', async () => {
    const rows = await all(parquet, 'statements.parquet?columns=focus');
    const times = new Set(['BillingPeriodStart', 'BillingPeriodEnd', 'ChargePeriodStart', 'ChargePeriodEnd']);
    const written = texts(rows).map((row) =>
      Object.fromEntries(
        Object.entries(row).map(([name, value]) => [
          name,
          times.has(name) ? String(value).replace('.000Z', 'Z') : value,
        ]),
      ),
    );
    expect(await all(csv, 'statements.csv?columns=focus')).toEqual(written);
    const { id, genesis } = test.node.standing.cluster;
    const sums: Record<string, Usage> = {};
    for (const row of rows) {
      const { startMs, endMs } = epochBounds(genesis, Number(row['x_Epoch']));
      expect(row).toMatchObject({
        ProviderName: genesis.name,
        BillingAccountId: id,
        ChargeCategory: 'Usage',
        ServiceCategory: 'Media',
        ChargePeriodStart: new Date(startMs),
        ChargePeriodEnd: new Date(endMs),
        x_SealedIn: row['x_Epoch'],
        SkuId: `${String(row['x_Sku'])}/${String(row['SkuMeter'])}`,
      });
      expect(row['ChargeClass'] ?? null).toBeNull();
      expect(row['ConsumedQuantity']).toBeGreaterThan(0);
      expect(typeof row['ConsumedQuantity']).toBe('number');
      const meter = row['SkuMeter'] as Dimension;
      expect(row['ConsumedUnit']).toBe(
        meter === 'cpuMicros' ? 'Microseconds' : { b: 'B', p: 'Pixels', r: 'Requests' }[meter[0]!],
      );
      const account = String(row['SubAccountId']);
      sums[account] = addUsage(sums[account] ?? ZERO_USAGE, {
        ...ZERO_USAGE,
        [meter]: row['ConsumedQuantity'] as number,
      });
    }
    const sealed: Record<string, Usage> = {};
    for (const { customer, usage } of statements)
      for (const counts of Object.values(usage)) sealed[customer] = addUsage(sealed[customer] ?? ZERO_USAGE, counts);
    expect(sums).toEqual(sealed);
  });

  it('of late usage are corrections in the period of the seal', () => {
    const { cluster } = test.node.standing;
    const usage = { 'resize.png': { ...ZERO_USAGE, requests: 3, bytesIn: 4 } };
    const bytes = utf8(JSON.stringify({ usage }));
    const table = tableOf('focus', cluster);
    const rows = table
      .rowsOf({ customer: 'acme' as CustomerId, epoch: 7, origin: 5, leafIndex: 1, bytes })
      .map((cells) => Object.fromEntries(table.columns.map(({ name }, i) => [name, cells[i]])));
    expect(rows.map(({ SkuId, ConsumedQuantity }) => [SkuId, ConsumedQuantity])).toEqual([
      ['resize.png/requests', 3],
      ['resize.png/bytesIn', 4],
    ]);
    expect(rows[0]).toMatchObject({
      ChargeClass: 'Correction',
      BillingPeriodStart: epochBounds(cluster.genesis, 7).startMs,
      ChargePeriodEnd: epochBounds(cluster.genesis, 5).endMs,
      x_SealedIn: 7,
      x_Epoch: 5,
    });
  });

  it('are for auditors, of sealed epochs, in the columns that there are', async () => {
    for (const name of ['statements.csv', 'statements.parquet', 'outline.tar']) {
      expect((await test.as('')('GET', `/v1/epochs/0/${name}`)).statusCode).toBe(401);
      expect((await acme('GET', `/v1/epochs/0/${name}`)).statusCode).toBe(403);
      expect((await auditor('GET', `/v1/epochs/${test.node.driver.openEpoch}/${name}`)).statusCode).toBe(409);
    }
    expect((await auditor('GET', '/v1/epochs/0/statements.csv?columns=all')).json()).toMatchObject({
      code: 'REQUEST_INVALID',
    });
    const found = await get('/v1/epochs/0/statements.csv');
    const again = await auditor('GET', '/v1/epochs/0/statements.csv', undefined, {
      'if-none-match': String(found.headers['etag']),
    });
    expect(again.statusCode).toBe(304);
    expect((await get('/v1/epochs/0/statements.csv?columns=focus')).headers['etag']).not.toBe(found.headers['etag']);
  });

  it('without statements have a head and no rows', async () => {
    const used = new Set(statements.map(({ epoch }) => epoch));
    const empty = [...Array(sealedUpTo + 1).keys()].find((epoch) => !used.has(epoch)) ?? sealedUpTo + 1;
    await until(() => test.node.driver.sealingEpoch > empty);
    expect(await csv(`/v1/epochs/${empty}/statements.csv`)).toEqual([]);
    expect(await parquet(`/v1/epochs/${empty}/statements.parquet`)).toEqual([]);
    const { rawPayload } = await get(`/v1/epochs/${empty}/statements.parquet`);
    const file = rawPayload.buffer.slice(rawPayload.byteOffset, rawPayload.byteOffset + rawPayload.length);
    expect(parquetMetadata(file as ArrayBuffer).schema).toHaveLength(1 + 6 + DIMENSIONS.length);
  });
});

describe('exports of a customer', () => {
  it('have its own statements only, of the epochs asked for', async () => {
    const rows = await csv('/v1/statements.csv', acme);
    expect(rows.map(({ customer, sku }) => `${String(customer)} ${String(sku)}`).sort()).toEqual([
      'acme resize.jpeg',
      'acme resize.png',
    ]);
    expect(texts(await parquet('/v1/statements.parquet', acme))).toEqual(rows);
    expect(await csv(`/v1/statements.csv?from=${sealedUpTo + 1_000_000}`, acme)).toEqual([]);
    const [first] = rows;
    const epoch = String(first!['epoch']);
    expect(await csv(`/v1/statements.csv?from=${epoch}&to=${epoch}`, acme)).toEqual(
      rows.filter((row) => row['epoch'] === epoch),
    );
    for (const row of await parquet('/v1/statements.parquet?columns=focus', acme))
      expect(row['SubAccountId']).toBe('acme');
    expect((await auditor('GET', '/v1/statements.csv')).statusCode).toBe(403);
  });
});
