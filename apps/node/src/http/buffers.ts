/** Bytes that a pool keeps for later at most, and of one buffer. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;
const BUFFER_BYTES_MAX = 8 * 1024 * 1024;

/**
 * Buffers that are used again. V8 collects its whole heap for every 64 MB that are taken outside of it: with a fresh buffer
 * for each body, those collections took two fifths of the main thread's time at 170 pictures of 180 KB a second.
 */
export class BufferPool {
  /** By size, a power of two. */
  readonly #free = new Map<number, Buffer[]>();
  #keptBytes = 0;

  /** Bytes that wait to be used again. */
  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** Bytes of that length, at least 1, with whatever was in them. `give` them back when nobody reads them any more. */
  take(length: number): Buffer {
    const size = 2 ** Math.ceil(Math.log2(length));
    if (size > BUFFER_BYTES_MAX) return Buffer.allocUnsafeSlow(length);
    const kept = this.#free.get(size)?.pop();
    if (kept === undefined) return Buffer.allocUnsafeSlow(size).subarray(0, length);
    this.#keptBytes -= size;
    return kept.subarray(0, length);
  }

  /** Takes back what `take` gave. */
  give(buffer: Buffer): void {
    const size = buffer.buffer.byteLength;
    if (size > BUFFER_BYTES_MAX || this.#keptBytes + size > KEPT_BYTES_MAX) return;
    this.#keptBytes += size;
    const free = this.#free.get(size);
    const whole = Buffer.from(buffer.buffer);
    if (free === undefined) this.#free.set(size, [whole]);
    else free.push(whole);
  }
}
