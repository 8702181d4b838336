import type { Random, ReplicaId } from '../base/index.ts';
import {
  BODY_BYTES_MAX,
  CATCH_UP_MS_MAX,
  EXCHANGE_IDLE_MS_MAX,
  EXCHANGES_PER_DEAD,
  PAGES_MAX,
  PEERS_MAX,
  ROUND_BYTES_MAX,
} from './constants.ts';
import { entryBytes, type Entry, type Frame, type Page } from './frames.ts';
import { Allowance, Budget, pack, sample, type Outbox } from './outbox.ts';
import type { AnySection, Taken } from './section.ts';
import { perClass } from './stats.ts';
import { CLASSES, type ClassName, type Lag, type PerClass } from './types.ts';

/** An exchange that this node opened. */
interface Round {
  readonly exchange: number;
  readonly openedMs: number;
  /** When the first of a row of exchanges that follow each other at once was opened. */
  readonly rowMs: number;
  activeMs: number;
  /** Classes that are not done. */
  readonly waiting: Set<ClassName>;
  /** Classes of which the member has more than came: the budget was not enough, or something was lost. */
  readonly cut: Set<ClassName>;
  /** The member knows writers that are not admitted here yet: what comes of this exchange may change that. */
  hasUnknown: boolean;
  readonly wants: PerClass<{ readonly entries: Entry[]; bytes: number }>;
  readonly budgets: PerClass<Budget>;
  /** Frames of deltas that were sent, and that came. */
  readonly sent: Record<ClassName, number>;
  readonly came: Record<ClassName, number>;
  /** Pages of the member's vector that came: how many, what is before the first, and what the next one begins after. */
  readonly shown: PerClass<{ pages: number; after: string | null; through: string | null; isBroken: boolean }>;
  /** How far this node's own registers went when it was opened. */
  readonly own: PerClass<number>;
  /** What the member showed of its own control registers. */
  ofMember: Entry | null;
  isEqual: boolean;
  isProgress: boolean;
}

interface Peer {
  /** At most one. */
  round: Round | null;
  /** The last exchange of theirs that was answered, how many frames of deltas came of it, and whether they brought anything. */
  answered: {
    readonly exchange: number;
    readonly ms: number;
    readonly came: Record<ClassName, number>;
    isProgress: boolean;
  } | null;
  readonly allowance: Allowance;
  /** When this node is known to have held all that the member had. */
  readonly heldMs: Record<ClassName, number | null>;
  /** Whether all that the two show of `control` was exchanged once: what they keep to themselves may be lacking. */
  isCompared: boolean;
}

type Sections = PerClass<AnySection>;
type FrameOf<T extends Frame['type']> = Extract<Frame, { type: T }>;

/**
 * Push-pull reconciliation with one member at a time per exchange, any number side by side. The opener O and the other A:
 *
 *     O → A  open: digests
 *     A → O  answer: which classes are the same; vector pages of the others
 *     O → A  deltas: what A lacks; done. want: what O lacks
 *     A → O  deltas; done
 *
 * Deltas are cut at a budget; `done` says whether there is more, and then, if it brought anything, the one that lacks it opens
 * the next exchange at once. A keeps nothing that matters, so whatever is lost on the way is found by the next exchange.
 *
 * Any message may be lost alone, as by a transport that refuses it. Nothing is taken for complete then: `done` says how many
 * frames of deltas went before it, pages that came join each other, and of all else the exchange lacks an answer.
 */
export class Exchange {
  readonly #outbox: Outbox;
  readonly #random: Random;
  readonly #sections: Sections;
  readonly #held: (member: ReplicaId, name: ClassName, upTo: number) => void;
  readonly #peers = new Map<ReplicaId, Peer>();
  #lastExchange: number;
  #live: readonly ReplicaId[] = [];
  #ticks = 0;

  /** `held` is told how far a member holds this node's own registers. */
  constructor(
    outbox: Outbox,
    random: Random,
    sections: Sections,
    held: (member: ReplicaId, name: ClassName, upTo: number) => void,
  ) {
    this.#outbox = outbox;
    this.#held = held;
    this.#random = random;
    this.#sections = sections;
    // Answers to an earlier process are not taken for ours.
    this.#lastExchange = random.below(2 ** 32);
  }

