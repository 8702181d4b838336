import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DIMENSIONS, type Usage } from '@waggle/protocol/lattice';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const WAGGLE = join(root, 'apps', 'node', 'bin', 'waggle.js');

/** A node as its operator runs it: a process of its own, real HTTP, real disk. */
export interface RunningNode {
  readonly url: string;
  readonly process: ChildProcess;
  /** Everything that it wrote so far. */
  readonly output: () => string;
  /** Ends with a signal; the exit code, or the signal that ended it. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<number | string>;
}

/** An empty place for a data directory, gone with `remove`. */
export function scratch(): { readonly path: string; readonly remove: () => void } {
  const parent = mkdtempSync(join(tmpdir(), 'waggle-e2e-'));
  return { path: join(parent, 'data'), remove: () => rmSync(parent, { recursive: true, force: true }) };
}

/** Starts a node and waits until it says where it listens. Rejects with its output if it ends before. */
export async function startNode(data: string, flags: readonly string[] = []): Promise<RunningNode> {
  const args = [WAGGLE, 'start', '--http', '127.0.0.1:0', '--data', data, '--drain-ms', '0', ...flags];
  const child = spawn(process.execPath, args, {
    cwd: dirname(data),
    stdio: ['ignore', 'pipe', 'pipe'],
    env: cleanEnvironment(),
  });
  let output = '';
  const ended = once(child, 'exit');
  const url = await new Promise<string>((resolve, reject) => {
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
      const found = /http:\/\/127\.0\.0\.1:[1-9][0-9]*/.exec(output);
      if (found !== null) resolve(found[0]);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    void ended.then(([code]) => reject(new Error(`The node ended with ${code}:\n${output}`)));
  });
  return {
    url,
    process: child,
    output: () => output,
    stop: async (signal = 'SIGTERM') => {
      child.kill(signal);
      const [code, by] = (await ended) as [number | null, string | null];
      return code ?? by ?? 'unknown';
    },
  };
}

/** No settings of whoever runs the tests. */
const cleanEnvironment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WAGGLE_')));

/** The operator's calls of the HTTP API. */
export class Operator {
  readonly url: string;
  readonly #token: string;
  constructor(url: string, data: string) {
    this.url = url;
    this.#token = readFileSync(join(data, 'operator.token'), 'utf8').trim();
  }

  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.url + path, { ...init, headers: { authorization: `Bearer ${this.#token}`, ...init.headers } });
  }

  async json<T>(path: string, method = 'GET', body?: unknown): Promise<T> {
    const init =
      body === undefined
        ? { method }
        : { method, body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
    const response = await this.fetch(path, init);
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }

  /** A customer with a key. */
  async customer(
    id: string,
    limits: Record<string, number> = {},
  ): Promise<{ readonly id: string; readonly key: string }> {
    await this.json(`/v1/customers/${id}`, 'PUT', { name: id, limits });
    const { key } = await this.json<{ key: string }>(`/v1/customers/${id}/keys`, 'POST', {});
    return { id, key };
  }
}

/** A customer's call. */
export const customerFetch = (url: string, key: string, path: string, init: RequestInit = {}): Promise<Response> =>
  fetch(url + path, { ...init, headers: { authorization: `Bearer ${key}`, ...init.headers } });

/** Sends a picture to be resized. */
export const resize = (
  url: string,
  key: string,
  query: string,
  body: Uint8Array,
  headers: Record<string, string> = {},
): Promise<Response> =>
  customerFetch(url, key, `/v1/resize?${query}`, {
    method: 'POST',
    body: new Uint8Array(body),
    headers: { 'content-type': 'application/octet-stream', ...headers },
  });

/** The usage in a `waggle-usage` header (RFC 9651 dictionary of integers). */
export function usageOf(response: Response): Usage {
  const header = response.headers.get('waggle-usage') ?? '';
  const counts = new Map(header.split(', ').map((member) => member.split('=') as [string, string]));
  const kebab = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  return Object.fromEntries(DIMENSIONS.map((name) => [name, Number(counts.get(kebab(name)) ?? 0)])) as unknown as Usage;
}

/** Waits until a condition of the node's state holds, asking again as soon as it has answered. */
export async function until<T>(what: string, ask: () => Promise<T | undefined>, timeoutMs = 60_000): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Waits until an epoch is sealed. */
export const sealed = (operator: Operator, epoch: number): Promise<void> =>
  until(`epoch ${epoch} sealed`, async () => {
    const { sealedUpTo } = await operator.json<{ sealedUpTo: number | null }>('/v1/epochs?limit=1');
    return sealedUpTo !== null && sealedUpTo >= epoch ? true : undefined;
  }).then(() => undefined);
