/*
 * `npm run cluster`: a cluster of several nodes on this machine, each a process of its own. `-- --nodes N` says how many; their
 * data is in ./data/cluster, and a second start takes it up. Ctrl-C drains them all.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { build, checkNode, fail, install, root, say } from './install.js';

/** Epochs are short, so that sealing can be watched. */
const EPOCH_MS = 10_000;
const SEAL_GRACE_MS = 5_000;
const NODES_MAX = 20;
/** How often to look which nodes have ended, in ms. */
const LOOK_MS = 200;
/** How often to ask whether a node takes requests: for ten seconds. */
const TRIES_MAX = 50;
/** What a node prints when it answers. */
const READY = /^Waggle is ready at (\S+)$/;

const { NODE_NUMBER } = process.env;
if (NODE_NUMBER === undefined) await main();
else await runNode();

/** In the process of one node: it ends with its parent, however that ends. */
async function runNode() {
  delete process.env.NODE_NUMBER;
  process.on('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  // To listen to its parent keeps no node alive that could not start.
  process.channel.unref();
  const { run } = await import(pathToFileURL(join(root, 'apps/node/dist/cli/index.js')).href);
  await run(process.argv.slice(2));
}

async function main() {
  const options = readOptions();
  checkNode();
  install();
  if (!build('apps/node', 'apps/verify')) fail('The build failed; its messages are above.');
  const nodes = [];
  const stopping = new AbortController();
  const ended = stopTogether(nodes, stopping);
  try {
    mkdirSync(options.data, { recursive: true, mode: 0o700 });
    await startAll(options, nodes, stopping.signal);
    say(greeting(nodes));
  } catch (error) {
    // Nodes that are stopped while they start do not start: nothing is wrong with that.
    if (!stopping.signal.aborted) {
      process.stderr.write(`waggle: ${error.message}\n`);
      process.exitCode = 1;
      stopping.abort();
    }
  }
  // Whoever starts them again finds ports and data free.
  await ended;
}

/** Starts all nodes, and adds each to `nodes` as soon as it has a process. Throws what keeps one from starting, and when aborted. */
async function startAll(options, nodes, signal) {
  const numbers = Array.from({ length: options.count - 1 }, (_, i) => i + 2);
  const isNew = (number) => !existsSync(join(options.data, `node-${number}`, 'keys.json'));
  const joined = readdirSync(options.data).find((name) => existsSync(join(options.data, name, 'keys.json')));
  if (isNew(1) && joined !== undefined)
    throw new Error(
      `Expected node-1 beside ${joined} in ${options.data}: started anew it would found another cluster. Put it back, start the others one by one with npm start, or begin again with another --data.`,
    );
  // Those that have joined before know each other; the first of all makes an invite for the others.
  for (const number of [1, ...numbers.filter((each) => !isNew(each))]) nodes.push(start(options, number));
  await Promise.all(nodes.map(ready));
  const newcomers = numbers.filter(isNew);
  if (newcomers.length > 0) {
    const invite = await makeInvite(nodes[0], newcomers.length);
    signal.throwIfAborted();
    nodes.push(...newcomers.map((number) => start(options, number, invite)));
    await Promise.all(nodes.map(ready));
  }
  signal.throwIfAborted();
  nodes.sort((a, b) => a.number - b.number);
}

function readOptions() {
  const number = (text, name, min, max) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max)
      fail(`Expected a whole number from ${min} to ${max} for --${name}, received ${text}`);
    return value;
  };
  try {
    const { values } = parseArgs({
      options: {
        nodes: { type: 'string', default: '3' },
        data: { type: 'string', default: './data/cluster' },
        'http-port': { type: 'string', default: '8080' },
        'swarm-port': { type: 'string', default: '7070' },
      },
    });
    return {
      count: number(values.nodes, 'nodes', 1, NODES_MAX),
      data: resolve(values.data),
      httpPort: number(values['http-port'], 'http-port', 1, 65_535 - NODES_MAX),
      swarmPort: number(values['swarm-port'], 'swarm-port', 1, 32_767 - NODES_MAX),
    };
  } catch (error) {
    return fail(`${error.message}. There are --nodes N, --data DIRECTORY, --http-port PORT, --swarm-port PORT.`);
  }
}

