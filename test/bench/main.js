/*
 * `npm run bench` (`-- --quick`: two minutes at most): every figure is a ratio to a yardstick measured in the same run, because
 * machines differ and are shared. Prints a table and writes test/bench/results/<date>.json.
 */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import Table from 'cli-table3';
import sharp from 'sharp';
import { alternate, cpuSeconds, median, quantile, residentBytes } from './measure.js';
import { authentication, fillDirectory } from './identity.js';
import { measureHash, measureSeal, measureVerify } from './seal.js';

const run = promisify(execFile);
const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(dirname(here));
const isQuick = process.argv.includes('--quick');
const ROUNDS = isQuick ? 3 : 9;
const MS = isQuick ? 2_000 : 4_000;
const CUSTOMERS = isQuick ? 20_000 : 100_000;
const WORKERS = 2;

const scratch = mkdtempSync(join(tmpdir(), 'waggle-bench-'));
const picture = join(scratch, 'picture.jpg');
const rows = [];
const row = (name, unit, aim, isMet, { value, yardstick, ratio, spread }) =>
  rows.push({
    name,
    value,
    unit,
    yardstick: yardstick ?? null,
    ratio: ratio ?? null,
    spread: spread ?? null,
    aim,
    met: isMet,
  });

/** A node as its operator starts it. */
async function startNode(data, flags = []) {
  const args = [
    join(root, 'apps/node/bin/waggle.js'),
    'start',
    '--http',
    '127.0.0.1:0',
    '--data',
    data,
    '--drain-ms',
    '0',
    '--workers',
    String(WORKERS),
    '--log-level',
    'warn',
    ...flags,
  ];
  const startedAt = performance.now();
  const child = spawn(process.execPath, args, { cwd: scratch, stdio: ['ignore', 'pipe', 'inherit'] });
  const url = await new Promise((resolve, reject) => {
    let output = '';
    child.stdout.on('data', (chunk) => {
      const found = /http:\/\/127\.0\.0\.1:[1-9][0-9]*/.exec((output += chunk));
      if (found !== null) resolve(found[0]);
    });
    child.once('exit', (code) => reject(new Error(`the node ended with ${code}`)));
  });
  while ((await fetch(`${url}/readyz`)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 5));
  const readySeconds = (performance.now() - startedAt) / 1000;
  const stop = () =>
    new Promise((resolve) => {
      child.once('exit', resolve);
      child.kill('SIGTERM');
    });
  return { url, pid: child.pid, readySeconds, stop };
}

async function load(url, options) {
  const { stdout } = await run(
    process.execPath,
    [join(here, 'load.js'), JSON.stringify({ url, ms: MS, clients: 8, method: 'POST', ...options })],
    { maxBuffer: 2 ** 24 },
  );
  return JSON.parse(stdout);
}

