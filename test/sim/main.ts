import { parseArgs } from 'node:util';
import { FAULTS, MUTATIONS, type Fault, type Mutation, type SimOptions } from './options.ts';
import { replayCommand, simulate } from './simulation.ts';

const USAGE = `npm run sim -- [--seed N] [--runs N] [--nodes N] [--minutes N] [--faults a,b] [--mutation name] [--verbose]

Runs whole clusters in virtual time, one seed one run, and says which invariant broke.
  --seed      the first seed (default: the time)
  --runs      how many seeds, one after the other (default 1; 0: until one fails)
  --nodes     members, the founder included (default 5)
  --minutes   virtual minutes of faults (default 10)
  --faults    of ${FAULTS.join(', ')} (default: all)
  --mutation  break something on purpose: ${Object.keys(MUTATIONS).join(', ')}
  --verbose   show every event`;

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Math.floor(Date.now() / 1_000) % 1_000_000) },
    runs: { type: 'string', default: '1' },
    nodes: { type: 'string', default: '5' },
    minutes: { type: 'string', default: '10' },
    faults: { type: 'string' },
    mutation: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const say = (text: string): void => void process.stdout.write(`${text}\n`);

function whole(name: 'seed' | 'runs' | 'nodes' | 'minutes', min: number, max: number): number {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < min || value > max)
    throw new Error(`Expected a whole number from ${min} to ${max} for --${name}, received ${values[name]}`);
  return value;
}

function among<T extends string>(name: string, known: readonly T[], value: string): T {
  if ((known as readonly string[]).includes(value)) return value as T;
  throw new Error(`Expected one of ${known.join(', ')} for --${name}, received ${value}`);
}

function options(): Omit<SimOptions, 'seed'> {
  const mutations = Object.keys(MUTATIONS) as Mutation[];
  return {
    nodes: whole('nodes', 1, 50),
    minutes: whole('minutes', 1, 10_000),
    ...(values.faults === undefined
      ? {}
      : {
          faults: values.faults
            .split(',')
            .filter(Boolean)
            .map((each): Fault => among('faults', FAULTS, each)),
        }),
    ...(values.mutation === undefined ? {} : { mutation: among('mutation', mutations, values.mutation) }),
    ...(values.verbose ? { onLine: say } : {}),
  };
}

/** Runs seeds until one fails. Whether none did. */
function run(): boolean {
  const [first, runs, common] = [whole('seed', 0, 2 ** 31), whole('runs', 0, 1_000_000), options()];
  const end = runs === 0 ? Number.POSITIVE_INFINITY : first + runs;
  for (let seed = first; seed < end; seed++) {
    const { violation, last, summary, fingerprint } = simulate({ ...common, seed });
    say(`seed ${seed}: ${summary}; ${fingerprint}`);
    if (violation === null) continue;
    say(`\n${last.join('\n')}\n\n${violation.message}\n\nAgain: ${replayCommand({ ...common, seed })}`);
    return false;
  }
  return true;
}

if (values.help) say(USAGE);
else if (!run()) process.exitCode = 1;
