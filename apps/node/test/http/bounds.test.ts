import { once } from 'node:events';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { customerOf, keyOf, noise, openTestNode, PNG, until, type Caller, type TestNode } from './support.ts';

/* What one customer, or anyone, takes of a node that others need. */

/** Long enough to look at what an answer holds that nobody takes. */
const WRITE_IDLE_MS = 5_000;

let test: TestNode;
let port: number;
let neighbour: Caller;

beforeAll(async () => {
  test = await openTestNode({}, { readsMax: 8, writeIdleMs: WRITE_IDLE_MS });
  neighbour = await customerOf(test, 'neighbour');
  await test.app.listen({ host: '127.0.0.1', port: 0 });
  ({ port } = test.app.server.address() as AddressInfo);
});
afterAll(() => test.close());

const IMAGE = { 'content-type': 'image/png' };

/** A connection that has sent that much of a request; what comes back stays unread until `answerOf`. */
function send(...parts: readonly (string | Buffer)[]): Socket {
  const socket = connect(port, '127.0.0.1').pause();
  for (const part of parts) socket.write(part);
  return socket;
}

const head = (key: string, length: number, query = 'width=2'): string =>
  `POST /v1/resize?${query} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\ncontent-type: image/png\r\ncontent-length: ${length}\r\n\r\n`;

/** What comes until the node closes the connection. */
async function answerOf(socket: Socket): Promise<string> {
  let received = '';
  for await (const chunk of socket) received += (chunk as Buffer).toString('latin1');
  return received;
}

const metricOf = (metrics: string, name: string): number =>
  Number(new RegExp(`^waggle_${name} (\\d+)$`, 'm').exec(metrics)![1]);

const bodyBytes = async (): Promise<number> => metricOf((await test.as('')('GET', '/metrics')).body, 'body_bytes');

describe('uploads', () => {
  it('that only announce bodies take no memory from others', async () => {
    const keys = [await keyOf(test, 'idle-1'), await keyOf(test, 'idle-2')];
    const sockets = keys.flatMap((key) =>
      Array.from({ length: 8 }, () => send(head(key, 32 * 2 ** 20), Buffer.alloc(9))),
    );
    await until(async () => (await bodyBytes()) === 16 * 9);
    expect((await neighbour('POST', '/v1/resize?width=2', PNG, IMAGE)).statusCode).toBe(200);
    for (const socket of sockets) socket.destroy();
    await until(async () => (await bodyBytes()) === 0);
  });

  it('have a place from their head on: one too many is refused before its body, and leaves no record', async () => {
    const key = await keyOf(test, 'single', { concurrentRequestsMax: 1 });
    const single = test.as(key);
    const first = send(head(key, 1_000), Buffer.alloc(1));
    await until(async () => (await bodyBytes()) === 1);
    const refused = await answerOf(send(head(key, 20_000_000)));
    expect(refused).toMatch(/^HTTP\/1\.1 429 /);
    expect(refused).toMatch(/\r\nretry-after: 1\r\n/);
    expect(refused).toContain('"code":"LIMIT_EXCEEDED"');
    first.destroy();
    await until(async () => (await single('POST', '/v1/resize?width=2', PNG, IMAGE)).statusCode === 200);
    expect((await single('GET', '/v1/records')).body).not.toContain('LIMIT_EXCEEDED');
  });

  it('that are too slow are ended, with a record', async () => {
    const { clock } = test.node;
    const watches: (() => void)[] = [];
    const after = vi.spyOn(clock, 'after').mockImplementation((ms, fn) => {
      if (ms === 10_000) watches.push(fn);
      return () => {};
    });
    const key = await keyOf(test, 'slow');
    const socket = send(head(key, 1_000), Buffer.alloc(10));
    await until(() => watches.length > 0);
    after.mockRestore();
    const startMs = clock.monotonicMs();
    const later = vi.spyOn(clock, 'monotonicMs').mockImplementation(() => startMs + 60_000);
    watches[0]!();
    later.mockRestore();
    const answer = await answerOf(socket);
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(answer).toMatch(/\r\nconnection: close\r\n/i);
    const records = (await test.as(key)('GET', '/v1/records')).body;
    expect(JSON.parse(records)).toMatchObject({ code: 'REQUEST_TIMEOUT', status: 408, usage: { requestsFailed: 1 } });
  });
});

