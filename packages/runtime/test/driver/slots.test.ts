import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  base64,
  compareText,
  HybridClock,
  seededRandom,
  utf8,
  type Digest,
  type Epoch,
  type ReplicaId,
  type Run,
} from '@waggle/protocol/base';
import { ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { clusterOf, parseHeader, type Genesis } from '@waggle/protocol/sealing';
import { createNodeKeys, Driver, nodeCrypto, openStore, readBundle, type Store } from '../../src/index.ts';
import { slotsOf, sweepSlots } from '../../src/retention.ts';
import { memberKey } from '../../src/transport/index.ts';
import { ManualClock, metering, START_MS, temporaryDirectories } from '../support.ts';
import { MemoryNetwork } from '../transport/memory.ts';

const EPOCH_MS = 5_000;
const STEP_MS = 100;
const DAY_MS = 86_400_000;
const temporary = temporaryDirectories();

interface Running {
  readonly driver: Driver;
  readonly store: Store;
}

describe('the slots that three drivers pin', () => {
  let clock: ManualClock;
  let nodes: Running[];

  beforeEach(async () => {
    clock = new ManualClock();
    const random = seededRandom(7);
    const network = new MemoryNetwork({ clock, random });
    const members = [1, 2, 3].map((i) => {
      const directory = temporary();
      const keys = createNodeKeys(directory, seededRandom(i));
      const replica = String(i).repeat(32) as ReplicaId;
      return { i, directory, keys, replica, address: { host: '10.0.0.1', port: 7_000 + i } };
    });
    const genesis: Genesis = {
      format: 1,
      name: 'test.example',
      operatorKey: base64.encode(members[0]!.keys.log.publicKey),
      startMs: START_MS,
      epochMs: EPOCH_MS,
      sealGraceMs: 60_000,
      roster: members
        .map(({ keys, replica }) => ({
          replica,
          transportKey: base64.encode(keys.transport.publicKey),
          logKey: base64.encode(keys.log.publicKey),
          cosignerKey: base64.encode(keys.cosigner.publicKey),
        }))
        .sort((a, b) => compareText(a.replica, b.replica)),
    };
    const cluster = clusterOf(genesis, nodeCrypto);
    const hints = new Map(members.map(({ keys, address }) => [memberKey(keys.transport.publicKey), [address]]));
    nodes = [];
    for (const { i, directory, keys, replica, address } of members) {
      const store = await openStore({ directory });
      const driver = await Driver.start({
        store,
        loaded: await store.load(),
        standing: { cluster, replica, run: 1 as Run, keys, founded: false, firstEpoch: 0, facts: [], hints },
        clock,
        hlc: new HybridClock(),
        random: seededRandom(i),
        onControl: () => undefined,
        onFatal: (error) => {
          throw error;
        },
      });
      const seed = keys.transportSeed;
      driver.attach(network.open({ seed, cluster: cluster.id, address, handlers: driver.transportHandlers }));
      nodes.push({ driver, store });
    }
  });
  afterEach(async () => {
    for (const { driver, store } of nodes) {
      await driver.close();
      await store.close();
    }
  });

  /** Time passes, slower than the disks. */
  async function step(): Promise<void> {
    clock.walk(STEP_MS);
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.all(nodes.map(({ store }) => store.commit({})));
  }

  /** All three meter at every moment until all have sealed an epoch. */
  async function busyUntil(epoch: Epoch): Promise<void> {
    for (let i = 0; nodes.some(({ driver }) => driver.sealingEpoch <= epoch); i++) {
      for (const { driver } of nodes) await driver.meter(metering(one(i)));
      await step();
    }
  }

  const one = (cpuMicros: number): Usage => ({ ...ZERO_USAGE, requests: 1, cpuMicros });

  /** The contents that were pinned last for an epoch before this one, but for those that are named. */
  async function unnamed(store: Store, before: Epoch, named: ReadonlySet<Digest>): Promise<Digest[]> {
    const all = await store.contentDigests(null, 10_000);
    return all.filter(({ digest, epoch }) => epoch < before && !named.has(digest)).map(({ digest }) => digest);
  }

  /**
   * What names contents: all headers their lists, seals from this epoch on their slots, and the chain; and what goes with the
   * registers of the last sealed epochs.
   */
  async function namedBy({ driver, store }: Running, from: Epoch): Promise<Set<Digest>> {
    const rows = await store.sealedRange(0, 100);
    const lists = rows.flatMap(({ header }) => {
      const { slots, facts, roster } = parseHeader(utf8(header));
      return [slots.digest, facts, roster];
    });
    const slots = await Promise.all(rows.filter(({ epoch }) => epoch >= from).map((row) => slotsOf(store, row)));
    const { meta } = await store.load();
    const releases = JSON.parse(meta.get('releases')!) as [Epoch, Digest[]][];
    return new Set([
      ...lists,
      ...slots.flat(),
      ...driver.counted.values(),
      ...releases.flatMap(([, digests]) => digests),
    ]);
  }

  it('are gone after the retention, but for those that are named', async () => {
    await busyUntil(11);
    for (const running of nodes) {
      const { driver, store } = running;
      const { cluster } = driver.standing;
      const end = driver.sealingEpoch - 2;
      // Each close reported the slots of both others as they stood then; all three closes came, and speak for themselves.
      const spare = await unnamed(store, end, await namedBy(running, 0));
      expect(spare.length).toBeGreaterThanOrEqual(end);
      const { from } = await sweepSlots(0, START_MS + end * EPOCH_MS + DAY_MS, {
        store,
        genesis: cluster.genesis,
        slotRetentionMs: DAY_MS,
        sealingEpoch: () => driver.sealingEpoch,
        counted: () => driver.counted,
        drop: (digests, before) => store.commit({ expireContents: digests.map((digest) => ({ digest, before })) }),
      });
      expect(from).toBe(end);
      expect(await unnamed(store, end, await namedBy(running, end))).toEqual([]);
      for (let epoch = end; epoch < driver.sealingEpoch; epoch++)
        await readBundle(store, cluster, epoch, driver.openEpoch);
    }
    await busyUntil(12);
  });
});
