import { systemClock, type Clock } from './clock.ts';
import { invalid, type WaggleClientError } from './error.ts';
import type { AnswerInfo } from './types.ts';
import type { BackoffOptions } from './retry.ts';

/** As much of `fetch` as is used. It has to heed the signal. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** One attempt of a call, for logs, and for receipts: failed attempts are metered as well. */
export interface Attempt {
  /** Counts from 1 within its call. */
  readonly number: number;
  /** URL of the node. */
  readonly node: string;
  /** Headers of the answer; null if there was none. */
  readonly answer: AnswerInfo | null;
  /** Why it failed; null if it did not. */
  readonly error: WaggleClientError | null;
}

/** How to reach a cluster. */
export interface ClientOptions {
  /** URLs of one node or some nodes, or of a balancer before them: 1 to 256. The others are learned from these. */
  readonly nodes: string | readonly string[];
  /** API key of the customer. It is sent to the nodes and shown nowhere. */
  readonly key: string;
  /** A call with all its retries, in ms, 1 to 3 600 000. Of a streamed answer: until it begins, then for each chunk. Default 60 000. */
  readonly deadlineMs?: number;
  /** One attempt, in ms, likewise. Default 40 000: the 30 s that a node gives a request by default, and the upload. */
  readonly attemptMs?: number;
  readonly retries?: Partial<RetryOptions>;
  /** Whether to ask the nodes for all nodes and their load, at most every ten seconds and only while calls are made. Default true. */
  readonly learn?: boolean;
  /**
   * For how long after its creation the client takes `KEY_UNKNOWN` for news that has not reached every node, in ms. Default 0: set
   * it (5 000, say) where the key was just issued.
   */
  readonly newKeyMs?: number;
  /** Called after every attempt. It must not throw. */
  readonly onAttempt?: (attempt: Attempt) => void;
  /** Instead of the global one. */
  readonly fetch?: Fetch;
  /** Time, for tests. */
  readonly clock?: Clock;
  /** Chance in [0, 1), for tests. */
  readonly random?: () => number;
}

/** How often and how soon a call is tried again. */
export interface RetryOptions extends BackoffOptions {
  /** Attempts of one call, the first included: 1 to 16, since a node takes 16 repeats under one idempotency key. Default 8. */
  readonly attemptsMax: number;
}

/** Options with everything said. */
export interface Settings {
  readonly urls: readonly string[];
  readonly key: string;
  readonly deadlineMs: number;
  readonly attemptMs: number;
  readonly retries: RetryOptions;
  readonly learn: boolean;
  readonly newKeyMs: number;
  readonly onAttempt: (attempt: Attempt) => void;
  readonly fetch: Fetch;
  readonly clock: Clock;
  readonly random: () => number;
}

/** Longest time that may be asked for, in ms: an hour. */
const MS_MAX = 3_600_000;
/** Nodes that a client keeps in mind. */
export const NODES_MAX = 256;

/** Checks options and fills the rest in. Throws `ARGUMENT_INVALID`; the key is never in its message. */
export function settingsOf(options: ClientOptions): Settings {
  const { nodes, key, retries = {}, learn = true, onAttempt = () => {}, clock = systemClock } = options;
  const given = typeof nodes === 'string' ? [nodes] : nodes;
  if (!Array.isArray(given) || given.length === 0 || given.length > NODES_MAX)
    throw invalid(`1 to ${NODES_MAX} URLs for nodes`, Array.isArray(given) ? given.length : given);
  if (typeof key !== 'string' || !/^[!-~]{1,512}$/.test(key))
    throw invalid('an API key (wgl_…) for key', `another ${typeof key}`);
  return {
    urls: [...new Set((given as readonly string[]).map(baseUrl))],
    key,
    deadlineMs: deadlineOf(options.deadlineMs ?? 60_000),
    attemptMs: within('attemptMs', options.attemptMs ?? 40_000, 1, MS_MAX),
    retries: {
      attemptsMax: within('retries.attemptsMax', retries.attemptsMax ?? 8, 1, 16),
      baseMs: within('retries.baseMs', retries.baseMs ?? 50, 0, MS_MAX),
      capMs: within('retries.capMs', retries.capMs ?? 2_000, 0, MS_MAX),
    },
    learn,
    newKeyMs: within('newKeyMs', options.newKeyMs ?? 0, 0, MS_MAX),
    onAttempt,
    fetch: options.fetch ?? ((url, init) => fetch(url, init)),
    clock,
    random: options.random ?? Math.random,
  };
}

/** A deadline in ms. Throws `ARGUMENT_INVALID`. */
export const deadlineOf = (ms: number): number => within('deadlineMs', ms, 1, MS_MAX);

function within(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw invalid(`a whole number from ${min} to ${max} for ${name}`, value);
}

/** The URL that paths are appended to. Throws `ARGUMENT_INVALID`. */
function baseUrl(text: string): string {
  const url = typeof text === 'string' ? nodeUrl(text) : null;
  if (url !== null) return url;
  // What cannot be used may hold a password: it is not repeated.
  throw invalid('an http or https URL without user, query and fragment for nodes', 'another text');
}

/** A node's URL in the one form that they are compared in: without a slash at its end. Null if it cannot be one. */
export function nodeUrl(text: string): string | null {
  if (!URL.canParse(text)) return null;
  const { protocol, username, password, search, hash, href } = new URL(text);
  if (!/^https?:$/.test(protocol) || `${username}${password}${search}${hash}` !== '') return null;
  return href.replace(/\/+$/, '');
}
