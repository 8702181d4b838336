import { expect } from 'vitest';
import { base64, digestOf, hex, present, seededRandom, utf8 } from '../../src/base/index.ts';
import type { CustomerId, Digest, Epoch, Random, ReplicaId, Run, Signer } from '../../src/base/index.ts';
import { addUsage, DIMENSIONS, ZERO_USAGE, type Usage } from '../../src/lattice/index.ts';
import {
  chainStart,
  clusterOf,
  compute,
  epochBounds,
  REGISTERS_KEPT_EPOCHS,
  Sealing,
} from '../../src/sealing/index.ts';
import type {
  ChainState,
  Cluster,
  HeldSlot,
  SealedEpoch,
  SealingEffect,
  SealingInput,
} from '../../src/sealing/index.ts';
import { EMPTY_EDGE, type TileEdge } from '../../src/transparency/index.ts';
import { covers, joinSlots, slotName, sortRows, type Slot, type SlotId } from '../../src/usage/index.ts';
import { nodeCrypto, slotsIn, statementsIn, testSigner } from '../support.ts';

export const EPOCH_MS = 10_000;
const START_MS = 1_700_000_000_000;

/** A usage of that many requests, each dimension a different figure. */
export const usageOf = (requests: number): Usage =>
  Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, requests * dimension.length])) as unknown as Usage;

/** A sealed epoch with what stood before it: all that a bundle is made of. */
export interface SealedRecord {
  readonly sealed: SealedEpoch;
  readonly chain: ChainState;
  readonly edge: TileEdge;
}

/** What of a node survives a crash. */
interface Disk {
  run: number;
  /** Own control registers, with the version of each. */
  readonly control: Map<string, { readonly version: number; readonly value: string }>;
  version: number;
  readonly contents: Map<Digest, Uint8Array>;
  readonly sealed: SealedRecord[];
  chain: ChainState;
  edge: TileEdge;
  /** Registers of usage, by slot. */
  readonly slots: Map<string, { id: SlotId; rows: Slot }>;
}

type Parcel =
  | {
      readonly to: number;
      readonly type: 'register';
      readonly from: number;
      readonly key: string;
      readonly version: number;
      readonly value: string;
    }
  | { readonly to: number; readonly type: 'want'; readonly digest: Digest }
  | { readonly to: number; readonly type: 'computed'; readonly run: Run; readonly input: SealingInput }
  | { readonly to: number; readonly type: 'slot'; readonly id: SlotId; readonly rows: Slot };

/** One member: a disk, and a process that can be killed between any two effects. */
export class Node {
  readonly #cluster: TestCluster;
  readonly index: number;
  readonly replica: ReplicaId;
  readonly disk: Disk;
  sealing!: Sealing;
  /** Effects not carried out yet. */
  effects: SealingEffect[] = [];
  /** Per register of another, the version that was last shown to the core. */
  #seen = new Map<string, number>();
  /** Registers as others may have seen them: nothing durable may ever say otherwise. */
  readonly shown = new Map<string, string>();

  constructor(cluster: TestCluster, index: number, replica: ReplicaId) {
    this.#cluster = cluster;
    this.index = index;
    this.replica = replica;
    this.disk = {
      run: 0,
      control: new Map(),
      version: 0,
      contents: new Map(),
      sealed: [],
      chain: chainStart(cluster.cluster),
      edge: EMPTY_EDGE,
      slots: new Map(),
    };
    this.start();
  }

  get run(): Run {
    return this.disk.run as Run;
  }

