import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { deflateSync } from 'node:zlib';
import type { InjectOptions, LightMyRequestResponse } from 'fastify';
import { pino } from 'pino';
import { EPOCH_MS_MAX } from '@waggle/protocol/sealing';
import type { Config } from '../../src/config.ts';
import type { Bounds } from '../../src/http/bounds.ts';
import { buildServer, type App } from '../../src/http/index.ts';
import { Metrics } from '../../src/metrics.ts';
import { Node, type Observer } from '../../src/node.ts';

export const OPERATOR_TOKEN = 'operator-token-of-the-tests';

/** A node in a directory of its own, with its server, not listening. */
export interface TestNode {
  readonly node: Node;
  readonly app: App;
  /** Every line that was logged, parsed. */
  readonly logged: readonly Record<string, unknown>[];
  /** As the operator. */
  readonly operator: Caller;
  readonly as: (credential: string) => Caller;
  close(): Promise<void>;
}

/** Sends requests with one credential. */
export type Caller = (
  method: InjectOptions['method'],
  url: string,
  payload?: unknown,
  headers?: Record<string, string>,
) => Promise<LightMyRequestResponse>;

export async function openTestNode(
  overrides: Partial<Config> = {},
  bounds: Partial<Bounds> = {},
  observer: Partial<Observer> = {},
): Promise<TestNode> {
  const data = mkdtempSync(join(tmpdir(), 'waggle-http-'));
  const config: Config = {
    http: { host: '127.0.0.1', port: 0 },
    publicUrl: null,
    swarm: { host: '127.0.0.1', port: 0 },
    swarmAdvertise: null,
    join: null,
    zone: null,
    data,
    dataMoved: false,
    origin: 'waggle.test',
    // No epoch ends meanwhile, as one of an hour does on the hour.
    epochMs: EPOCH_MS_MAX,
    sealGraceMs: 1_000,
    workers: 1,
    operatorToken: OPERATOR_TOKEN,
    logLevel: 'info',
    queueMax: 64,
    workerMemoryBytes: 2 ** 30,
    recordRetentionMs: 86_400_000,
    drainMs: 0,
    publicLog: true,
    slotRetentionMs: 86_400_000,
    databaseBytesMax: null,
    ...overrides,
  };
  const logged: Record<string, unknown>[] = [];
  const lines = new Writable({
    write(chunk: Buffer, _encoding, done) {
      logged.push(JSON.parse(chunk.toString()) as Record<string, unknown>);
      done();
    },
  });
  const metrics = new Metrics();
  const node = await Node.open(config, {
    commit: (ms, entries) => metrics.commit(ms, entries),
    sealed: (epoch) => metrics.sealed(epoch),
    worker: (event) => metrics.worker(event),
    member: () => undefined,
    misbehaviour: (from, code) => metrics.misbehaviour(from, code),
    alarm: (alarm) => metrics.alarm(alarm),
    joined: (replica) => metrics.joined(replica),
    joinRefused: (from, error) => metrics.joinRefused(from, error),
    keepingFailed: (error) => {
      throw error;
    },
    fatal: (error) => {
      throw error;
    },
    ...observer,
  });
  const app = buildServer(node, { logger: pino({ level: 'debug' }, lines), metrics, bounds });
  await app.ready();
  const as =
    (credential: string): Caller =>
    (method, url, payload, headers = {}) =>
      app.inject({
        ...(method === undefined ? {} : { method }),
        url,
        ...(payload === undefined ? {} : { payload: payload as Buffer }),
        headers: { ...(credential === '' ? {} : { authorization: `Bearer ${credential}` }), ...headers },
      });
  return {
    node,
    app,
    logged,
    operator: as(OPERATOR_TOKEN),
    as,
    async close() {
      await app.close();
      await node.close();
      rmSync(data, { recursive: true, force: true });
    },
  };
}

/** An API key of a customer, who is made if new; by default one that may do everything. */
export async function keyOf(
  { operator }: TestNode,
  id: string,
  limits: Record<string, number> = {},
  scopes?: readonly string[],
): Promise<string> {
  await operator('PUT', `/v1/customers/${id}`, { name: id, limits });
  const issued = await operator('POST', `/v1/customers/${id}/keys`, { scopes });
  return issued.json<{ key: string }>().key;
}

/** A new customer with a key that may do everything. */
export const customerOf = async (test: TestNode, id: string, limits: Record<string, number> = {}): Promise<Caller> =>
  test.as(await keyOf(test, id, limits));

/** 4 × 3 pixels in red: the smallest PNG that still can be made smaller. */
export const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAQAAAADCAIAAAA7ljmRAAAACXBIWXMAAAPoAAAD6AG1e1JrAAAAEUlEQVQImWP4z8AARwgWOgcA9TEL9UV+YsgAAAAASUVORK5CYII=',
  'base64',
);

/** A PNG of square noise, which no encoder makes smaller. */
export function noise(side: number): Buffer {
  const chunk = (type: string, content: Buffer): Buffer => {
    const body = Buffer.concat([Buffer.from(type), content]);
    const words = Buffer.alloc(8);
    words.writeUInt32BE(content.length);
    words.writeUInt32BE(crcOf(body), 4);
    return Buffer.concat([words.subarray(0, 4), body, words.subarray(4)]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(side);
  head.writeUInt32BE(side, 4);
  head.set([8, 2], 8);
  const rows = randomBytes(side * (1 + 3 * side));
  for (let y = 0; y < side; y++) rows[y * (1 + 3 * side)] = 0;
  const signature = PNG.subarray(0, 8);
  const pixels = deflateSync(rows, { level: 0 });
  return Buffer.concat([signature, chunk('IHDR', head), chunk('IDAT', pixels), chunk('IEND', Buffer.alloc(0))]);
}

/** CRC-32 as PNG has it. */
function crcOf(bytes: Buffer): number {
  let value = ~0;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
  }
  return ~value >>> 0;
}

/** Waits until a condition holds, looking again whenever there is something else to do. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}
