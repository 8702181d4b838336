import {
  base64,
  HybridClock,
  seededRandom,
  type CustomerId,
  type Digest,
  type Epoch,
  type Random,
  type Run,
} from '../../packages/protocol/src/base/index.ts';
import { addUsage, equalUsage, ZERO_USAGE, type Usage } from '../../packages/protocol/src/lattice/index.ts';
import { Member, type Batch, type MemberEffect, type MemberInput } from '../../packages/protocol/src/member/index.ts';
import type { MemberKey } from '../../packages/protocol/src/membership/index.ts';
import {
  chainStart,
  clusterOf,
  compute,
  type Cluster,
  type Computed,
  type Job,
} from '../../packages/protocol/src/sealing/index.ts';
import { EMPTY_EDGE } from '../../packages/protocol/src/transparency/index.ts';
import { cheapCrypto, keysOf, replicaOf, sealedUsage, usageOf } from '../../packages/protocol/test/member/harness.ts';
import { Agenda } from './agenda.ts';
import { foundCluster, nameOf } from './cluster.ts';
import { START_MS } from './options.ts';
import { spread, type Spread } from './scale.ts';

const EPOCH_MS = 60_000;
/** Of a member that has not closed its slot, in ms: nothing fails here. */
const GRACE_MS = 30_000;
/** Each customer's requests come to so many nodes. */
const NODES_PER_CUSTOMER = 2;
/** Of rows on their way to a job: what they take in a content, about, and their numbers. */
const ROW_BYTES = 170;
const NUMBERS_PER_ROW = 8;
/** How often a node meters what has come since, in ms. */
const METER_MS = 100;
/** Latency of a packet and of a write to disk, in ms. */
const LATENCY_MS = [1, 5] as const;
const WRITE_MS = [2, 10] as const;
/** An epoch that is not sealed everywhere by then, after its end in ms, never will be. */
const SEAL_MS_MAX = 300_000;

export interface LargeOptions {
  readonly seed: number;
  /** Members, all of them voters. */
  readonly nodes: number;
  readonly customers: number;
  /** To be sealed, all customers in each. */
  readonly epochs: number;
  /**
   * What jobs take; as measured in this run unless said. It has to be measured with few nodes: with many, which share one heap here,
   * a job mostly waits for its garbage collection.
   */
  readonly msPerByte?: Rates;
  /** One is sealed everywhere. */
  readonly onEpoch?: ((epoch: number) => void) | undefined;
}

type Rates = Readonly<Record<Job['kind'], number>>;

export interface LargeResult {
  /** From the end of an epoch until its seal is on the disk of a node: of all nodes and epochs. */
  readonly sealed: Spread & { readonly lastMs: number };
  /** Bytes that a node has sent in an epoch: while it was open, and from its end until it was sealed everywhere. */
  readonly openBytes: number;
  readonly sealingBytes: number;
  /** Bytes of the contents of all slots of an epoch. */
  readonly contentBytes: number;
  /** What a job of a kind takes for each byte that it reads, in ms of processor time: the median. */
  readonly msPerByte: Rates;
}

/**
 * Sealing of many customers by many nodes, without faults. What jobs take is added to virtual time, as if every node had a core of
 * its own for them: so runs differ, and no seed is replayed to the byte. The rest takes no time: all nodes share one heap here, and
 * its garbage collection would be laid at the door of one or another.
 */
