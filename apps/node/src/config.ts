import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { availableParallelism } from 'node:os';
import { dirname, resolve } from 'node:path';
import type { LevelWithSilent } from 'pino';
import { WaggleError } from '@waggle/protocol/base';
import { EPOCH_MS_MAX, EPOCH_MS_MIN, ORIGIN_NAME_PATTERN } from '@waggle/protocol/sealing';
import { isOwnToken } from '@waggle/identity';

/** Everything an operator can set, validated. docs/OPERATING.md lists flags and variables. */
export interface Config {
  /** Where the HTTP API listens; port 0 takes any. */
  readonly http: { readonly host: string; readonly port: number };
  /** What others call this node; null: from the address it listens on. */
  readonly publicUrl: string | null;
  /** Where members reach this node by UDP: IPv4 address to listen on and port. */
  readonly swarm: { readonly host: string; readonly port: number };
  /** What members dial; null: the address it listens on. */
  readonly swarmAdvertise: { readonly host: string; readonly port: number } | null;
  /** First start only: the invite to join a cluster with, or where it is, `-` or `@PATH`; null: a cluster is founded. */
  readonly join: string | null;
  /** Rack or room; null if none. */
  readonly zone: string | null;
  /** Absolute path of the one directory for everything this node keeps. */
  readonly data: string;
  /** The data directory was moved here, and what it was moved from is gone. */
  readonly dataMoved: boolean;
  /** First start of a new cluster: the name in every checkpoint. */
  readonly origin: string;
  readonly epochMs: number;
  readonly sealGraceMs: number;
  /** Resize processes. */
  readonly workers: number;
  /** First start of a new cluster: the operator's own token; null: one is made. */
  readonly operatorToken: string | null;
  readonly logLevel: LevelWithSilent;
  /** Requests that may wait for a worker. */
  readonly queueMax: number;
  /** Data-segment limit of a worker, in bytes. */
  readonly workerMemoryBytes: number;
  /** How long request records stay in the database before they are rolled into Parquet files, in ms. */
  readonly recordRetentionMs: number;
  /** How long the node stays up, not ready, before it stops taking requests, in ms: balancers notice meanwhile. */
  readonly drainMs: number;
  /** Whether anyone may read the log (checkpoint, tiles, epochs without statements), or auditors only. */
  readonly publicLog: boolean;
  /** How long the slots of sealed epochs are kept, in ms. */
  readonly slotRetentionMs: number;
  /** Most bytes of the database; null: what the disk holds. */
  readonly databaseBytesMax: number | null;
}

export type SettingName = keyof Config;

/** One setting. Its flag, its variable and its key in waggle.json come from its name. */
export interface Setting<T> {
  /** What a value looks like, in capitals, for the help. */
  readonly form: string;
  /** The default, as text; `shown` says it for people where the machine decides. */
  readonly fallback: string;
  readonly shown?: string;
  readonly description: string;
  /** What the text must be, as in "Expected <expected> for …". */
  readonly expected: string;
  /** The value, or undefined for a text that is none. Relative paths are relative to `directory`. */
  readonly parse: (text: string, directory: string) => T | undefined;
  /** Only counts when a new cluster is founded, on the first start with a data directory. */
  readonly firstStartOnly?: true;
  readonly isSecret?: true;
}

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
const DAY_MS = 86_400_000;
const MIB = 2 ** 20;

/** A whole number in a range, both ends included. */
const whole = (min: number, max: number) => ({
  form: 'N',
  expected: `a whole number from ${min} to ${max}`,
  parse: (text: string): number | undefined =>
    /^\d{1,16}$/.test(text) && Number(text) >= min && Number(text) <= max ? Number(text) : undefined,
});

function parseAddress(text: string): Config['http'] | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  return match === null || port > 65_535 ? undefined : { host: (match[1] ?? match[2])!, port };
}

