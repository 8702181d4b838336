import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { base64url, fromUtf8 } from '@waggle/protocol/base';
import { nodeCrypto } from '@waggle/runtime';
import { customerOf, openTestNode, PNG, type Caller, type TestNode } from './support.ts';

const IMAGE = { 'content-type': 'image/png' };
const OCTETS = { 'content-type': 'application/octet-stream' };

let test: TestNode;
let acme: Caller;
beforeAll(async () => {
  test = await openTestNode();
  acme = await customerOf(test, 'acme');
});
afterAll(() => test.close());

const form = (...parts: readonly [headers: string, content: Buffer][]): Buffer =>
  Buffer.concat([
    ...parts.flatMap(([headers, content]) => [
      Buffer.from(`--xyz\r\n${headers}\r\n\r\n`),
      content,
      Buffer.from('\r\n'),
    ]),
    Buffer.from('--xyz--\r\n'),
  ]);
const FORM = { 'content-type': 'multipart/form-data; boundary=xyz' };
const FILE = 'content-disposition: form-data; name="file"; filename="a.png"\r\ncontent-type: image/png';

describe('POST /v1/resize', () => {
  it('gives the picture with everything that was promised', async () => {
    const response = await acme('POST', '/v1/resize?width=2&format=webp', PNG, IMAGE);
    expect(response.statusCode).toBe(200);
    const { headers, rawPayload } = response;
    expect(rawPayload.subarray(8, 12).toString()).toBe('WEBP');
    expect(headers).toMatchObject({
      'content-type': 'image/webp',
      'content-length': String(rawPayload.length),
      etag: `"${createHash('sha256').update(rawPayload).digest('base64url')}"`,
      'cache-control': 'private, no-store',
      'waggle-node': test.node.standing.replica,
      'waggle-width': '2',
      'waggle-height': '2',
    });
    expect(headers['waggle-request-id']).toMatch(/^[0-9a-f]{32}$/);
    expect(headers['waggle-usage']).toMatch(
      new RegExp(
        `^requests=1, bytes-in=${PNG.length}, bytes-out=${rawPayload.length}, pixels-in=12, pixels-out=4, cpu-micros=[1-9]\\d*$`,
      ),
    );
    expect(headers['server-timing']).toMatch(
      /^queue;dur=[\d.]+, process;dur=[\d.]+, commit;dur=[\d.]+, total;dur=[\d.]+$/,
    );
    expect(headers['vary']).toBeUndefined();
  });

  it('gives a receipt that the node signed', async () => {
    const { headers } = await acme('POST', '/v1/resize?width=2', PNG, IMAGE);
    const [head = '', payload = '', signature = ''] = String(headers['waggle-receipt']).split('.');
    const { keys, replica } = test.node.standing;
    const signed = new TextEncoder().encode(`${head}.${payload}`);
    expect(nodeCrypto.ed25519Verify(keys.transport.publicKey, signed, base64url.decode(signature))).toBe(true);
    expect(JSON.parse(fromUtf8(base64url.decode(payload)))).toMatchObject({
      replica,
      customer: 'acme',
      request: headers['waggle-request-id'],
      sku: 'resize.png',
      usage: { requests: 1 },
    });
  });

  it('varies by accept when the format does', async () => {
    const response = await acme('POST', '/v1/resize?width=2&format=auto', PNG, { ...OCTETS, accept: 'image/webp,*/*' });
    expect(response.headers).toMatchObject({ vary: 'accept', 'content-type': 'image/webp' });
  });

  it('takes a picture without a content type, as octets and as the one file of a form', async () => {
    for (const [body, headers] of [
      [PNG, {}],
      [PNG, OCTETS],
      [form([FILE, PNG]), FORM],
    ] as const) {
      const response = await acme('POST', '/v1/resize?width=2', body, { ...headers });
      expect([response.statusCode, response.headers['waggle-usage']]).toEqual([
        200,
        expect.stringContaining(`bytes-in=${PNG.length},`),
      ]);
    }
  });

  it.each([
    ['two files', form([FILE, PNG], [FILE, PNG]), FORM, 400, 'REQUEST_INVALID'],
    ['a field', form(['content-disposition: form-data; name="width"', Buffer.from('3')]), FORM, 400, 'REQUEST_INVALID'],
    ['a form without an end', form([FILE, PNG]).subarray(0, -12), FORM, 400, 'REQUEST_INVALID'],
    ['a form without a boundary', form([FILE, PNG]), { 'content-type': 'multipart/form-data' }, 400, 'REQUEST_INVALID'],
    ['another type', PNG, { 'content-type': 'application/x-www-form-urlencoded' }, 415, 'IMAGE_UNSUPPORTED'],
    ['a compressed body', PNG, { ...IMAGE, 'content-encoding': 'gzip' }, 400, 'REQUEST_INVALID'],
    ['an idempotency key of other characters', PNG, { ...IMAGE, 'idempotency-key': 'ü' }, 400, 'REQUEST_INVALID'],
    [
      'an idempotency key of 256 characters',
      PNG,
      { ...IMAGE, 'idempotency-key': 'k'.repeat(256) },
      400,
      'REQUEST_INVALID',
    ],
    ['no body', undefined, {}, 400, 'BODY_EMPTY'],
    ['no picture', Buffer.from('no picture at all'), IMAGE, 415, 'IMAGE_UNSUPPORTED'],
  ])('refuses %s, and meters that', async (_, body, headers, status, code) => {
    const response = await acme('POST', '/v1/resize?width=2', body, headers);
    expect([response.statusCode, response.json<{ code: string }>().code]).toEqual([status, code]);
    expect(response.headers['content-type']).toBe('application/problem+json');
    expect(response.headers['waggle-usage']).toMatch(/^requests=0, requests-failed=1, bytes-in=\d+, bytes-out=0, /);
    expect(response.headers['waggle-receipt']).toBeDefined();
  });

  it('refuses a body over the limit of its customer, read or only declared', async () => {
    const small = await customerOf(test, 'small', { bodyBytesMax: PNG.length - 1 });
    for (const headers of [IMAGE, { ...IMAGE, 'content-length': '999999999999' }]) {
      const response = await small('POST', '/v1/resize?width=2', PNG, headers);
      expect([response.statusCode, response.headers['connection']]).toEqual([413, 'close']);
      expect(response.json()).toMatchObject({
        code: 'BODY_TOO_LARGE',
        detail: expect.stringContaining(`at most ${PNG.length - 1} bytes`) as string,
      });
      expect(response.headers['waggle-usage']).toContain('requests-failed=1');
    }
    const records = (await small('GET', '/v1/records')).body
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(records).toMatchObject([{ code: 'BODY_TOO_LARGE', status: 413 }, { code: 'BODY_TOO_LARGE' }]);
  });

  it('names the parameter that is wrong', async () => {
    for (const [query, named] of [
      ['width=0', 'from 1 to 16384 for width, received "0"'],
      ['colour=red', 'received "colour"'],
      ['width=1&width=2', 'width'],
      ['preset=none', 'preset'],
    ]) {
      const response = await acme('POST', `/v1/resize?${query}`, PNG, IMAGE);
      expect(response.json()).toMatchObject({
        status: 400,
        code: 'REQUEST_INVALID',
        detail: expect.stringContaining(named!) as string,
      });
    }
  });

  it('answers a repeat under an idempotency key with the first receipt', async () => {
    const key = { ...IMAGE, 'idempotency-key': 'order 1' };
    const first = await acme('POST', '/v1/resize?width=2', PNG, key);
    const second = await acme('POST', '/v1/resize?width=2', PNG, key);
    expect(first.headers['waggle-repeat']).toBeUndefined();
    expect(second.headers['waggle-repeat']).toBe('true');
    expect(second.rawPayload.equals(first.rawPayload)).toBe(true);
    for (const name of ['waggle-receipt', 'waggle-usage', 'etag'])
      expect(second.headers[name]).toBe(first.headers[name]);
    const other = await acme('POST', '/v1/resize?width=3', PNG, key);
    expect([other.statusCode, other.json<{ code: string }>().code]).toEqual([422, 'IDEMPOTENCY_MISMATCH']);
  });

  it('repeats what was asked, not what its preset has become', async () => {
    const send = (): ReturnType<typeof acme> =>
      acme('POST', '/v1/resize?preset=changing', PNG, { ...IMAGE, 'idempotency-key': 'order 2' });
    await acme('PUT', '/v1/account/presets/changing', { width: '1' });
    expect((await send()).statusCode).toBe(200);
    await acme('PUT', '/v1/account/presets/changing', { width: '4' });
    const repeat = await send();
    expect([repeat.statusCode, repeat.json<{ code: string }>().code]).toEqual([422, 'IDEMPOTENCY_MISMATCH']);
    await acme('DELETE', '/v1/account/presets/changing');
  });

  it('uses a preset of the account', async () => {
    const put = await acme('PUT', '/v1/account/presets/thumb', { width: '1', format: 'webp' });
    expect([put.statusCode, put.json()]).toEqual([
      200,
      { name: 'thumb', preset: { width: '1', format: 'webp' }, visibleAt: { members: 1, of: 1 } },
    ]);
    const response = await acme('POST', '/v1/resize?preset=thumb', PNG, IMAGE);
    expect(response.headers).toMatchObject({ 'content-type': 'image/webp', 'waggle-width': '1' });
    expect((await acme('PUT', '/v1/account/presets/bad', { width: '0' })).statusCode).toBe(400);
    expect((await acme('DELETE', '/v1/account/presets/thumb')).statusCode).toBe(204);
    expect((await acme('GET', '/v1/account')).json()).toMatchObject({ id: 'acme', presets: {} });
  });
});

