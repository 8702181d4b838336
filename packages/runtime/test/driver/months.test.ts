import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { utf8, WaggleError, type CustomerId, type Epoch } from '@waggle/protocol/base';
import { addUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { packStatements, type Genesis, type SealedEpoch } from '@waggle/protocol/sealing';
import { Months, settleMonths, type MonthsOptions, type MonthUsage } from '../../src/driver/months.ts';
import { openStore, STATEMENTS_PAGE_MAX, type Batch, type SealedSummary, type StatementRow } from '../../src/index.ts';
import { temporaryDirectories } from '../support.ts';

const HOUR_MS = 3_600_000;
const EPOCH_MS = 12 * HOUR_MS;
/** Epoch 0 starts at noon of 30 October, epoch 3 at midnight, in November. */
const START_MS = Date.UTC(2026, 9, 30, 12);
const genesis = { startMs: START_MS, epochMs: EPOCH_MS } as Genesis;
const customers = ['acme', 'bees', 'cider'] as CustomerId[];
const requests = (n: number): Usage => ({ ...ZERO_USAGE, requests: n, cpuMicros: 7 * n });
const monthOf = (ms: number): string => new Date(ms).toISOString().slice(0, 7);
const monthOfEpoch = (epoch: Epoch): string => monthOf(START_MS + epoch * EPOCH_MS);

interface Statement {
  readonly customer: CustomerId;
  readonly origin: Epoch;
  readonly count: number;
}
const textOf = ({ count }: Statement): string =>
  JSON.stringify({ usage: { 'resize.jpeg': requests(count - 1), 'resize.webp': requests(1) } });

/** The disk of a node, which outlives its crashes. */
class Disk {
  readonly meta = new Map<string, string>();
  readonly months = new Map<string, Usage>();
  readonly statements: StatementRow[] = [];
  readonly sealed: SealedSummary[] = [];
  isFull = false;

  get treeSize(): number {
    return this.sealed.at(-1)?.treeSize ?? 0;
  }

  /** Writes a sealed epoch: its header's leaf and its statements. */
  seal(statements: readonly Statement[]): SealedEpoch {
    const firstLeaf = this.treeSize;
    const epoch = this.sealed.length;
    for (const [i, one] of statements.entries())
      this.statements.push({ ...one, epoch, leafIndex: firstLeaf + 1 + i, bytes: utf8(textOf(one)) });
    const treeSize = firstLeaf + 1 + statements.length;
    this.sealed.push({ epoch, firstLeaf, treeSize, root: new Uint8Array(32) });
    const texts = statements.map((one) => ({ customer: one.customer, epoch: one.origin, text: textOf(one) }));
    return { epoch, firstLeaf, treeSize, outcome: { statements: packStatements(texts) } } as unknown as SealedEpoch;
  }

  /** As a process sees it: with the process, calls end that are under way, done or not. */
  store(process: { isDead: boolean }): MonthsOptions['store'] {
    const turn = async (): Promise<void> => {
      await new Promise<void>((resolve) => setImmediate(resolve));
      if (process.isDead) await new Promise(() => undefined);
    };
    return {
      commit: async (batch: Batch) => {
        await turn();
        if (this.isFull) throw new WaggleError('STORE_FULL');
        for (const { month, customer, usage } of batch.months ?? []) {
          const key = `${month} ${customer}`;
          this.months.set(key, addUsage(this.months.get(key) ?? ZERO_USAGE, usage));
        }
        for (const key of this.months.keys()) if (key < batch.dropMonthsBefore!) this.months.delete(key);
        for (const [key, value] of batch.meta ?? []) this.meta.set(key, value);
        await turn();
      },
      statementsFrom: async (from, to, limit) => {
        await turn();
        return this.statements.filter(({ leafIndex }) => leafIndex >= from && leafIndex < to).slice(0, limit);
      },
      loadMonth: async (month, onChunk) => {
        for (const customer of customers) {
          await turn();
          const usage = this.months.get(`${month} ${customer}`);
          if (usage !== undefined) onChunk([{ month, customer, usage }]);
        }
      },
    };
  }
}

/** A node with one thing to say: the usage of the month. */
class World {
  readonly disk = new Disk();
  nowMs = START_MS;
  pending: Statement[] = [];
  #staged: Statement[] | undefined;
  #written = 0;
  #timers = new Set<() => void>();
  #process = { isDead: false };
  months = this.#start();

  #start(): Months {
    this.#process = { isDead: false };
    this.#timers = new Set();
    return new Months({
      store: this.disk.store(this.#process),
      loaded: { meta: new Map(this.disk.meta), sealed: [...this.disk.sealed] },
      genesis,
      clock: {
        nowMs: () => this.nowMs,
        monotonicMs: () => this.nowMs,
        after: (_, fn) => {
          this.#timers.add(fn);
          return () => this.#timers.delete(fn);
        },
      },
      unsealed: () => ({
        epochs: () => [...new Set(this.pending.map(({ origin }) => origin))],
        customers: () => [],
        skus: () => [],
        usage: (epoch, customer) =>
          this.pending
            .filter((one) => one.origin === epoch && one.customer === customer)
            .reduce((sum, { count }) => addUsage(sum, requests(count)), ZERO_USAGE),
      }),
      onFailure: (error) => expect.unreachable(String(error)),
    });
  }

  get openEpoch(): Epoch {
    return Math.floor((this.nowMs - START_MS) / EPOCH_MS);
  }

  /** Usage of the open epoch, or of the one that many before it. */
  meter(customer: CustomerId, count: number, epochsAgo: number): void {
    this.pending.push({ customer, count, origin: Math.max(0, this.openEpoch - epochsAgo) });
  }

  /** Writes some of the statements of the next epoch, if it has ended; again from the first on after a full disk. */
  stage(count: number, isAgain: boolean): void {
    const epoch = this.disk.sealed.length;
    if (epoch >= this.openEpoch) return;
    this.#staged ??= this.pending
      .filter(({ origin }) => origin <= epoch)
      .toSorted((a, b) => (a.customer < b.customer ? -1 : 1));
    if (isAgain) this.#written = 0;
    const part = this.#staged.slice(this.#written, (this.#written += count));
    const first = this.disk.treeSize + 1 + this.#written - count;
    this.months.prepare(part.map((one, i) => ({ ...one, epoch, leafIndex: first + i, bytes: utf8(textOf(one)) })));
  }

  /** Seals what was staged, or all that is there. */
  seal(): void {
    this.stage(0, false);
    const staged = this.#staged;
    if (staged === undefined) return;
    const sealed = this.disk.seal(staged);
    const before = this.read();
    this.months.sealed(sealed);
    this.pending = this.pending.filter((one) => !staged.includes(one));
    this.#staged = undefined;
    this.#written = 0;
    // What was shown is not less and not more for being sealed.
    for (const [i, { usage, isComplete }] of this.read().entries())
      if (before[i]!.isComplete) expect({ usage, isComplete }).toEqual({ usage: before[i]!.usage, isComplete: true });
  }

  crash(): void {
    this.#process.isDead = true;
    this.#staged = undefined;
    this.#written = 0;
    this.months = this.#start();
  }

  read(): MonthUsage[] {
    return customers.map((customer) => this.months.usage(customer, this.nowMs));
  }

  /** What is to be read, by the statements and what waits. */
  check(): void {
    const month = monthOf(this.nowMs);
    for (const [i, { fromMs, toMs, sealed, unsealed, usage, isComplete }] of this.read().entries()) {
      expect(monthOf(fromMs)).toBe(month);
      expect([monthOf(toMs - 1), monthOf(toMs) > month]).toEqual([month, true]);
      expect(usage).toEqual(addUsage(sealed, unsealed));
      const count = this.disk.statements
        .filter(({ customer, origin }) => customer === customers[i] && monthOfEpoch(origin) === month)
        .reduce((sum, row) => sum + (row as unknown as Statement).count, 0);
      if (isComplete) expect(sealed).toEqual(requests(count));
      else expect(sealed.requests).toBeLessThanOrEqual(count);
    }
  }

  /** Until all is on disk, and in the view. */
  async settle(): Promise<void> {
    this.disk.isFull = false;
    for (const fire of this.#timers) fire();
    this.#timers.clear();
    for (let turns = 0; turns < 10_000; turns++) {
      if (this.read().every(({ isComplete }) => isComplete) && (await this.#isWritten())) return;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    expect.unreachable('it catches up');
  }

  async #isWritten(): Promise<boolean> {
    const { meta, statements } = this.disk;
    return Number(meta.get('monthsThrough') ?? 0) > (statements.at(-1)?.leafIndex ?? -1);
  }
}

describe('the usage of the month', () => {
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('meter' as const),
        customer: fc.constantFrom(...customers),
        count: fc.integer({ min: 1, max: 9 }),
        epochsAgo: fc.integer({ min: 0, max: 5 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('stage' as const),
        count: fc.integer({ min: 1, max: 4 }),
        isAgain: fc.boolean(),
      }),
    },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('seal' as const) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('pass' as const), hours: fc.integer({ min: -6, max: 30 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('month' as const) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('turns' as const), turns: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 2, arbitrary: fc.constantFrom({ do: 'crash' as const }, { do: 'full' as const }) },
  );

  it('is the sum of statements and what waits, whatever is sealed, crashes or turns over when', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const world = new World();
        for (const one of steps) {
          if (one.do === 'meter') world.meter(one.customer, one.count, one.epochsAgo);
          if (one.do === 'stage') world.stage(one.count, one.isAgain);
          if (one.do === 'seal') world.seal();
          if (one.do === 'pass') world.nowMs = Math.max(START_MS, world.nowMs + one.hours * HOUR_MS);
          if (one.do === 'month') world.nowMs += 31 * 24 * HOUR_MS;
          if (one.do === 'crash') world.crash();
          if (one.do === 'full') world.disk.isFull = !world.disk.isFull;
          if (one.do === 'turns')
            for (let i = 0; i < one.turns; i++) await new Promise<void>((resolve) => setImmediate(resolve));
          world.check();
        }
        await world.settle();
        world.check();
        world.crash();
        await world.settle();
        world.check();
        for (const [key, usage] of world.disk.months) {
          const of = world.disk.statements.filter(
            ({ customer, origin }) => `${monthOfEpoch(origin)} ${customer}` === key,
          );
          expect(usage).toEqual(requests(of.reduce((sum, row) => sum + (row as unknown as Statement).count, 0)));
        }
      }),
      { numRuns: 200 },
    );
  });

  it('turns over at midnight UTC, by the start of the epoch', async () => {
    const world = new World();
    world.nowMs = Date.UTC(2026, 9, 31, 23, 59, 59, 999);
    world.meter(customers[0]!, 5, 0);
    expect(world.read()[0]).toMatchObject({ fromMs: Date.UTC(2026, 9), toMs: Date.UTC(2026, 10) });
    expect(world.read()[0]!.usage).toEqual(requests(5));
    world.nowMs += 1;
    const after = world.read()[0]!;
    expect(after).toMatchObject({ fromMs: Date.UTC(2026, 10), toMs: Date.UTC(2026, 11), isComplete: true });
    expect(after.usage).toEqual(ZERO_USAGE);
    // The epochs of October are sealed in November, and count in October.
    for (let i = 0; i < 3; i++) world.seal();
    expect(world.read()[0]!.usage).toEqual(ZERO_USAGE);
    await world.settle();
    expect(world.disk.months.get('2026-10 acme')).toEqual(requests(5));
  });

  it('shows the month that it is, when it turns over while the one before is read', async () => {
    const world = new World();
    world.disk.seal([{ customer: customers[0]!, origin: 0, count: 4 }]);
    world.crash();
    await world.settle();
    world.crash();
    world.nowMs = Date.UTC(2026, 10, 2);
    expect(world.read()[0]).toMatchObject({ sealed: ZERO_USAGE, isComplete: true });
    for (let i = 0; i < 10; i++) await new Promise<void>((resolve) => setImmediate(resolve));
    expect(world.read()[0]).toMatchObject({ sealed: ZERO_USAGE, isComplete: true });
    // A clock that was set back: it is read again.
    world.nowMs = START_MS;
    expect(world.read()[0]!.isComplete).toBe(false);
    await world.settle();
    expect(world.read()[0]!.sealed).toEqual(requests(4));
  });

  it('adds a large seal that was read ahead, unless the month has turned over since', async () => {
    for (const isTurned of [false, true]) {
      const world = new World();
      world.nowMs = Date.UTC(2026, 9, 31, 23);
      world.meter(customers[0]!, 5, 2);
      world.meter(customers[1]!, 6, 2);
      world.stage(1, false);
      world.stage(1, false);
      if (isTurned) world.nowMs += 2 * HOUR_MS;
      world.seal();
      expect(world.read().map(({ sealed }) => sealed.requests)).toEqual(isTurned ? [0, 0, 0] : [5, 6, 0]);
    }
  });

  it('catches up with a store from before it page by page, and says until then that it is not complete', async () => {
    const world = new World();
    const count = 2 * STATEMENTS_PAGE_MAX + 10;
    world.disk.seal(Array.from({ length: count }, () => ({ customer: customers[1]!, origin: 0, count: 1 })));
    world.crash();
    expect(world.read()[1]).toMatchObject({ isComplete: false, sealed: ZERO_USAGE });
    // What is sealed meanwhile is counted in its turn.
    world.nowMs += 2 * EPOCH_MS;
    world.meter(customers[1]!, 3, 1);
    world.seal();
    world.check();
    await world.settle();
    expect(world.read()[1]!.sealed.requests).toBe(count + 3);
  });

  it('is added up for a store that no node works with, once', async () => {
    const { disk } = new World();
    const count = STATEMENTS_PAGE_MAX + 10;
    const settle = () => settleMonths({ store: disk.store({ isDead: false }), genesis }, disk);
    await settle();
    expect([disk.months.size, disk.meta.size]).toEqual([0, 0]);
    disk.seal(Array.from({ length: count }, () => ({ customer: customers[0]!, origin: 0, count: 1 })));
    await settle();
    disk.seal([0, 3, 3].map((origin) => ({ customer: customers[1]!, origin, count: 2 })));
    disk.isFull = true;
    await expect(settle()).rejects.toMatchObject({ code: 'STORE_FULL' });
    disk.isFull = false;
    for (let time = 0; time < 3; time++) await settle();
    expect(disk.months).toEqual(
      new Map([
        ['2026-10 acme', requests(count)],
        ['2026-10 bees', requests(2)],
        ['2026-11 bees', requests(4)],
      ]),
    );
    expect(disk.meta.get('monthsThrough')).toBe(String(disk.treeSize));
  });

  it('keeps 13 months in the table', async () => {
    const world = new World();
    const [customer] = customers as [CustomerId];
    /** Seals empty epochs up to this one, and in it usage of these ones. */
    const seal = async (epoch: Epoch, origins: readonly Epoch[]): Promise<string[]> => {
      while (world.disk.sealed.length < epoch) world.disk.seal([]);
      world.disk.seal(origins.map((origin) => ({ customer, origin, count: 1 })));
      world.crash();
      await world.settle();
      return [...world.disk.months.keys()];
    };
    const september = 2 * 330;
    const october = 2 * 366;
    const november = 2 * 400;
    expect(await seal(0, [0])).toEqual(['2026-10 acme']);
    expect(await seal(october, [september, october])).toEqual(['2026-10 acme', '2027-09 acme', '2027-10 acme']);
    expect(await seal(november, [0, september])).toEqual(['2027-09 acme', '2027-10 acme']);
  });
});

