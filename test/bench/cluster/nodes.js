/* A cluster of real processes: started, killed, stopped and asked over HTTP. */
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mostBytes, residentBytes } from '../measure.js';
import { call, send } from './http.js';

const here = dirname(fileURLToPath(import.meta.url));
export const root = dirname(dirname(dirname(here)));
const WAGGLE = join(root, 'apps', 'node', 'bin', 'waggle.js');
/** How often a state is asked for while it is waited for, in ms. */
const LOOK_MS = 50;
const WAIT_MS = 120_000;
/** How long a start may take, in ms: a newcomer is ready when it has all customers. */
const READY_MS_MAX = 600_000;

let reaper;
/** Tells the reaper of something to clean up, or (`-`) that it is cleaned up. */
export function reap(line) {
  reaper ??= spawn(process.execPath, [join(here, 'reaper.js')], {
    stdio: ['pipe', 'ignore', 'inherit'],
    detached: true,
  });
  reaper.stdin.write(`${line}\n`);
}

/** Has everything cleaned up that is left, and waits for that. */
export async function cleanUp() {
  if (reaper === undefined) return;
  const ended = once(reaper, 'exit');
  reaper.stdin.end();
  await ended;
  reaper = undefined;
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `ask` gives something else than undefined. Errors of `ask` count as not yet; the last one is the cause at the end. */
export async function until(what, ask, timeoutMs = WAIT_MS) {
  const end = performance.now() + timeoutMs;
  for (let cause; ;) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`, { cause });
    await pause(LOOK_MS);
  }
}

/** Ports that were given out in this run. */
const given = new Set();

/** A port of this machine that is free now for TCP and UDP, below those that the system gives to outgoing traffic. */
async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000);
    if (given.has(port)) continue;
    given.add(port);
    const socket = createSocket('udp4');
    const server = createServer();
    const isFree = (listener, listen) =>
      new Promise((resolve) => {
        listener.once('error', () => resolve(false));
        listen(() => listener.close(() => resolve(true)));
      });
    const udp = await isFree(socket, (done) => socket.bind(port, '127.0.0.1', done));
    if (udp && (await isFree(server, (done) => server.listen(port, '127.0.0.1', done)))) return port;
  }
}

/** Where a node of this machine listens: the same at each of its starts. */
const onThisMachine = async () => ({
  http: `127.0.0.1:${await freePort()}`,
  swarm: `127.0.0.1:${await freePort()}`,
  prefix: [],
});

/** One node of a cluster, with a place and a data directory of its own, running or not. */
export class ClusterNode {
  constructor(cluster, name, place) {
    this.cluster = cluster;
    this.name = name;
    this.place = place;
    this.url = `http://${place.http}`;
    this.data = join(cluster.directory, name);
    this.log = join(cluster.directory, `${name}.log`);
    this.child = undefined;
    /** When it last became ready, on the clock of `performance.now`. */
    this.readyMs = undefined;
    this.starts = 0;
  }

  get isRunning() {
    return this.child !== undefined;
  }

  /** Starts it, with an invite the first time, and waits until it is ready. Gives how long that took, in ms. */
  async start(invite) {
    const { place, cluster } = this;
    const startedMs = performance.now();
    const [command, ...args] = [
      ...place.prefix,
      process.execPath,
      WAGGLE,
      'start',
      '--http',
      place.http,
      '--swarm',
      place.swarm,
      '--data',
      this.data,
      ...cluster.flags,
    ];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WAGGLE_')));
    if (invite !== undefined) env.WAGGLE_JOIN = invite;
    const child = spawn(command, args, { cwd: cluster.directory, stdio: ['ignore', 'pipe', 'pipe'], env });
    reap(`+pid ${child.pid}`);
    this.child = child;
    const log = createWriteStream(this.log, { flags: 'a' });
    log.write(`--- start ${++this.starts} ${new Date().toISOString()} pid ${child.pid}\n`);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.ended = once(child, 'exit').then(([code, signal]) => {
      reap(`-pid ${child.pid}`);
      log.end(`--- ended by ${code ?? signal} ${new Date().toISOString()}\n`);
      if (this.child === child) this.child = undefined;
      return code ?? signal;
    });
    await until(
      `${this.name} ready`,
      async () => {
        if (this.child !== child) throw new Ended(`${this.name} ended while it started; see ${this.log}`);
        return (await send(this.url, '/readyz', { timeoutMs: 2_000 })).status === 200 ? true : undefined;
      },
      READY_MS_MAX,
    ).catch((error) => {
      throw error.cause instanceof Ended ? error.cause : error;
    });
    this.readyMs = performance.now();
    return this.readyMs - startedMs;
  }

  /** Ends it by a signal; its exit code, or the signal. */
  async stop(signal = 'SIGTERM') {
    if (!this.isRunning) return undefined;
    this.child.kill(signal);
    return this.ended;
  }

  /** Lets it stand still, or go on. */
  signal(signal) {
    this.child.kill(signal);
  }

  /** A call of the operator. */
  ask(path, options) {
    return call(this.url, this.cluster.token, path, options);
  }

  /** What it sees of the cluster. */
  view() {
    return this.ask('/v1/cluster', { timeoutMs: 10_000 });
  }

  /** A sample of its metrics: the sum of those whose labels contain a text; 0 if there are none. */
  async metric(name, label = '') {
    const { body } = await send(this.url, '/metrics', { headers: { authorization: `Bearer ${this.cluster.token}` } });
    const samples = body.toString().matchAll(new RegExp(`^${name}(\\{[^}]*\\})? ([0-9.e+]+)$`, 'gm'));
    return [...samples].reduce((sum, [, labels = '', value]) => sum + (labels.includes(label) ? Number(value) : 0), 0);
  }

  /** Resident bytes of its main process, now and at most since its start. */
  residentBytes() {
    return residentBytes(this.child.pid);
  }
  mostBytes() {
    return mostBytes(this.child.pid);
  }
}

