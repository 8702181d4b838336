import { connect } from 'node:net';
import { crc32, deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Usage } from '@waggle/protocol/lattice';
import { customerFetch, Operator, resize, scratch, startNode, until, usageOf, type RunningNode } from './harness.ts';
import { makePictures } from './pictures.ts';

/** More than all buffers on the way to a node that does not read hold, however late its answer comes. */
const ENDLESS_BYTES = 100_000_000;

/** A PNG of one colour that says it is that large, without its pixels. */
function declaredPng(width: number, height: number): Buffer {
  const chunk = (type: string, content: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type), content]);
    const sum = Buffer.alloc(4);
    sum.writeUInt32BE(crc(body));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(content.length);
    return Buffer.concat([length, body, sum]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(Buffer.alloc(65_536))),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

function crc(bytes: Buffer): number {
  if (typeof crc32 === 'function') return crc32(bytes);
  let value = ~0;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return ~value >>> 0;
}

/** A GIF of one pixel with that many frames. */
function manyFrames(count: number): Buffer {
  const head = Buffer.from('GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff', 'latin1');
  const frame = Buffer.from(
    '\x21\xf9\x04\x00\x0a\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00',
    'latin1',
  );
  return Buffer.concat([head, ...Array.from({ length: count }, () => frame), Buffer.from(';')]);
}

const svg = Buffer.from(
  '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>',
);
const heic = Buffer.concat([
  Buffer.from([0, 0, 0, 24]),
  Buffer.from('ftypheic'),
  Buffer.from([0, 0, 0, 0]),
  Buffer.from('heicmif1'),
  Buffer.alloc(400),
]);
const tiff = Buffer.concat([Buffer.from('II*\0'), Buffer.alloc(500)]);

