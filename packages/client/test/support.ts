import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createClient, type Client, type ClientOptions, type Clock, type Fetch } from '../src/index.ts';

/** What no test sends anywhere but to itself. */
export const KEY = `wgl_${'k'.repeat(12)}_${'s'.repeat(49)}`;

/** Time that passes only when nothing else is left to do. */
export class VirtualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Map<object, { readonly atMs: number; readonly run: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  after(ms: number, run: () => void): () => void {
    const timer = {};
    this.#timers.set(timer, { atMs: this.#nowMs + ms, run });
    return () => this.#timers.delete(timer);
  }

  get pending(): number {
    return this.#timers.size;
  }

  /** Lets a stretch of time go by without its timers. */
  pass(ms: number): void {
    this.#nowMs += ms;
  }

  /** Lets time pass until the promise is settled. */
  async settle<T>(promise: Promise<T>): Promise<PromiseSettledResult<T>> {
    const settled = Promise.allSettled([promise]).then(([result]) => result);
    for (;;) {
      const result = await Promise.race([
        settled,
        new Promise<undefined>((resolve) => setImmediate(() => resolve(undefined))),
      ]);
      if (result !== undefined) return result;
      const [timer, next] = [...this.#timers].reduce((a, b) => (b[1].atMs < a[1].atMs ? b : a));
      this.#timers.delete(timer);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.run();
    }
  }

  async value<T>(promise: Promise<T>): Promise<T> {
    await this.settle(promise);
    return promise;
  }

  async error(promise: Promise<unknown>): Promise<never> {
    const result = await this.settle(promise);
    if (result.status === 'rejected') return result.reason as never;
    throw new Error('Expected a rejection');
  }
}

/** A request as a scripted node sees it. */
export interface Asked {
  readonly url: string;
  readonly atMs: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** What a scripted node does: answer, fail as fetch does, or never answer. */
export type Answer = Response | Error | 'hang';

/** A client whose nodes are a script, and what it asked them. Chance is one half, so that waits are half of their bound. */
export function scripted(
  script: (asked: Asked, number: number) => Answer,
  options: Partial<ClientOptions> = {},
): { readonly client: Client; readonly clock: VirtualClock; readonly asked: Asked[] } {
  const clock = new VirtualClock();
  const asked: Asked[] = [];
  const fetch: Fetch = async (url, init) => {
    const signal = init.signal!;
    const one = { url, atMs: clock.nowMs(), headers: init.headers as Record<string, string>, signal };
    asked.push(one);
    const answer = script(one, asked.length);
    if (answer instanceof Error) throw answer;
    if (answer !== 'hang') return answer;
    return new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error));
    });
  };
  const base = { nodes: 'http://a.example', key: KEY, learn: false, random: () => 0.5 };
  return { client: createClient({ ...base, ...options, fetch, clock }), clock, asked };
}

/** What every answer of a node carries. */
export const NODE_HEADERS = { 'waggle-request-id': 'f'.repeat(32), 'waggle-node': 'e'.repeat(32) };

export const json = (value: unknown, headers: Record<string, string> = {}): Response =>
  Response.json(value, { headers: { ...NODE_HEADERS, ...headers } });

export const problem = (status: number, code: string, headers: Record<string, string> = {}): Response =>
  Response.json(
    { type: `/docs#${code}`, title: 'Title.', status, code, detail: `Detail of ${code}`, instance: 'urn:x' },
    { status, headers: { ...NODE_HEADERS, 'content-type': 'application/problem+json', ...headers } },
  );

/** As Node's fetch fails. */
export const failure = (code: string): Error =>
  new TypeError('fetch failed', { cause: Object.assign(new Error(code), { code }) });

/** A server of HTTP that is no node, on loopback. */
export async function serve(
  handle: (request: IncomingMessage, response: ServerResponse, number: number) => unknown,
): Promise<{ readonly url: string; readonly asked: () => number; readonly close: () => Promise<void> }> {
  let count = 0;
  // A handler fails when its client goes away, as many tests want it to.
  const attend = async (request: IncomingMessage, response: ServerResponse): Promise<unknown> =>
    handle(request, response, ++count);
  const server = createServer((request, response) => void attend(request, response).catch(() => response.destroy()));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: () => count,
    close: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

/** The whole body of a request. */
export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Everything that comes. */
export async function listOf<T>(things: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const thing of things) list.push(thing);
  return list;
}
