import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import { addressText, isWildcard, loadConfig, type Config } from '../config.ts';
import { CommandError, type OutputOptions } from './output.ts';

/** Options that every command has which asks a node. */
export interface ClientOptions extends OutputOptions {
  readonly url?: string;
  readonly token?: string;
  readonly key?: string;
  readonly data?: string;
  readonly config?: string;
}

/**
 * Who asks: an operator or auditor with a token, a customer with a key, or anyone, who shows a token if there is one: a log may
 * be for auditors only. The operator's own goes to no node elsewhere.
 */
type Role = 'token' | 'key' | 'anyone';

/** How long an answer may take to begin unless a command says otherwise, in ms. */
const ANSWER_MS_MAX = 60_000;

/** Adds the options of `ClientOptions`, those for the credential by who may ask. */
export function asking(command: Command, ...roles: readonly Exclude<Role, 'anyone'>[]): Command {
  command
    .option('--url <URL>', 'where the node is (WAGGLE_URL; default: from the settings of the node on this machine)')
    .addOption(new Option('--config <FILE>', 'the file of settings (WAGGLE_CONFIG; default: waggle.json)').hideHelp())
    .option('--json', 'print the answer as JSON');
  if (roles.includes('token'))
    command
      .option('--data <DIRECTORY>', "the node's data directory, for its operator token (WAGGLE_DATA)")
      .option('--token <TOKEN>', 'who asks (WAGGLE_TOKEN; default: operator.token of the data directory)');
  if (roles.includes('key')) command.option('--key <KEY>', 'the API key of a customer (WAGGLE_KEY)');
  return command;
}

/** Where the node of these settings is asked from the same machine. Null for a port that is only known when it runs. */
export function localUrl({ http: { host, port } }: Pick<Config, 'http'>): string | null {
  const any = !isWildcard(host) ? host : host === '::' ? '::1' : '127.0.0.1';
  return port === 0 ? null : `http://${addressText({ host: any, port })}`;
}

/** Asks one node over its HTTP API, as one principal. */
export class Client {
  readonly url: string;
  readonly #credential: string | null;
  /** Whether the credential is the operator's own out of the data directory, which stays on this machine. */
  readonly #staysHere: boolean;
  readonly #answerMsMax: number;

  private constructor(url: string, credential: string | null, staysHere: boolean, answerMsMax: number) {
    this.url = url.replace(/\/+$/, '');
    this.#credential = credential;
    this.#staysHere = staysHere;
    this.#answerMsMax = answerMsMax;
  }

  /**
   * `answerMsMax`: how long an answer may take to begin, in ms. Throws `CommandError` when there is no node to ask or no credential
   * to ask with.
   */
  static open(options: ClientOptions, role: Role, answerMsMax = ANSWER_MS_MAX): Client {
    const { env } = process;
    const flags = {
      ...(options.data === undefined ? {} : { data: options.data }),
      ...(options.config === undefined ? {} : { config: options.config }),
    };
    const { config } = loadConfig({ flags, env, directory: process.cwd() });
    const url = options.url ?? present(env['WAGGLE_URL']) ?? localUrl(config);
    if (url === null) throw new CommandError('Expected --url or WAGGLE_URL, because the port of the node is 0', 2);
    demandUrl(url);
    const given = options.token ?? present(env['WAGGLE_TOKEN']);
    if (role === 'key') return new Client(url, keyOf(options), false, answerMsMax);
    if (given !== undefined) return new Client(url, given, false, answerMsMax);
    const own = role === 'anyone' ? tokenIfAny(url, config) : ownToken(url, config);
    return new Client(url, own, true, answerMsMax);
  }

  /**
   * The same principal at another node. `isListed`: whoever asks has named it; otherwise a member did, which could name anything.
   * Throws `CommandError` where the credential must not go, and for what is no URL.
   */
  at(url: string, isListed: boolean): Client {
    demandUrl(url);
    if (url !== this.url && !isThisMachine(url)) {
      if (!isListed)
        throw new CommandError('not asked: your token goes to nodes elsewhere only if --urls lists them', 2);
      if (this.#staysHere) throw new CommandError('not asked: that takes a token in --token or WAGGLE_TOKEN', 2);
    }
    return new Client(url, this.#credential, this.#staysHere, this.#answerMsMax);
  }

  /** A JSON answer. Throws as `send`. */
  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const sent = body === undefined ? {} : { body: JSON.stringify(body), type: 'application/json' };
    const response = await this.send(method, path, sent);
    const text = await response.text();
    return (text === '' ? {} : JSON.parse(text)) as T;
  }

  /**
   * The response, once its head says that it is a node's and no problem; the body is still to be read. Throws `CommandError`
   * with the code and detail of a problem, and for the answer of anything else.
   */
  async send(
    method: string,
    path: string,
    { body, type }: { readonly body?: string | Uint8Array<ArrayBuffer>; readonly type?: string } = {},
  ): Promise<Response> {
    const response = await this.#fetch(path, {
      method,
      headers: {
        ...(type === undefined ? {} : { 'content-type': type }),
        ...(this.#credential === null ? {} : { authorization: `Bearer ${this.#credential}` }),
      },
      ...(body === undefined ? {} : { body }),
      redirect: 'error',
    });
    if (!response.ok) throw await problemOf(response);
    if (!response.headers.has('waggle-node')) throw notOfANode(response);
    return response;
  }

