import { assert, WaggleError, type CustomerId, type Epoch } from '@waggle/protocol/base';
import { ZERO_USAGE, type Dimension, type Usage } from '@waggle/protocol/lattice';
import type { UsageView } from '@waggle/protocol/member';
import { epochBounds, unpackStatements, type Genesis, type SealedEpoch } from '@waggle/protocol/sealing';
import type { Cancel, Clock } from '../clock.ts';
import { STATEMENTS_PAGE_MAX, type Loaded, type StatementRow, type Store } from '../store/types.ts';

/** Usage of a customer in a calendar month (UTC): of the epochs that start in it, wherever they are sealed. */
export interface MonthUsage {
  /** Bounds of the month in Unix ms, end exclusive. */
  readonly fromMs: number;
  readonly toMs: number;
  /** What seals have counted, and what none has counted yet. */
  readonly sealed: Usage;
  readonly unsealed: Usage;
  /** Both together. */
  readonly usage: Usage;
  /** Whether all that is sealed here is in it: not in the first moments after a start. */
  readonly isComplete: boolean;
}

export interface MonthsOptions {
  readonly store: Pick<Store, 'commit' | 'loadMonth' | 'statementsFrom'>;
  readonly loaded: Pick<Loaded, 'meta' | 'sealed'>;
  readonly genesis: Genesis;
  readonly clock: Clock;
  /** The usage that no seal has counted yet. */
  readonly unsealed: () => UsageView;
  /** What is on disk cannot be read. A store that failed is not told: whoever writes to it hears of it. */
  readonly onFailure: (error: unknown) => void;
}

/** Changed in place: a large seal adds to very many at once. */
type Sums = Map<CustomerId, Record<Dimension, number>>;

/** Name in the store's `meta`: the table has all statements whose leaf is below this one, and no other. */
const THROUGH = 'monthsThrough';
/** Months that the table keeps, the latest with it. */
const MONTHS_KEPT = 13;
/** Statements that are added at once when an epoch is sealed; with more, the sums are read from the table again. */
const ADDED_MAX = 5_000;
/** How long to wait before another try when the disk is full or has too much to do, in ms. */
const RETRY_MS = 1_000;

/** The month of a time in Unix ms, as "2026-11": earlier ones compare lower. */
const monthOf = (ms: number): string => new Date(ms).toISOString().slice(0, 7);

/** The start of the month that is so many after one, in Unix ms. */
function startOf(month: string, after = 0): number {
  const [year, number] = month.split('-').map(Number) as [number, number];
  return Date.UTC(year, number - 1 + after);
}

const capped = (count: number): number => Math.min(count, Number.MAX_SAFE_INTEGER);
/** A sum over time knows no bound, unlike a statement: each count ends at 2^53 − 1, in the table as well. */
function increase(sum: Record<Dimension, number>, by: Usage): void {
  sum.requests = capped(sum.requests + by.requests);
  sum.requestsFailed = capped(sum.requestsFailed + by.requestsFailed);
  sum.bytesIn = capped(sum.bytesIn + by.bytesIn);
  sum.bytesOut = capped(sum.bytesOut + by.bytesOut);
  sum.pixelsIn = capped(sum.pixelsIn + by.pixelsIn);
  sum.pixelsOut = capped(sum.pixelsOut + by.pixelsOut);
  sum.cpuMicros = capped(sum.cpuMicros + by.cpuMicros);
}

function total(usages: Iterable<Usage>): Record<Dimension, number> {
  const sum = { ...ZERO_USAGE };
  for (const usage of usages) increase(sum, usage);
  return sum;
}

function addTo(sums: Sums, customer: CustomerId, usage: Usage): void {
  const sum = sums.get(customer);
  if (sum === undefined) sums.set(customer, { ...usage });
  else increase(sum, usage);
}

/** The usage of a statement, all billing categories together. */
const usageOf = (text: string): Usage =>
  total(Object.values((JSON.parse(text) as { usage: Record<string, Usage> }).usage));

const textOf = ({ bytes }: Pick<StatementRow, 'bytes'>): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');

/** A page of sealed statements, added up. */
interface Page {
  /** As in "2026-11". */
  readonly months: ReadonlyMap<string, Sums>;
  readonly isEmpty: boolean;
  /** The first leaf after it. */
  readonly next: number;
}

type Books = Pick<MonthsOptions, 'store' | 'genesis'>;

const monthOfEpoch = (genesis: Genesis, epoch: Epoch): string => monthOf(epochBounds(genesis, epoch).startMs);

