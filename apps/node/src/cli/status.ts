import type { Command } from 'commander';
import { asking, Client, type ClientOptions } from './client.ts';
import { note, fields, show, table } from './output.ts';

/** A member in `GET /v1/cluster`. */
export interface Member {
  readonly member: string;
  readonly replica: string;
  readonly state: string;
  readonly status: string;
  readonly url: string | null;
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
  readonly zone: string | null;
  readonly version: string | null;
  readonly load: { readonly workers: number; readonly running: number; readonly queued: number } | null;
  readonly lag: { readonly controlMs: number | null; readonly usageMs: number | null };
}
/** `GET /v1/cluster`. */
export interface Cluster {
  readonly cluster: string;
  readonly origin: string;
  readonly self: string;
  readonly members: readonly Member[];
  readonly roster: readonly string[];
  readonly openEpoch: number;
  /** To be sealed next; the open one when nothing waits. */
  readonly sealingEpoch: number;
  readonly alarms: readonly string[];
}
interface Epoch {
  readonly epoch: number;
  readonly end: string;
  readonly state: string;
  readonly waitingFor?: readonly string[];
  readonly deadline?: string | null;
}
interface Epochs {
  readonly sealedUpTo: number | null;
  readonly epochs: readonly Epoch[];
}

/** What a node says when it is asked what it sees, or why it says nothing. */
interface Seen {
  readonly url: string;
  readonly cluster: Cluster | null;
  readonly problem: string | null;
}

/** Characters of a replica's id that are enough to tell members apart in a head. */
const SHORT = 8;
/** Epochs asked for, from the one to be sealed next on: that many may be sealed between two answers. */
const EPOCHS = 20;

/** How long a node may take to say how it is, in ms: the others are not to wait for one that hangs. */
const ANSWER_MS_MAX = 5_000;

/** Whether a member counts as reachable. */
export const isLive = ({ state }: Pick<Member, 'state'>): boolean => state === 'alive' || state === 'suspect';

/** `waggle status`: for operators. */
export function statusCommand(program: Command): void {
  asking(program.command('status'), 'token')
    .description('how the node and its cluster are: readiness, members, lags, load, sealing, alarms (operator)')
    .option('--all', 'ask every live node on this machine what it sees, and those of --urls')
    .option('--urls <URL,…>', 'nodes elsewhere that may be shown your token, and are asked as with --all')
    .action(async (options: ClientOptions & { readonly all?: true; readonly urls?: string }) => {
      const client = Client.open(options, 'token', ANSWER_MS_MAX);
      const isAll = options.all === true || options.urls !== undefined;
      const listed = (options.urls?.split(',') ?? []).map((url) => client.at(url.trim(), true).url);
      const ready = await client.check('/readyz');
      const cluster = await client.ask<Cluster>('GET', '/v1/cluster');
      const epochs = await askEpochs(client, cluster);
      const seen = isAll ? await askAll(client, cluster, listed) : [];
      const views = isAll ? { views: seen } : {};
      show(options, { ready: ready === 'yes', cluster, epochs, ...views }, () =>
        [describe(client.url, ready, cluster, epochs), ...matrix(cluster, seen)].join('\n\n'),
      );
      for (const alarm of cluster.alarms) note(`waggle: ${alarm}`);
      if (ready !== 'yes') process.exitCode = 1;
    });
}

/** The epochs to be sealed next, and the open one, however many wait between them. */
async function askEpochs(client: Client, { sealingEpoch, openEpoch }: Cluster): Promise<Epochs> {
  const first = await client.ask<Epochs>('GET', `/v1/epochs?from=${sealingEpoch}&limit=${EPOCHS}`);
  if (first.epochs.some(({ epoch }) => epoch === openEpoch)) return first;
  const last = await client.ask<Epochs>('GET', `/v1/epochs?from=${openEpoch}&limit=1`);
  return { sealedUpTo: first.sealedUpTo, epochs: [...first.epochs, ...last.epochs] };
}

