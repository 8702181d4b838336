import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { asking, Client, queryOf, type ClientOptions } from './client.ts';
import { CommandError, fields, say, show, table } from './output.ts';

interface EpochRow {
  readonly epoch: number;
  readonly start: string;
  readonly end: string;
  readonly state: string;
  readonly treeSize: number | null;
  readonly root: string | null;
}
interface Epochs {
  readonly sealedUpTo: number | null;
  readonly epochs: readonly EpochRow[];
}

/** How often `--watch` asks, in ms. */
const WATCH_MS = 500;
/** Epochs that `--watch` asks for at a time. */
const WATCH_LIMIT = 100;

/** `waggle epochs` and `waggle epoch <n>`. */
export function epochCommands(program: Command): void {
  asking(program.command('epochs'), 'token')
    .description('the newest epochs and what became of them')
    .option('--from <N>', 'from this epoch on')
    .option('--limit <N>', 'at most this many')
    .option('--watch', 'go on, and print each epoch when it is sealed, until Ctrl-C')
    .action(epochs);
  asking(program.command('epoch <n>'), 'token')
    .description('one epoch: header, roster, cosigners, files')
    .action(async (n: string, options: ClientOptions) => {
      if (!/^\d{1,15}$/.test(n))
        throw new CommandError(`Expected the number of an epoch, received ${JSON.stringify(n)}`, 2);
      const answer = await Client.open(options, 'anyone').ask<Record<string, unknown>>('GET', `/v1/epochs/${n}`);
      show(options, answer, () => fields(flat(answer)));
    });
}

async function epochs(
  options: ClientOptions & { readonly from?: string; readonly limit?: string; readonly watch?: true },
): Promise<void> {
  const client = Client.open(options, 'anyone');
  const { from, limit } = options;
  const answer = await client.ask<Epochs>('GET', `/v1/epochs${queryOf({ from, limit })}`);
  if (options.watch === true) return watch(client, options, answer.sealedUpTo ?? -1);
  show(options, answer, () =>
    answer.epochs.length === 0
      ? 'No epochs.'
      : table(['EPOCH', 'START', 'END', 'STATE', 'LEAVES', 'ROOT'], answer.epochs.map(rowOf)),
  );
}

const rowOf = ({ epoch, start, end, state, treeSize, root }: EpochRow): unknown[] => [
  String(epoch),
  start,
  end,
  state,
  treeSize,
  root,
];

/** Prints every epoch that is sealed after `sealedUpTo`, in order and none twice. */
async function watch(client: Client, options: ClientOptions, sealedUpTo: number): Promise<void> {
  for (let next = sealedUpTo + 1; ; await delay(WATCH_MS)) {
    const answer = await client.ask<Epochs>('GET', `/v1/epochs?from=${next}&limit=${WATCH_LIMIT}`);
    for (const row of [...answer.epochs].sort((a, b) => a.epoch - b.epoch)) {
      if (row.epoch !== next || row.state !== 'sealed') continue;
      say(
        options.json === true
          ? JSON.stringify(row)
          : `epoch ${row.epoch} sealed: ${row.treeSize} leaves, root ${row.root}`,
      );
      next++;
    }
  }
}

/** One level of an answer, with what is nested as JSON. */
const flat = (answer: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(answer).map(([name, value]) => [name, typeof value === 'number' ? String(value) : value]),
  );