/** The next statements from a leaf on, up to, not including, another. */
async function readPage({ store, genesis }: Books, from: number, to: number): Promise<Page> {
  const statements = await store.statementsFrom(from, to, STATEMENTS_PAGE_MAX);
  const months = new Map<string, Sums>();
  for (const row of statements) {
    const month = monthOfEpoch(genesis, row.origin);
    let sums = months.get(month);
    if (sums === undefined) months.set(month, (sums = new Map()));
    addTo(sums, row.customer, usageOf(textOf(row)));
  }
  const next = statements.length < STATEMENTS_PAGE_MAX ? to : statements.at(-1)!.leafIndex + 1;
  return { months, isEmpty: statements.length === 0, next };
}

/** Adds a page to the table, and drops months that are too old for it. */
async function writePage({ store, genesis }: Books, { months, next }: Page, lastSealed: Epoch): Promise<void> {
  // By what is sealed, not by the clock: a clock that runs ahead drops nothing.
  const oldest = monthOf(startOf(monthOfEpoch(genesis, lastSealed), 1 - MONTHS_KEPT));
  await store.commit({
    months: [...months].flatMap(([month, sums]) =>
      month < oldest ? [] : Array.from(sums, ([customer, usage]) => ({ month, customer, usage })),
    ),
    dropMonthsBefore: oldest,
    meta: [[THROUGH, String(next)]],
  });
}

/**
 * Brings the table of months up to all that is sealed, in a store that no node works with: before its statements go. Throws what
 * the store throws; it can be done again.
 */
export async function settleMonths(books: Books, { meta, sealed }: MonthsOptions['loaded']): Promise<void> {
  const last = sealed.at(-1);
  if (last === undefined) return;
  for (let from = Number(meta.get(THROUGH) ?? 0); from < last.treeSize;) {
    const page = await readPage(books, from, last.treeSize);
    if (!page.isEmpty) await writePage(books, page, last.epoch);
    from = page.next;
  }
}

/**
 * The usage of the current month by customer, to be read in constant time: sums in memory of what is sealed, to which each seal
 * adds at once, and a table of them that follows on disk. All of it can be computed again from the statements.
 *
 * 1. The table has exactly the statements below leaf `#disk` (but for months that are dropped): rows and `monthsThrough` go to
 *    disk in one transaction. `#disk` ≤ `#sealed`, the size of the tree of all seals on disk.
 * 2. The sums have exactly the statements of `#month` below leaf `#counted`: null while they are to be read from the table, then
 *    `#disk` until the table has caught up, then `#sealed`. Then they are complete.
 * 3. One piece of work is under way at a time, and only it moves `#disk`.
 */
export class Months {
  readonly #options: MonthsOptions;
  #disk: number;
  #sealed: number;
  #lastSealed: Epoch | undefined;
  #month = '';
  #sums: Sums = new Map();
  #counted: number | null = null;
  /** Of the seal that is being written in parts: its statements of a month up to, not including, a leaf. */
  #prepared: { readonly month: string; readonly sums: Sums; end: number } | undefined;
  #isWorking = false;
  #work: Promise<void> = Promise.resolve();
  #retry: Cancel | undefined;
  #isStopped = false;

  constructor(options: MonthsOptions) {
    const { meta, sealed } = options.loaded;
    this.#options = options;
    this.#disk = Number(meta.get(THROUGH) ?? 0);
    this.#sealed = sealed.at(-1)?.treeSize ?? 0;
    // What a predecessor sealed in this month is in the table.
    const before = options.genesis.predecessor?.epoch ?? 0;
    this.#lastSealed = sealed.at(-1)?.epoch ?? (before > 0 ? before - 1 : undefined);
    this.#turn(monthOf(options.clock.nowMs()));
  }

