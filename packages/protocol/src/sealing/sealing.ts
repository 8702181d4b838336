import { base64, equalBytes, jcs, type Digest, type Epoch, type Json, type ReplicaId } from '../base/index.ts';
import type { Checkpoint, TileEdge } from '../transparency/index.ts';
import { slotName, type SlotRow } from '../usage/index.ts';
import { BALLOT_STATE_NEW, ballotStateJson, compareBallots, type BallotState } from './ballots.ts';
import { Certificate, signLines, type PastEpoch } from './certificate.ts';
import { Bases, momentOfClose } from './bases.ts';
import { pinValue, readValue, type Ground } from './compose.ts';
import { Contents } from './contents.ts';
import type { HeldSlot, SealingEffect, SealingInput, SealingStatus } from './effects.ts';
import { extend, extendWithoutSlots, type Extended } from './extend.ts';
import { AHEAD_EPOCHS_MAX, Noted, type Evidence } from './noted.ts';
import { Jobs } from './jobs.ts';
import type { SealingOptions } from './options.ts';
import { Past } from './past.ts';
import { cosignedBy, statusOf } from './progress.ts';
import { epochBounds, isIn, quorumOf, type Roster } from './roster.ts';
import { RULES, type SealingRules } from './rules.ts';
import { Shown } from './shown.ts';
import { Turn } from './turn.ts';
import {
  closeJson,
  encodeReports,
  FOLLOWED_EPOCHS,
  FORMATS,
  parseHeader,
  type ChainState,
  type Close,
  type Value,
} from './value.ts';
import { newWork, releasable, type Work } from './work.ts';
import { highestBallot, nextVote, type VoteView } from './voting.ts';

/** How far a local clock may be past an epoch's end alone, without its members, when it closes it, in ms. */
export const CLOSE_SKEW_MS_MAX = 60_000;
/** Values of an epoch whose outcomes are kept: those that are voted on, and what a liar makes of them. */
const EXTENDED_MAX = 4;
/** Epochs closed in one step at most, after a long downtime. */
const CLOSES_PER_STEP = 64;
/** How soon a ballot that is due, and waits for something, is looked at again if nothing comes, in ms. */
const LOOK_AGAIN_MS = 1_000;

/** A slot of this run that is complete, and what is held of others: as of the moment in which it ended. */
interface Closing {
  readonly epoch: Epoch;
  readonly own: readonly SlotRow[];
  readonly others: readonly HeldSlot[];
}

/**
 * Closes this replica's slots and seals epochs with the roster (PROTOCOL sections 4 and 5). Handlers only take note;
 * `#evaluate` alone decides.
 *
 * 1. A slot is closed once, after its epoch's end; nothing is added to it from then on.
 * 2. Epoch e is sealed after e − 1. A voter takes part in it once its own slot of e is closed, on disk.
 * 3. Votes are `nextVote`'s: ballot 0 when the closes of the whole roster are there, ballots above after the deadline.
 * 4. Only what a majority accepted at one ballot, or a majority has cosigned, is chosen; only then is the checkpoint cosigned, once.
 * 5. With a majority's cosignatures the epoch is sealed. Who has no vote writes neither ballot nor seal, and learns the same.
 */
export class Sealing {
  readonly #options: SealingOptions;
  readonly #rules: SealingRules;
  readonly #noted = new Noted();
  readonly #jobs: Jobs;
  readonly #contents: Contents;
  readonly #past: Past;
  readonly #bases: Bases;
  readonly #turn: Turn;
  #chain: ChainState;
  #edge: TileEdge;
  #openEpoch: Epoch;
  /** The first that is not closed: the open one, unless the chain was too far behind when one ended. */
  #unclosedEpoch: Epoch;
  /** The close that is being made: nothing of it is on its way to disk yet. */
  #closing: Closing | undefined;
  #work: Work = newWork();
  #dueMs = Number.POSITIVE_INFINITY;
  readonly #shown: Shown;
  /** Contents that the seals have counted of slots that may still grow, and that were learned of without them. */
  readonly #lacking: Set<Digest>;
  /** Own registers written but not yet back from disk. */
  readonly #writing = new Set<string>();

