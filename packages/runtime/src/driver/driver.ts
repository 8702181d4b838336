import { assert, WaggleError, type Digest, type Epoch, type HybridClock, type Random } from '@waggle/protocol/base';
import type { ErrorCode, ReplicaId } from '@waggle/protocol/base';
import type { Authority, RosterWarning } from '@waggle/protocol/authority';
import type { ControlRegister } from '@waggle/protocol/lattice';
import {
  Member,
  type Alarm,
  type ApartClock,
  type ControlRow,
  type MemberEffect,
  type MemberInput,
  type Now,
  type UsageRegisterRow,
  type UsageView,
  type Write,
} from '@waggle/protocol/member';
import type { MemberChange, MemberKey, MemberView } from '@waggle/protocol/membership';
import type { Lag, ReplicationStats } from '@waggle/protocol/replication';
import type { Roster, SealingStatus } from '@waggle/protocol/sealing';
import { edgeAt } from '@waggle/protocol/transparency';
import type { Clock } from '../clock.ts';
import { evidenceOf, type EvidencePiece } from '../evidence.ts';
import { nodeCrypto } from '../node-crypto.ts';
import type { Loaded, Store } from '../store/types.ts';
import type { Address, Transport, TransportCounters, TransportHandlers } from '../transport/transport.ts';
import { Computer } from './computer.ts';
import { Disk, type Metering } from './disk.ts';
import { NodeDirectory, type NodeEntry } from './directory.ts';
import { tileReader } from './epochs.ts';
import type { Standing } from './founding.ts';
import { Months } from './months.ts';
import { readChain, readPast, readPinned } from './restart.ts';
import { SEAL_ROWS_PER_COMMIT } from './staged-seal.ts';
import { Followers } from './followers.ts';
import { Timers } from './timers.ts';

export interface DriverOptions {
  readonly store: Store;
  readonly loaded: Loaded;
  readonly standing: Standing;
  readonly clock: Clock;
  /** Its high-water mark goes to disk with every transaction. */
  readonly hlc: HybridClock;
  readonly random: Random;
  /** Every control register that is not sealing's: those on disk at start, then each once it is durable or has come. */
  readonly onControl: (replica: ReplicaId, register: ControlRegister) => void;
  readonly onSealed?: (epoch: Epoch) => void;
  /** After each transaction: how long it took in ms, and how many meterings and writes it held. */
  readonly onCommit?: (ms: number, entries: number) => void;
  /** A member got into another state for this node. */
  readonly onMember?: (change: MemberChange) => void;
  /** A member sent what no correct node sends. It changed nothing. */
  readonly onMisbehaviour?: (from: ReplicaId, code: ErrorCode) => void;
  /** Something that a person should hear of. */
  readonly onAlarm?: (alarm: Alarm) => void;
  /** The store cannot be used any more; the process should end. Called once. */
  readonly onFatal: (error: WaggleError) => void;
}

/** Somebody waits for a metering or a write. */
interface Waiter {
  readonly metering: Metering | undefined;
  resolve(epoch: Epoch): void;
  reject(error: unknown): void;
}

const SEALING_KEY = /^(close|ballot|seal)\/[0-9]+$/;

/** Between two looks at how far the event loop is behind, in ms. */
const LAG_SAMPLE_MS = 1_000;

/**
 * The loop: inputs to the member, its effects to disk, network and clock. What has to be true before what (persist before send)
 * is the member's to say; this only carries it out, in order.
 */
export class Driver {
  readonly #options: DriverOptions;
  readonly #directory = new NodeDirectory();
  #member!: Member;
  #months!: Months;
  #transport: Transport | undefined;
  /** Where members were said to be before their own word for it came: by an invite, or by whoever let this node in. */
  readonly #hints: ReadonlyMap<MemberKey, readonly Address[]>;
  #isAdmittedStale = false;
  #inputs: MemberInput[] = [];
  #isStepping = false;
  #lastTicket = 0;
  readonly #waiters = new Map<number, Waiter>();
  readonly #timers: Timers;
  readonly #followers: Followers;
  readonly #disk: Disk;
  readonly #computer = new Computer((error) => this.#fail(error));
  #isClosing = false;
  #isClosed = false;
  /** When this node began to leave, in Unix ms: its wall clock stands still from then on, and no further epoch ends. */
  #leftMs: number | undefined;

