import type { OwnCode } from './error.ts';

/** Whether a failed attempt may be made again: never, one time in a call, or as long as attempts and deadline allow. */
export type Again = 'never' | 'once' | 'always';

/** What decides it. */
export interface Failure {
  readonly code: string;
  readonly status: number | null;
  readonly retryAfterMs: number | null;
  /** Whether the key may be so new that not every node knows it. */
  readonly isKeyNew: boolean;
}

/** What the status alone does not say. */
const BY_CODE: Readonly<Record<string, Again>> = {
  ARGUMENT_INVALID: 'never',
  CONNECTION_FAILED: 'always',
  CONNECTION_LOST: 'always',
  ANSWER_TIMEOUT: 'always',
  DEADLINE_EXCEEDED: 'never',
  // The same picture would take as long again.
  RESIZE_DEADLINE: 'never',
  // The picture may be the cause: it should not end a worker of every node.
  RESIZE_CRASHED: 'once',
  IDEMPOTENCY_EXHAUSTED: 'never',
} satisfies Partial<Record<OwnCode, Again>> & Record<string, Again>;

/** Statuses at which the request was right and something on the way was not (RFC 9110 §15.6). */
const BY_STATUS: Readonly<Record<number, Again>> = { 500: 'once', 502: 'always', 503: 'always', 504: 'always' };

/** Whether a failure is worth another attempt of a request that is safe to repeat. Codes that are not known go by their status. */
export function again({ code, status, retryAfterMs, isKeyNew }: Failure): Again {
  if (code === 'KEY_UNKNOWN') return isKeyNew ? 'always' : 'never';
  const byCode = Object.hasOwn(BY_CODE, code) ? BY_CODE[code] : undefined;
  if (byCode !== undefined) return byCode;
  if (status === 429) return retryAfterMs === null ? 'never' : 'always';
  return BY_STATUS[status ?? 0] ?? 'never';
}

/** The longest waits between attempts. */
export interface BackoffOptions {
  /** Before the first retry, in ms; doubled for each one after. */
  readonly baseMs: number;
  /** Ever, in ms. */
  readonly capMs: number;
}

/**
 * How long to wait before a retry, in ms: anything up to a bound that doubles ("full jitter" of M. Brooker, "Exponential Backoff
 * And Jitter", AWS Architecture Blog 2015). `retry` counts from 0, `random` is in [0, 1).
 */
export const backoffMs = ({ baseMs, capMs }: BackoffOptions, retry: number, random: number): number =>
  random * Math.min(capMs, baseMs * 2 ** retry);

/**
 * `retry-after` in ms: whole seconds, or a date (RFC 9110 §10.2.3), which is held against the `date` of the same answer so that
 * our own clock does not matter. Null for anything else.
 */
export function retryAfterMsOf(headers: Headers): number | null {
  const text = headers.get('retry-after')?.trim();
  if (text === undefined) return null;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1_000;
  const ms = Date.parse(text) - Date.parse(headers.get('date') ?? '');
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}
