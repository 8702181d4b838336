import { assert, WaggleError, type Digest, type Epoch, type HybridClock, type Random } from '@waggle/protocol/base';
import {
  Registers,
  equalControl,
  signControl,
  type ControlRegister,
  type UsageRow,
  type WriterId,
} from '@waggle/protocol/lattice';
import { REGISTERS_KEPT_EPOCHS, Sealing, type SealingEffect } from '@waggle/protocol/sealing';
import { edgeAt } from '@waggle/protocol/transparency';
import type { ReplicaId } from '@waggle/protocol/base';
import type { Cancel, Clock } from '../clock.ts';
import { nodeCrypto } from '../node-crypto.ts';
import type { Batch, IdempotencyRow, Loaded, NewRecord, Store } from '../store/types.ts';
import { tileReader } from './epochs.ts';
import { META, type Standing } from './founding.ts';
import { chainMeta, readChain, readPinned } from './restart.ts';
import { StagedSeal } from './staged-seal.ts';
import { UsageBook, type UsageView } from './usage-book.ts';

/** A control register to be written by this replica. */
export interface Write {
  readonly key: string;
  /** JSON text. */
  readonly value: string;
}

/** What one finished request adds: its record and its usage, and what a retry of it would be answered with. */
export interface Metering {
  readonly record: Omit<NewRecord, 'epoch'>;
  readonly idempotency?: (epoch: Epoch) => readonly IdempotencyRow[];
}

export interface DriverOptions {
  readonly store: Store;
  readonly loaded: Loaded;
  readonly standing: Standing;
  readonly clock: Clock;
  /** Its high-water mark goes to disk with every transaction. */
  readonly hlc: HybridClock;
  readonly random: Random;
  /** Every control register that is not sealing's: those on disk at start, then each once it is durable. */
  readonly onControl: (replica: ReplicaId, register: ControlRegister) => void;
  readonly onSealed?: (epoch: Epoch) => void;
  /** After each transaction: how long it took in ms, and how many meterings and writes it held. */
  readonly onCommit?: (ms: number, entries: number) => void;
  /** The store cannot be used any more; the process should end. Called once. */
  readonly onFatal: (error: WaggleError) => void;
}

type Pending = { readonly resolve: (epoch: Epoch) => void; readonly reject: (error: unknown) => void } & (
  | { readonly kind: 'meter'; readonly metering: Metering }
  | { readonly kind: 'write'; readonly writes: readonly Write[] }
);

/** Meterings and writes that may wait for a transaction. */
const PENDING_MAX = 10_000;
/** Of these, how many one transaction takes. */
const ENTRIES_PER_COMMIT_MAX = 1_024;
/** How long to wait before asking a full disk again, in ms. */
const FULL_RETRY_MS = 1_000;
/** Keys of one writer: 100 000 customers with keys, limits and audit entries need half a million. */
const CONTROL_KEYS_MAX = 4_000_000;

const SEALING_KEY = /^(close|ballot|seal)\/[0-9]+$/;

/**
 * The loop: inputs to the cores, their effects to the disk, and only then to whoever waits (persist before send).
 *
 * One transaction is in flight at a time; what arrives meanwhile goes into the next (group commit: at once when idle). Slots
 * are closed between transactions, so that a request is metered in exactly the epoch that is open when it is written.
 */
export class Driver {
  readonly #options: DriverOptions;
  readonly #control = new Registers<ControlRegister, ReplicaId>({ keysMax: CONTROL_KEYS_MAX, equal: equalControl });
  readonly #usage: UsageBook;
  #sealing!: Sealing;
  /** What the seals on disk have counted of slots that may still grow. */
  #counted: ReadonlyMap<string, Digest> = new Map();
  #seal: StagedSeal | undefined;
  #sealingEpoch: Epoch = 0;
  #pending: Pending[] = [];
  /** What sealing wants done: never dropped, written again after a failure. */
  #effects: SealingEffect[] = [];
  #running: Promise<void> | undefined;
  #timer: Cancel | undefined;
  #isStarted = false;
  #isFull = false;
  #isClosed = false;

  private constructor(options: DriverOptions) {
    this.#options = options;
    this.#usage = new UsageBook(options.standing.replica, options.standing.run);
  }

