import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
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

/** Nodes that run: none outlives the tests, whatever becomes of them. */
const children = new Set<ChildProcess>();
process.once('exit', () => children.forEach((child) => child.kill('SIGKILL')));

/** Where a node listens unless a test says otherwise: anywhere that is free. */
const ANYWHERE = ['--http', '127.0.0.1:0', '--swarm', '127.0.0.1:0'];

/** Starts a node and waits until it says where it listens. Rejects with its output if it ends before. */
export async function startNode(
  data: string,
  flags: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<RunningNode> {
  const args = [WAGGLE, 'start', ...ANYWHERE, '--data', data, '--drain-ms', '0', ...flags];
  const child = spawn(process.execPath, args, {
    cwd: dirname(data),
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...cleanEnvironment(), ...env },
  });
  children.add(child);
  let output = '';
  const ended = once(child, 'exit').finally(() => children.delete(child));
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

/** How a command ended, and what it wrote. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command of `waggle` to its end, as people do. */
export const waggle = (...args: readonly string[]): Promise<Ended> =>
  new Promise((resolve) => {
    const options = { env: cleanEnvironment(), cwd: tmpdir() };
    const child = execFile(process.execPath, [WAGGLE, ...args], options, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });

/** What `GET /v1/cluster` says, as far as tests look at it. */
export interface ClusterView {
  readonly self: string;
  readonly members: readonly {
    readonly replica: string;
    readonly state: string;
    readonly status: string;
    readonly url: string | null;
    readonly lag: { readonly controlMs: number | null; readonly usageMs: number | null };
  }[];
  readonly roster: readonly string[];
  readonly alarms: readonly string[];
}

/** A node of a cluster: it can be stopped and started again, with the same data and the same place among the members. */
export class ClusterNode {
  readonly data: string;
  readonly #flags: readonly string[];
  readonly #tokenIn: string;
  #running: RunningNode | undefined;

  constructor(data: string, flags: readonly string[], tokenIn: string) {
    this.data = data;
    this.#flags = flags;
    this.#tokenIn = tokenIn;
  }

  get running(): RunningNode {
    if (this.#running === undefined) throw new Error(`The node of ${this.data} is not running`);
    return this.#running;
  }

  get url(): string {
    return this.running.url;
  }

  /** The operator of the cluster, at this node. */
  get operator(): Operator {
    return new Operator(this.url, this.#tokenIn);
  }

  /** Starts it, with an invite the first time, and waits until it is ready for requests. */
  async start(invite?: string): Promise<void> {
    this.#running = await startNode(this.data, this.#flags, invite === undefined ? {} : { WAGGLE_JOIN: invite });
    await until(`${this.data} ready`, async () => ((await fetch(`${this.url}/readyz`)).ok ? true : undefined));
  }

  /** Ends it; the exit code, or the signal that ended it. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string> {
    const code = await this.running.stop(signal);
    this.#running = undefined;
    return code;
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** The states of all members as this node sees them, by replica. */
  async states(): Promise<Record<string, string>> {
    const { members } = await this.operator.json<ClusterView>('/v1/cluster');
    return Object.fromEntries(members.map(({ replica, state }) => [replica, state]));
  }

  /** Waits until it sees so many members alive, and no other one reachable. */
  async sees(alive: number): Promise<void> {
    await until(`${alive} members at ${this.data}`, async () => {
      const states = Object.values(await this.states());
      const isSo = states.filter((state) => state === 'alive').length === alive && !states.includes('suspect');
      return isSo ? true : undefined;
    });
  }

  /** Waits until it is ready, and has heard from that many members what they are and what they have counted. */
  async knows(count: number): Promise<void> {
    await until(`all of ${count} members at ${this.data}`, async () => {
      const { members } = await this.operator.json<ClusterView>('/v1/cluster');
      const known = members.filter(
        ({ state, url, lag }) => state === 'alive' && url !== null && lag.controlMs !== null && lag.usageMs !== null,
      );
      const { ok } = await fetch(`${this.url}/readyz`);
      return ok && known.length === count ? true : undefined;
    });
  }
}

/** Several nodes on this machine, one cluster. */
export interface RunningCluster {
  readonly nodes: readonly ClusterNode[];
  /** An invite, by the first node. */
  invite(uses?: number): Promise<string>;
  /** One more node, not started. */
  add(flags?: readonly string[]): Promise<ClusterNode>;
  /** Kills what runs and removes all data. */
  remove(): Promise<void>;
}

/** Starts a cluster, and waits until each of its nodes is ready and knows all. */
export async function startCluster(count: number, flags: readonly string[] = []): Promise<RunningCluster> {
  const parent = mkdtempSync(join(tmpdir(), 'waggle-cluster-'));
  const nodes: ClusterNode[] = [];
  const first = join(parent, 'node-1');
  const cluster: RunningCluster = {
    nodes,
    invite: async (uses = 1) => {
      const { invite } = await nodes[0]!.operator.json<{ invite: string }>('/v1/cluster/invites', 'POST', { uses });
      return invite;
    },
    add: async (more = []) => {
      const swarm = `127.0.0.1:${await freeSwarmPort()}`;
      const own = ['--swarm', swarm, '--workers', '1', ...flags, ...more];
      const node = new ClusterNode(join(parent, `node-${nodes.length + 1}`), own, first);
      nodes.push(node);
      return node;
    },
    remove: async () => {
      await Promise.all(nodes.filter(({ isRunning }) => isRunning).map((node) => node.stop('SIGKILL')));
      rmSync(parent, { recursive: true, force: true });
    },
  };
  try {
    await (await cluster.add()).start();
    const invite = count > 1 ? await cluster.invite(count - 1) : '';
    for (let i = 1; i < count; i++) await cluster.add();
    await Promise.all(nodes.slice(1).map((node) => node.start(invite)));
    await Promise.all(nodes.map((node) => node.knows(count)));
    return cluster;
  } catch (error) {
    const outputs = nodes.map((node) => (node.isRunning ? node.running.output() : '(not running)'));
    await cluster.remove();
    throw new Error(`The cluster did not come up:\n${outputs.join('\n---\n')}`, { cause: error });
  }
}

/** Ports that were given out: two tests do not get the same one. */
const given = new Set<number>();

/** A UDP port that is free now, below those that the system gives to outgoing traffic. */
export async function freeSwarmPort(): Promise<number> {
  for (let port = 20_000 + Math.floor(Math.random() * 10_000); ; port++) {
    if (given.has(port)) continue;
    const socket = createSocket('udp4');
    const isFree = await new Promise<boolean>((resolve) => {
      socket.once('error', () => resolve(false));
      socket.bind(port, '127.0.0.1', () => resolve(true));
    });
    socket.close();
    given.add(port);
    if (isFree) return port;
  }
}

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