/** Starts node `number`, from 1 on. An invite is for its first start; later ones pass it over. */
function start({ data, httpPort, swarmPort }, number, invite) {
  const name = `node-${number}`;
  const directory = join(data, name);
  const settings = {
    http: `127.0.0.1:${httpPort + number - 1}`,
    swarm: `127.0.0.1:${swarmPort + number - 1}`,
    data: directory,
    'epoch-ms': EPOCH_MS,
    'seal-grace-ms': SEAL_GRACE_MS,
    workers: 1,
    'drain-ms': 0,
  };
  const args = ['start', ...Object.entries(settings).map(([flag, value]) => `--${flag}=${value}`)];
  const child = fork(fileURLToPath(import.meta.url), args, {
    // Not in the terminal's group: a Ctrl-C is passed on to it once, by this process.
    detached: true,
    silent: true,
    // Not where this was started: a waggle.json there is for a node of its own.
    cwd: data,
    // Not among the arguments, which everyone on this machine can read.
    env: {
      ...withoutSettings(),
      NODE_NUMBER: String(number),
      ...(invite === undefined ? {} : { WAGGLE_JOIN: invite }),
    },
  });
  const node = { number, name, directory, child, url: undefined };
  createInterface({ input: child.stderr }).on('line', (line) => say(`${name} | ${line}`));
  // What it tells people is said once, for all of them.
  createInterface({ input: child.stdout }).on('line', (line) => {
    const match = READY.exec(line);
    if (match === null) return;
    node.url = match[1];
    child.emit('ready');
  });
  return node;
}

/** The environment without settings of a node: the flags say it all. */
function withoutSettings() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WAGGLE_')));
}

function hasEnded({ exitCode, signalCode }) {
  return exitCode !== null || signalCode !== null;
}

/** Waits until a node answers, and takes requests: it hears from the others before. Throws if it ends instead. */
async function ready(node) {
  if (node.url === undefined) await Promise.race([once(node.child, 'ready'), once(node.child, 'exit')]);
  if (node.url === undefined) throw new Error(`${node.name} did not start; its messages are above.`);
  for (let tries = 0; tries < TRIES_MAX && !hasEnded(node.child); tries++) {
    const isReady = await fetch(`${node.url}/readyz`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isReady) return;
    await delay(LOOK_MS);
  }
}

/** An invite for so many nodes, by the first one. Throws when it makes none. */
async function makeInvite({ url, directory }, uses) {
  const token = join(directory, 'operator.token');
  if (!existsSync(token) || !existsSync(join(directory, 'operator.key')))
    throw new Error(`Expected operator.token and operator.key in ${directory}: new nodes are invited by them.`);
  const headers = {
    authorization: `Bearer ${readFileSync(token, 'utf8').trim()}`,
    'content-type': 'application/json',
  };
  const response = await fetch(`${url}/v1/cluster/invites`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ uses }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`No invite: ${answer.code}: ${answer.detail}`);
  return answer.invite;
}

/**
 * Drains all nodes when `stopping` is aborted, as it is by the first SIGINT, SIGTERM or SIGHUP. Resolves when all have ended; while
 * some run, they go on.
 */
function stopTogether(nodes, stopping) {
  const { signal: stop } = stopping;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stopping.abort());
  stop.addEventListener('abort', () => nodes.forEach(({ child }) => child.kill('SIGTERM')));
  const told = new Set();
  return new Promise((done) => {
    const look = setInterval(() => {
      const ended = nodes.filter(({ child }) => hasEnded(child));
      for (const { name, child } of ended.filter((node) => !told.has(node))) {
        if (!stop.aborted) say(`${name} ended (${child.signalCode ?? child.exitCode}); start again to have it back.`);
        // What is stopped while it starts ends by the signal.
        if (child.exitCode !== 0 && !(stop.aborted && child.signalCode === 'SIGTERM')) process.exitCode = 1;
      }
      for (const node of ended) told.add(node);
      const isOver = stop.aborted || nodes.length > 0;
      if (!isOver || ended.length < nodes.length) return;
      clearInterval(look);
      done();
    }, LOOK_MS);
  });
}

function greeting(nodes) {
  const [first] = nodes;
  const at = (i) => nodes[i % nodes.length].url;
  const data = relative(process.cwd(), first.directory) || '.';
  const operator = (i) => `--url ${at(i)} --data ${data}`;
  return [
    '',
    `A cluster of ${nodes.length}, with epochs of ${EPOCH_MS / 1000} s:`,
    '',
    ...nodes.map(({ name, url, directory }) => `  ${name}  ${url}  ${directory}`),
    '',
    'Try it, in another shell in this folder: a customer made at one node, a picture from the next, the usage at a third.',
    '',
    `  KEY=$(npx waggle customer create demo --with-key --quiet ${operator(0)})`,
    `  npx waggle resize docs/assets/meadow.jpg --width 400 --format webp -o small.webp --key "$KEY" --url ${at(1)}`,
    `  npx waggle usage demo ${operator(2)}`,
    '',
    `And watch it: npx waggle status --all ${operator(0)}, npx waggle epochs --watch --url ${at(0)}`,
    'Ctrl-C stops them all.',
    '',
  ].join('\n');
}
