/*
 * Cleans up after a benchmark, however that ends: `node reaper.js`. It reads lines from the benchmark, `+pid N`, `-pid N`, `+dir PATH`,
 * `+ns NAME` and `+link NAME`, and when its input ends it kills those processes, removes those network namespaces, links and
 * directories, in that order. Nobody is killed but those whose ids it was told.
 */
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { createInterface } from 'node:readline';

const held = { pid: new Set(), ns: new Set(), link: new Set(), dir: new Set() };

const attempt = (clean) => {
  try {
    clean();
  } catch {
    // Gone already.
  }
};

// The benchmark's own end is what this waits for, also when a Ctrl-C goes to the whole group.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => {});

for await (const line of createInterface({ input: process.stdin })) {
  const [, sign, kind, name] = /^([+-])([a-z]+) (.*)$/.exec(line);
  if (sign === '+') held[kind].add(name);
  else held[kind].delete(name);
}
for (const pid of held.pid) attempt(() => process.kill(Number(pid), 'SIGKILL'));
for (const name of held.ns) attempt(() => execFileSync('ip', ['netns', 'delete', name], { stdio: 'ignore' }));
for (const name of held.link) attempt(() => execFileSync('ip', ['link', 'delete', name], { stdio: 'ignore' }));
for (const path of held.dir)
  attempt(() => rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }));
