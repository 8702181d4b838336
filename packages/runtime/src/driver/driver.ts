import {
  assert,
  utf8,
  WaggleError,
  type Digest,
  type Epoch,
  type HybridClock,
  type Random,
} from '@waggle/protocol/base';
import {
  addUsage,
  GCounter,
  Registers,
  equalControl,
  equalUsage,
  signControl,
  usageKey,
  usageWriter,
  parseUsageWriter,
  ZERO_USAGE,
  type ControlRegister,
  type UsageRow,
  type WriterId,
} from '@waggle/protocol/lattice';
import {
  chainStart,
  headerHash,
  parseHeader,
  parseRoster,
  REGISTERS_KEPT_EPOCHS,
  Sealing,
  type ChainState,
  type HeldSlot,
  type SealedEpoch,
  type SealingEffect,
} from '@waggle/protocol/sealing';
import { edgeAt } from '@waggle/protocol/transparency';
import { covers, sortRows, type SlotRow } from '@waggle/protocol/usage';
import type { ReplicaId } from '@waggle/protocol/base';
import type { Cancel, Clock } from '../clock.ts';
import { nodeCrypto } from '../node-crypto.ts';
import type { Batch, IdempotencyRow, Loaded, NewRecord, Store } from '../store/types.ts';
import { CONTENTS_PAGE_MAX } from '../store/types.ts';
import { sealedRows, tileReader } from './epochs.ts';
import { META, type Standing } from './founding.ts';

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
const USAGE_KEYS_MAX = 4_000_000;

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
  readonly #usage = new Registers<UsageRow, WriterId>({
    keysMax: USAGE_KEYS_MAX,
    equal: (a, b) => a.key === b.key && equalUsage(a.usage, b.usage),
  });
  readonly #counter = new GCounter();
  readonly #self: WriterId;
  #sealing!: Sealing;
  /** What the seals on disk have counted of slots that may still grow. */
  #counted: ReadonlyMap<string, Digest> = new Map();
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
    this.#self = usageWriter(options.standing.replica, options.standing.run);
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

  /** The epoch to be sealed next; all before it are. */
  get sealingEpoch(): Epoch {
    return this.#sealing.sealingEpoch;
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
  get unsealed(): Pick<GCounter, 'usage' | 'epochs' | 'customers' | 'skus'> {
    return this.#counter;
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
    const effects = this.#effects;
    const entries = this.#pending.splice(0, ENTRIES_PER_COMMIT_MAX);
    if (effects.length === 0 && entries.length === 0 && !this.#isFull) return;
    this.#effects = [];
    const { batch, control, usage, epoch } = this.#build(entries, effects);
    const startedMs = clock.monotonicMs();
    try {
      await store.commit(batch);
    } catch (error) {
      this.#effects = [...effects, ...this.#effects];
      for (const { reject } of entries) reject(error);
      this.#isFull = error instanceof WaggleError && (error.code === 'STORE_FULL' || error.code === 'STORE_BUSY');
      if (this.#isFull) return;
      this.#isClosed = true;
      for (const { reject } of this.#pending.splice(0)) reject(error);
      onFatal(
        error instanceof WaggleError ? error : new WaggleError('STORE_FAILED', 'The commit failed', { cause: error }),
      );
      return;
    }
    this.#isFull = false;
    onCommit?.(clock.monotonicMs() - startedMs, entries.length);
    for (const change of this.#usage.apply(this.#self, usage)) this.#counter.fold(change);
    for (const effect of effects) if (effect.type === 'sealed') this.#forget(effect.sealed);
    const { replica } = this.standing;
    for (const { register } of this.#control.apply(replica, control)) this.#deliver(replica, register);
    for (const { resolve } of entries) resolve(epoch);
  }

  /** What a transaction says, and the registers that are to be shown when it is on disk. */
  #build(
    entries: readonly Pending[],
    effects: readonly SealingEffect[],
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
    const usage = this.#usageRows(meterings, epoch);
    const sealed = effects.flatMap((effect) => (effect.type === 'sealed' ? [effect.sealed] : []));
    const batch: Batch = {
      ...this.#sealedBatch(sealed),
      meta: [
        [META.hlc, this.#options.hlc.last],
        ...(sealed.length > 0
          ? [[META.counted, JSON.stringify([...sealed.at(-1)!.outcome.next.counted])] as const]
          : []),
      ],
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
        { class: 'usage', writer: this.#self, upTo: this.#usage.upTo(this.#self) + usage.length },
      ],
      records: meterings.map(({ record }) => ({ ...record, epoch })),
      idempotency: meterings.flatMap((metering) => metering.idempotency?.(epoch) ?? []),
      contents: effects.flatMap((effect) => (effect.type === 'content' ? [effect] : [])),
      dropIdempotencyBeforeMs: this.#options.clock.nowMs(),
    };
    return { batch, control, usage, epoch };
  }

  /** One row for each customer and SKU of the batch, with what it adds to the row before. */
  #usageRows(meterings: readonly Metering[], epoch: Epoch): UsageRow[] {
    const added = new Map<string, Omit<UsageRow, 'version'>>();
    for (const { record } of meterings) {
      const { customer, sku } = record;
      const key = usageKey(epoch, customer, sku);
      const before = added.get(key)?.usage ?? this.#usage.get(this.#self, key)?.usage ?? ZERO_USAGE;
      added.set(key, { key, epoch, customer, sku, usage: addUsage(before, record.usage) });
    }
    const version = this.#usage.upTo(this.#self) + 1;
    return [...added.values()].map((row, i) => ({ ...row, version: version + i }));
  }

  #sealedBatch(sealed: readonly SealedEpoch[]): Batch {
    assert(sealed.length <= 1, 'one seal for each transaction');
    const [only] = sealed;
    if (only === undefined) return {};
    return {
      ...sealedRows(only, this.#counted),
      dropContents: only.release,
      dropUsage: this.#coveredSlots(only).map(({ id }) => id),
      dropControl: this.#expired(only.epoch).map((key) => ({ replica: this.standing.replica, key })),
    };
  }

  /** The slots of a seal of which no register holds more than it counts. */
  #coveredSlots(sealed: SealedEpoch): HeldSlot[] {
    const contents = new Map(
      sealed.outcome.slots.map(({ id, content }) => [`${id.epoch}/${usageWriter(id.replica, id.run)}`, content]),
    );
    return this.#slotsUpTo(sealed.epoch).filter(({ id, rows }) => {
      const content = contents.get(`${id.epoch}/${usageWriter(id.replica, id.run)}`);
      return content !== undefined && covers(content, rows);
    });
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
  #forget(sealed: SealedEpoch): void {
    for (const { id, rows } of this.#coveredSlots(sealed)) {
      const writer = usageWriter(id.replica, id.run);
      const keys = rows.map(({ customer, sku }) => usageKey(id.epoch, customer, sku));
      for (const key of keys) {
        const row = this.#usage.get(writer, key)!;
        this.#counter.fold({ register: { ...row, usage: ZERO_USAGE }, previous: row });
      }
      this.#usage.drop(writer, keys);
      if (equalUsage(this.#counter.usage(id.epoch), ZERO_USAGE)) this.#counter.dropEpoch(id.epoch);
    }
    this.#control.drop(this.standing.replica, this.#expired(sealed.epoch));
    this.#counted = sealed.outcome.next.counted;
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
      void this.#options.store.content(digest).then((bytes) => {
        if (bytes === null) return;
        this.#effects.push(...this.#sealing.handle({ type: 'content', bytes }, this.#options.clock.nowMs()));
        this.#wake();
      }, this.#options.onFatal);
  }

  #slotsUpTo(epoch: Epoch): HeldSlot[] {
    return this.#usage.writers().flatMap((writer) => {
      const { replica, run } = parseUsageWriter(writer);
      const byEpoch = new Map<Epoch, SlotRow[]>();
      for (const row of this.#usage.of(writer)) {
        if (row.epoch > epoch) continue;
        const rows = byEpoch.get(row.epoch) ?? [];
        rows.push({ customer: row.customer, sku: row.sku, usage: row.usage });
        byEpoch.set(row.epoch, rows);
      }
      return [...byEpoch].map(([slotEpoch, rows]) => ({
        id: { replica, run, epoch: slotEpoch },
        rows: sortRows(rows),
      }));
    });
  }

  async #load(): Promise<void> {
    const { store, loaded } = this.#options;
    await store.loadUsage((rows) => {
      for (const { replica, run, epoch, customer, sku, version, usage } of rows) {
        const row: UsageRow = { key: usageKey(epoch, customer, sku), version, epoch, customer, sku, usage };
        this.#usage.restore(usageWriter(replica, run), row);
        this.#counter.fold({ register: row, previous: undefined });
      }
    });
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
    const chain = await this.#chain();
    this.#counted = chain.counted;
    this.#sealing = new Sealing({
      cluster,
      replica,
      run,
      crypto: nodeCrypto,
      random,
      logSigner: keys.log,
      cosigner: keys.cosigner,
      slotsUpTo: (epoch) => this.#slotsUpTo(epoch),
      chain,
      edge: await edgeAt(tileReader(store), loaded.sealed.at(-1)?.treeSize ?? 0),
      firstEpoch: chain.epoch,
    });
    for (const bytes of await this.#pinned(chain.epoch))
      this.#effects.push(...this.#sealing.handle({ type: 'content', bytes }, clock.nowMs()));
    // Closes last: with its own close a member acts, and it must know by then what it has promised and signed before.
    const actsLast = ({ register }: (typeof registers)[number]): number => (register.key.startsWith('close/') ? 1 : 0);
    for (const { replica: writer, register } of [...registers].sort((a, b) => actsLast(a) - actsLast(b)))
      this.#deliver(writer, register);
  }

  /** Contents of epochs that are not sealed. */
  async #pinned(from: Epoch): Promise<Uint8Array[]> {
    const { store } = this.#options;
    const contents: Uint8Array[] = [];
    for (let after: Digest | null = null; ;) {
      const page: Awaited<ReturnType<Store['contentDigests']>> = await store.contentDigests(after, CONTENTS_PAGE_MAX);
      for (const { digest, epoch } of page) {
        const bytes = epoch >= from ? await store.content(digest) : null;
        if (bytes !== null) contents.push(bytes);
      }
      if (page.length < CONTENTS_PAGE_MAX) return contents;
      after = page.at(-1)!.digest;
    }
  }

  async #chain(): Promise<ChainState> {
    const { store, loaded, standing } = this.#options;
    const last = loaded.sealed.at(-1);
    if (last === undefined) return chainStart(standing.cluster);
    const row = await store.sealedEpoch(last.epoch);
    assert(row !== null, 'the last sealed epoch can be read');
    const details = JSON.parse(row.details) as { nextRoster: string };
    const counted = loaded.meta.get(META.counted);
    return {
      epoch: last.epoch + 1,
      previous: headerHash(utf8(row.header), nodeCrypto),
      roster: parseRoster(utf8(details.nextRoster)),
      format: parseHeader(utf8(row.header)).nextFormat,
      counted: new Map(counted === undefined ? [] : (JSON.parse(counted) as [string, Digest][])),
    };
  }
}