describe('answers that nobody takes', () => {
  it('hold place and memory until their connection is cut', async () => {
    const key = await keyOf(test, 'deaf', { concurrentRequestsMax: 1 });
    const deaf = test.as(key);
    const picture = noise(1_700);
    const socket = send(head(key, picture.length, 'flop=true'), picture);
    await until(async () => (await deaf('GET', '/v1/usage')).body.includes('"requests":1,'));
    expect(await bodyBytes()).toBeGreaterThan(8_000_000);
    expect((await deaf('POST', '/v1/resize?width=2', PNG, IMAGE)).json()).toMatchObject({ code: 'LIMIT_EXCEEDED' });
    await until(async () => (await bodyBytes()) === 0);
    expect((await deaf('POST', '/v1/resize?width=2', PNG, IMAGE)).statusCode).toBe(200);
    // The connection was cut: not all of the picture is there.
    expect((await answerOf(socket).catch(() => '')).length).toBeLessThan(picture.length);
  });

  it('have nothing written into them when their client goes on with what is no HTTP', async () => {
    const key = await keyOf(test, 'babbler');
    const picture = noise(1_700);
    const socket = send(head(key, picture.length, 'flop=true'), picture);
    await once(socket, 'readable');
    const said = once(test.app.server, 'clientError');
    socket.write('nonsense\r\n\r\n');
    await said;
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    await new Promise((closed) => socket.on('error', () => {}).on('close', closed));
    expect(answer).toMatch(/^HTTP\/1\.1 200 /);
    expect(answer).not.toContain('REQUEST_INVALID');
  });

  it('are bounded for one customer, and others still get theirs', async () => {
    // Half of it is one customer's: one of these answers, and not two.
    const small = await openTestNode({}, { answersBytesMax: 18 * 2 ** 20 });
    await small.app.listen({ host: '127.0.0.1', port: 0 });
    const key = await keyOf(small, 'hoarder');
    const hoarder = small.as(key);
    const other = await customerOf(small, 'other');
    const picture = noise(1_700);
    const metric = async (name: string): Promise<number> => metricOf((await hoarder('GET', '/metrics')).body, name);

    // Both are taken in before one of them is done.
    const { pool } = small.node;
    const run = pool.run.bind(pool);
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => (go = resolve));
    const runs = vi.spyOn(pool, 'run').mockImplementation(async (job) => {
      const outcome = await run(job);
      await gate;
      return outcome;
    });
    const { port: at } = small.app.server.address() as AddressInfo;
    const socket = connect(at, '127.0.0.1').pause();
    socket.write(head(key, picture.length, 'flop=true'));
    socket.write(picture);
    await until(() => runs.mock.calls.length === 1);
    const second = hoarder('POST', '/v1/resize?flop=true', picture, IMAGE);
    await until(() => runs.mock.calls.length === 2);
    go();
    const tooMuch = await second;
    expect(tooMuch.json()).toMatchObject({ status: 503, code: 'QUEUE_FULL' });
    expect(tooMuch.headers['waggle-usage']).toContain('requests=1, ');

    const refused = await hoarder('POST', '/v1/resize?width=2', PNG, IMAGE);
    expect(refused.json()).toMatchObject({ status: 503, code: 'QUEUE_FULL' });
    expect(refused.headers['waggle-usage']).toContain('requests-failed=1, bytes-in=0,');
    expect((await other('POST', '/v1/resize?width=2', PNG, IMAGE)).statusCode).toBe(200);
    socket.destroy();
    await until(async () => (await metric('body_bytes')) === 0);
    expect((await hoarder('POST', '/v1/resize?width=2', PNG, IMAGE)).statusCode).toBe(200);
    await small.close();
  });
});

