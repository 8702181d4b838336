import { compareText } from '../base/index.ts';
import { DATAGRAM_UPDATE_BYTES, updateBytesMax, type Message } from './codec.ts';
import {
  FORGET_PERIODS,
  GOSSIP_MEMBERS,
  GOSSIP_MS,
  INCARNATION_MAX,
  INDIRECT_PROBES,
  JOIN_PINGS_MAX,
  NACK_AFTER_MS,
  PROBE_INTERVAL_MS,
  PROBE_TIMEOUT_MS,
  RECONNECT_ALONE,
  RECONNECT_PERIODS,
} from './constants.ts';
import { Broadcasts, retransmissions } from './dissemination.ts';
import { Frames } from './frames.ts';
import { LocalHealth } from './health.ts';
import { overrides, type Member, type MemberId, type MemberKey, type Update } from './member.ts';
import { healthOfFailure, Prober, type Probe } from './probe.ts';
import { AccusationLimit, Suspicion } from './suspicion.ts';
import { MemberTable, type Peer } from './table.ts';
import type { Effect, Input, MembershipCounts, MembershipOptions, MemberView, TimerInput } from './types.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type WithoutDue<T> = T extends TimerInput ? Omit<T, 'dueMs'> : never;

/**
 * Who is reachable now, as this node sees it: SWIM (Das et al. 2002) with Lifeguard (Dadgar et al. 2017). It decides nothing
 * about what is counted or who may seal.
 *
 * 1. What is held of a member only ever rises in `(incarnation, state)`, until it is forgotten: news may come in any order,
 *    late, twice or never.
 * 2. Only a member raises its own incarnation, and only to refute.
 * 3. A datagram that came before, or answers nothing, changes nothing.
 * 4. A datagram to somebody who is not alive here begins with what is held of it (Lifeguard §IV-C, buddy system), and each
 *    one says its sender's incarnation: so pinging anybody is all there is to join, to rejoin and to heal a partition.
 */