  /** A new process over the same disk: all that was only in memory is gone, and the run is another. */
  start(): void {
    const { cluster, random, nowMs } = this.#cluster;
    const { disk } = this;
    disk.run++;
    this.effects = [];
    this.#seen = new Map();
    this.sealing = new Sealing({
      cluster,
      replica: this.replica,
      run: this.run,
      crypto: nodeCrypto,
      random,
      logSigner: logSigner(this.index),
      cosigner: cosigner(this.index),
      slotsUpTo: (epoch) => this.#slotsUpTo(epoch),
      facts: () => ({ bytes: new Uint8Array(0), digest: digestOf(nodeCrypto, new Uint8Array(0)) }),
      nextRoster: (roster) => roster,
      provenFacts: (content) => content,
      chain: disk.chain,
      edge: disk.edge,
      firstEpoch: disk.chain.epoch,
      inlineBytes: this.#cluster.inlineBytes,
    });
    for (const bytes of disk.contents.values())
      this.effects.push(...this.sealing.handle({ type: 'content', bytes }, nowMs));
    const isClose = ([key]: [string, unknown]): number => Number(key.startsWith('close/'));
    for (const [key, { value }] of [...disk.control].sort((a, b) => isClose(a) - isClose(b)))
      this.effects.push(...this.sealing.handle({ type: 'register', replica: this.replica, key, value }, nowMs));
    for (const { sealed } of disk.sealed.slice(-REGISTERS_KEPT_EPOCHS)) {
      const { roster, value, checkpoint } = sealed;
      this.handle({ type: 'past', roster, header: value.header, checkpoint });
    }
    this.#cluster.introduce(this);
  }

  handle(input: SealingInput): void {
    this.effects.push(...this.sealing.handle(input, this.#cluster.nowMs));
  }

  /** Whether anything is left to be carried out. */
  get isBusy(): boolean {
    return this.effects.length > 0;
  }

  /** Carries out the first so many effects (all, if not said) as one transaction; what is durable is then shown. */
  commit(count = this.effects.length): void {
    const durable = this.effects.splice(0, count);
    const written: string[] = [];
    for (const effect of durable) {
      if (effect.type === 'content') this.disk.contents.set(effect.digest, effect.bytes);
      else if (effect.type === 'want') this.#cluster.send({ to: this.index, type: 'want', digest: effect.digest });
      else if (effect.type === 'compute') {
        const input = { type: 'computed', name: effect.name, result: compute(effect.job, nodeCrypto) } as const;
        this.#cluster.send({ to: this.index, type: 'computed', run: this.run, input });
      } else if (effect.type === 'write') {
        this.disk.control.set(effect.key, { version: ++this.disk.version, value: effect.value });
        written.push(effect.key);
      } else if (effect.type === 'sealed') this.#seal(effect.sealed);
      else if (effect.type === 'improved') {
        const record = present(this.disk.sealed[effect.epoch], `epoch ${effect.epoch}`);
        this.disk.sealed[effect.epoch] = { ...record, sealed: { ...record.sealed, checkpoint: effect.checkpoint } };
      }
    }
    for (const key of written) this.#show(key);
  }

  #show(key: string): void {
    const { version, value } = present(this.disk.control.get(key), key);
    // Invariants 1 and 5: a close and a cosignature are written once, ever.
    if (!key.startsWith('ballot/')) expect(this.shown.get(key) ?? value).toBe(value);
    this.shown.set(key, value);
    this.#cluster.broadcast(this.index, key, version, value);
    this.handle({ type: 'register', replica: this.replica, key, value });
  }

  #seal(sealed: SealedEpoch): void {
    const { disk } = this;
    expect(sealed.epoch).toBe(disk.sealed.length);
    disk.sealed.push({ sealed, chain: disk.chain, edge: disk.edge });
    disk.chain = sealed.outcome.next;
    disk.edge = sealed.edge;
    // With others, a member that is behind may still want them.
    if (this.#cluster.nodes.length === 1) for (const digest of sealed.release) disk.contents.delete(digest);
    for (const { id, content } of slotsIn(sealed)) {
      const held = disk.slots.get(slotName(id));
      // An open slot is still to grow, from where it stands.
      const isOpen = id.replica === this.replica && id.run === disk.run && id.epoch >= this.sealing.openEpoch;
      if (held !== undefined && !isOpen && covers(content, held.rows)) disk.slots.delete(slotName(id));
    }
  }

  #slotsUpTo(epoch: Epoch): HeldSlot[] {
    return [...this.disk.slots.values()].filter(({ id }) => id.epoch <= epoch);
  }

