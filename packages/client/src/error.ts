import type { AnswerInfo } from './types.ts';

/** Codes of the client itself; all others are those of the nodes (docs/ERRORS.md). */
export type OwnCode =
  /** An option or argument cannot be used. Nothing was sent. */
  | 'ARGUMENT_INVALID'
  /** No connection to the node came about. Nothing was sent. */
  | 'CONNECTION_FAILED'
  /** The connection ended before the whole answer was there. What became of the request is not known. */
  | 'CONNECTION_LOST'
  /** The node took longer than `attemptMs`. */
  | 'ANSWER_TIMEOUT'
  /** The call took longer than `deadlineMs`. */
  | 'DEADLINE_EXCEEDED'
  /** The answer is not that of a node: a proxy's error page, a redirect, broken JSON, more bytes than can be. */
  | 'ANSWER_INVALID';

/** What an error knows beside its words. */
export interface ErrorFields {
  /** HTTP status; null if there was no answer. */
  readonly status?: number | null;
  /** URL of the node that was asked. */
  readonly node?: string | null;
  readonly answer?: AnswerInfo | null;
  readonly retryAfterMs?: number | null;
  readonly isRetryable?: boolean;
  readonly cause?: unknown;
}

/** Every failure of a call but its cancellation, which rejects with the reason of the signal. */
export class WaggleClientError extends Error {
  override readonly name = 'WaggleClientError';
  /** A code of docs/ERRORS.md, one of a newer node, or one of `OwnCode`. */
  readonly code: string;
  /** HTTP status; null if there was no answer. */
  readonly status: number | null;
  /** What was expected and what came. */
  readonly detail: string;
  readonly requestId: string | null;
  /** URL of the node that was asked; null if none was. */
  readonly node: string | null;
  /** The headers of the answer: failed requests are metered as well. */
  readonly answer: AnswerInfo | null;
  /** `retry-after` in ms. */
  readonly retryAfterMs: number | null;
  /** Whether the same request may succeed later. The client has tried again already, as far as it may. */
  readonly isRetryable: boolean;
  /** Times that the request was sent in this call, set when the call has failed. */
  attempts = 0;

  constructor(code: string, detail: string, fields: ErrorFields = {}) {
    super(`${code}: ${detail}`, fields.cause === undefined ? {} : { cause: fields.cause });
    this.code = code;
    this.detail = detail;
    this.status = fields.status ?? null;
    this.node = fields.node ?? null;
    this.answer = fields.answer ?? null;
    this.requestId = this.answer?.requestId ?? null;
    this.retryAfterMs = fields.retryAfterMs ?? null;
    this.isRetryable = fields.isRetryable ?? false;
  }
}

/** An argument that cannot be used. */
export const invalid = (expected: string, received: unknown): WaggleClientError =>
  new WaggleClientError('ARGUMENT_INVALID', `Expected ${expected}, received ${shown(received)}`);

function shown(value: unknown): string {
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