class Ended extends Error {}

const clusters = new Set();
/** Ends all clusters of this process. Their logs and data go with them, unless they are kept: then it says where. */
export async function endAll({ isKept }) {
  for (const cluster of clusters) {
    await cluster.stop('SIGKILL');
    if (isKept) {
      reap(`-dir ${cluster.directory}`);
      process.stdout.write(`   logs and data are in ${cluster.directory}\n`);
    } else rmSync(cluster.directory, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
  clusters.clear();
}

/** Several nodes, one cluster. */
export class Cluster {
  /** `placeOf(i)` gives where node i listens, and what its command is preceded by. */
  constructor({ flags = [], epochMs = 10_000, graceMs = 2_000, placeOf = onThisMachine } = {}) {
    this.directory = mkdtempSync(join(tmpdir(), 'waggle-bench-cluster-'));
    reap(`+dir ${this.directory}`);
    clusters.add(this);
    this.epochMs = epochMs;
    this.flags = [
      '--epoch-ms',
      String(epochMs),
      '--seal-grace-ms',
      String(graceMs),
      '--workers',
      '1',
      '--drain-ms',
      '0',
      ...flags,
    ];
    this.placeOf = placeOf;
    this.nodes = [];
  }

  /** Starts a founder and as many others with an invite of its own. Waits until all see all. */
  static async start(count, options) {
    const cluster = new Cluster(options);
    await cluster.add();
    const founder = cluster.nodes[0];
    await founder.start();
    for (let i = 1; i < count; i++) await cluster.add();
    const invite = count > 1 ? await cluster.invite(count - 1) : undefined;
    await Promise.all(cluster.nodes.slice(1).map((node) => node.start(invite)));
    await cluster.connected();
    return cluster;
  }

  get founder() {
    return this.nodes[0];
  }

  get running() {
    return this.nodes.filter(({ isRunning }) => isRunning);
  }

  /** The operator's token; it is good at every node. */
  get token() {
    this.operatorToken ??= readFileSync(join(this.founder.data, 'operator.token'), 'utf8').trim();
    return this.operatorToken;
  }

  /** One more node, not started. */
  async add() {
    const number = this.nodes.length + 1;
    const node = new ClusterNode(this, `node-${number}`, await this.placeOf(number));
    this.nodes.push(node);
    return node;
  }

  async invite(uses = 1) {
    const { invite } = await this.founder.ask('/v1/cluster/invites', { method: 'POST', body: { uses } });
    return invite;
  }

  /** Waits until each of these nodes sees exactly them alive, and has compared its registers with all of them. */
  async connected(nodes = this.running, timeoutMs = WAIT_MS) {
    await Promise.all(
      nodes.map((node) =>
        until(
          `${nodes.length} members at ${node.name}`,
          async () => {
            const { members, self } = await node.view();
            const alive = members.filter(({ state }) => state === 'alive');
            const isSo =
              alive.length === nodes.length &&
              !members.some(({ state }) => state === 'suspect') &&
              alive.every(({ replica, lag }) => replica === self || lag.controlMs !== null);
            return isSo ? true : undefined;
          },
          timeoutMs,
        ),
      ),
    );
  }

  /** A customer with a key that is good at every running node. Its limits do not get in the way. */
  async customer(id, node = this.founder) {
    const limits = { requestsPerSecond: 1_000_000 };
    await node.ask(`/v1/customers/${id}`, { method: 'PUT', body: { name: id, limits } });
    const path = `/v1/customers/${id}/keys?wait=all&timeoutMs=60000`;
    const { key } = await node.ask(path, { method: 'POST', body: {}, timeoutMs: 70_000 });
    await Promise.all(
      this.running.map((each) => until(`${id} at ${each.name}`, () => call(each.url, key, '/v1/nodes'))),
    );
    return { id, key };
  }

  /** Ends all. */
  async stop(signal = 'SIGTERM') {
    await Promise.all(this.running.map((node) => node.stop(signal)));
  }
}