describe('POST /v1/inspect and /v1/estimate', () => {
  it('say what a picture is and what it would cost, as an inspection', async () => {
    const inspected = await acme('POST', '/v1/inspect', PNG, IMAGE);
    const input = {
      format: 'png',
      width: 4,
      height: 3,
      frames: 1,
      orientation: 1,
      space: 'srgb',
      depth: 'uchar',
      hasAlpha: false,
      bytes: PNG.length,
    };
    expect(inspected.json()).toMatchObject(input);
    const estimated = await acme('POST', '/v1/estimate?width=2&format=webp', PNG, IMAGE);
    expect(estimated.json()).toMatchObject({
      estimateMicros: expect.any(Number) as number,
      input,
      output: { format: 'webp', width: 2, height: 2, frames: 1 },
    });
    for (const { headers } of [inspected, estimated]) expect(headers['waggle-usage']).toContain('pixels-out=0');
    const { skus } = (await acme('GET', '/v1/usage?group=sku')).json<{ skus: { sku: string }[] }>();
    expect(skus.map(({ sku }) => sku)).toContain('inspect');
  });

  it('refuse parameters that they do not take', async () => {
    for (const path of ['/v1/inspect?width=2', '/v1/estimate?width=0'])
      expect((await acme('POST', path, PNG, IMAGE)).json()).toMatchObject({ code: 'REQUEST_INVALID' });
  });
});

describe('a node that goes away', () => {
  it('takes no more work and says where to go', async () => {
    const leaving = await openTestNode();
    const customer = await customerOf(leaving, 'acme');
    leaving.node.drain();
    const response = await customer('POST', '/v1/resize?width=2', PNG, IMAGE);
    expect(response.headers).toMatchObject({ connection: 'close', 'retry-after': '5' });
    expect(response.json()).toMatchObject({ status: 503, code: 'DRAINING' });
    expect((await customer('GET', '/readyz')).json()).toMatchObject({ code: 'DRAINING' });
    expect((await customer('GET', '/livez')).statusCode).toBe(200);
    await leaving.close();
  });
});
