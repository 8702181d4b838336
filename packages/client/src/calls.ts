import { pause } from './clock.ts';
import { uploadOf, type PictureBody, type Upload } from './body.ts';
import { WaggleClientError } from './error.ts';
import { Exchange } from './exchange.ts';
import { Nodes, type Node } from './nodes.ts';
import { deadlineOf, type Settings } from './options.ts';
import { again, backoffMs } from './retry.ts';

/** What a call asks for. It has to be safe to repeat: a read, or work under an idempotency key. */
export interface Call {
  /** Path and query, as every node has them. */
  readonly path: string;
  /** A picture to be sent: then it is a `POST`, else a `GET`. */
  readonly body?: PictureBody;
  /** Content type of the body, where the body does not say it. */
  readonly contentType?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Instead of that of the client, in ms. */
  readonly deadlineMs?: number;
  /** Whether the exchange stays open when the answer has been taken, for whoever reads on: then that one ends it. */
  readonly isStreamed?: boolean;
}

/** Makes something of an answer. Until it resolves, a failure is a failure of the attempt. */
export type Reader<T> = (response: Response, exchange: Exchange) => Promise<T>;

/** How long what the nodes say of themselves is taken for true, in ms. */
const LEARN_EVERY_MS = 10_000;
/** How many are asked until one says it. */
const LEARN_NODES_MAX = 3;
/** How long a node has to say it, in ms. */
const LEARN_MS_MAX = 5_000;
/** How much of it is read, in bytes. */
const LISTING_BYTES_MAX = 2 ** 20;

/** What one call has gone through. */
interface Course {
  readonly call: Call;
  readonly upload: Upload | null;
  readonly deadlineMs: number;
  readonly deadlineAtMs: number;
  /** Nodes that failed it. */
  readonly tried: Set<Node>;
  attempts: number;
  /** Why the last attempt failed. */
  last: WaggleClientError | undefined;
  /** Failures that may be followed by one more attempt only. */
  singles: number;
}