  /** A customer's usage of the month that it is now. */
  usage(customer: CustomerId, nowMs: number): MonthUsage {
    this.#turn(monthOf(nowMs));
    const sealed = { ...(this.#sums.get(customer) ?? ZERO_USAGE) };
    const view = this.#options.unsealed();
    const epochs = view.epochs().filter((epoch) => this.#monthOf(epoch) === this.#month);
    const unsealed = total(epochs.map((epoch) => view.usage(epoch, customer)));
    return {
      fromMs: startOf(this.#month),
      toMs: startOf(this.#month, 1),
      sealed,
      unsealed,
      usage: total([sealed, unsealed]),
      isComplete: this.#counted === this.#sealed,
    };
  }

  /** Reads ahead, in order, some statements of the epoch to be sealed next, so that less is left for `sealed`. */
  prepare(rows: readonly StatementRow[]): void {
    const [first] = rows;
    if (first === undefined) return;
    if (first.leafIndex === this.#sealed + 1)
      this.#prepared = { month: this.#month, sums: new Map(), end: first.leafIndex };
    const prepared = this.#prepared;
    if (prepared?.end !== first.leafIndex) return;
    const origins = new Set(rows.map(({ origin }) => origin));
    for (const origin of origins) if (this.#monthOf(origin) !== prepared.month) origins.delete(origin);
    for (const row of rows) if (origins.has(row.origin)) addTo(prepared.sums, row.customer, usageOf(textOf(row)));
    prepared.end = rows.at(-1)!.leafIndex + 1;
  }

  /** An epoch is sealed, on disk. To be called in the moment in which its usage leaves `unsealed`. */
  sealed(sealed: SealedEpoch): void {
    assert(sealed.firstLeaf === this.#sealed, 'seals come in order');
    this.#turn(monthOf(this.#options.clock.nowMs()));
    if (this.#counted === this.#sealed) this.#counted = this.#add(sealed) ? sealed.treeSize : null;
    this.#prepared = undefined;
    this.#sealed = sealed.treeSize;
    this.#lastSealed = sealed.epoch;
    this.#wake();
  }

  /** Ends the work. Resolves when the store is not used any more. */
  stop(): Promise<void> {
    this.#isStopped = true;
    this.#retry?.();
    return this.#work;
  }

  #monthOf(epoch: Epoch): string {
    return monthOfEpoch(this.#options.genesis, epoch);
  }

  /** Whether its statements are in the sums: of a large one only if they are prepared, for it would take long. */
  #add({ outcome: { statements }, treeSize }: SealedEpoch): boolean {
    const prepared = this.#prepared;
    if (prepared?.month === this.#month && prepared.end === treeSize) {
      for (const [customer, usage] of prepared.sums) addTo(this.#sums, customer, usage);
      return true;
    }
    if (statements.count > ADDED_MAX) return false;
    for (const { customer, epoch, bytes } of unpackStatements(statements))
      if (this.#monthOf(epoch) === this.#month) addTo(this.#sums, customer, usageOf(textOf({ bytes })));
    return true;
  }

  /** Another month has begun, or the clock was set. */
  #turn(month: string): void {
    if (month === this.#month) return;
    this.#month = month;
    this.#sums = new Map();
    const isNew = this.#lastSealed === undefined || this.#monthOf(this.#lastSealed) < month;
    this.#counted = isNew ? this.#sealed : null;
    this.#wake();
  }

  #wake(): void {
    if (this.#isWorking || this.#isStopped) return;
    this.#isWorking = true;
    this.#work = this.#workOff();
  }

  async #workOff(): Promise<void> {
    try {
      while (!this.#isStopped && (this.#counted === null || this.#disk < this.#sealed))
        await (this.#counted === null ? this.#load() : this.#write());
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#isWorking = false;
    }
  }

  /** Reads the sums of the month from the table. */
  async #load(): Promise<void> {
    const month = this.#month;
    const sums: Sums = new Map();
    await this.#options.store.loadMonth(month, (rows) => {
      for (const { customer, usage } of rows) addTo(sums, customer, usage);
    });
    if (month !== this.#month || this.#counted !== null) return;
    this.#sums = sums;
    this.#counted = this.#disk;
  }

  /** Adds the next page of statements to the table, and to the sums if they do not have it yet. */
  async #write(): Promise<void> {
    const from = this.#disk;
    const page = await readPage(this.#options, from, this.#sealed);
    if (!page.isEmpty) await writePage(this.#options, page, this.#lastSealed ?? 0);
    this.#disk = page.next;
    if (this.#counted !== from) return;
    for (const [customer, usage] of page.months.get(this.#month) ?? []) addTo(this.#sums, customer, usage);
    this.#counted = page.next;
  }

  #failed(error: unknown): void {
    if (this.#isStopped) return;
    const code = error instanceof WaggleError ? error.code : undefined;
    if (code === 'STORE_FULL' || code === 'STORE_BUSY') {
      this.#retry?.();
      this.#retry = this.#options.clock.after(RETRY_MS, () => this.#wake());
      return;
    }
    this.#isStopped = true;
    if (code !== 'STORE_FAILED') this.#options.onFailure(error);
  }
}