export class Membership {
  readonly #self: Member;
  readonly #random: MembershipOptions['random'];
  readonly #frames: Frames;
  readonly #table: MemberTable;
  readonly #prober: Prober;
  readonly #broadcasts = new Broadcasts();
  readonly #health = new LocalHealth();
  readonly #accusations = new AccusationLimit();
  readonly #counts: Mutable<MembershipCounts> = {
    malformed: 0,
    foreign: 0,
    unknown: 0,
    replayed: 0,
    relaysRefused: 0,
    accusationsWithheld: 0,
    judgementsVoided: 0,
  };
  #state: 'waiting' | 'joined' | 'left' = 'waiting';
  #sinceMs = 0;
  #incarnation = 0;
  #period = 0;
  #isGossiping = false;
  #nowMs = 0;
  #effects: Effect[] = [];

  constructor(options: MembershipOptions) {
    const { self, random } = options;
    this.#self = self;
    this.#random = random;
    this.#table = new MemberTable(self, random);
    this.#prober = new Prober(random);
    this.#frames = new Frames(options, this.#table, this.#counts);
  }

  /**
   * Takes one input in and gives what is to be done, in this order. Never throws for what came from others. `nowMs` is any
   * clock of the node in ms; a jump of it costs a judgement, or the memory of the dead.
   */
  handle(input: Input, nowMs: number): Effect[] {
    if (this.#state === 'left') return [];
    this.#nowMs = nowMs;
    this.#apply(input);
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** This node and all others that it has heard of, in the order of their replica ids. */
  members(): MemberView[] {
    const { key, replica } = this.#self;
    const own = this.#state === 'left' ? 'left' : 'alive';
    const views: MemberView[] = [
      { member: key, replica, state: own, incarnation: this.#incarnation, sinceMs: this.#sinceMs },
    ];
    for (const { member, state, incarnation, sinceMs } of this.#table.peers())
      if (state !== 'unheard') views.push({ member: member.key, replica: member.replica, state, incarnation, sinceMs });
    return views.sort((a, b) => compareText(a.replica, b.replica));
  }

  /** Local health, from 0 (well) to 7 (Lifeguard §IV-A). */
  get health(): number {
    return this.#health.score;
  }

  /** What was ignored or held back so far. */
  get counts(): MembershipCounts {
    return { ...this.#counts };
  }

  /** Updates that wait to go out with the next datagrams. */
  get broadcasts(): number {
    return this.#broadcasts.size;
  }

  /** All that is held, as frames below 64 KiB, for a push-pull: each side hands the other's to `handle` as `exchange`. */
  exchangeFrames(): Uint8Array<ArrayBuffer>[] {
    return this.#frames.exchange(this.#all());
  }

  #apply(input: Input): void {
    switch (input.type) {
      case 'known':
        for (const peer of this.#table.setKnown(input.members)) this.#forget(peer);
        return;
      case 'join':
        return this.#join(input.seeds);
      case 'datagram':
        return this.#datagram(input.from, input.bytes);
      case 'exchange':
        return this.#exchange(input.from, input.bytes);
      case 'loopLag':
        if (input.lagMs > PROBE_TIMEOUT_MS) this.#health.change(1);
        return;
      case 'leave':
        return this.#leave();
      case 'periodEnded':
        return this.#periodEnded(input);
      case 'probeTimedOut':
        return this.#probeTimedOut(input);
      case 'gossip':
        return this.#gossip();
      case 'relayTimedOut':
        return this.#relayTimedOut(input.number);
      case 'suspicionExpired':
        return this.#suspicionExpired(input);
      default:
        input satisfies never;
    }
  }

  // Coming and going

  #join(seeds: readonly Member[]): void {
    for (const seed of seeds.slice(0, JOIN_PINGS_MAX)) {
      const peer = this.#table.find(seed.id);
      if (peer === undefined) this.#counts.unknown++;
      else this.#ping(peer);
    }
    if (this.#state === 'joined') return;
    this.#state = 'joined';
    this.#sinceMs = this.#nowMs;
    // Not all in step: a cluster that is started at once would probe at once for ever.
    this.#timer(this.#random.below(PROBE_INTERVAL_MS), { type: 'periodEnded', period: this.#period });
  }

  /** Tells as many as an update is sent to in all; each of them passes it on. */
  #leave(): void {
    const left: Update = { state: 'left', member: this.#self.id, incarnation: this.#incarnation };
    for (const peer of this.#table.pickLive(this.#retransmissions(), () => true)) this.#ping(peer, left);
    this.#state = 'left';
    this.#sinceMs = this.#nowMs;
  }

  #forget(peer: Peer): void {
    const { member, state: from, incarnation } = peer;
    this.#table.set(peer, 'unheard', 0, this.#nowMs);
    peer.suspicion = undefined;
    this.#broadcasts.drop(member.id);
    if (from !== 'unheard')
      this.#effects.push({ type: 'notify', change: { member, from, to: 'unheard', incarnation } });
  }

  // Probing (SWIM §3.1)

  #periodEnded(input: TimerInput & { type: 'periodEnded' }): void {
    if (input.period !== this.#period) return;
    const probe = this.#prober.finish();
    if (probe !== undefined) this.#judge(probe, input);
    this.#period++;
    if (this.#period % FORGET_PERIODS === 0) for (const peer of this.#table.expired(this.#nowMs)) this.#forget(peer);
    this.#startPeriod();
  }

  #startPeriod(): void {
    const period = this.#period;
    const target = this.#table.next();
    // Alone there is nothing to be fair to, and no success to recover by.
    const multiplier = target === undefined ? 1 : this.#health.multiplier;
    if (target !== undefined) {
      const { number } = this.#prober.start(target);
      this.#send(target, { type: 'ping', number, target: target.member.id });
      this.#timer(PROBE_TIMEOUT_MS * multiplier, { type: 'probeTimedOut', period });
    }
    const lost = target === undefined ? RECONNECT_ALONE : period % RECONNECT_PERIODS === 0 ? 1 : 0;
    for (const peer of this.#table.pickLost(lost)) this.#ping(peer);
    this.#timer(PROBE_INTERVAL_MS * multiplier, { type: 'periodEnded', period });
  }

  #probeTimedOut(input: TimerInput & { type: 'probeTimedOut' }): void {
    const { probe } = this.#prober;
    if (probe === undefined || input.period !== this.#period || probe.acked) return;
    const helpers = this.#table.pickLive(INDIRECT_PROBES, (peer) => peer.state === 'alive' && peer !== probe.target);
    for (const helper of helpers) {
      probe.helpers.add(helper.member.id);
      this.#send(helper, { type: 'pingRequest', number: probe.number, target: probe.target.member.id });
    }
  }

  /** The one place where a probe has consequences. */
  #judge(probe: Probe, timer: TimerInput): void {
    if (probe.acked) return this.#health.change(-1);
    if (this.#stoodStill(timer)) return this.#health.change(1);
    this.#health.change(healthOfFailure(probe));
    this.#accuse(probe.target);
  }

  #relayTimedOut(number: number): void {
    const relay = this.#prober.endRelay(number);
    if (relay !== undefined) this.#send(relay.requester, { type: 'nack', number: relay.number });
  }

  /**
   * Whether a timer comes so late that this process must have stood still: what it did not hear meanwhile speaks against
   * itself, not against others.
   */
  #stoodStill(timer: TimerInput): boolean {
    if (this.#nowMs - timer.dueMs <= PROBE_TIMEOUT_MS) return false;
    this.#counts.judgementsVoided++;
    return true;
  }

  // Suspicion (SWIM §4.2, Lifeguard §IV-B)

  #accuse(peer: Peer): void {
    const accuser = this.#self.id;
    if (peer.suspicion?.needs(accuser) === false) return;
    if (!this.#accusations.take(this.#nowMs)) {
      this.#counts.accusationsWithheld++;
      return;
    }
    this.#merge({ state: 'suspect', member: peer.member.id, incarnation: peer.incarnation, accuser });
  }

  #suspicionExpired(input: TimerInput & { type: 'suspicionExpired' }): void {
    const { member, incarnation } = input;
    const peer = this.#table.find(member);
    if (peer?.suspicion === undefined || peer.incarnation !== incarnation) return;
    // A refutation may be among what came while this process stood still: time to hear it.
    if (this.#stoodStill(input)) this.#awaitVerdict(peer, PROBE_TIMEOUT_MS * this.#health.multiplier);
    else this.#merge({ state: 'dead', member, incarnation });
  }

  /** Another timer with each confirmation: the first to be due decides, and the others find nothing left to do. */
  #awaitVerdict({ member, incarnation }: Peer, afterMs: number): void {
    this.#timer(afterMs, { type: 'suspicionExpired', member: member.id, incarnation });
  }

  // News (SWIM §4.1)

  /** `spread`: whether a member first heard of by it is news to others too. */
  #merge(update: Update, spread = true): void {
    if (update.member === this.#self.id) return this.#mergeSelf(update);
    const peer = this.#table.find(update.member);
    if (peer === undefined) {
      this.#counts.unknown++;
      return;
    }
    const { state, incarnation, suspicion } = peer;
    if (state === 'unheard') {
      // Of one who was never heard, only that it lives is news: else the dead would never be forgotten.
      if (update.state === 'alive') this.#change(peer, update, spread);
    } else if (overrides(update, { state, incarnation })) this.#change(peer, update);
    else if (update.state === 'suspect' && update.incarnation === incarnation && suspicion?.needs(update.accuser)) {
      suspicion.confirm(update.accuser);
      this.#spread(update);
      this.#awaitVerdict(peer, suspicion.remainingMs(this.#nowMs));
    }
  }

  #change(peer: Peer, update: Update, spread = true): void {
    const from = peer.state;
    this.#table.set(peer, update.state, update.incarnation, this.#nowMs);
    if (spread) this.#spread(update);
    peer.suspicion = undefined;
    if (update.state === 'suspect') {
      peer.suspicion = new Suspicion(update.accuser, this.#table.liveCount + 1, this.#nowMs);
      this.#awaitVerdict(peer, peer.suspicion.remainingMs(this.#nowMs));
    }
    if (from === update.state) return;
    const { member, state: to, incarnation } = peer;
    this.#effects.push({ type: 'notify', change: { member, from, to, incarnation } });
  }

  /** Refutes what is not so (SWIM §4.2); having to counts against local health (Lifeguard §IV-A). */
  #mergeSelf({ state, incarnation }: Update): void {
    if (incarnation < this.#incarnation) return;
    this.#incarnation = incarnation;
    if (state === 'alive') return;
    this.#incarnation = Math.min(INCARNATION_MAX, incarnation + 1);
    this.#health.change(1);
    this.#spread({ state: 'alive', member: this.#self.id, incarnation: this.#incarnation });
  }

  // Frames in

  #datagram(from: MemberKey, bytes: Uint8Array): void {
    const opened = this.#frames.openDatagram(from, bytes, this.#nowMs);
    if (opened === undefined) return;
    const { sender, datagram, isNew, twoRuns } = opened;
    if (twoRuns !== null) this.#effects.push({ type: 'twoRuns', member: sender.member, ...twoRuns });
    if (!isNew) return;
    this.#merge({ state: 'alive', member: datagram.sender, incarnation: datagram.incarnation });
    for (const update of datagram.updates) this.#merge(update);
    this.#answer(sender, datagram.message);
  }

  #answer(peer: Peer, message: Message): void {
    const sender = peer.member.id;
    switch (message.type) {
      case 'ping':
        // A ping for the replica that held this key before is not for us: let it be found dead.
        if (message.target === this.#self.id) this.#send(peer, { type: 'ack', number: message.number });
        return;
      case 'ack': {
        const relay = this.#prober.ack(message.number, sender);
        if (relay !== undefined) this.#send(relay.requester, { type: 'ack', number: relay.number });
        return;
      }
      case 'pingRequest':
        return this.#relay(peer, message.number, message.target);
      case 'nack':
        return this.#prober.nack(message.number, sender);
      case 'gossip':
        return;
      default:
        message satisfies never;
    }
  }

  #relay(requester: Peer, requestNumber: number, targetId: MemberId): void {
    const target = this.#table.find(targetId);
    if (target === undefined) {
      this.#counts.unknown++;
      return;
    }
    const number = this.#prober.relay({ requester, number: requestNumber, target });
    if (number === undefined) {
      this.#counts.relaysRefused++;
      return;
    }
    this.#send(target, { type: 'ping', number, target: targetId });
    this.#timer(NACK_AFTER_MS, { type: 'relayTimedOut', number });
  }

  /**
   * A second-hand verdict becomes a suspicion, so that its subject can speak (memberlist mergeState). Members that are first
   * heard of in an exchange are old news: else a node that starts would tell everyone of everyone.
   */
  #exchange(from: MemberKey, bytes: Uint8Array): void {
    const opened = this.#frames.openExchange(from, bytes);
    if (opened === undefined) return;
    const accuser = opened.sender.member.id;
    for (const update of opened.exchange.updates) {
      const { state, member, incarnation } = update;
      const secondHand = state === 'dead' && this.#table.find(member)?.state !== 'dead';
      this.#merge(secondHand ? { state: 'suspect', member, incarnation, accuser } : update, false);
    }
  }

  // Frames out

  #ping(peer: Peer, first?: Update): void {
    this.#send(peer, { type: 'ping', number: this.#prober.nextNumber(), target: peer.member.id }, first);
  }

  #send(to: Peer, message: Message, first: Update | undefined = to.state === 'alive' ? undefined : updateOf(to)): void {
    const updates = first === undefined ? [] : [first];
    const room = DATAGRAM_UPDATE_BYTES - (first === undefined ? 0 : updateBytesMax(first));
    updates.push(...this.#broadcasts.take(room, this.#retransmissions(), to.member.id));
    const bytes = this.#frames.datagram(this.#incarnation, message, updates);
    this.#effects.push({ type: 'send', to: to.member.key, bytes });
  }

  /** Takes up news, and sees to it that it goes out. */
  #spread(update: Update): void {
    this.#broadcasts.put(update);
    if (this.#isGossiping || this.#state !== 'joined') return;
    this.#isGossiping = true;
    this.#timer(GOSSIP_MS, { type: 'gossip' });
  }

  /** News to a few (memberlist gossip): probes alone bring it to everyone a second or two later. Quiet while there is none. */
  #gossip(): void {
    const before = this.#broadcasts.sent;
    for (const peer of this.#table.pickLive(GOSSIP_MEMBERS, () => true))
      if (this.#broadcasts.size > 0) this.#send(peer, { type: 'gossip', number: 0 });
    // What is only about those who are there to be told goes with the answers to them.
    this.#isGossiping = this.#broadcasts.size > 0 && this.#broadcasts.sent > before;
    if (this.#isGossiping) this.#timer(GOSSIP_MS, { type: 'gossip' });
  }

  #retransmissions(): number {
    return retransmissions(this.#table.liveCount + 1);
  }

  #all(): Update[] {
    const updates: Update[] = [];
    if (this.#state !== 'left') updates.push({ state: 'alive', member: this.#self.id, incarnation: this.#incarnation });
    for (const peer of this.#table.peers()) {
      const update = updateOf(peer);
      if (update !== undefined) updates.push(update);
    }
    return updates;
  }

  #timer(afterMs: number, input: WithoutDue<TimerInput>): void {
    this.#effects.push({ type: 'timer', afterMs, input: { ...input, dueMs: this.#nowMs + afterMs } });
  }
}

/** What is held of a member, as news; nothing of one that was not heard of. */
function updateOf({ member, state, incarnation, suspicion }: Peer): Update | undefined {
  if (state === 'unheard') return undefined;
  if (state !== 'suspect') return { state, member: member.id, incarnation };
  return { state, member: member.id, incarnation, accuser: suspicion!.accuser };
}
