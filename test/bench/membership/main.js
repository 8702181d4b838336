/*
 * `npm run bench:membership` (`-- --quick`: five nodes only; `-- --part membership|usage`): our membership beside serf's, on the
 * same machine in the same run, in turns; and what usage costs on the wire. Needs serf, and root for network namespaces (Linux).
 * `--sizes 5,40` takes other sizes. Prints tables and writes test/bench/results/<date>-<part>.json.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import Table from 'cli-table3';
import { quantile } from '../measure.js';

const here = dirname(fileURLToPath(import.meta.url));
const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    part: { type: 'string' },
    sizes: { type: 'string' },
    help: { type: 'boolean' },
  },
});
if (flags.help) {
  process.stdout.write('npm run bench:membership -- [--quick] [--part NAME] [--sizes N,N]\n');
  process.exit(0);
}
const SIZES = flags.sizes?.split(',').map(Number) ?? (flags.quick ? [5] : [5, 10, 20]);
/** Kills for each size. */
const KILLS = flags.quick ? 5 : 8;
const REST_MS = flags.quick ? 20_000 : 30_000;
const STALL = { ms: flags.quick ? 20_000 : 60_000, stopMs: 2_000, runMs: 64 };
const STALLED_SHARE = 0.2;
/** After a cluster is whole, until it is quiet. */
const QUIET_MS = 10_000;
const USAGE_NODES = 5;
const REQUESTS_PER_SECOND = 1_000;
const CUSTOMERS = [100, 1_000, 10_000];
const USAGE_MS = flags.quick ? 10_000 : 30_000;

