import type { PictureBody } from './body.ts';
import { Calls, type Call, type Reader } from './calls.ts';
import { invalid, WaggleClientError } from './error.ts';
import type { Exchange } from './exchange.ts';
import { linesOf } from './lines.ts';
import { settingsOf, type ClientOptions } from './options.ts';
import type {
  AnswerInfo,
  EpochRange,
  Estimate,
  Inspection,
  Picture,
  PictureInfo,
  PictureStream,
  RequestRecord,
  ResizeParams,
  StatementEntry,
  TimeRange,
  UsageReport,
} from './types.ts';

/** Largest picture that is taken whole, in bytes. */
const PICTURE_BYTES_MAX = 256 * 2 ** 20;
/** Largest JSON answer, in bytes. */
const JSON_BYTES_MAX = 16 * 2 ** 20;

/** What may be said of any call. */
export interface CallOptions {
  /** Cancels it: it rejects with the reason of the signal. */
  readonly signal?: AbortSignal;
  /** Instead of that of the client, in ms. */
  readonly deadlineMs?: number;
}

/** What may be said of a call that sends a picture. */
export interface WorkOptions extends CallOptions {
  /**
   * 1 to 255 printable ASCII characters. By default each call has one of its own, so that its retries are billed once; give one
   * to repeat a call in another process, or after it failed, at no charge.
   */
  readonly idempotencyKey?: string;
  /** For `format: 'auto'`: the Accept header of whoever will see the picture. Default: any type. */
  readonly accept?: string;
  /** Media type of the body. The node looks at the bytes, not at this. */
  readonly contentType?: string;
}

/** A customer's way to a cluster. It holds no connection and no timer of its own: there is nothing to close. */
export class Client {
  readonly #calls: Calls;

  /** Throws `ARGUMENT_INVALID`. */
  constructor(options: ClientOptions) {
    this.#calls = new Calls(settingsOf(options));
  }

  /** Resizes a picture; the result whole. A connection that breaks off on the way is a retry. */
  resize(body: PictureBody, params: ResizeParams = {}, options: WorkOptions = {}): Promise<Picture> {
    return this.#work('/v1/resize', body, params, options, async (response, exchange) => ({
      ...pictureInfo(response, exchange),
      bytes: await exchange.read(response, PICTURE_BYTES_MAX),
    }));
  }

  /** Resizes a picture; the result as it comes. From its first byte on nothing is retried, and each chunk has the deadline to come. */
  resizeStream(body: PictureBody, params: ResizeParams = {}, options: WorkOptions = {}): Promise<PictureStream> {
    const read: Reader<PictureStream> = async (response, exchange) => {
      const length = response.headers.get('content-length');
      return {
        ...pictureInfo(response, exchange),
        length: length === null ? null : Number(length),
        body: streamOf(exchange, exchange.chunks(response)),
      };
    };
    return this.#work('/v1/resize', body, params, options, read, true);
  }

  /** What a picture is, without resizing it. */
  inspect(body: PictureBody, options: WorkOptions = {}): Promise<Inspection & { readonly answer: AnswerInfo }> {
    return this.#work('/v1/inspect', body, {}, options, withAnswer<Inspection>);
  }

  /** What a resize would cost and give. */
  estimate(
    body: PictureBody,
    params: ResizeParams = {},
    options: WorkOptions = {},
  ): Promise<Estimate & { readonly answer: AnswerInfo }> {
    return this.#work('/v1/estimate', body, params, options, withAnswer<Estimate>);
  }

  /** Usage in a range of time, widened to whole epochs. */
  async usage(
    range: TimeRange & { readonly group?: 'epoch' | 'day' | 'sku' } = {},
    options: CallOptions = {},
  ): Promise<UsageReport> {
    const { from, to, group } = range;
    const path = `/v1/usage${queryOf({ from: timeOf(from), to: timeOf(to), group })}`;
    return this.#calls.call({ ...options, path }, readJson<UsageReport>);
  }

  /** The requests one by one, by time, as they come. Nothing is retried after the first; each chunk of them has the deadline to come. */
  async *records(range: TimeRange = {}, options: CallOptions = {}): AsyncGenerator<RequestRecord, void, undefined> {
    const path = `/v1/records${queryOf({ from: timeOf(range.from), to: timeOf(range.to) })}`;
    const open: Reader<AsyncGenerator<RequestRecord, void, undefined>> = async (response, exchange) =>
      linesOf<RequestRecord>(response, exchange);
    yield* await this.#calls.call({ ...options, path, isStreamed: true }, open);
  }

  /** The statements by the epoch that sealed them, page after page. */
  async *statements(
    range: EpochRange = {},
    options: CallOptions = {},
  ): AsyncGenerator<StatementEntry, void, undefined> {
    const { from, to } = range;
    for (let next: number | null | undefined = from; next !== null;) {
      const path = `/v1/statements${queryOf({ from: epochOf(next), to: epochOf(to) })}`;
      const page: StatementPage = await this.#calls.call({ ...options, path }, readJson<StatementPage>);
      yield* page.statements;
      if (page.next !== null && page.next <= (next ?? -1))
        throw new WaggleClientError('ANSWER_INVALID', `Expected a later page of statements, received ${page.next}`);
      next = page.next;
    }
  }

  /** A statement byte for byte as it was sealed: JSON, but verified as bytes. `origin`: the epoch of late usage. */
  async statement(
    epoch: number,
    options: CallOptions & { readonly origin?: number } = {},
  ): Promise<Uint8Array<ArrayBuffer>> {
    return this.#sealed(`/v1/statements/${epochOf(epoch)}`, options);
  }

  /** The proof that a statement is in the log (c2sp.org/tlog-proof). `origin` likewise. */
  async proof(epoch: number, options: CallOptions & { readonly origin?: number } = {}): Promise<string> {
    return new TextDecoder().decode(await this.#sealed(`/v1/statements/${epochOf(epoch)}.tlog-proof`, options));
  }

  #sealed(
    path: string,
    { origin, ...options }: CallOptions & { readonly origin?: number },
  ): Promise<Uint8Array<ArrayBuffer>> {
    return this.#calls.call({ ...options, path: path + queryOf({ origin: epochOf(origin) }) }, (response, exchange) =>
      exchange.read(response, JSON_BYTES_MAX),
    );
  }

  async #work<T>(
    path: string,
    body: PictureBody,
    params: ResizeParams,
    { idempotencyKey = newIdempotencyKey(), accept = '*/*', contentType, ...options }: WorkOptions,
    read: Reader<T>,
    isStreamed = false,
  ): Promise<T> {
    if (!/^[ -~]{1,255}$/.test(idempotencyKey) || idempotencyKey.trim() !== idempotencyKey)
      throw invalid('1 to 255 printable ASCII characters for idempotencyKey', idempotencyKey);
    if (contentType !== undefined && !/^(image\/[\w.+-]+|application\/octet-stream)$/i.test(contentType))
      throw invalid('image/* or application/octet-stream for contentType', contentType);
    // Every attempt is the same request to the last header: else it would not be a repeat.
    const call: Call = {
      ...options,
      isStreamed,
      path: path + queryOf({ ...params }),
      body,
      headers: { accept, 'idempotency-key': idempotencyKey },
      ...(contentType === undefined ? {} : { contentType }),
    };
    return this.#calls.call(call, read);
  }
}