/** Ports above are given by the system to anybody's outgoing traffic. */
const SWARM_PORT_MAX = 32_767;

function parseSwarmAddress(text: string, portMax: number): Config['swarm'] | undefined {
  const address = parseAddress(text);
  return address !== undefined && isIPv4(address.host) && address.port <= portMax ? address : undefined;
}

const parseBoolean = (text: string): boolean | undefined =>
  text === 'true' || text === 'false' ? text === 'true' : undefined;

/** Characters of an invite: eight addresses take about 900. */
const INVITE_LENGTH_MAX = 4_096;

/** An invite as it was given, or where it is to be read, as `-` or `@` and an absolute path: read when it is needed (join.ts). */
function parseJoin(text: string, directory: string): string | undefined {
  if (text.startsWith('@'))
    return text.length === 1 || text.includes('\0') ? undefined : `@${resolve(directory, text.slice(1))}`;
  return text.length <= INVITE_LENGTH_MAX && /^[!-~]+$/.test(text) ? text : undefined;
}

function parseUrl(text: string): string | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) return undefined;
  return url.username + url.password + url.search + url.hash === '' ? url.href.replace(/\/$/, '') : undefined;
}

/** An empty text, the default, is null. */
const orNull =
  <T>(parse: (text: string, directory: string) => T | undefined) =>
  (text: string, directory: string): T | null | undefined =>
    text === '' ? null : parse(text, directory);

