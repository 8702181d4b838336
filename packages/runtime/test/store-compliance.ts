import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { utf8, WaggleError } from '@waggle/protocol/base';
import type { ClusterId, CustomerId, Digest, ReplicaId, Run } from '@waggle/protocol/base';
import { addUsage, type Usage } from '@waggle/protocol/lattice';
import { encodeStatement, statementLeaf } from '@waggle/protocol/transparency';
import { STATEMENTS_PAGE_MAX } from '../src/index.ts';
import type {
  Batch,
  ControlRow,
  MonthRow,
  NewRecord,
  RequestRecord,
  SealedEpoch,
  StatementRow,
  Store,
  UsageRegisterRow,
} from '../src/index.ts';
import { nodeCrypto } from '../src/node-crypto.ts';

/** A store on some medium, which can be closed and opened again with what it holds. */
export interface StoreUnderTest {
  open(): Promise<Store>;
  /** The medium goes away. */
  destroy(): Promise<void>;
}

export const replicaOf = (n: number): ReplicaId => n.toString(16).padStart(32, '0') as ReplicaId;
export const customerOf = (n: number): CustomerId => `customer-${n}` as CustomerId;
export const usageOf = (n: number): Usage => ({
  requests: n,
  requestsFailed: 1,
  bytesIn: 2 * n,
  bytesOut: 3 * n,
  pixelsIn: 2 ** 52 + n,
  pixelsOut: 5 * n,
  cpuMicros: 6 * n,
});
export const recordOf = (n: number, change: Partial<NewRecord> = {}): NewRecord => ({
  timeMs: 1_700_000_000_000 + n,
  customer: customerOf(n % 3),
  keyId: 'abcdefghijkl',
  requestId: `request-${n}`,
  operation: 'resize',
  epoch: 0,
  status: n % 2 === 0 ? 200 : 422,
  code: n % 2 === 0 ? null : 'IMAGE_CORRUPT',
  params: JSON.stringify({ width: n, name: 'ünï' }),
  sku: 'resize.webp',
  usage: usageOf(n),
  queueMicros: n,
  processMicros: 10 * n,
  ...change,
});
export const digestOf = (bytes: Uint8Array): Digest => createHash('sha256').update(bytes).digest('hex') as Digest;
export const withoutSeq = (records: readonly RequestRecord[]): NewRecord[] =>
  records.map(({ seq, ...rest }) => {
    expect(seq).toBeGreaterThan(0);
    return rest;
  });
export const everything = { fromMs: 0, toMs: 2 ** 50 };

export async function collect<T>(load: (onChunk: (rows: T[]) => void) => Promise<void>): Promise<T[]> {
  const all: T[] = [];
  await load((rows) => all.push(...rows));
  return all;
}

const control = (n: number, version = n, replica = 1): ControlRow => ({
  replica: replicaOf(replica),
  key: `key-${String(n).padStart(6, '0')}`,
  version,
  value: JSON.stringify({ n, version }),
  signature: `signature-${version}`,
});
const usage = (n: number, version: number, epoch = 0): UsageRegisterRow => ({
  replica: replicaOf(1),
  run: 1 as Run,
  epoch,
  customer: customerOf(n),
  sku: 'resize.webp',
  version,
  usage: usageOf(version),
});
export const sealed = (epoch: number): SealedEpoch => ({
  epoch,
  firstLeaf: epoch * 4,
  treeSize: epoch * 4 + 4,
  root: new Uint8Array(32).fill(epoch),
  header: `{"epoch":${epoch}}`,
  checkpoint: `waggle.local\n${epoch * 4 + 4}\n`,
  details: '{}',
});
/** Three statements to an epoch, behind its header leaf. */
const statementsIn = (epoch: number): StatementRow[] =>
  [0, 1, 2].map((n) => ({
    customer: customerOf(n),
    epoch,
    origin: epoch,
    leafIndex: epoch * 4 + 1 + n,
    bytes: Buffer.from(`{"epoch":${epoch},"customer":${n}}`),
  }));