interface StatementPage {
  readonly statements: readonly StatementEntry[];
  readonly next: number | null;
}

/** A client of the cluster that those nodes belong to. Throws `ARGUMENT_INVALID`. */
export const createClient = (options: ClientOptions): Client => new Client(options);

function pictureInfo({ headers }: Response, { info }: Exchange): PictureInfo {
  return {
    type: headers.get('content-type') ?? 'application/octet-stream',
    width: Number(headers.get('waggle-width')),
    height: Number(headers.get('waggle-height')),
    etag: headers.get('etag'),
    answer: info!,
  };
}

async function readJson<T>(response: Response, exchange: Exchange): Promise<T> {
  const text = new TextDecoder().decode(await exchange.read(response, JSON_BYTES_MAX));
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as T;
  } catch {
    // Said below, as for JSON that is no object.
  }
  throw exchange.invalid(response, 'Expected a JSON object of a Waggle node, received something else');
}

const withAnswer = async <T extends object>(
  response: Response,
  exchange: Exchange,
): Promise<T & { answer: AnswerInfo }> => ({
  ...(await readJson<T>(response, exchange)),
  answer: exchange.info!,
});

/** A body for whoever reads on; the exchange is over when it has ended, failed or been cancelled. */
function streamOf(
  exchange: Exchange,
  chunks: AsyncGenerator<Uint8Array<ArrayBuffer>>,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream(
    {
      pull: async (controller) => {
        try {
          const { done, value } = await chunks.next();
          if (done !== true) return controller.enqueue(value);
          controller.close();
        } catch (error) {
          controller.error(error);
        }
        exchange.end();
      },
      cancel: async () => {
        exchange.lifeline.abort();
        exchange.end();
        await chunks.return(undefined).catch(() => undefined);
      },
    },
    { highWaterMark: 0 },
  );
}

/** 128 bits: no two calls of anyone share one. */
const newIdempotencyKey = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Parameters as the end of a path; those not given are left out. */
function queryOf(params: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const given = Object.entries(params).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]));
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`;
}

function timeOf(time: Date | string | undefined): string | undefined {
  if (!(time instanceof Date)) return time;
  if (Number.isNaN(time.getTime())) throw invalid('a valid time', time);
  return time.toISOString();
}

function epochOf(epoch: number | undefined): number | undefined {
  if (epoch === undefined || (Number.isSafeInteger(epoch) && epoch >= 0)) return epoch;
  throw invalid('the number of an epoch', epoch);
}