  /** Once every `EXCHANGE_MS`: gives up what is overdue and opens an exchange with a random member. */
  tick(live: readonly ReplicaId[], dead: readonly ReplicaId[], nowMs: number): void {
    this.#live = live;
    for (const peer of this.#peers.values())
      if (peer.round !== null && nowMs - peer.round.activeMs >= EXCHANGE_IDLE_MS_MAX) this.#lose(peer);
    const isForDead = ++this.#ticks % EXCHANGES_PER_DEAD === 0 && dead.length > 0;
    const idle = (isForDead ? dead : live).filter((member) => (this.#peers.get(member)?.round ?? null) === null);
    if (idle.length > 0) this.#open(idle[this.#random.below(idle.length)]!, nowMs, nowMs);
  }

  /** Opens an exchange with some of these members at once, those left out with whom one is under way. */
  openSome(members: readonly ReplicaId[], count: number, nowMs: number): void {
    const idle = members.filter((member) => (this.#peers.get(member)?.round ?? null) === null);
    for (const member of sample(idle, count, (n) => this.#random.below(n))) this.#open(member, nowMs, nowMs);
  }

  /** Forgets members of whom nothing is known any more. */
  keep(members: ReadonlySet<ReplicaId>): void {
    for (const member of this.#peers.keys()) if (!members.has(member)) this.#peers.delete(member);
  }

  /** Gives up what is under way with a member. */
  abandon(member: ReplicaId): void {
    const peer = this.#peers.get(member);
    if (peer === undefined) return;
    if (peer.round !== null) this.#lose(peer);
    peer.answered = null;
  }

  lag(member: ReplicaId, nowMs: number): Lag {
    const heldMs = this.#peers.get(member)?.heldMs;
    return perClass((name) => {
      const ms = heldMs?.[name] ?? null;
      return ms === null ? null : nowMs - ms;
    });
  }

  /** Whether all that this node and the member show of `control` was exchanged once, since the start. */
  isCompared(member: ReplicaId): boolean {
    return this.#peers.get(member)?.isCompared === true;
  }

  allowance(member: ReplicaId): Allowance {
    return this.#peer(member).allowance;
  }

  onOpen(from: ReplicaId, { exchange, digests }: FrameOf<'open'>, nowMs: number): void {
    const peer = this.#peer(from);
    if (peer.allowance.answer(nowMs) === null) return;
    peer.answered = { exchange, ms: nowMs, came: perClass(() => 0), isProgress: false };
    const same = perClass((name) => this.#sections[name].isSame(digests[name]));
    for (const name of CLASSES) if (same[name]) this.#held(from, name, this.#sections[name].ownUpTo);
    this.#outbox.send(from, { type: 'answer', exchange, same });
    for (const name of CLASSES) {
      if (same[name]) continue;
      const pages = this.#somePages(this.#sections[name].pages());
      pages.forEach((page, i) => {
        peer.allowance.charge(page.entries.reduce((sum, entry) => sum + entryBytes(entry), 0));
        this.#outbox.send(from, { type: 'vector', exchange, class: name, isLast: i === pages.length - 1, page });
      });
    }
  }

  onAnswer(from: ReplicaId, { exchange, same }: FrameOf<'answer'>, nowMs: number): void {
    const round = this.#round(from, exchange, nowMs);
    if (round === null) return;
    round.isEqual = same.control && same.usage;
    for (const name of CLASSES) {
      if (!same[name]) continue;
      this.#held(from, name, round.own[name]);
      this.#finish(from, round, name, nowMs);
    }
  }

  onVector(from: ReplicaId, { exchange, class: name, isLast, page }: FrameOf<'vector'>, nowMs: number): void {
    const round = this.#round(from, exchange, nowMs);
    if (round === null || !round.waiting.has(name)) return;
    const section = this.#sections[name];
    const budget = round.budgets[name];
    this.#learn(from, name, page.entries);
    round.sent[name] += this.#sendDeltas(from, exchange, name, section.surplus(page, budget, this.#outbox));
    const isWhole = isJoined(round.shown[name], page, isLast);
    if (!isWhole) round.cut.add(name);
    const want = round.wants[name];
    round.ofMember = page.entries.find(({ writer }) => writer === from) ?? round.ofMember;
    round.hasUnknown ||= page.entries.some(({ writer }) => !section.isKnown(writer));
    for (const entry of page.entries.flatMap((each) => section.lacking(each))) {
      if (want.bytes + entryBytes(entry) > BODY_BYTES_MAX) round.cut.add(name);
      else {
        want.entries.push(entry);
        want.bytes += entryBytes(entry);
      }
    }
    if (!isLast) return;
    const more = budget.isCut || budget.isHiding || !isWhole;
    this.#outbox.send(from, { type: 'done', exchange, class: name, isReply: false, more, frames: round.sent[name] });
    if (want.entries.length === 0) this.#finish(from, round, name, nowMs);
    else this.ask(from, exchange, name, want.entries);
  }

  /** Asks for what is lacking beyond these entries, the first of them, as many as fit; `exchange` is 0 outside of one. */
  ask(from: ReplicaId, exchange: number, name: ClassName, entries: readonly Entry[]): void {
    let bytes = 0;
    const first = entries.findIndex((entry) => (bytes += entryBytes(entry)) > BODY_BYTES_MAX);
    const fitting = first < 0 ? entries : entries.slice(0, first);
    this.#outbox.send(from, { type: 'want', exchange, class: name, entries: fitting });
  }

  onWant(from: ReplicaId, { exchange, class: name, entries }: FrameOf<'want'>, nowMs: number): void {
    const { allowance } = this.#peer(from);
    const budget = allowance.answer(nowMs);
    this.#learn(from, name, entries);
    let frames = 0;
    if (budget !== null) {
      const deltas = entries.flatMap((entry) => this.#sections[name].supply(entry, budget, this.#outbox));
      allowance.charge(deltas.reduce((sum, { length }) => sum + length, 0));
      frames = this.#sendDeltas(from, exchange, name, deltas);
    }
    const more = budget === null || budget.isCut;
    this.#outbox.send(from, { type: 'done', exchange, class: name, isReply: true, more, frames });
  }

  /** Deltas of an exchange were joined. */
  onTaken(from: ReplicaId, { exchange, class: name }: FrameOf<'deltas'>, taken: readonly Taken[], nowMs: number): void {
    const { answered } = this.#peer(from);
    const round = this.#round(from, exchange, nowMs);
    const of = round ?? answered;
    if (of === null) return;
    of.isProgress ||= taken.some((each) => each.isProgress);
    if (of.exchange === exchange) of.came[name]++;
  }

  onDone(from: ReplicaId, { exchange, class: name, isReply, more, frames }: FrameOf<'done'>, nowMs: number): void {
    const peer = this.#peer(from);
    const round = isReply ? this.#round(from, exchange, nowMs) : null;
    if (round !== null) {
      if (more || round.came[name] !== frames) round.cut.add(name);
      if (round.waiting.has(name)) this.#finish(from, round, name, nowMs);
      return;
    }
    const { answered } = peer;
    if (answered === null) return;
    const isLast = !isReply && answered.exchange === exchange;
    const isCut = more || (isLast && answered.came[name] !== frames);
    if (isCut && answered.isProgress && peer.round === null) this.#open(from, nowMs, nowMs);
    // The opener has sent all that it had when it got our answer.
    if (isLast && !isCut && !this.#sections[name].isCatchingUp) {
      peer.isCompared ||= name === 'control';
      peer.heldMs[name] = answered.ms;
    }
  }

  /** What a member's entries say of this node's own writer. */
  #learn(member: ReplicaId, name: ClassName, entries: readonly Entry[]): void {
    for (const { writer, upTo } of entries) if (this.#sections[name].isOwn(writer)) this.#held(member, name, upTo);
  }

  #open(member: ReplicaId, nowMs: number, rowMs: number): void {
    const exchange = ++this.#lastExchange;
    this.#peer(member).round = {
      exchange,
      openedMs: nowMs,
      rowMs,
      activeMs: nowMs,
      waiting: new Set(CLASSES),
      cut: new Set(),
      hasUnknown: false,
      wants: perClass(() => ({ entries: [], bytes: 0 })),
      budgets: perClass(() => new Budget(ROUND_BYTES_MAX)),
      sent: perClass(() => 0),
      came: perClass(() => 0),
      shown: perClass(() => ({ pages: 0, after: null, through: null, isBroken: false })),
      own: perClass((name) => this.#sections[name].ownUpTo),
      ofMember: null,
      isEqual: false,
      isProgress: false,
    };
    this.#outbox.stats.exchangesOpened++;
    this.#outbox.send(member, { type: 'open', exchange, digests: perClass((name) => this.#sections[name].digest()) });
  }

  /** A class is done: all that the member had is held now, unless it was cut. After the last one, perhaps on to the next round. */
  #finish(member: ReplicaId, round: Round, name: ClassName, nowMs: number): void {
    const peer = this.#peer(member);
    round.waiting.delete(name);
    if (!round.cut.has(name)) {
      if (!this.#sections[name].isCatchingUp) {
        peer.isCompared ||= name === 'control';
        // What a member wrote itself it may keep to itself for now.
        if (name === 'usage' || round.ofMember === null || this.#sections.control.holds(round.ofMember))
          peer.heldMs[name] = round.openedMs;
      }
      this.#outbox.stats.restarts += this.#sections[name].restartStuck(member, this.#live);
    }
    if (round.waiting.size > 0) return;
    peer.round = null;
    if (round.isEqual) this.#outbox.stats.exchangesEqual++;
    if ((round.cut.size > 0 || round.hasUnknown) && round.isProgress && nowMs - round.rowMs < CATCH_UP_MS_MAX)
      this.#open(member, nowMs, round.rowMs);
  }

  #lose(peer: Peer): void {
    peer.round = null;
    this.#outbox.stats.exchangesLost++;
  }

  /** The exchange of that number which this node has open with the member, of which something was heard now. */
  #round(member: ReplicaId, exchange: number, nowMs: number): Round | null {
    const round = this.#peers.get(member)?.round ?? null;
    if (round === null || round.exchange !== exchange) return null;
    round.activeMs = nowMs;
    return round;
  }

  /** In how many frames. */
  #sendDeltas(to: ReplicaId, exchange: number, name: ClassName, all: readonly Uint8Array[]): number {
    const frames = pack(all);
    for (const deltas of frames) this.#outbox.send(to, { type: 'deltas', exchange, class: name, deltas });
    return frames.length;
  }

  /** All, or as many as one answer may have, from a random one on. */
  #somePages(pages: readonly Page[]): readonly Page[] {
    if (pages.length <= PAGES_MAX) return pages;
    const first = this.#random.below(pages.length);
    return [...pages.slice(first), ...pages.slice(0, first)].slice(0, PAGES_MAX);
  }

  #peer(member: ReplicaId): Peer {
    let peer = this.#peers.get(member);
    if (peer !== undefined) return peer;
    if (this.#peers.size >= PEERS_MAX) this.#peers.delete(this.#peers.keys().next().value!);
    peer = { round: null, answered: null, allowance: new Allowance(), heldMs: perClass(() => null), isCompared: false };
    this.#peers.set(member, peer);
    return peer;
  }
}

/** Takes note of one more page of a vector. Whether none was lost so far: they join, and go once round or are as many as may come. */
function isJoined(shown: Round['shown'][ClassName], { after, through }: Page, isLast: boolean): boolean {
  if (shown.pages++ === 0) shown.after = after;
  else shown.isBroken ||= after !== shown.through;
  shown.through = through;
  shown.isBroken ||= isLast && through !== shown.after && shown.pages < PAGES_MAX;
  return !shown.isBroken;
}