  /** Whether a health check says yes, and what it says otherwise. */
  async check(path: string): Promise<string> {
    const response = await this.#fetch(path, {});
    return response.ok ? 'yes' : `no: ${(await problemOf(response)).message}`;
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), this.#answerMsMax);
    try {
      return await fetch(this.url + path, { ...init, signal: controller.signal });
    } catch (cause) {
      const why = controller.signal.aborted ? `no answer within ${this.#answerMsMax / 1000} s` : reasonOf(cause);
      throw new CommandError(
        `Expected a node at ${this.url}, received ${why}. Is it running there? (npm start, --url)`,
        1,
        {
          cause,
        },
      );
    } finally {
      clearTimeout(timer);
    }
  }
}

function demandUrl(url: string): void {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new CommandError(`Expected an http or https URL, received ${JSON.stringify(url)}`, 2);
}

/** Parameters as the end of a path; those not given are left out. */
export function queryOf(parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`;
}

const present = (text: string | undefined): string | undefined => (text === '' ? undefined : text);

function keyOf({ key = present(process.env['WAGGLE_KEY']) }: ClientOptions): string {
  if (key !== undefined) return key;
  throw new CommandError('Expected the API key of a customer in --key or WAGGLE_KEY, found none', 2);
}

/** The operator's own token, out of the data directory or the settings. Whoever gets to see it is the operator. */
function ownToken(url: string, config: Config): string {
  if (!isHere(url, config))
    throw new CommandError(
      `Expected a token in --token or WAGGLE_TOKEN for ${url}: the one in ${config.data} is sent to a node on this machine only`,
      2,
    );
  const file = tokenFile(config);
  const token = readToken(file) ?? config.operatorToken;
  if (token !== null) return token;
  throw new CommandError(`Expected a token in --token, in WAGGLE_TOKEN or in ${file}, found none`, 2);
}

/** The same for what can be asked without: null where there is none, where it must not go, and where it may not be read. */
function tokenIfAny(url: string, config: Config): string | null {
  if (!isHere(url, config)) return null;
  try {
    return readToken(tokenFile(config)) ?? config.operatorToken;
  } catch {
    return config.operatorToken;
  }
}

const tokenFile = ({ data }: Config): string => join(data, 'operator.token');

const isHere = (url: string, config: Config): boolean => url === localUrl(config) || isThisMachine(url);

/** Whether a URL leads to this machine: to its loopback, or to an address of one of its interfaces. */
function isThisMachine(url: string): boolean {
  const host = new URL(url).hostname.replace(/^\[(.*)\]$/, '$1');
  if (host === 'localhost' || /^127(\.\d{1,3}){3}$/.test(host)) return true;
  return Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === host));
}

function readToken(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new CommandError(`Expected to read the token in ${file}: ${(cause as Error).message}`, 2, { cause });
  }
}

/** What fetch hides in the causes of its errors. */
function reasonOf(error: unknown): string {
  const { cause } = error as { cause?: { code?: string; message?: string } };
  return cause?.code ?? cause?.message ?? (error as Error).message;
}

/** Every response of a node names it in `waggle-node`. */
const notOfANode = ({ url, status }: Response): CommandError =>
  new CommandError(`Expected an answer of a Waggle node at ${url}, received status ${status} from something else`);

/** The code and the detail of a problem (RFC 9457), or the status where the answer is not from a node. */
async function problemOf(response: Response): Promise<CommandError> {
  const text = await response.text();
  try {
    const { code, detail, title } = JSON.parse(text) as Record<string, string | undefined>;
    if (code !== undefined) return new CommandError(`${code}: ${detail ?? title ?? ''}`);
  } catch {
    // Not a problem document: something else answers there.
  }
  return notOfANode(response);
}
