import type { IncomingMessage, ServerResponse } from 'node:http';
import { WaggleError, type CustomerId } from '@waggle/protocol/base';

/**
 * The memory that bodies may take at one node, from their first byte until their work is done. Beyond it an upload is refused
 * at once, and one customer alone never gets more than half of it: slow uploads of one do not shut the others out.
 */
export class BodyMemory {
  readonly #bytesMax: number;
  readonly #byCustomer = new Map<CustomerId, number>();
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Bytes that are taken. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Throws `QUEUE_FULL`, having taken nothing. */
  take(customer: CustomerId, bytes: number): void {
    const own = (this.#byCustomer.get(customer) ?? 0) + bytes;
    if (this.#bytes + bytes > this.#bytesMax || own > this.#bytesMax / 2)
      throw new WaggleError(
        'QUEUE_FULL',
        `Expected room for ${bytes} more bytes of request bodies, ${this.#bytes} are taken`,
      );
    this.#bytes += bytes;
    this.#byCustomer.set(customer, own);
  }

  give(customer: CustomerId, bytes: number): void {
    const left = (this.#byCustomer.get(customer) ?? 0) - bytes;
    this.#bytes -= bytes;
    if (left > 0) this.#byCustomer.set(customer, left);
    else this.#byCustomer.delete(customer);
  }
}

/** One body on its way in: read at most once, into memory that is given back by `release`. */
export class Upload {
  readonly #source: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #memory: BodyMemory;
  readonly #customer: CustomerId;
  #taken = 0;
  #received = 0;

  constructor(source: IncomingMessage, response: ServerResponse, memory: BodyMemory, customer: CustomerId) {
    this.#source = source;
    this.#response = response;
    this.#memory = memory;
    this.#customer = customer;
  }

  /** Bytes that have arrived. */
  get received(): number {
    return this.#received;
  }

  /**
   * The whole body. Throws `BODY_TOO_LARGE` beyond `bytesMax`, by the declared length before anything is read, `QUEUE_FULL`
   * without memory for it and `RESIZE_CANCELLED` when the client goes away.
   */
  async read(bytesMax: number): Promise<Buffer> {
    const header = this.#source.headers['content-length'];
    const declared = header === undefined ? null : Number(header);
    if (declared !== null && declared > bytesMax) throw tooLarge(bytesMax, declared);
    this.#take(declared ?? 0);
    // A client that asked whether it may send the body (RFC 9110 §10.1.1) is told so only now.
    if (this.#source.headers.expect !== undefined) this.#response.writeContinue();
    return declared === null ? this.#collect(bytesMax) : this.#fill(declared);
  }

  /** Gives the memory back. */
  release(): void {
    this.#memory.give(this.#customer, this.#taken);
    this.#taken = 0;
  }

  #take(bytes: number): void {
    this.#memory.take(this.#customer, bytes);
    this.#taken += bytes;
  }

  /** A body of known length goes into place as it arrives. */
  async #fill(length: number): Promise<Buffer> {
    const body = Buffer.allocUnsafeSlow(length);
    await this.#consume((chunk) => {
      if (this.#received + chunk.length > length) throw tooLarge(length, this.#received + chunk.length);
      chunk.copy(body, this.#received);
    });
    if (this.#received < length)
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected ${length} bytes as content-length says, received ${this.#received}`,
      );
    return body;
  }

  async #collect(bytesMax: number): Promise<Buffer> {
    const chunks: Buffer[] = [];
    await this.#consume((chunk) => {
      if (this.#received + chunk.length > bytesMax) throw tooLarge(bytesMax, this.#received + chunk.length);
      this.#take(chunk.length);
      chunks.push(chunk);
    });
    return Buffer.concat(chunks, this.#received);
  }

  /** Hands every chunk on until the end; if `onChunk` throws, no more is read. */
  #consume(onChunk: (chunk: Buffer) => void): Promise<void> {
    const source = this.#source;
    return new Promise((resolve, reject) => {
      const settle = (error?: unknown): void => {
        source.off('data', onData).off('end', onEnd).off('close', onClose);
        if (error === undefined) return resolve();
        source.pause();
        reject(error);
      };
      const onData = (chunk: Buffer): void => {
        try {
          onChunk(chunk);
          this.#received += chunk.length;
        } catch (error) {
          settle(error);
        }
      };
      const onEnd = (): void => settle();
      const onClose = (): void =>
        settle(new WaggleError('RESIZE_CANCELLED', 'Expected the whole body, the client went away'));
      // An error is followed by a close; unheard, it would end the process.
      source
        .on('data', onData)
        .on('end', onEnd)
        .on('close', onClose)
        .on('error', () => {});
    });
  }
}

const tooLarge = (bytesMax: number, received: number): WaggleError =>
  new WaggleError('BODY_TOO_LARGE', `Expected at most ${bytesMax} bytes (bodyBytesMax), received ${received}`);