  /** Loads what the store holds, folds it into the views, closes the epochs that ended meanwhile and starts to seal. */
  static async start(options: DriverOptions): Promise<Driver> {
    const driver = new Driver(options);
    await driver.#load();
    do await driver.#cycle();
    while (driver.#isClosable() && !driver.#isFull);
    driver.#isStarted = true;
    driver.#wake();
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
    return this.#sealing.openEpoch;
  }

  /** The epoch to be sealed next; all before it are, on disk. */
  get sealingEpoch(): Epoch {
    return this.#sealingEpoch;
  }

  /** Whether the last transaction found the disk full: work would only be refused at its end. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** Meterings and writes that wait for a transaction. */
  get waiting(): number {
    return this.#pending.length;
  }

  /** The usage that no seal has counted yet, over all replicas known here. */
  get unsealed(): UsageView {
    return this.#usage.view;
  }

  /**
   * Writes a request's record and usage in one transaction. Resolves with the epoch it counts in when both are on disk. Throws
   * `STORE_FULL`, `STORE_FAILED` or `STORE_BUSY`; after `STORE_FULL` and `STORE_BUSY` it is not counted.
   */
  meter(metering: Metering): Promise<Epoch> {
    return this.#enqueue((settle) => ({ kind: 'meter', metering, ...settle }));
  }

  /** Writes control registers of this replica in one transaction, all or none. Throws likewise. */
  async write(writes: readonly Write[]): Promise<void> {
    if (writes.length > 0) await this.#enqueue((settle) => ({ kind: 'write', writes, ...settle }));
  }

  /** Writes what is waiting and stops. The store stays open. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#timer?.();
    await this.#running;
    if (this.#pending.length > 0) await this.#cycle();
    for (const { reject } of this.#pending.splice(0)) reject(new WaggleError('DRAINING'));
  }

  #enqueue(make: (settle: Pick<Pending, 'resolve' | 'reject'>) => Pending): Promise<Epoch> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(new WaggleError('DRAINING'));
      if (this.#pending.length >= PENDING_MAX)
        return reject(new WaggleError('STORE_BUSY', `Expected at most ${PENDING_MAX} writes waiting`));
      this.#pending.push(make({ resolve, reject }));
      this.#wake();
    });
  }

  /** Goes round until nothing is left to write, then sets the timer for the open epoch's end. */
  #wake(): void {
    if (!this.#isStarted || this.#isClosed || this.#running !== undefined) return;
    this.#timer?.();
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      if (this.#isClosed) return;
      if (this.#pending.length > 0) return this.#wake();
      const waitMs = this.#isFull ? FULL_RETRY_MS : Math.max(1, this.#sealing.wakeAtMs - this.#options.clock.nowMs());
      this.#timer = this.#options.clock.after(waitMs, () => this.#wake());
    });
  }

  async #run(): Promise<void> {
    do await this.#cycle();
    while (
      !this.#isClosed &&
      !this.#isFull &&
      (this.#pending.length > 0 || this.#effects.length > 0 || this.#isClosable())
    );
  }

  #isClosable(): boolean {
    return this.#sealing.isClosable(this.#options.clock.nowMs(), null);
  }

