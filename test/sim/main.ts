import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { seededRandom } from '../../packages/protocol/src/base/index.ts';
import { Large } from './large.ts';
import { FAULT_NAMES, FAULTS, MUTATIONS, type Fault, type Mutation, type SimOptions } from './options.ts';
import { Scale, type Spread } from './scale.ts';
import { replayCommand, simulate } from './simulation.ts';

const listed = (names: Readonly<Record<string, string>>): string =>
  Object.entries(names)
    .map(([name, what]) => `    ${name.padEnd(17)} ${what}`)
    .join('\n');

const USAGE = `npm run sim -- [--seed N] [--seeds N] [--nodes N or N-M] [--voters N] [--minutes N] [--faults a,b] [--jobs N] …

Runs whole clusters in virtual time, one seed one run, and says which invariant broke.
  --seed      the first seed (default: the time)
  --seeds     how many seeds, one after the other (default 1; 0: until one fails)
  --nodes     members at the start, the founders included (default 5); with a range, each seed has a number of its own
  --voters    of them, founders: the first roster (default 1; with a range of nodes each seed has a number of its own)
  --minutes   virtual minutes of faults (default 10; with a range of nodes 1 to 3)
  --jobs      processes that share the seeds (default 1)
  --verbose   show every event
  --faults    those that may happen (default: all)
${listed(FAULTS)}
  --mutation  break something on purpose
${listed(MUTATIONS)}

npm run sim -- --shape membership --nodes N [--seed N] [--seconds N] [--loss N]

Runs membership and rumors alone, of many nodes, and says what they cost.
  --seconds   virtual seconds of the measurement (default 30)
  --loss      packets lost, of 1 000 (default 50)

npm run sim -- --shape seals --nodes N --customers N [--seed N] [--epochs N]

Seals epochs of many customers, each at two nodes, without faults, and says how long it took and what it cost. What threads do
takes virtual time, as measured with few nodes beforehand. 40 nodes and 100 000 customers take some 12 GB: NODE_OPTIONS=--max-old-space-size=16000.
  --customers 1 to 1 000 000 (default 1 000)
  --epochs    of a minute each (default 3)`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Math.floor(Date.now() / 1_000) % 1_000_000) },
    seeds: { type: 'string', default: '1' },
    nodes: { type: 'string', default: '5' },
    voters: { type: 'string' },
    minutes: { type: 'string' },
    faults: { type: 'string' },
    mutation: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    /** Of a job: how far its seeds are apart. */
    stride: { type: 'string', default: '1' },
    shape: { type: 'string' },
    seconds: { type: 'string', default: '30' },
    loss: { type: 'string', default: '50' },
    customers: { type: 'string', default: '1000' },
    epochs: { type: 'string', default: '3' },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const say = (text: string): void => void process.stdout.write(`${text}\n`);

function whole(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min || value > max)
    throw new Error(`Expected a whole number from ${min} to ${max} for --${name}, received ${text}`);
  return value;
}

function among<T extends string>(name: string, known: readonly T[], value: string): T {
  if ((known as readonly string[]).includes(value)) return value as T;
  throw new Error(`Expected one of ${known.join(', ')} for --${name}, received ${value}`);
}

/** The options of each seed. */
function optionsOf(): (seed: number) => SimOptions {
  const [least = '', most = least] = values.nodes.split('-');
  const nodes = [whole('nodes', least, 1, 50), whole('nodes', most, 1, 50)] as const;
  const isRange = nodes[0] !== nodes[1];
  const voters = values.voters === undefined ? undefined : whole('voters', values.voters, 1, 49);
  const minutes = values.minutes === undefined ? undefined : whole('minutes', values.minutes, 1, 10_000);
  const mutations = Object.keys(MUTATIONS) as Mutation[];
  const common = {
    ...(values.faults === undefined
      ? {}
      : {
          faults: values.faults
            .split(',')
            .filter(Boolean)
            .map((each): Fault => among('faults', FAULT_NAMES, each)),
        }),
    ...(values.mutation === undefined ? {} : { mutation: among('mutation', mutations, values.mutation) }),
    ...(values.verbose ? { onLine: say } : {}),
  };
  return (seed) => {
    const random = seededRandom(seed ^ 0x5eed);
    const count = nodes[0] + random.below(nodes[1] - nodes[0] + 1);
    const founders = [1, 3, 5, 2, 9].filter((each) => each <= count);
    return {
      seed,
      nodes: count,
      voters: Math.min(count, voters ?? (isRange ? founders[random.below(founders.length)]! : 1)),
      minutes: minutes ?? (isRange ? 1 + random.below(3) : 10),
      ...common,
    };
  };
}

/** Runs seeds until one fails. Whether none did. */
function run(): boolean {
  const [first, seeds, stride] = [
    whole('seed', values.seed, 0, 2 ** 31),
    whole('seeds', values.seeds, 0, 10_000_000),
    whole('stride', values.stride, 1, 64),
  ];
  const options = optionsOf();
  let hours = 0;
  let done = 0;
  const isEnough = (): boolean => seeds > 0 && done >= seeds;
  for (let seed = first; !isEnough(); seed += stride) {
    const { violation, last, summary, fingerprint, nodeHours } = simulate(options(seed));
    done++;
    hours += nodeHours;
    say(`seed ${seed}: ${summary}; ${fingerprint}`);
    if (violation === null) continue;
    say(`\n${last.join('\n')}\n\n${violation.message}\n\nAgain: ${replayCommand(options(seed))}`);
    return false;
  }
  say(`${done} seeds, ${hours.toFixed(2)} node-hours, no violation`);
  return true;
}

