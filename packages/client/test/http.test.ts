import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { STREAM_KEPT_BYTES_MAX } from '../src/body.ts';
import {
  createClient,
  type Client,
  type ClientOptions,
  type PictureBody,
  type WaggleClientError,
} from '../src/index.ts';
import { bodyOf, KEY, listOf, NODE_HEADERS, serve } from './support.ts';

/* Real sockets: servers that are no nodes, because nodes do not misbehave on demand. */

type Handler = Parameters<typeof serve>[0];
const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function serving(handler: Handler): Promise<Awaited<ReturnType<typeof serve>>> {
  const server = await serve(handler);
  closers.push(server.close);
  return server;
}

const clientOf = (nodes: string | string[], options: Partial<ClientOptions> = {}): Client =>
  createClient({ nodes, key: KEY, learn: false, retries: { baseMs: 1, capMs: 5 }, ...options });

async function clientAt(handler: Handler, options: Partial<ClientOptions> = {}) {
  const server = await serving(handler);
  return { client: clientOf(server.url, options), server };
}

/** A port on which nothing listens. */
async function nowhere(): Promise<string> {
  const { url, close } = await serve(() => {});
  await close();
  return url;
}

/** Echoes the picture, whole. */
const echo: Handler = async (request, response) => {
  const body = await bodyOf(request);
  response.writeHead(200, { ...NODE_HEADERS, 'content-type': 'image/png', 'content-length': body.length }).end(body);
};
/** The end of a connection, in whichever way. */
const closing = ({ socket }: IncomingMessage): Promise<unknown> =>
  new Promise((resolve) => socket.once('close', resolve));
const picture = Uint8Array.from({ length: 300_000 }, (_, i) => i % 251);

describe('a node that', () => {
  it('resets the connection, before or after it has read the picture, is asked again', async () => {
    const keys: unknown[] = [];
    const { client } = await clientAt(async (request, response, number) => {
      keys.push(request.headers['idempotency-key']);
      if (number === 1) return request.socket.destroy();
      if (number > 2) return echo(request, response, number);
      await bodyOf(request);
      return request.socket.resetAndDestroy();
    });
    const { bytes } = await client.resize(picture);
    expect(Buffer.from(bytes).equals(picture)).toBe(true);
    expect([keys.length, new Set(keys).size]).toEqual([3, 1]);
  });

  it('breaks off in the middle of the picture is asked again', async () => {
    const { client, server } = await clientAt(async (request, response, number) => {
      if (number > 1) return echo(request, response, number);
      const body = await bodyOf(request);
      response.writeHead(200, { ...NODE_HEADERS, 'content-length': body.length });
      response.write(body.subarray(0, 1_000), () => response.destroy());
    });
    const { bytes } = await client.resize(picture);
    expect([bytes.length, server.asked()]).toEqual([picture.length, 2]);
  });

  it('does not answer in time is given up, and another one asked', async () => {
    const closed: Promise<unknown>[] = [];
    const silent = await serving((request) => closed.push(closing(request.resume())));
    const other = await serving(echo);
    const client = clientOf([silent.url, other.url], { attemptMs: 2_000, random: () => 0 });
    const { answer } = await client.resize(picture);
    expect([answer.node, silent.asked(), other.asked()]).toEqual([other.url, 1, 1]);
    // It is told so: the connection is gone.
    await Promise.all(closed);
  });

  it('is not there at all costs nothing but a moment', async () => {
    const other = await serving(echo);
    const client = clientOf([await nowhere(), other.url], { random: () => 0 });
    expect((await client.resize(picture)).answer.node).toBe(other.url);
    const alone = clientOf(await nowhere(), { retries: { attemptsMax: 2, baseMs: 1 } });
    await expect(alone.usage()).rejects.toMatchObject({ code: 'CONNECTION_FAILED', status: null, attempts: 2 });
  });

  it('answers 503 with retry-after: 0 is asked again', async () => {
    const { client, server } = await clientAt((request, response, number) => {
      if (number === 3) return echo(request, response, number);
      request.resume().on('end', () => {
        response.writeHead(503, { ...NODE_HEADERS, 'retry-after': '0' }).end('{"code":"QUEUE_FULL","detail":"full"}');
      });
    });
    await client.resize(picture);
    expect(server.asked()).toBe(3);
  });

  it('redirects does not get the key sent elsewhere', async () => {
    const thief = await serving((_, response) => response.end('{}'));
    const { client } = await clientAt((_, response) => response.writeHead(307, { location: thief.url }).end());
    await expect(client.usage()).rejects.toMatchObject({ code: 'ANSWER_INVALID', status: 307 });
    expect(thief.asked()).toBe(0);
  });
});

