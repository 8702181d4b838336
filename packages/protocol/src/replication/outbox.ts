import type { ClusterId, ErrorCode, ReplicaId } from '../base/index.ts';
import { ANSWER_BYTES_MIN, BODY_BYTES_MAX, ROUND_BYTES_MAX, SERVED_BYTES_PER_SECOND_MAX } from './constants.ts';
import { encodeFrame, packedBytes, type Frame } from './frames.ts';
import type { ReplicationStats } from './stats.ts';
import type { ReplicationEffect, ReplicationTimer } from './types.ts';

/** Gathers the effects of one input, in order. */
export class Outbox {
  readonly stats: ReplicationStats;
  readonly #cluster: ClusterId;
  #effects: ReplicationEffect[] = [];

  constructor(cluster: ClusterId, stats: ReplicationStats) {
    this.#cluster = cluster;
    this.stats = stats;
  }

  add(effect: ReplicationEffect): void {
    this.#effects.push(effect);
  }

  send(to: ReplicaId, frame: Frame): void {
    const bytes = encodeFrame(this.#cluster, frame);
    this.stats.messages.out++;
    this.stats.bytes.out += bytes.length;
    this.add({ type: 'send', to, bytes });
  }

  timer(afterMs: number, input: ReplicationTimer): void {
    this.add({ type: 'timer', afterMs, input });
  }

  misbehaviour(from: ReplicaId, code: ErrorCode): void {
    this.stats.misbehaviours++;
    this.add({ type: 'misbehaviour', from, code });
  }

  take(): ReplicationEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }
}

/** Deltas in as few frames as they fit in, in order. */
export function pack(deltas: readonly Uint8Array[]): Uint8Array[][] {
  const frames: Uint8Array[][] = [];
  let bytes = BODY_BYTES_MAX;
  for (const delta of deltas) {
    bytes += packedBytes(delta);
    if (bytes > BODY_BYTES_MAX) {
      frames.push([]);
      bytes = packedBytes(delta);
    }
    frames.at(-1)!.push(delta);
  }
  return frames;
}

/** Bytes that may still be spent, and whether they were not enough. */
export class Budget {
  left: number;
  isCut = false;
  /** What this node itself had written before its start was kept back: it is shown later. */
  isHiding = false;
  constructor(bytes: number) {
    this.left = bytes;
  }
}

/** What one member may be served: so many bytes in each second. */
export class Allowance {
  #sinceMs = 0;
  #bytes = 0;

  /** The budget of one answer, charged with what an answer costs at least; null if nothing is left in this second. */
  answer(nowMs: number): Budget | null {
    if (nowMs - this.#sinceMs >= 1_000) {
      this.#sinceMs = nowMs;
      this.#bytes = 0;
    }
    const left = SERVED_BYTES_PER_SECOND_MAX - this.#bytes;
    if (left < ANSWER_BYTES_MIN) return null;
    this.#bytes += ANSWER_BYTES_MIN;
    return new Budget(Math.min(ROUND_BYTES_MAX, left));
  }

  charge(bytes: number): void {
    this.#bytes += bytes;
  }
}

/** Items in an array chosen by chance, each at most once. */
export function sample<T>(items: readonly T[], count: number, below: (n: number) => number): T[] {
  if (items.length <= count) return [...items];
  const chosen = new Set<number>();
  while (chosen.size < count) chosen.add(below(items.length));
  return Array.from(chosen, (i) => items[i]!);
}
