import type { Random } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import type { Cancel, Clock } from '../clock.ts';
import { ADDRESSES_MAX, type Address } from './transport.ts';

/** Dials at once: without a bound a hundred nodes that start together answer nobody in time. */
const DIALS_MAX = 4;
/** Between two dials of one member, in ms: doubled with every failure, and then anything from half of it to all. */
const RETRY_MS_MIN = 250;
const RETRY_MS_MAX = 30_000;
/** How far the member with the greater key is ahead at the first dial, in ms, so that the two seldom cross. */
const HEAD_START_MS = 200;

interface Target {
  /** As the directory has them. */
  known: readonly Address[];
  /** As the topic has them: unauthenticated, tried after the others. */
  found: readonly Address[];
  /** Dials since the last link. */
  failures: number;
  /** When it may be dialled again (monotonic ms). */
  dueMs: number;
  isDialled: boolean;
}

export interface DiallerOptions {
  readonly self: MemberKey;
  readonly clock: Clock;
  readonly random: Random;
  /** Whether there is a link to that member. */
  isLinked(key: MemberKey): boolean;
  /** Dials, and calls `done` once when that has come to a link or to nothing. It takes a second or two at most. */
  dial(key: MemberKey, address: Address, done: () => void): void;
}

/** Whom to dial when: every member without a link, few at once, those that failed least before the others. */
export class Dialler {
  readonly #options: DiallerOptions;
  readonly #targets = new Map<MemberKey, Target>();
  #dialling = 0;
  #cancelTimer: Cancel = () => undefined;
  #isStopped = false;

  constructor(options: DiallerOptions) {
    this.#options = options;
  }

  /** Takes the place of all members before; those that stay keep their turn. */
  setTargets(members: ReadonlyMap<MemberKey, readonly Address[]>): void {
    for (const key of this.#targets.keys()) if (!members.has(key)) this.#targets.delete(key);
    for (const [key, addresses] of members) {
      const known = addresses.slice(0, ADDRESSES_MAX);
      const target = this.#targets.get(key);
      if (target === undefined) this.#targets.set(key, this.#fresh(key, known));
      else if (!sameAddresses(target.known, known)) Object.assign(target, { known, failures: 0, dueMs: 0 });
    }
    this.#pump();
  }

  /** Addresses that somebody claims are that member's. */
  found(key: MemberKey, addresses: readonly Address[]): void {
    const target = this.#targets.get(key);
    if (target === undefined) return;
    target.found = addresses.slice(0, ADDRESSES_MAX);
    this.#pump();
  }

  /** There is a link. */
  connected(key: MemberKey): void {
    const target = this.#targets.get(key);
    if (target !== undefined) target.failures = 0;
  }

  /** There is none any more. */
  disconnected(key: MemberKey): void {
    const target = this.#targets.get(key);
    if (target !== undefined) target.dueMs = this.#firstMs(key);
    this.#pump();
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelTimer();
  }

  #firstMs(key: MemberKey): number {
    const { clock, random, self } = this.#options;
    const headStartMs = self > key ? 0 : HEAD_START_MS;
    return clock.monotonicMs() + headStartMs + random.below(HEAD_START_MS / 2);
  }

  #fresh(key: MemberKey, known: readonly Address[]): Target {
    return { known, found: [], failures: 0, dueMs: this.#firstMs(key), isDialled: false };
  }

  #pump(): void {
    this.#cancelTimer();
    if (this.#isStopped) return;
    const { clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const waiting = [...this.#targets].filter(
      ([key, target]) =>
        !target.isDialled && target.known.length + target.found.length > 0 && !this.#options.isLinked(key),
    );
    const due = waiting.filter(([, { dueMs }]) => dueMs <= nowMs);
    due.sort(([, a], [, b]) => a.failures - b.failures || a.dueMs - b.dueMs);
    for (const [key, target] of due.slice(0, Math.max(0, DIALS_MAX - this.#dialling))) this.#dial(key, target);
    // With all dials taken, the next one that ends calls again.
    const nextMs = Math.min(...waiting.map(([, { dueMs }]) => dueMs).filter((dueMs) => dueMs > nowMs));
    if (this.#dialling < DIALS_MAX && nextMs !== Number.POSITIVE_INFINITY)
      this.#cancelTimer = clock.after(nextMs - nowMs, () => this.#pump());
  }

  #dial(key: MemberKey, target: Target): void {
    const { clock, random } = this.#options;
    const addresses = [...target.known, ...target.found];
    const address = addresses[target.failures % addresses.length]!;
    const backOffMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(target.failures, 16));
    this.#dialling++;
    target.isDialled = true;
    target.failures++;
    this.#options.dial(key, address, () => {
      this.#dialling--;
      target.isDialled = false;
      target.dueMs = clock.monotonicMs() + backOffMs / 2 + random.below(backOffMs / 2);
      this.#pump();
    });
  }
}

const sameAddresses = (a: readonly Address[], b: readonly Address[]): boolean =>
  a.length === b.length && a.every(({ host, port }, i) => b[i]?.host === host && b[i].port === port);
