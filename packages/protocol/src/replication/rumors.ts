import type { Random, ReplicaId } from '../base/index.ts';
import { FANOUT, RUMOR_BYTES_MAX, rumorSendsMax, RUMORS_MAX } from './constants.ts';
import { pack, sample, type Outbox } from './outbox.ts';

interface Rumor {
  readonly delta: Uint8Array;
  readonly registers: number;
  /** Members that sent it or were sent it: the links are reliable, so once is enough. */
  readonly knownBy: Set<ReplicaId>;
  sends: number;
  rounds: number;
}

/**
 * Rumor mongering (Demers et al. 1987, with a counter and without feedback): each node passes a rumor on at once when it is new
 * to it, then once a round until it has sent it `rumorSendsMax` times. What that misses, the exchange finds.
 */
export class Rumors {
  readonly #outbox: Outbox;
  readonly #random: Random;
  readonly #hot = new Map<string, Rumor>();
  #bytes = 0;

  constructor(outbox: Outbox, random: Random) {
    this.#outbox = outbox;
    this.#random = random;
  }

  /** Rumors still to be sent. */
  get size(): number {
    return this.#hot.size;
  }

  /** Takes up a rumor, unless it has no room. */
  add(id: string, delta: Uint8Array, registers: number, from: ReplicaId | null): boolean {
    if (this.#hot.size >= RUMORS_MAX || this.#bytes + delta.length > RUMOR_BYTES_MAX) {
      this.#outbox.stats.rumorsDropped++;
      return false;
    }
    this.#hot.set(id, { delta, registers, knownBy: new Set(from === null ? [] : [from]), sends: 0, rounds: 0 });
    this.#bytes += delta.length;
    return true;
  }

  /** A member has it, too. */
  heard(id: string, from: ReplicaId): void {
    this.#hot.get(id)?.knownBy.add(from);
  }

  /** Sends these rumors, or all, to random live members, and lets those go that have been sent often enough. */
  spread(live: readonly ReplicaId[], ids: Iterable<string> = this.#hot.keys()): void {
    const sendsMax = rumorSendsMax(live.length + 1);
    const rumors = [...ids].flatMap((id) => this.#hot.get(id) ?? []);
    const needy = live.filter((member) => rumors.some(({ knownBy }) => !knownBy.has(member)));
    for (const to of sample(needy, FANOUT, (n) => this.#random.below(n))) {
      const news = rumors.filter(({ sends, knownBy }) => sends < sendsMax && !knownBy.has(to));
      for (const rumor of news) {
        rumor.sends++;
        rumor.knownBy.add(to);
        this.#outbox.stats.registers.control.out += rumor.registers;
      }
      for (const deltas of pack(news.map(({ delta }) => delta))) this.#outbox.send(to, { type: 'rumor', deltas });
    }
    for (const rumor of rumors) rumor.rounds++;
    for (const [id, { delta, sends, rounds }] of this.#hot) {
      if (sends < sendsMax && rounds < sendsMax) continue;
      this.#hot.delete(id);
      this.#bytes -= delta.length;
    }
  }
}
