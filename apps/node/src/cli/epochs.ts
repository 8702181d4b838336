import { setTimeout as delay } from 'node:timers/promises';
import { Option, type Command } from 'commander';
import { asking, Client, queryOf, type ClientOptions } from './client.ts';
import { CommandError, fields, note, say, show, table } from './output.ts';

interface EpochRow {
  readonly epoch: number;
  readonly start: string;
  readonly end: string;
  readonly state: string;
  readonly treeSize: number | null;
  readonly root: string | null;
  readonly waitingFor?: readonly string[];
  readonly deadline?: string | null;
}
interface Slot {
  readonly slot: string;
  readonly replica: string;
  readonly origin: number;
  readonly requests?: number;
}
interface EpochDetail extends EpochRow {
  readonly roster: readonly { readonly replica: string }[];
  readonly writtenOff: readonly Slot[];
  readonly late: readonly Slot[];
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
      const answer = await Client.open(options, 'anyone').ask<EpochRow | EpochDetail>('GET', `/v1/epochs/${n}`);
      show(options, answer, () => fields(flat('writtenOff' in answer ? { ...answer, ...unclosed(answer) } : answer)));
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

/** How far `--watch` is: the epoch of which the seal is to be told next, and what was told of those from it on. */
interface Watched {
  next: number;
  readonly told: Map<number, string>;
}

/** Prints what becomes of every epoch from `first` on: each change once, and the seals in order, whether the node is there or not. */
async function watch(client: Client, options: ClientOptions, first: number): Promise<void> {
  const watched: Watched = { next: first, told: new Map() };
  for (let isAway = false; ; await delay(WATCH_MS))
    try {
      await look(client, options, watched);
      if (isAway) note('waggle: the node answers again');
      isAway = false;
    } catch (error) {
      if (!isAway) note(`waggle: ${(error as Error).message} Going on when it answers.`);
      isAway = true;
    }
}

/** One look of `--watch`. What it could not tell any more, the next one does. */
async function look(client: Client, options: ClientOptions, watched: Watched): Promise<void> {
  const { told } = watched;
  const answer = await client.ask<Epochs>('GET', `/v1/epochs?from=${watched.next}&limit=${WATCH_LIMIT}`);
  // The log of a successor begins later than with 0.
  watched.next = Math.max(watched.next, answer.epochs[0]?.epoch ?? 0);
  const sealing = answer.sealedUpTo === null ? watched.next : answer.sealedUpTo + 1;
  for (const row of [...answer.epochs].sort((a, b) => a.epoch - b.epoch)) {
    const isSealed = row.state === 'sealed';
    if (isSealed && row.epoch !== watched.next) continue;
    const progress = `${row.state} ${shortOf(row.waitingFor) ?? ''}`;
    if (told.get(row.epoch) === progress) continue;
    const shown = isSealed ? await client.ask<EpochDetail>('GET', `/v1/epochs/${row.epoch}`) : row;
    for (const line of options.json === true ? [JSON.stringify(shown)] : linesOf(shown, sealing)) say(line);
    told.set(row.epoch, progress);
    if (!isSealed) continue;
    told.delete(row.epoch);
    watched.next++;
  }
}

/** `sealing`: the epoch to be sealed next, which those after it wait for. */
function linesOf(row: EpochRow | EpochDetail, sealing: number): string[] {
  const { epoch, state, end, treeSize, root, deadline = null } = row;
  if (state === 'open') return [`epoch ${epoch} open until ${end}`];
  if (!('writtenOff' in row)) {
    if (epoch > sealing) return [`epoch ${epoch} ${state}: waiting for epoch ${sealing}`];
    const waitsFor = shortOf(row.waitingFor);
    const until = deadline === null ? '' : `, until ${deadline}`;
    return [`epoch ${epoch} ${state}${waitsFor === null ? '' : `: waiting for ${waitsFor}${until}`}`];
  }
  const { writtenOff, asReported } = unclosed(row);
  return [
    `epoch ${epoch} sealed: ${treeSize} leaves, root ${root}`,
    ...writtenOff.map((it) => `epoch ${epoch} writes off slot ${it.slot}, as far as it is known${figures(it)}`),
    ...asReported.map(
      (it) => `epoch ${epoch} counts slot ${it.slot} as reported, by a replica without a vote${figures(it)}`,
    ),
    ...row.late.map((it) => `epoch ${epoch} counts late usage of epoch ${it.origin} in slot ${it.slot}${figures(it)}`),
  ];
}

const figures = ({ requests }: Slot): string =>
  requests === undefined ? '' : `: ${requests} request${requests === 1 ? '' : 's'}`;

/** Slots that were not closed: the seal waited for those who vote; the others say what they count, and it is counted. */
function unclosed({ roster, writtenOff }: EpochDetail): Record<'writtenOff' | 'asReported', readonly Slot[]> {
  const voters = new Set(roster.map(({ replica }) => replica));
  return {
    writtenOff: writtenOff.filter(({ replica }) => voters.has(replica)),
    asReported: writtenOff.filter(({ replica }) => !voters.has(replica)),
  };
}

/** One level of an answer, with what is nested as JSON. */
const flat = (answer: object): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(answer).map(([name, value]) => [name, typeof value === 'number' ? String(value) : value]),
  );
