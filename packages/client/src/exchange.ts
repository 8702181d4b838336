import { infoOf } from './answer.ts';
import { Lifeline } from './clock.ts';
import { WaggleClientError } from './error.ts';
import type { Node } from './nodes.ts';
import type { Settings } from './options.ts';
import { again, retryAfterMsOf } from './retry.ts';
import type { AnswerInfo } from './types.ts';

/** How much of a problem is read, in bytes. */
const PROBLEM_BYTES_MAX = 64 * 1024;

/** Codes of errors of which Node's fetch says that no connection came about. Browsers do not tell. */
const NOT_CONNECTED: ReadonlySet<unknown> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_CONNECT_TIMEOUT',
]);

interface ExchangeOptions {
  readonly signal?: AbortSignal | undefined;
  /** Whether the key may be so new that not every node knows it. */
  readonly isKeyNew?: boolean;
  /** Time that each chunk of the answer has to come, in ms; null: there is a limit for all of it. */
  readonly idleMs?: number | null;
}

/** A request to one node, under way: until `end`, it counts as one of its calls and is held by its lifeline. */
export class Exchange {
  readonly node: Node;
  readonly lifeline: Lifeline;
  readonly #settings: Settings;
  readonly #isKeyNew: boolean;
  readonly #idleMs: number | null;
  #info: AnswerInfo | null = null;
  #isOver = false;

  constructor(settings: Settings, node: Node, { signal, isKeyNew = false, idleMs = null }: ExchangeOptions = {}) {
    this.#settings = settings;
    this.#isKeyNew = isKeyNew;
    this.#idleMs = idleMs;
    this.node = node;
    this.lifeline = new Lifeline(settings.clock, signal);
    node.inFlight++;
  }

  /** What the headers of the answer said; null before. */
  get info(): AnswerInfo | null {
    return this.#info;
  }

  /** Sends it; the answer's body is still to be read. Rejects with the node's problem, or with why there is no answer. */
  async send(path: string, init: RequestInit): Promise<Response> {
    const { fetch, key } = this.#settings;
    const headers = { ...(init.headers as Record<string, string>), authorization: `Bearer ${key}` };
    let response: Response;
    try {
      // Redirects are not followed: the key is for this node.
      response = await fetch(this.node.url + path, {
        ...init,
        headers,
        redirect: 'manual',
        signal: this.lifeline.signal,
      });
    } catch (cause) {
      throw this.lifeline.errorOf(() => this.#unreachable(cause));
    }
    this.#info = infoOf(response, this.node.url);
    if (response.ok) return response;
    throw await this.#problem(response);
  }

  /** Reads the whole body. Rejects with `ANSWER_INVALID` beyond `bytesMax` and `CONNECTION_LOST` if it breaks off. */
  async read(response: Response, bytesMax: number): Promise<Uint8Array<ArrayBuffer>> {
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of this.chunks(response)) {
      length += chunk.byteLength;
      if (length > bytesMax)
        throw this.invalid(response, `Expected at most ${bytesMax} bytes as the answer, received more`);
      chunks.push(chunk);
    }
    const whole = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      whole.set(chunk, at);
      at += chunk.byteLength;
    }
    return whole;
  }

  /** The body chunk by chunk; left early, the rest is cancelled. Rejects with `CONNECTION_LOST` if it breaks off. */
  async *chunks({ body, status }: Response): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    if (body === null) return;
    const idleMs = this.#idleMs;
    const reader = body.getReader();
    try {
      for (;;) {
        if (idleMs !== null) this.lifeline.limit(idleMs, () => this.slow('DEADLINE_EXCEEDED', idleMs));
        const { done, value } = await reader.read();
        if (idleMs !== null) this.lifeline.unlimit();
        if (done) return;
        yield value;
      }
    } catch (cause) {
      throw this.lifeline.errorOf(() =>
        this.error('CONNECTION_LOST', 'Expected the whole answer, the connection broke off', { status, cause }),
      );
    } finally {
      await reader.cancel().catch(() => undefined);
    }
  }

  /** Too slow: `ANSWER_TIMEOUT` for one attempt, `DEADLINE_EXCEEDED` for the call. */
  slow(code: 'ANSWER_TIMEOUT' | 'DEADLINE_EXCEEDED', ms: number): WaggleClientError {
    const what = code === 'ANSWER_TIMEOUT' ? 'an answer' : 'the call to end';
    return this.error(code, `Expected ${what} within ${ms} ms, it took longer`, { status: null });
  }

  /** The answer is not that of a node. */
  invalid({ status }: { readonly status: number }, detail: string, cause?: unknown): WaggleClientError {
    return this.error('ANSWER_INVALID', `${detail} (status ${status})`, { status, cause });
  }

  /** An error of this exchange. */
  error(
    code: string,
    detail: string,
    fields: { readonly status: number | null; readonly retryAfterMs?: number | null; readonly cause?: unknown },
  ): WaggleClientError {
    const { status, retryAfterMs = null } = fields;
    const verdict = again({ code, status, retryAfterMs, isKeyNew: this.#isKeyNew });
    // Of a deadline that has passed the caller may well set another; the call itself may not.
    const isRetryable = verdict !== 'never' || code === 'DEADLINE_EXCEEDED';
    return new WaggleClientError(code, detail, { ...fields, node: this.node.url, answer: this.#info, isRetryable });
  }

  /** It is over, however it ended. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.lifeline.end();
    this.node.inFlight--;
  }

  #unreachable(cause: unknown): WaggleClientError {
    const { cause: inner } = Object(cause) as { readonly cause?: { readonly code?: unknown } };
    const code = NOT_CONNECTED.has(inner?.code) ? 'CONNECTION_FAILED' : 'CONNECTION_LOST';
    const why = typeof inner?.code === 'string' ? inner.code : cause instanceof Error ? cause.message : 'none';
    return this.error(code, `Expected an answer of ${this.node.url}, received ${why}`, { status: null, cause });
  }

  /** The problem (RFC 9457) in a response, or what else came in its place. */
  async #problem(response: Response): Promise<WaggleClientError> {
    const { status } = response;
    const retryAfterMs = retryAfterMsOf(response.headers);
    let problem: Record<string, unknown> = {};
    try {
      const text = new TextDecoder().decode(await this.read(response, PROBLEM_BYTES_MAX));
      problem = Object(JSON.parse(text)) as Record<string, unknown>;
    } catch (cause) {
      const reason = this.lifeline.errorOf(() => null);
      if (reason !== null) throw reason;
      if (cause instanceof WaggleClientError && cause.code === 'CONNECTION_LOST') return cause;
    }
    const { code, detail, title } = problem;
    if (typeof code === 'string' && /^[A-Z][A-Z0-9_]{0,63}$/.test(code)) {
      const words = typeof detail === 'string' ? detail : typeof title === 'string' ? title : '';
      return this.error(code, words.slice(0, 4_096), { status, retryAfterMs });
    }
    return this.error('ANSWER_INVALID', `Expected an answer of a Waggle node, received status ${status}`, {
      status,
      retryAfterMs,
    });
  }
}
