import { digestOf, fromUtf8, type CustomerId, type Digest, type Epoch, type ReplicaId } from '../../src/base/index.ts';
import type { Batch, ControlRow, Loaded, ShownEpoch, UsageRegisterRow } from '../../src/member/index.ts';
import {
  chainStart,
  REGISTERS_KEPT_EPOCHS,
  unpackStatements,
  type ChainState,
  type Cluster,
  type SealedEpoch,
} from '../../src/sealing/index.ts';
import { EMPTY_EDGE, encodeStatements, type TileEdge } from '../../src/transparency/index.ts';
import { slotName } from '../../src/usage/index.ts';
import { nodeCrypto } from '../support.ts';

/** A sealed epoch with what stood before it: all that a bundle is made of. */
export interface SealedRecord {
  sealed: SealedEpoch;
  readonly chain: ChainState;
  readonly edge: TileEdge;
}

interface Kept<T> {
  readonly epoch: Epoch;
  readonly value: T;
}

/** What a store does with batches, in memory: one is on it whole or not at all. */
export class MemoryDisk {
  readonly control = new Map<string, ControlRow>();
  readonly usage = new Map<string, UsageRegisterRow>();
  readonly vectors = new Map<string, { readonly class: 'control' | 'usage'; readonly writer: string; upTo: number }>();
  readonly contents = new Map<Digest, Kept<Uint8Array>>();
  readonly meta = new Map<string, string>();
  /** By ticket, the epoch that a metering counts in. */
  readonly metered = new Map<number, Epoch>();
  readonly seals: SealedRecord[] = [];
  chain: ChainState;
  edge: TileEdge = EMPTY_EDGE;
  run = 0;
  /** How the statements are shown of epochs whose slots were swept; null if they are not. */
  told: 'right' | 'wrong' | null = 'right';
  readonly firstEpoch: Epoch | undefined;
  readonly statements = new Map<Digest, Uint8Array>();

  /** `firstEpoch`: that of a newcomer. */
  constructor(cluster: Cluster, firstEpoch?: Epoch) {
    this.firstEpoch = firstEpoch;
    this.chain = chainStart(cluster);
  }

  /** Drops first, then writes; registers only when their version is higher. */
  apply(batch: Batch): void {
    for (const { replica, key } of batch.dropControl) this.control.delete(`${replica}/${key}`);
    const gone = new Set(batch.dropUsage.map(slotName));
    if (gone.size > 0) for (const [key, row] of this.usage) if (gone.has(slotName(row))) this.usage.delete(key);
    for (const { class: name, writer } of batch.dropVectors) this.vectors.delete(`${name}/${writer}`);
    for (const digest of batch.dropContents) this.contents.delete(digest);
    for (const [name, value] of batch.meta) this.meta.set(name, value);
    for (const row of batch.control) replace(this.control, `${row.replica}/${row.key}`, row);
    for (const row of batch.usage) replace(this.usage, `${slotName(row)}/${row.customer}/${row.sku}`, row);
    for (const { class: name, writer, upTo } of batch.vectors)
      this.vectors.set(`${name}/${writer}`, { class: name, writer, upTo });
    for (const { digest, epoch, bytes } of batch.contents)
      this.contents.set(digest, { epoch: Math.max(epoch, this.contents.get(digest)?.epoch ?? 0), value: bytes });
    for (const ticket of batch.metered.tickets) this.metered.set(ticket, batch.metered.epoch);
    for (const { epoch, checkpoint } of batch.checkpoints) {
      const record = this.seals.find(({ sealed }) => sealed.epoch === epoch);
      if (record !== undefined) record.sealed = { ...record.sealed, checkpoint };
    }
    if (batch.seal === null) return;
    const { sealed } = batch.seal;
    this.seals.push({ sealed, chain: this.chain, edge: this.edge });
    this.chain = sealed.outcome.next;
    this.edge = sealed.edge;
  }

  /** As a node starts from it. */
  load(): Loaded {
    return {
      control: [...this.control.values()],
      usage: [...this.usage.values()],
      vectors: [...this.vectors.values()],
      meta: new Map(this.meta),
      chain: this.chain,
      edge: this.edge,
      past: this.seals
        .slice(-REGISTERS_KEPT_EPOCHS)
        .map(({ sealed: { roster, value, checkpoint } }) => ({ roster, header: value.header, checkpoint })),
      lacking: [...this.chain.counted.values()].filter((digest) => !this.contents.has(digest)),
      ...(this.firstEpoch === undefined ? {} : { firstEpoch: this.firstEpoch }),
      pinned: [...this.contents.values()].filter(({ epoch }) => epoch >= this.chain.epoch).map(({ value }) => value),
    };
  }

  /** Another one that holds the same. */
  copy(): MemoryDisk {
    return Object.assign(Object.create(MemoryDisk.prototype) as MemoryDisk, structuredClone({ ...this }));
  }

  /** Sealed epochs from one on, as they are shown to others. */
  sealedFrom(from: Epoch): ShownEpoch[] {
    return this.seals
      .filter(({ sealed }) => sealed.epoch >= from)
      .slice(0, 32)
      .map(({ sealed }) => ({
        epoch: sealed.epoch,
        header: sealed.value.header,
        checkpoint: sealed.checkpoint,
        ...(this.told !== null && this.#isSwept(sealed) ? { statements: this.#show(sealed) } : {}),
      }));
  }

  /** Drops the slots of epochs before this one that nothing else names, as a node does when their time is over. */
  sweep(before: Epoch): void {
    const kept = new Set(this.chain.counted.values());
    for (const { sealed, chain } of this.seals)
      if (sealed.epoch >= before) for (const digest of slotsOf(sealed, chain)) kept.add(digest);
    for (const { sealed } of this.seals)
      for (const { digest } of sealed.value.slotList) if (!kept.has(digest)) this.contents.delete(digest);
  }

  #isSwept({ value }: SealedEpoch): boolean {
    return value.slotList.some(({ digest }) => !this.contents.has(digest));
  }

  #show({ outcome }: SealedEpoch): Digest {
    const texts = unpackStatements(outcome.statements).map(({ bytes }) => fromUtf8(bytes));
    if (this.told === 'wrong') texts[0] = texts[0]!.replace('"requests":', '"requests":1');
    const bytes = encodeStatements(texts);
    const digest = digestOf(nodeCrypto, bytes);
    this.statements.set(digest, bytes);
    return digest;
  }

  content(digest: Digest): Uint8Array | null {
    return this.contents.get(digest)?.value ?? this.statements.get(digest) ?? null;
  }

  /** Requests of a customer that stand in the usage rows of the disk, sealed ones left out. */
  requests(customer: string): number {
    return [...this.usage.values()]
      .filter((row) => row.customer === (customer as CustomerId))
      .reduce((sum, { usage }) => sum + usage.requests, 0);
  }

  /** The control registers of a replica, by key. */
  registersOf(replica: ReplicaId): Map<string, ControlRow> {
    return new Map([...this.control.values()].filter((row) => row.replica === replica).map((row) => [row.key, row]));
  }
}

/** What a seal counted, and had counted before. */
const slotsOf = ({ value }: SealedEpoch, { counted }: ChainState): Digest[] =>
  value.slotList.flatMap((entry) => [entry.digest, counted.get(slotName(entry)) ?? entry.digest]);

function replace<T extends { readonly version: number }>(rows: Map<string, T>, key: string, row: T): void {
  const held = rows.get(key);
  if (held === undefined || held.version < row.version) rows.set(key, row);
}
