import type { IncomingMessage, ServerResponse } from 'node:http';
import { WaggleError } from '@waggle/protocol/base';
import type { Clock } from '@waggle/runtime';
import type { BufferPool } from './buffers.ts';
import type { Room } from './room.ts';

/** How long an upload may take however slow it is, in ms. */
const GRACE_MS = 10_000;
/** What it has to bring for each second beyond that, in bytes: EDGE does, in a train. */
const BYTES_PER_SECOND_MIN = 8 * 1024;

/** How long an upload may have taken that has brought that many bytes, in ms. */
const patienceMs = (bytes: number): number => GRACE_MS + (bytes / BYTES_PER_SECOND_MIN) * 1000;

/** Where the memory for an upload comes from, and who pays for it. */
export interface UploadMemory {
  readonly room: Room;
  readonly party: string;
  /** Where a whole body is put together. */
  readonly buffers: BufferPool;
}

/** One body on its way in: read at most once, into memory that is taken as it arrives and given back by `release`. */
export class Upload {
  readonly #source: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #memory: UploadMemory;
  readonly #clock: Clock;
  #received = 0;
  #taken = 0;
  #body: Buffer | undefined;

  constructor(source: IncomingMessage, response: ServerResponse, memory: UploadMemory, clock: Clock) {
    this.#source = source;
    this.#response = response;
    this.#memory = memory;
    this.#clock = clock;
  }

  /** Bytes that have arrived. */
  get received(): number {
    return this.#received;
  }

  /**
   * The whole body. Throws `BODY_TOO_LARGE` beyond `bytesMax`, by the declared length before anything is read, `QUEUE_FULL`
   * without memory for it, `REQUEST_TIMEOUT` when it comes too slowly and `RESIZE_CANCELLED` when the client goes away.
   */
  async read(bytesMax: number): Promise<Buffer> {
    const header = this.#source.headers['content-length'];
    const declared = header === undefined ? null : Number(header);
    if (declared !== null && declared > bytesMax) throw tooLarge(bytesMax, declared);
    // A client that asked whether it may send the body (RFC 9110 §10.1.1) is told so only now.
    if (this.#source.headers.expect !== undefined) this.#response.writeContinue();
    const chunks: Buffer[] = [];
    await this.#consume((chunk) => {
      if (this.#received + chunk.length > bytesMax) throw tooLarge(bytesMax, this.#received + chunk.length);
      this.#memory.room.take(this.#memory.party, chunk.length);
      this.#taken += chunk.length;
      chunks.push(chunk);
    });
    if (declared !== null && this.#received !== declared)
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected ${declared} bytes as content-length says, received ${this.#received}`,
      );
    if (chunks.length <= 1) return chunks[0] ?? Buffer.alloc(0);
    this.#body = this.#memory.buffers.take(this.#received);
    let offset = 0;
    for (const chunk of chunks) offset += chunk.copy(this.#body, offset);
    return this.#body;
  }

  /** Gives the memory back: the body must not be read any more. */
  release(): void {
    if (this.#body !== undefined) this.#memory.buffers.give(this.#body);
    this.#body = undefined;
    this.#memory.room.give(this.#memory.party, this.#taken);
    this.#taken = 0;
  }

  /** Hands every chunk on until the end; if `onChunk` throws, no more is read. */
  #consume(onChunk: (chunk: Buffer) => void): Promise<void> {
    const source = this.#source;
    return new Promise((resolve, reject) => {
      const settle = (error?: unknown): void => {
        source.off('data', onData).off('end', onEnd).off('close', onClose);
        stopWatching();
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
      const stopWatching = this.#watch((seconds) =>
        settle(
          new WaggleError(
            'REQUEST_TIMEOUT',
            `Expected at least ${BYTES_PER_SECOND_MIN} bytes a second, received ${this.#received} in ${seconds} s`,
          ),
        ),
      );
      // An error is followed by a close; unheard, it would end the process.
      source
        .on('data', onData)
        .on('end', onEnd)
        .on('close', onClose)
        .on('error', () => {});
    });
  }

  /** Calls `onSlow` once when patience ends; gives what stops that. */
  #watch(onSlow: (seconds: number) => void): () => void {
    const startedMs = this.#clock.monotonicMs();
    const look = (): void => {
      const tookMs = this.#clock.monotonicMs() - startedMs;
      const leftMs = patienceMs(this.#received) - tookMs;
      if (leftMs <= 0) onSlow(Math.round(tookMs / 1000));
      else cancel = this.#clock.after(leftMs, look);
    };
    let cancel = this.#clock.after(GRACE_MS, look);
    return () => cancel();
  }
}

const tooLarge = (bytesMax: number, received: number): WaggleError =>
  new WaggleError('BODY_TOO_LARGE', `Expected at most ${bytesMax} bytes (bodyBytesMax), received ${received}`);
