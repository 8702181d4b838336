import type { ReplicaId } from '../base/index.ts';

/** How long a clock that was heard counts, in ms. */
const HEARD_MS_MAX = 10_000;

/** The clocks of the other members, as their messages say them. */
export class Clocks {
  /** By member, how far its wall clock is ahead of our steady one, and when it was heard. */
  readonly #heard = new Map<ReplicaId, { readonly aheadMs: number; readonly atMs: number }>();

  heard(member: ReplicaId, wallMs: number, steadyMs: number): void {
    this.#heard.set(member, { aheadMs: wallMs - steadyMs, atMs: steadyMs });
  }

  /** The median of what they say now, the lower of two; null if none was heard in the last 10 s. */
  medianMs(steadyMs: number): number | null {
    for (const [member, { atMs }] of this.#heard) if (steadyMs - atMs > HEARD_MS_MAX) this.#heard.delete(member);
    const ahead = Array.from(this.#heard.values(), ({ aheadMs }) => aheadMs).sort((a, b) => a - b);
    const median = ahead[Math.floor((ahead.length - 1) / 2)];
    return median === undefined ? null : steadyMs + median;
  }
}
