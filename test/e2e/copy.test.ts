import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { root, startCluster, until, type ClusterView } from './harness.ts';

it('of two processes with one key the newer stops, and the older says that there was one', async () => {
  const cluster = await startCluster(2);
  onTestFinished(() => cluster.remove());
  const original = cluster.nodes[1]!;
  expect(await original.stop()).toBe(0);
  const copy = join(dirname(original.data), 'copy');
  cpSync(original.data, copy, { recursive: true });
  // As of a copy that is not noticed at its start: an image of the whole machine.
  rmSync(join(copy, 'place.json'));
  await original.start();

  const bin = join(root, 'apps', 'node', 'bin', 'waggle.js');
  const anywhere = ['--http', '127.0.0.1:0', '--swarm', '127.0.0.1:0', '--workers', '1'];
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WAGGLE_')));
  const newer = spawn(process.execPath, [bin, 'start', '--data', copy, ...anywhere], { cwd: tmpdir(), env });
  onTestFinished(() => void newer.kill('SIGKILL'));
  let said = '';
  newer.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  newer.stdout.resume();
  const [code] = (await once(newer, 'close')) as [number | null];
  expect(code, said).toBe(1);
  expect(said).toMatch(/runs on a copy of its data directory and stops.*DATA_LOCKED/);

  await until('the alarm at the older one', async () => {
    const { alarms } = await original.operator.json<ClusterView>('/v1/cluster');
    return alarms.some((text) => text.includes('should have stopped (seen at ')) ? true : undefined;
  });
  expect(original.running.output()).toMatch(/"alarm":\{"what":"duplicate".*should have stopped/);
  expect((await fetch(`${original.url}/readyz`)).status).toBe(200);
});
