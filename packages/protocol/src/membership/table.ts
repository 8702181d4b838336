import type { Random } from '../base/index.ts';
import { MEMBERS_MAX, REMEMBER_MS } from './constants.ts';
import { isLive, type Member, type MemberId, type MemberState } from './member.ts';
import type { ReplayWindow } from './replay.ts';
import type { RunWatch } from './runs.ts';
import type { Suspicion } from './suspicion.ts';

/** `unheard`: in the node directory, but not heard of yet, or forgotten. */
export type PeerState = MemberState | 'unheard';

/** What is held of another member. State and incarnation change only through the table. */
export interface Peer {
  readonly member: Member;
  readonly state: PeerState;
  readonly incarnation: number;
  /** When it got into this state, by the clock of this node. */
  readonly sinceMs: number;
  /** There exactly while it is suspect. */
  suspicion: Suspicion | undefined;
  /** Kept as long as the member is known, also when it is forgotten. */
  window: ReplayWindow | undefined;
  /** Kept likewise. */
  runs: RunWatch | undefined;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The members that the node directory knows, what is held of each, and the order in which they are probed. */
export class MemberTable {
  readonly #self: Member;
  readonly #random: Random;
  /** In the order in which they became known. */
  readonly #peers = new Map<MemberId, Mutable<Peer>>();
  /** Exactly the live ones, in the order of this round of probes (SWIM §4.3). */
  readonly #ring: Peer[] = [];
  #cursor = 0;

  constructor(self: Member, random: Random) {
    this.#self = self;
    this.#random = random;
  }

  /**
   * Makes these the members known, and gives those that were held and are known no longer. The key of this node is its own:
   * another replica under it is one that this node was before, and nobody to talk to.
   */
  setKnown(members: readonly Member[]): readonly Peer[] {
    const known = new Map<MemberId, Member>();
    for (const member of members)
      if (member.key !== this.#self.key && known.size < MEMBERS_MAX) known.set(member.id, member);
    const gone: Peer[] = [];
    for (const peer of this.#peers.values()) if (!known.has(peer.member.id)) gone.push(peer);
    for (const peer of gone) {
      this.#leaveRing(peer);
      this.#peers.delete(peer.member.id);
    }
    for (const member of known.values())
      if (!this.#peers.has(member.id))
        this.#peers.set(member.id, {
          member,
          state: 'unheard',
          incarnation: 0,
          sinceMs: 0,
          suspicion: undefined,
          window: undefined,
          runs: undefined,
        });
    return gone;
  }

  find(id: MemberId): Peer | undefined {
    return this.#peers.get(id);
  }

  /** All of them, in the order in which they became known. */
  peers(): IterableIterator<Peer> {
    return this.#peers.values();
  }

  /** Alive or suspect ones, this node not counted. */
  get liveCount(): number {
    return this.#ring.length;
  }

  set(peer: Peer, state: PeerState, incarnation: number, nowMs: number): void {
    const mutable: Mutable<Peer> = peer;
    const was = peer.state;
    if (state !== was) mutable.sinceMs = nowMs;
    mutable.state = state;
    mutable.incarnation = incarnation;
    if (isLive(state) && !isLive(was)) this.#enterRing(peer);
    if (!isLive(state) && isLive(was)) this.#leaveRing(peer);
  }

  /** The next to probe: each live member once a round, in an order drawn anew every round (SWIM §4.3). */
  next(): Peer | undefined {
    if (this.#cursor >= this.#ring.length) {
      this.#shuffle();
      this.#cursor = 0;
    }
    return this.#ring[this.#cursor++];
  }

  /** At most `count` different members drawn from the live ones that are accepted. */
  pickLive(count: number, accept: (peer: Peer) => boolean): Peer[] {
    const picked: Peer[] = [];
    const ring = this.#ring;
    for (let tries = 10 * count; tries > 0 && picked.length < count && ring.length > 0; tries--) {
      const peer = ring[this.#random.below(ring.length)]!;
      if (accept(peer) && !picked.includes(peer)) picked.push(peer);
    }
    return picked;
  }

  /** At most `count` different members drawn from those believed dead or not heard of. */
  pickLost(count: number): Peer[] {
    if (count === 0) return [];
    const lost: Peer[] = [];
    for (const peer of this.#peers.values()) if (peer.state === 'dead' || peer.state === 'unheard') lost.push(peer);
    const picked: Peer[] = [];
    while (picked.length < count && lost.length > 0) picked.push(lost.splice(this.#random.below(lost.length), 1)[0]!);
    return picked;
  }

  /** The dead and the left that were remembered for long enough. */
  expired(nowMs: number): Peer[] {
    const expired: Peer[] = [];
    for (const peer of this.#peers.values())
      if ((peer.state === 'dead' || peer.state === 'left') && nowMs - peer.sinceMs >= REMEMBER_MS) expired.push(peer);
    return expired;
  }

  /** At a random place, so that the first probe of a new member does not wait for the end of the round (SWIM §4.3). */
  #enterRing(peer: Peer): void {
    const place = this.#random.below(this.#ring.length + 1);
    const displaced = this.#ring[place];
    this.#ring[place] = peer;
    if (displaced !== undefined) this.#ring.push(displaced);
  }

  #leaveRing(peer: Peer): void {
    const place = this.#ring.indexOf(peer);
    if (place < 0) return;
    this.#ring.splice(place, 1);
    if (place < this.#cursor) this.#cursor--;
  }

  #shuffle(): void {
    const ring = this.#ring;
    for (let i = ring.length - 1; i > 0; i--) {
      const j = this.#random.below(i + 1);
      [ring[i], ring[j]] = [ring[j]!, ring[i]!];
    }
  }
}
