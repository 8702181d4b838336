import type { Command } from 'commander';
import { asking, Client, type ClientOptions } from './client.ts';
import { fields, show, table } from './output.ts';

interface Member {
  readonly member: string;
  readonly replica: string;
  readonly state: string;
  readonly url: string | null;
  readonly version: string;
  readonly load: { readonly workers: number; readonly running: number; readonly queued: number };
}
interface Cluster {
  readonly cluster: string;
  readonly origin: string;
  readonly self: string;
  readonly members: readonly Member[];
}
interface Epochs {
  readonly sealedUpTo: number | null;
  readonly epochs: readonly { readonly epoch: number; readonly end: string; readonly state: string }[];
}

/** `waggle status`: for operators. */
export function statusCommand(program: Command): void {
  asking(program.command('status'), 'token')
    .description('how the node and its cluster are: readiness, members, load, epochs (operator)')
    .action(async (options: ClientOptions) => {
      const client = Client.open(options, 'token');
      const [ready, cluster, epochs] = [
        await client.check('/readyz'),
        await client.ask<Cluster>('GET', '/v1/cluster'),
        await client.ask<Epochs>('GET', '/v1/epochs'),
      ];
      show(options, { ready: ready === 'yes', cluster, epochs }, () => describe(client.url, ready, cluster, epochs));
      if (ready !== 'yes') process.exitCode = 1;
    });
}

function describe(
  url: string,
  ready: string,
  { cluster, origin, members }: Cluster,
  { sealedUpTo, epochs }: Epochs,
): string {
  const open = epochs.find(({ state }) => state === 'open');
  const summary = fields({
    node: url,
    ready,
    cluster,
    origin,
    'open epoch': open === undefined ? null : `${open.epoch}, ends ${open.end}`,
    'sealed up to': sealedUpTo === null ? 'nothing yet' : String(sealedUpTo),
  });
  const rows = members.map(({ replica, state, url: at, version, load: { workers, running, queued } }) => [
    replica,
    state,
    at,
    version,
    `${running} of ${workers} running, ${queued} waiting`,
  ]);
  return `${summary}\n\n${table(['REPLICA', 'STATE', 'URL', 'VERSION', 'LOAD'], rows)}`;
}