async function operator(url, data, path, method, body) {
  const authorization = `Bearer ${readFileSync(join(data, 'operator.token'), 'utf8').trim()}`;
  const response = await fetch(url + path, {
    method,
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  return response.json();
}

async function sharpLoops() {
  const loops = await Promise.all(
    Array.from({ length: WORKERS }, () =>
      run(process.execPath, [join(here, 'sharp-loop.js'), picture, String(MS)], {
        env: { ...process.env, UV_THREADPOOL_SIZE: '1', MALLOC_ARENA_MAX: '1' },
      }),
    ),
  );
  const results = loops.map(({ stdout }) => JSON.parse(stdout));
  return {
    rate: results.reduce((sum, { count, seconds }) => sum + count / seconds, 0),
    cpuMs:
      (1000 * results.reduce((sum, { cpuSeconds: used }) => sum + used, 0)) /
      results.reduce((sum, { count }) => sum + count, 0),
  };
}

async function benchPath() {
  const data = join(scratch, 'path');
  const node = await startNode(data);
  await operator(node.url, data, '/v1/customers/bench', 'PUT', {
    name: 'bench',
    limits: { requestsPerSecond: 1_000_000 },
  });
  const { key } = await operator(node.url, data, '/v1/customers/bench/keys', 'POST', {});
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'image/jpeg' };

  const cpu = { loop: [], api: [] };
  const speed = await alternate(
    ROUNDS,
    async () => {
      const { rate, cpuMs } = await sharpLoops();
      cpu.loop.push(cpuMs);
      return rate;
    },
    async () => {
      const before = cpuSeconds(node.pid);
      const { count, seconds, statuses } = await load(node.url, {
        path: '/v1/resize?width=400&height=300&quality=80',
        headers,
        bodyFile: picture,
      });
      if (statuses[200] !== count) throw new Error(`not all resizes succeeded: ${JSON.stringify(statuses)}`);
      cpu.api.push((1000 * (cpuSeconds(node.pid) - before)) / count);
      return count / seconds;
    },
  );
  row(
    'resizes/s through the API, one node (load generator on the same cores)',
    'img/s',
    '>= 0.90 of the bare sharp loop',
    speed.ratio >= 0.9,
    speed,
  );
  const ratios = cpu.api.map((ms, i) => ms / cpu.loop[i]);
  const cpuRow = {
    value: median(cpu.api),
    yardstick: median(cpu.loop),
    ratio: median(ratios),
    spread: [Math.min(...ratios), Math.max(...ratios)],
  };
  row('CPU per image, all processes of the node', 'ms', '<= 1.10 of the bare sharp loop', cpuRow.ratio <= 1.1, cpuRow);

  const latencies = { bare: [], metered: [] };
  const small = join(scratch, 'small');
  writeFileSync(small, 'x');
  const requests = await alternate(
    ROUNDS,
    async () => {
      const { count, seconds, latencies: each } = await load(node.url, { path: '/livez', method: 'GET', clients: 32 });
      latencies.bare.push(quantile(each, 0.99) / 1000);
      return count / seconds;
    },
    async () => {
      // Refused for its width: authenticated, admitted, parsed, metered and on disk, without any work on a picture.
      const {
        count,
        seconds,
        latencies: each,
        statuses,
      } = await load(node.url, { path: '/v1/resize?width=0', headers, bodyFile: small, clients: 32 });
      if (statuses[400] !== count) throw new Error(`expected refusals: ${JSON.stringify(statuses)}`);
      latencies.metered.push(quantile(each, 0.99) / 1000);
      return count / seconds;
    },
  );
  row(
    'requests/s with authentication, admission and durable metering, no image work',
    'req/s',
    '>= 0.85 of an empty route',
    requests.ratio >= 0.85,
    requests,
  );
  const added = latencies.metered.map((ms, i) => ms - latencies.bare[i]);
  row('p99 added by authentication and the durable commit, 32 clients', 'ms', '<= 6 ms', median(added) <= 6, {
    value: median(added),
    yardstick: median(latencies.bare),
    spread: [Math.min(...added), Math.max(...added)],
  });
  await node.stop();
}

async function benchCustomers() {
  const data = join(scratch, 'customers');
  await fillDirectory(data, CUSTOMERS);
  const starts = [];
  let resident = 0;
  for (let i = 0; i < (isQuick ? 2 : 5); i++) {
    const node = await startNode(data);
    starts.push(node.readySeconds);
    resident = residentBytes(node.pid);
    await node.stop();
  }
  row(`start with ${CUSTOMERS} customers`, 's', '<= 3 s until ready', median(starts) <= 3, {
    value: median(starts),
    spread: [Math.min(...starts), Math.max(...starts)],
  });
  row(`memory with ${CUSTOMERS} customers, the node's main process`, 'MB', '<= 400 MB', resident <= 400e6, {
    value: resident / 1e6,
  });
}

async function benchSeal() {
  const archive = join(scratch, 'epoch-0.tar');
  const blocks = [];
  const verified = [];
  const hashed = [];
  let memory = 0;
  for (let i = 0; i < (isQuick ? 1 : 3); i++) {
    const { blockMs } = await measureSeal(CUSTOMERS, archive);
    blocks.push(blockMs);
    hashed.push(measureHash(archive));
    const { verifyMs, mostBytes } = await measureVerify(archive);
    verified.push(verifyMs);
    memory = Math.max(memory, mostBytes);
  }
  const range = (values) => [Math.min(...values), Math.max(...values)];
  row(`longest block of the event loop, seal of ${CUSTOMERS} customers`, 'ms', '<= 100 ms', median(blocks) <= 100, {
    value: median(blocks),
    spread: range(blocks),
  });
  const ratios = verified.map((ms, i) => ms / hashed[i]);
  row(
    `verification of an epoch of ${CUSTOMERS} statements`,
    'ms',
    '<= 10 x reading and hashing its archive',
    median(ratios) <= 10,
    { value: median(verified), yardstick: median(hashed), ratio: median(ratios), spread: range(ratios) },
  );
  row('most memory of that verification', 'MB', '', null, { value: memory / 1e6 });
}

const number = (value) => (value === null ? '' : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3));

try {
  await sharp({
    create: {
      width: 1600,
      height: 1200,
      channels: 3,
      background: '#888',
      noise: { type: 'gaussian', mean: 128, sigma: 18 },
    },
  })
    .blur(2)
    .jpeg({ quality: 90 })
    .toFile(picture);
  await benchPath();
  const { ratio, ...rest } = await authentication(CUSTOMERS, ROUNDS);
  row(`authentication with ${CUSTOMERS} customers`, 'µs', '<= 1.5 x a Map look-up plus one SHA-256', ratio <= 1.5, {
    ratio,
    ...rest,
  });
  await benchCustomers();
  await benchSeal();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

const table = new Table({ head: ['what', 'value', 'yardstick', 'ratio', 'spread', 'aim', 'met'] });
for (const { name, value, unit, yardstick, ratio, spread, aim, met } of rows)
  table.push([
    name,
    `${number(value)} ${unit}`,
    yardstick === null ? '' : `${number(yardstick)} ${unit}`,
    number(ratio),
    spread === null ? '' : spread.map(number).join(' to '),
    aim,
    met === null ? '' : met ? 'yes' : 'no',
  ]);
process.stdout.write(`${table.toString()}\n`);
const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
const machine = { cpu: cpus()[0].model, cores: cpus().length, memoryBytes: totalmem(), node: process.version };
const file = join(here, 'results', `${new Date().toISOString().slice(0, 10)}${isQuick ? '-quick' : ''}.json`);
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, `${JSON.stringify({ machine, commit, rows }, null, 2)}\n`);
process.stdout.write(`written to ${file}\n`);
