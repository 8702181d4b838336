import {
  assert,
  present,
  WaggleError,
  type Digest,
  type Epoch,
  type ErrorCode,
  type ReplicaId,
} from '../base/index.ts';
import { Authority, isFactKey } from '../authority/index.ts';
import {
  equalControl,
  Registers,
  signControl,
  type ControlRegister,
  type Register,
  type UsageRow,
  type WriterId,
} from '../lattice/index.ts';
import type { MemberView } from '../membership/index.ts';
import type { ClassName, Lag, ReplicationStats } from '../replication/index.ts';
import { Sealing, type SealedEpoch, type SealingEffect, type SealingInput } from '../sealing/index.ts';
import { parseSlot, type SlotId } from '../usage/index.ts';
import { Entries, type Entry } from './entries.ts';
import { Lookups, type Purpose } from './lookups.ts';
import { Peers, type PeersEffect, type PeersInput } from './peers.ts';
import {
  expiredWith,
  formatReleases,
  isExpired,
  parseReleases,
  releaseWith,
  sealingEpochOf,
  withoutPinned,
  type Releases,
} from './retention.ts';
import type {
  Batch,
  Loaded,
  MemberEffect,
  MemberInput,
  MemberOptions,
  MemberTimer,
  Now,
  VectorRow,
  Write,
} from './types.ts';
import { NO_ROWS, Unsaved, usageRow, type LazyRows } from './unsaved.ts';
import { UsageBook, type UsageView } from './usage-book.ts';

/** How long to wait before asking a full disk again, in ms. */
const FULL_RETRY_MS = 1_000;
/** Keys of one writer: 100 000 customers with keys, limits and audit entries need half a million. */
const CONTROL_KEYS_MAX = 4_000_000;
/** How long what others sent may wait to be written, in ms. */
const LAZY_MS = 1_000;
/** How often to look whether an epoch is over, at least and at most, in ms: the wall clock may jump, a timer does not. */
const LOOK_MS_MAX = 10_000;
const LOOK_MS_MIN = 1_000;

/** Names in the store's `meta`. */
const META = { hlc: 'hlc', releases: 'releases' } as const;

type Kept = Exclude<SealingEffect, { type: 'want' }>;

/** What becomes true once a batch is on disk. */
interface InFlight {
  readonly batch: Batch;
  readonly entries: readonly Entry[];
  readonly effects: readonly Kept[];
  readonly control: readonly ControlRegister[];
  readonly usage: readonly UsageRow[];
  readonly lazy: LazyRows;
  /** Slots that the seal covers. */
  readonly covered: readonly SlotId[];
  readonly releases: Releases;
}

/**
 * One node without its disk, network and clock: the registers, and the cores that work on them. `handle` takes an input and gives
 * effects, to be carried out in order.
 *
 * 1. Persist before send: this replica's registers are applied to the lattice, acknowledged and shown to anyone, its own cores
 *    included, only when the batch that holds them is on disk.
 * 2. One batch is in flight at a time; what comes meanwhile goes into the next (group commit: at once when idle).
 * 3. Slots are closed between batches, so that a request is metered in exactly the epoch that is open when it is written.
 * 4. What others wrote is written lazily, a writer's whole prefix with its vector: what a crash loses of it is fetched again.
 * 5. What sealing wants done is never dropped: after `full` it is offered again, in order.
 * 6. Whoever is not in the roster closes and counts, but writes neither ballot nor seal: it computes what the roster chose.
 */
export class Member {
  readonly #options: MemberOptions;
  readonly #control = new Registers<ControlRegister, ReplicaId>({ keysMax: CONTROL_KEYS_MAX, equal: equalControl });
  readonly #book: UsageBook;
  readonly #authority: Authority;
  readonly #peers: Peers;
  readonly #sealing: Sealing;
  /** What sealing is to be told at the start: contents, then registers, closes last. */
  #restored: SealingInput[] = [];
  #releases: Releases;
  readonly #entries = new Entries();
  #effects: Kept[] = [];
  #inFlight: InFlight | undefined;
  #numbers = 0;
  readonly #lookups = new Lookups();
  readonly #unsaved: Unsaved;
  readonly #timed = new Set<(MemberTimer & { core: 'member' })['input']>();
  #isLazyDue = false;
  #isFull = false;
  #isProbing = false;
  #isStarted = false;
  /** The seal that is being staged, and the one that is. */
  #staging = -1;
  #staged = -1;
  #alarmedEpoch = -1;
  #now: Now = { wallMs: 0, steadyMs: 0 };
  #out: MemberEffect[] = [];

