import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { root, scratch } from './harness.ts';

const run = promisify(execFile);

it('npm start serves what it prints, with the verifier built beside it, and ends with 0 on Ctrl-C', async () => {
  const data = scratch();
  const flags = ['--http', '127.0.0.1:0', '--swarm', '127.0.0.1:0', '--data', data.path];
  const child = spawn(process.execPath, [join(root, 'scripts', 'start.js'), ...flags], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const url = await new Promise<string>((resolve, reject) => {
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      const found = /http:\/\/127\.0\.0\.1:[1-9][0-9]*/.exec((output += chunk.toString()));
      if (found !== null) resolve(found[0]);
    });
    void ended.then(() => reject(new Error(output)));
  });
  const token = readFileSync(join(data.path, 'operator.token'), 'utf8').trim();
  const verify = join(root, 'apps', 'verify', 'bin', 'waggle-verify.js');
  const { stdout } = await run(process.execPath, [verify, url, '--token', token]);
  expect(stdout).toContain('UNPINNED');
  child.kill('SIGINT');
  expect(await ended).toEqual([0, null]);
  data.remove();
});
