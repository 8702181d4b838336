import {
  concat,
  equalBytes,
  seededRandom,
  utf8,
  type ClusterId,
  type Crypto,
  type CustomerId,
  type Digest,
  type Random,
  type ReplicaId,
  type Run,
  type Signer,
} from '../../src/base/index.ts';
import {
  equalControl,
  equalUsageRow,
  Registers,
  signControl,
  usageKey,
  usageWriter,
  ZERO_USAGE,
  type ControlRegister,
  type Register,
  type UsageRow,
  type WriterId,
} from '../../src/lattice/index.ts';
import {
  Replication,
  type ReplicationEffect,
  type ReplicationInput,
  type ReplicationOptions,
  type ShownEpoch,
} from '../../src/replication/index.ts';
import { nodeCrypto } from '../support.ts';

export const CLUSTER = 'c1'.repeat(32) as ClusterId;
export const replicaId = (n: number): ReplicaId => n.toString(16).padStart(32, '0') as ReplicaId;

/** Signatures that cost a hash: the hundreds of nodes of a simulation have one core. Forgeries still fail. */
export const cheapCrypto: Crypto = {
  ...nodeCrypto,
  ed25519Verify: (publicKey, message, signature) => equalBytes(signature, cheapSignature(publicKey, message)),
};
const cheapSignature = (publicKey: Uint8Array, message: Uint8Array): Uint8Array => {
  const half = nodeCrypto.sha256(publicKey, message);
  return concat(half, half);
};
export function cheapSigner(name: string): Signer {
  const publicKey = nodeCrypto.sha256(utf8(name));
  return { publicKey, sign: (message) => cheapSignature(publicKey, message) };
}

export type Control = Registers<ControlRegister, ReplicaId>;
export type Usage = Registers<UsageRow, WriterId>;
export const newControl = (): Control => new Registers({ keysMax: 1_000_000, equal: equalControl });
export const newUsage = (): Usage => new Registers({ keysMax: 1_000_000, equal: equalUsageRow });

export interface Node {
  readonly index: number;
  readonly id: ReplicaId;
  readonly writer: WriterId;
  readonly signer: Signer;
  readonly control: Control;
  readonly usage: Usage;
  readonly replication: Replication;
  /** All that it has said to its driver, but for what it sends and its timers. */
  readonly effects: Exclude<ReplicationEffect, { type: 'send' | 'timer' }>[];
  /** Contents on its disk. */
  readonly disk: Map<Digest, Uint8Array>;
  /** Epochs that it has sealed. */
  readonly sealed: ShownEpoch[];
  isUp: boolean;
}

export interface NetworkOptions {
  readonly nodes: number;
  readonly seed: number;
  /** Least and most delay of a message in ms. */
  readonly delayMs?: readonly [least: number, most: number];
  /** How often, in a thousand messages, the link breaks instead: that message and all on the way are lost. */
  readonly breaksPerMille?: number;
  /** Whether a message is lost, alone: as if the transport had refused it. */
  readonly loses?: (from: Node, to: Node, bytes: Uint8Array) => boolean;
  readonly crypto?: Crypto;
  readonly signer?: (name: string) => Signer;
  readonly control?: (index: number) => Control;
  readonly usage?: (index: number) => Usage;
  readonly options?: (index: number) => Partial<ReplicationOptions>;
  /** Whether an input gets to a node at all. */
  readonly filter?: (node: Node, input: ReplicationInput) => boolean;
  /** After each step of a node. */
  readonly check?: (node: Node, network: Network) => void;
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** A binary heap by time, then by order of insertion. */
class Agenda {
  readonly #heap: Event[] = [];
  #orders = 0;

  get next(): Event | undefined {
    return this.#heap[0];
  }