  private constructor(options: MemberOptions, loaded: Loaded) {
    const { cluster, replica, run, crypto, random, log, cosigner } = options;
    this.#options = options;
    this.#book = new UsageBook(options, loaded.chain);
    this.#authority = new Authority({ cluster, crypto });
    this.#releases = parseReleases(loaded.meta.get(META.releases));
    this.#load(loaded);
    this.#unsaved = new Unsaved(this.#control, this.#book.registers);
    this.#peers = new Peers({
      member: options,
      authority: this.#authority,
      control: this.#control,
      usage: this.#book.registers,
      controlRules: { isDropped: (_, { key }) => isExpired(key, this.sealingEpoch), isForgotten: () => false },
      usageRules: { isDropped: (writer, row) => this.#book.isCounted(writer, row), isForgotten: () => false },
    });
    this.#sealing = new Sealing({
      cluster,
      replica,
      run,
      crypto,
      random,
      logSigner: log,
      cosigner,
      slotsUpTo: (epoch) => this.#book.slotsUpTo(epoch),
      chain: loaded.chain,
      edge: loaded.edge,
      firstEpoch: loaded.chain.epoch,
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
    return this.#inFlight === undefined && this.#entries.count === 0 && this.#effects.length === 0;
  }

  /** Whether an epoch whose time has passed is still open: after a long downtime, one step closes some, and then the next. */
  isBehind(now: Now): boolean {
    if (now.wallMs < this.#sealing.wakeAtMs) return false;
    return this.#sealing.isClosable(now.wallMs, this.#peers.clockMs(now.steadyMs));
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

  /** What was exchanged with the others since the start. */
  get stats(): Readonly<ReplicationStats> {
    return this.#peers.stats;
  }

  /** How long ago this node held all that a member had to show. */
  lag(member: ReplicaId, now: Now): Lag {
    return this.#peers.lag(member, now.steadyMs);
  }

  /** The registers, to be looked at: version vectors, digests, rows. */
  get registers(): {
    readonly control: Omit<Registers<ControlRegister, ReplicaId>, Changing>;
    readonly usage: Omit<Registers<UsageRow, WriterId>, Changing>;
  } {
    return { control: this.#control, usage: this.#book.registers };
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
        this.#persisted(this.#landed(input.number));
        break;
      case 'full':
        this.#refused(this.#landed(input.number));
        break;
      case 'staged':
        this.#staged = input.epoch;
        break;
      case 'content':
        this.#loaded(input.digest, input.bytes);
        break;
      case 'timer':
        if (input.timer.core === 'member') this.#fire(input.timer.input);
        else this.#peer(input);
        break;
      default:
        this.#peer(input);
    }
    this.#commit();
    this.#schedule();
    const out = this.#out;
    this.#out = [];
    return out;
  }

  // Start

  #load({ control, usage, vectors, pinned }: Loaded): void {
    const acts: SealingInput[] = [];
    const actsLast: SealingInput[] = [];
    for (const bytes of pinned) acts.push({ type: 'content', bytes });
    for (const row of control) {
      const { replica, key, value } = row;
      this.#control.restore(replica, row);
      // Closes last: with its own close a member acts, and it must know by then what it has promised and signed before.
      if (sealingEpochOf(key) !== null)
        (key.startsWith('close/') ? actsLast : acts).push({ type: 'register', replica, key, value });
      else if (isFactKey(key)) this.#authority.fold(key, value);
    }
    this.#restored = [...acts, ...actsLast];
    for (const row of usage) this.#book.restore(row);
    const rows = [...vectors];
    const vector = <W extends string>(name: ClassName): [W, number][] =>
      rows.filter((row) => row.class === name).map(({ writer, upTo }) => [writer as W, upTo]);
    this.#control.restored(vector<ReplicaId>('control'));
    for (const digest of this.#book.restored(vector<WriterId>('usage'))) this.#lookFor(digest, 'counted');
  }

  #start(): void {
    this.#isStarted = true;
    for (const input of this.#restored.splice(0)) {
      const code = this.#seal(input);
      if (code !== null && input.type === 'register') this.#malformed(input.replica, input.key, code);
    }
    this.#admit();
  }

  // Inputs

  #enqueue(entry: Entry): void {
    const code = this.#entries.add(entry);
    if (code !== null) this.#out.push({ type: 'refused', ticket: entry.ticket, code });
  }

  #fire(timer: (MemberTimer & { core: 'member' })['input']): void {
    this.#timed.delete(timer);
    if (timer === 'lazy') this.#isLazyDue = true;
    else if (timer === 'full') this.#isProbing = this.#isFull;
  }

  #peer(input: PeersInput): void {
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
      // From here on its slot does not grow.
      if (replica === this.#options.replica && key.startsWith('close/'))
        this.#unsaved.gone(this.#book.reconsider(this.#options, epoch, this.openEpoch));
      return;
    }
    this.#out.push({ type: 'folded', replica, register });
    if (isFactKey(key) && this.#authority.fold(key, value)) this.#admit();
  }

  #malformed(replica: ReplicaId, key: string, code: ErrorCode): void {
    this.#out.push({ type: 'alarm', alarm: { what: 'malformed', replica, key, code } });
  }

  #admit(): void {
    this.#out.push({ type: 'admitted', replicas: this.#authority.admittedReplicas() });
    this.#peer({ type: 'admitted' });
  }

  // Contents

  #lookFor(digest: Digest, purpose: Purpose): void {
    if (this.#lookups.add(digest, purpose)) this.#out.push({ type: 'load', digest });
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
    if (purposes.has('counted')) this.#unsaved.gone(this.#book.counted(digest, parseSlot(bytes), this.openEpoch));
    if (purposes.has('sealing')) this.#seal({ type: 'content', bytes });
  }

  // Sealing

  /** Hands sealing an input. The code of what was wrong with it, or null. */
  #seal(input: SealingInput): ErrorCode | null {
    const { replica } = this.#options;
    const local: SealingInput[] = [];
    try {
      for (const effect of this.#sealing.handle(input, this.#now.wallMs))
        if (effect.type === 'want') this.#lookFor(effect.digest, 'sealing');
        else if (effect.type === 'write' && !effect.key.startsWith('close/') && !this.#isVoter())
          local.push({ type: 'register', replica, key: effect.key, value: effect.value });
        else this.#effects.push(effect);
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      return error.code;
    }
    for (const each of local) this.#seal(each);
    return null;
  }

  #isVoter(): boolean {
    return this.#sealing.roster.some(({ replica }) => replica === this.#options.replica);
  }

  /** What is to be done up to the next seal, and that one too unless it is to be staged first. */
  #takeEffects(): Kept[] {
    const end = this.#effects.findIndex(({ type }) => type === 'sealed');
    if (end < 0) return this.#effects.splice(0);
    const { sealed } = this.#effects[end] as { readonly sealed: SealedEpoch };
    const isLarge = sealed.outcome.leaves.length > (this.#options.stageAbove ?? Number.MAX_SAFE_INTEGER);
    if (!isLarge || this.#staged === sealed.epoch) return this.#effects.splice(0, end + 1);
    if (this.#staging !== sealed.epoch) this.#out.push({ type: 'stage', sealed, before: this.#book.chain });
    this.#staging = sealed.epoch;
    return this.#effects.splice(0, end);
  }

  // Batches

  /** The one place that decides what goes to disk, and when. */
  #commit(): void {
    if (this.#inFlight !== undefined) return;
    // A full disk is asked when someone waits for the answer, and once in a while.
    if (this.#isFull && !this.#isProbing && this.#entries.count === 0) return;
    if (this.isBehind(this.#now)) this.#seal({ type: 'tick', membersClockMs: this.#peers.clockMs(this.#now.steadyMs) });
    // With more epochs to be closed, nothing is metered into the next of them.
    const entries = this.isBehind(this.#now) ? [] : this.#entries.take();
    const effects = this.#takeEffects();
    const isLazy = this.#isLazyDue || this.#unsaved.isFull;
    if (entries.length === 0 && effects.length === 0 && !isLazy && !this.#isProbing) return;
    this.#inFlight = this.#build(entries, effects, isLazy);
    this.#isProbing = false;
    this.#out.push({ type: 'persist', batch: this.#inFlight.batch });
  }

  #build(entries: readonly Entry[], effects: readonly Kept[], isLazy: boolean): InFlight {
    const { replica, run, hlc } = this.#options;
    const epoch = this.openEpoch;
    const metered = entries.filter((entry) => entry.type === 'meter');
    const control = this.#sign([
      ...effects.filter((effect) => effect.type === 'write'),
      ...entries.flatMap((entry) => (entry.type === 'write' ? entry.writes : [])),
    ]);
    const usage = this.#book.rows(metered, epoch);
    const contents = effects.filter((effect) => effect.type === 'content');
    const sealed = effects.find((effect) => effect.type === 'sealed')?.sealed ?? null;
    const covered = sealed === null ? [] : this.#book.coveredBy(sealed, epoch);
    const pinned = withoutPinned(this.#releases, new Set(contents.map(({ digest }) => digest)));
    const released =
      sealed === null
        ? { kept: pinned, dropped: [] }
        : releaseWith(pinned, sealed.epoch, sealed.release, !this.#peers.isStarted);
    const lazy = isLazy ? this.#unsaved.take(covered) : NO_ROWS;
    if (isLazy) this.#isLazyDue = false;
    const own = (name: ClassName, writer: string, registers: readonly Register[]): VectorRow[] =>
      registers.length === 0 ? [] : [{ class: name, writer, upTo: registers.at(-1)!.version }];
    const batch: Batch = {
      number: ++this.#numbers,
      metered: { epoch, tickets: metered.map(({ ticket }) => ticket) },
      meta: [
        [META.hlc, hlc.last],
        ...(sealed === null && contents.length === 0 ? [] : [[META.releases, formatReleases(released.kept)] as const]),
      ],
      control: [...control.map((register) => ({ replica, ...register })), ...lazy.control],
      usage: [...usage.map((row) => usageRow({ replica, run, epoch: row.epoch }, row)), ...lazy.usage],
      vectors: [...own('control', replica, control), ...own('usage', this.#book.own, usage), ...lazy.vectors],
      contents: contents.map(({ digest, epoch: since, bytes }) => ({ digest, epoch: since, bytes })),
      seal: sealed === null ? null : { sealed, before: this.#book.chain },
      dropControl: sealed === null ? [] : expiredWith(sealed.epoch, this.#control, replica, epoch),
      dropUsage: [...covered, ...lazy.gone],
      dropContents: released.dropped,
    };
    return { batch, entries, effects, control, usage, lazy, covered, releases: released.kept };
  }

  #sign(writes: readonly Write[]): ControlRegister[] {
    const { transport, cluster, replica } = this.#options;
    const version = this.#control.upTo(replica) + 1;
    return writes.map(({ key, value }, i) =>
      signControl(transport, cluster.id, replica, { key, value, version: version + i }),
    );
  }

  #landed(number: number): InFlight {
    const flight = present(this.#inFlight, 'a batch in flight');
    assert(flight.batch.number === number, `the answer to batch ${flight.batch.number}, not ${number}`);
    this.#inFlight = undefined;
    return flight;
  }

  /** There was no room: what clients wait for is refused, the rest is offered again. */
  #refused({ entries, effects, lazy }: InFlight): void {
    this.#isFull = true;
    this.#effects.unshift(...effects);
    this.#unsaved.putBack(lazy);
    for (const { ticket } of entries) this.#out.push({ type: 'refused', ticket, code: 'STORE_FULL' });
    this.#timer('full', FULL_RETRY_MS);
  }

  #persisted({ batch, entries, control, usage, lazy, covered, releases }: InFlight): void {
    const { replica } = this.#options;
    this.#isFull = false;
    this.#releases = releases;
    this.#unsaved.saved(lazy);
    this.#book.apply(usage);
    if (batch.seal !== null) this.#sealed(batch.seal.sealed, covered, batch.dropControl);
    for (const { register } of this.#control.apply(replica, control)) this.#deliver(replica, register);
    if (this.#peers.isStarted) {
      if (control.length > 0) this.#peer({ type: 'written' });
      for (const { digest, bytes } of batch.contents) this.#peer({ type: 'held', digest, bytes });
    }
    const { epoch } = batch.metered;
    for (const { ticket } of entries) this.#out.push({ type: 'done', ticket, epoch });
  }

  /** After a seal is on disk: its rows leave the registers and the open figures, old registers go. */
  #sealed(sealed: SealedEpoch, covered: readonly SlotId[], expired: Batch['dropControl']): void {
    this.#unsaved.gone(this.#book.seal(sealed, covered, this.openEpoch));
    for (const { replica, key } of expired) this.#control.drop(replica, [key]);
    this.#out.push({ type: 'sealed', epoch: sealed.epoch });
  }

  // Timers

  /** Sees to it that time brings what has to come, each timer once. */
  #schedule(): void {
    const leftMs = this.#sealing.wakeAtMs - this.#now.wallMs;
    this.#timer('epoch', leftMs > 0 ? Math.min(leftMs, LOOK_MS_MAX) : LOOK_MS_MIN);
    if (!this.#unsaved.isEmpty && !this.#isLazyDue) this.#timer('lazy', LAZY_MS);
    if (leftMs <= 0) this.#compareClocks();
  }

  /** Says once for an epoch that it is over by this clock alone. */
  #compareClocks(): void {
    const membersClockMs = this.#peers.clockMs(this.#now.steadyMs);
    if (membersClockMs === null || this.isBehind(this.#now) || this.#alarmedEpoch === this.openEpoch) return;
    this.#alarmedEpoch = this.openEpoch;
    this.#out.push({ type: 'alarm', alarm: { what: 'clockAhead', epoch: this.openEpoch, membersClockMs } });
  }

  #timer(input: (MemberTimer & { core: 'member' })['input'], afterMs: number): void {
    if (this.#timed.has(input)) return;
    this.#timed.add(input);
    this.#out.push({ type: 'timer', afterMs, timer: { core: 'member', input } });
  }
}

type Changing = 'apply' | 'join' | 'restart' | 'drop' | 'forget' | 'restore' | 'restored';
