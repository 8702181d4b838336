import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll } from 'vitest';

const BIN = fileURLToPath(new URL('../bin/waggle-verify.js', import.meta.url));

/** What a run of the verifier ended with. */
export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs the built program as it is run by people. */
export const runVerifier = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  new Promise((resolve) => {
    const { WAGGLE_TOKEN: _, ...inherited } = process.env;
    execFile(process.execPath, [BIN, ...args], { env: { ...inherited, ...env } }, (error, out, err) => {
      resolve({ code: error === null ? 0 : Number(error.code), out, err });
    });
  });

/** Makes a folder that goes away after the tests of the file; gives paths in it. */
export function scratch(): (...names: readonly string[]) => string {
  const folder = mkdtempSync(join(tmpdir(), 'waggle-verify-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return (...names) => join(folder, ...names);
}
