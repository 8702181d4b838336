import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { customerOf, openTestNode, PNG, until, type Caller, type TestNode } from './support.ts';

let test: TestNode;
let port: number;
let key: string;
let acme: Caller;

beforeAll(async () => {
  test = await openTestNode();
  acme = await customerOf(test, 'acme', { bodyBytesMax: 100_000 });
  const issued = await test.operator('POST', '/v1/customers/acme/keys');
  ({ key } = issued.json<{ key: string }>());
  await test.app.listen({ host: '127.0.0.1', port: 0 });
  ({ port } = test.app.server.address() as AddressInfo);
});
afterAll(() => test.close());

const open = (): Socket => connect(port, '127.0.0.1');

/** Sends bytes and reads until the node closes the connection, or until what came says that it is enough. */
function exchange(
  socket: Socket,
  text: string | Buffer,
  isEnough: (received: string) => boolean = () => false,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let received = '';
    socket.on('data', (chunk: Buffer) => {
      received += chunk.toString('latin1');
      if (isEnough(received)) resolve(received);
    });
    socket.on('end', () => resolve(received));
    socket.on('error', reject);
    socket.write(text);
  });
}

const head = (...headers: readonly string[]): string =>
  [
    'POST /v1/resize?width=2 HTTP/1.1',
    'host: x',
    `authorization: Bearer ${key}`,
    'content-type: image/png',
    ...headers,
    '',
    '',
  ].join('\r\n');

const lastRecord = async (): Promise<object> =>
  JSON.parse((await acme('GET', '/v1/records')).body.trim().split('\n').at(-1)!) as object;

describe('over a real connection', () => {
  it('a body that is declared too large is refused before any of it is sent', async () => {
    const received = await exchange(open(), head('content-length: 99999999999'));
    expect(received).toMatch(/^HTTP\/1\.1 413 /);
    expect(received).toMatch(/\r\nconnection: close\r\n/i);
    expect(received).toContain('"code":"BODY_TOO_LARGE"');
    expect(await lastRecord()).toMatchObject({ code: 'BODY_TOO_LARGE', usage: { bytesIn: 0, requestsFailed: 1 } });
  });

  it('a client that sends all the same still gets to read why it was refused', async () => {
    for (const start of [
      head('content-length: 8000000'),
      head('transfer-encoding: chunked') + (8_000_000).toString(16) + '\r\n',
    ]) {
      const received = await exchange(open(), Buffer.concat([Buffer.from(start), Buffer.alloc(8_000_000)]));
      expect(received).toMatch(/^HTTP\/1\.1 413 /);
      expect(received).toContain('"code":"BODY_TOO_LARGE"');
    }
  });

  it('a stranger with a large body is refused without reading it', async () => {
    const received = await exchange(open(), head('content-length: 8000000').replace(key, 'nonsense'));
    expect(received).toMatch(/^HTTP\/1\.1 401 /);
    expect(received).toMatch(/\r\nconnection: close\r\n/i);
  });

  it('a stranger with a small body keeps the connection', async () => {
    const request = head(`content-length: ${PNG.length}`).replace(key, 'nonsense');
    const socket = open();
    const two = await exchange(
      socket,
      Buffer.concat([Buffer.from(request), PNG, Buffer.from(request), PNG]),
      (received) => received.split('KEY_MALFORMED').length > 2,
    );
    expect(two.match(/HTTP\/1\.1 401 /g)).toHaveLength(2);
    socket.destroy();
  });

  it('a client that asks before it sends is answered before it sends', async () => {
    const refused = await exchange(open(), head('content-length: 8000000', 'expect: 100-continue'));
    expect(refused).toMatch(/^HTTP\/1\.1 413 /);
    const socket = open();
    expect(await exchange(socket, head(`content-length: ${PNG.length}`, 'expect: 100-continue'), () => true)).toMatch(
      /^HTTP\/1\.1 100 /,
    );
    const answer = await exchange(socket, PNG, (received) => received.includes('IEND'));
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    socket.destroy();
    const json = open();
    const create = `PUT /v1/customers/asked HTTP/1.1\r\nhost: x\r\nauthorization: Bearer operator-token-of-the-tests\r\ncontent-type: application/json\r\ncontent-length: 16\r\nexpect: 100-continue\r\n\r\n`;
    expect(await exchange(json, create, () => true)).toMatch(/^HTTP\/1\.1 100 /);
    expect(await exchange(json, '{"name":"Asked"}', () => true)).toMatch(/^HTTP\/1\.1 201 /);
    json.destroy();
    const nonsense = await exchange(open(), head('content-length: 8000000', 'expect: nonsense'));
    expect(nonsense).toMatch(/^HTTP\/1\.1 400 /);
    expect(nonsense).toContain('"code":"REQUEST_INVALID"');
  });

  it('an upload that breaks off is a cancelled request', async () => {
    const socket = open();
    socket.write(Buffer.concat([Buffer.from(head('content-length: 50000')), Buffer.alloc(1_000)]));
    await until(async () => (await acme('GET', '/metrics')).body.includes('waggle_body_bytes 1000'));
    socket.destroy();
    await until(async () => JSON.stringify(await lastRecord()).includes('RESIZE_CANCELLED'));
    expect(await lastRecord()).toMatchObject({
      code: 'RESIZE_CANCELLED',
      status: 499,
      usage: { bytesIn: 1_000, requestsFailed: 1 },
    });
    expect((await acme('GET', '/metrics')).body).toContain('waggle_body_bytes 0');
    // Whoever pays for it finds it in the log, though nobody was there to be answered.
    await until(() => test.logged.some(({ code }) => code === 'RESIZE_CANCELLED'));
    const lines = test.logged.filter(({ code }) => code === 'RESIZE_CANCELLED');
    expect(lines).toEqual([expect.objectContaining({ msg: 'request', route: '/v1/resize', customer: 'acme' })]);
    const counted = /^waggle_http_requests_total\{.*code="RESIZE_CANCELLED"\} 1$/m;
    expect((await acme('GET', '/metrics')).body).toMatch(counted);
  });

  it('what is no HTTP gets a problem, too', async () => {
    for (const [text, status] of [
      ['nonsense\r\n\r\n', 400],
      [`GET / HTTP/1.1\r\nhost: x\r\na: ${'b'.repeat(20_000)}\r\n\r\n`, 431],
    ] as const) {
      const received = await exchange(open(), text);
      expect(received).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
      expect(received).toMatch(/\r\nwaggle-request-id: [0-9a-f]{32}\r\n/);
      expect(received).toContain('"code":"REQUEST_INVALID"');
    }
  });
});
