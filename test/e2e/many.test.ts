import { spawn, type ChildProcess } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { freeSwarmPort, Operator, root, scratch, until, type ClusterView } from './harness.ts';

/* `npm run cluster`. */

const NODES = 3;
/** TCP ports that belong to these of UDP: below those that the system gives to connections, as of tests that run beside. */
const httpPortOf = (swarmPort: number): number => swarmPort - 10_000;
const data = scratch();
afterAll(() => data.remove());

/** A script that runs, and what it has printed so far. */
interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown[]>;
  readonly output: () => string;
  /** Waits for what it prints. Rejects when it ends without. */
  readonly find: (pattern: RegExp) => Promise<RegExpExecArray>;
}

interface Started extends Run {
  readonly urls: readonly string[];
  /** Of the nodes' processes. */
  readonly pids: readonly number[];
}

/** `npm run cluster` with these ports, its data in `path`, in a shell of that folder. */
function cluster(httpPort: number, swarmPort: number, path: string, cwd: string): Run {
  const ports = ['--http-port', String(httpPort), '--swarm-port', String(swarmPort)];
  const args = [join(root, 'scripts', 'cluster.js'), '--nodes', String(NODES), '--data', path, ...ports];
  const child = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let text = '';
  const heard = new EventEmitter();
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      heard.emit('more');
    });
  // Once all that it has written is here.
  const ended = once(child, 'close');
  const find = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (let isOver = false; ;) {
      const match = pattern.exec(text);
      if (match !== null) return match;
      if (isOver) throw new Error(`It ended without ${pattern}:\n${text}`);
      isOver = await Promise.race([once(heard, 'more').then(() => false), ended.then(() => true)]);
    }
  };
  return { child, ended, output: () => text, find };
}

async function start(httpPort: number, swarmPort: number, path = data.path, cwd = root): Promise<Started> {
  const run = cluster(httpPort, swarmPort, path, cwd);
  await run.find(/Ctrl-C stops them all\./);
  const output = run.output();
  const urls = [...output.matchAll(/^  node-\d+  (\S+)  /gm)].map((match) => match[1]!);
  expect(output).toContain('npx waggle customer create demo --with-key --quiet');
  expect(output).toMatch(/^node-3 \| \{.*"msg":"ready"/m);
  return { ...run, urls, pids: pidsOf(output) };
}

/** Of the nodes' processes. */
const pidsOf = (output: string): number[] => [
  ...new Set([...output.matchAll(/^node-\d+ \| .*"pid":(\d+)/gm)].map((match) => Number(match[1]))),
];

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(' ')[2] !== 'Z';
  } catch {
    return false;
  }
};

it('starts a cluster, drains it on Ctrl-C, takes its data up, and leaves no process behind when it is killed', async () => {
  const swarmPort = await freeSwarmPort();
  const httpPort = httpPortOf(swarmPort);
  const first = await start(httpPort, swarmPort);
  expect(first.urls).toEqual([0, 1, 2].map((i) => `http://127.0.0.1:${httpPort + i}`));
  const operator = (url: string): Operator => new Operator(url, join(data.path, 'node-1'));
  const all = async (url: string): Promise<true | undefined> => {
    const { members } = await operator(url).json<ClusterView>('/v1/cluster');
    return members.filter(({ state }) => state === 'alive').length === NODES ? true : undefined;
  };
  for (const url of first.urls) await until(`all at ${url}`, () => all(url));
  const put = await operator(first.urls[0]!).json('/v1/customers/kept?wait=all', 'PUT', { name: 'kept' });
  expect(put).toMatchObject({ visibleAt: { members: NODES, of: NODES } });
  first.child.kill('SIGINT');
  expect(await first.ended).toEqual([0, null]);

  const second = await start(httpPort, swarmPort);
  await until('the customer at the third node', async () =>
    (await operator(second.urls[2]!).fetch('/v1/customers/kept')).ok ? true : undefined,
  );
  for (const url of second.urls) await until(`all at ${url}`, () => all(url));
  second.child.kill('SIGKILL');
  await second.ended;
  await until('the nodes to end with it', async () => {
    const answers = await Promise.allSettled(second.urls.map((url) => fetch(`${url}/livez`)));
    return answers.every(({ status }) => status === 'rejected') ? true : undefined;
  });
  await until('their processes to end', async () => (second.pids.some(isRunning) ? undefined : true));
});

it('takes no settings out of the folder in which it is started', async () => {
  const folder = scratch();
  onTestFinished(() => folder.remove());
  mkdirSync(folder.path);
  const settings = { publicUrl: 'https://waggle.example', operatorToken: 'correct-horse-battery', logLevel: 'silent' };
  writeFileSync(join(folder.path, 'waggle.json'), JSON.stringify(settings));
  const swarmPort = await freeSwarmPort();
  const path = join(folder.path, 'data', 'cluster');
  const { urls, child, ended } = await start(httpPortOf(swarmPort), swarmPort, path, folder.path);
  const operator = new Operator(urls[0]!, join(path, 'node-1'));
  await until('the URLs of all', async () => {
    const { members } = await operator.json<ClusterView>('/v1/cluster');
    return urls.every((url) => members.some((member) => member.url === url)) ? true : undefined;
  });
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
});

it('ends with all its nodes at a Ctrl-C while newcomers start, and can be started again at once', async () => {
  const folder = scratch();
  onTestFinished(() => folder.remove());
  const swarmPort = await freeSwarmPort();
  const first = cluster(httpPortOf(swarmPort), swarmPort, folder.path, root);
  await first.find(/^node-2 \| .*invite given/m);
  first.child.kill('SIGINT');
  expect(await first.ended).toEqual([0, null]);
  expect(first.output()).not.toMatch(/^waggle: |did not start/m);
  expect(pidsOf(first.output()).filter(isRunning)).toEqual([]);

  const second = await start(httpPortOf(swarmPort), swarmPort, folder.path);
  second.child.kill('SIGINT');
  expect(await second.ended).toEqual([0, null]);
});

it('ends the nodes that run when another does not start, and only then itself', async () => {
  const folder = scratch();
  onTestFinished(() => folder.remove());
  mkdirSync(folder.path);
  // In the place of the folder of the second node.
  writeFileSync(join(folder.path, 'node-2'), '');
  const swarmPort = await freeSwarmPort();
  const run = cluster(httpPortOf(swarmPort), swarmPort, folder.path, root);
  expect(await run.ended).toEqual([1, null]);
  expect(run.output()).toMatch(/^waggle: node-2 did not start; its messages are above\.$/m);
  expect(run.output()).toMatch(/^node-1 \| .*"msg":"stopped"/m);
});

it('founds no second cluster in the place of a first node that is gone', async () => {
  const folder = scratch();
  onTestFinished(() => folder.remove());
  mkdirSync(join(folder.path, 'node-2'), { recursive: true });
  writeFileSync(join(folder.path, 'node-2', 'keys.json'), '{}');
  const swarmPort = await freeSwarmPort();
  const { ended, output } = cluster(httpPortOf(swarmPort), swarmPort, folder.path, root);
  expect(await ended).toEqual([1, null]);
  expect(output()).toMatch(
    /^waggle: Expected node-1 beside node-2 in .*: started anew it would found another cluster\./m,
  );
  expect(readdirSync(folder.path)).toEqual(['node-2']);
});
