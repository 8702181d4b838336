import { setTimeout as delay } from 'node:timers/promises';
import { Option, type Command } from 'commander';
import { asking, Client, queryOf, type ClientOptions } from './client.ts';
import { CommandError, fields, say, show, table } from './output.ts';

interface EpochRow {
  readonly epoch: number;
  readonly start: string;
  readonly end: string;
  readonly state: string;
  readonly treeSize: number | null;
  readonly root: string | null;
  readonly waitingFor?: readonly string[];
  readonly deadline?: string;
}
interface EpochDetail extends EpochRow {
  readonly writtenOff: readonly { readonly slot: string }[];
  readonly late: readonly { readonly slot: string; readonly origin: number }[];
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
    .option('--limit <N>', 'at most this many, up to 1000 (default: 100)')
    .addOption(
      new Option('--watch', 'go on, and print how each epoch is closed and sealed, until Ctrl-C').conflicts('limit'),
    )
    .action(epochs);
  asking(program.command('epoch <n>'), 'token')
    .description('one epoch: header, roster, cosigners, what was written off and what came late, files')
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
  if (options.watch === true)
    return watch(client, options, from === undefined ? (answer.sealedUpTo ?? -1) + 1 : Number(from));
  show(options, answer, () =>
    answer.epochs.length === 0
      ? 'No epochs.'
      : table(['EPOCH', 'START', 'END', 'STATE', 'WAITS FOR', 'LEAVES', 'ROOT'], answer.epochs.map(rowOf)),
  );
}

/** Replicas by the first digits of their ids, as cosigners are named. */
const shortOf = (replicas: readonly string[] = []): string | null =>
  replicas.length === 0 ? null : replicas.map((replica) => replica.slice(0, 8)).join(' ');

const rowOf = ({ epoch, start, end, state, waitingFor, treeSize, root }: EpochRow): unknown[] => [
  String(epoch),
  start,
  end,
  state,
  shortOf(waitingFor),
  treeSize,
  root,
];

/** Prints what becomes of every epoch from `first` on: each change once, and the seals in order. */
async function watch(client: Client, options: ClientOptions, first: number): Promise<void> {
  const told = new Map<number, string>();
  for (let next = first; ; await delay(WATCH_MS)) {
    const answer = await client.ask<Epochs>('GET', `/v1/epochs?from=${next}&limit=${WATCH_LIMIT}`);
    // The log of a successor begins later than with 0.
    next = Math.max(next, answer.epochs[0]?.epoch ?? next);
    for (const row of [...answer.epochs].sort((a, b) => a.epoch - b.epoch)) {
      if (row.state === 'sealed' && row.epoch !== next) continue;
      const progress = `${row.state} ${shortOf(row.waitingFor) ?? ''}`;
      if (told.get(row.epoch) === progress) continue;
      told.set(row.epoch, progress);
      if (row.state === 'sealed') {
        told.delete(row.epoch);
        next++;
      }
      const shown = row.state === 'sealed' ? await client.ask<EpochDetail>('GET', `/v1/epochs/${row.epoch}`) : row;
      for (const line of options.json === true ? [JSON.stringify(shown)] : linesOf(shown)) say(line);
    }
  }
}

function linesOf(row: EpochRow | EpochDetail): string[] {
  const { epoch, state, end, treeSize, root, waitingFor, deadline } = row;
  if (state === 'open') return [`epoch ${epoch} open until ${end}`];
  if (!('writtenOff' in row))
    return [`epoch ${epoch} ${state}: waiting for ${shortOf(waitingFor) ?? 'nobody'}, until ${deadline}`];
  return [
    `epoch ${epoch} sealed: ${treeSize} leaves, root ${root}`,
    ...row.writtenOff.map(({ slot }) => `epoch ${epoch} writes off slot ${slot}, as far as it is known`),
    ...row.late.map(({ slot, origin }) => `epoch ${epoch} counts late usage of epoch ${origin} in slot ${slot}`),
  ];
}

/** One level of an answer, with what is nested as JSON. */
const flat = (answer: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(answer).map(([name, value]) => [name, typeof value === 'number' ? String(value) : value]),
  );