/** Every setting: flags, variables, keys of waggle.json, messages and the table of docs/OPERATING.md come from here. */
export const SETTINGS: { readonly [Name in SettingName]: Setting<Config[Name]> } = {
  http: {
    form: 'HOST:PORT',
    fallback: '127.0.0.1:8080',
    description: 'where the HTTP API listens; port 0 takes any, and the start prints it',
    expected: 'an address and a port from 0 to 65535, such as 127.0.0.1:8080 or [::1]:8080,',
    parse: parseAddress,
  },
  publicUrl: {
    form: 'URL',
    fallback: '',
    shown: 'from --http',
    description: 'what others call this node; needed when --http is 0.0.0.0 or [::], or behind a proxy',
    expected: 'an http or https URL without user, query and fragment',
    parse: orNull(parseUrl),
  },
  swarm: {
    form: 'HOST:PORT',
    fallback: '127.0.0.1:7070',
    description:
      'where other members reach this node by UDP: the IPv4 address to listen on (0.0.0.0 for all, with --swarm-advertise) and the port; 0 takes a free one',
    expected: `an IPv4 address and a port from 0 to ${SWARM_PORT_MAX}, such as 127.0.0.1:7070,`,
    parse: (text) => parseSwarmAddress(text, SWARM_PORT_MAX),
  },
  swarmAdvertise: {
    form: 'HOST:PORT',
    fallback: '',
    shown: 'from --swarm',
    description: 'the IPv4 address and port that other members dial; needed when --swarm is 0.0.0.0 or behind a router',
    expected: 'an IPv4 address other than 0.0.0.0 and a port from 1 to 65535, such as 10.0.0.5:7070,',
    parse: orNull((text) => {
      const address = parseSwarmAddress(text, 65_535);
      return address?.host === '0.0.0.0' || address?.port === 0 ? undefined : address;
    }),
  },
  join: {
    form: 'INVITE',
    fallback: '',
    shown: 'none: a cluster is founded',
    description:
      'first start only: joins a cluster by an invite; `-` reads it from standard input, `@FILE` from a file',
    expected: 'an invite as `waggle invite` prints it, `-` for standard input, or `@` and the path of a file',
    parse: orNull(parseJoin),
    isSecret: true,
  },
  zone: {
    form: 'NAME',
    fallback: '',
    shown: 'none',
    description: 'rack or room; shown to other members',
    expected: 'up to 64 letters, digits, ".", "_" and "-"',
    parse: orNull((text) => (/^[A-Za-z0-9._-]{1,64}$/.test(text) ? text : undefined)),
  },
  data: {
    form: 'DIRECTORY',
    fallback: './data',
    description: 'the one directory for everything this node keeps, mode 0700, files 0600',
    expected: 'the path of a directory',
    parse: (text, directory) => (text === '' || text.includes('\0') ? undefined : resolve(directory, text)),
  },
  dataMoved: {
    form: 'true|false',
    fallback: 'false',
    description: 'once, after the data directory was moved to this machine or disk: says that it is the only copy',
    expected: 'true or false',
    parse: parseBoolean,
  },
  origin: {
    form: 'NAME',
    fallback: 'waggle.local',
    description: 'the name in every checkpoint of the cluster',
    expected: 'up to 64 of a-z, 0-9, ".", "_", "/" and "-", the first and the last a letter or digit,',
    parse: (text) => (new RegExp(ORIGIN_NAME_PATTERN).test(text) ? text : undefined),
    firstStartOnly: true,
  },
  epochMs: {
    ...whole(EPOCH_MS_MIN, EPOCH_MS_MAX),
    fallback: '3600000',
    description: 'length of an epoch, the billing period, in ms',
    firstStartOnly: true,
  },
  sealGraceMs: {
    ...whole(0, EPOCH_MS_MAX),
    fallback: '900000',
    description: 'how long a seal waits for a missing member, in ms',
    firstStartOnly: true,
  },
  workers: {
    ...whole(1, 256),
    fallback: String(availableParallelism()),
    shown: 'cores',
    description: 'resize processes, one picture at a time each',
  },
  operatorToken: {
    form: 'TOKEN',
    fallback: '',
    shown: 'made, in operator.token of the data directory',
    description: "the operator's own token; better in a variable than in a flag, which others can see",
    expected: '16 to 256 printable ASCII characters, no spaces, not starting with wgl_ or wgt_,',
    parse: orNull((text) => (isOwnToken(text) ? text : undefined)),
    firstStartOnly: true,
    isSecret: true,
  },
  logLevel: {
    form: 'LEVEL',
    fallback: 'info',
    description: `least severe entry of the log, one of ${LOG_LEVELS.join(', ')}`,
    expected: `one of ${LOG_LEVELS.join(', ')}`,
    parse: (text) => LOG_LEVELS.find((level) => level === text),
  },
  queueMax: {
    ...whole(1, 100_000),
    fallback: '256',
    description: 'requests that may wait for a resize process; beyond, the answer is 503 at once',
  },
  workerMemoryBytes: {
    ...whole(128 * MIB, 2 ** 40),
    fallback: String(1024 * MIB),
    description: 'memory that a resize process may use, in bytes; below 256 MiB many pictures fail',
  },
  recordRetentionMs: {
    ...whole(1_000, 3_660 * DAY_MS),
    fallback: String(7 * DAY_MS),
    description: 'how long request records stay in the database before they are rolled into Parquet files, in ms',
  },
  drainMs: {
    ...whole(0, 600_000),
    // Balancers ask every second or two; container managers kill 10 s after SIGTERM, so most of that is left.
    fallback: '3000',
    description: 'after SIGTERM, how long the node works on, not ready, so that balancers notice, in ms',
  },
  publicLog: {
    form: 'true|false',
    fallback: 'true',
    description: 'whether anyone may read the log (checkpoint, tiles, epochs without statements), or auditors only',
    expected: 'true or false',
    parse: parseBoolean,
  },
  slotRetentionMs: {
    ...whole(1_000, 3_660 * DAY_MS),
    fallback: String(30 * DAY_MS),
    description: 'how long the slots of sealed epochs are kept, in ms; headers and statements stay',
  },
  databaseBytesMax: {
    ...whole(MIB, Number.MAX_SAFE_INTEGER),
    fallback: '',
    shown: 'what the disk holds',
    description: 'most bytes of the database; when it is full, work is refused with 503',
    parse: orNull(whole(MIB, Number.MAX_SAFE_INTEGER).parse),
  },
};

