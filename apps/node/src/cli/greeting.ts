import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadConfig, type Config } from '../config.ts';
import { localUrl } from './client.ts';

/** What the start tells people about a node that runs. */
export interface Running {
  readonly config: Config;
  /** Where it is asked from this machine. */
  readonly url: string;
  /** Whether this start founded the cluster. */
  readonly founded: boolean;
  /** The file with the operator token, whether or not it is there. */
  readonly operatorTokenFile: string;
  readonly operatorKeyFile: string;
}

/** The folder of this repository. */
const ROOT = fileURLToPath(new URL('../../../../', import.meta.url));
const PICTURE = 'docs/assets/meadow.jpg';

/**
 * What is printed when a node is ready: where it is and where its secrets are; on the first start, three commands too, which
 * work as they are in another shell in the same folder.
 */
export function greeting(running: Running): string {
  const { url, founded, config, operatorTokenFile, operatorKeyFile } = running;
  const hasToken = existsSync(operatorTokenFile);
  const hasKey = existsSync(operatorKeyFile);
  const lines = [
    `Waggle is ready at ${url}`,
    '',
    `  data            ${config.data}`,
    `  operator token  ${hasToken ? operatorTokenFile : founded ? 'the one that you brought' : THE_CLUSTERS}`,
    ...(hasKey ? [`  operator key    ${operatorKeyFile}`, `                  ${KEY_ADVICE}`] : []),
    '',
    ...(founded
      ? ['Try it, in another shell in this folder:', '', ...commands(running).map((line) => `  ${line}`), '']
      : []),
    'The log is on standard error, one JSON object a line. Ctrl-C stops the node.',
  ];
  return `${lines.join('\n')}\n`;
}

const THE_CLUSTERS =
  'that of the cluster: give it with --token, or make one where it is: waggle token create operator NAME';
const KEY_ADVICE = 'Move it off this node to a safe place: the node runs without it, and who has it decides who votes.';

/** Create a customer and a key, resize a picture, see the usage. */
function commands({ config, url, operatorTokenFile }: Running): string[] {
  const waggle = waggleCommand();
  const where = differences(config, url);
  const token = existsSync(operatorTokenFile) ? [] : ["export WAGGLE_TOKEN='<the operator token that you brought>'"];
  const picture = quoted(nearest(join(ROOT, PICTURE)));
  const resizeUrl = quoted(`${url}/v1/resize?width=400&format=webp`);
  const resize = isInstalled('curl')
    ? `curl -fsS -H "Authorization: Bearer $KEY" -H 'Content-Type: image/jpeg' --data-binary @${picture} ${resizeUrl} -o small.webp`
    : `${waggle} resize ${picture} --width 400 --format webp -o small.webp --key "$KEY"${where.url}`;
  return [
    ...token,
    `KEY=$(${waggle} customer create demo --with-key --quiet${where.url}${where.data})`,
    resize,
    `${waggle} usage demo${where.url}${where.data}`,
  ];
}

/** The flags that a new shell in this folder needs, because its settings would lead elsewhere. */
function differences(config: Config, url: string): { readonly url: string; readonly data: string } {
  let other: Config | undefined;
  try {
    other = loadConfig({ flags: {}, env: {}, directory: process.cwd() }).config;
  } catch {
    // A waggle.json here that is not the one in use: the flags of the commands are over it only if it can be read.
  }
  return {
    url: other !== undefined && localUrl(other) === url ? '' : ` --url ${url}`,
    data: other?.data === config.data ? '' : ` --data ${quoted(config.data)}`,
  };
}

/** `npx waggle` where npm has linked it; elsewhere npx would look for a package of that name. */
function waggleCommand(): string {
  const isLinked = resolve(process.cwd()) === resolve(ROOT) && existsSync(join(ROOT, 'node_modules/.bin/waggle'));
  return isLinked ? 'npx waggle' : `node ${quoted(nearest(join(ROOT, 'apps/node/bin/waggle.js')))}`;
}

/** The path from here, if it lies below. */
function nearest(path: string): string {
  const from = relative(process.cwd(), path);
  return from.startsWith('..') ? path : from;
}

/** A word of a shell command. */
const quoted = (word: string): string =>
  /^[A-Za-z0-9._:/@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;

function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