  add(atMs: number, run: () => void): void {
    this.#heap.push({ atMs, order: this.#orders++, run });
    for (let i = this.#heap.length - 1; i > 0;) {
      const parent = (i - 1) >> 1;
      if (!this.#isBefore(i, parent)) return;
      this.#swap(i, parent);
      i = parent;
    }
  }

  take(): Event {
    const first = this.#heap[0]!;
    const last = this.#heap.pop()!;
    if (this.#heap.length === 0) return first;
    this.#heap[0] = last;
    for (let i = 0; ;) {
      let least = i;
      for (const child of [2 * i + 1, 2 * i + 2])
        if (child < this.#heap.length && this.#isBefore(child, least)) least = child;
      if (least === i) return first;
      this.#swap(i, least);
      i = least;
    }
  }

  #isBefore(i: number, j: number): boolean {
    const [a, b] = [this.#heap[i]!, this.#heap[j]!];
    return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
  }

  #swap(i: number, j: number): void {
    [this.#heap[i], this.#heap[j]] = [this.#heap[j]!, this.#heap[i]!];
  }
}

interface Link {
  generation: number;
  /** When the last message in each direction arrives: the links keep order. */
  readonly lastMs: Map<ReplicaId, number>;
}

/** Nodes in virtual time on reliable, ordered links that break, are slow and are cut by partitions. One seed, one run. */
export class Network {
  readonly nodes: Node[] = [];
  readonly random: Random;
  /** Every register ever written, by writer, in version order. */
  readonly controlHistory = new Map<ReplicaId, ControlRegister[]>();
  readonly usageHistory = new Map<WriterId, UsageRow[]>();
  /** Frames that were sent, up to 2 000: for those who want to break some. */
  readonly frames: Uint8Array[] = [];
  readonly trace: string[] = [];
  nowMs = 0;
  readonly #options: NetworkOptions;
  readonly #agenda = new Agenda();
  readonly #links = new Map<string, Link>();
  readonly #byId = new Map<ReplicaId, Node>();
  #isCut: (a: Node, b: Node) => boolean = () => false;

  constructor(options: NetworkOptions) {
    this.#options = options;
    this.random = seededRandom(options.seed);
    for (let index = 0; index < options.nodes; index++) this.add();
    this.announce();
  }

  /** Starts one more node; `announce` makes it known. */
  add(id = replicaId(this.nodes.length + 1), name = `node ${this.nodes.length}`): Node {
    const index = this.nodes.length;
    const { crypto = cheapCrypto, signer = cheapSigner, options } = this.#options;
    const control = this.#options.control?.(index) ?? newControl();
    const usage = this.#options.usage?.(index) ?? newUsage();
    const run = (index + 1) as Run;
    const replication = new Replication({
      cluster: CLUSTER,
      replica: id,
      run,
      crypto,
      random: seededRandom(this.#options.seed * 1_000 + index),
      control,
      usage,
      keyOf: (replica) => this.#byId.get(replica)?.signer.publicKey,
      ...options?.(index),
    });
    const writer = usageWriter(id, run);
    const node: Node = {
      index,
      id,
      writer,
      signer: signer(name),
      control,
      usage,
      replication,
      effects: [],
      disk: new Map(),
      sealed: [],
      isUp: true,
    };
    this.nodes.push(node);
    if (!this.#byId.has(id)) this.#byId.set(id, node);
    this.input(node, { type: 'start' });
    return node;
  }

  node(index: number): Node {
    return this.nodes[index]!;
  }

  get up(): Node[] {
    return this.nodes.filter(({ isUp }) => isUp);
  }

  /** Tells every node who is up, as membership would. */
  announce(isAlive: (node: Node) => boolean = ({ isUp }) => isUp): void {
    const live = this.nodes.filter(isAlive).map(({ id }) => id);
    const dead = this.nodes.filter((node) => !isAlive(node)).map(({ id }) => id);
    for (const { id, isUp, index } of this.nodes)
      if (isUp)
        this.input(this.node(index), {
          type: 'members',
          live: live.filter((other) => other !== id),
          dead: dead.filter((other) => other !== id),
          left: [],
        });
  }

  /** Cuts the network; every node believes those beyond the cut dead. No argument heals it. */
  partition(isCut: (a: Node, b: Node) => boolean = () => false): void {
    this.#isCut = isCut;
    for (const a of this.up) {
      for (const b of this.up) if (a.index < b.index && isCut(a, b)) this.breakLink(a, b);
      const others = this.nodes.filter((node) => node !== a);
      const isLive = (b: Node): boolean => b.isUp && !isCut(a, b);
      this.input(a, {
        type: 'members',
        live: others.filter(isLive).map(({ id }) => id),
        dead: others.filter((b) => !isLive(b)).map(({ id }) => id),
        left: [],
      });
    }
  }

  stop(index: number): void {
    const node = this.node(index);
    node.isUp = false;
    for (const other of this.up) this.breakLink(node, other);
  }

  writeControl(index: number, key: string, value = `${key}@${this.nowMs}`): ControlRegister {
    return this.writeControls(index, [[key, value]])[0]!;
  }

  writeControls(index: number, writes: readonly (readonly [key: string, value: string])[]): ControlRegister[] {
    const node = this.node(index);
    const first = node.control.upTo(node.id) + 1;
    const registers = writes.map(([key, value], i) =>
      signControl(node.signer, CLUSTER, node.id, { key, version: first + i, value }),
    );
    node.control.apply(node.id, registers);
    history(this.controlHistory, node.id).push(...registers);
    this.input(node, { type: 'written' });
    return registers;
  }

  writeUsage(index: number, epoch: number, customer: string, requests = 1): void {
    const { usage, writer } = this.node(index);
    const key = usageKey(epoch, customer as CustomerId, 'resize.jpeg');
    const requestsSoFar = usage.get(writer, key)?.usage.requests ?? 0;
    const row: UsageRow = {
      key,
      version: usage.upTo(writer) + 1,
      epoch,
      customer: customer as CustomerId,
      sku: 'resize.jpeg',
      usage: { ...ZERO_USAGE, requests: requestsSoFar + requests, bytesIn: 1_000 * (requestsSoFar + requests) },
    };
    usage.apply(writer, [row]);
    history(this.usageHistory, writer).push(row);
  }

  /** One input to a node, now. */
  input(node: Node, input: ReplicationInput): void {
    if (!node.isUp || this.#options.filter?.(node, input) === false) return;
    const effects = node.replication.handle(input, this.nowMs);
    for (const effect of effects) this.#carryOut(node, effect);
    this.#options.check?.(node, this);
  }

  /** Lets so many ms of virtual time pass, or until the condition holds. */
  run(ms: number, until: () => boolean = () => false): void {
    const endMs = this.nowMs + ms;
    while (!until()) {
      const { next } = this.#agenda;
      if (next === undefined || next.atMs > endMs) {
        this.nowMs = endMs;
        return;
      }
      this.nowMs = next.atMs;
      this.#agenda.take().run();
    }
  }

  /** Runs until all that are up hold the same, looked at every 100 ms, or that time is over. Whether they do. */
  settle(msMax: number): boolean {
    for (let ms = 0; ms < msMax && !this.isEqual; ms += 100) this.run(100);
    return this.isEqual;
  }

  breakLink(a: Node, b: Node): void {
    this.#link(a, b).generation++;
    this.input(a, { type: 'linkClosed', member: b.id });
    this.input(b, { type: 'linkClosed', member: a.id });
  }

  /** Whether all that are up hold the same. */
  get isEqual(): boolean {
    return (
      new Set(this.up.map(({ control, usage }) => control.digest(nodeCrypto) + usage.digest(nodeCrypto))).size <= 1
    );
  }

  #carryOut(node: Node, effect: ReplicationEffect): void {
    if (effect.type === 'timer') {
      this.#agenda.add(this.nowMs + effect.afterMs, () => this.input(node, effect.input));
      return;
    }
    if (effect.type === 'load') {
      const { digest } = effect;
      const bytes = node.disk.get(digest);
      const answer =
        bytes === undefined ? { type: 'absent' as const, digest } : { type: 'held' as const, digest, bytes };
      this.#agenda.add(this.nowMs + 1, () => this.input(node, answer));
    }
    if (effect.type === 'readSealed') {
      const epochs = node.sealed.filter(({ epoch }) => epoch >= effect.from);
      this.#agenda.add(this.nowMs + 1, () => this.input(node, { type: 'sealedRead', to: effect.to, epochs }));
    }
    if (effect.type !== 'send') {
      node.effects.push(effect);
      return;
    }
    if (this.frames.length < 2_000) this.frames.push(effect.bytes);
    const to = this.#byId.get(effect.to);
    if (to === undefined || !to.isUp || to === node || this.#isCut(node, to)) return;
    if (this.#options.loses?.(node, to, effect.bytes) === true) return;
    const { breaksPerMille = 0, delayMs: [least, most] = [1, 20] } = this.#options;
    if (breaksPerMille > 0 && this.random.below(1_000) < breaksPerMille) {
      this.#agenda.add(this.nowMs, () => this.breakLink(node, to));
      return;
    }
    const link = this.#link(node, to);
    const { generation } = link;
    const atMs = Math.max(link.lastMs.get(to.id) ?? 0, this.nowMs + least + this.random.below(most - least + 1));
    link.lastMs.set(to.id, atMs);
    this.#agenda.add(atMs, () => {
      if (link.generation !== generation || this.#isCut(node, to)) return;
      this.trace.push(`${atMs} ${node.index}>${to.index} ${effect.bytes.length}`);
      this.input(to, { type: 'message', from: node.id, bytes: effect.bytes });
    });
  }

  #link(a: Node, b: Node): Link {
    const key = a.id < b.id ? `${a.id} ${b.id}` : `${b.id} ${a.id}`;
    let link = this.#links.get(key);
    if (link === undefined) this.#links.set(key, (link = { generation: 0, lastMs: new Map() }));
    return link;
  }
}

function history<W, R>(histories: Map<W, R[]>, writer: W): R[] {
  let of = histories.get(writer);
  if (of === undefined) histories.set(writer, (of = []));
  return of;
}

/** What must be held of a writer: the join of its versions up to there and of what is pending. */
function expected<R extends Register>(written: readonly R[], upTo: number, pending: readonly number[]): Map<string, R> {
  const held = new Map<string, R>();
  for (const register of written.slice(0, upTo)) held.set(register.key, register);
  for (const version of pending) {
    const register = written[version - 1];
    if (register !== undefined && (held.get(register.key)?.version ?? 0) < version) held.set(register.key, register);
  }
  return held;
}

/** Invariants 11 and 12 (PROTOCOL section 7), held against the histories. */
export class Checker {
  readonly #vectors = new Map<string, number>();
  readonly #isDropped: (writer: string, register: Register) => boolean;

  constructor(isDropped: (writer: string, register: Register) => boolean = () => false) {
    this.#isDropped = isDropped;
  }

  /** Invariant 12: no entry of the vector has gone down, and everything that it claims is held, and nothing else. */
  vector(node: Node, network: Network): void {
    this.#section(`${node.index} control`, node.control, network.controlHistory);
    this.#section(`${node.index} usage`, node.usage, network.usageHistory);
  }

  /** Invariant 11: equal digests, equal registers. */
  digests(network: Network): void {
    const contents = new Map<string, string>();
    for (const node of network.nodes)
      for (const registers of [node.control, node.usage] as unknown as Registers<Register, string>[]) {
        const digest = registers.digest(nodeCrypto);
        const content = JSON.stringify(
          registers
            .writers()
            .map((writer) => [
              writer,
              ...sorted([...registers.of(writer)].filter((register) => !this.#isDropped(writer, register))),
            ]),
        );
        if ((contents.get(digest) ?? content) !== content)
          throw new Error('invariant 11: equal digests, other registers');
        contents.set(digest, content);
      }
  }

  #section<R extends Register, W extends string>(
    name: string,
    registers: Registers<R, W>,
    histories: Map<W, R[]>,
  ): void {
    for (const writer of new Set([...histories.keys(), ...registers.writers()])) {
      const upTo = registers.upTo(writer);
      const id = `${name} ${writer}`;
      if (upTo < (this.#vectors.get(id) ?? 0))
        throw new Error(`invariant 12: the vector of ${id} has gone down to ${upTo}`);
      this.#vectors.set(id, upTo);
      const written = histories.get(writer) ?? [];
      const claimed = expected(written, upTo, registers.pendingVersions(writer));
      const held = [...registers.of(writer)];
      const strange = held.find((register) => !isSame(written[register.version - 1], register));
      if (strange !== undefined) throw new Error(`${id} holds ${strange.key}@${strange.version}, never written`);
      const versions = new Map(held.map(({ key, version }) => [key, version]));
      const lacks = [...claimed.values()].find(
        (register) => !this.#isDropped(writer, register) && versions.get(register.key) !== register.version,
      );
      if (lacks !== undefined || upTo > written.length)
        throw new Error(`invariant 12: ${id} up to ${upTo} claims ${lacks?.key ?? 'more'} without holding it`);
    }
  }
}

const isSame = (a: Register | undefined, b: Register): boolean =>
  a !== undefined && a.key === b.key && valueOf(a) === valueOf(b);
const valueOf = (register: Register & { value?: string; usage?: { requests: number } }): unknown =>
  register.value ?? register.usage?.requests;

const sorted = <R extends Register>(registers: R[]): R[] => registers.sort((a, b) => a.version - b.version);

export const effectsOf = <T extends Node['effects'][number]['type']>(node: Node, type: T) =>
  node.effects.filter((effect): effect is Extract<Node['effects'][number], { type: T }> => effect.type === type);

/** The value at a rank of 0 to 1. */
export function quantile(values: readonly number[], rank: number): number {
  const ordered = values.toSorted((a, b) => a - b);
  return ordered[Math.min(ordered.length - 1, Math.floor(rank * ordered.length))]!;
}

export const contentOf = (random: Random, length: number): { digest: Digest; bytes: Uint8Array } => {
  const bytes = random.bytes(length);
  return { digest: Buffer.from(nodeCrypto.sha256(bytes)).toString('hex') as Digest, bytes };
};