export const SETTING_NAMES = Object.keys(SETTINGS) as readonly SettingName[];

/** `epochMs` → `--epoch-ms`. */
export const flagOf = (name: SettingName): string => `--${words(name, '-')}`;
/** `epochMs` → `WAGGLE_EPOCH_MS`. */
export const variableOf = (name: SettingName): string => `WAGGLE_${words(name, '_').toUpperCase()}`;
const words = (name: string, between: string): string =>
  name.replace(/[A-Z]/g, (letter) => between + letter.toLowerCase());

/** Variables that are not settings of a node: where its file is, and whom the client commands ask, as whom. */
const OTHER_VARIABLES = ['WAGGLE_CONFIG', 'WAGGLE_URL', 'WAGGLE_TOKEN', 'WAGGLE_KEY'];
const FILE = 'waggle.json';
const FILE_BYTES_MAX = 2 ** 20;

/** Where settings come from. */
export interface Sources {
  /** As given on the command line, by name of the setting; `config` is the path of the file. */
  readonly flags: Readonly<Partial<Record<SettingName | 'config', string>>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The working directory. */
  readonly directory: string;
}

export interface Loaded {
  readonly config: Config;
  /** Where each value came from, as an operator would look for it: a flag, a variable, a file, or `default`. */
  readonly origins: Readonly<Record<SettingName, string>>;
}

interface Given {
  readonly text: string;
  readonly origin: string;
  /** What its relative paths are relative to. */
  readonly directory: string;
}

/**
 * The configuration: flags over variables over waggle.json over defaults. Throws `CONFIG_INVALID` with a message that names
 * the key, where it came from, what was expected and what came; also for keys and variables that are not known.
 */
export function loadConfig({ flags, env, directory }: Sources): Loaded {
  const file = readConfigFile(flags.config ?? env['WAGGLE_CONFIG'], directory);
  checkVariables(env);
  const config: Record<string, unknown> = {};
  const origins: Record<string, string> = {};
  for (const name of SETTING_NAMES) {
    const given = fromFlag(flags, name, directory) ?? fromVariable(env, name, directory) ?? file.get(name);
    const setting: Setting<unknown> = SETTINGS[name];
    const { text, origin, directory: base } = given ?? { text: setting.fallback, origin: 'default', directory };
    const value = setting.parse(text, base);
    if (value === undefined) {
      // What came stays in the shell's history at worst: a secret is not repeated.
      const received = setting.isSecret === true ? 'another text' : JSON.stringify(text.slice(0, 80));
      throw invalid(`Expected ${setting.expected} for ${name} (${origin}), received ${received}`);
    }
    config[name] = value;
    origins[name] = origin;
  }
  return { config: config as unknown as Config, origins: origins as Record<SettingName, string> };
}

/** Whether an address to listen on is all of this machine's: nobody can dial it. */
export const isWildcard = (host: string): boolean => host === '0.0.0.0' || host === '::';

/** What a node needs beyond what the commands that ask one do. Throws `CONFIG_INVALID`. */
export function demandStartable({ swarm, swarmAdvertise }: Config): void {
  if (!isWildcard(swarm.host) || swarmAdvertise !== null) return;
  throw invalid(
    `Expected swarmAdvertise (${flagOf('swarmAdvertise')}, ${variableOf('swarmAdvertise')}), the address that other members dial, ` +
      `because swarm is ${addressText(swarm)}; received none`,
  );
}

const invalid = (message: string, cause?: unknown): WaggleError =>
  new WaggleError('CONFIG_INVALID', message, { cause });

function fromFlag(flags: Sources['flags'], name: SettingName, directory: string): Given | undefined {
  const text = flags[name];
  return text === undefined ? undefined : { text, origin: `flag ${flagOf(name)}`, directory };
}

