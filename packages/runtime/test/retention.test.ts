import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { collectBundle, verifyBundle, type Verified } from '@waggle/protocol/audit';
import { digestOf, utf8, WaggleError, type CustomerId, type Digest, type Epoch } from '@waggle/protocol/base';
import { ZERO_USAGE } from '@waggle/protocol/lattice';
import { encodeSlot, slotName } from '@waggle/protocol/usage';
import { eventfulCluster } from '../../protocol/test/audit/support.ts';
import {
  bundleFiles,
  nodeCrypto,
  openStore,
  outlineFiles,
  readBundle,
  readEpoch,
  readSlot,
  readSlotList,
  sealedRows,
  statementRows,
  streamStatements,
  type Store,
} from '../src/index.ts';
import { Shown } from '../src/driver/shown.ts';
import { EPOCHS_PER_SWEEP_MAX, sweepSlots, type RetentionOptions } from '../src/retention.ts';
import { temporaryDirectories } from './support.ts';

const temporary = temporaryDirectories();
/** A life with a slot that is written off in epoch 0 and of which epoch 2 counts more: its bundle has both. */
const cluster = eventfulCluster({ members: 3 });
const { disk } = cluster.nodes[0]!;
const { genesis } = cluster.cluster;
const endOf = (epoch: Epoch): number => genesis.startMs + (epoch + 1) * genesis.epochMs;
const DAY_MS = 86_400_000;

let store: Store;
let drops: Digest[][];

/** Writes epochs as a node does: what they pin first, then the seal. */
async function seal(from: Epoch, to: Epoch): Promise<void> {
  for (const { sealed, chain } of disk.sealed.slice(from, to)) {
    const { slotList, slotListBytes, header } = sealed.value;
    const contents = [
      ...slotList.map(({ digest }) => digest),
      ...slotList.flatMap((entry) => chain.counted.get(slotName(entry)) ?? []),
    ].map((digest) => ({ digest, epoch: sealed.epoch, bytes: disk.contents.get(digest)! }));
    const list = (JSON.parse(Buffer.from(header).toString()) as { slots: { digest: Digest } }).slots.digest;
    await store.commit({ contents: [...contents, { digest: list, epoch: sealed.epoch, bytes: slotListBytes }] });
    await store.commit({ statements: statementRows(sealed), ...sealedRows(sealed, chain.counted) });
  }
}

/** Pins a content for an epoch. */
async function pin(bytes: Uint8Array, epoch: Epoch): Promise<Digest> {
  const digest = digestOf(nodeCrypto, bytes);
  await store.commit({ contents: [{ digest, epoch, bytes }] });
  return digest;
}

/** A slot as it stood before it was closed. */
const openSlot = (requests: number): Uint8Array =>
  encodeSlot([{ customer: 'acme' as CustomerId, sku: 'inspect', usage: { ...ZERO_USAGE, requests } }]);

const countedAfter = (epochs: number): ReadonlyMap<string, Digest> =>
  disk.sealed[epochs - 1]!.sealed.outcome.next.counted;

const options = (epochs: number, changes: Partial<RetentionOptions> = {}): RetentionOptions => ({
  store,
  genesis,
  slotRetentionMs: DAY_MS,
  sealingEpoch: () => epochs,
  counted: () => countedAfter(epochs),
  async drop(digests, before) {
    drops.push([...digests]);
    const held = await store.contentDigests(null, 10_000);
    const pinned = new Map(held.map(({ digest, epoch }) => [digest, epoch]));
    await store.commit({ dropContents: digests.filter((digest) => pinned.get(digest)! < before) });
  },
  ...changes,
});

const bundle = (epoch: Epoch) => readBundle(store, cluster.cluster, epoch, 9);
const isWhole = (epoch: Epoch): Promise<boolean> =>
  bundle(epoch).then(
    () => true,
    (error: unknown) => {
      if (error instanceof WaggleError && error.code === 'SLOTS_EXPIRED') return false;
      throw error;
    },
  );
const wholes = (): Promise<boolean[]> => Promise.all([0, 1, 2, 3].map(isWhole));

beforeEach(async () => {
  store = await openStore({ directory: temporary() });
  drops = [];
});
afterEach(() => store.close());

