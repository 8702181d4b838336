#!/usr/bin/env node
import { existsSync } from 'node:fs';

const entry = new URL('../dist/index.js', import.meta.url);
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);

if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(`waggle-verify: Expected Node.js 20.19 or newer, received ${process.versions.node}\n`);
  process.exitCode = 2;
} else if (existsSync(entry)) {
  // Whoever stops reading, as `head` does, still gets the exit code: that is the verdict.
  process.stdout.on('error', ({ code }) => {
    if (code !== 'EPIPE') process.exit(2);
  });
  const { run } = await import(entry.href);
  process.exitCode = await run(process.argv.slice(2), process.env);
} else {
  process.stderr.write('waggle-verify: Expected a build, found none. Run: npm run build\n');
  process.exitCode = 2;
}