/** An empty variable counts as not set: that is how shells and container files leave one out. */
function fromVariable(env: Sources['env'], name: SettingName, directory: string): Given | undefined {
  const text = env[variableOf(name)];
  return text === undefined || text === '' ? undefined : { text, origin: `variable ${variableOf(name)}`, directory };
}

function checkVariables(env: Sources['env']): void {
  const known = [...SETTING_NAMES.map(variableOf), ...OTHER_VARIABLES];
  for (const variable of Object.keys(env))
    if (variable.startsWith('WAGGLE_') && !known.includes(variable))
      throw invalid(`Expected a known variable, received ${variable}${didYouMean(variable, known)}`);
}

/** The settings of the file, by name. Without a path: waggle.json in the working directory, if there is one. */
function readConfigFile(given: string | undefined, directory: string): ReadonlyMap<SettingName, Given> {
  const path = resolve(directory, given ?? FILE);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    if (given === undefined && (cause as NodeJS.ErrnoException).code === 'ENOENT') return new Map();
    throw invalid(`Expected a file of settings at ${path}: ${(cause as Error).message}`, cause);
  }
  if (text.length > FILE_BYTES_MAX) throw invalid(`Expected at most ${FILE_BYTES_MAX} bytes in ${path}`);
  return new Map(Object.entries(parseObject(text, path)).map(([key, value]) => givenByFile(path, key, value)));
}

function parseObject(text: string, path: string): object {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's own message quotes the file, and a token may be in it.
    throw invalid(`Expected JSON in ${path}, received something else`);
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  throw invalid(`Expected an object of settings in ${path}, received another value`);
}

function givenByFile(path: string, key: string, value: unknown): [SettingName, Given] {
  const name = SETTING_NAMES.find((known) => known === key);
  if (name === undefined)
    throw invalid(
      `Expected a known key in ${path}, received ${JSON.stringify(key.slice(0, 80))}${didYouMean(key, SETTING_NAMES)}`,
    );
  if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean')
    throw invalid(`Expected a text, a number, true or false for ${name} (file ${path}), received another value`);
  return [name, { text: String(value), origin: `file ${path}`, directory: dirname(path) }];
}

/** `; did you mean x?` for the nearest of the known names, or nothing if none is near. */
function didYouMean(received: string, known: readonly string[]): string {
  const [nearest] = known
    .map((name) => ({ name, distance: editDistance(name.toLowerCase(), received.toLowerCase().slice(0, 80)) }))
    .sort((a, b) => a.distance - b.distance);
  return nearest === undefined || nearest.distance > 4 ? '' : `; did you mean ${nearest.name}?`;
}

/** Levenshtein's distance: insertions, deletions and substitutions from one text to the other. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

/** A value as an operator would write it, secrets masked. */
export function showSetting(config: Config, name: SettingName): string {
  const value = config[name];
  if (value === null) return SETTINGS[name].shown ?? '';
  if (SETTINGS[name].isSecret === true) return '********';
  return typeof value === 'object' ? addressText(value) : String(value);
}

/** `host:port`, with an IPv6 address in brackets. */
export const addressText = ({ host, port }: Config['http']): string =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`;

/** The table of docs/OPERATING.md, in Markdown. */
export function settingsMarkdown(): string {
  const rows = SETTING_NAMES.map((name) => {
    const { fallback, shown, description, firstStartOnly } = SETTINGS[name] as Setting<unknown>;
    const first = firstStartOnly === true ? 'First start of a new cluster only: ' : '';
    const preset = shown ?? `\`${fallback}\``;
    return `| \`${flagOf(name)}\`, \`${variableOf(name)}\` | \`${name}\` | ${preset} | ${first}${description} |`;
  });
  return ['| Flag, variable | In waggle.json | Default | |', '|---|---|---|---|', ...rows].join('\n');
}