/** A cluster in a network namespace of its own, which goes with its last process. */
function openSide(name, size) {
  const side = spawn(
    'unshare',
    [
      '--net',
      'sh',
      '-c',
      'ip link set lo up && exec "$@"',
      'sh',
      process.execPath,
      join(here, 'side.js'),
      name,
      size,
      Date.now(),
    ].map(String),
    { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  const asked = new Map();
  let last = 0;
  side.on('message', ({ id, result, error }) => {
    const { resolve, reject } = asked.get(id);
    asked.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  });
  side.on('exit', (code) => {
    for (const { reject } of asked.values()) reject(new Error(`the ${name} side ended with ${code}`));
  });
  return {
    name,
    ask: (verb, args = {}) =>
      new Promise((resolve, reject) => {
        asked.set(++last, { resolve, reject });
        side.send({ id: last, verb, ...args });
      }),
    close: () =>
      new Promise((resolve) => {
        if (side.exitCode !== null) return resolve();
        side.once('exit', resolve);
        side.disconnect();
      }),
  };
}

const progress = (text) => process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`);

async function compare(size) {
  const sides = [openSide('waggle', size), openSide('serf', size)];
  try {
    progress(`${size} nodes: start`);
    await Promise.all(sides.map((side) => side.ask('start')));
    await sleep(QUIET_MS);
    progress(`${size} nodes: at rest`);
    const results = new Map(sides.map(({ name }) => [name, { detection: [] }]));
    // Both at once: what else the machine does falls on both.
    const rest = await Promise.all(sides.map((side) => side.ask('measure', { ms: REST_MS })));
    sides.forEach(({ name }, i) => (results.get(name).rest = rest[i]));
    for (let i = 0; i < KILLS; i++)
      for (const side of sides) {
        await side.ask('settle');
        const ms = await side.ask('detect', { victim: (7 * i + 1) % size });
        results.get(side.name).detection.push(...ms);
        progress(`${size} nodes: ${side.name}, kill ${i + 1}: ${Math.max(...ms).toFixed(0)} ms`);
      }
    const victims = Array.from({ length: Math.round(STALLED_SHARE * size) }, (_, i) => 5 * i);
    for (const side of sides) {
      await side.ask('settle');
      await sleep(QUIET_MS);
      const verdicts = await side.ask('stall', { victims, ...STALL });
      results.get(side.name).falseVerdicts = verdicts;
      progress(`${size} nodes: ${side.name}, false verdicts: ${JSON.stringify(verdicts)}`);
    }
    return results;
  } finally {
    await Promise.all(sides.map((side) => side.close()));
  }
}

async function membership() {
  const rows = [];
  for (const size of SIZES)
    for (const [name, { detection, falseVerdicts, rest }] of await compare(size))
      rows.push({
        nodes: size,
        name,
        samples: detection.length,
        detectionP50Ms: quantile(detection, 0.5),
        detectionP99Ms: quantile(detection, 0.99),
        falseVerdicts,
        bytesPerSecond: rest.bytes,
        packetsPerSecond: rest.packets,
        cpuMsPerSecond: rest.cpuMs,
        counted: rest.counted,
      });
  const table = new Table({
    head: ['nodes', '', 'detection p50', 'p99', 'false: healthy', 'false: stopped', 'bytes/s', 'packets/s', 'CPU ms/s'],
  });
  for (const row of rows)
    table.push([
      row.nodes,
      row.name,
      `${(row.detectionP50Ms / 1_000).toFixed(2)} s`,
      `${(row.detectionP99Ms / 1_000).toFixed(2)} s`,
      row.falseVerdicts.healthy,
      row.falseVerdicts.stopped,
      row.bytesPerSecond.toFixed(0),
      row.packetsPerSecond.toFixed(1),
      row.cpuMsPerSecond.toFixed(2),
    ]);
  process.stdout.write(`${table.toString()}\n`);
  return rows;
}

async function usageOf(customers) {
  const side = openSide('waggle', USAGE_NODES);
  try {
    await side.ask('start');
    await sleep(QUIET_MS);
    const rest = await side.ask('measure', { ms: USAGE_MS });
    await side.ask('meter', { perSecond: REQUESTS_PER_SECOND / USAGE_NODES, customers });
    await sleep(QUIET_MS);
    const load = await side.ask('measure', { ms: USAGE_MS });
    const changedRows = load.counted.changedRows * USAGE_NODES;
    const added = (load.bytes - rest.bytes) * USAGE_NODES;
    progress(`usage, ${customers} customers`);
    return {
      customers,
      requestsPerSecond: load.counted.done * USAGE_NODES,
      changedRowsPerSecond: changedRows,
      restBytesPerSecond: rest.bytes,
      bytesPerSecond: load.bytes,
      payloadBytesPerSecond: load.counted.bytesOut,
      bytesPerRowAndMember: added / changedRows / (USAGE_NODES - 1),
      cpuMsPerSecond: load.cpuMs,
      counted: load.counted,
    };
  } finally {
    await side.close();
  }
}

async function usage() {
  const rows = [];
  for (const customers of CUSTOMERS) rows.push(await usageOf(customers));
  const table = new Table({
    head: [
      'customers',
      'requests/s',
      'changed rows/s',
      'bytes/s at rest',
      'bytes/s',
      'payload',
      'bytes per row and member',
      'CPU ms/s',
    ],
  });
  for (const row of rows)
    table.push([
      row.customers,
      row.requestsPerSecond.toFixed(0),
      row.changedRowsPerSecond.toFixed(0),
      row.restBytesPerSecond.toFixed(0),
      row.bytesPerSecond.toFixed(0),
      row.payloadBytesPerSecond.toFixed(0),
      row.bytesPerRowAndMember.toFixed(1),
      row.cpuMsPerSecond.toFixed(1),
    ]);
  process.stdout.write(`${table.toString()}\n`);
  return rows;
}

const serf = execFileSync('serf', ['version'], { encoding: 'utf8' }).split('\n')[0];
const results = {
  ...(flags.part === 'usage' ? {} : { membership: await membership() }),
  ...(flags.part === 'membership' ? {} : { usage: await usage() }),
};
const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: here, encoding: 'utf8' }).trim();
const machine = { cpu: cpus()[0].model, cores: cpus().length, memoryBytes: totalmem(), node: process.version, serf };
const name = `${new Date().toISOString().slice(0, 10)}-${flags.part ?? 'membership'}${flags.quick ? '-quick' : ''}.json`;
const file = join(dirname(here), 'results', name);
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, `${JSON.stringify({ machine, commit, ...results }, null, 2)}\n`);
process.stdout.write(`written to ${file}\n`);
