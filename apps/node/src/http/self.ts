import { readFileSync } from 'node:fs';
import { assert } from '@waggle/protocol/base';
import type { Config } from '../config.ts';
import type { App } from './app.ts';

function readVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: unknown;
  };
  assert(typeof version === 'string', 'a package has a version');
  return version;
}

/** The version of this build. */
export const VERSION = readVersion();

/** What clients call this node: as configured, else the address it listens on. */
export function publicUrl({ server }: Pick<App, 'server'>, { publicUrl: configured, http }: Config): string {
  if (configured !== null) return configured;
  const address = server.address();
  const port = address === null || typeof address === 'string' ? http.port : address.port;
  return `http://${http.host.includes(':') ? `[${http.host}]` : http.host}:${port}`;
}
