import type { Random } from '../base/index.ts';
import { RELAYS_MAX } from './constants.ts';
import type { MemberId } from './member.ts';
import type { Peer } from './table.ts';

/** The probe of this period. */
export interface Probe {
  readonly number: number;
  readonly target: Peer;
  acked: boolean;
  /** Those who were asked to probe it too. */
  readonly helpers: Set<MemberId>;
  /** Those of them who said that they had no ack. */
  readonly nacks: Set<MemberId>;
}

/** A probe carried out for another. */
export interface Relay {
  readonly requester: Peer;
  /** The requester's own. */
  readonly number: number;
  readonly target: Peer;
}

/** Which answers are awaited, and of whom: an answer that was not asked for changes nothing. */
export class Prober {
  #number: number;
  #probe: Probe | undefined;
  readonly #relays = new Map<number, Relay>();

  /** Numbers start at random, so that an answer to an earlier process of this member fits no question of this one. */
  constructor(random: Random) {
    this.#number = random.below(2 ** 32);
  }

  /** A number for a ping. */
  nextNumber(): number {
    return ++this.#number;
  }

  start(target: Peer): Probe {
    this.#probe = {
      number: this.nextNumber(),
      target,
      acked: false,
      helpers: new Set(),
      nacks: new Set(),
    };
    return this.#probe;
  }

  /** The probe under way. */
  get probe(): Probe | undefined {
    return this.#probe;
  }

  /** Ends the probe under way. */
  finish(): Probe | undefined {
    const probe = this.#probe;
    this.#probe = undefined;
    return probe;
  }

  /** Takes note of an ack; gives the relay that it is for, which ends with it. */
  ack(number: number, sender: MemberId): Relay | undefined {
    const probe = this.#probe;
    if (probe?.number === number) {
      if (sender === probe.target.member.id || probe.helpers.has(sender)) probe.acked = true;
      return undefined;
    }
    return this.#relays.get(number)?.target.member.id === sender ? this.endRelay(number) : undefined;
  }

  /** Takes note of a nack. */
  nack(number: number, sender: MemberId): void {
    if (this.#probe?.number === number && this.#probe.helpers.has(sender)) this.#probe.nacks.add(sender);
  }

  /** The number to ping the target with; none if too many relays are under way. */
  relay(relay: Relay): number | undefined {
    if (this.#relays.size >= RELAYS_MAX) return undefined;
    const number = this.nextNumber();
    this.#relays.set(number, relay);
    return number;
  }

  /** Ends a relay, if it is still under way. */
  endRelay(number: number): Relay | undefined {
    const relay = this.#relays.get(number);
    this.#relays.delete(number);
    return relay;
  }
}

/**
 * What a failed probe says of this node: a missed nack each, since helpers that are silent too speak against oneself; one, if
 * there was nobody to ask (Lifeguard §IV-A; memberlist state.go).
 */
export const healthOfFailure = ({ helpers, nacks }: Probe): number =>
  helpers.size > 0 ? helpers.size - nacks.size : 1;