describe('slots of sealed epochs', () => {
  it('go when their time is over, and nothing else does', async () => {
    await seal(0, 4);
    expect(await sweepSlots(0, endOf(0) + DAY_MS - 1, options(4))).toEqual({ from: 0, contents: 0 });
    expect(await wholes()).toEqual([true, true, true, true]);
    const swept = await sweepSlots(0, endOf(3) + DAY_MS, options(4));
    expect(swept).toMatchObject({ from: 4, contents: expect.any(Number) as number });
    expect(swept.contents).toBeGreaterThan(4);
    expect(await wholes()).toEqual([false, true, false, false]);
    // A start begins again with the first epoch, and finds nothing.
    expect(await sweepSlots(0, endOf(3) + DAY_MS, options(4))).toEqual({ from: 4, contents: 0 });
    expect(drops).toHaveLength(1);
    let verified: Verified | null = null;
    for (const epoch of [0, 1, 2, 3]) {
      const outline = await collectBundle(await outlineFiles(store, cluster.cluster, epoch, 9));
      expect([...outline.keys()].some((name) => name.includes('/'))).toBe(false);
      const { row } = await readEpoch(store, epoch, 9);
      const statements: number[] = [];
      for await (const { leafIndex } of streamStatements(store, epoch)) statements.push(leafIndex);
      expect(row.treeSize).toBe(row.firstLeaf + 1 + statements.length);
    }
    // Of epoch 1 all slots are empty: they are kept, since they take no room.
    expect((verified = verifyBundle(await bundle(1), verified, null, nodeCrypto).verified)).toBeDefined();
    const { entries } = await readSlotList(store, (await readEpoch(store, 3, 9)).row);
    const first = entries.find(({ digest }) => drops[0]!.includes(digest));
    await expect(readSlot(store, 3, first!)).rejects.toMatchObject({ code: 'SLOTS_EXPIRED' });
  });

  it('are missed before a bundle is begun, or by the file that is read too late', async () => {
    await seal(0, 4);
    const files = await bundleFiles(store, cluster.cluster, 3, 9);
    await sweepSlots(0, endOf(3) + DAY_MS, options(4));
    await expect(collectBundle(files)).rejects.toMatchObject({ code: 'SLOTS_EXPIRED' });
    const reads = vi.spyOn(store, 'statementBytes');
    await expect(bundleFiles(store, cluster.cluster, 3, 9)).rejects.toMatchObject({ code: 'SLOTS_EXPIRED' });
    expect(reads).not.toHaveBeenCalled();
  });

  it('stay as long as a later epoch within the retention, or the chain, names them', async () => {
    await seal(0, 2);
    // Written off in epoch 0: what was counted of it is needed until more of it is counted, however long that takes.
    const [written] = [...countedAfter(2).values()];
    expect(written).toBeDefined();
    expect((await sweepSlots(0, endOf(1) + DAY_MS, options(2))).from).toBe(2);
    expect(drops.flat()).not.toContain(written);
    expect(await store.content(written!)).not.toBeNull();
    await seal(2, 4);
    // Epoch 2 has counted more of it, and its bundle has both. It is within the retention; 0 and 1 are not.
    expect((await sweepSlots(0, endOf(1) + DAY_MS, options(4))).from).toBe(2);
    expect(await wholes()).toEqual([false, true, true, true]);
    expect(await store.content(written!)).not.toBeNull();
    expect((await sweepSlots(2, endOf(2) + DAY_MS, options(4))).from).toBe(3);
    expect(await store.content(written!)).toBeNull();
    expect(await wholes()).toEqual([false, true, false, true]);
  });

  it('stay when an epoch that names them is sealed meanwhile', async () => {
    await seal(0, 2);
    const [written] = [...countedAfter(2).values()];
    let asked = 0;
    let sealed = 2;
    const sweep = sweepSlots(0, endOf(1) + DAY_MS, {
      ...options(2),
      sealingEpoch: () => (asked++ === 0 ? 2 : sealed),
      counted: () => countedAfter(sealed),
    });
    await seal(2, 3);
    sealed = 3;
    await sweep;
    expect(await store.content(written!)).not.toBeNull();
    expect(await isWhole(2)).toBe(true);
  });

  it('stay when a close that is not sealed yet has pinned the same bytes', async () => {
    await seal(0, 4);
    const { slotList } = disk.sealed[3]!.sealed.value;
    const { digest } = slotList.find((entry) => disk.contents.get(entry.digest)!.length > 0)!;
    // Once more for an earlier epoch: that changes nothing.
    for (const epoch of [4, 0])
      await store.commit({ contents: [{ digest, epoch, bytes: disk.contents.get(digest)! }] });
    await sweepSlots(0, endOf(3) + DAY_MS, options(4));
    expect(drops.flat()).toContain(digest);
    expect(await store.content(digest)).not.toBeNull();
  });

  it('that were pinned and not counted go with the epoch that they were pinned for last, unless anything else names them', async () => {
    const early = await pin(openSlot(11), 0);
    const twice = await pin(openSlot(12), 0);
    await pin(openSlot(12), 1);
    const late = await pin(openSlot(13), 2);
    const facts = await pin(utf8('{"kind":"ban"}\n'), 0);
    const garbled = await pin(utf8('{"bytesIn":1'), 0);
    await seal(0, 2);
    const [written] = [...countedAfter(2).values()];
    // Reported for epoch 0 already, and listed again by a seal within the retention.
    const relisted = disk.sealed[2]!.sealed.value.slotList.map(({ digest }) => disk.contents.get(digest)!);
    const named = await Promise.all(relisted.map((bytes) => pin(bytes, 0)));
    const isHeld = async (...digests: Digest[]): Promise<boolean[]> =>
      (await store.contentSizes(digests)).map((size) => size !== null);
    await sweepSlots(0, endOf(0) + DAY_MS, { ...options(2), counted: () => new Map([['slot', named[0]!]]) });
    expect(await isHeld(early, twice, late, facts, garbled)).toEqual([false, true, true, true, true]);
    expect(await isHeld(named[0]!)).toEqual([true]);
    await seal(2, 4);
    expect((await sweepSlots(0, endOf(1) + DAY_MS, options(4))).from).toBe(2);
    expect(await isHeld(twice, late, facts, written!)).toEqual([false, true, true, true]);
    expect(await wholes()).toEqual([false, true, true, true]);
    await sweepSlots(2, endOf(3) + DAY_MS, options(4));
    expect(await isHeld(late, facts)).toEqual([false, true]);
    const lists = await Promise.all([0, 1, 2, 3].map(async (epoch) => readEpoch(store, epoch, 9)));
    for (const { row } of lists) await readSlotList(store, row);
  });

  it('go again after a crash, a bounded number at a time', async () => {
    await seal(0, 4);
    await expect(
      sweepSlots(0, endOf(3) + DAY_MS, options(4, { drop: () => Promise.reject(new WaggleError('STORE_FULL')) })),
    ).rejects.toMatchObject({ code: 'STORE_FULL' });
    expect(await wholes()).toEqual([true, true, true, true]);
    await sweepSlots(0, endOf(3) + DAY_MS, options(4));
    const after = await wholes();
    expect((await sweepSlots(0, endOf(3) + DAY_MS, options(4))).from).toBe(4);
    expect(await wholes()).toEqual(after);
    const far = await sweepSlots(0, endOf(5_000) + DAY_MS, options(4, { sealingEpoch: () => 5_000 }));
    expect(far.from).toBe(EPOCHS_PER_SWEEP_MAX);
  });
});

