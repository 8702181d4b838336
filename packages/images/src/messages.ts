import { ERRORS, fromUtf8, utf8, WaggleError, type ErrorCode } from '@waggle/protocol/base';
import type { PlannedPicture, SourceHeader } from './geometry.ts';
import type { Limits } from './limits.ts';
import type { OutputFormat, ResizePlan } from './plan.ts';

/*
 * What pool and worker say to each other over a socket pair: frames of
 *   4 bytes header length, 4 bytes body length (both little-endian), the header as JSON, the body.
 */

/** `resize` makes a picture, `inspect` reads the header and estimates, `probe` proves that the worker works. */
export type Operation = 'resize' | 'inspect' | 'probe';

export interface JobRequest {
  readonly op: Operation;
  readonly plan: ResizePlan;
  readonly limits: Limits;
  /** What is left of the deadline, in ms. */
  readonly budgetMs: number;
}

/** A result's header. */
export interface ResultHeader extends PlannedPicture {
  /** Size of the result; 0 if none was made (`inspect`). */
  readonly bytes: number;
}

/** `ready` once, unasked; then one `done` per request. */
export type WorkerMessage =
  | { readonly type: 'ready'; readonly cpuTotalMicros: number }
  | ({
      readonly type: 'done';
      /** Of the process since it started. */
      readonly cpuTotalMicros: number;
      /** Resident memory in bytes, after the job. */
      readonly rssBytes: number;
    } & JobReport);

/** What a worker knows of a job at its end. */
export interface JobReport {
  readonly error?: { readonly code: ErrorCode; readonly message: string };
  readonly input?: SourceHeader;
  readonly output?: ResultHeader;
  /** Estimated CPU time in µs; there once the header was read. */
  readonly estimateMicros?: number;
  /** CPU time of the job in µs, exact: one job at a time. */
  readonly cpuMicros: number;
  /** Pixels given to the decoder and pixels written, over all frames. */
  readonly pixelsIn: number;
  readonly pixelsOut: number;
}

const PREFIX_BYTES = 8;
const HEADER_BYTES_MAX = 64 * 1024;
/** More than any body that is let in and any result within the pixel limits. */
const BODY_BYTES_MAX = 2 ** 30;

/** The first part of a frame; the body follows as it is, so that it need not be copied. */
export function frameHead(message: JobRequest | WorkerMessage, bodyBytes: number): Uint8Array {
  const header = utf8(JSON.stringify(message));
  const head = new Uint8Array(PREFIX_BYTES + header.length);
  const view = new DataView(head.buffer);
  view.setUint32(0, header.length, true);
  view.setUint32(4, bodyBytes, true);
  head.set(header, PREFIX_BYTES);
  return head;
}

/** Puts frames together from chunks. `onFrame` gets a body of its own (copied once, into place). */
export class FrameReader<T> {
  readonly #onFrame: (message: T, body: Buffer) => void;
  readonly #prefix = Buffer.alloc(PREFIX_BYTES);
  #header: Buffer | undefined;
  #body = Buffer.alloc(0);
  /** Bytes of the current frame that are here. */
  #filled = 0;

  constructor(onFrame: (message: T, body: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** Throws `DECODE_FAILED` on anything that is not a frame of ours. */
  push(chunk: Buffer): void {
    let offset = 0;
    while (offset < chunk.length) {
      const [target, start] = this.#target();
      const length = Math.min(target.length - (this.#filled - start), chunk.length - offset);
      chunk.copy(target, this.#filled - start, offset, offset + length);
      offset += length;
      this.#filled += length;
      this.#advance();
    }
  }

  /** The part that is being filled and where in the frame it starts. */
  #target(): [Buffer, number] {
    if (this.#header === undefined) return [this.#prefix, 0];
    const bodyStart = PREFIX_BYTES + this.#header.length;
    return this.#filled < bodyStart ? [this.#header, PREFIX_BYTES] : [this.#body, bodyStart];
  }

  #advance(): void {
    if (this.#filled < PREFIX_BYTES) return;
    if (this.#header === undefined) {
      const headerBytes = this.#prefix.readUInt32LE(0);
      const bodyBytes = this.#prefix.readUInt32LE(4);
      if (headerBytes === 0 || headerBytes > HEADER_BYTES_MAX || bodyBytes > BODY_BYTES_MAX)
        throw new WaggleError(
          'DECODE_FAILED',
          `Expected a frame within its bounds, received ${headerBytes} and ${bodyBytes} bytes`,
        );
      this.#header = Buffer.allocUnsafeSlow(headerBytes);
      this.#body = Buffer.allocUnsafeSlow(bodyBytes);
    }
    if (this.#filled < PREFIX_BYTES + this.#header.length + this.#body.length) return;
    const message = JSON.parse(fromUtf8(this.#header)) as T;
    const body = this.#body;
    this.#header = undefined;
    this.#filled = 0;
    this.#onFrame(message, body);
  }
}

/** More pixels, bytes and µs than the limits let any one job have: sums of them stay far below 2^53. */
const FIGURE_MAX = 2 ** 34;
const isCount = (value: unknown, max = FIGURE_MAX): boolean =>
  Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= max;
const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null;
const OUTPUT_FORMATS: ReadonlySet<unknown> = new Set<OutputFormat>(['jpeg', 'png', 'webp', 'avif', 'gif']);

/** A picture's header, as far as the parent reckons with it. */
const isHeader = (value: unknown): boolean =>
  isObject(value) &&
  OUTPUT_FORMATS.has(value['format']) &&
  ['width', 'height', 'frames', 'bytes'].every((name) => isCount(value[name]));

const isError = (value: unknown): boolean =>
  isObject(value) &&
  typeof value['code'] === 'string' &&
  Object.hasOwn(ERRORS, value['code']) &&
  typeof value['message'] === 'string';

const DONE_COUNTS = ['rssBytes', 'cpuMicros', 'pixelsIn', 'pixelsOut'] as const;

/**
 * What a worker says, believed no further than its form: a picture may have taken the process over. Throws `DECODE_FAILED`.
 * Figures that lie stay within what a counter can hold.
 */
export function parseWorkerMessage(value: unknown): WorkerMessage {
  const is =
    isObject(value) &&
    isCount(value['cpuTotalMicros'], Number.MAX_SAFE_INTEGER) &&
    (value['type'] === 'ready' ||
      (value['type'] === 'done' &&
        DONE_COUNTS.every((name) => isCount(value[name])) &&
        (value['estimateMicros'] === undefined || isCount(value['estimateMicros'])) &&
        (value['input'] === undefined || isHeader(value['input'])) &&
        (value['output'] === undefined || isHeader(value['output'])) &&
        (value['error'] === undefined
          ? value['output'] !== undefined || value['input'] === undefined
          : isError(value['error']))));
  if (!is)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected a report of a worker, received ${JSON.stringify(value)?.slice(0, 80)}`,
    );
  return value as unknown as WorkerMessage;
}
