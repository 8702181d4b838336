import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it, onTestFinished } from 'vitest';
import { freeSwarmPort, Operator, root, scratch, until, type ClusterView } from './harness.ts';

/* `npm run cluster`. */

const NODES = 3;
const data = scratch();
afterAll(() => data.remove());

interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown[]>;
  readonly urls: readonly string[];
  /** Of the nodes' processes. */
  readonly pids: readonly number[];
}

async function start(httpPort: number, swarmPort: number): Promise<Started> {
  const ports = ['--http-port', String(httpPort), '--swarm-port', String(swarmPort)];
  const args = [join(root, 'scripts', 'cluster.js'), '--nodes', String(NODES), '--data', data.path, ...ports];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const ended = once(child, 'exit');
  const output = await new Promise<string>((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes('Ctrl-C stops them all.')) resolve(text);
    });
    void ended.then(() => reject(new Error(text)));
  });
  const urls = [...output.matchAll(/^  node-\d+  (\S+)  /gm)].map((match) => match[1]!);
  const pids = [...new Set([...output.matchAll(/^node-\d+ \| .*"pid":(\d+)/gm)].map((match) => Number(match[1])))];
  expect(output).toContain('npx waggle customer create demo --with-key --quiet');
  expect(output).toMatch(/^node-3 \| \{.*"msg":"ready"/m);
  return { child, ended, urls, pids };
}

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
  const httpPort = swarmPort + 20_000;
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
