import { invalid } from './error.ts';

/** A picture to be sent. Bytes must not be changed before the call has ended. */
export type PictureBody = Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>;

/** How much of a stream is kept for a retry, in bytes. */
export const STREAM_KEPT_BYTES_MAX = 8 * 2 ** 20;

/** A body that can be sent several times, within bounds. */
export interface Upload {
  /** Media type, as far as the body says it. */
  readonly type: string;
  /** What one attempt hands to fetch. */
  open(): Pick<RequestInit, 'body'> & { readonly duplex?: 'half' };
  /** Whether it can be sent again from its start. */
  readonly canRepeat: boolean;
  /** Why the source of it failed, if it did. */
  readonly failure: unknown;
  /** No more attempts: lets go of the source. */
  end(): void;
}

/** The upload of a body. Throws `ARGUMENT_INVALID` for what is none. */
export function uploadOf(body: PictureBody): Upload {
  if (ArrayBuffer.isView(body) || body instanceof ArrayBuffer) return new Whole(body as BodyInit, '');
  if (typeof Blob === 'function' && body instanceof Blob) return new Whole(body, body.type);
  if (typeof body === 'object' && body !== null && ('getReader' in body || Symbol.asyncIterator in body))
    return new Streamed('getReader' in body ? chunksOf(body) : body[Symbol.asyncIterator]());
  throw invalid('bytes, a Blob or a stream of bytes as the picture', body);
}

/** Bytes that are all there. */
class Whole implements Upload {
  readonly type: string;
  readonly canRepeat = true;
  readonly failure = undefined;
  readonly #body: BodyInit;

  constructor(body: BodyInit, type: string) {
    this.#body = body;
    this.type = type.startsWith('image/') ? type : 'application/octet-stream';
  }

  open(): Pick<RequestInit, 'body'> {
    return { body: this.#body };
  }

  end(): void {}
}

/**
 * A stream. Its first `STREAM_KEPT_BYTES_MAX` are kept while it is sent, so that a retry can begin again; a longer one can be sent
 * once only. Nothing is read before fetch asks for it.
 */
class Streamed implements Upload {
  readonly type = 'application/octet-stream';
  failure: unknown = undefined;
  readonly #source: AsyncIterator<Uint8Array>;
  /** Chunks from number `#first` on; emptied whenever they grow too large. */
  #kept: Uint8Array[] = [];
  #keptBytes = 0;
  #first = 0;
  #isAtEnd = false;
  #reading: Promise<void> | null = null;

  constructor(source: AsyncIterator<Uint8Array>) {
    this.#source = source;
  }

  get canRepeat(): boolean {
    return this.#first === 0 && this.failure === undefined;
  }

  open(): { body: ReadableStream<Uint8Array>; duplex: 'half' } {
    let next = 0;
    const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
      const chunk = await this.#chunk(next++);
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    };
    // No high-water mark of its own: what is read is what is sent.
    return { body: new ReadableStream<Uint8Array>({ pull }, { highWaterMark: 0 }), duplex: 'half' };
  }

  end(): void {
    this.#kept = [];
    if (!this.#isAtEnd) this.#source.return?.().catch(() => undefined);
    this.#isAtEnd = true;
  }

  /** A chunk by its number. An attempt that was given up may still wait for one: both wait for the same read. */
  async #chunk(index: number): Promise<Uint8Array | undefined> {
    while (index >= this.#first + this.#kept.length && !this.#isAtEnd) {
      this.#reading ??= this.#read().finally(() => (this.#reading = null));
      await this.#reading;
    }
    return this.#kept[index - this.#first];
  }

  async #read(): Promise<void> {
    try {
      const { done, value } = await this.#source.next();
      if (this.#isAtEnd) return;
      if (done === true) return void (this.#isAtEnd = true);
      if (!ArrayBuffer.isView(value)) throw invalid('a stream of bytes as the picture', value);
      this.#keep(value);
    } catch (error) {
      this.failure = error;
      throw error;
    }
  }

  #keep(chunk: Uint8Array): void {
    this.#keptBytes += chunk.byteLength;
    if (this.#keptBytes > STREAM_KEPT_BYTES_MAX) {
      this.#first += this.#kept.length;
      this.#kept = [];
    }
    this.#kept.push(chunk);
  }
}

/** The chunks of a stream; not every browser can iterate over one. */
function chunksOf(stream: ReadableStream<Uint8Array>): AsyncIterator<Uint8Array> {
  const reader = stream.getReader();
  return {
    next: async () => (await reader.read()) as IteratorResult<Uint8Array>,
    return: async () => {
      await reader.cancel();
      return { done: true, value: undefined };
    },
  };
}