  /** One transaction. */
  async #cycle(): Promise<void> {
    const { clock, store, onCommit, onFatal } = this.#options;
    if (this.#isClosable())
      this.#effects.push(...this.#sealing.handle({ type: 'tick', membersClockMs: null }, clock.nowMs()));
    this.#fetchWanted();
    const entries = this.#pending.splice(0, ENTRIES_PER_COMMIT_MAX);
    if (this.#effects.length === 0 && entries.length === 0 && !this.#isFull) return;
    const seal = this.#stage();
    // The seal's effect, and what came after it, waits for the last part.
    const effects = seal?.isLast === false ? [] : this.#effects.splice(0);
    const { batch, control, usage, epoch } = this.#build(entries, effects, seal);
    const startedMs = clock.monotonicMs();
    try {
      await store.commit(batch);
    } catch (error) {
      this.#effects.unshift(...effects);
      for (const { reject } of entries) reject(error);
      this.#isFull = error instanceof WaggleError && error.code === 'STORE_FULL';
      if (this.#isFull) return;
      this.#isClosed = true;
      for (const { reject } of this.#pending.splice(0)) reject(error);
      onFatal(asFatal(error));
      return;
    }
    this.#isFull = false;
    onCommit?.(clock.monotonicMs() - startedMs, entries.length);
    this.#usage.apply(usage);
    if (seal?.isLast === false) seal.advance();
    else if (seal !== undefined) this.#forget(seal);
    const { replica } = this.standing;
    for (const { register } of this.#control.apply(replica, control)) this.#deliver(replica, register);
    for (const { resolve } of entries) resolve(epoch);
  }

  /** The seal that waits to be written, if there is one. */
  #stage(): StagedSeal | undefined {
    const [sealed, ...more] = this.#effects.flatMap((effect) => (effect.type === 'sealed' ? [effect.sealed] : []));
    assert(more.length === 0, 'one seal at a time');
    if (sealed !== undefined && this.#seal?.sealed !== sealed)
      this.#seal = new StagedSeal(sealed, this.#usage.covered(sealed), this.#counted);
    return sealed === undefined ? undefined : this.#seal;
  }

  /** What a transaction says, and the registers that are to be shown when it is on disk. */
  #build(
    entries: readonly Pending[],
    effects: readonly SealingEffect[],
    seal: StagedSeal | undefined,
  ): { batch: Batch; control: ControlRegister[]; usage: UsageRow[]; epoch: Epoch } {
    const { replica, run, keys, cluster } = this.standing;
    const epoch = this.#sealing.openEpoch;
    const writes = [
      ...effects.flatMap((effect) => (effect.type === 'write' ? [effect] : [])),
      ...entries.flatMap((entry) => (entry.kind === 'write' ? entry.writes : [])),
    ];
    const version = this.#control.upTo(replica) + 1;
    const control = writes.map(({ key, value }, i) =>
      signControl(keys.transport, cluster.id, replica, { key, value, version: version + i }),
    );
    const meterings = entries.flatMap((entry) => (entry.kind === 'meter' ? [entry.metering] : []));
    const usage = this.#usage.rows(
      meterings.map(({ record }) => record),
      epoch,
    );
    const chain = seal?.isLast === true ? chainMeta(seal.sealed.outcome.next) : [];
    const batch: Batch = {
      ...(seal === undefined ? {} : this.#sealedBatch(seal)),
      meta: [[META.hlc, this.#options.hlc.last], ...chain],
      control: control.map((register) => ({ replica, ...register })),
      usage: usage.map((row) => ({
        replica,
        run,
        epoch: row.epoch,
        customer: row.customer,
        sku: row.sku,
        version: row.version,
        usage: row.usage,
      })),
      vectors: [
        { class: 'control', writer: replica, upTo: version + control.length - 1 },
        { class: 'usage', writer: this.#usage.self, upTo: this.#usage.upTo + usage.length },
      ],
      records: meterings.map(({ record }) => ({ ...record, epoch })),
      idempotency: meterings.flatMap((metering) => metering.idempotency?.(epoch) ?? []),
      contents: effects.flatMap((effect) => (effect.type === 'content' ? [effect] : [])),
      dropIdempotencyBeforeMs: this.#options.clock.nowMs(),
    };
    return { batch, control, usage, epoch };
  }

  #sealedBatch(seal: StagedSeal): Batch {
    if (!seal.isLast) return seal.part();
    const { replica } = this.standing;
    return {
      ...seal.part(),
      ...seal.rest,
      dropContents: seal.sealed.release,
      dropUsage: seal.covered.map(({ id }) => id),
      dropControl: this.#expired(seal.sealed.epoch).map((key) => ({ replica, key })),
    };
  }

  /** Own registers of epochs sealed long ago. The last close stays: it says which epoch is open. */
  #expired(sealed: Epoch): string[] {
    const epoch = sealed - REGISTERS_KEPT_EPOCHS;
    return ['close', 'ballot', 'seal']
      .map((kind) => `${kind}/${epoch}`)
      .filter(
        (key) => epoch < this.#sealing.openEpoch - 1 && this.#control.get(this.standing.replica, key) !== undefined,
      );
  }

  /** After a seal is on disk: its rows leave the registers and the open figures, its old registers go. */
  #forget({ sealed, covered }: StagedSeal): void {
    this.#seal = undefined;
    this.#usage.forget(covered);
    this.#control.drop(this.standing.replica, this.#expired(sealed.epoch));
    this.#counted = sealed.outcome.next.counted;
    this.#sealingEpoch = sealed.epoch + 1;
    this.#options.onSealed?.(sealed.epoch);
  }

  #deliver(replica: ReplicaId, register: ControlRegister): void {
    if (!SEALING_KEY.test(register.key)) return this.#options.onControl(replica, register);
    const { key, value } = register;
    this.#effects.push(...this.#sealing.handle({ type: 'register', replica, key, value }, this.#options.clock.nowMs()));
  }

  /** Contents that sealing asks for: a roster of one has them on its own disk. */
  #fetchWanted(): void {
    const wanted = this.#effects.flatMap((effect) => (effect.type === 'want' ? [effect.digest] : []));
    if (wanted.length === 0) return;
    this.#effects = this.#effects.filter((effect) => effect.type !== 'want');
    for (const digest of wanted)
      void this.#options.store.content(digest).then(
        (bytes) => {
          if (bytes === null) return;
          this.#effects.push(...this.#sealing.handle({ type: 'content', bytes }, this.#options.clock.nowMs()));
          this.#wake();
        },
        (error: unknown) => {
          // Too many readers: asked again with the next transaction.
          if (error instanceof WaggleError && error.code === 'STORE_BUSY') this.#effects.push({ type: 'want', digest });
          else this.#options.onFatal(asFatal(error));
        },
      );
  }

