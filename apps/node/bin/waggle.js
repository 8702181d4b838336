#!/usr/bin/env node
import { existsSync } from 'node:fs';

const entry = new URL('../dist/cli/index.js', import.meta.url);
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);

if (major < 20 || (major === 20 && minor < 19)) {
  process.stderr.write(`waggle: Expected Node.js 20.19 or newer, received ${process.versions.node}\n`);
  process.exitCode = 1;
} else if (existsSync(entry)) {
  // Whoever reads our output may stop reading, as `head` does.
  process.stdout.on('error', ({ code }) => process.exit(code === 'EPIPE' ? 0 : 1));
  const { run } = await import(entry.href);
  await run(process.argv.slice(2));
} else {
  process.stderr.write('waggle: Expected a build, found none. Run: npm run build\n');
  process.exitCode = 1;
}
