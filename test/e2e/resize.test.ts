import { createHash } from 'node:crypto';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { totalsOf } from '@waggle/protocol/audit';
import { customerFetch, Operator, resize, scratch, sealed, startNode, usageOf, type RunningNode } from './harness.ts';
import { makePictures, type Picture } from './pictures.ts';

const REQUESTS = 200;
const CLIENTS = 8;

/** What a customer asks of any picture, and what the result then has to be. */
const ORDERS: readonly {
  readonly query: string;
  readonly expect: (picture: Picture, width: number, height: number, format: string) => void;
}[] = [
  { query: 'width=100', expect: (_, width) => expect(width).toBe(100) },
  { query: 'width=64&height=64&fit=cover&format=webp', expect: (_, ...made) => expect(made).toEqual([64, 64, 'webp']) },
  {
    query: 'width=80&height=40&fit=contain&background=red&format=jpeg&quality=60',
    expect: (_, ...made) => expect(made).toEqual([80, 40, 'jpeg']),
  },
  {
    query: 'width=90&height=90&fit=inside&format=png',
    expect: (_, width, height) => expect(Math.max(width, height)).toBe(90),
  },
  {
    query: 'width=48&format=avif',
    expect: (_, width, _height, format) => expect([width, format]).toEqual([48, 'heif']),
  },
  {
    query: 'height=50&rotate=90',
    expect: (picture, width, height) =>
      expect([width, height]).toEqual([Math.round((50 * picture.height) / picture.width), 50]),
  },
];

describe('a day of a customer', () => {
  const data = scratch();
  let node: RunningNode;
  let operator: Operator;
  let key: string;

  beforeAll(async () => {
    node = await startNode(data.path, ['--epoch-ms', '5000']);
    operator = new Operator(node.url, data.path);
    ({ key } = await operator.customer('acme'));
  });
  afterAll(async () => {
    await node.stop();
    data.remove();
  });

  it(`${REQUESTS} mixed resizes by ${CLIENTS} clients: receipts = usage = records = sealed statements`, async () => {
    const pictures = await makePictures();
    const receipts: Usage[] = [];
    const ids = new Set<string>();
    let next = 0;
    const client = async (): Promise<void> => {
      for (let i = next++; i < REQUESTS; i = next++) {
        const picture = pictures[i % pictures.length]!;
        // Frames cannot be turned: the API says so, and this client knows.
        const order = ORDERS[Math.floor(i / pictures.length) % ORDERS.length]!;
        const query = picture.name === 'animated' && order.query.includes('rotate') ? 'width=30' : order.query;
        const response = await resize(node.url, key, query, picture.bytes);
        const made = Buffer.from(await response.arrayBuffer());
        expect(response.status, `${picture.name} ${query}: ${made.toString('utf8', 0, 300)}`).toBe(200);
        const { width, pageHeight, height, format } = await sharp(made).metadata();
        if (query === order.query) order.expect(picture, width, pageHeight ?? height, format);
        expect(response.headers.get('etag')).toMatch(/^"[\w-]+"$/);
        expect(response.headers.get('server-timing')).toMatch(/queue;dur=.*process;dur=.*commit;dur=/);
        const usage = usageOf(response);
        expect(usage).toMatchObject({
          requests: 1,
          requestsFailed: 0,
          bytesIn: picture.bytes.length,
          bytesOut: made.length,
        });
        expect(usage.cpuMicros).toBeGreaterThan(0);
        receipts.push(usage);
        ids.add(response.headers.get('waggle-request-id')!);
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, client));
    const expected = receipts.reduce(addUsage, ZERO_USAGE);
    expect(expected.requests).toBe(REQUESTS);

    const { totals } = (await (await customerFetch(node.url, key, '/v1/usage')).json()) as { totals: Usage };
    expect(totals).toEqual(expected);

    const from = encodeURIComponent(new Date(Date.now() - 3_600_000).toISOString());
    const records = (await (await customerFetch(node.url, key, `/v1/records?from=${from}`)).text())
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { requestId: string; usage: Usage });
    expect(new Set(records.map(({ requestId }) => requestId))).toEqual(ids);
    expect(records.map(({ usage }) => usage).reduce(addUsage, ZERO_USAGE)).toEqual(expected);

    const { epochs } = await operator.json<{ epochs: { epoch: number; state: string }[] }>('/v1/epochs?limit=1');
    await sealed(operator, epochs[0]!.epoch);
    const { statements } = (await (await customerFetch(node.url, key, '/v1/statements')).json()) as {
      statements: { epoch: number }[];
    };
    const texts = await Promise.all(
      statements.map(async ({ epoch }) => (await customerFetch(node.url, key, `/v1/statements/${epoch}`)).text()),
    );
    const sealedUsages = texts.flatMap((text) =>
      Object.values((JSON.parse(text) as { usage: Record<string, Usage> }).usage),
    );
    expect(totalsOf(sealedUsages)).toEqual(totalsOf([expected]));
    const again = (await (await customerFetch(node.url, key, '/v1/usage')).json()) as { totals: Usage };
    expect(again.totals).toEqual(expected);
  });

  it('a picture is what its etag says, and a retry under an idempotency key is not billed', async () => {
    const [photograph] = await makePictures();
    const send = (): Promise<Response> =>
      resize(node.url, key, 'width=77', photograph!.bytes, { 'idempotency-key': 'order-1' });
    const first = await send();
    const second = await send();
    const bytes = Buffer.from(await first.arrayBuffer());
    expect(Buffer.from(await second.arrayBuffer()).equals(bytes)).toBe(true);
    expect(second.headers.get('waggle-receipt')).toBe(first.headers.get('waggle-receipt'));
    expect(second.headers.get('etag')).toBe(first.headers.get('etag'));
    expect(first.headers.get('etag')).toBe(`"${createHash('sha256').update(bytes).digest('base64url')}"`);
    const other = await resize(node.url, key, 'width=78', photograph!.bytes, { 'idempotency-key': 'order-1' });
    expect([other.status, ((await other.json()) as { code: string }).code]).toEqual([422, 'IDEMPOTENCY_MISMATCH']);
    const { totals } = (await (await customerFetch(node.url, key, '/v1/usage')).json()) as { totals: Usage };
    expect([totals.requests, totals.requestsFailed]).toEqual([REQUESTS + 1, 1]);
  });
});