describe('sealed epochs for a member that is behind', () => {
  it('come with their statements where slots are not kept any more', async () => {
    await seal(0, 4);
    const shown = new Shown(store);
    for (const { statements } of await shown.read(0)) expect(statements).toBeUndefined();
    await sweepSlots(0, endOf(3) + DAY_MS, options(4));
    const epochs = await shown.read(0);
    expect(epochs.map(({ epoch, statements }) => [epoch, statements !== undefined])).toEqual([
      [0, true],
      // All of its slots are empty, and kept.
      [1, false],
      [2, true],
      [3, true],
    ]);
    for (const { epoch, header, checkpoint, statements } of epochs) {
      const { row } = await readEpoch(store, epoch, 9);
      expect([Buffer.from(header).toString(), checkpoint]).toEqual([row.header, row.checkpoint]);
      if (statements === undefined) continue;
      const lines: string[] = [];
      for await (const { bytes } of streamStatements(store, epoch)) lines.push(`${Buffer.from(bytes).toString()}\n`);
      expect(lines.length).toBeGreaterThan(0);
      expect(Buffer.from(shown.content(statements)!).toString()).toBe(lines.join(''));
    }
    expect((await shown.read(2)).map(({ epoch }) => epoch)).toEqual([2, 3]);
    expect(shown.content('ab'.repeat(32) as Digest)).toBeNull();
  });
});
