import type { Command } from 'commander';
import { DIMENSIONS, equalUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { asking, Client, queryOf, type ClientOptions } from './client.ts';
import { note, show, table, write } from './output.ts';

interface RangeOptions extends ClientOptions {
  readonly from?: string;
  readonly to?: string;
}

interface UsageOptions extends RangeOptions {
  readonly month?: true;
}

interface EpochUsage {
  readonly epoch: number;
  readonly start: string;
  readonly state: string;
  readonly usage: Usage;
  /** Usage of this epoch that its seal missed and a later one counts. */
  readonly late: Usage;
}
interface Answer {
  readonly customer: string;
  readonly from: string;
  readonly to: string;
  readonly asOf: string | null;
  readonly coverage: { readonly members: number; readonly of: number; readonly oldest: string };
}
interface MonthAnswer extends Answer {
  readonly usage: Usage;
  readonly sealed: Usage;
  readonly unsealed: Usage;
  /** False in the first moments after a node's start: then some of what is sealed is not in it yet. */
  readonly isComplete: boolean;
}
interface UsageAnswer extends Answer {
  readonly totals: Usage;
  readonly epochs: readonly EpochUsage[];
}

/** Entries that `audit` asks for at a time: as many as a node gives. */
const AUDIT_PAGE = 1_000;

const HEAD = ['REQUESTS', 'FAILED', 'BYTES IN', 'BYTES OUT', 'PIXELS IN', 'PIXELS OUT', 'CPU µs'];
const figures = (usage: Usage): number[] => DIMENSIONS.map((dimension) => usage[dimension]);

const ranged = (command: Command): Command =>
  command
    .option('--from <TIME>', 'RFC 3339, such as 2026-01-31T00:00:00Z')
    .option('--to <TIME>', 'likewise, not included');

/** `waggle usage`, `waggle records` and `waggle audit`. */
export function usageCommands(program: Command): void {
  ranged(asking(program.command('usage [customer]'), 'token', 'key'))
    .description(
      "a customer's usage, open epochs included: with its key, or any customer's as operator (default: the last 24 hours)",
    )
    .option('--month', 'the sums of this calendar month (UTC) instead')
    .action(showUsage);
  ranged(asking(program.command('records [customer]'), 'token', 'key'))
    .description("a customer's requests one by one, as JSON lines: with its key, or any customer's as operator")
    .action((customer: string | undefined, options: RangeOptions) =>
      copy(asker(customer, options), `/v1/records${queryOf({ customer, from: options.from, to: options.to })}`),
    );
  asking(program.command('audit'), 'token')
    .description('who changed what when, as JSON lines, newest first (operator)')
    .action(audit);
}

/** As operator if a customer is named; else as the customer of the key. */
const asker = (customer: string | undefined, options: ClientOptions): Client =>
  Client.open(options, customer === undefined ? 'key' : 'token');

async function showUsage(customer: string | undefined, options: UsageOptions): Promise<void> {
  const { from, to } = options;
  const base = customer === undefined ? '/v1' : `/v1/customers/${encodeURIComponent(customer)}`;
  if (options.month === true)
    return showMonth(options, await asker(customer, options).ask<MonthAnswer>('GET', `${base}/usage/month`));
  const answer = await asker(customer, options).ask<UsageAnswer>('GET', `${base}/usage${queryOf({ from, to })}`);
  const rows = [...answer.epochs.flatMap(rowsOf), ['total', '', '', ...figures(answer.totals)]];
  show(options, answer, () => {
    const lines = table(['EPOCH', 'START', 'STATE', ...HEAD], rows);
    return `Usage of ${answer.customer} from ${answer.from} to ${answer.to}\n${harvest(answer)}\n\n${lines}`;
  });
}

function showMonth(options: UsageOptions, answer: MonthAnswer): void {
  show(options, answer, () => {
    const rows = (['sealed', 'unsealed'] as const).map((part) => [part, ...figures(answer[part])]);
    const lines = table(['', ...HEAD], [...rows, ['total', ...figures(answer.usage)]]);
    const partial = answer.isComplete ? '' : '\nThe node has just started: what is sealed is still being summed up.';
    return `Usage of ${answer.customer} from ${answer.from} to ${answer.to}\n${harvest(answer)}${partial}\n\n${lines}`;
  });
}

/** Whose figures it is, and how old they are. */
function harvest({ asOf, coverage: { members, of, oldest } }: Answer): string {
  if (asOf === null)
    return `A live member was not compared with since this node's start: the figures of ${members} of ${of} members, the oldest as of ${oldest}`;
  const all = members === of && oldest === asOf;
  return `As of ${asOf}, with the figures of ${members} of ${of} members${all ? '' : `, the oldest as of ${oldest}`}`;
}

function rowsOf({ epoch, start, state, usage, late }: EpochUsage): unknown[][] {
  const row = [String(epoch), start, state, ...figures(usage)];
  return equalUsage(late, ZERO_USAGE) ? [row] : [row, [String(epoch), start, 'late', ...figures(late)]];
}

async function audit(options: ClientOptions): Promise<void> {
  const client = Client.open(options, 'token');
  const limit = String(AUDIT_PAGE);
  for (let after: string | undefined; ;) {
    const page = await (await client.send('GET', `/v1/audit${queryOf({ after, limit })}`)).text();
    if (page === '' && after === undefined) note('Nothing.');
    await write(page);
    const lines = page.trimEnd().split('\n');
    if (lines.length < AUDIT_PAGE) return;
    after = (JSON.parse(lines.at(-1)!) as { readonly id: string }).id;
  }
}

/** Copies a stream of lines to standard output, no faster than that takes them. */
async function copy(client: Client, path: string): Promise<void> {
  const { body } = await client.send('GET', path);
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += (chunk as Uint8Array).length;
    await write(chunk as Uint8Array);
  }
  if (bytes === 0) note('Nothing.');
}
