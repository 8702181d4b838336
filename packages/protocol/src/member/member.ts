import { assert, WaggleError, type Digest, type Epoch, type ErrorCode, type ReplicaId } from '../base/index.ts';
import { Authority, isFactKey, type RosterWarning } from '../authority/index.ts';
import type { ControlRegister, UsageRow, WriterId } from '../lattice/index.ts';
import type { MemberKey, MemberView } from '../membership/index.ts';
import type { Lag, ReplicationStats } from '../replication/index.ts';
import {
  epochBounds,
  type Sealing,
  type Roster,
  type SealedEpoch,
  type SealingInput,
  type Evidence,
  type SealingStatus,
} from '../sealing/index.ts';
import { parseSlot, type SlotId } from '../usage/index.ts';
import { Batches, type Flight } from './batches.ts';
import { CatchUp, type Question } from './catch-up.ts';
import { hasRoom, newControl, type ShownRegisters } from './control.ts';
import type { ApartClock } from './clocks.ts';
import { Entries, type Entry } from './entries.ts';
import { load } from './load.ts';
import { Lookups, type Purpose } from './lookups.ts';
import { newSealing } from './new-sealing.ts';
import { Peers, type PeersEffect, type PeersInput } from './peers.ts';
import { isExpired, sealingEpochOf } from './retention.ts';
import { Seals, type ToSeal } from './seals.ts';
import { Timers, type OwnTimer } from './timers.ts';
import type { Batch, Loaded, MemberEffect, MemberInput, MemberOptions, Now } from './types.ts';
import { Unsaved } from './unsaved.ts';
import { UsageBook, type UsageView } from './usage-book.ts';

/**
 * One node without its disk, network and clock: the registers, and the cores that work on them. `handle` takes an input and gives
 * effects, to be carried out in order.
 *
 * 1. Persist before send: this replica's registers are applied to the lattice, acknowledged and shown to anyone, its own cores
 *    included, only when the batch that holds them is on disk.
 * 2. One batch is in flight at a time; what comes meanwhile goes into the next (group commit: at once when idle).
 * 3. Slots are closed between batches, so that a request is metered in exactly the epoch that is open when it is written.
 * 4. What others wrote is written lazily, a piece at a time, and a writer's vector with the last: what a crash loses is fetched again.
 * 5. What sealing wants done is never dropped: after `full` it is offered again, in order.
 * 6. Whoever is not in the roster closes and counts, but writes neither ballot nor seal: it computes what the roster chose.
 */
export class Member {
  readonly #options: MemberOptions;
  readonly #control = newControl();
  readonly #book: UsageBook;
  readonly #authority: Authority;
  readonly #peers: Peers;
  readonly #sealing: Sealing;
  /** What sealing is to be told at the start: contents, then registers, closes last, then what was sealed lately. */
  #restored: readonly SealingInput[];
  readonly #entries = new Entries();
  readonly #seals: Seals;
  readonly #batches: Batches;
  readonly #lookups = new Lookups();
  readonly #unsaved: Unsaved;
  readonly #catchUp: CatchUp;
  /** Whether this replica must not write under its id any more. */
  #isFenced = false;
  /** What was said of this replica's standing. */
  readonly #standing = new Set<'banned' | 'retired'>();
  readonly #timers = new Timers((effect) => this.#out.push(effect));
  #isLazyDue = false;
  #isFull = false;
  #isProbing = false;
  #isStarted = false;
  #now: Now = { wallMs: 0, steadyMs: 0 };
  readonly #out: MemberEffect[] = [];