export class Large {
  readonly options: LargeOptions;
  readonly agenda = new Agenda();
  readonly cluster: Cluster;
  readonly random: Random;
  /** The last seal that was computed: its name says all about it, and all nodes want the same. */
  #seals = new Map<string, { readonly result: Computed; readonly ms: number }>();
  readonly #nodes: LargeNode[];
  readonly #byKey: ReadonlyMap<MemberKey, LargeNode>;
  readonly #sealedMs = new Map<Epoch, number[]>();
  readonly #roots = new Map<Epoch, string>();
  readonly #jobs: Readonly<Record<Job['kind'], { readonly bytes: number; readonly tookMs: number }[]>> = {
    slot: [],
    seal: [],
    outline: [],
  };
  #metered = ZERO_USAGE;
  #sent = 0;

  constructor(options: LargeOptions) {
    this.options = options;
    this.random = seededRandom(options.seed);
    const { genesis } = foundCluster(options.nodes);
    this.cluster = clusterOf({ ...genesis, epochMs: EPOCH_MS, sealGraceMs: GRACE_MS }, cheapCrypto);
    this.#nodes = Array.from({ length: options.nodes }, (_, index) => new LargeNode(this, index));
    this.#byKey = new Map(this.#nodes.map((node) => [node.key, node]));
  }

  run(): LargeResult {
    const { nodes, epochs } = this.options;
    for (const node of this.#nodes) node.handle({ type: 'start' });
    for (const node of this.#nodes)
      for (const { key } of this.#nodes) if (key !== node.key) node.handle({ type: 'linkUp', member: key });
    this.#work();
    const bytes = { open: 0, sealing: 0 };
    for (let epoch = 0; epoch < epochs; epoch++) {
      const before = this.#sent;
      this.agenda.runUntil(Math.max(this.agenda.nowMs, (epoch + 1) * EPOCH_MS));
      bytes.open += this.#sent - before;
      const atEnd = this.#sent;
      for (let ms = 0; !this.#isSealed(epoch); ms += 100) {
        if (ms > SEAL_MS_MAX)
          throw new Error(`Epoch ${epoch} is sealed at ${this.#sealedMs.get(epoch)?.length ?? 0} nodes only`);
        this.agenda.runUntil(this.agenda.nowMs + 100);
      }
      bytes.sealing += this.#sent - atEnd;
      this.options.onEpoch?.(epoch);
    }
    this.#conserved();
    const took = [...this.#sealedMs].flatMap(([epoch, times]) => times.map((ms) => ms - (epoch + 1) * EPOCH_MS));
    const perNode = (sum: number): number => sum / nodes / epochs;
    const rate = (kind: Job['kind']): number =>
      spread(this.#jobs[kind].map(({ bytes: read, tookMs }) => tookMs / read)).medianMs;
    return {
      sealed: { ...spread(took), lastMs: Math.max(...took) },
      openBytes: perNode(bytes.open),
      sealingBytes: perNode(bytes.sealing),
      contentBytes: this.#nodes[0]!.contentBytes / epochs,
      msPerByte: { slot: rate('slot'), seal: rate('seal'), outline: rate('outline') },
    };
  }

  /** Every customer's requests of each epoch, evenly over its first nine tenths. */
  #work(): void {
    const { nodes, customers, epochs } = this.options;
    const turns = Math.floor((0.9 * EPOCH_MS) / METER_MS);
    for (const node of this.#nodes) {
      const own: number[] = [];
      for (let customer = 0; customer < customers; customer++)
        if (comesTo(customer, node.index, nodes)) own.push(customer);
      for (let turn = 0; turn < epochs * turns; turn++)
        this.agenda.after(Math.floor(turn / turns) * EPOCH_MS + (turn % turns) * METER_MS, () => {
          for (let i = turn % turns; i < own.length; i += turns) {
            const usage = usageOf(1 + this.random.below(1_000));
            this.#metered = addUsage(this.#metered, usage);
            node.meter(own[i]!, usage);
          }
        });
    }
  }

  #isSealed(epoch: number): boolean {
    return this.#sealedMs.get(epoch)?.length === this.options.nodes;
  }

  /** What the first node has sealed, and holds beyond, is all that was metered. */
  #conserved(): void {
    const counted = this.#nodes[0]!.counted;
    if (!equalUsage(counted, this.#metered))
      throw new Error(`Counted ${JSON.stringify(counted)}, metered ${JSON.stringify(this.#metered)}`);
  }

  // What the nodes do

  packet(type: 'datagram' | 'message', from: LargeNode, to: MemberKey, bytes: Uint8Array): void {
    this.#sent += bytes.length;
    const other = this.#byKey.get(to)!;
    let atMs = this.agenda.nowMs + between(this.random, LATENCY_MS);
    if (type === 'message') {
      // Links keep order.
      atMs = Math.max(atMs, other.lastMs.get(from.key) ?? 0);
      other.lastMs.set(from.key, atMs);
    }
    this.agenda.after(atMs - this.agenda.nowMs, () => other.handle({ type, from: from.key, bytes }));
  }

  compute({ name, job }: Extract<MemberEffect, { type: 'compute' }>): {
    readonly result: Computed;
    readonly ms: number;
  } {
    const known = job.kind === 'seal' ? this.#seals.get(name) : undefined;
    if (known !== undefined) return known;
    const { msPerByte } = this.options;
    const bytes = bytesIn(job);
    const before = process.cpuUsage();
    const result = compute(job, cheapCrypto);
    const { user, system } = process.cpuUsage(before);
    const tookMs = (user + system) / 1_000;
    this.#jobs[job.kind].push({ bytes, tookMs });
    const done = { result, ms: msPerByte === undefined ? tookMs : bytes * msPerByte[job.kind] };
    if (job.kind === 'seal') this.#seals = new Map([[name, done]]);
    return done;
  }

  sealed(epoch: Epoch, root: string, atMs: number): void {
    const first = this.#roots.get(epoch);
    if (first !== undefined && first !== root) throw new Error(`Two roots of epoch ${epoch}: ${first} and ${root}`);
    this.#roots.set(epoch, root);
    this.#sealedMs.set(epoch, [...(this.#sealedMs.get(epoch) ?? []), atMs]);
  }
}

/** A member with its event loop, its disk and its thread for jobs. */
class LargeNode {
  readonly index: number;
  readonly key: MemberKey;
  /** When the last message from each other arrives. */
  readonly lastMs = new Map<MemberKey, number>();
  /** All that its seals count; of the first node only. */
  #sealed: Usage = ZERO_USAGE;
  contentBytes = 0;
  readonly #large: Large;
  readonly #member: Member;
  readonly #contents = new Map<Digest, Uint8Array>();
  #tickets = 0;

  constructor(large: Large, index: number) {
    const name = nameOf(index);
    const keys = keysOf(name);
    const { cluster } = large;
    this.index = index;
    this.#large = large;
    this.key = base64.encode(keys.transport.publicKey) as MemberKey;
    this.#member = Member.restore(
      {
        cluster,
        replica: replicaOf(name),
        run: 1 as Run,
        crypto: cheapCrypto,
        random: seededRandom(large.random.below(2 ** 32)),
        ...keys,
        hlc: new HybridClock(),
      },
      {
        control: [],
        usage: [],
        vectors: [],
        meta: new Map(),
        chain: chainStart(cluster),
        edge: EMPTY_EDGE,
        past: [],
        pinned: [],
      },
    );
  }

  /** All that its seals count, and what it knows beyond. */
  get counted(): Usage {
    const { unsealed } = this.#member;
    return unsealed
      .epochs()
      .map((epoch) => unsealed.usage(epoch))
      .reduce(addUsage, this.#sealed);
  }

  meter(customer: number, usage: Usage): void {
    this.handle({
      type: 'meter',
      ticket: ++this.#tickets,
      customer: `customer-${customer}` as CustomerId,
      sku: 'resize.jpeg',
      usage,
    });
  }

  handle(input: MemberInput): void {
    const { nowMs } = this.#large.agenda;
    const effects = this.#member.handle(input, { wallMs: START_MS + nowMs, steadyMs: nowMs });
    for (const effect of effects) this.#carry(effect);
  }

  #later(ms: number, input: MemberInput): void {
    this.#large.agenda.after(ms, () => this.handle(input));
  }

  #carry(effect: MemberEffect): void {
    const large = this.#large;
    switch (effect.type) {
      case 'persist':
        return large.agenda.after(between(large.random, WRITE_MS), () => this.#written(effect.batch));
      case 'send':
        return large.packet('message', this, effect.to, effect.bytes);
      case 'datagram':
        return large.packet('datagram', this, effect.to, effect.bytes);
      case 'timer':
        return this.#later(effect.afterMs, { type: 'timer', timer: effect.timer });
      case 'load':
        return this.#later(1, {
          type: 'content',
          digest: effect.digest,
          bytes: this.#contents.get(effect.digest) ?? null,
        });
      case 'compute': {
        const { result, ms } = large.compute(effect);
        return this.#later(ms, { type: 'computed', name: effect.name, result });
      }
      case 'alarm':
      case 'misbehaviour':
      case 'refused':
        throw new Error(`n${this.index}: ${JSON.stringify(effect)}`);
      default:
    }
  }

  #written({ number, contents, dropContents, seal }: Batch): void {
    for (const { digest, bytes } of contents) {
      this.contentBytes += bytes.length;
      this.#contents.set(digest, bytes);
    }
    for (const digest of dropContents) this.#contents.delete(digest);
    if (seal !== null) {
      const { sealed } = seal;
      this.#large.sealed(sealed.epoch, base64.encode(sealed.root), this.#large.agenda.nowMs);
      if (this.index === 0) this.#sealed = addUsage(this.#sealed, sealedUsage([{ sealed }]));
    }
    this.handle({ type: 'persisted', number });
  }
}

/** Whether a customer's requests come to a node: each to as many, and each node to as many customers. */
function comesTo(customer: number, index: number, nodes: number): boolean {
  const first = customer % nodes;
  const apart = 1 + (Math.floor(customer / nodes) % (nodes - 1));
  const turn = (index - first + nodes) % nodes;
  return turn % apart === 0 && turn / apart < NODES_PER_CUSTOMER;
}

/** Bytes that a job reads; a row that is no content yet takes as many as it would there. */
function bytesIn(job: Job): number {
  if (job.kind === 'outline') return job.statements.length;
  const rows = job.kind === 'slot' ? job.rows.numbers.length / NUMBERS_PER_ROW : 0;
  return [...job.contents.values()].reduce((sum, { length }) => sum + length, rows * ROW_BYTES);
}

const between = (random: Random, [least, most]: readonly [number, number]): number =>
  least + random.below(most - least + 1);
