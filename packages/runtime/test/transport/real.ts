import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { entropy, systemClock } from '../../src/index.ts';
import { openTransport, type Address, type Transport } from '../../src/transport/index.ts';
import { CLUSTER, EventLog, keyOf, seedOf, type NetworkUnderTest } from './network.ts';

const HOST = '127.0.0.1';
const ECHO = fileURLToPath(new URL('echo.js', import.meta.url));

/** Ports that were given out: nobody gets one again that another has yet to listen on. */
const given = new Set<number>();

/** A free UDP port in the range that the system gives to nobody by itself. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + entropy.below(22_000);
    if (given.has(port)) continue;
    given.add(port);
    const socket = createSocket('udp4').on('error', () => undefined);
    const isFree = await new Promise<boolean>((resolve) => {
      socket.once('error', () => resolve(false)).bind(port, HOST, () => resolve(true));
    });
    socket.close();
    if (isFree) return port;
  }
}

export interface RealNetwork extends NetworkUnderTest {
  /** Gives that node another port from now on. */
  move(n: number): Promise<void>;
}

/** Hyperswarm's stack on the loopback interface, for as many nodes as there are ports reserved. */
export async function realNetwork(nodes: number, seedNode?: number): Promise<RealNetwork> {
  const ports = new Map<number, number>();
  for (let n = 1; n <= nodes; n++) ports.set(n, await freePort());
  const opened: Transport[] = [];
  const kills: (() => Promise<void>)[] = [];
  const addressOf = (n: number): Address => ({ host: HOST, port: ports.get(n)! });
  return {
    addressOf,
    move: async (n) => void ports.set(n, await freePort()),
    open: async (n, { cluster = CLUSTER, ...handled } = {}) => {
      const log = new EventLog();
      const transport = await openTransport({
        seed: seedOf(n),
        cluster,
        address: addressOf(n),
        host: HOST,
        seeds: seedNode === undefined || seedNode === n ? [] : [addressOf(seedNode)],
        handlers: log.handlers(handled),
        clock: systemClock,
        random: entropy,
      });
      opened.push(transport);
      return { transport, log };
    },
    echo: async (n, members) => {
      const seed = Buffer.from(seedOf(n)).toString('hex');
      const admitted = members.map((m) => [keyOf(m), []]);
      const options = { seed, cluster: CLUSTER, address: addressOf(n), members: admitted };
      const child = spawn(process.execPath, [ECHO, JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit'] });
      const exited = once(child, 'exit');
      const kill = async (): Promise<void> => {
        child.kill('SIGKILL');
        await exited;
      };
      kills.push(kill);
      await once(createInterface({ input: child.stdout }), 'line');
      return { kill };
    },
    close: async () => {
      await Promise.all([...opened.map((transport) => transport.close()), ...kills.map((kill) => kill())]);
    },
  };
}