  private constructor(options: MemberOptions, loaded: Loaded) {
    const { cluster, crypto } = options;
    this.#options = options;
    this.#catchUp = new CatchUp(cluster.genesis);
    this.#book = new UsageBook(options, loaded.chain);
    this.#authority = new Authority({ cluster, crypto });
    this.#seals = new Seals(options.stageAbove ?? Number.MAX_SAFE_INTEGER);
    const { inputs, unknown } = load(loaded, { authority: this.#authority, control: this.#control, book: this.#book });
    this.#restored = inputs;
    for (const digest of unknown) this.#lookFor(digest, 'counted');
    this.#unsaved = new Unsaved(this.#control, this.#book.registers);
    this.#batches = new Batches({
      member: options,
      control: this.#control,
      book: this.#book,
      unsaved: this.#unsaved,
      meta: loaded.meta,
    });
    this.#peers = new Peers({
      member: options,
      authority: this.#authority,
      control: this.#control,
      usage: this.#book.registers,
      controlRules: { isDropped: (_, { key }) => isExpired(key, this.sealingEpoch), isForgotten: () => false },
      usageRules: {
        isDropped: (writer, row) => this.#book.isCounted(writer, row),
        isForgotten: (writer) => this.#book.isOver(writer),
      },
      roster: () => this.#sealing.roster,
    });
    this.#sealing = newSealing(options, loaded, {
      authority: this.#authority,
      book: this.#book,
      isHeldUp: () => this.#isFull || this.#seals.isLong,
    });
  }

  /** A node as its disk has it (of a new one: empty, with the chain's start). Then `start`. */
  static restore(options: MemberOptions, loaded: Loaded): Member {
    return new Member(options, loaded);
  }

  /** The epoch that requests are metered in. */
  get openEpoch(): Epoch {
    return this.#sealing.openEpoch;
  }

  /** The epoch to be sealed next; all before it are, on disk. */
  get sealingEpoch(): Epoch {
    return this.#book.chain.epoch;
  }

  /** Who may vote on the epoch to be sealed next. */
  get roster(): Roster {
    return this.#sealing.roster;
  }

  /** What the operator should know of the roster after the next seal, as far as is known here. */
  get rosterWarnings(): readonly RosterWarning[] {
    const seen = this.#control.writers().filter((writer) => this.#control.of(writer).next().done === false);
    return this.#authority.rosterWarnings(this.roster, new Set(seen));
  }

  /** How the epoch to be sealed next gets on. */
  get sealingStatus(): SealingStatus {
    return this.#sealing.status();
  }

  /** What others wrote about sealing that no correct node writes: refused, the first of it kept. */
  get evidence(): readonly Evidence[] {
    return this.#sealing.evidence;
  }

  /** What the chain of seals counted of slots that may still grow: contents that must stay on disk. */
  get counted(): ReadonlyMap<string, Digest> {
    return this.#book.chain.counted;
  }

  /** The writer of this run's usage registers. */
  get usageWriter(): WriterId {
    return this.#book.own;
  }

  /** Whether the last batch found the disk full: work would only be refused at its end. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** Meterings and writes that wait for a batch. */
  get waiting(): number {
    return this.#entries.count;
  }

  /** Whether nothing waits for the disk, or for time to pass. */
  get isIdle(): boolean {
    return !this.#batches.isInFlight && this.#entries.count === 0 && (this.#isFenced || this.#seals.isEmpty);
  }

  /** Whether an epoch whose time has passed is still open: after a long downtime, one step closes some, and then the next. */
  isBehind(now: Now): boolean {
    return this.#isOver(now) && this.#sealing.isClosable(now.wallMs, this.#peers.clocks.read(now).membersClockMs);
  }

  /** Members whose clocks are more than a minute from their median, this node too. */
  apartClocks(now: Now): readonly ApartClock[] {
    return this.#peers.clocks.read(now).apart;
  }

  /** The usage that no seal has counted yet, over all replicas known here. */
  get unsealed(): UsageView {
    return this.#book.view;
  }

  /** Who belongs to the cluster, as far as is known here. */
  get authority(): Authority {
    return this.#authority;
  }

  /** Who is reachable now: this node and all others that it has heard of. */
  get members(): MemberView[] {
    return this.#peers.members;
  }

  /** Contents that this node needs and looks for at others. */
  get wanted(): number {
    return this.#peers.wanted;
  }

  /** What was exchanged with the others since the start. */
  get stats(): Readonly<ReplicationStats> {
    return this.#peers.stats;
  }

  /** The other members that are known to hold this replica's control registers up to a version. */
  heldBy(version: number): ReplicaId[] {
    return this.#peers.heldBy('control', version);
  }

  /** Those that are known to hold this run's usage registers up to a version. */
  usageHeldBy(version: number): ReplicaId[] {
    return this.#peers.heldBy('usage', version);
  }

  /** How long ago this node held all that a member had to show. */
  lag(member: ReplicaId, now: Now): Lag {
    return this.#peers.lag(member, now.steadyMs);
  }

  /** The registers, to be looked at: version vectors, digests, rows; and whether all of them is on disk, those that come later left out. */
  get registers(): {
    readonly control: ShownRegisters<ControlRegister, ReplicaId>;
    readonly usage: ShownRegisters<UsageRow, WriterId>;
    readonly areWritten: () => boolean;
  } {
    return { control: this.#control, usage: this.#book.registers, areWritten: this.#unsaved.mark() };
  }

  /** A message by which a banned member learns that it is, before its link is closed and when it calls; null for any other. */
  farewell(to: MemberKey, now: Now): Uint8Array | null {
    return this.#peers.farewell(to, now);
  }

  /** One step. `now.steadyMs` never goes back. The effects are to be carried out in order. */
  handle(input: MemberInput, now: Now): MemberEffect[] {
    assert(this.#isStarted !== (input.type === 'start'), 'a member is started once, before anything else');
    this.#now = now;
    switch (input.type) {
      case 'start':
        this.#start();
        break;
      case 'meter':
      case 'write':
        this.#enqueue(input);
        break;
      case 'persisted':
        this.#persisted(this.#batches.persisted(input.number));
        break;
      case 'full':
        this.#refused(this.#batches.refused(input.number));
        break;
      case 'staged':
        this.#seals.staged(input.epoch);
        break;
      case 'content':
        this.#loaded(input.digest, input.bytes);
        break;
      case 'computed':
        this.#seal(input);
        break;
      case 'follow':
        this.#peer({ type: 'follow', of: input.of ?? 'control', version: input.version });
        break;
      case 'timer':
        if (input.timer.core === 'member') this.#fire(input.timer.input);
        else this.#peer(input);
        break;
      default:
        this.#peer(input);
    }
    this.#learn();
    this.#commit();
    this.#schedule();
    return this.#out.splice(0);
  }

  #start(): void {
    this.#isStarted = true;
    for (const input of this.#restored) {
      const code = this.#seal(input);
      if (code !== null && input.type === 'register') this.#malformed(input.replica, input.key, code);
    }
    this.#restored = [];
    this.#forget();
    this.#admit();
  }

  // Inputs

  #enqueue(entry: Entry): void {
    const code = this.#whyNot(entry) ?? this.#entries.add(entry);
    if (code !== null) this.#out.push({ type: 'refused', ticket: entry.ticket, code });
  }

  /** Why nothing can be written at all now; null if it can. */
  #whyNot({ type }: Entry): ErrorCode | null {
    if (type === 'meter') return this.#book.hasRoom ? null : 'STORE_FULL';
    if (this.#isFenced) return 'NOT_READY';
    return hasRoom(this.#control, this.#options.replica) ? null : 'STORE_FULL';
  }

  #fire(timer: OwnTimer): void {
    this.#timers.fired(timer, this.#now.steadyMs);
    if (timer === 'lazy') this.#isLazyDue = true;
    else if (timer === 'tidy') this.#unsaved.gone(this.#book.tidy());
    else if (timer === 'full') this.#isProbing = this.#isFull;
    else {
      // A node that is alone has no other timer than that of its epochs.
      this.#compareClocks();
      if (timer === 'catchUp') this.#lookForEpochs();
    }
  }

  #peer(input: PeersInput): void {
    if (input.type === 'leave') this.#isLazyDue ||= !this.#unsaved.isEmpty;
    for (const effect of this.#peers.handle(input, this.#now)) this.#absorb(effect);
  }

  #absorb(effect: PeersEffect): void {
    switch (effect.type) {
      case 'joined':
        return this.#joined(effect);
      case 'content':
        return this.#found(effect.digest, effect.bytes);
      case 'load':
        return this.#lookFor(effect.digest, 'peers');
      case 'epochs':
        return this.#catchUp.received(effect.from, effect.epochs, this.#now.steadyMs);
      case 'readSealed':
        if (effect.from < this.sealingEpoch) this.#out.push(effect);
        else this.#peer({ type: 'sealedRead', to: effect.to, epochs: [] });
        return;
      case 'alarm':
        if (effect.alarm.what === 'overtaken' || (effect.alarm.what === 'duplicate' && effect.alarm.mustStop))
          this.#fence();
        this.#out.push(effect);
        return;
      default:
        this.#out.push(effect);
    }
  }

  #joined(effect: Extract<PeersEffect, { type: 'joined' }>): void {
    this.#unsaved.joined(effect);
    if (effect.class === 'control') for (const { register } of effect.changes) this.#deliver(effect.writer, register);
    else for (const digest of this.#book.joined(effect.writer, effect.changes)) this.#lookFor(digest, 'counted');
  }

  /** A control register is new here: this replica's from disk, or another's. */
  #deliver(replica: ReplicaId, register: ControlRegister): void {
    const { key, value } = register;
    const epoch = sealingEpochOf(key);
    if (epoch !== null) {
      const code = this.#seal({ type: 'register', replica, key, value });
      if (code !== null) this.#malformed(replica, key, code);
      if (replica !== this.#options.replica)
        this.#ask(this.#catchUp.sign(replica, epoch, this.#sealing.sealingEpoch, this.#now.steadyMs));
      // From here on its slot does not grow.
      if (replica === this.#options.replica && key.startsWith('close/'))
        this.#unsaved.gone(this.#book.reconsider(this.#options, epoch, this.#sealing.unclosedEpoch));
      return;
    }
    this.#out.push({ type: 'folded', replica, register });
    if (isFactKey(key) && this.#authority.fold(key, value)) this.#admit();
  }

  #malformed(replica: ReplicaId, key: string, code: ErrorCode): void {
    this.#out.push({ type: 'alarm', alarm: { what: 'malformed', replica, key, code } });
  }

  #admit(): void {
    const status = this.#authority.statusOf(this.#options.replica);
    if ((status === 'banned' || status === 'retired') && !this.#standing.has(status)) {
      this.#standing.add(status);
      this.#out.push({ type: 'alarm', alarm: { what: status } });
    }
    this.#out.push({ type: 'admitted', replicas: this.#authority.admittedReplicas() });
    this.#peer({ type: 'admitted' });
  }

  /** From now on no control register is written: neither close nor vote. What waits for that is refused. */
  #fence(): void {
    this.#isFenced = true;
    for (const { ticket } of this.#entries.takeWrites()) this.#out.push({ type: 'refused', ticket, code: 'NOT_READY' });
  }

  // Catching up

  /** Hands sealing what another member has shown, epoch by epoch. */
  #learn(): void {
    if (this.#isFenced || this.#isFull) return;
    for (let shown = this.#catchUp.next(this.#sealing.sealingEpoch); shown !== null;) {
      const { header, checkpoint, statements } = shown;
      this.#seal({ type: 'learned', header, checkpoint, statements });
      shown = this.#catchUp.next(this.#sealing.sealingEpoch);
    }
    this.#ask(this.#catchUp.more(this.#sealing.sealingEpoch, this.#now.steadyMs));
  }

  #lookForEpochs(): void {
    if (!this.#isFenced && this.#peers.isReached) this.#ask(this.#catchUp.look(this.#sealing.sealingEpoch, this.#now));
  }

  #ask(question: Question | null): void {
    if (question !== null) this.#peer({ type: 'behind', from: this.#sealing.sealingEpoch, ...question });
  }

  // Contents

  #lookFor(digest: Digest, purpose: Purpose): void {
    if (this.#lookups.add(digest, purpose)) this.#out.push({ type: 'load', digest });
  }

  #unwant(digest: Digest): void {
    if (this.#lookups.drop(digest, 'sealing')) this.#peer({ type: 'unwant', digest });
  }

  /** What the disk has of a content; if it is not there, someone else has it. */
  #loaded(digest: Digest, bytes: Uint8Array | null): void {
    if (this.#lookups.answerPeers(digest))
      this.#peer(bytes === null ? { type: 'absent', digest } : { type: 'held', digest, bytes });
    if (bytes !== null) this.#found(digest, bytes);
    else if (this.#lookups.isWanted(digest)) this.#peer({ type: 'want', digest });
  }

  #found(digest: Digest, bytes: Uint8Array): void {
    const purposes = this.#lookups.take(digest);
    if (purposes.has('counted'))
      this.#unsaved.gone(this.#book.counted(digest, parseSlot(bytes), this.#sealing.unclosedEpoch));
    if (purposes.has('sealing')) this.#seal({ type: 'content', bytes });
  }

  // Sealing

  /** Hands sealing an input. The code of what was wrong with it, or null. */
  #seal(input: SealingInput): ErrorCode | null {
    try {
      for (const effect of this.#sealing.handle(input, this.#now.wallMs))
        if (effect.type === 'want') this.#lookFor(effect.digest, 'sealing');
        else if (effect.type === 'unwant') this.#unwant(effect.digest);
        else if (effect.type === 'compute') this.#out.push(effect);
        else this.#seals.add(effect);
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      return error.code;
    }
    return null;
  }

  #tick(): void {
    if (!this.#isFenced)
      this.#seal({ type: 'tick', membersClockMs: this.#peers.clocks.read(this.#now).membersClockMs });
  }

  // Batches

  /** The one place that decides what goes to disk, and when. */
  #commit(): void {
    if (this.#batches.isInFlight) return;
    // A full disk is asked when someone waits for the answer, and once in a while.
    if (this.#isFull && !this.#isProbing && this.#entries.count === 0) return;
    if (this.isBehind(this.#now) || this.#now.wallMs >= this.#sealing.wakeAtMs) this.#tick();
    // With more epochs to be closed, nothing is metered into the next of them.
    const entries = !this.#isFenced && this.isBehind(this.#now) ? [] : this.#entries.take();
    const effects = this.#isFenced ? [] : this.#takeSeals();
    const isLazy = this.#isLazyDue || this.#unsaved.isFull;
    if (entries.length === 0 && effects.length === 0 && !isLazy && !this.#isProbing) return;
    if (isLazy) this.#isLazyDue = false;
    this.#isProbing = false;
    const isAlone = !this.#peers.isStarted;
    const { unclosedEpoch } = this.#sealing;
    const batch = this.#batches.begin({ entries, effects, isLazy, openEpoch: this.openEpoch, unclosedEpoch, isAlone });
    this.#out.push({ type: 'persist', batch });
  }

  #takeSeals(): readonly ToSeal[] {
    const { effects, stage } = this.#seals.take();
    if (stage !== null) this.#out.push({ type: 'stage', sealed: stage, before: this.#book.chain });
    return effects;
  }

  /** There was no room: what clients wait for is refused, the rest is offered again. */
  #refused({ entries, effects }: Flight): void {
    this.#isFull = true;
    this.#seals.putBack(effects);
    for (const { ticket } of entries) this.#out.push({ type: 'refused', ticket, code: 'STORE_FULL' });
    this.#timers.set('full');
  }

  #persisted({ batch, entries, control, usage, covered }: Flight): void {
    const { replica } = this.#options;
    const isRoom = this.#isFull || batch.seal !== null;
    this.#isFull = false;
    this.#book.apply(usage);
    if (batch.seal !== null) this.#sealed(batch.seal.sealed, covered, batch.dropControl);
    for (const { register } of this.#control.apply(replica, control)) this.#deliver(replica, register);
    if (this.#peers.isStarted) {
      if (control.length > 0) this.#peer({ type: 'written' });
      for (const { digest, bytes } of batch.contents) this.#peer({ type: 'held', digest, bytes });
    }
    // Whoever looked for it while it was being written found it neither on the disk nor, from here on, at the others.
    for (const { digest, bytes } of batch.contents) if (this.#lookups.isWanted(digest)) this.#found(digest, bytes);
    // What was held up by the disk goes on.
    if (isRoom) this.#tick();
    const { epoch } = batch.metered;
    for (const { ticket } of entries) this.#out.push({ type: 'done', ticket, epoch });
  }

  /** After a seal is on disk: its rows leave the registers and the open figures, old registers go. */
  #sealed(sealed: SealedEpoch, covered: readonly SlotId[], expired: Batch['dropControl']): void {
    this.#unsaved.gone(this.#book.seal(sealed, covered, this.#sealing.unclosedEpoch));
    if (this.#sealing.isNear) for (const digest of this.#book.unread()) this.#lookFor(digest, 'counted');
    for (const { replica, key } of expired) this.#control.drop(replica, [key]);
    this.#forget();
    this.#out.push({ type: 'sealed', epoch: sealed.epoch });
  }

  /** Runs that are over and wholly counted leave the vectors. */
  #forget(): void {
    const settled = this.#book.settled();
    for (const writer of settled) {
      this.#peers.forget(writer);
      this.#book.forget(writer);
    }
    this.#unsaved.forget(settled);
  }

  // Timers

  /** Sees to it that time brings what has to come, each timer once. */
  #schedule(): void {
    const { wallMs, steadyMs } = this.#now;
    this.#timers.lookIn(this.#sealing.wakeAtMs - wallMs, steadyMs);
    if (!this.#unsaved.isEmpty && !this.#isLazyDue) this.#timers.set('lazy');
    if (!this.#book.isTidy) this.#timers.set('tidy');
    if (this.#peers.isStarted) this.#timers.set('catchUp');
  }

  /** Whether the open epoch is over by this clock alone. */
  #isOver({ wallMs }: Now): boolean {
    return wallMs >= epochBounds(this.#options.cluster.genesis, this.openEpoch).endMs;
  }

  #compareClocks(): void {
    for (const alarm of this.#peers.clocks.alarms(this.#now, this.#options.cluster.genesis, this.openEpoch))
      this.#out.push({ type: 'alarm', alarm });
  }
}
