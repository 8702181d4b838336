import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const PROJECTS = [
  'packages/protocol',
  'packages/identity',
  'packages/images',
  'packages/runtime',
  'packages/client',
  'apps/verify',
  'apps/node',
];

/** Builds once before any test: workers and child processes run from `dist`, whatever runs the tests. */
export default function build(): void {
  const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'));
  execFileSync(process.execPath, [join(typescript, 'bin', 'tsc'), '-b', ...PROJECTS], { stdio: 'inherit' });
}
