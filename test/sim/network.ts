import type { Random } from '../../packages/protocol/src/base/index.ts';
import type { Agenda } from './agenda.ts';

/** One end of the network: a process. */
export interface Station {
  readonly index: number;
  /** Grows with each process: what was sent to an earlier one does not arrive. */
  readonly process: number;
  readonly isUp: boolean;
  /** Whether it would talk to that one: its key is admitted here. */
  admits(other: Station): boolean;
  receive(from: Station, kind: 'datagram' | 'message', bytes: Uint8Array): void;
  link(other: Station, isUp: boolean): void;
}

/** A link as one end sees it: to which process of the other it leads, since which making of it. */
interface End {
  readonly generation: number;
  /** When the last message on its way arrives: links keep order. */
  lastMs: number;
}

/** What the network does to those who use it. */
export interface Weather {
  /** Least latency in ms, and what is added to it at random. */
  latencyMs: number;
  jitterMs: number;
  /** Of 1 000 datagrams: how many are lost, and how many come twice. */
  lossPerMille: number;
  doublePerMille: number;
  /** Of 1 000 messages: how many are lost alone, on a link that stands. */
  missingPerMille: number;
  /** Of 1 000 datagrams and messages: how many change on the way. */
  corruptPerMille: number;
}

export const FAIR: Weather = {
  latencyMs: 1,
  jitterMs: 5,
  lossPerMille: 5,
  doublePerMille: 1,
  missingPerMille: 0,
  corruptPerMille: 0,
};

const pair = (from: number, to: number): string => `${from}>${to}`;

/**
 * Datagrams that are lost, late, doubled and overtake each other, and links that keep order until they break, with all that is on
 * its way. An end notices a break up to three seconds later; what it sends until then is lost.
 */
export class Network {
  readonly weather: Weather = { ...FAIR };
  readonly #agenda: Agenda;
  readonly #random: Random;
  readonly #stations: Station[] = [];
  readonly #ends = new Map<string, End>();
  readonly #generations = new Map<string, number>();
  /** Directions in which nothing passes, and how much later what passes arrives, in ms. */
  readonly #cut = new Set<string>();
  readonly #slow = new Map<string, number>();
  /** Stations that are cut off from all others, whatever else heals. */
  readonly #alone = new Set<number>();

  readonly #isOpen: boolean;
  #refused = 0;

  /** `isOpen`: what was changed on the way is handed on, as no encrypted transport does. */
  constructor(agenda: Agenda, random: Random, isOpen = false) {
    this.#agenda = agenda;
    this.#random = random;
    this.#isOpen = isOpen;
  }

  /** What was changed on the way, and refused by the transport's authenticated encryption. */
  get refused(): number {
    return this.#refused;
  }

  add(station: Station): void {
    this.#stations.push(station);
  }

  /** Nothing passes from one to the other from now on; a link between them breaks. */
  cut(from: Station, to: Station): void {
    this.#cut.add(pair(from.index, to.index));
    this.break(from, to);
  }