  private constructor(options: DriverOptions) {
    this.#options = options;
    this.#hints = options.standing.hints;
    this.#timers = new Timers(options.clock);
    this.#followers = new Followers(this.#timers);
    const { store, clock, onCommit } = options;
    this.#disk = new Disk({
      store,
      clock,
      timers: this.#timers,
      meteringOf: (ticket) => this.#waiters.get(ticket)?.metering,
      step: (input) => this.#step(input),
      onCommit,
      onPart: (statements) => this.#months.prepare(statements),
      onSealed: (sealed) => this.#months.sealed(sealed),
      onFatal: (error) => this.#fail(asFatal(error)),
    });
  }

  /** Loads what the store holds, folds it into the views, closes the epochs that ended meanwhile and starts to seal. */
  static async start(options: DriverOptions): Promise<Driver> {
    const driver = new Driver(options);
    await driver.#load();
    driver.#step({ type: 'start' });
    driver.#sampleLag();
    // What ended meanwhile is closed before the first request comes: by a node of several not before it has heard a clock.
    await driver.#writtenWhile(() => driver.#member.isBehind(driver.#now));
    return driver;
  }

  get standing(): Standing {
    return this.#options.standing;
  }

  get store(): Store {
    return this.#options.store;
  }

  /** The epoch that requests are metered in. */
  get openEpoch(): Epoch {
    return this.#member.openEpoch;
  }

  /** The epoch to be sealed next; all before it are, on disk. */
  get sealingEpoch(): Epoch {
    return this.#member.sealingEpoch;
  }

  /** Who may vote on the epoch to be sealed next. */
  get roster(): Roster {
    return this.#member.roster;
  }

  /** What the operator should know of the roster after the next seal, as far as is known here. */
  get rosterWarnings(): readonly RosterWarning[] {
    return this.#member.rosterWarnings;
  }

  /** How the epoch to be sealed next gets on. */
  get sealingStatus(): SealingStatus {
    return this.#member.sealingStatus;
  }

  /** What others wrote about sealing that no correct node writes: refused, the first of it, with the registers. */
  get evidence(): readonly EvidencePiece[] {
    return evidenceOf(this.#member);
  }

  /** What the chain of seals counted of slots that may still grow: contents that must stay on disk. */
  get counted(): ReadonlyMap<string, Digest> {
    return this.#member.counted;
  }

  /** Whether the last transaction found the disk full: work would only be refused at its end. */
  get isFull(): boolean {
    return this.#member.isFull;
  }

  /** Meterings and writes that wait for a transaction. */
  get waiting(): number {
    return this.#member.waiting;
  }

  /** The usage that no seal has counted yet, over all replicas known here. */
  get unsealed(): UsageView {
    return this.#member.unsealed;
  }

  /** The usage of the current month, sealed and unsealed. */
  get months(): Pick<Months, 'usage'> {
    return this.#months;
  }

  /** Members whose clocks are more than a minute from their median, this node too. */
  get apartClocks(): readonly ApartClock[] {
    return this.#member.apartClocks(this.#now);
  }

  /** Who belongs to the cluster, as far as is known here. */
  get authority(): Authority {
    return this.#member.authority;
  }

  /** Who is reachable now: this node and all others that it has heard of, by replica id. */
  get members(): MemberView[] {
    return this.#member.members;
  }

  /** The latest entry of each node, its own too, in the node directory. */
  get directory(): ReadonlyMap<ReplicaId, NodeEntry> {
    return this.#directory.entries;
  }

  /** What was exchanged with the others since the start. */
  get stats(): Readonly<ReplicationStats> {
    return this.#member.stats;
  }

  /** What the transport did since the start; null before it is attached. */
  get transportCounters(): TransportCounters | null {
    return this.#transport?.counters() ?? null;
  }

  /** How long ago this node held all that a member had to show, in ms by class; null if never since the start. */
  lag(replica: ReplicaId): Lag {
    return this.#member.lag(replica, this.#now);
  }

  /** Whether another member is reachable. */
  get hasOthers(): boolean {
    return this.#others().length > 0;
  }

  /** Where each member can be dialled, as far as is known: its own word for it, else what was said when this node joined. */
  addresses(): ReadonlyMap<MemberKey, readonly Address[]> {
    return new Map(
      this.authority.admittedReplicas().map(({ transportKey, replica }) => {
        const key = transportKey as MemberKey;
        return [key, this.#directory.entries.get(replica)?.addresses ?? this.#hints.get(key) ?? []] as const;
      }),
    );
  }

  /**
   * Writes a request's record and usage in one transaction. Resolves with the epoch it counts in when both are on disk. Throws
   * `STORE_FULL`, `STORE_FAILED` or `STORE_BUSY`; after `STORE_FULL` and `STORE_BUSY` it is not counted.
   */
  meter(metering: Metering): Promise<Epoch> {
    const { customer, sku, usage } = metering.record;
    return this.#enqueue(metering, (ticket) => ({ type: 'meter', ticket, customer, sku, usage }));
  }

  /**
   * Writes control registers of this replica in one transaction, all or none. Gives a version up to which a member must hold this
   * replica's registers to have them (`heldBy`). Throws likewise, and `REQUEST_INVALID` for registers larger than members take.
   */
  async write(writes: readonly Write[]): Promise<number> {
    if (writes.length > 0) await this.#enqueue(undefined, (ticket) => ({ type: 'write', ticket, writes }));
    return this.#member.registers.control.upTo(this.standing.replica);
  }

  /** Says from now on whether all that others sent by now is on disk. */
  mark(): () => boolean {
    return this.#member.registers.areWritten;
  }

  /** The other members that are known to hold this replica's control registers up to a version. */
  heldBy(version: number): ReplicaId[] {
    return this.#member.heldBy(version);
  }

  /**
   * Waits until those who hold this replica's registers up to a version are enough, at most so long. The registers are control
   * unless said otherwise. Gives whether they were.
   */
  follow(
    version: number,
    isEnough: (held: readonly ReplicaId[]) => boolean,
    timeoutMs: number,
    of: 'control' | 'usage' = 'control',
  ): Promise<boolean> {
    const held = (): ReplicaId[] => (of === 'control' ? this.heldBy(version) : this.#member.usageHeldBy(version));
    const waiting = this.#followers.wait(held, isEnough, timeoutMs);
    this.#step({ type: 'follow', version, of });
    return waiting;
  }

  /** What a transport is to be opened with that will be attached. */
  get transportHandlers(): Omit<TransportHandlers, 'joiner'> {
    return {
      connected: (member) => this.#step({ type: 'linkUp', member }),
      disconnected: (member) => this.#step({ type: 'linkDown', member }),
      message: (from, bytes) => this.#step({ type: 'message', from, bytes }),
      datagram: (from, bytes) => this.#step({ type: 'datagram', from, bytes }),
      farewell: (key) => this.#member.farewell(key, this.#now),
    };
  }

  /** From now on it talks with the others by this transport, which has admitted nobody yet. */
  attach(transport: Transport): void {
    assert(this.#transport === undefined, 'one transport');
    this.#transport = transport;
    this.#isAdmittedStale = true;
    this.#run();
  }

  /**
   * Goes in order: waits, at most so long and only while another member is reachable, until one holds all that this node has
   * metered and written, and tells the others that it leaves. Epochs that end from now on stay open: their closes would be here
   * alone. Gives whether somebody holds it all; true if nobody else belongs to the cluster.
   */
  async leave(timeoutMs: number): Promise<boolean> {
    this.#leftMs ??= this.#options.clock.nowMs();
    const isHeld = this.authority.admittedReplicas().length <= 1 || (await this.#held(timeoutMs));
    if (!this.#isClosed) this.#step({ type: 'leave' });
    return isHeld;
  }

  #others(): MemberView[] {
    return this.members.filter(({ replica, state }) => replica !== this.standing.replica && state === 'alive');
  }

  async #held(timeoutMs: number): Promise<boolean> {
    const { control, usage } = this.#member.registers;
    const versions = [control.upTo(this.standing.replica), usage.upTo(this.#member.usageWriter)] as const;
    const isHeldBy = (held: readonly ReplicaId[]): boolean =>
      this.#others().some(({ replica }) => held.includes(replica));
    const isOver = (held: readonly ReplicaId[]): boolean => !this.hasOthers || isHeldBy(held);
    await Promise.all([
      this.follow(versions[0], isOver, timeoutMs),
      this.follow(versions[1], isOver, timeoutMs, 'usage'),
    ]);
    return isHeldBy(this.heldBy(versions[0])) && isHeldBy(this.#member.usageHeldBy(versions[1]));
  }

  /** Writes what is waiting and stops. The store and the transport stay open. */
  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#writtenWhile(() => !this.#member.isIdle);
    this.#stop(new WaggleError('DRAINING'));
    await this.#disk.written;
    await this.#months.stop();
    await this.#computer.stop();
  }

  /** Waits for the disk, as long as something is wanted and gets on. */
  async #writtenWhile(isWanted: () => boolean): Promise<void> {
    for (let last: unknown; last !== this.#disk.written && !this.#isClosed && !this.isFull && isWanted();)
      await (last = this.#disk.written);
  }

  #fail(error: WaggleError): void {
    if (this.#isClosed) return;
    this.#stop(error);
    this.#options.onFatal(error);
  }

  #stop(error: WaggleError): void {
    this.#isClosed = true;
    this.#disk.stop();
    void this.#months.stop();
    void this.#computer.stop();
    this.#followers.stop();
    this.#timers.cancelAll();
    for (const waiter of this.#waiters.values()) waiter.reject(error);
    this.#waiters.clear();
  }

  // Inputs

  get #now(): Now {
    const { clock } = this.#options;
    return { wallMs: this.#leftMs ?? clock.nowMs(), steadyMs: Math.floor(clock.monotonicMs()) };
  }

  #enqueue(metering: Metering | undefined, make: (ticket: number) => MemberInput): Promise<Epoch> {
    return new Promise((resolve, reject) => {
      if (this.#isClosing || this.#isClosed) return reject(new WaggleError('DRAINING'));
      const ticket = ++this.#lastTicket;
      this.#waiters.set(ticket, { metering, resolve, reject });
      this.#step(make(ticket));
    });
  }

  /** Hands the member an input. What an effect brings about comes after the effects that are being carried out. */
  #step(input: MemberInput): void {
    if (this.#isClosed) return;
    this.#inputs.push(input);
    this.#run();
  }

  #run(): void {
    if (this.#isStepping) return;
    this.#isStepping = true;
    try {
      for (;;) {
        const input = this.#inputs.shift();
        if (input === undefined && !this.#isAdmittedStale) return;
        if (input !== undefined) for (const effect of this.#member.handle(input, this.#now)) this.#carry(effect);
        if (this.#isAdmittedStale) this.#admit();
      }
    } finally {
      this.#isStepping = false;
    }
  }

  /** How far the event loop is behind makes a node doubt itself before it doubts others (Lifeguard). */
  #sampleLag(): void {
    const { clock } = this.#options;
    const dueMs = clock.monotonicMs() + LAG_SAMPLE_MS;
    this.#timers.after(LAG_SAMPLE_MS, () => {
      this.#step({ type: 'loopLag', lagMs: Math.max(0, Math.floor(clock.monotonicMs() - dueMs)) });
      this.#sampleLag();
    });
  }

  // Effects

  #carry(effect: MemberEffect): void {
    const { onSealed, onMember, onMisbehaviour, onAlarm } = this.#options;
    switch (effect.type) {
      case 'persist':
        this.#disk.persist(effect.batch);
        return;
      case 'stage':
        this.#disk.stage(effect.sealed, effect.before);
        return;
      case 'send':
        this.#transport?.send(effect.to, effect.bytes);
        return;
      case 'datagram':
        this.#transport?.sendDatagram(effect.to, effect.bytes);
        return;
      case 'timer':
        // After the datagrams that have come by then, so that a process that stood still reads its answers before it judges.
        this.#timers.after(effect.afterMs, () =>
          setImmediate(() => this.#step({ type: 'timer', timer: effect.timer })),
        );
        return;
      case 'done':
        this.#settle(effect.ticket, (waiter) => waiter.resolve(effect.epoch));
        return;
      case 'refused':
        this.#settle(effect.ticket, (waiter) => waiter.reject(new WaggleError(effect.code)));
        return;
      case 'folded':
        this.#fold(effect.replica, effect.register);
        return;
      case 'load':
        this.#disk.loadContent(effect.digest);
        return;
      case 'compute':
        this.#computer.run(effect.job, (result) => this.#step({ type: 'computed', name: effect.name, result }));
        return;
      case 'readSealed':
        this.#disk.readSealed(effect.from, effect.to);
        return;
      case 'admitted':
        this.#isAdmittedStale = true;
        return;
      case 'visible':
        this.#followers.check();
        return;
      case 'sealed':
        onSealed?.(effect.epoch);
        return;
      case 'member':
        // Who waits for members to hold something waits for no member that is gone.
        this.#followers.check();
        onMember?.(effect.change);
        return;
      case 'misbehaviour':
        onMisbehaviour?.(effect.from, effect.code);
        return;
      case 'alarm':
        onAlarm?.(effect.alarm);
        return;
    }
  }

  #settle(ticket: number, settle: (waiter: Waiter) => void): void {
    const waiter = this.#waiters.get(ticket);
    this.#waiters.delete(ticket);
    if (waiter !== undefined) settle(waiter);
  }

  #fold(replica: ReplicaId, register: ControlRegister): void {
    if (this.#directory.fold(replica, register)) this.#isAdmittedStale = true;
    this.#options.onControl(replica, register);
  }

  /** Tells the transport who may connect, and where each is. */
  #admit(): void {
    this.#isAdmittedStale = false;
    this.#transport?.setAdmitted(this.addresses());
  }

  // Start

  async #load(): Promise<void> {
    const { store, loaded, random, standing, hlc } = this.#options;
    const { cluster, replica, run, keys } = standing;
    const usage: UsageRegisterRow[] = [];
    await store.loadUsage((rows) => usage.push(...rows));
    const control: ControlRow[] = [];
    await store.loadControl((rows) => {
      control.push(...rows);
      for (const row of rows) if (!SEALING_KEY.test(row.key)) this.#fold(row.replica, row);
    });
    this.#months = new Months({
      store,
      loaded,
      genesis: cluster.genesis,
      clock: this.#options.clock,
      unsealed: () => this.unsealed,
      onFailure: (error) => this.#fail(asFatal(error)),
    });
    const chain = await readChain(store, loaded, cluster);
    this.#member = Member.restore(
      {
        cluster,
        replica,
        run,
        crypto: nodeCrypto,
        random,
        transport: keys.transport,
        log: keys.log,
        cosigner: keys.cosigner,
        hlc,
        stageAbove: SEAL_ROWS_PER_COMMIT,
      },
      {
        control,
        usage,
        vectors: loaded.vectors,
        meta: loaded.meta,
        facts: standing.facts,
        firstEpoch: Math.max(standing.firstEpoch, chain.epoch),
        chain,
        edge: await edgeAt(tileReader(store), loaded.sealed.at(-1)?.treeSize ?? 0),
        past: await readPast(store, chain.epoch),
        pinned: await readPinned(store, chain.epoch),
        lacking: await store.lacks([...new Set(chain.counted.values())]),
      },
    );
  }
}

const asFatal = (error: unknown): WaggleError =>
  error instanceof WaggleError ? error : new WaggleError('STORE_FAILED', 'The store failed', { cause: error });
