import { concat, digestOf, type Crypto, type Digest, type Random, type ReplicaId } from '../base/index.ts';
import {
  ASK_MS,
  CHUNK_BYTES,
  CHUNKS_PER_GET,
  CONTENT_CACHE_BYTES_MAX,
  FANOUT,
  FETCH_BYTES_MAX,
  FETCHES_MAX,
  LOAD_WAITERS_MAX,
  LOADS_MAX,
  RETRY_MS,
  RETRY_MS_MAX,
  STALL_MS,
  STALLS_MAX,
  WANTED_MAX,
} from './constants.ts';
import type { Frame } from './frames.ts';
import { sample, type Allowance, type Outbox } from './outbox.ts';

/** A wanted content: in the queue, asked for, on its way, or resting because nobody had it. */
interface Fetch {
  readonly digest: Digest;
  /** Grows with every change, so that older timers are stale. */
  step: number;
  state: 'queued' | 'asking' | 'fetching' | 'resting';
  /** Members asked that have not answered. */
  readonly asked: Set<ReplicaId>;
  /** Who is said to have it: asked first. */
  readonly hint: ReplicaId | undefined;
  /** Members that lacked or failed it: not asked again before all others. */
  readonly failed: Set<ReplicaId>;
  provider: ReplicaId | null;
  length: number;
  received: number;
  chunks: Uint8Array[];
  /** Where the window that was asked for ends. */
  windowEnd: number;
  /** What was received when the timer was last set, and how often in a row nothing has come since. */
  mark: number;
  stalls: number;
  /** How often in a row nobody had it. */
  rests: number;
}

type FrameOf<T extends Frame['type']> = Extract<Frame, { type: T }>;

/**
 * Contents by their digest, from whoever says that he has them: a few members are asked, the first that has it sends it in
 * windows of chunks, and it is checked before use. Whoever is too slow or sends something else is passed over. The memory for
 * what arrives grows with what has arrived, not with what was announced.
 */
export class Contents {
  readonly #outbox: Outbox;
  readonly #random: Random;
  readonly #crypto: Crypto;
  readonly #wanted = new Map<Digest, Fetch>();
  /** Least recently used first. */
  readonly #cache = new Map<Digest, Uint8Array>();
  #cacheBytes = 0;
  /** Who waits for a content that is being loaded. */
  readonly #loads = new Map<Digest, Set<ReplicaId>>();

  constructor(outbox: Outbox, random: Random, crypto: Crypto) {
    this.#outbox = outbox;
    this.#random = random;
    this.#crypto = crypto;
  }

