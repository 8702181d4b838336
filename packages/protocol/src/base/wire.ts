import { concat, fromUtf8, utf8 } from './bytes.ts';
import { WaggleError } from './errors.ts';

/** Builds a binary message: unsigned LEB128 varints, length-prefixed bytes and texts. */
export class WireWriter {
  #buffer = new Uint8Array(256);
  #length = 0;

  #grow(by: number): void {
    if (this.#length + by <= this.#buffer.length) return;
    const bigger = new Uint8Array(Math.max(this.#buffer.length * 2, this.#length + by));
    bigger.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = bigger;
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** A whole number from 0 to 2^53 − 1, in 1 to 8 bytes. */
  varint(value: number): this {
    if (!Number.isSafeInteger(value) || value < 0)
      throw new WaggleError('DECODE_FAILED', `Expected a whole number from 0 to 2^53 - 1, received ${value}`);
    this.#grow(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#buffer[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#buffer[this.#length++] = rest;
    return this;
  }

  /** The bytes as they are. */
  raw(bytes: Uint8Array): this {
    this.#grow(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** The length, then the bytes. */
  bytes(bytes: Uint8Array): this {
    return this.varint(bytes.length).raw(bytes);
  }

  /** The length of the UTF-8, then the UTF-8. */
  text(text: string): this {
    return this.bytes(utf8(text));
  }

  /** What was written, as an array of its own. */
  finish(): Uint8Array<ArrayBuffer> {
    return this.#buffer.slice(0, this.#length);
  }
}

/** Reads what `WireWriter` wrote; every read is bounded, and anything else throws `DECODE_FAILED`. */
export class WireReader {
  readonly #bytes: Uint8Array;
  #offset = 0;
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Bytes left. */
  get left(): number {
    return this.#bytes.length - this.#offset;
  }

  #fail(expected: string): never {
    throw new WaggleError('DECODE_FAILED', `Expected ${expected} at byte ${this.#offset} of ${this.#bytes.length}`);
  }

  /** A whole number up to `max` (2^53 − 1 at most), in its one shortest form. */
  varint(max = Number.MAX_SAFE_INTEGER): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 8; i++) {
      const byte = this.#bytes[this.#offset + i];
      if (byte === undefined) this.#fail('a varint');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > max || (i > 0 && byte === 0)) this.#fail(`a varint in its shortest form, at most ${max},`);
        this.#offset += i + 1;
        return value;
      }
      scale *= 0x80;
    }
    return this.#fail('a varint of at most 8 bytes');
  }

  /** Exactly that many bytes, a view of the input. */
  raw(length: number): Uint8Array {
    if (length > this.left) this.#fail(`${length} bytes`);
    const bytes = this.#bytes.subarray(this.#offset, this.#offset + length);
    this.#offset += length;
    return bytes;
  }

  /** Length-prefixed bytes, at most `max` of them; a view of the input. */
  bytes(max: number): Uint8Array {
    return this.raw(this.varint(max));
  }

  /** A length-prefixed UTF-8 text of at most `max` bytes. */
  text(max: number): string {
    return fromUtf8(this.bytes(max));
  }

  /** Throws unless everything was read. */
  end(): void {
    if (this.left > 0) this.#fail('the end');
  }
}

/** One message of the parts. For signatures: `domain` keeps one purpose apart from every other. */
export const framed = (domain: string, ...parts: readonly Uint8Array[]): Uint8Array =>
  concat(new WireWriter().text(domain).finish(), ...parts.map((part) => new WireWriter().bytes(part).finish()));