describe('input that is not nice', () => {
  const data = scratch();
  let node: RunningNode;
  let operator: Operator;
  let key: string;
  let neighbour: string;
  let photograph: Buffer;

  beforeAll(async () => {
    node = await startNode(data.path, ['--workers', '2']);
    operator = new Operator(node.url, data.path);
    ({ key } = await operator.customer('mallory'));
    ({ key: neighbour } = await operator.customer('neighbour'));
    photograph = (await makePictures())[0]!.bytes;
  });
  afterAll(async () => {
    await node.stop();
    data.remove();
  });

  /** Sends it while a neighbour sends a photograph, who must get it back. */
  async function refused(
    query: string,
    body: Uint8Array,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; code: string; detail: string; usage: Usage }> {
    const [response, beside] = await Promise.all([
      resize(node.url, key, query, body, headers),
      resize(node.url, neighbour, 'width=30', photograph),
    ]);
    expect(beside.status).toBe(200);
    expect((await sharp(Buffer.from(await beside.arrayBuffer())).metadata()).width).toBe(30);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    const problem = (await response.json()) as { status: number; code: string; detail: string };
    expect(problem.status).toBe(response.status);
    return { ...problem, usage: usageOf(response) };
  }

  it.each([
    ['a text', Buffer.from('hello, this is no picture'), 415, 'IMAGE_UNSUPPORTED'],
    ['an SVG', svg, 415, 'IMAGE_UNSUPPORTED'],
    ['a HEIC', heic, 415, 'IMAGE_UNSUPPORTED'],
    ['a TIFF', tiff, 415, 'IMAGE_UNSUPPORTED'],
    ['a PNG that declares 3.6 gigapixels', declaredPng(60_000, 60_000), 422, 'IMAGE_TOO_LARGE'],
    ['a PNG without its pixels', declaredPng(2_000, 2_000), 422, 'IMAGE_CORRUPT'],
    ['a GIF with ten thousand frames', manyFrames(10_000), 422, 'IMAGE_TOO_MANY_FRAMES'],
    ['nothing', Buffer.alloc(0), 400, 'BODY_EMPTY'],
  ])('%s', async (_, body, status, code) => {
    expect(await refused('width=50', body)).toMatchObject({ status, code });
  });

  it('truncated and damaged pictures', async () => {
    const pictures = await makePictures();
    for (const { name, bytes } of pictures) {
      const half = await refused('width=50', bytes.subarray(0, bytes.length >> 1));
      expect([half.status, half.code], name).toEqual([422, 'IMAGE_CORRUPT']);
      expect(half.usage).toMatchObject({ requests: 0, requestsFailed: 1 });
    }
    const damaged = Buffer.from(photograph);
    damaged.fill(0xff, 200, 600);
    expect((await refused('width=50', damaged)).status).toBe(422);
  });

  it.each([
    ['width=0', 'width'],
    ['width=-1', 'width'],
    ['width=1e3', 'width'],
    ['width=99999', '16384'],
    ['colour=red', 'colour'],
    ['width=10&width=20', 'width'],
    ['width=10&quality=101', 'quality'],
    ['width=10&format=bmp', 'format'],
    ['width=10&fit=sideways', 'fit'],
    ['width=10&fit=inside&position=north', 'position'],
    ['width=10&format=png&quality=50', 'quality'],
    ['width=10&background=notacolour', 'background'],
    ['width=10&enlarge=maybe', 'enlarge'],
    ['width=10&rotate=45', 'rotate'],
  ])('the parameters %s', async (query, named) => {
    const { status, code, detail } = await refused(query, photograph);
    expect([status, code]).toEqual([400, 'REQUEST_INVALID']);
    expect(detail).toContain(named);
    expect(detail).toMatch(/[Ee]xpected .* received /);
  });

  it('a result that would be too large', async () => {
    expect(await refused('width=16000&height=16000&fit=fill&enlarge=true', photograph)).toMatchObject({
      status: 422,
      code: 'OUTPUT_TOO_LARGE',
    });
  });

  it('keys that are wrong, revoked, malformed, missing or of another role', async () => {
    const revoked = await operator.customer('revoked');
    const { keys } = await operator.json<{ keys: { id: string }[] }>('/v1/customers/revoked/keys');
    expect((await operator.fetch(`/v1/customers/revoked/keys/${keys[0]!.id}`, { method: 'DELETE' })).status).toBe(204);
    const suspended = await operator.customer('suspended');
    await operator.json('/v1/customers/suspended/suspend', 'POST');
    const deleted = await operator.customer('deleted');
    await operator.fetch('/v1/customers/deleted', { method: 'DELETE' });
    const malformed = `${key.slice(0, -1)}${key.endsWith('0') ? '1' : '0'}`;
    const unknown = await wellFormedUnknown(key);
    for (const [text, status, code] of [
      [revoked.key, 401, 'KEY_REVOKED'],
      [suspended.key, 403, 'CUSTOMER_SUSPENDED'],
      [deleted.key, 403, 'CUSTOMER_DELETED'],
      [malformed, 401, 'KEY_MALFORMED'],
      ['nonsense', 401, 'KEY_MALFORMED'],
      [unknown, 401, 'KEY_UNKNOWN'],
    ] as const) {
      const response = await resize(node.url, text, 'width=10', photograph);
      expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([status, code]);
    }
    const missing = await fetch(`${node.url}/v1/resize?width=10`, { method: 'POST', body: new Uint8Array(photograph) });
    expect([missing.status, ((await missing.json()) as { code: string }).code]).toEqual([401, 'KEY_MISSING']);
    const role = await customerFetch(node.url, key, '/v1/customers');
    expect([role.status, ((await role.json()) as { code: string }).code]).toEqual([403, 'ROLE_REQUIRED']);
  });

  /** A key of the right form that was never issued: one of a customer at another cluster. */
  async function wellFormedUnknown(known: string): Promise<string> {
    const elsewhere = scratch();
    const other = await startNode(elsewhere.path);
    const { key: made } = await new Operator(other.url, elsewhere.path).customer('elsewhere');
    await other.stop();
    elsewhere.remove();
    expect(made).not.toBe(known);
    return made;
  }

  it('too many bytes: refused by the declared length without reading them, and where none is declared, at the limit', async () => {
    const { key: small } = await operator.customer('small', { bodyBytesMax: 1_000 });
    const { hostname, port } = new URL(node.url);
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(Number(port), hostname, () => {
        socket.write(
          `POST /v1/resize?width=10 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${small}\r\ncontent-type: image/jpeg\r\ncontent-length: 1000000\r\n\r\n`,
        );
      });
      let text = '';
      socket.on('data', (chunk) => (text += chunk.toString()));
      socket.on('end', () => resolve(text));
      socket.on('error', reject);
    });
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    expect(answer).toContain('BODY_TOO_LARGE');
    let sent = 0;
    const endless: RequestInit = {
      method: 'POST',
      headers: { authorization: `Bearer ${small}`, 'content-type': 'image/jpeg' },
      body: new ReadableStream({
        // Whoever reads on is fed on, a piece for each turn of the event loop, up to a bound.
        pull: async (controller) => {
          await new Promise((resolve) => setImmediate(resolve));
          sent += 600;
          if (sent > ENDLESS_BYTES) controller.close();
          else controller.enqueue(new Uint8Array(600));
        },
      }),
      duplex: 'half',
    };
    // The node may answer and cut before the client has stopped to send: then all that this client sees is the cut.
    const chunked = await fetch(`${node.url}/v1/resize?width=10`, endless).then(
      (response) => response.status,
      () => 'cut',
    );
    expect([413, 'cut']).toContain(chunked);
    // What the node did stands in its records either way.
    const records = await until('both refusals on record', async () => {
      const lines = (await (await customerFetch(node.url, small, '/v1/records')).text()).trim().split('\n');
      return lines.length < 2 ? undefined : lines.map((line) => JSON.parse(line) as { usage: Usage });
    });
    expect(records).toMatchObject([
      { code: 'BODY_TOO_LARGE', status: 413, usage: { bytesIn: 0, requestsFailed: 1 } },
      { code: 'BODY_TOO_LARGE', status: 413, usage: { requestsFailed: 1 } },
    ]);
    expect(records[1]!.usage.bytesIn).toBeLessThanOrEqual(1_000);
    expect(sent).toBeLessThan(ENDLESS_BYTES);
    expect((await fetch(`${node.url}/livez`)).status).toBe(200);
  });

  it('a deadline that passes: 504, and the CPU time is metered', async () => {
    const { key: hasty } = await operator.customer('hasty', { deadlineMs: 100, outputPixelsMax: 100_000_000 });
    const large = await sharp({
      create: {
        width: 4_000,
        height: 3_000,
        channels: 3,
        noise: { type: 'gaussian', mean: 128, sigma: 60 },
        background: '#888',
      },
    })
      .jpeg({ quality: 95 })
      .toBuffer();
    const [response, beside] = await Promise.all([
      resize(node.url, hasty, 'format=webp&lossless=true', large),
      resize(node.url, neighbour, 'width=30', photograph),
    ]);
    expect(beside.status).toBe(200);
    const problem = (await response.json()) as { code: string };
    expect([response.status, problem.code]).toEqual([504, 'RESIZE_DEADLINE']);
    expect(usageOf(response).requestsFailed).toBe(1);
  });

  it('a client that goes away: its work is cancelled, and the record says so', async () => {
    const { key: gone } = await operator.customer('gone');
    const large = await sharp({
      create: {
        width: 5_000,
        height: 4_000,
        channels: 3,
        noise: { type: 'gaussian', mean: 128, sigma: 60 },
        background: '#888',
      },
    })
      .jpeg({ quality: 90 })
      .toBuffer();
    const abort = new AbortController();
    const request = customerFetch(node.url, gone, '/v1/resize?format=webp&lossless=true', {
      method: 'POST',
      body: new Uint8Array(large),
      signal: abort.signal,
    });
    const running = /^waggle_jobs_running (\d+)/m;
    await until('the work to start', async () => {
      const text = await (await operator.fetch('/metrics')).text();
      return Number(running.exec(text)?.[1] ?? 0) > 0 ? true : undefined;
    });
    abort.abort();
    await expect(request).rejects.toThrow('aborted');
    const record = await until('a record of the cancelled request', async () => {
      const text = await (await customerFetch(node.url, gone, '/v1/records')).text();
      return text === '' ? undefined : (JSON.parse(text.split('\n')[0]!) as { code: string; status: number });
    });
    expect(record).toMatchObject({ code: 'RESIZE_CANCELLED', status: 499 });
  });

  it('a flood of strangers who read: every resize beside it is done', async () => {
    const flood = new AbortController();
    const statuses = new Set<number>();
    const strangers = Array.from({ length: 200 }, async () => {
      while (!flood.signal.aborted) {
        const response = await fetch(`${node.url}/v1/epochs?limit=1000`);
        await response.arrayBuffer();
        statuses.add(response.status);
      }
    });
    try {
      await until('the flood', async () => (statuses.size > 0 ? true : undefined));
      for (let i = 0; i < 10; i++) {
        const response = await resize(node.url, neighbour, 'width=30', photograph);
        await response.arrayBuffer();
        expect(response.status).toBe(200);
      }
    } finally {
      flood.abort();
      await Promise.all(strangers);
    }
    for (const status of statuses) expect([200, 503]).toContain(status);
  });

  it('after all this it is ready and its figures add up', async () => {
    expect((await fetch(`${node.url}/readyz`)).status).toBe(200);
    const usage = await operator.json<{ totals: Usage }>('/v1/customers/mallory/usage');
    expect(usage.totals.requests).toBe(0);
    expect(usage.totals.requestsFailed).toBeGreaterThan(20);
  });
});

