import { readFileSync } from 'node:fs';
import { assert } from '@waggle/protocol/base';
import { addressText, isWildcard, type Config } from '../config.ts';
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

/**
 * What clients call this node: as configured, else the address it listens on, which answers at the one that members dial where it
 * is all of the machine's.
 */
export function publicUrl({ server }: Pick<App, 'server'>, config: Config): string {
  const { publicUrl: configured, http, swarm, swarmAdvertise } = config;
  if (configured !== null) return configured;
  const address = server.address();
  const port = address === null || typeof address === 'string' ? http.port : address.port;
  const host = isWildcard(http.host) ? (swarmAdvertise ?? swarm).host : http.host;
  return `http://${addressText({ host, port })}`;
}