  /** Nothing passes to or from it until it is back. */
  isolate(station: Station): void {
    this.#alone.add(station.index);
    for (const other of this.#stations) if (other !== station) this.break(station, other);
  }

  rejoin(station: Station): void {
    this.#alone.delete(station.index);
  }

  slow(from: Station, to: Station, ms: number): void {
    this.#slow.set(pair(from.index, to.index), ms);
  }

  /** Everything is as it should be again, but for those that are alone. */
  heal(): void {
    this.#cut.clear();
    this.#slow.clear();
    Object.assign(this.weather, FAIR);
  }

  /** The link between two breaks: each end that has one notices some time. */
  break(a: Station, b: Station): void {
    this.#bump(a, b);
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      const end = this.#ends.get(pair(from.index, to.index));
      const { process } = from;
      if (end === undefined) continue;
      this.#agenda.after(this.#random.below(3_000), () => {
        if (from.process === process) this.#close(from, to, end);
      });
    }
  }

  /** A process is gone: its own ends at once, those of the others when they notice. */
  gone(station: Station): void {
    for (const other of this.#stations) {
      if (other === station) continue;
      this.#ends.delete(pair(station.index, other.index));
      this.break(station, other);
    }
  }

  /** Every so often: whoever would talk to each other and can, gets a link. */
  dial(): void {
    for (const a of this.#stations)
      for (const b of this.#stations) {
        if (a.index >= b.index || !this.#canLink(a, b)) continue;
        const generation = this.#bump(a, b);
        for (const [from, to] of [
          [a, b],
          [b, a],
        ] as const) {
          const before = this.#ends.get(pair(from.index, to.index));
          // The newer link takes the place of one that is dead and not noticed yet.
          if (before !== undefined) this.#close(from, to, before);
          this.#ends.set(pair(from.index, to.index), { generation, lastMs: this.#agenda.nowMs });
        }
        a.link(b, true);
        b.link(a, true);
      }
  }

  send(from: Station, to: Station, bytes: Uint8Array): void {
    const end = this.#ends.get(pair(from.index, to.index));
    if (end === undefined || !this.#isWhole(from, to)) return;
    if (this.#isMissing()) return;
    const { generation } = end;
    const arriving = this.#carried(bytes);
    end.lastMs = Math.max(end.lastMs, this.#agenda.nowMs + this.#latencyMs(from, to));
    this.#agenda.after(end.lastMs - this.#agenda.nowMs, () => {
      const other = this.#ends.get(pair(to.index, from.index));
      if (this.#generation(from, to) !== generation || other?.generation !== generation) return;
      // A stream whose cipher is out of step is of no use any more.
      if (arriving === null) this.break(from, to);
      else to.receive(from, 'message', arriving);
    });
  }

  datagram(from: Station, to: Station, bytes: Uint8Array): void {
    if (this.#isCut(from, to) || !to.isUp || !to.admits(from)) return;
    const { lossPerMille, doublePerMille } = this.weather;
    if (this.#random.below(1_000) < lossPerMille) return;
    const { process } = to;
    const arriving = this.#carried(bytes);
    if (arriving === null) return;
    for (let copies = this.#random.below(1_000) < doublePerMille ? 2 : 1; copies > 0; copies--)
      this.#agenda.after(this.#latencyMs(from, to), () => {
        if (to.process === process) to.receive(from, 'datagram', arriving);
      });
  }

  #isMissing(): boolean {
    const { missingPerMille } = this.weather;
    return missingPerMille > 0 && this.#random.below(1_000) < missingPerMille;
  }

  /** What becomes of bytes on the way; null for what the other end refuses. */
  #carried(bytes: Uint8Array): Uint8Array | null {
    const { corruptPerMille } = this.weather;
    if (corruptPerMille === 0 || bytes.length === 0 || this.#random.below(1_000) >= corruptPerMille) return bytes;
    if (!this.#isOpen) {
      this.#refused++;
      return null;
    }
    const changed = bytes.slice();
    changed[this.#random.below(bytes.length)]! ^= 1 + this.#random.below(255);
    return changed;
  }

  #latencyMs(from: Station, to: Station): number {
    const { latencyMs, jitterMs } = this.weather;
    return latencyMs + this.#random.below(jitterMs + 1) + (this.#slow.get(pair(from.index, to.index)) ?? 0);
  }

  #isCut(from: Station, to: Station): boolean {
    return this.#cut.has(pair(from.index, to.index)) || this.#alone.has(from.index) || this.#alone.has(to.index);
  }

  #canLink(a: Station, b: Station): boolean {
    const isCut = this.#isCut(a, b) || this.#isCut(b, a);
    return a.isUp && b.isUp && a.admits(b) && b.admits(a) && !isCut && !(this.#isWhole(a, b) && this.#isWhole(b, a));
  }

  /** Whether an end leads to the link as it is now. */
  #isWhole(from: Station, to: Station): boolean {
    return this.#ends.get(pair(from.index, to.index))?.generation === this.#generation(from, to);
  }

  #close(from: Station, to: Station, end: End): void {
    const name = pair(from.index, to.index);
    if (this.#ends.get(name) !== end) return;
    this.#ends.delete(name);
    if (from.isUp) from.link(to, false);
  }

  #generation(a: Station, b: Station): number {
    return this.#generations.get(pair(Math.min(a.index, b.index), Math.max(a.index, b.index))) ?? 0;
  }

  #bump(a: Station, b: Station): number {
    const next = this.#generation(a, b) + 1;
    this.#generations.set(pair(Math.min(a.index, b.index), Math.max(a.index, b.index)), next);
    return next;
  }
}