describe('a streamed result', () => {
  const slowly: Handler = (request, response) => {
    request.resume().on('end', () => {
      response.writeHead(200, { ...NODE_HEADERS, 'content-type': 'image/png' });
      response.write('first');
    });
  };

  it('comes as it is made', async () => {
    const { client } = await clientAt(echo);
    const { body, length, type } = await client.resizeStream(picture);
    const bytes = new Uint8Array(await new Response(body).arrayBuffer());
    expect([length, type, Buffer.from(bytes).equals(picture)]).toEqual([picture.length, 'image/png', true]);
  });

  it('ends the connection when it is cancelled, whether or not something is being read', async () => {
    for (const isReading of [false, true]) {
      const closed: Promise<unknown>[] = [];
      const { client } = await clientAt((request, response, number) => {
        closed.push(closing(request));
        return slowly(request, response, number);
      });
      const { body } = await client.resizeStream(picture);
      const reader = body.getReader();
      expect(Buffer.from((await reader.read()).value!).toString()).toBe('first');
      const pending = isReading ? reader.read() : undefined;
      // So that the read has reached the connection.
      await new Promise((resolve) => setImmediate(resolve));
      await reader.cancel();
      expect((await pending)?.done ?? true).toBe(true);
      await Promise.all(closed);
    }
  });

  it('fails with the reason of the signal', async () => {
    const { client } = await clientAt(slowly);
    const controller = new AbortController();
    const { body } = await client.resizeStream(picture, {}, { signal: controller.signal });
    const reader = body.getReader();
    await reader.read();
    const reason = new Error('no longer wanted');
    controller.abort(reason);
    await expect(reader.read()).rejects.toBe(reason);
  });

  it('that stalls fails when a chunk takes longer than the deadline', async () => {
    const { client } = await clientAt(slowly);
    const { body } = await client.resizeStream(picture, {}, { deadlineMs: 2_000 });
    const reader = body.getReader();
    await reader.read();
    await expect(reader.read()).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  it('that breaks off says so', async () => {
    const { client, server } = await clientAt((request, response) => {
      request.resume().on('end', () => {
        response.writeHead(200, NODE_HEADERS).write('first', () => setImmediate(() => response.destroy()));
      });
    });
    const { body } = await client.resizeStream(picture);
    await expect(new Response(body).arrayBuffer()).rejects.toMatchObject({ code: 'CONNECTION_LOST' });
    expect(server.asked()).toBe(1);
  });
});

describe('records', () => {
  const lines = Array.from({ length: 1_000 }, (_, i) => ({ requestId: String(i), params: { note: 'ä€😀' } }));
  const text = Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  const sending =
    (bytes: Buffer): Handler =>
    (_, response) =>
      void Readable.from(
        Array.from({ length: bytes.length / 7 + 1 }, (_at, i) => bytes.subarray(7 * i, 7 * i + 7)),
      ).pipe(response.writeHead(200, NODE_HEADERS));

  it('come one by one, wherever the chunks are cut', async () => {
    const { client } = await clientAt(sending(text));
    expect(await listOf(client.records())).toEqual(lines);
  });

  it('end the connection when no more are taken', async () => {
    const closed: Promise<unknown>[] = [];
    const { client } = await clientAt((request, response) => {
      closed.push(closing(request));
      response.writeHead(200, NODE_HEADERS).write(text);
    });
    for await (const { requestId } of client.records()) if (requestId === '5') break;
    await Promise.all(closed);
  });

  it.each([
    ['breaks off', text.subarray(0, 2_000), 'ANSWER_INVALID'],
    ['is not JSON', Buffer.from('{"a":1}\nnonsense\n'), 'ANSWER_INVALID'],
  ])('of which a line %s are an error, after those that are whole', async (_name, bytes, code) => {
    const { client } = await clientAt((_request, response) => response.writeHead(200, NODE_HEADERS).end(bytes));
    await expect(listOf(client.records())).rejects.toMatchObject({ code });
  });

  it('of which a line never ends are cut off', async () => {
    const closed: Promise<unknown>[] = [];
    const { client } = await clientAt((request, response) => {
      closed.push(closing(request));
      const endless = new Readable({ read: () => void endless.push(Buffer.alloc(65_536, 'x')) });
      endless.pipe(response.writeHead(200, NODE_HEADERS)).once('close', () => endless.destroy());
    });
    await expect(listOf(client.records())).rejects.toMatchObject({ code: 'ANSWER_INVALID' });
    await Promise.all(closed);
  });

  it('are retried until the first', async () => {
    const { client } = await clientAt((request, response, number) =>
      number === 1 ? request.socket.destroy() : sending(text)(request, response, number),
    );
    expect(await listOf(client.records())).toHaveLength(1_000);
  });
});

describe('a picture that is sent', () => {
  const copy = (): Uint8Array<ArrayBuffer> => new Uint8Array(picture);
  const stream = (): ReadableStream<Uint8Array> => new Blob([copy()]).stream();
  const bodies: Readonly<Record<string, () => PictureBody>> = {
    bytes: copy,
    'a part of larger bytes': () => new Uint8Array([9, ...picture, 9]).subarray(1, -1),
    'a Buffer': () => Buffer.from(picture),
    'an ArrayBuffer': () => copy().buffer,
    'a Blob': () => new Blob([copy()]),
    'a web stream': stream,
    'a Node stream': () => Readable.from([copy().subarray(0, 1_000), copy().subarray(1_000)]),
    'a generator': async function* () {
      for (let at = 0; at < picture.length; at += 9_999) yield copy().subarray(at, at + 9_999);
    },
  };

  it.each(Object.keys(bodies))('as %s arrives whole, also at the second attempt', async (kind) => {
    const received: Buffer[] = [];
    const { client } = await clientAt(async (request, response, number) => {
      received.push(await bodyOf(request));
      if (number === 1) return request.socket.destroy();
      response.writeHead(200, NODE_HEADERS).end(received.at(-1));
    });
    const { bytes } = await client.resize(bodies[kind]!());
    expect(received.map((body) => body.equals(picture))).toEqual([true, true]);
    expect(Buffer.from(bytes).equals(picture)).toBe(true);
  });

  it('has the type of the Blob if that is an image, else none of its own', async () => {
    const types: unknown[] = [];
    const { client } = await clientAt((request, response, number) => {
      types.push(request.headers['content-type']);
      return echo(request, response, number);
    });
    await client.resize(new Blob([copy()], { type: 'image/webp' }));
    await client.resize(new Blob([copy()], { type: 'text/plain' }));
    await client.resize(copy(), {}, { contentType: 'image/avif' });
    expect(types).toEqual(['image/webp', 'application/octet-stream', 'image/avif']);
  });

  /** Megabytes as they are asked for; `taken` counts them. */
  function megabytes(count: number): {
    readonly stream: ReadableStream<Uint8Array>;
    readonly state: { taken: number; cancelled: boolean };
  } {
    const state = { taken: 0, cancelled: false };
    const source = new ReadableStream<Uint8Array>(
      {
        pull: (controller) => {
          if (state.taken++ === count) controller.close();
          else controller.enqueue(new Uint8Array(2 ** 20).fill(state.taken));
        },
        cancel: () => void (state.cancelled = true),
      },
      { highWaterMark: 0 },
    );
    return { stream: source, state };
  }

  it('as a stream beyond what is kept of it is sent once', async () => {
    const count = STREAM_KEPT_BYTES_MAX / 2 ** 20 + 1;
    const { client, server } = await clientAt(async (request) => {
      await bodyOf(request);
      request.socket.destroy();
    });
    const error = (await client
      .resize(megabytes(count).stream)
      .catch((thrown: unknown) => thrown)) as WaggleClientError;
    expect([error.code, error.attempts, server.asked()]).toEqual(['CONNECTION_LOST', 1, 1]);
    const whole = await clientAt(echo);
    expect((await whole.client.resize(megabytes(count).stream)).bytes.length).toBe(count * 2 ** 20);
  });

  it('as a stream is not read for a node that is not there', async () => {
    const { stream: long, state } = megabytes(1_000);
    const other = await serving((_, response) =>
      response.writeHead(400, { ...NODE_HEADERS, connection: 'close' }).end('{"code":"REQUEST_INVALID","detail":"no"}'),
    );
    const client = clientOf([await nowhere(), other.url], { random: () => 0 });
    await expect(client.resize(long)).rejects.toBeInstanceOf(Error);
    expect(other.asked()).toBeGreaterThan(0);
    expect(state.taken).toBeLessThan(1_000);
    expect(state.cancelled).toBe(true);
  });

  it('as a stream that fails fails the call with its own error', async () => {
    const { client, server } = await clientAt(echo);
    const broken = new Error('disk gone');
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield copy();
      throw broken;
    };
    await expect(client.resize(failing())).rejects.toBe(broken);
    await expect(client.resize(Readable.from(['text']) as never)).rejects.toMatchObject({ code: 'ARGUMENT_INVALID' });
    expect(server.asked()).toBeLessThanOrEqual(2);
  });
});
