import {
  ACCUSATION_REFILL_MS,
  ACCUSATIONS_BURST,
  CONFIRMATIONS,
  PROBE_INTERVAL_MS,
  SUSPICION_FACTOR,
  SUSPICION_MAX_FACTOR,
} from './constants.ts';
import type { MemberId } from './member.ts';

/** Confirmations that matter among so many live members, oneself counted: where there are too few, none is waited for. */
const confirmationsOf = (members: number): number => (members - 2 < CONFIRMATIONS ? 0 : CONFIRMATIONS);

/** Whole ms that a suspicion lasts without any confirmation to come, among so many live members (oneself counted). */
const suspicionMsMin = (members: number): number =>
  Math.floor(SUSPICION_FACTOR * Math.max(1, Math.log10(Math.max(1, members))) * PROBE_INTERVAL_MS);

/**
 * How long a suspicion lasts, in whole ms: from the maximum down to the minimum as confirmations arrive, the first of them
 * counting most (Lifeguard §IV-B; memberlist suspicion.go):
 * `max(min, max − (max − min) · ln(c + 1) / ln(k + 1))`.
 */
export function suspicionTimeoutMs(members: number, confirmations: number): number {
  const min = suspicionMsMin(members);
  const k = confirmationsOf(members);
  if (k === 0) return min;
  const max = SUSPICION_MAX_FACTOR * min;
  return Math.max(min, Math.floor(max - ((max - min) * Math.log(confirmations + 1)) / Math.log(k + 1)));
}

/** One member's suspicion as seen here: who accused it, the first who did included. */
export class Suspicion {
  readonly #accusers: MemberId[];
  readonly #members: number;
  readonly #startedMs: number;

  /** `members`: live ones, oneself counted, when the suspicion arose. */
  constructor(accuser: MemberId, members: number, nowMs: number) {
    this.#accusers = [accuser];
    this.#members = members;
    this.#startedMs = nowMs;
  }

  /** The first accuser heard of. */
  get accuser(): MemberId {
    return this.#accusers[0]!;
  }

  /** Accusers besides the first. */
  get confirmations(): number {
    return this.#accusers.length - 1;
  }

  /** Whether one more accusation by this member would shorten the suspicion. */
  needs(accuser: MemberId): boolean {
    return this.confirmations < confirmationsOf(this.#members) && !this.#accusers.includes(accuser);
  }

  /** Counts a confirmation. Only where it is needed. */
  confirm(accuser: MemberId): void {
    this.#accusers.push(accuser);
  }

  /** ms until it becomes a verdict, as things stand. */
  remainingMs(nowMs: number): number {
    const elapsedMs = Math.max(0, nowMs - this.#startedMs);
    return Math.max(0, suspicionTimeoutMs(this.#members, this.confirmations) - elapsedMs);
  }
}

/** How many accusations this node may still originate: one that is sick must not condemn a cluster. A token bucket. */
export class AccusationLimit {
  #tokens = ACCUSATIONS_BURST;
  #filledMs = 0;

  /** Whether one may be made now; if so it is taken off. */
  take(nowMs: number): boolean {
    if (this.#tokens === ACCUSATIONS_BURST || nowMs < this.#filledMs) this.#filledMs = nowMs;
    const fresh = Math.floor((nowMs - this.#filledMs) / ACCUSATION_REFILL_MS);
    this.#tokens = Math.min(ACCUSATIONS_BURST, this.#tokens + fresh);
    this.#filledMs += fresh * ACCUSATION_REFILL_MS;
    if (this.#tokens === 0) return false;
    this.#tokens--;
    return true;
  }
}
