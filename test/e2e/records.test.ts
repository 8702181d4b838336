import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { asyncBufferFromFile, parquetReadObjects } from 'hyparquet';
import { expect, it } from 'vitest';
import { customerFetch, Operator, resize, scratch, startNode, until, usageOf } from './harness.ts';
import { makePictures } from './pictures.ts';

it('records that are past their retention become Parquet files by epoch, each exactly once', async () => {
  const data = scratch();
  const node = await startNode(data.path, ['--epoch-ms', '1000', '--record-retention-ms', '1000']);
  try {
    const { key } = await new Operator(node.url, data.path).customer('acme');
    const [picture] = await makePictures();
    const sent = new Map<string, number>();
    for (let i = 0; i < 6; i++) {
      const response = await resize(node.url, key, `width=${20 + i}`, picture!.bytes);
      sent.set(response.headers.get('waggle-request-id')!, usageOf(response).cpuMicros);
      await response.arrayBuffer();
    }
    await until('no record is left in the database', async () => {
      const text = await (await customerFetch(node.url, key, '/v1/records')).text();
      return text === '' ? true : undefined;
    });
    const folder = join(data.path, 'records');
    expect(existsSync(folder)).toBe(true);
    const rows: Record<string, unknown>[] = [];
    for (const epoch of readdirSync(folder)) {
      expect(epoch).toMatch(/^epoch=\d+$/);
      for (const name of readdirSync(join(folder, epoch)))
        rows.push(...(await parquetReadObjects({ file: await asyncBufferFromFile(join(folder, epoch, name)) })));
    }
    const kept = new Map(rows.map((row) => [row['request_id'], Number(row['cpu_micros'])]));
    expect(rows.length).toBe(sent.size);
    expect(kept).toEqual(sent);
    expect(rows.every((row) => row['customer'] === 'acme' && Number(row['status']) === 200)).toBe(true);
  } finally {
    await node.stop();
    data.remove();
  }
});