const temporary = temporaryDirectories();

it('finds in SQLite what it wrote there, and goes on from there', async () => {
  const directory = temporary();
  const most = 2 ** 53 - 1;
  const row = (leafIndex: number, count: number, customer = customers[0]!): StatementRow => ({
    customer,
    epoch: leafIndex < 10 ? 0 : 1,
    origin: leafIndex < 10 ? 0 : 1,
    leafIndex,
    bytes: utf8(JSON.stringify({ usage: { 'resize.jpeg': { ...requests(1), bytesIn: count } } })),
  });
  const summary = (epoch: number) => ({
    epoch,
    firstLeaf: epoch * 10,
    treeSize: epoch * 10 + 10,
    root: new Uint8Array(32),
    header: '{}',
    checkpoint: '',
    details: '{}',
  });
  const read = async (): Promise<MonthUsage[]> => {
    const store = await openStore({ directory });
    const months = new Months({
      store,
      loaded: await store.load(),
      genesis,
      clock: { nowMs: () => START_MS, monotonicMs: () => 0, after: () => () => undefined },
      unsealed: () => ({ epochs: () => [], customers: () => [], skus: () => [], usage: () => ZERO_USAGE }),
      onFailure: (error) => expect.unreachable(String(error)),
    });
    const all = (): MonthUsage[] => customers.map((customer) => months.usage(customer, START_MS));
    while (!all().every(({ isComplete }) => isComplete)) await new Promise<void>((resolve) => setImmediate(resolve));
    await months.stop();
    await store.close();
    return all();
  };
  const store = await openStore({ directory });
  await store.commit({ sealed: [summary(0)], statements: [row(1, most - 5), row(2, 3, customers[1])] });
  await store.close();
  const first = await read();
  expect(first.map(({ sealed }) => sealed.bytesIn)).toEqual([most - 5, 3, 0]);
  const again = await openStore({ directory });
  await again.commit({ sealed: [summary(1)], statements: [row(11, 4), row(12, most, customers[1])] });
  await again.close();
  const expected = [most - 1, most, 0];
  expect((await read()).map(({ sealed }) => sealed.bytesIn)).toEqual(expected);
  expect((await read()).map(({ sealed }) => sealed.bytesIn)).toEqual(expected);
});
