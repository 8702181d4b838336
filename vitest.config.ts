import { defineConfig } from 'vitest/config';

const source = { conditions: ['source', 'node', 'import', 'module', 'default'] };
const project = (name: string, include: string[], extra: Record<string, unknown> = {}) => ({
  resolve: source,
  ssr: { resolve: source },
  test: { name, include, ...extra },
});

/** One project per layer of docs/HACKING.md, so that each has a command of its own. */
export default defineConfig({
  test: {
    globalSetup: ['test/build.ts'],
    reporters: ['default'],
    // Much of what the files do is waiting.
    maxWorkers: '100%',
    projects: [
      project('tidy', ['test/tidy.test.ts', 'test/docs.test.ts']),
      project('unit', ['packages/*/test/**/*.test.ts', 'apps/*/test/**/*.test.ts'], {
        testTimeout: 60_000,
        hookTimeout: 60_000,
      }),
      project('sim', ['test/sim/**/*.test.ts'], { testTimeout: 120_000 }),
      project('e2e', ['test/e2e/**/*.test.ts'], { testTimeout: 300_000, hookTimeout: 120_000, fileParallelism: false }),
    ],
  },
});
