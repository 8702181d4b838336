import {
  base64,
  digestOf,
  equalBytes,
  jcs,
  WaggleError,
  type Crypto,
  type Digest,
  type Epoch,
  type Json,
  type Random,
  type ReplicaId,
  type Run,
  type Signer,
} from '../base/index.ts';
import { appendLeaves, edgeRoot, leafHash, type Checkpoint, type TileEdge } from '../transparency/index.ts';
import type { Slot } from '../usage/index.ts';
import { BALLOT_STATE_NEW, ballotStateJson, compareBallots, type BallotState } from './ballots.ts';
import { Certificate, openNoteOf, signLines } from './certificate.ts';
import { Bases } from './bases.ts';
import { pinValue, readValue, type Ground, type NextRoster } from './compose.ts';
import { Contents } from './contents.ts';
import type { HeldSlot, SealedEpoch, SealingEffect, SealingInput, SealingStatus } from './effects.ts';
import { Noted, type Evidence } from './noted.ts';
import { Past } from './past.ts';
import { encodeRoster, epochBounds, isIn, quorumOf, type Cluster, type Roster } from './roster.ts';
import { RULES, type SealingRules } from './rules.ts';
import { Turn } from './turn.ts';
import {
  closeJson,
  encodeReports,
  FORMATS,
  outcomeOf,
  parseHeader,
  type ChainState,
  type Close,
  type Value,
} from './value.ts';
import { highestBallot, nextVote, type VoteView } from './voting.ts';

/** How far a local clock may be past an epoch's end alone, without its members, before it closes it, in ms. */
const CLOSE_SKEW_MS_MAX = 60_000;
/** Epochs closed in one step at most, after a long downtime. */
const CLOSES_PER_STEP = 64;
/** Sealed epochs that others have shown and that wait for those before them: at most that many. */
const LEARNED_MAX = 1_024;

export interface SealingOptions {
  readonly cluster: Cluster;
  readonly replica: ReplicaId;
  readonly run: Run;
  readonly crypto: Crypto;
  readonly random: Random;
  /** Signs as the log (type 0x01) and as cosigner (type 0x04). */
  readonly logSigner: Signer;
  readonly cosigner: Signer;
  /** Every slot of which registers are held, up to an epoch. Rows that a seal has counted may still be among them. */
  readonly slotsUpTo: (epoch: Epoch) => Iterable<HeldSlot>;
  /** The roster facts held: what a close pins of them. */
  readonly facts: () => { readonly bytes: Uint8Array; readonly digest: Digest };
  readonly nextRoster: NextRoster;
  readonly chain: ChainState;
  readonly edge: TileEdge;
  /** The epoch that is open if no close of this replica says otherwise. */
  readonly firstEpoch: Epoch;
  /** Wrong ones, to see that tests find them. */
  readonly rules?: Partial<SealingRules>;
}

/** What a value makes of the log. */
type Extended = Omit<SealedEpoch, 'checkpoint' | 'release'>;

/** What is known about the epoch to be sealed next, and only needed for it. */
interface Work {
  readonly values: Map<Digest, Value>;
  /** By header; null if it cannot be sealed, which no majority of correct members chooses. */
  readonly extended: Map<Digest, Extended | null>;
  certificate: Certificate | undefined;
  /** Contents that nobody needs after the seal, unless something else names them: headers and frontiers of this member. */
  readonly made: Set<Digest>;
}

/** A sealed epoch as another node showed it. */
interface Learned {
  readonly header: Uint8Array;
  readonly checkpoint: string;
  opened: (ReturnType<typeof openNoteOf> & { readonly digest: Digest }) | undefined;
}