  async #load(): Promise<void> {
    const { store, loaded } = this.#options;
    await store.loadUsage((rows) => this.#usage.restore(rows));
    const sealing: { replica: ReplicaId; register: ControlRegister }[] = [];
    await store.loadControl((rows) => {
      for (const { replica, key, version, value, signature } of rows) {
        const register = { key, version, value, signature };
        this.#control.restore(replica, register);
        if (SEALING_KEY.test(key)) sealing.push({ replica, register });
        else this.#options.onControl(replica, register);
      }
    });
    const vector = <W extends string>(kind: 'control' | 'usage'): [W, number][] =>
      loaded.vectors.filter((row) => row.class === kind).map(({ writer, upTo }) => [writer as W, upTo]);
    this.#control.restored(vector<ReplicaId>('control'));
    this.#usage.restored(vector<WriterId>('usage'));
    await this.#startSealing(sealing);
  }

  async #startSealing(
    registers: readonly { readonly replica: ReplicaId; readonly register: ControlRegister }[],
  ): Promise<void> {
    const { store, loaded, random, standing, clock } = this.#options;
    const { cluster, replica, run, keys } = standing;
    const chain = await readChain(store, loaded, cluster);
    this.#counted = chain.counted;
    this.#sealingEpoch = chain.epoch;
    this.#sealing = new Sealing({
      cluster,
      replica,
      run,
      crypto: nodeCrypto,
      random,
      logSigner: keys.log,
      cosigner: keys.cosigner,
      slotsUpTo: (epoch) => this.#usage.slotsUpTo(epoch),
      chain,
      edge: await edgeAt(tileReader(store), loaded.sealed.at(-1)?.treeSize ?? 0),
      firstEpoch: chain.epoch,
    });
    for (const bytes of await readPinned(store, chain.epoch))
      this.#effects.push(...this.#sealing.handle({ type: 'content', bytes }, clock.nowMs()));
    // Closes last: with its own close a member acts, and it must know by then what it has promised and signed before.
    const actsLast = ({ register }: (typeof registers)[number]): number => (register.key.startsWith('close/') ? 1 : 0);
    for (const { replica: writer, register } of [...registers].sort((a, b) => actsLast(a) - actsLast(b)))
      this.#deliver(writer, register);
  }
}

const asFatal = (error: unknown): WaggleError =>
  error instanceof WaggleError ? error : new WaggleError('STORE_FAILED', 'The store failed', { cause: error });
