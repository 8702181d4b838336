import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';

// Node 20 does not run TypeScript by itself; vite, which is here for the tests, does.
try {
  await runnerImport(join(dirname(fileURLToPath(import.meta.url)), 'main.ts'), { configFile: false });
} catch (error) {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 2;
}