/** What each live node sees, and each that is listed, all asked at once. */
function askAll(client: Client, { members, self }: Cluster, listed: readonly string[]): Promise<Seen[]> {
  const announced = members
    .filter(isLive)
    .flatMap(({ url, replica }) => (url === null ? [] : [replica === self ? client.url : url.replace(/\/+$/, '')]));
  return Promise.all([...new Set([...announced, ...listed])].map((url) => askOne(client, url, listed.includes(url))));
}

async function askOne(client: Client, url: string, isListed: boolean): Promise<Seen> {
  try {
    return { url, cluster: await client.at(url, isListed).ask<Cluster>('GET', '/v1/cluster'), problem: null };
  } catch (error) {
    return { url, cluster: null, problem: (error as Error).message };
  }
}

function describe(url: string, ready: string, cluster: Cluster, epochs: Epochs): string {
  const { members, roster, openEpoch } = cluster;
  const live = members.filter(isLive).length;
  // Who was retired and is gone is shown, and missed by nobody.
  const gone = members.filter((member) => member.status === 'retired' && !isLive(member)).length;
  const open = epochs.epochs.find(({ epoch }) => epoch === openEpoch);
  const summary = fields({
    node: url,
    ready,
    cluster: cluster.cluster,
    origin: cluster.origin,
    replica: cluster.self,
    members: `${live} of ${members.length - gone} reachable, ${roster.length} may vote`,
    'open epoch':
      open === undefined
        ? String(openEpoch)
        : `${openEpoch}, ${open.state === 'open' ? 'ends' : 'should have ended'} ${open.end}`,
    'sealed up to': epochs.sealedUpTo === null ? 'nothing yet' : String(epochs.sealedUpTo),
    sealing: sealing(epochs, openEpoch),
  });
  const rows = members.map((member) => [
    member.replica,
    member.state,
    vote(member, roster),
    member.url,
    member.zone,
    member.version,
    load(member),
    `${seconds(member.lag.controlMs)} / ${seconds(member.lag.usageMs)}`,
  ]);
  const head = ['REPLICA', 'STATE', 'VOTES', 'URL', 'ZONE', 'VERSION', 'LOAD', 'LAG: CHANGES / USAGE'];
  return `${summary}\n\n${table(head, rows)}`;
}

/** Which epochs wait to be sealed, and for whom, as far as the node says it. */
function sealing({ epochs }: Epochs, openEpoch: number): string {
  const first = epochs.find(({ epoch, state }) => epoch < openEpoch && state !== 'sealed');
  if (first === undefined) return 'nothing waits';
  const { waitingFor = [], deadline } = first;
  const after = openEpoch - first.epoch - 1;
  return [
    `epoch ${first.epoch} is ${first.state}`,
    ...(waitingFor.length === 0 ? [] : [`waits for ${waitingFor.join(', ')}`]),
    ...(deadline === undefined || deadline === null ? [] : [`until ${deadline}`]),
    ...(after === 0 ? [] : [`${after} after it`]),
  ].join(', ');
}

const vote = ({ replica, status }: Member, roster: readonly string[]): string =>
  status === 'retired' ? 'retired' : roster.includes(replica) ? 'yes' : 'not yet';

const load = ({ load: busy }: Member): string | null =>
  busy === null ? null : `${busy.running} of ${busy.workers} running, ${busy.queued} waiting`;

const seconds = (ms: number | null): string => (ms === null ? '–' : `${(ms / 1000).toFixed(1)} s`);

/** A row for what each node sees, a column for each member. */
function matrix({ members }: Cluster, seen: readonly Seen[]): string[] {
  if (seen.length === 0) return [];
  const rows = seen.map(({ url, cluster, problem }) => {
    if (cluster === null) return [url, problem];
    const states = new Map(cluster.members.map((member) => [member.replica, member]));
    return [url, ...members.map(({ replica }) => cell(states.get(replica)))];
  });
  return [
    `As each node sees them:\n\n${table(['SEEN BY', ...members.map(({ replica }) => replica.slice(0, SHORT))], padded(rows, members.length + 1))}`,
  ];
}

const cell = (member: Member | undefined): string =>
  member === undefined ? 'not known' : `${member.state}, ${seconds(member.lag.usageMs)}`;

const padded = (rows: readonly (readonly (string | null)[])[], length: number): string[][] =>
  rows.map((row) => Array.from({ length }, (_, i) => row[i] ?? ''));
