import type { Command } from 'commander';
import type { Customer } from '@waggle/identity';
import { asking, Client, queryOf, type ClientOptions } from './client.ts';
import { issueKey } from './keys.ts';
import { CommandError, fields, note, say, show, table, write } from './output.ts';

/** Customers that `list` asks for at a time: as many as a node gives. */
const PAGE = 1_000;

const pathOf = (id: string): string => `/v1/customers/${encodeURIComponent(id)}`;

/** `waggle customer …`: for operators. */
export function customerCommands(program: Command): void {
  const customer = program.command('customer').description('create, show and change customers (operator)');
  const command = (name: string, description: string): Command =>
    asking(customer.command(name), 'token').description(description).option('-q, --quiet', 'print the id only');

  command('create [id]', 'create a customer, under a made id if none is given')
    .option('--name <NAME>', 'what people call it (default: its id)')
    .option('--with-key', 'issue an API key as well; with --quiet that is what is printed')
    .action(create);
  command('list', 'list customers, by id')
    .option('--after <ID>', 'only ids above this one')
    .option('--limit <N>', 'at most this many (default: all)')
    .action(list);
  command('show <id>', 'show a customer and its limits').action((id: string, options: ClientOptions) =>
    change(options, 'GET', pathOf(id)),
  );
  command('rename <id> <name>', 'give a customer another name').action(
    (id: string, name: string, options: ClientOptions) => change(options, 'PATCH', pathOf(id), { name }),
  );
  command('limits <id> [limit=value...]', 'show or set limits; the value "default" goes back to the default').action(
    (id: string, limits: string[], options: ClientOptions) =>
      limits.length === 0
        ? change(options, 'GET', pathOf(id))
        : change(options, 'PATCH', pathOf(id), { limits: parseLimits(limits) }),
  );
  command('suspend <id>', 'refuse its keys until it is resumed').action((id: string, options: ClientOptions) =>
    change(options, 'POST', `${pathOf(id)}/suspend`),
  );
  command('resume <id>', 'take its keys again').action((id: string, options: ClientOptions) =>
    change(options, 'POST', `${pathOf(id)}/resume`),
  );
  command('delete <id>', 'refuse its keys for ever; its id is never used again').action(remove);
}

async function create(
  id: string | undefined,
  options: ClientOptions & { readonly name?: string; readonly withKey?: true },
): Promise<void> {
  const client = Client.open(options, 'token');
  const name = options.name ?? id;
  if (name === undefined) throw new CommandError('Expected an id or --name, received neither', 2);
  const created =
    id === undefined
      ? await client.ask<Customer>('POST', '/v1/customers', { name })
      : await client.ask<Customer>('PUT', pathOf(id), { name });
  if (options.withKey !== true) return show(options, created, () => describe(created), created.id);
  const issued = await issueKey(client, created.id);
  show(options, { ...created, key: issued }, () => `${describe(created)}\n\n${issued.text}`, issued.key);
}

interface ListOptions extends ClientOptions {
  readonly after?: string;
  readonly limit?: string;
}
interface Page {
  readonly customers: readonly Customer[];
  /** `after` of the page that follows. */
  readonly next: string | null;
}

/** Prints page by page: a cluster may have more customers than are to be held at once. */
async function list(options: ListOptions): Promise<void> {
  const limit = options.limit === undefined ? Infinity : limitOf(options.limit);
  const print = options.json === true ? jsonPrinter() : options.quiet === true ? printIds : tablePrinter();
  const client = Client.open(options, 'token');
  let left = limit;
  for (let { after } = options; ;) {
    const query = queryOf({ after, limit: String(Math.min(left, PAGE)) });
    const { customers, next } = await client.ask<Page>('GET', `/v1/customers${query}`);
    left -= customers.length;
    const isLast = next === null || left <= 0;
    await print({ customers, next }, isLast);
    if (!isLast) after = next;
    else if (next === null || options.json === true) return;
    else return note(`waggle: cut at --limit ${limit}; what follows: --after ${next}`);
  }
}

function limitOf(text: string): number {
  if (/^[1-9]\d{0,14}$/.test(text)) return Number(text);
  throw new CommandError(`Expected a whole number from 1 on for --limit, received ${JSON.stringify(text)}`, 2);
}

type Printer = (page: Page, isLast: boolean) => Promise<void>;

const printIds: Printer = ({ customers }) => write(customers.map(({ id }) => `${id}\n`).join(''));

/** The head stands over the first page only. */
function tablePrinter(): Printer {
  let head: readonly string[] | null = ['ID', 'NAME', 'STATUS', 'CREATED'];
  return async ({ customers }) => {
    const rows = customers.map((one) => [one.id, one.name, one.status, one.createdAt]);
    if (rows.length > 0) await write(`${table(head ?? [], rows)}\n`);
    else if (head !== null) say('No customers.');
    head = null;
  };
}

/** All pages as one answer of the API. */
function jsonPrinter(): Printer {
  let before: string | null = null;
  return async ({ customers, next }, isLast) => {
    if (before === null) await write('{\n  "customers": [');
    before ??= '';
    for (const one of customers) {
      await write(`${before}\n    ${JSON.stringify(one, null, 2).replaceAll('\n', '\n    ')}`);
      before = ',';
    }
    if (isLast) await write(`\n  ],\n  "next": ${JSON.stringify(next)}\n}\n`);
  };
}

async function change(options: ClientOptions, method: string, at: string, body?: unknown): Promise<void> {
  const customer = await Client.open(options, 'token').ask<Customer>(method, at, body);
  show(options, customer, () => describe(customer), customer.id);
}

async function remove(id: string, options: ClientOptions): Promise<void> {
  await Client.open(options, 'token').ask('DELETE', pathOf(id));
  if (options.json !== true) say(options.quiet === true ? id : `Deleted customer ${id}.`);
}

/** `name=value` pairs as the API takes them; which names and values there are is for the node to say. */
function parseLimits(pairs: readonly string[]): Record<string, number | null> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const [name = '', value = ''] = pair.split('=', 2);
      if (value === 'default') return [name, null];
      if (/^\d{1,16}$/.test(value)) return [name, Number(value)];
      throw new CommandError(`Expected limit=<whole number> or limit=default, received ${JSON.stringify(pair)}`, 2);
    }),
  );
}

function describe({ id, name, status, createdAt, limits }: Customer): string {
  return fields({ id, name, status, created: createdAt, ...limits });
}