describe('a node with no room', () => {
  it('queue full: 503 with retry-after at once, and everything that was taken in is answered', async () => {
    const data = scratch();
    const node = await startNode(data.path, ['--workers', '1', '--queue-max', '2']);
    try {
      const operator = new Operator(node.url, data.path);
      const { key } = await operator.customer('acme');
      const photograph = (await makePictures())[0]!.bytes;
      const responses = await Promise.all(
        Array.from({ length: 24 }, () => resize(node.url, key, 'width=600&format=avif', photograph)),
      );
      const full = responses.filter(({ status }) => status === 503);
      expect(full.length).toBeGreaterThan(0);
      for (const response of full) {
        expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
        expect(((await response.json()) as { code: string }).code).toBe('QUEUE_FULL');
      }
      expect(responses.filter(({ status }) => status === 200).length).toBeGreaterThanOrEqual(3);
      expect(responses.length).toBe(full.length + responses.filter(({ status }) => status === 200).length);
    } finally {
      await node.stop();
      data.remove();
    }
  });

  it('disk full: 503, nothing acknowledged is lost, and a start with more room serves again', async () => {
    const data = scratch();
    const mib = 1_048_576;
    let node = await startNode(data.path, ['--database-bytes-max', String(mib)]);
    try {
      let operator = new Operator(node.url, data.path);
      const { key } = await operator.customer('acme');
      const photograph = (await makePictures())[0]!.bytes;
      let acknowledged = 0;
      for (;;) {
        const responses = await Promise.all(
          Array.from({ length: 16 }, () => resize(node.url, key, 'width=8', photograph.subarray(0, 20))),
        );
        const metered = responses.filter((response) => response.status === 422 || response.status === 415);
        acknowledged += metered.length;
        const refusals = responses.filter(({ status }) => status === 503);
        if (refusals.length > 0) {
          expect(((await refusals[0]!.json()) as { code: string }).code).toBe('STORE_FULL');
          break;
        }
      }
      // Small writes may still fit in for a moment: it says so again with the next that does not.
      await until('a node that says that it is full', async () => {
        const refused = await resize(node.url, key, 'width=8', photograph.subarray(0, 20));
        if (refused.status !== 503) acknowledged++;
        return (await fetch(`${node.url}/readyz`)).status === 503 ? true : undefined;
      });
      const full = await operator.json<{ totals: Usage }>('/v1/customers/acme/usage');
      expect(full.totals.requestsFailed).toBe(acknowledged);
      await node.stop();
      node = await startNode(data.path, ['--database-bytes-max', String(64 * mib)]);
      operator = new Operator(node.url, data.path);
      const after = await operator.json<{ totals: Usage }>('/v1/customers/acme/usage');
      expect(after.totals.requestsFailed).toBe(acknowledged);
      expect((await resize(node.url, key, 'width=8', photograph)).status).toBe(200);
    } finally {
      await node.stop();
      data.remove();
    }
  });
});