/** Shares the seeds among processes; the first failure ends them all. Whether there was none. */
async function share(jobs: number): Promise<boolean> {
  const seeds = whole('seeds', values.seeds, 0, 10_000_000);
  const first = whole('seed', values.seed, 0, 2 ** 31);
  const pass = ['nodes', 'voters', 'minutes', 'faults', 'mutation'] as const;
  const common = pass.flatMap((name) => (values[name] === undefined ? [] : [`--${name}`, values[name]]));
  const children = Array.from({ length: jobs }, (_, i) => {
    const count = seeds === 0 ? 0 : Math.ceil((seeds - i) / jobs);
    const own = ['--seed', String(first + i), '--seeds', String(count), '--stride', String(jobs), ...common];
    return spawn(process.execPath, [process.argv[1]!, ...own], { stdio: ['ignore', 'pipe', 'inherit'] });
  });
  let [hours, done] = [0, 0];
  let isGood = true;
  await Promise.all(
    children.map(async (child) => {
      const exit = new Promise<number | null>((resolve) => child.on('exit', resolve));
      for await (const line of createInterface({ input: child.stdout })) {
        const total = /^([0-9]+) seeds, ([0-9.]+) node-hours, no violation$/.exec(line);
        if (total === null) say(line);
        else [done, hours] = [done + Number(total[1]), hours + Number(total[2])];
      }
      if ((await exit) === 0) return;
      isGood = false;
      for (const other of children) other.kill();
    }),
  );
  if (isGood) say(`${done} seeds, ${hours.toFixed(2)} node-hours, no violation`);
  return isGood;
}

function measureMembership(): void {
  const result = new Scale({
    seed: whole('seed', values.seed, 0, 2 ** 31),
    nodes: whole('nodes', values.nodes, 2, 5_000),
    seconds: whole('seconds', values.seconds, 1, 86_400),
    lossPerMille: whole('loss', values.loss, 0, 900),
  }).run();
  const { toAll, toOne, crash } = result;
  say(`${values.nodes} nodes, ${values.seconds} virtual seconds, ${Number(values.loss) / 10} % of packets lost, seed ${values.seed}
rumors                ${result.rumors}, of which ${result.unfinished} had not come to everyone by the end
  to everyone         ${toAll.medianMs} ms median, ${toAll.p99Ms} ms p99
  to one node         ${toOne.medianMs} ms median, ${toOne.p99Ms} ms p99
falsely suspected     ${result.falselySuspected}
falsely found dead    ${result.falselyDead}
a crash is known      to the first after ${crash.firstMs} ms, to the last after ${crash.lastMs} ms
sent by each node     ${result.membershipBytes.toFixed(0)} B/s in ${result.datagrams.toFixed(1)} datagrams/s (membership)
                      ${result.replicationBytes.toFixed(0)} B/s in ${result.messages.toFixed(1)} messages/s (replication)`);
}

const text = ({ medianMs, p99Ms }: Spread): string => `${medianMs.toFixed(0)} ms median, ${p99Ms.toFixed(0)} ms p99`;
const mega = (bytes: number): string => `${(bytes / 1e6).toFixed(2)} MB`;

/** Few nodes with slots that are large enough for jobs, to find out what those take. */
const CALIBRATION = { nodes: 4, customers: 20_000, epochs: 2 };

function measureSeals(): void {
  const options = {
    seed: whole('seed', values.seed, 0, 2 ** 31),
    nodes: whole('nodes', values.nodes, 2, 50),
    customers: whole('customers', values.customers, 1, 1_000_000),
    epochs: whole('epochs', values.epochs, 1, 1_000),
    onEpoch: (epoch: number) => void process.stderr.write(`epoch ${epoch} is sealed\n`),
  };
  const { msPerByte } = new Large({ ...options, ...CALIBRATION, onEpoch: undefined }).run();
  const { sealed, openBytes, sealingBytes, contentBytes } = new Large({ ...options, msPerByte }).run();
  const rate = (kind: 'seal' | 'slot'): string => `${(msPerByte[kind] * 1e6).toFixed(0)} ms for a MB of a ${kind}`;
  say(`${options.nodes} nodes, ${options.customers} customers, ${options.epochs} epochs, seed ${options.seed}
an epoch's end to its seal on disk, of all nodes and epochs
                      ${text(sealed)}, ${sealed.lastMs.toFixed(0)} ms at most
sent by each node     ${mega(openBytes)} in an epoch, ${mega(sealingBytes)} from its end until all have sealed it
contents of the slots ${mega(contentBytes)} in an epoch
in a thread           ${rate('seal')}, ${rate('slot')}`);
}

if (values.help) say(USAGE);
else if (values.shape !== undefined)
  if (among('shape', ['membership', 'seals'], values.shape) === 'seals') measureSeals();
  else measureMembership();
else {
  const jobs = whole('jobs', values.jobs, 1, 64);
  if (!(jobs === 1 ? run() : await share(jobs))) process.exitCode = 1;
}