describe('connections', () => {
  it('are bounded, and one too many is dropped and counted', async () => {
    const small = await openTestNode({}, { connectionsMax: 2 });
    await small.app.listen({ host: '127.0.0.1', port: 0 });
    const { port: at } = small.app.server.address() as AddressInfo;
    const metrics = async (): Promise<string> => (await small.as('')('GET', '/metrics')).body;
    const idle = [connect(at, '127.0.0.1'), connect(at, '127.0.0.1')];
    await Promise.all(idle.map((socket) => once(socket, 'connect')));
    await until(() => new Promise((done) => small.app.server.getConnections((_, count) => done(count === 2))));
    expect(metricOf(await metrics(), 'connections_dropped_total')).toBe(0);
    expect(await answerOf(connect(at, '127.0.0.1'))).toBe('');
    expect(metricOf(await metrics(), 'connections_dropped_total')).toBe(1);
    for (const socket of idle) socket.destroy();
    await small.close();
  });
});

describe('requests that read the store', () => {
  it('are few at a time, refused at once beyond that, and in nobody’s way', async () => {
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => (go = resolve));
    const { store, driver } = test.node;
    let reading = 0;
    const stalled = vi.spyOn(store, 'sealedRange').mockImplementation(async () => {
      reading++;
      await gate;
      return [];
    });
    const sealing = vi.spyOn(driver, 'sealingEpoch', 'get').mockReturnValue(1);
    const anyone = test.as('');
    const { token } = (await test.operator('POST', '/v1/tokens', { role: 'auditor', name: 'a' })).json<{
      token: string;
    }>();
    // Their clients are gone, their reads are not.
    const gone = Array.from({ length: 4 }, () => send('GET /v1/epochs HTTP/1.1\r\nhost: x\r\n\r\n'));
    await until(() => reading === 4);
    for (const socket of gone) socket.destroy();
    await until(async () => (await connections()) === 0);

    const refused = await Promise.all(Array.from({ length: 50 }, () => anyone('GET', '/v1/epochs?limit=1000')));
    for (const { headers, json } of refused.map((response) => ({
      headers: response.headers,
      json: response.json<object>(),
    }))) {
      expect(json).toMatchObject({ status: 503, code: 'QUEUE_FULL' });
      expect(headers['retry-after']).toBe('1');
    }
    expect(reading).toBe(4);
    const audited = test.as(token)('GET', '/v1/epochs');
    await until(() => reading === 5);
    expect((await neighbour('POST', '/v1/resize?width=2', PNG, IMAGE)).statusCode).toBe(200);
    expect((await anyone('GET', '/v1/genesis')).statusCode).toBe(200);

    go();
    expect((await audited).statusCode).toBe(200);
    await until(async () => (await anyone('GET', '/v1/epochs')).statusCode === 200);
    stalled.mockRestore();
    sealing.mockRestore();
  });

  it('give their place back, whatever became of them', async () => {
    await neighbour('POST', '/v1/resize?width=2', PNG, IMAGE);
    for (const [path, status] of [
      ['/v1/records', 200],
      ['/v1/usage', 200],
      ['/v1/usage?group=hour', 400],
      ['/v1/statements/99', 404],
      ['/v1/epochs', 200],
      ['/tile/0/000', 404],
    ] as const)
      for (let i = 0; i < 10; i++) expect([path, (await neighbour('GET', path)).statusCode]).toEqual([path, status]);
    expect((await neighbour('HEAD', '/v1/records')).statusCode).toBe(200);
  });

  it('hold it until their stream has ended', async () => {
    const { store } = test.node;
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => (go = resolve));
    let streams = 0;
    const stalled = vi.spyOn(store, 'streamRecords').mockImplementation(async function* () {
      streams++;
      await gate;
      yield* [];
    });
    const key = await keyOf(test, 'streamer');
    const streamer = test.as(key);
    const request = `GET /v1/records HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\n\r\n`;
    const gone = Array.from({ length: 4 }, () => send(request));
    await until(() => streams === 4);
    for (const socket of gone) socket.destroy();
    await until(async () => (await connections()) === 0);
    expect((await streamer('GET', '/v1/records')).json()).toMatchObject({ status: 503, code: 'QUEUE_FULL' });
    go();
    await until(async () => (await streamer('GET', '/v1/records')).statusCode === 200);
    stalled.mockRestore();
  });
});

const connections = (): Promise<number> =>
  new Promise((resolve, reject) =>
    test.app.server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))),
  );
