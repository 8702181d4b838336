import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { FastifyInstance } from 'fastify';
import { destination, pino, type Logger } from 'pino';
import { WaggleError } from '@waggle/protocol/base';
import { localUrl } from './cli/client.ts';
import { greeting } from './cli/greeting.ts';
import { addressText, isWildcard, type Config } from './config.ts';
import { alarmText, endsNode } from './alarms.ts';
import { buildServer } from './http/index.ts';
import { publicUrl, VERSION } from './http/self.ts';
import { Metrics } from './metrics.ts';
import { Node, OPERATOR_KEY_FILE, type Observer } from './node.ts';
import { Readiness } from './probe.ts';

/** What is in flight when the node stops may take this long, in ms; then its connections are cut. */
const FINISH_MS_MAX = 30_000;
/** npm and a terminal both pass a Ctrl-C on: the same signal this soon after the first is the same wish, in ms. */
const SAME_WISH_MS = 500;

const STANDARD_ERROR = 2;

/**
 * Starts a node and comes back when it answers. It runs until SIGTERM or SIGINT, and then ends the process: 0 when everything
 * is written, 130 or 143 when a second signal cuts that short, 1 when the node cannot go on. Throws what keeps it from
 * starting: the codes of `Node.open` and `PORT_IN_USE`.
 */
export async function start(config: Config): Promise<void> {
  // Written before a call returns: what was logged is not lost when the process ends.
  const logger = pino({ level: config.logLevel }, destination({ dest: STANDARD_ERROR, sync: true }));
  const die = (error: unknown): never => {
    logger.fatal({ err: error }, 'the node cannot go on');
    process.exit(1);
  };
  process.on('uncaughtException', die);
  process.on('unhandledRejection', die);

  await tryAddress(config);
  const metrics = new Metrics();
  if (config.join !== null)
    logger.info({ data: config.data }, 'invite given: it is used if this node is no member yet');
  const node = await Node.open(config, observe(logger, metrics, die));
  const readiness = new Readiness(node);
  const server = buildServer(node, { logger, metrics, readiness });
  try {
    await inUse(config, server.listen(await resolved(config.http)));
  } catch (error) {
    await server.close();
    await node.close();
    throw error;
  }
  onSignals(logger, (signal) => stop(signal, { node, server, logger, readiness }));
  const port = (server.server.address() as { readonly port: number }).port;
  const url = localUrl({ http: { ...config.http, port } })!;
  const { founded, replica, cluster } = node.standing;
  const announced = publicUrl(server, config);
  if (config.publicUrl === null && isWildcard(config.http.host))
    logger.warn(
      { http: addressText(config.http), announced },
      `Nobody can ask ${config.http.host}: clients are told ${announced}, by the address of the swarm. Set --public-url to what they call this node`,
    );
  // A disk without room keeps nobody from reading: the entry is written with the first that finds some.
  await node.announce(announced, VERSION).catch((error: unknown) => logger.warn({ err: error }, 'not announced'));
  logger.info({ url, data: config.data, replica, cluster: cluster.id, founded }, 'ready');
  const operatorKeyFile = join(config.data, OPERATOR_KEY_FILE);
  const { operatorTokenFile } = node;
  process.stdout.write(greeting({ config, url, founded, operatorTokenFile, operatorKeyFile }));
}

function observe(logger: Logger, metrics: Metrics, die: (error: unknown) => never): Observer {
  return {
    commit: (ms, entries) => metrics.commit(ms, entries),
    sealed: (epoch) => {
      logger.info({ epoch }, 'epoch sealed');
      metrics.sealed(epoch);
    },
    worker: (event) => {
      if (event.type !== 'ready') logger.warn({ event }, 'a worker process ended');
      metrics.worker(event);
    },
    member: ({ member, from, to, incarnation }) =>
      logger.info({ member: member.replica, from, to, incarnation }, `a member is ${to}`),
    misbehaviour: (from, code) => {
      logger.warn({ member: from, code }, 'a member sent what no correct node sends');
      metrics.misbehaviour(from, code);
    },
    alarm: (alarm) => {
      metrics.alarm(alarm);
      const text = alarmText(alarm);
      if (alarm.what === 'evidence') return logger.warn({ alarm }, text);
      if (!endsNode(alarm)) return logger.error({ alarm }, text);
      return die(new WaggleError('DATA_LOCKED', text));
    },
    joined: (member) => {
      logger.info({ member }, 'a new member was admitted');
      metrics.joined(member);
    },
    joinRefused: (key, error) => {
      logger.warn({ key, code: error.code, reason: error.message }, 'a newcomer was refused');
      metrics.joinRefused(key, error);
    },
    keepingFailed: (error) => logger.error({ err: error }, 'old request records or slots could not be moved out'),
    fatal: die,
  };
}

/** One address of a name: for `localhost` there would be a second server, which has none of our bounds. */
const resolved = async ({ host, port }: Config['http']): Promise<Config['http']> => ({
  host: (await lookup(host)).address,
  port,
});

/** Listens for a moment: an address that cannot be used must not leave a founded cluster behind. Throws `PORT_IN_USE`. */
async function tryAddress(config: Config): Promise<void> {
  const server = createServer((socket) => socket.destroy()).listen(await inUse(config, resolved(config.http)));
  await inUse(config, once(server, 'listening'));
  const closed = once(server, 'close');
  server.close();
  await closed;
}

/** Throws `PORT_IN_USE` when listening failed because of the address. */
async function inUse<T>({ http }: Config, listening: Promise<T>): Promise<T> {
  try {
    return await listening;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
    const message = `Expected to listen on ${addressText(http)} (setting http): ${(cause as Error).message}`;
    throw new WaggleError('PORT_IN_USE', message, { cause });
  }
}

type Signal = 'SIGINT' | 'SIGTERM';
/** What shells say of a process that a signal ended: 128 and its number. */
const EXIT_CODES: Record<Signal, number> = { SIGINT: 130, SIGTERM: 143 };

/** Stops at the first signal, and exits at once at a second one. */
function onSignals(logger: Logger, stopOn: (signal: Signal) => Promise<void>): void {
  let firstMs: number | undefined;
  const handle = (signal: Signal): void => {
    if (firstMs === undefined) {
      firstMs = performance.now();
      void stopOn(signal);
    } else if (performance.now() - firstMs > SAME_WISH_MS) {
      logger.warn({ signal }, 'stopped by a second signal');
      process.exit(EXIT_CODES[signal]);
    }
  };
  process.on('SIGINT', handle);
  process.on('SIGTERM', handle);
}

interface Stoppable {
  readonly node: Node;
  readonly server: FastifyInstance;
  readonly logger: Logger;
  readonly readiness: Readiness;
}

/** Not ready, a pause in which balancers notice, then: finish what is in flight, write everything, exit 0. */
async function stop(signal: Signal, { node, server, logger, readiness }: Stoppable): Promise<void> {
  // Whoever presses Ctrl-C waits for the prompt, and has no balancer.
  const pauseMs = signal === 'SIGINT' ? 0 : node.config.drainMs;
  logger.info({ signal, pauseMs }, 'draining');
  readiness.leave();
  await delay(pauseMs);
  node.drain();
  const cut = setTimeout(() => server.server.closeAllConnections(), FINISH_MS_MAX);
  await server.close();
  clearTimeout(cut);
  if (!(await node.close()))
    logger.warn({ data: node.config.data }, 'no member that is reachable holds the last usage: keep this disk');
  logger.info('stopped');
  process.exit(0);
}
