import { concat, digestOf, type Crypto, type Digest, type Random, type ReplicaId } from '../base/index.ts';
import {
  ASK_MS,
  CHUNK_BYTES,
  CHUNKS_PER_GET,
  CONTENT_BYTES_MAX,
  CONTENT_CACHE_BYTES_MAX,
  FANOUT,
  FETCHES_MAX,
  LOAD_WAITERS_MAX,
  LOADS_MAX,
  RETRY_MS,
  RETRY_MS_MAX,
  STALL_MS,
  STALLS_MAX,
  WANTED_MAX,
  WINDOWS_BYTES_MAX,
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
  /** Its place among those that wait until their provider may be asked for their next window; null if it does not wait. */
  turn: number | null;
  /** What was received when the timer was last set, and how often in a row nothing has come since. */
  mark: number;
  stalls: number;
  /** How often in a row nobody had it. */
  rests: number;
}

type FrameOf<T extends Frame['type']> = Extract<Frame, { type: T }>;

/**
 * Contents by their digest, from whoever says that he has them: a few members are asked, the first that has it sends it in
 * windows of chunks, and it is checked before use. Whoever is too slow or sends something else is passed over. One member is
 * asked for so many bytes at once: the other transfers from it wait in turn. The memory for what arrives grows with what has
 * arrived, not with what was announced.
 */
export class Contents {
  readonly #outbox: Outbox;
  readonly #random: Random;
  readonly #crypto: Crypto;
  readonly #wanted = new Map<Digest, Fetch>();
  /** Least recently used first. */
  readonly #cache = new Map<Digest, Uint8Array>();
  #cacheBytes = 0;
  #turns = 0;
  /** Of all fetches: a timer of one that is gone must not be taken for one of the next fetch of that digest. */
  #steps = 0;
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
      turn: null,
      mark: 0,
      stalls: 0,
      rests: 0,
    });
    this.#next(live);
  }

  /** It is not needed any more: nobody is asked again. */
  unwant(digest: Digest, live: readonly ReplicaId[]): void {
    const fetch = this.#wanted.get(digest);
    if (fetch === undefined) return;
    this.#wanted.delete(digest);
    this.#serve(fetch.provider);
    this.#next(live);
  }

  /** How many contents are wanted. */
  get wanted(): number {
    return this.#wanted.size;
  }

  /** A content that is on disk now, or was read from it. */
  held(digest: Digest, bytes: Uint8Array, live: readonly ReplicaId[]): void {
    this.#store(digest, bytes);
    for (const to of this.#loads.get(digest) ?? [])
      this.#outbox.send(to, { type: 'have', digest, length: bytes.length });
    this.#loads.delete(digest);
    this.unwant(digest, live);
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
    if (bytes > CONTENT_BYTES_MAX) {
      this.#rest(fetch);
      return this.#next(live);
    }
    Object.assign(fetch, { state: 'fetching', provider: from, length, received: 0, chunks: [], stalls: 0 });
    this.#proceed(fetch, live);
  }

  onLack(from: ReplicaId, { digest }: FrameOf<'lack'>, live: readonly ReplicaId[]): void {
    const fetch = this.#wanted.get(digest);
    if (fetch?.state === 'asking') this.#lacks(fetch, from, live);
    else if (fetch?.state === 'fetching' && fetch.provider === from) {
      this.#fail(fetch, live);
      this.#serve(from);
    }
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

  /** The next window of the provider, in turn, or it is done. */
  #proceed(fetch: Fetch, live: readonly ReplicaId[]): void {
    const { digest, provider, received, length } = fetch;
    if (received < length) {
      // It waits: what was to happen if nothing came is off.
      fetch.step = ++this.#steps;
      fetch.stalls = 0;
      fetch.turn = this.#turns++;
      return this.#serve(provider);
    }
    const bytes = concat(...fetch.chunks);
    if (digestOf(this.#crypto, bytes) !== digest) return this.#blame(fetch, provider!, live);
    this.#wanted.delete(digest);
    this.#store(digest, bytes);
    this.#serve(provider);
    this.#outbox.stats.contentsFetched++;
    this.#outbox.add({ type: 'content', digest, bytes });
    this.#next(live);
  }

  /** Asks a provider for the windows that wait for it, as many as it may be asked for at once. */
  #serve(provider: ReplicaId | null): void {
    const fetches = [...this.#wanted.values()].filter((fetch) => provider !== null && fetch.provider === provider);
    let bytes = 0;
    for (const { turn, windowEnd, received } of fetches) if (turn === null) bytes += windowEnd - received;
    const waiting = fetches.filter(({ turn }) => turn !== null).sort((a, b) => a.turn! - b.turn!);
    for (const fetch of waiting) {
      const window = windowEndOf(fetch) - fetch.received;
      if (bytes > 0 && bytes + window > WINDOWS_BYTES_MAX) return;
      bytes += window;
      this.#get(fetch);
    }
  }

  #get(fetch: Fetch): void {
    const { digest, received } = fetch;
    fetch.turn = null;
    fetch.windowEnd = windowEndOf(fetch);
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
    else {
      // Nor do those wait any longer for whom it was to have its turn first.
      const { provider } = fetch;
      const waiting = [...this.#wanted.values()].filter((other) => other.turn !== null && other.provider === provider);
      for (const each of [fetch, ...waiting]) this.#fail(each, live);
    }
  }

  #blame(fetch: Fetch, member: ReplicaId, live: readonly ReplicaId[]): void {
    this.#outbox.misbehaviour(member, 'DECODE_FAILED');
    this.#fail(fetch, live);
    this.#serve(member);
  }

  /** Gives the provider up and asks others. */
  #fail(fetch: Fetch, live: readonly ReplicaId[]): void {
    this.#outbox.stats.contentsFailed++;
    fetch.failed.add(fetch.provider!);
    Object.assign(fetch, { provider: null, received: 0, chunks: [], turn: null });
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
    fetch.step = ++this.#steps;
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

const windowEndOf = ({ received, length }: Fetch): number => Math.min(length, received + CHUNKS_PER_GET * CHUNK_BYTES);