  constructor(options: SealingOptions) {
    this.#options = options;
    this.#rules = { ...RULES, ...options.rules };
    this.#jobs = new Jobs(options.crypto, options.inlineBytes);
    this.#contents = new Contents(options.crypto, this.#jobs);
    this.#past = new Past(this.#noted, this.#contents, options.replica, this.#rules);
    this.#shown = new Shown(options, this.#noted, this.#contents);
    this.#turn = new Turn(options.random);
    this.#bases = new Bases({
      self: options.replica,
      noted: this.#noted,
      rules: this.#rules,
      ground: () => this.#ground,
      slotsUpTo: options.slotsUpTo,
      facts: options.facts,
      jobs: this.#jobs,
      isLacking: (digest) => this.#lacking.has(digest),
    });
    this.#chain = options.chain;
    this.#edge = options.edge;
    this.#openEpoch = options.firstEpoch;
    this.#unclosedEpoch = options.firstEpoch;
    this.#lacking = new Set(options.lacking);
  }

  /** The epoch that requests are metered in. */
  get openEpoch(): Epoch {
    return this.#openEpoch;
  }

  /** The first epoch whose slot of this run no close speaks for: what is counted of it, and what it holds, is still needed here. */
  get unclosedEpoch(): Epoch {
    return this.#unclosedEpoch;
  }

  /** The epoch to be sealed next; all before it are. */
  get sealingEpoch(): Epoch {
    return this.#chain.epoch;
  }

  /** The roster of the epoch to be sealed next. */
  get roster(): Roster {
    return this.#chain.roster;
  }

  /** Digests of contents that must stay on disk. */
  get counted(): ReadonlyMap<string, Digest> {
    return this.#chain.counted;
  }

  /** Unix ms at which a `tick` has something to do: an epoch to close, or a ballot to start. Nothing happens by itself before. */
  get wakeAtMs(): number {
    const next = this.#isFollowing ? this.#unclosedEpoch : this.#openEpoch;
    const { endMs } = epochBounds(this.#options.cluster.genesis, next);
    return Math.min(this.#closing === undefined ? endMs : Number.POSITIVE_INFINITY, this.#dueMs);
  }

  /** What was refused because no correct member writes it: the first 64. */
  get evidence(): readonly Evidence[] {
    return this.#noted.evidence;
  }

  /** How the sealing goes, for people. */
  status(): SealingStatus {
    const isOpen = this.#openEpoch <= this.#chain.epoch;
    const { cluster, replica } = this.#options;
    return statusOf(cluster, this.#chain, this.#noted, replica, isOpen, this.#decided([]) !== null);
  }

  /** Whether the epoch to be sealed next is not long before the first that is not closed. */
  get isNear(): boolean {
    return this.#unclosedEpoch <= this.#chain.epoch + FOLLOWED_EPOCHS;
  }

  /**
   * Whether the seals known here are as far as it takes to close a slot. Who has no vote and is further behind closes its slots later:
   * a close says that it follows (`followingReplicas`). So does whoever votes while its disk takes nothing: its closes would pile up.
   */
  get #isFollowing(): boolean {
    return this.isNear || (this.#isVoter && !this.#isHeldUp);
  }

  get #isHeldUp(): boolean {
    return this.#options.isHeldUp?.() === true;
  }

  /** Whether an epoch whose time has passed is still open. */
  isClosable(nowMs: number, membersClockMs: number | null): boolean {
    const { endMs } = epochBounds(this.#options.cluster.genesis, this.#openEpoch);
    return nowMs >= endMs && (membersClockMs === null || membersClockMs >= endMs - CLOSE_SKEW_MS_MAX);
  }

  /**
   * Takes an input and says what to do. The driver carries out all effects of a list in one transaction, in order, and never
   * drops one: what it cannot write now it writes later. Throws `DECODE_FAILED` for a register or header that is not of its form,
   * before anything has changed.
   */
  handle(input: SealingInput, nowMs: number): SealingEffect[] {
    const effects: SealingEffect[] = [];
    let closes = 0;
    switch (input.type) {
      case 'register':
        this.#note(input, nowMs);
        break;
      case 'content':
        this.#contents.hold(input.bytes);
        break;
      case 'learned':
        this.#shown.add(input, this.#chain.epoch);
        break;
      case 'past':
        this.#restorePast(input);
        break;
      case 'computed':
        this.#jobs.done(input.name, input.result);
        break;
      case 'tick':
        for (; closes < CLOSES_PER_STEP && this.#startClose(nowMs, input.membersClockMs); closes++)
          this.#close(effects);
    }
    if (closes === 0) this.#close(effects);
    for (let epoch = -1; epoch !== this.#chain.epoch;) {
      epoch = this.#chain.epoch;
      this.#evaluate(nowMs, effects);
    }
    return effects;
  }

  // Taking note

  #note({ replica, key, value }: Extract<SealingInput, { type: 'register' }>, nowMs: number): void {
    const noted = this.#noted.register(replica, key, value, this.#chain.epoch, this.#lastOf(replica, nowMs));
    if (noted === null) return;
    if (noted.epoch < this.#chain.epoch) this.#past.touch(noted.epoch);
    if (replica !== this.#options.replica) return;
    this.#writing.delete(key);
    if (noted.kind !== 'close') return;
    this.#unclosedEpoch = Math.max(this.#unclosedEpoch, noted.epoch + 1);
    this.#openEpoch = Math.max(this.#openEpoch, this.#unclosedEpoch);
  }

  /** The last epoch of which a replica's registers are heard. */
  #lastOf(replica: ReplicaId, nowMs: number): Epoch {
    if (replica === this.#options.replica) return Number.MAX_SAFE_INTEGER;
    const { startMs, epochMs } = this.#options.cluster.genesis;
    return Math.max(this.#openEpoch, Math.floor((nowMs - startMs) / epochMs)) + AHEAD_EPOCHS_MAX;
  }

  #restorePast(past: PastEpoch): void {
    const { epoch } = parseHeader(past.header);
    const { crypto, cluster } = this.#options;
    this.#past.add(epoch, Certificate.of(crypto, cluster.origin, past), past.checkpoint);
  }

  // Rule 1

  /**
   * Ends the open epoch, if it is over and no other close is being made: nothing is added to its slot from here on. Whether a close is
   * being made then: not as long as this replica does not follow.
   */
  #startClose(nowMs: number, membersClockMs: number | null): boolean {
    if (this.#closing !== undefined) return false;
    const isFollowing = this.#isFollowing;
    if (!isFollowing || this.#unclosedEpoch < this.#openEpoch)
      while (this.isClosable(nowMs, membersClockMs)) this.#openEpoch++;
    else if (this.isClosable(nowMs, membersClockMs)) this.#openEpoch++;
    if (!isFollowing || this.#unclosedEpoch === this.#openEpoch) return false;
    const { replica, run } = this.#options;
    const epoch = this.#unclosedEpoch++;
    const name = slotName({ replica, run, epoch });
    const slots = [...this.#options.slotsUpTo(epoch)];
    const isOwn = ({ id }: HeldSlot): boolean => slotName(id) === name;
    this.#closing = { epoch, own: slots.find(isOwn)?.rows ?? [], others: slots.filter((slot) => !isOwn(slot)) };
    return true;
  }

  /** Writes the close that is being made, once what it names is computed. */
  #close(effects: SealingEffect[]): void {
    if (this.#closing === undefined) return;
    const { replica, run, random } = this.#options;
    const { epoch, own, others } = this.#closing;
    const moment = momentOfClose(epoch);
    const slot = this.#contents.join({ name: moment, rows: own }, [], effects);
    if (slot === undefined) return;
    const reports = this.#bases.reports(epoch, others, effects);
    if (reports === undefined) return;
    this.#contents.pinHeld(epoch, [slot, ...reports.map(({ digest }) => digest)], effects);
    const bytes = encodeReports(reports);
    const close: Close = {
      replica,
      run,
      epoch,
      slot,
      salt: base64.encode(random.bytes(32)),
      formats: FORMATS,
      reports: this.#contents.pin(epoch, bytes, effects),
      facts: this.#contents.pin(epoch, this.#options.facts().bytes, effects),
    };
    this.#closing = undefined;
    this.#jobs.forget((name) => name.startsWith(moment));
    // At once, though it says nothing before it is on disk: from here on it speaks for the slot and needs its contents.
    this.#noted.close(close, this.#chain.epoch);
    effects.push(this.#write(`close/${epoch}`, closeJson(close)));
  }

  // What is decided

  /** Rules 2 to 5: the only place that decides. */
  #evaluate(nowMs: number, effects: SealingEffect[]): void {
    const { epoch } = this.#chain;
    this.#noted.reading(epoch, null, () => this.#learn(nowMs, effects));
    if (this.#chain.epoch === epoch) this.#noted.reading(epoch, null, () => this.#vote(nowMs, effects));
    this.#past.evaluate(
      (past) => this.#hasClosed(past) && !this.#writing.has(`ballot/${past}`),
      (past, state) => this.#write(`ballot/${past}`, ballotStateJson(state)),
      effects,
    );
    this.#complete(effects);
  }

  /** Fetches what is lacking, once the chain is near: earlier nobody may have it any more. Else it would be gone with the others. */
  #complete(effects: SealingEffect[]): void {
    if (this.#lacking.size === 0 || !this.isNear) return;
    const counted = new Set(this.#chain.counted.values());
    for (const digest of this.#lacking) if (!counted.has(digest)) this.#lacking.delete(digest);
    this.#contents.have(this.#lacking, effects);
    for (const digest of this.#lacking) {
      if (!this.#contents.has(digest)) continue;
      this.#contents.pinHeld(this.#chain.epoch, [digest], effects);
      this.#lacking.delete(digest);
    }
  }

  get #ground(): Ground {
    const { cluster, crypto, nextRoster, provenFacts } = this.#options;
    return { cluster, crypto, nextRoster, provenFacts, chain: this.#chain, contents: this.#contents };
  }

  get #isVoter(): boolean {
    return isIn(this.#chain.roster, this.#options.replica);
  }

  /** Whether this replica's slot of an epoch is closed, on disk. */
  #hasClosed(epoch: Epoch): boolean {
    return epoch < this.#unclosedEpoch && epoch !== this.#closing?.epoch && !this.#writing.has(`close/${epoch}`);
  }

  /** What the roster's members have written; nobody else votes. */
  #votes(): Map<ReplicaId, BallotState> {
    const { epoch, roster } = this.#chain;
    const votes = new Map<ReplicaId, BallotState>();
    for (const [replica, state] of this.#noted.ballots.get(epoch) ?? [])
      if (isIn(roster, replica)) votes.set(replica, state);
      else this.#noted.accuse({ epoch, replica, what: 'noVote', code: 'DECODE_FAILED' });
    return votes;
  }

  // Rule 3

  #vote(nowMs: number, effects: SealingEffect[]): void {
    const { epoch } = this.#chain;
    const key = `ballot/${epoch}`;
    this.#dueMs = Number.POSITIVE_INFINITY;
    if (!this.#isVoter || !this.#rules.mayVote(this.#hasClosed(epoch)) || this.#writing.has(`close/${epoch}`)) return;
    const isDecided = this.#decided(effects) !== null;
    const dueMs = this.#nextDueMs(nowMs);
    const view = this.#view(!isDecided && nowMs >= dueMs, effects);
    const next = this.#writing.has(key) ? null : nextVote(view, this.#rules);
    if (next !== null) {
      this.#prepare(view.own, next, effects);
      if (compareBallots(next.promised, view.own.promised) > 0) this.#turn.started(nowMs);
      effects.push(this.#write(key, ballotStateJson(next)));
    }
    if (isDecided) return;
    // What a ballot that is due waits for comes as an input. To look costs a walk over all rows: not with every input of the node.
    const nextMs = this.#nextDueMs(nowMs);
    this.#dueMs = nextMs > nowMs ? nextMs : nowMs + LOOK_AGAIN_MS;
  }

  /** Puts on disk what a vote names. */
  #prepare(own: BallotState, next: BallotState, effects: SealingEffect[]): void {
    if (next.frontier !== null) this.#work.made.add(next.frontier);
    if (next.accepted === null || next.accepted.value === own.accepted?.value) return;
    const value = this.#valueOf(next.accepted.value, effects);
    if (value !== undefined) this.#work.made.add(pinValue(this.#ground, value, effects));
  }

  #nextDueMs(nowMs: number): number {
    const { epoch, roster } = this.#chain;
    const { genesis } = this.#options.cluster;
    const deadlineMs = epochBounds(genesis, epoch).endMs + genesis.sealGraceMs;
    const index = roster.findIndex(({ replica }) => replica === this.#options.replica);
    // Each epoch another one is the first, so that one that is slow does not hold them all up.
    return this.#turn.dueMs(epoch, deadlineMs, (index + epoch) % roster.length, nowMs);
  }

  #view(isDue: boolean, effects: SealingEffect[]): VoteView {
    const { epoch, roster } = this.#chain;
    const self = this.#options.replica;
    const votes = this.#votes();
    const isVoter = (replica: ReplicaId): boolean => isIn(roster, replica);
    return {
      self,
      own: votes.get(self) ?? BALLOT_STATE_NEW,
      votes,
      isVoter,
      quorum: quorumOf(roster),
      isDue,
      holds: (value) => this.#isSound(value, effects),
      determined: () => this.#ifSound(this.#keep(this.#bases.determined(effects)), effects),
      frontier: () => this.#bases.frontier(highestBallot({ votes, isVoter }), effects),
      holdsFrontier: (digest) => this.#bases.holdsFrontier(epoch, digest, effects),
      recovered: (promises) => this.#ifSound(this.#keep(this.#bases.recovered(promises, effects)), effects),
    };
  }

  /** Whether a value is held, can be sealed, and its facts prove themselves: once chosen it could not be undone. */
  #isSound(digest: Digest, effects: SealingEffect[]): boolean {
    const value = this.#valueOf(digest, effects);
    if (value === undefined || !equalBytes(this.#options.provenFacts(value.facts), value.facts)) return false;
    return (this.#extended(digest, value, undefined, effects) ?? null) !== null;
  }

  #ifSound(digest: Digest | null, effects: SealingEffect[]): Digest | null {
    return digest !== null && this.#isSound(digest, effects) ? digest : null;
  }

  #keep(value: Value | undefined): Digest | null {
    if (value === undefined) return null;
    const digest = this.#contents.hold(value.header);
    this.#contents.hold(value.slotListBytes);
    this.#work.values.set(digest, value);
    return digest;
  }

  /** The value of a header; undefined while a content of it is missing, or if it is none. */
  #valueOf(digest: Digest, effects: SealingEffect[]): Value | undefined {
    const known = this.#work.values.get(digest);
    if (known !== undefined) return known;
    const value = this.#noted.reading(this.#chain.epoch, null, () => readValue(this.#ground, digest, effects));
    if (value !== undefined) this.#work.values.set(digest, value);
    return value;
  }

  // Rules 4 and 5

  /** The header that is chosen, as far as is known here. */
  #decided(effects: SealingEffect[]): Digest | null {
    const { roster, epoch } = this.#chain;
    const quorum = quorumOf(roster);
    const votes = this.#votes();
    const own = {
      accepted: votes.get(this.#options.replica)?.accepted?.value ?? null,
      determined: () => this.#keep(this.#bases.determined(effects)),
    };
    const chosen = this.#rules.decided([...votes.values()], quorum, own);
    return chosen ?? cosignedBy(roster, this.#noted.seals.get(epoch));
  }

  #learn(nowMs: number, effects: SealingEffect[]): void {
    // A seal holds all contents of its epoch until it is on disk.
    if (this.#isHeldUp) return;
    const opened = this.#shown.opened(this.#chain);
    const digest = opened?.digest ?? this.#decided(effects);
    if (digest === null) return;
    const statements = opened?.statements;
    const value =
      statements === undefined ? this.#valueOf(digest, effects) : this.#outlined(digest, statements, effects);
    if (value === undefined) return;
    const sealed = this.#extended(digest, value, statements, effects);
    if (sealed === undefined) return;
    if (sealed === null) return this.#disbelieve();
    const { epoch, roster } = this.#chain;
    const checkpoint: Checkpoint = { origin: this.#options.cluster.origin, size: sealed.treeSize, root: sealed.root };
    if (opened !== undefined && !isSame(opened.checkpoint, checkpoint)) return this.#disbelieve();
    const seals = this.#noted.seals.get(epoch) ?? new Map();
    if (this.#work.certificate?.header !== digest)
      this.#work.certificate = new Certificate(this.#options.crypto, roster, digest, checkpoint);
    const { certificate } = this.#work;
    if (opened !== undefined) certificate.takeOpened(opened.lines);
    else if (this.#isVoter && this.#rules.mayVote(this.#hasClosed(epoch)) && !seals.has(this.#options.replica))
      return this.#cosign(digest, checkpoint, nowMs, effects);
    for (const replica of certificate.take(seals))
      this.#noted.accuse({ epoch, replica, what: 'otherRoot', code: 'CHECKPOINT_INVALID' });
    const note = certificate.note();
    if (note === null) return;
    this.#work.made.add(pinValue(this.#ground, value, effects, statements === undefined));
    effects.push({
      type: 'sealed',
      sealed: { ...sealed, checkpoint: note, release: releasable(this.#work, value, this.#ground, this.#noted) },
    });
    this.#advance(sealed, certificate, note, effects);
  }

  /** The value of a header whose slots are not kept any more; undefined while a content of it is missing, or if it is none. */
  #outlined(digest: Digest, statements: Digest, effects: SealingEffect[]): Value | undefined {
    this.#contents.have([statements], effects);
    return this.#noted.reading(this.#chain.epoch, null, () => readValue(this.#ground, digest, effects, false));
  }

  /** What another node showed does not hold: it is forgotten. */
  #disbelieve(): void {
    const { epoch } = this.#chain;
    if (!this.#shown.forget(epoch)) return;
    this.#noted.accuse({ epoch, replica: null, what: 'otherRoot', code: 'ROOT_MISMATCH' });
  }

  #cosign(header: Digest, checkpoint: Checkpoint, nowMs: number, effects: SealingEffect[]): void {
    const { replica, crypto } = this.#options;
    const key = `seal/${this.#chain.epoch}`;
    if (this.#writing.has(key)) return;
    const lines = signLines(crypto, checkpoint, replica, this.#options, Math.floor(nowMs / 1000));
    effects.push(this.#write(key, { header, lines }));
  }

  /** Undefined while it is being computed. */
  #extended(
    digest: Digest,
    value: Value,
    statements: Digest | undefined,
    effects: SealingEffect[],
  ): Extended | null | undefined {
    const name = statements ?? digest;
    const known = this.#work.extended.get(name);
    if (known !== undefined) return known;
    const log = { ...this.#ground, edge: this.#edge, jobs: this.#jobs };
    const made = this.#noted.reading(this.#chain.epoch, null, () => ({
      of:
        statements === undefined
          ? extend(log, digest, value, effects)
          : extendWithoutSlots(log, statements, value, effects),
    }));
    if (made !== undefined && made.of === undefined) return undefined;
    const extended = made?.of ?? null;
    if (this.#work.extended.size >= EXTENDED_MAX) this.#work.extended.delete(this.#work.extended.keys().next().value!);
    this.#work.extended.set(name, extended);
    return extended;
  }

  #advance(sealed: Extended, certificate: Certificate, note: string, effects: SealingEffect[]): void {
    this.#past.add(sealed.epoch, certificate, note);
    this.#shown.forget(sealed.epoch);
    for (const { id, content } of sealed.outcome.slots)
      if (content === null && id.digest !== this.#contents.empty) this.#lacking.add(id.digest);
    this.#chain = sealed.outcome.next;
    this.#edge = sealed.edge;
    this.#work = newWork();
    this.#jobs.forget((name) => this.#closing === undefined || !name.startsWith(momentOfClose(this.#closing.epoch)));
    this.#dueMs = Number.POSITIVE_INFINITY;
    this.#noted.advance(this.#chain.epoch);
    const kept = this.#noted.namedFrom(this.#chain.epoch, this.#contents);
    this.#contents.keep(kept);
    // What a close that is being made waits for has to come still.
    if (this.#closing === undefined)
      this.#contents.unwant((digest) => kept.has(digest) || this.#lacking.has(digest), effects);
  }

  #write(key: string, value: Json): SealingEffect {
    this.#writing.add(key);
    return { type: 'write', key, value: jcs(value) };
  }
}

const isSame = (a: Checkpoint, b: Checkpoint): boolean => a.size === b.size && equalBytes(a.root, b.root);