  /** Joins rows into a slot's registers: durable at once. */
  hold(id: SlotId, rows: Slot): void {
    const name = slotName(id);
    this.disk.slots.set(name, { id, rows: joinSlots(this.disk.slots.get(name)?.rows ?? [], rows) });
  }

  receive(parcel: Parcel): void {
    if (parcel.type === 'register') {
      const name = `${parcel.from} ${parcel.key}`;
      if ((this.#seen.get(name) ?? 0) >= parcel.version) return;
      this.#seen.set(name, parcel.version);
      const replica = this.#cluster.nodes[parcel.from]!.replica;
      this.handle({ type: 'register', replica, key: parcel.key, value: parcel.value });
    } else if (parcel.type === 'slot') this.hold(parcel.id, parcel.rows);
    else if (parcel.type === 'computed') {
      if (parcel.run === this.run) this.handle(parcel.input);
    } else {
      const bytes = this.#cluster.content(parcel.digest, this);
      if (bytes === undefined) this.#cluster.send(parcel);
      else this.handle({ type: 'content', bytes });
    }
  }
}

const logSigner = (index: number): Signer => testSigner(`log ${index}`);
const cosigner = (index: number): Signer => testSigner(`cosigner ${index}`);

const keyOf = (signer: Signer): string => base64.encode(signer.publicKey);
const replicaOf = (index: number): ReplicaId =>
  hex.encode(nodeCrypto.sha256(utf8(`replica ${index}`)).subarray(0, 16)) as ReplicaId;

export interface TestClusterOptions {
  readonly members: number;
  readonly seed?: number;
  /** Of all members that the genesis names, the ones that never come up. */
  readonly absent?: readonly number[];
  /** Work that reads more bytes than that takes a while. */
  readonly inlineBytes?: number | undefined;
}

/**
 * A cluster in memory with a network that delays, reorders and repeats, a clock that is told the time, and nodes that can be
 * killed: one seed, one run.
 */
export class TestCluster {
  readonly random: Random;
  readonly inlineBytes: number | undefined;
  readonly cluster: Cluster;
  readonly nodes: Node[] = [];
  nowMs = START_MS;
  #parcels: Parcel[] = [];
  readonly #absent: ReadonlySet<number>;
  /** All usage that was put in. */
  acknowledged: Usage = ZERO_USAGE;

  constructor({ members, seed = 1, absent = [], inlineBytes }: TestClusterOptions) {
    this.inlineBytes = inlineBytes;
    this.random = seededRandom(seed);
    this.#absent = new Set(absent);
    const roster = Array.from({ length: members }, (_, index) => ({
      replica: replicaOf(index),
      transportKey: keyOf(testSigner(`transport ${index}`)),
      logKey: keyOf(logSigner(index)),
      cosignerKey: keyOf(cosigner(index)),
    })).sort((a, b) => (a.replica < b.replica ? -1 : 1));
    const genesis = {
      format: 1 as const,
      name: 'waggle.example',
      operatorKey: keyOf(testSigner('operator')),
      startMs: START_MS,
      epochMs: EPOCH_MS,
      sealGraceMs: 1_000,
      roster,
    };
    this.cluster = clusterOf(genesis, nodeCrypto);
    for (let index = 0; index < members; index++) this.nodes.push(new Node(this, index, replicaOf(index)));
  }

  get live(): Node[] {
    return this.nodes.filter(({ index }) => !this.#absent.has(index));
  }

  /** One node's piece of work: metered, durable, and shown to the others some time. */
  meter(node: Node, customer: string, requests: number, sku = 'resize.jpeg'): void {
    const id: SlotId = { replica: node.replica, run: node.run, epoch: node.sealing.openEpoch };
    const held = node.disk.slots.get(slotName(id))?.rows ?? [];
    const before = held.find((row) => row.customer === customer && row.sku === sku)?.usage ?? ZERO_USAGE;
    const row = { customer: customer as CustomerId, sku, usage: addUsage(before, usageOf(requests)) };
    node.hold(id, [row]);
    this.acknowledged = addUsage(this.acknowledged, usageOf(requests));
    for (const other of this.live)
      if (other !== node) this.send({ to: other.index, type: 'slot', id, rows: sortRows([row]) });
  }

  send(parcel: Parcel): void {
    if (!this.#absent.has(parcel.to)) this.#parcels.push(parcel);
  }

  broadcast(from: number, key: string, version: number, value: string): void {
    if (this.#absent.has(from)) return;
    for (const { index } of this.nodes)
      if (index !== from)
        for (let copies = 1 + this.random.below(2); copies > 0; copies--)
          this.send({ to: index, type: 'register', from, key, version, value });
  }

  /** What anti-entropy does for a node that has just started: it gets what the others have, and the contents it pinned. */
  introduce(node: Node): void {
    for (const other of this.nodes) {
      if (other === node) continue;
      for (const [key, { version, value }] of other.disk.control)
        this.send({ to: node.index, type: 'register', from: other.index, key, version, value });
    }
  }

  /** A content from the asking node's disk, or from anyone's. */
  content(digest: Digest, asking: Node): Uint8Array | undefined {
    return [asking, ...this.live].map((node) => node.disk.contents.get(digest)).find((bytes) => bytes !== undefined);
  }

  tick(node: Node): void {
    node.handle({ type: 'tick', membersClockMs: null });
  }

  /** The time at which an epoch is over. */
  toEndOf(epoch: Epoch): void {
    this.nowMs = epochBounds(this.cluster.genesis, epoch).endMs;
  }

  /** Does one thing at random, or nothing if there is nothing to do. */
  step(): boolean {
    const busy = this.live.filter((node) => node.isBusy);
    const choices = busy.length + this.#parcels.length;
    if (choices === 0) return false;
    const choice = this.random.below(choices);
    if (choice < busy.length) busy[choice]!.commit();
    else {
      const [parcel] = this.#parcels.splice(choice - busy.length, 1);
      this.nodes[parcel!.to]!.receive(parcel!);
    }
    return true;
  }

  /** Until nothing is left to do: a want that nobody can serve counts as done. */
  settle(each: () => void = () => {}): void {
    const hasWork = (): boolean =>
      this.live.some((node) => node.isBusy) ||
      this.#parcels.some(
        (parcel) => parcel.type !== 'want' || this.content(parcel.digest, this.nodes[parcel.to]!) !== undefined,
      );
    for (let steps = 0; hasWork(); steps++) {
      expect(steps).toBeLessThan(1_000_000);
      this.step();
      each();
    }
  }

  /** Lets epochs up to this one end, one after the other, and seals them. */
  sealUpTo(epoch: Epoch): void {
    for (let e = Math.min(...this.live.map((node) => node.sealing.openEpoch)); e <= epoch; e++) {
      this.toEndOf(e);
      for (let rounds = 0; rounds === 0 || this.live.some((node) => node.disk.chain.epoch <= e); rounds++) {
        expect(rounds, `epoch ${e} is sealed`).toBeLessThan(200);
        for (const node of this.live) this.tick(node);
        this.settle();
        this.nowMs += 100;
      }
    }
  }
}

/** What the statements of sealed epochs say, all together. */
export function statementTotal(records: readonly SealedRecord[]): Usage {
  const usages = records
    .flatMap(({ sealed }) => statementsIn(sealed))
    .flatMap(({ text }) => Object.values((JSON.parse(text) as { usage: Record<string, Usage> }).usage));
  return usages.reduce(addUsage, ZERO_USAGE);
}
