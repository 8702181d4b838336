/*
 * One cluster in a network namespace of its own, of which this process is the first: what its loopback interface counts is the
 * traffic of this cluster. The parent asks by messages `{ id, verb, ...arguments }` and gets `{ id, result }` or `{ id, error }`.
 * Arguments: `waggle` or `serf`, the size, the cluster's start in Unix ms.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuSeconds } from '../measure.js';
import { commands, parsers } from './agents.js';

const UP_MS_MAX = 120_000;
const DETECT_MS_MAX = 120_000;
/** After the last stop a verdict may still be under way, in ms. */
const AFTERMATH_MS = 20_000;

const [name, size, startMs] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];

/** What each process has found of the others, and when (monotonic ms). */
const agents = Array.from({ length: size }, () => ({ child: null, isUp: false, views: new Map(), reports: [] }));
const events = [];
let onEvent = () => undefined;
/** Why nothing can come of this any more, or null. */
let broken = null;

function read(observer, line) {
  const found = parsers[name](line);
  if (found === null) return;
  if (found.unexpected !== undefined) return void process.stderr.write(`node ${observer}: ${found.unexpected}\n`);
  if (found.report !== undefined) return void agents[observer].reports.shift()(found.report);
  agents[observer].views.set(found.subject, found.state);
  events.push({ observer, ...found, atMs: performance.now() });
  onEvent();
}

function start(i) {
  const agent = agents[i];
  const [file, args] = commands[name](i, size, startMs);
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', name === 'serf' ? 'pipe' : 'inherit'] });
  child.on('error', (error) => process.stderr.write(`${error}\n`));
  child.on('exit', (code) => {
    if (agent.child !== child || !agent.isUp) return;
    broken = new Error(`${name} ${i} ended by itself: ${code}`);
    onEvent();
  });
  for (const stream of [child.stdout, child.stderr])
    if (stream !== null)
      createInterface({ input: stream }).on('line', (line) => {
        if (agent.child === child) read(i, line);
      });
  Object.assign(agent, { child, isUp: true, views: new Map() });
}

async function kill(i) {
  const agent = agents[i];
  agent.isUp = false;
  const exited = once(agent.child, 'exit');
  agent.child.kill('SIGKILL');
  await exited;
}

/** Waits until something holds; looks after every event. */
async function until(what, msMax, holds) {
  const deadline = AbortSignal.timeout(msMax);
  while (!holds()) {
    if (broken !== null) throw broken;
    if (deadline.aborted) throw new Error(`${name}, ${size} nodes: ${what} took more than ${msMax} ms`);
    await Promise.race([new Promise((resolve) => (onEvent = resolve)), sleep(100)]);
  }
}

const others = (i) => agents.flatMap((agent, k) => (k !== i && agent.isUp ? [{ k, ...agent }] : []));
const isWhole = () =>
  agents.every((agent, i) => !agent.isUp || others(i).every(({ k }) => agent.views.get(k) === 'alive'));
const whole = () => until('to find all alive', UP_MS_MAX, isWhole);

/** Bytes and packets that the loopback interface has sent. */
function traffic() {
  const lo = /lo:(.*)/.exec(readFileSync('/proc/net/dev', 'utf8'))[1].trim().split(/\s+/).map(Number);
  return { bytes: lo[8], packets: lo[9] };
}

const verbs = {
  async start() {
    for (let i = 0; i < size; i++) start(i);
    await whole();
  },

  /** Kills one: the ms until each other says that it is dead. Then starts it again, which `settle` waits for. */
  async detect({ victim }) {
    const killedMs = performance.now();
    const from = events.length;
    await kill(victim);
    const verdicts = () =>
      events
        .slice(from)
        .filter(({ subject, state, observer }) => subject === victim && state === 'dead' && observer !== victim);
    await until(
      'detection',
      DETECT_MS_MAX,
      () => new Set(verdicts().map(({ observer }) => observer)).size === size - 1,
    );
    const first = new Map();
    for (const { observer, atMs } of verdicts()) if (!first.has(observer)) first.set(observer, atMs - killedMs);
    start(victim);
    return [...first.values()];
  },

  settle: whole,

  /** Stops and resumes some again and again, all at the same moments: verdicts about processes of which none was killed. */
  async stall({ victims, ms, stopMs, runMs }) {
    const from = events.length;
    const signal = (what) => victims.forEach((i) => agents[i].child.kill(what));
    const endMs = performance.now() + ms;
    while (performance.now() < endMs) {
      signal('SIGSTOP');
      await sleep(stopMs);
      signal('SIGCONT');
      await sleep(runMs);
    }
    await sleep(AFTERMATH_MS);
    const verdicts = events.slice(from).filter(({ state }) => state === 'dead');
    const about = verdicts.filter(({ subject }) => victims.includes(subject));
    const subjects = (list) => new Set(list.map(({ subject }) => subject)).size;
    const healthy = verdicts.filter(({ subject }) => !victims.includes(subject));
    const result = {
      healthy: healthy.length,
      healthySubjects: subjects(healthy),
      stopped: about.length,
      stoppedSubjects: subjects(about),
    };
    await whole();
    return result;
  },

  /** Per node and second: bytes, packets, CPU in ms. */
  async measure({ ms }) {
    const cpu = () => agents.reduce((sum, { child }) => sum + cpuSeconds(child.pid), 0);
    const before = { ...traffic(), cpu: cpu(), atMs: performance.now(), reports: await reports() };
    await sleep(ms);
    const after = { ...traffic(), cpu: cpu(), atMs: performance.now(), reports: await reports() };
    const perNodeSecond = size * ((after.atMs - before.atMs) / 1_000);
    const result = {
      bytes: (after.bytes - before.bytes) / perNodeSecond,
      packets: (after.packets - before.packets) / perNodeSecond,
      cpuMs: (1_000 * (after.cpu - before.cpu)) / perNodeSecond,
    };
    const counted = {};
    for (const key of Object.keys(after.reports[0] ?? {}))
      counted[key] =
        after.reports.reduce((sum, report, i) => sum + report[key] - before.reports[i][key], 0) / perNodeSecond;
    return { ...result, counted };
  },

  /** Meters so many requests a second at each node, evenly over so many customers. */
  meter({ perSecond, customers }) {
    for (const { child } of agents) child.stdin.write(`meter ${perSecond} ${customers}\n`);
  },
};

/** What our nodes count themselves; nothing of serf's. */
async function reports() {
  if (name !== 'waggle') return [];
  return Promise.all(
    agents.map(({ child, reports: waiting }) => {
      const report = new Promise((resolve) => waiting.push(resolve));
      child.stdin.write('report\n');
      return report;
    }),
  );
}

async function answer({ id, verb, ...args }) {
  try {
    process.send({ id, result: (await verbs[verb](args)) ?? null });
  } catch (error) {
    process.send({ id, error: String(error) });
  }
}
process.on('message', (question) => void answer(question));
const end = () => {
  for (const { child } of agents) child?.kill('SIGKILL');
  process.exit();
};
process.on('disconnect', end).on('SIGTERM', end).on('SIGINT', end);
