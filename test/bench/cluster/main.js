/*
 * `npm run bench:cluster`: what a cluster of real processes does, in order of the parts, with its figures; it fails when an invariant
 * does not hold. `-- --part NAME` (again for more) runs only those, `--quick` less of everything, `--seconds N` and `--count N` change
 * the length of a part, `--keep` keeps logs and data. Ends with 1 if any part failed. Runs on Linux; `partition` and `late` take root.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { hangUp } from './http.js';
import { cleanUp, endAll, root } from './nodes.js';
import { begin, figures, say } from './report.js';
import { connect } from './parts/connect.js';
import { identity } from './parts/identity.js';
import { joiner } from './parts/joiner.js';
import { kill } from './parts/kill.js';
import { late } from './parts/late.js';
import { partition } from './parts/partition.js';
import { seal } from './parts/seal.js';
import { seed } from './parts/seed.js';
import { stop } from './parts/stop.js';

const PARTS = { connect, identity, kill, stop, seed, joiner, partition, seal, late };
/** No part takes longer than that: then it counts as failed, and all that it started is ended. */
const PART_MS_MAX = 45 * 60_000;

const { values: options } = parseArgs({
  options: {
    part: { type: 'string', multiple: true },
    quick: { type: 'boolean', default: false },
    keep: { type: 'boolean', default: false },
    seconds: { type: 'string' },
    count: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});
if (options.help) {
  process.stdout.write(
    `npm run bench:cluster -- [--part NAME]… [--quick] [--keep] [--seconds N] [--count N]\nParts: ${Object.keys(PARTS).join(', ')}\n`,
  );
  process.exit(0);
}
const chosen = options.part ?? Object.keys(PARTS);
for (const name of chosen)
  if (!(name in PARTS)) {
    process.stderr.write(`Expected --part to be one of ${Object.keys(PARTS).join(', ')}, received ${name}\n`);
    process.exit(2);
  }
const orNothing = (text) => (text === undefined ? undefined : Number(text));
const sizes = { isQuick: options.quick, seconds: orNothing(options.seconds), count: orNothing(options.count) };

/** Runs one part; whether it failed. What it wrote is kept then. */
async function hasFailed(name) {
  let timer;
  const expired = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name}: not within ${PART_MS_MAX / 60_000} minutes`)), PART_MS_MAX);
  });
  try {
    await Promise.race([PARTS[name](sizes), expired]);
    await endAll({ isKept: options.keep });
    return false;
  } catch (error) {
    for (let cause = error; cause !== undefined; cause = cause.cause) say(`FAILED ${cause.stack}`);
    await endAll({ isKept: true });
    return true;
  } finally {
    clearTimeout(timer);
  }
}

const failed = [];
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => void cleanUp().then(() => process.exit(130)));
const load = loadavg()[0];
for (const name of chosen) {
  begin(name);
  const startedMs = performance.now();
  const isFailed = await hasFailed(name);
  if (isFailed) failed.push(name);
  say(`${isFailed ? 'FAILED' : 'passed'} in ${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
}
hangUp();
await cleanUp();

const git = spawnSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' });
const commit = git.status === 0 ? git.stdout.trim() : null;
const machine = { cpu: cpus()[0].model, cores: cpus().length, memoryBytes: totalmem(), node: process.version, load };
const names = chosen.length === Object.keys(PARTS).length ? '' : `-${chosen.join('-')}`;
const day = new Date().toISOString().slice(0, 10);
const here = dirname(fileURLToPath(import.meta.url));
const file = join(dirname(here), 'results', `cluster-${day}${names}${options.quick ? '-quick' : ''}.json`);
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, `${JSON.stringify({ machine, commit, failed, figures: figures() }, null, 2)}\n`);
process.stdout.write(
  `\nwritten to ${file}\n${failed.length === 0 ? 'all parts passed' : `FAILED: ${failed.join(', ')}`}\n`,
);
process.exit(failed.length === 0 ? 0 : 1);