const newWork = (): Work => ({ values: new Map(), extended: new Map(), certificate: undefined, made: new Set() });

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
  readonly #contents: Contents;
  readonly #past: Past;
  readonly #bases: Bases;
  readonly #turn: Turn;
  #chain: ChainState;
  #edge: TileEdge;
  #openEpoch: Epoch;
  #work: Work = newWork();
  #dueMs = Number.POSITIVE_INFINITY;
  readonly #learned = new Map<Epoch, Learned>();
  /** Own registers written but not yet back from disk. */
  readonly #writing = new Set<string>();

  constructor(options: SealingOptions) {
    this.#options = options;
    this.#rules = { ...RULES, ...options.rules };
    this.#contents = new Contents(options.crypto);
    this.#past = new Past(this.#noted, this.#contents, options.replica, this.#rules);
    this.#turn = new Turn(options.random);
    this.#bases = new Bases({
      self: options.replica,
      noted: this.#noted,
      rules: this.#rules,
      ground: () => this.#ground,
      slotsUpTo: options.slotsUpTo,
      facts: options.facts,
    });
    this.#chain = options.chain;
    this.#edge = options.edge;
    this.#openEpoch = options.firstEpoch;
  }

  /** The epoch that requests are metered in. */
  get openEpoch(): Epoch {
    return this.#openEpoch;
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
    return Math.min(epochBounds(this.#options.cluster.genesis, this.#openEpoch).endMs, this.#dueMs);
  }

  /** What was refused because no correct member writes it: the first 64. */
  get evidence(): readonly Evidence[] {
    return this.#noted.evidence;
  }

  /**
   * Whether this replica, which votes no more, may go: a majority of those who vote now hold the last seal, as their votes on
   * later epochs and their signatures show.
   */
  get mayLeave(): boolean {
    const sealed = this.#chain.epoch - 1;
    const shown = (replica: ReplicaId): boolean =>
      [...this.#noted.seals].some(([epoch, seals]) => epoch >= sealed && seals.has(replica)) ||
      [...this.#noted.ballots].some(([epoch, ballots]) => epoch > sealed && ballots.has(replica));
    const holders = this.#chain.roster.filter(({ replica }) => shown(replica));
    return !this.#isVoter && holders.length >= quorumOf(this.#chain.roster);
  }

  /** How the sealing goes, for people. */
  status(): SealingStatus {
    const { epoch, roster } = this.#chain;
    const { endMs } = epochBounds(this.#options.cluster.genesis, epoch);
    const missing = (map: ReadonlyMap<Epoch, ReadonlyMap<ReplicaId, unknown>>): ReplicaId[] =>
      roster.map(({ replica }) => replica).filter((replica) => map.get(epoch)?.has(replica) !== true);
    const open = missing(this.#noted.closes);
    const isSealing = this.#decided([]) !== null || open.length === 0;
    const phase = this.#openEpoch <= epoch ? 'open' : isSealing ? 'sealing' : 'closing';
    return {
      epoch,
      phase,
      waitingFor: phase === 'open' ? [] : phase === 'closing' ? open : missing(this.#noted.seals),
      deadlineMs: endMs + this.#options.cluster.genesis.sealGraceMs,
      ballot: highestBallot({ votes: this.#votes(), isVoter: (replica) => isIn(roster, replica) }),
    };
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
    switch (input.type) {
      case 'register':
        this.#note(input.replica, input.key, input.value);
        break;
      case 'content':
        this.#contents.hold(input.bytes);
        break;
      case 'learned':
        this.#shown(input);
        break;
      case 'tick':
        for (let i = 0; i < CLOSES_PER_STEP && this.isClosable(nowMs, input.membersClockMs); i++) this.#close(effects);
    }
    for (let epoch = -1; epoch !== this.#chain.epoch;) {
      epoch = this.#chain.epoch;
      this.#evaluate(nowMs, effects);
    }
    return effects;
  }

  // Taking note

  #note(replica: ReplicaId, key: string, value: string): void {
    const noted = this.#noted.register(replica, key, value, this.#chain.epoch);
    if (noted === null) return;
    if (noted.epoch < this.#chain.epoch) this.#past.touch(noted.epoch);
    if (replica !== this.#options.replica) return;
    this.#writing.delete(key);
    if (noted.kind === 'close') this.#openEpoch = Math.max(this.#openEpoch, noted.epoch + 1);
  }

  #shown({ header, checkpoint }: { readonly header: Uint8Array; readonly checkpoint: string }): void {
    const { epoch } = parseHeader(header);
    if (epoch < this.#chain.epoch || epoch >= this.#chain.epoch + LEARNED_MAX) return;
    this.#learned.set(epoch, { header, checkpoint, opened: undefined });
  }

  // Rule 1

  #close(effects: SealingEffect[]): void {
    const { replica, run, random } = this.#options;
    const epoch = this.#openEpoch;
    let own: Slot = [];
    const others: HeldSlot[] = [];
    for (const slot of this.#options.slotsUpTo(epoch))
      if (slot.id.replica === replica && slot.id.run === run && slot.id.epoch === epoch) own = slot.rows;
      else others.push(slot);
    const slot = this.#contents.pinSlot(epoch, own, effects);
    const reports = this.#bases.reports(epoch, others, effects);
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
    this.#openEpoch = epoch + 1;
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
  }

  get #ground(): Ground {
    const { cluster, crypto, nextRoster } = this.#options;
    return { cluster, crypto, nextRoster, chain: this.#chain, contents: this.#contents };
  }

  get #isVoter(): boolean {
    return isIn(this.#chain.roster, this.#options.replica);
  }

  /** Whether this replica's slot of an epoch is closed, on disk. */
  #hasClosed(epoch: Epoch): boolean {
    return epoch < this.#openEpoch && !this.#writing.has(`close/${epoch}`);
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
    if (!isDecided) this.#dueMs = this.#nextDueMs(nowMs);
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
    return {
      self,
      own: votes.get(self) ?? BALLOT_STATE_NEW,
      votes,
      isVoter: (replica) => isIn(roster, replica),
      quorum: quorumOf(roster),
      isDue,
      holds: (value) => this.#valueOf(value, effects) !== undefined,
      determined: () => this.#keep(this.#bases.determined(effects)),
      frontier: () => this.#bases.frontier(effects),
      holdsFrontier: (digest) => this.#bases.holdsFrontier(epoch, digest, effects),
      recovered: (promises) => this.#keep(this.#bases.recovered(promises, effects)),
    };
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
    if (chosen !== null) return chosen;
    const cosigned = new Map<Digest, number>();
    for (const { replica } of roster) {
      const header = this.#noted.seals.get(epoch)?.get(replica)?.header;
      if (header === undefined) continue;
      const count = (cosigned.get(header) ?? 0) + 1;
      if (count >= quorum) return header;
      cosigned.set(header, count);
    }
    return null;
  }

  /** The epoch as another node showed it, if a majority of the roster signed what it showed. */
  #opened(): Learned['opened'] {
    const { epoch, previous, roster } = this.#chain;
    const learned = this.#learned.get(epoch);
    if (learned === undefined) return undefined;
    learned.opened ??= this.#noted.reading(epoch, null, () => {
      if (parseHeader(learned.header).previous !== previous)
        throw new WaggleError('HEADER_MISMATCH', `Expected the header of epoch ${epoch} to follow on ${previous}`);
      const { crypto, cluster } = this.#options;
      return {
        ...openNoteOf(crypto, cluster.origin, roster, learned.checkpoint),
        digest: this.#contents.hold(learned.header),
      };
    });
    if (learned.opened === undefined) this.#learned.delete(epoch);
    return learned.opened;
  }

  #learn(nowMs: number, effects: SealingEffect[]): void {
    const opened = this.#opened();
    const digest = opened?.digest ?? this.#decided(effects);
    if (digest === null) return;
    const value = this.#valueOf(digest, effects);
    if (value === undefined) return;
    const sealed = this.#extended(digest, value);
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
    pinValue(this.#ground, value, effects);
    effects.push({ type: 'sealed', sealed: { ...sealed, checkpoint: note, release: this.#releasable(value) } });
    this.#advance(sealed, certificate, note);
  }

  /** What another node showed does not hold: it is forgotten. */
  #disbelieve(): void {
    const { epoch } = this.#chain;
    if (!this.#learned.delete(epoch)) return;
    this.#noted.accuse({ epoch, replica: null, what: 'otherRoot', code: 'ROOT_MISMATCH' });
  }

  #cosign(header: Digest, checkpoint: Checkpoint, nowMs: number, effects: SealingEffect[]): void {
    const { replica, crypto } = this.#options;
    const key = `seal/${this.#chain.epoch}`;
    if (this.#writing.has(key)) return;
    const lines = signLines(crypto, checkpoint, replica, this.#options, Math.floor(nowMs / 1000));
    effects.push(this.#write(key, { header, lines }));
  }

  #extended(digest: Digest, value: Value): Extended | null {
    let extended = this.#work.extended.get(digest);
    if (extended === undefined) {
      extended = this.#noted.reading(this.#chain.epoch, null, () => this.#extend(value)) ?? null;
      this.#work.extended.set(digest, extended);
    }
    return extended;
  }

  #extend(value: Value): Extended {
    const { cluster, crypto } = this.#options;
    const bytes = { ...value, nextRoster: encodeRoster(value.nextRoster) };
    const outcome = outcomeOf(cluster, this.#chain, bytes, (digest) => this.#contents.slot(digest), crypto);
    const { edge, tiles } = appendLeaves(
      crypto,
      this.#edge,
      outcome.leaves.map((leaf) => leafHash(crypto, leaf)),
    );
    return {
      epoch: this.#chain.epoch,
      roster: this.#chain.roster,
      value,
      outcome,
      firstLeaf: this.#edge.size,
      treeSize: edge.size,
      root: edgeRoot(crypto, edge),
      tiles,
      edge,
    };
  }

  /**
   * Headers, which are leaves, reports, frontiers and the slot lists of values that were not chosen, unless a later close made the
   * same ones. Contents of slots stay, of facts too: another epoch, sealed or not, may name the same bytes.
   */
  #releasable(value: Value): Digest[] {
    const { epoch } = this.#chain;
    const digests = new Set(this.#work.made);
    for (const close of this.#noted.closes.get(epoch)?.values() ?? []) digests.add(close.reports);
    for (const { frontier, accepted } of this.#noted.ballots.get(epoch)?.values() ?? []) {
      if (frontier !== null) digests.add(frontier);
      if (accepted !== null) digests.add(accepted.value);
    }
    for (const [digest, { slotListBytes }] of this.#work.values)
      digests.add(digest).add(digestOf(this.#options.crypto, slotListBytes));
    digests.delete(digestOf(this.#options.crypto, value.slotListBytes));
    const named = this.#noted.namedFrom(epoch + 1, this.#contents);
    return [...digests].filter(
      (digest) => this.#contents.has(digest) && digest !== this.#contents.empty && !named.has(digest),
    );
  }

  #advance(sealed: Extended, certificate: Certificate, note: string): void {
    this.#past.add(sealed.epoch, certificate, note);
    this.#learned.delete(sealed.epoch);
    this.#chain = sealed.outcome.next;
    this.#edge = sealed.edge;
    this.#work = newWork();
    this.#dueMs = Number.POSITIVE_INFINITY;
    this.#noted.advance(this.#chain.epoch);
    const kept = this.#noted.namedFrom(this.#chain.epoch, this.#contents);
    for (const digest of this.#bases.wanted) kept.add(digest);
    this.#contents.keep(kept);
  }

  #write(key: string, value: Json): SealingEffect {
    this.#writing.add(key);
    return { type: 'write', key, value: jcs(value) };
  }
}

const isSame = (a: Checkpoint, b: Checkpoint): boolean => a.size === b.size && equalBytes(a.root, b.root);