/** Carries calls out: chooses nodes, repeats what may be repeated, and keeps to the deadline. */
export class Calls {
  readonly #settings: Settings;
  readonly #nodes: Nodes;
  readonly #createdMs: number;
  #learnedMs = Number.NEGATIVE_INFINITY;
  #isLearning = false;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#nodes = new Nodes(settings);
    this.#createdMs = settings.clock.nowMs();
  }

  /** Sends until `read` has made something of an answer. Rejects with `WaggleClientError`, or with the reason of the signal. */
  async call<T>(call: Call, read: Reader<T>): Promise<T> {
    const { clock } = this.#settings;
    const deadlineMs = deadlineOf(call.deadlineMs ?? this.#settings.deadlineMs);
    const upload = call.body === undefined ? null : uploadOf(call.body);
    const deadlineAtMs = clock.nowMs() + deadlineMs;
    const course: Course = {
      call,
      upload,
      deadlineMs,
      deadlineAtMs,
      tried: new Set(),
      attempts: 0,
      last: undefined,
      singles: 0,
    };
    try {
      call.signal?.throwIfAborted();
      this.#learnSometimes();
      for (let node = this.#nodes.pick(course.tried, clock.nowMs()); ;) {
        try {
          return await this.#attempt(course, node, read);
        } catch (error) {
          if (!(error instanceof WaggleClientError)) throw error;
          error.attempts = course.attempts;
          if (error.code === 'DEADLINE_EXCEEDED') error.cause ??= course.last;
          course.last = error;
          node = await this.#afterFailure(course, node, error);
        }
      }
    } finally {
      upload?.end();
    }
  }

  async #attempt<T>(course: Course, node: Node, read: Reader<T>): Promise<T> {
    const { clock, attemptMs, onAttempt } = this.#settings;
    const { call, upload } = course;
    const idleMs = call.isStreamed === true ? course.deadlineMs : null;
    const exchange = new Exchange(this.#settings, node, { signal: call.signal, isKeyNew: this.#isKeyNew, idleMs });
    const leftMs = course.deadlineAtMs - clock.nowMs();
    if (leftMs <= attemptMs)
      exchange.lifeline.limit(Math.max(0, leftMs), () => exchange.slow('DEADLINE_EXCEEDED', course.deadlineMs));
    else exchange.lifeline.limit(attemptMs, () => exchange.slow('ANSWER_TIMEOUT', attemptMs));
    const number = ++course.attempts;
    const report = (error: WaggleClientError | null): void =>
      onAttempt({ number, node: node.url, answer: exchange.info, error });
    try {
      const result = await read(await exchange.send(call.path, initOf(call, upload)), exchange);
      if (call.isStreamed === true) exchange.lifeline.unlimit();
      else exchange.end();
      node.succeeded();
      report(null);
      return result;
    } catch (error) {
      exchange.end();
      // The source of the picture failed, not the node.
      if (upload?.failure !== undefined) throw upload.failure;
      if (!(error instanceof WaggleClientError)) throw error;
      this.#note(node, error);
      report(error);
      throw error;
    }
  }

  /** What a failure says of the node. */
  #note(node: Node, { code, answer, status, retryAfterMs }: WaggleClientError): void {
    const nowMs = this.#settings.clock.nowMs();
    const isAnswered = answer?.requestId != null && code !== 'CONNECTION_LOST' && code !== 'ANSWER_INVALID';
    if (isAnswered) node.succeeded();
    else if (code !== 'DEADLINE_EXCEEDED') node.failed(nowMs);
    if (status === 503 && retryAfterMs !== null) node.heldUntilMs = nowMs + retryAfterMs;
  }

  /** Waits until the next attempt and says which node it is for. Throws the error if there is to be none. */
  async #afterFailure(course: Course, node: Node, error: WaggleClientError): Promise<Node> {
    const { clock, retries, random } = this.#settings;
    const { call, upload, tried, deadlineAtMs } = course;
    const verdict = again({
      code: error.code,
      status: error.status,
      retryAfterMs: error.retryAfterMs,
      isKeyNew: this.#isKeyNew,
    });
    if (verdict === 'once') course.singles++;
    if (verdict === 'never' || course.singles > 1 || course.attempts >= retries.attemptsMax) throw error;
    if (upload?.canRepeat === false) throw error;
    // Work whose answer was lost may be done: the same node knows its idempotency key and does not meter it again.
    const stays = error.code === 'CONNECTION_LOST' && upload !== null && !tried.has(node);
    tried.add(node);
    const nowMs = clock.nowMs();
    const waitMs = backoffMs(retries, course.attempts - 1, random());
    const next = stays ? node : this.#nodes.pick(tried, nowMs + waitMs);
    // A limit of the customer holds wherever the request goes, what a node says of itself only there.
    const heldMs = error.status === 429 ? (error.retryAfterMs ?? 0) : Math.max(0, next.heldUntilMs - nowMs);
    if (nowMs + heldMs + waitMs >= deadlineAtMs) throw error;
    await pause(clock, heldMs + waitMs, call.signal);
    return next;
  }

  get #isKeyNew(): boolean {
    return this.#settings.clock.nowMs() - this.#createdMs < this.#settings.newKeyMs;
  }

  /** Asks for all nodes if that was long ago. Nobody waits for it, and nothing depends on it. */
  #learnSometimes(): void {
    const { clock, learn } = this.#settings;
    if (!learn || this.#isLearning || clock.nowMs() - this.#learnedMs < LEARN_EVERY_MS) return;
    this.#isLearning = true;
    this.#learnedMs = clock.nowMs();
    void this.#learn().finally(() => (this.#isLearning = false));
  }

  /** Asks one node after another, until one says it. */
  async #learn(): Promise<void> {
    const tried = new Set<Node>();
    for (let i = 0; i < LEARN_NODES_MAX; i++) {
      const node = this.#nodes.pick(tried, this.#settings.clock.nowMs());
      if (tried.has(node) || (await this.#learnFrom(node))) return;
      tried.add(node);
    }
  }

  async #learnFrom(node: Node): Promise<boolean> {
    const exchange = new Exchange(this.#settings, node);
    exchange.lifeline.limit(LEARN_MS_MAX, () => exchange.slow('ANSWER_TIMEOUT', LEARN_MS_MAX));
    try {
      const response = await exchange.send('/v1/nodes', { method: 'GET' });
      const text = new TextDecoder().decode(await exchange.read(response, LISTING_BYTES_MAX));
      this.#nodes.learn(node, exchange.info?.replica ?? null, JSON.parse(text));
      return true;
    } catch (error) {
      // A node that cannot say it goes on to be asked for work; one that does not answer rests.
      if (error instanceof WaggleClientError) this.#note(node, error);
      return false;
    } finally {
      exchange.end();
    }
  }
}

function initOf({ headers, contentType }: Call, upload: Upload | null): RequestInit {
  if (upload === null) return { method: 'GET', headers: { ...headers } };
  return { method: 'POST', headers: { ...headers, 'content-type': contentType ?? upload.type }, ...upload.open() };
}
