import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished, vi } from 'vitest';
import { run } from '../../src/cli/index.ts';

/** The folder of the repository. */
export const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
export const BIN = join(ROOT, 'apps/node/bin/waggle.js');
export const PICTURE = join(ROOT, 'docs/assets/meadow.jpg');

/** The environment without any setting that the machine may have. */
const CLEAN = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WAGGLE_')));

/** Takes what is to be done when the test is over; else `onTestFinished` does. */
type CleanUp = (step: () => Promise<void>) => void;

/** An empty folder that is removed when the test, or the file if none is running, is over. */
export function temporary(cleanUp: CleanUp = onTestFinished): string {
  const folder = mkdtempSync(join(tmpdir(), 'waggle-cli-'));
  cleanUp(async () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

export interface Options {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A process of which output can be awaited. */
export class Running {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly #ended: Promise<number | null>;

  constructor(program: string, args: readonly string[], { cwd, env }: Options = {}) {
    this.child = spawn(program, args, { cwd, env: { ...CLEAN, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.child.stdout!.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.child.stderr!.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#ended = once(this.child, 'close').then(([code]) => code as number | null);
  }

  /** The exit code, once all output is here. */
  exit(): Promise<number | null> {
    return this.#ended;
  }

  /** The first match in what was or will be printed; throws when the process ends without. */
  async find(pattern: RegExp, stream: 'stdout' | 'stderr' = 'stdout'): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this[stream]);
      if (match !== null) return match;
      const ended = await Promise.race([
        once(this.child[stream]!, 'data').then(() => false),
        this.#ended.then(() => true),
      ]);
      if (ended && !pattern.test(this[stream]))
        throw new Error(`the process ended without ${pattern}:\n${this.stdout}\n${this.stderr}`);
    }
  }
}

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command of `waggle` in this process, which takes a tenth of the time; one at a time. */
export async function here(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const written = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((stream) =>
    vi.spyOn(process[stream], 'write').mockImplementation((chunk) => {
      written[stream] += typeof chunk === 'string' ? chunk : new TextDecoder().decode(chunk);
      return true;
    }),
  );
  const exitCode = process.exitCode;
  process.exitCode = 0;
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  try {
    await run(args);
    return { code: process.exitCode, ...written };
  } finally {
    vi.unstubAllEnvs();
    process.exitCode = exitCode;
    for (const spy of spies) spy.mockRestore();
  }
}

/** Runs a command of `waggle` to its end, as people do. */
export async function waggle(args: readonly string[], options: Options = {}): Promise<Ended> {
  const running = new Running(process.execPath, [BIN, ...args], options);
  const code = await running.exit();
  return { code, stdout: running.stdout, stderr: running.stderr };
}

/** Flags by which a node listens on ports that are free. */
export const ANYWHERE = ['--http', '127.0.0.1:0', '--swarm', '127.0.0.1:0'];

/** Starts a node on any port. It is killed when `cleanUp` says so, if it still runs. */
export async function startNode(
  data: string,
  flags: readonly string[] = [],
  options: Options = {},
  cleanUp: CleanUp = onTestFinished,
): Promise<Running & { readonly url: string }> {
  const args = ['start', ...ANYWHERE, '--data', data, '--workers', '1', ...flags];
  const node = new Running(process.execPath, [BIN, ...args], options);
  cleanUp(async () => {
    node.child.kill('SIGKILL');
    await node.exit();
  });
  const [, url] = await node.find(/^Waggle is ready at (\S+)$/m);
  await node.find(/Ctrl-C stops the node\.\n/);
  return Object.assign(node, { url: url! });
}