/** A statement as the log has it. */
export const statementOf = (customer: CustomerId, sealedIn: number, epoch: number): Uint8Array =>
  utf8(
    encodeStatement({
      cluster: 'c'.repeat(64) as ClusterId,
      customer,
      sealedIn,
      epoch,
      startMs: 1_700_000_000_000 + epoch * 3_600_000,
      endMs: 1_700_003_600_000 + epoch * 3_600_000,
      usage: { 'resize.jpeg': usageOf(epoch), 'resize.webp': usageOf(sealedIn) },
      salt: createHash('sha256').update(`${customer} ${epoch}`).digest('base64'),
    }),
  );
const texts = (rows: readonly { bytes: Uint8Array }[]): string[] =>
  rows.map(({ bytes }) => Buffer.from(bytes).toString());

/** What every implementation of `Store` must do. */
export function describeStore(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`${name} keeps the contract of a store`, () => {
    let medium: StoreUnderTest;
    let store: Store;
    beforeEach(async () => {
      medium = await make();
      store = await medium.open();
    });
    afterEach(async () => {
      await store.close();
      await medium.destroy();
    });
    const reopen = async (): Promise<void> => {
      await store.close();
      store = await medium.open();
    };

    it('starts empty', async () => {
      expect(await store.load()).toEqual({ meta: new Map(), vectors: [], sealed: [] });
      expect(await collect<ControlRow>((take) => store.loadControl(take))).toEqual([]);
      expect(await collect<UsageRegisterRow>((take) => store.loadUsage(take))).toEqual([]);
      expect(await store.records({ ...everything, limit: 10 })).toEqual([]);
      expect(await store.sealedEpoch(0)).toBeNull();
      expect(await store.tile(0, 0)).toBeNull();
      expect(await store.content(digestOf(new Uint8Array()))).toBeNull();
    });

    it('keeps meta, vectors and registers across a restart, in chunks', async () => {
      const controls = Array.from({ length: 12_345 }, (_, n) => control(n, n + 1));
      const usages = Array.from({ length: 20_000 }, (_, n) => usage(n % 1_000, n + 1, Math.floor(n / 1_000)));
      const vector = { class: 'usage', writer: 'someone/1', upTo: 20_000 } as const;
      await store.commit({ meta: [['a', '1']], control: controls, usage: usages, vectors: [vector] });
      await store.commit({ meta: [['a', '2']], vectors: [{ ...vector, class: 'control' }] });
      await reopen();
      const loaded = await store.load();
      expect(loaded.meta).toEqual(new Map([['a', '2']]));
      expect(loaded.vectors).toEqual([{ ...vector, class: 'control' }, vector]);
      expect(await collect<ControlRow>((take) => store.loadControl(take))).toEqual(controls);
      const rows = await collect<UsageRegisterRow>((take) => store.loadUsage(take));
      expect(rows.toSorted((a, b) => a.version - b.version)).toEqual(usages);
    });

    it('takes a register only when its version is higher, whatever the order, and drops what it is told to', async () => {
      const key = fc.nat(3);
      const step = fc.oneof(
        fc.record({
          kind: fc.constant('put' as const),
          key,
          epoch: fc.nat(1),
          version: fc.integer({ min: 1, max: 9 }),
        }),
        fc.record({ kind: fc.constant('drop' as const), key, epoch: fc.nat(1) }),
      );
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
          await store.commit({
            dropControl: [0, 1, 2, 3].map((n) => control(n, 1)),
            dropUsage: [usage(0, 1, 0), usage(0, 1, 1)],
          });
          const controls = new Map<string, ControlRow>();
          const usages = new Map<string, UsageRegisterRow>();
          for (const one of steps) {
            const register = control(one.key, one.kind === 'put' ? one.version : 1);
            const row = usage(one.key, one.kind === 'put' ? one.version : 1, one.epoch);
            const place = `${row.epoch} ${row.customer}`;
            if (one.kind === 'put') {
              await store.commit({ control: [register], usage: [row] });
              if ((controls.get(register.key)?.version ?? 0) < register.version) controls.set(register.key, register);
              if ((usages.get(place)?.version ?? 0) < row.version) usages.set(place, row);
            } else {
              await store.commit({ dropControl: [register], dropUsage: [row] });
              controls.delete(register.key);
              for (const [at, { epoch }] of usages) if (epoch === row.epoch) usages.delete(at);
            }
          }
          const byText = (a: object, b: object): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
          expect((await collect<ControlRow>((take) => store.loadControl(take))).toSorted(byText)).toEqual(
            [...controls.values()].toSorted(byText),
          );
          expect((await collect<UsageRegisterRow>((take) => store.loadUsage(take))).toSorted(byText)).toEqual(
            [...usages.values()].toSorted(byText),
          );
        }),
        { numRuns: 25 },
      );
    });

    it('numbers records, and pages through them by time for one customer and for all', async () => {
      const written = Array.from({ length: 2_500 }, (_, n) => recordOf(n, { timeMs: 1_000 + Math.floor(n / 7) }));
      await store.commit({ records: written });
      await store.commit({ records: [recordOf(0, { timeMs: 5 })] });
      const all: RequestRecord[] = [];
      for await (const record of store.streamRecords({ fromMs: 1_000, toMs: 10_000 })) all.push(record);
      expect(withoutSeq(all)).toEqual(written);
      expect(new Set(all.map(({ seq }) => seq)).size).toBe(written.length);
      const one = { customer: customerOf(1), fromMs: 1_010, toMs: 1_020 };
      const first = await store.records({ ...one, limit: 10 });
      const rest = await store.records({ ...one, after: first.at(-1)!, limit: 1_000 });
      const expected = written.filter(
        ({ customer, timeMs }) => customer === one.customer && timeMs >= 1_010 && timeMs < 1_020,
      );
      expect(withoutSeq([...first, ...rest])).toEqual(expected);
      expect(first).toHaveLength(10);
    });

    it('keeps contents by digest, small and large, until they are dropped', async () => {
      const contents = [0, 1, 1_024, 1_025, 300_000].map((length) => Buffer.alloc(length, 'a picture of a bee'));
      contents.push(Buffer.from(Array.from({ length: 5_000 }, (_, i) => (i * i * 31) % 251)));
      const rows = contents.map((bytes, epoch) => ({ digest: digestOf(bytes), epoch, bytes }));
      await store.commit({ contents: rows });
      await reopen();
      for (const { digest, bytes } of rows) expect(Buffer.from((await store.content(digest))!)).toEqual(bytes);
      await store.commit({ contents: [{ ...rows[0]!, epoch: 77 }], dropContents: [rows[1]!.digest] });
      const listed = await store.contentDigests(null, 100);
      const left = rows
        .filter((_, i) => i !== 1)
        .map(({ digest, epoch, bytes }, i) => ({
          digest,
          epoch: i === 0 ? 77 : epoch,
          size: bytes.length,
        }));
      expect(listed).toEqual(left.toSorted((a, b) => (a.digest < b.digest ? -1 : 1)));
      expect(await store.contentDigests(listed[2]!.digest, 1)).toEqual([listed[3]]);
      const [first, gone, third] = rows;
      expect(await store.contentSizes([third!, gone!, first!, first!].map(({ digest }) => digest))).toEqual([
        third!.bytes.length,
        null,
        first!.bytes.length,
        first!.bytes.length,
      ]);
      expect(await store.lacks([first!.digest, gone!.digest])).toEqual([gone!.digest]);
      expect(await store.content(rows[1]!.digest)).toBeNull();
    });

    it('takes bytes that are views of larger buffers', async () => {
      const whole = Buffer.from('0123456789');
      const bytes = whole.subarray(2, 5);
      const statement = { ...statementsIn(0)[0]!, bytes };
      await store.commit({
        sealed: [sealed(0)],
        statements: [statement],
        tiles: [{ level: 0, index: 0, hashes: bytes }],
      });
      expect(texts(await store.statements(0, null, 10))).toEqual(['234']);
      expect(Buffer.from((await store.tile(0, 0))!).toString()).toBe('234');
      expect(whole.toString()).toBe('0123456789');
    });

    it('gives statements back byte for byte, whatever is in them, and the leaves that they and headers have', async () => {
      const rows = [0, 1].flatMap((epoch) => {
        const [first, second, third] = statementsIn(epoch);
        const late = statementOf(customerOf(1), epoch, Math.max(0, epoch - 1));
        const bytes = statementOf(customerOf(1), epoch, epoch);
        return [
          first!,
          { ...second!, origin: Math.max(0, epoch - 1), bytes: late },
          { ...third!, customer: customerOf(1), bytes },
        ];
      });
      // The same again in two commits, as after a crash between them.
      await store.commit({ statements: rows });
      await store.commit({ statements: rows.slice(0, 4) });
      await store.commit({ statements: rows.slice(4), sealed: [sealed(0)] });
      const plain = ({ bytes, ...row }: StatementRow) => ({ ...row, text: Buffer.from(bytes).toString() });
      const leaves = (epoch: number) => [
        { index: epoch * 4, text: sealed(epoch).header },
        ...rows
          .filter((row) => row.epoch === epoch)
          .map((row) => ({
            index: row.leafIndex,
            text: Buffer.from(statementLeaf(Buffer.from(row.bytes).toString(), epoch, nodeCrypto)).toString(),
          })),
      ];
      const read = async (from: number, to: number) =>
        (await store.leaves(from, to)).map(({ index, data }) => ({ index, text: Buffer.from(data).toString() }));
      expect(await read(0, 100)).toEqual(leaves(0));
      await store.commit({ sealed: [sealed(1)] });
      await reopen();
      expect((await store.statementsFrom(0, 100, 10)).map(plain)).toEqual(rows.map(plain));
      expect((await store.statementsOf(customerOf(1), 0, 1, 10)).map(plain)).toEqual(
        rows.filter(({ customer }) => customer === customerOf(1)).map(plain),
      );
      expect((await store.statementsOf(customerOf(1), 1, 1, 10)).map(({ origin }) => origin)).toEqual([0, 1]);
      expect(await read(0, 8)).toEqual([...leaves(0), ...leaves(1)]);
      expect(await read(3, 6)).toEqual([...leaves(0), ...leaves(1)].slice(3, 6));
      expect(await read(8, 100)).toEqual([]);
    });

    it('shows statements of an epoch only with its sealed row, by leaf and by customer', async () => {
      await store.commit({ sealed: [sealed(0), sealed(1)], statements: [0, 1, 2].flatMap(statementsIn) });
      expect(texts(await store.statements(1, null, 10))).toEqual(texts(statementsIn(1)));
      expect(texts(await store.statements(1, 5, 1))).toEqual(texts(statementsIn(1).slice(1, 2)));
      expect(await store.statements(2, null, 10)).toEqual([]);
      const bytes = statementsIn(1).reduce((sum, statement) => sum + statement.bytes.length, 0);
      expect(await Promise.all([0, 1, 2, 3].map((epoch) => store.statementBytes(epoch)))).toEqual([
        statementsIn(0).reduce((sum, statement) => sum + statement.bytes.length, 0),
        bytes,
        0,
        0,
      ]);
      expect(texts(await store.statementsOf(customerOf(2), 0, 9, 10))).toEqual(
        texts([statementsIn(0)[2]!, statementsIn(1)[2]!]),
      );
      await store.commit({ sealed: [sealed(2)] });
      await reopen();
      expect(await store.statementsOf(customerOf(2), 1, 9, 10)).toHaveLength(2);
      expect(await store.sealedEpoch(2)).toEqual(sealed(2));
      expect(await store.sealedRange(1, 1)).toEqual([sealed(1)]);
      expect((await store.load()).sealed.map(({ epoch, treeSize }) => [epoch, treeSize])).toEqual([
        [0, 4],
        [1, 8],
        [2, 12],
      ]);
    });

    it('says how large the statements of an epoch are together, however many', async () => {
      const count = 2 * STATEMENTS_PAGE_MAX;
      const statements = Array.from({ length: count + 1 }, (_, i) => ({
        ...statementsIn(0)[0]!,
        leafIndex: 1 + i,
        bytes: statementOf(customerOf(i), 0, 0),
        customer: customerOf(i),
      }));
      const sizeOf = (rows: readonly StatementRow[]) => rows.reduce((sum, { bytes }) => sum + bytes.length, 0);
      await store.commit({ sealed: [{ ...sealed(0), treeSize: 1 + count }], statements });
      expect(await store.statementBytes(0)).toBe(sizeOf(statements.slice(0, count)));
      await store.commit({ sealed: [{ ...sealed(0), treeSize: 2 + count }] });
      expect(await store.statementBytes(0)).toBe(sizeOf(statements));
    });

    it('shows statements by leaf across epochs, up to the last that is sealed', async () => {
      await store.commit({ sealed: [sealed(0), sealed(1)], statements: [0, 1, 2].flatMap(statementsIn) });
      const all = [0, 1].flatMap(statementsIn);
      expect(texts(await store.statementsFrom(0, 100, 10))).toEqual(texts(all));
      expect(texts(await store.statementsFrom(2, 6, 10))).toEqual(texts(all.slice(1, 4)));
      expect(texts(await store.statementsFrom(2, 100, 3))).toEqual(texts(all.slice(1, 4)));
      await expect(store.statementsFrom(0, 1, 1_001)).rejects.toThrow('a page of 1 to 1000');
    });

    it('adds up months, up to 2^53 − 1, and drops old ones some at a time', async () => {
      const rows = (month: string, count: number) =>
        Array.from({ length: count }, (_, n) => ({ month, customer: customerOf(n), usage: usageOf(n) }));
      const read = async (month: string) => {
        const chunks: MonthRow[] = [];
        await store.loadMonth(month, (chunk) => chunks.push(...chunk));
        return new Map(chunks.map((row) => [row.customer, row.usage]));
      };
      await store.commit({ months: rows('2026-10', 1_500) });
      await store.commit({ months: rows('2026-11', 12_345) });
      await store.commit({ months: rows('2026-11', 2) });
      await reopen();
      const november = await read('2026-11');
      expect(november.size).toBe(12_345);
      expect(november.get(customerOf(1))).toEqual({
        ...addUsage(usageOf(1), { ...usageOf(1), pixelsIn: 0 }),
        pixelsIn: 2 ** 53 - 1,
      });
      expect(november.get(customerOf(2))).toEqual(usageOf(2));
      expect((await read('2026-10')).size).toBe(1_500);
      await store.commit({ dropMonthsBefore: '2026-11' });
      expect((await read('2026-10')).size).toBe(500);
      await store.commit({ dropMonthsBefore: '2026-11', months: rows('2026-12', 1) });
      expect((await read('2026-10')).size).toBe(0);
      expect((await read('2026-11')).size).toBe(12_345);
    });

    it('replaces a partial tile by a fuller one', async () => {
      await store.commit({ tiles: [{ level: 0, index: 3, hashes: new Uint8Array(32) }] });
      await store.commit({ tiles: [{ level: 0, index: 3, hashes: new Uint8Array(64).fill(1) }] });
      expect(await store.tile(0, 3)).toEqual(new Uint8Array(64).fill(1));
    });

    it('keeps the result under an idempotency key until it expires', async () => {
      const row = { customer: customerOf(1), key: 'k', requestHash: 'h', result: '{}', expiresMs: 100, repeats: 0 };
      await store.commit({ idempotency: [row, { ...row, key: 'later', expiresMs: 200 }] });
      await store.commit({ idempotency: [{ ...row, repeats: 1 }] });
      expect(await store.idempotency(row.customer, 'k', 99)).toEqual({ ...row, repeats: 1 });
      expect(await store.idempotency(row.customer, 'k', 100)).toBeNull();
      expect(await store.idempotency(customerOf(2), 'k', 99)).toBeNull();
      await store.commit({ dropIdempotencyBeforeMs: 150 });
      expect(await store.idempotency(row.customer, 'k', 0)).toBeNull();
      expect(await store.idempotency(row.customer, 'later', 0)).not.toBeNull();
    });

    it('carries a batch out as a whole or not at all, and goes on after a mistake in one', async () => {
      const bad = { ...recordOf(2), status: 'fine' as unknown as number };
      const batch: Batch = { meta: [['a', '1']], records: [recordOf(1), bad] };
      await expect(store.commit(batch)).rejects.toMatchObject({ code: 'INTERNAL' });
      expect((await store.load()).meta).toEqual(new Map());
      expect(await store.records({ ...everything, limit: 10 })).toEqual([]);
      await store.commit({ records: [recordOf(3)] });
      expect(withoutSeq(await store.records({ ...everything, limit: 10 }))).toEqual([recordOf(3)]);
    });

    it('carries commits out in their order, and a read sees those that have resolved', async () => {
      const commits = Array.from({ length: 50 }, (_, n) => store.commit({ meta: [['last', String(n)]] }));
      await commits[20];
      expect(Number((await store.load()).meta.get('last'))).toBeGreaterThanOrEqual(20);
      await Promise.all(commits);
      expect((await store.load()).meta.get('last')).toBe('49');
    });

    it('commits however many reads wait', async () => {
      const reads = Array.from({ length: 5_000 }, () => store.sealedRange(0, 1_000).catch((error: unknown) => error));
      await store.commit({ meta: [['a', '1']] });
      const busy = (await Promise.all(reads)).filter((outcome) => outcome instanceof WaggleError);
      expect(busy.every(({ code }) => code === 'STORE_BUSY')).toBe(true);
      expect((await store.load()).meta.get('a')).toBe('1');
    });

    it('refuses more waiting calls than its queue is long, and pages longer than allowed', async () => {
      const outcomes = await Promise.allSettled(Array.from({ length: 2_000 }, () => store.tile(0, 0)));
      const refused = outcomes.filter(({ status }) => status === 'rejected');
      expect(refused.length).toBeGreaterThan(0);
      expect(refused.length).toBeLessThan(2_000);
      for (const one of refused) expect((one as PromiseRejectedResult).reason).toMatchObject({ code: 'STORE_BUSY' });
      await expect(store.records({ ...everything, limit: 1_001 })).rejects.toThrow('a page of 1 to 1000');
      await expect(store.leaves(0, 257)).rejects.toThrow('at most 256 leaves');
    });

    it('closes however many calls are waiting', async () => {
      const calls = Promise.allSettled(Array.from({ length: 2_000 }, () => store.tile(0, 0)));
      await store.close();
      await calls;
      store = await medium.open();
      expect(await store.tile(0, 0)).toBeNull();
    });

    it('refuses calls once it is closed, after carrying out those before', async () => {
      const last = store.commit({ meta: [['a', '1']] });
      const closed = store.close();
      await expect(store.load()).rejects.toMatchObject({ code: 'STORE_FAILED' });
      await last;
      await closed;
      store = await medium.open();
      expect((await store.load()).meta.get('a')).toBe('1');
    });
  });
}