  want(digest: Digest, hint: ReplicaId | undefined, live: readonly ReplicaId[]): void {
    if (this.#wanted.has(digest)) return;
    if (this.#wanted.size >= WANTED_MAX) {
      this.#outbox.stats.wantsRefused++;
      return;
    }
    this.#wanted.set(digest, {
      digest,
      step: 0,
      state: 'queued',
      hint,
      asked: new Set(),
      failed: new Set(),
      provider: null,
      length: 0,
      received: 0,
      chunks: [],
      windowEnd: 0,
      mark: 0,
      stalls: 0,
      rests: 0,
    });
    this.#next(live);
  }

  /** A content that is on disk now, or was read from it. */
  held(digest: Digest, bytes: Uint8Array, live: readonly ReplicaId[]): void {
    this.#store(digest, bytes);
    for (const to of this.#loads.get(digest) ?? [])
      this.#outbox.send(to, { type: 'have', digest, length: bytes.length });
    this.#loads.delete(digest);
    if (this.#wanted.delete(digest)) this.#next(live);
  }

  absent(digest: Digest): void {
    for (const to of this.#loads.get(digest) ?? []) this.#outbox.send(to, { type: 'lack', digest });
    this.#loads.delete(digest);
  }

  linkClosed(member: ReplicaId, live: readonly ReplicaId[]): void {
    for (const waiters of this.#loads.values()) waiters.delete(member);
    // What rests goes to the end of the map meanwhile.
    const fetches = [...this.#wanted.values()];
    for (const fetch of fetches)
      if (fetch.state === 'fetching' && fetch.provider === member) this.#fail(fetch, live);
      else if (fetch.state === 'asking') this.#lacks(fetch, member, live);
  }

  timer(digest: Digest, step: number, live: readonly ReplicaId[]): void {
    const fetch = this.#wanted.get(digest);
    if (fetch === undefined || fetch.step !== step) return;
    if (fetch.state === 'fetching') return this.#check(fetch, live);
    if (fetch.state === 'resting') {
      fetch.state = 'queued';
      return this.#next(live);
    }
    for (const member of fetch.asked) fetch.failed.add(member);
    this.#askOthers(fetch, live);
  }

  onAsk(from: ReplicaId, { digest }: FrameOf<'ask'>): void {
    const bytes = this.#cached(digest);
    const waiters = this.#loads.get(digest);
    if (bytes !== undefined) this.#outbox.send(from, { type: 'have', digest, length: bytes.length });
    else if (waiters !== undefined && waiters.size < LOAD_WAITERS_MAX) waiters.add(from);
    else if (waiters !== undefined || this.#loads.size >= LOADS_MAX) this.#outbox.send(from, { type: 'lack', digest });
    else {
      this.#loads.set(digest, new Set([from]));
      this.#outbox.add({ type: 'load', digest });
    }
  }

  onHave(from: ReplicaId, { digest, length }: FrameOf<'have'>, live: readonly ReplicaId[]): void {
    const fetch = this.#wanted.get(digest);
    if (fetch?.state !== 'asking' || !fetch.asked.has(from)) return;
    let bytes = length;
    for (const { state, length: other } of this.#wanted.values()) if (state === 'fetching') bytes += other;
    if (bytes > FETCH_BYTES_MAX) {
      this.#rest(fetch);
      return this.#next(live);
    }
    Object.assign(fetch, { state: 'fetching', provider: from, length, received: 0, chunks: [], stalls: 0 });
    this.#proceed(fetch, live);
  }

  onLack(from: ReplicaId, { digest }: FrameOf<'lack'>, live: readonly ReplicaId[]): void {
    const fetch = this.#wanted.get(digest);
    if (fetch?.state === 'asking') this.#lacks(fetch, from, live);
    else if (fetch?.state === 'fetching' && fetch.provider === from) this.#fail(fetch, live);
  }

  /** Sends a window of chunks, as far as the member may be served. */
  onGet(from: ReplicaId, { digest, offset }: FrameOf<'get'>, allowance: Allowance, nowMs: number): void {
    const bytes = this.#cached(digest);
    if (bytes === undefined || offset >= bytes.length) return this.#outbox.send(from, { type: 'lack', digest });
    // It will ask again.
    if (allowance.answer(nowMs) === null) return;
    const end = Math.min(bytes.length, offset + CHUNKS_PER_GET * CHUNK_BYTES);
    allowance.charge(end - offset);
    for (let at = offset; at < end; at += CHUNK_BYTES)
      this.#outbox.send(from, {
        type: 'chunk',
        digest,
        offset: at,
        bytes: bytes.subarray(at, Math.min(end, at + CHUNK_BYTES)),
      });
  }

  /** The next chunk of a transfer; any other one is late or a repeat, and left alone. */
  onChunk(from: ReplicaId, { digest, offset, bytes }: FrameOf<'chunk'>, live: readonly ReplicaId[]): void {
    const fetch = this.#wanted.get(digest);
    if (fetch?.state !== 'fetching' || fetch.provider !== from || offset !== fetch.received) return;
    if (bytes.length !== Math.min(CHUNK_BYTES, fetch.length - offset)) return this.#blame(fetch, from, live);
    // A copy: the frame it is a view of need not live as long.
    fetch.chunks.push(bytes.slice());
    fetch.received += bytes.length;
    if (fetch.received === fetch.length || fetch.received >= fetch.windowEnd) this.#proceed(fetch, live);
  }

  /** Asks the provider for the next window, or is done. */
  #proceed(fetch: Fetch, live: readonly ReplicaId[]): void {
    const { digest, provider, received, length } = fetch;
    if (received < length) return this.#get(fetch);
    const bytes = concat(...fetch.chunks);
    if (digestOf(this.#crypto, bytes) !== digest) return this.#blame(fetch, provider!, live);
    this.#wanted.delete(digest);
    this.#store(digest, bytes);
    this.#outbox.stats.contentsFetched++;
    this.#outbox.add({ type: 'content', digest, bytes });
    this.#next(live);
  }

  #get(fetch: Fetch): void {
    const { digest, received } = fetch;
    fetch.windowEnd = received + CHUNKS_PER_GET * CHUNK_BYTES;
    fetch.mark = received;
    this.#outbox.send(fetch.provider!, { type: 'get', digest, offset: received });
    this.#after(fetch, STALL_MS);
  }

  /** A transfer that has got on goes on, one that has not is asked for again, and given up in the end. */
  #check(fetch: Fetch, live: readonly ReplicaId[]): void {
    if (fetch.received > fetch.mark) {
      fetch.mark = fetch.received;
      fetch.stalls = 0;
      this.#after(fetch, STALL_MS);
    } else if (++fetch.stalls < STALLS_MAX) this.#get(fetch);
    else this.#fail(fetch, live);
  }

  #blame(fetch: Fetch, member: ReplicaId, live: readonly ReplicaId[]): void {
    this.#outbox.misbehaviour(member, 'DECODE_FAILED');
    this.#fail(fetch, live);
  }

  /** Gives the provider up and asks others. */
  #fail(fetch: Fetch, live: readonly ReplicaId[]): void {
    this.#outbox.stats.contentsFailed++;
    fetch.failed.add(fetch.provider!);
    Object.assign(fetch, { provider: null, received: 0, chunks: [] });
    this.#askOthers(fetch, live);
  }

  #lacks(fetch: Fetch, member: ReplicaId, live: readonly ReplicaId[]): void {
    if (!fetch.asked.delete(member)) return;
    fetch.failed.add(member);
    if (fetch.asked.size === 0) this.#askOthers(fetch, live);
  }

  #askOthers(fetch: Fetch, live: readonly ReplicaId[]): void {
    this.#ask(fetch, live);
    if (fetch.state === 'resting') this.#next(live);
  }

  /** Others come first, and then it is asked for again. */
  #rest(fetch: Fetch): void {
    fetch.state = 'resting';
    this.#wanted.delete(fetch.digest);
    this.#wanted.set(fetch.digest, fetch);
    this.#after(fetch, Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** fetch.rests++));
  }

  /** Asks a few members that have not been asked; when all have been, it rests. */
  #ask(fetch: Fetch, live: readonly ReplicaId[]): void {
    const { digest, hint, asked, failed } = fetch;
    asked.clear();
    const others = live.filter((member) => !failed.has(member));
    if (others.length === 0) {
      failed.clear();
      return this.#rest(fetch);
    }
    const chosen = sample(others, FANOUT, (n) => this.#random.below(n));
    if (hint !== undefined && others.includes(hint) && !chosen.includes(hint)) chosen[0] = hint;
    fetch.state = 'asking';
    for (const to of chosen) {
      asked.add(to);
      this.#outbox.send(to, { type: 'ask', digest });
    }
    this.#after(fetch, ASK_MS);
  }

  /** Starts as many of the queue as there is room for. */
  #next(live: readonly ReplicaId[]): void {
    let active = 0;
    for (const { state } of this.#wanted.values()) if (state === 'asking' || state === 'fetching') active++;
    const queued = [...this.#wanted.values()].filter(({ state }) => state === 'queued');
    for (const fetch of queued.slice(0, Math.max(0, FETCHES_MAX - active))) this.#ask(fetch, live);
  }

  #after(fetch: Fetch, afterMs: number): void {
    fetch.step++;
    this.#outbox.timer(afterMs, { type: 'fetch', digest: fetch.digest, step: fetch.step });
  }

  #cached(digest: Digest): Uint8Array | undefined {
    const bytes = this.#cache.get(digest);
    if (bytes === undefined) return undefined;
    this.#cache.delete(digest);
    this.#cache.set(digest, bytes);
    return bytes;
  }

  #store(digest: Digest, bytes: Uint8Array): void {
    if (this.#cached(digest) !== undefined) return;
    this.#cache.set(digest, bytes);
    this.#cacheBytes += bytes.length;
    for (const [oldest, { length }] of this.#cache) {
      if (this.#cacheBytes <= CONTENT_CACHE_BYTES_MAX || this.#cache.size === 1) break;
      this.#cache.delete(oldest);
      this.#cacheBytes -= length;
    }
  }
}
