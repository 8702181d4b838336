import {
  base64,
  concat,
  equalBytes,
  hex,
  HybridClock,
  present,
  seededRandom,
  utf8,
  type Crypto,
  type CustomerId,
  type Epoch,
  type ErrorCode,
  type Random,
  type ReplicaId,
  type Run,
  type Signer,
} from '../../src/base/index.ts';
import {
  createAdmit,
  createInvite,
  encodeFact,
  factKey,
  parseInvite,
  replicaIdOf,
  type JoinerKeys,
} from '../../src/authority/index.ts';
import { addUsage, DIMENSIONS, ZERO_USAGE, type ControlRegister, type Usage } from '../../src/lattice/index.ts';
import { Member, type Alarm, type Batch, type MemberEffect, type MemberInput } from '../../src/member/index.ts';
import type { MemberKey } from '../../src/membership/index.ts';
import { clusterOf, compute, type Cluster, type Genesis } from '../../src/sealing/index.ts';
import { nodeCrypto, statementsIn } from '../support.ts';
import { MemoryDisk, type SealedRecord } from './disk.ts';

export const START_MS = 1_700_000_000_000;
export const EPOCH_MS = 10_000;

const cheapSignature = (publicKey: Uint8Array, message: Uint8Array): Uint8Array => {
  const half = nodeCrypto.sha256(publicKey, message);
  return concat(half, half);
};

/** Signatures that cost a hash. Whoever has the public key can make them: good for honest nodes only. */
export const cheapCrypto: Crypto = {
  ...nodeCrypto,
  ed25519Verify: (publicKey, message, signature) => equalBytes(signature, cheapSignature(publicKey, message)),
};

/** A key pair that belongs to a seed or a name. */
export function cheapSigner(seed: Uint8Array | string): Signer {
  const publicKey = nodeCrypto.sha256(typeof seed === 'string' ? utf8(seed) : seed);
  return { publicKey, sign: (message) => cheapSignature(publicKey, message) };
}

export const keysOf = (name: string): JoinerKeys => ({
  transport: cheapSigner(`transport ${name}`),
  log: cheapSigner(`log ${name}`),
  cosigner: cheapSigner(`cosigner ${name}`),
});

export const operator = cheapSigner('operator');

/** The replica of the one founder, or of a newcomer with the keys of that name. */
export const replicaOf = (name: string): ReplicaId =>
  name === FOUNDER
    ? (hex.encode(nodeCrypto.sha256(utf8(name)).subarray(0, 16)) as ReplicaId)
    : replicaIdOf(base64.encode(keysOf(name).transport.publicKey), cheapCrypto);

export const FOUNDER = 'founder';

/** A cluster with a roster of one. */
export function foundCluster(epochMs = EPOCH_MS, startMs = START_MS): Cluster {
  const keys = keysOf(FOUNDER);
  const genesis: Genesis = {
    format: 1,
    name: 'waggle.example',
    operatorKey: base64.encode(operator.publicKey),
    startMs,
    epochMs,
    sealGraceMs: 0,
    roster: [
      {
        replica: replicaOf(FOUNDER),
        transportKey: base64.encode(keys.transport.publicKey),
        logKey: base64.encode(keys.log.publicKey),
        cosignerKey: base64.encode(keys.cosigner.publicKey),
      },
    ],
  };
  return clusterOf(genesis, cheapCrypto);
}

/** A usage of that many requests, each dimension another figure. */
export const usageOf = (requests: number): Usage =>
  Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, requests * dimension.length])) as unknown as Usage;
export const requestsIn = ({ requests }: Usage): number => requests / 'requests'.length;

/** What the statements of sealed epochs count, all together. */
export const sealedUsage = (seals: readonly Pick<SealedRecord, 'sealed'>[]): Usage =>
  seals
    .flatMap(({ sealed }) => statementsIn(sealed))
    .flatMap(({ text }) => Object.values((JSON.parse(text) as { usage: Record<string, Usage> }).usage))
    .reduce(addUsage, ZERO_USAGE);

/** One node with a disk in memory and a clock that stands still until it is moved: its own driver. */
export class TestNode {
  readonly cluster: Cluster;
  readonly name: string;
  readonly replica: ReplicaId;
  disk: MemoryDisk;
  readonly random: Random;
  member!: Member;
  nowMs = 0;
  /** How far its wall clock is ahead, in ms. */
  clockOffsetMs = 0;
  /** Whether batches wait in `held` instead of being written at once. */
  isHolding = false;
  readonly held: Batch[] = [];
  /** Whether the disk has no room. */
  isFull = false;
  /** How many more batches are written before the process is killed. */
  writesLeft = Number.POSITIVE_INFINITY;
  isUp = false;
  /** What was not for this driver. */
  readonly out: MemberEffect[] = [];
  readonly batches: Batch[] = [];
  readonly done = new Map<number, Epoch>();
  readonly refused = new Map<number, ErrorCode>();
  readonly folded: { readonly replica: ReplicaId; readonly register: ControlRegister }[] = [];
  readonly sealed: Epoch[] = [];
  readonly alarms: Alarm[] = [];
  /** Who asked for sealed epochs, and from which one on. */
  readonly asked: { readonly from: Epoch; readonly to: ReplicaId }[] = [];
  readonly stageAbove: number;
  readonly usageKeysMax: number | undefined;
  #timers: { readonly atMs: number; readonly input: MemberInput }[] = [];
  #tickets = 0;

  constructor(
    cluster: Cluster,
    name = FOUNDER,
    stageAbove = Number.MAX_SAFE_INTEGER,
    disk = new MemoryDisk(cluster),
    nowMs = 0,
    usageKeysMax?: number,
  ) {
    this.usageKeysMax = usageKeysMax;
    this.cluster = cluster;
    this.name = name;
    this.replica = replicaOf(name);
    this.disk = disk;
    this.nowMs = nowMs;
    this.random = seededRandom([...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7));
    this.stageAbove = stageAbove;
    this.start();
  }

  get run(): Run {
    return this.disk.run as Run;
  }

  get #now(): { readonly wallMs: number; readonly steadyMs: number } {
    return { wallMs: START_MS + this.nowMs + this.clockOffsetMs, steadyMs: this.nowMs };
  }

  /** A new process over the same disk. */
  start(): void {
    this.disk.run++;
    this.held.length = 0;
    this.#timers = [];
    this.isUp = true;
    this.member = Member.restore(
      {
        cluster: this.cluster,
        replica: this.replica,
        run: this.run,
        crypto: cheapCrypto,
        random: this.random,
        ...keysOf(this.name),
        hlc: new HybridClock(),
        stageAbove: this.stageAbove,
        usageKeysMax: this.usageKeysMax,
        inlineBytes: this.name.length % 2 === 0 ? 0 : undefined,
      },
      this.disk.load(),
    );
    this.handle({ type: 'start' });
  }

  kill(): void {
    this.isUp = false;
  }

  handle(input: MemberInput): void {
    if (!this.isUp) return;
    for (const effect of this.member.handle(input, this.#now)) if (this.isUp) this.#carry(effect);
  }

  #carry(effect: MemberEffect): void {
    switch (effect.type) {
      case 'persist':
        this.batches.push(effect.batch);
        this.held.push(effect.batch);
        if (!this.isHolding) this.write();
        break;
      case 'timer':
        this.#timers.push({ atMs: this.nowMs + effect.afterMs, input: { type: 'timer', timer: effect.timer } });
        break;
      case 'load':
        this.handle({ type: 'content', digest: effect.digest, bytes: this.disk.content(effect.digest) });
        break;
      case 'compute':
        this.handle({ type: 'computed', name: effect.name, result: compute(effect.job, cheapCrypto) });
        break;
      case 'readSealed': {
        const { from, to } = effect;
        this.asked.push({ from, to });
        this.handle({ type: 'sealedRead', to, epochs: this.disk.sealedFrom(from) });
        break;
      }
      case 'done':
        this.done.set(effect.ticket, effect.epoch);
        break;
      case 'refused':
        this.refused.set(effect.ticket, effect.code);
        break;
      case 'folded':
        this.folded.push(effect);
        break;
      case 'sealed':
        this.sealed.push(effect.epoch);
        break;
      case 'alarm':
        this.alarms.push(effect.alarm);
        break;
      default:
        this.out.push(effect);
    }
  }

  /** Writes the batch that waits, as far as the disk and the process last. */
  write(): void {
    const batch = present(this.held.shift(), 'a batch');
    if (this.isFull) return this.handle({ type: 'full', number: batch.number });
    if (this.writesLeft-- <= 0) return this.kill();
    this.disk.apply(batch);
    this.handle({ type: 'persisted', number: batch.number });
  }

  /** Meters some requests; the ticket. */
  meter(requests: number, customer = 'acme', sku = 'resize.jpeg'): number {
    const ticket = ++this.#tickets;
    this.handle({ type: 'meter', ticket, customer: customer as CustomerId, sku, usage: usageOf(requests) });
    return ticket;
  }

  /** Writes registers; the ticket. */
  set(...writes: readonly (readonly [key: string, value: string])[]): number {
    const ticket = ++this.#tickets;
    this.handle({ type: 'write', ticket, writes: writes.map(([key, value]) => ({ key, value })) });
    return ticket;
  }

  /** Lets time pass. */
  advance(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const next = this.#timers.reduce<{ atMs: number; input: MemberInput } | undefined>(
        (first, timer) => (first === undefined || timer.atMs < first.atMs ? timer : first),
        undefined,
      );
      if (!this.isUp || next === undefined || next.atMs > untilMs) break;
      this.#timers.splice(this.#timers.indexOf(next), 1);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      this.handle(next.input);
    }
    this.nowMs = untilMs;
  }

  /** Requests that are sealed, and those that are not. */
  get counted(): { readonly sealed: number; readonly unsealed: number } {
    const { unsealed } = this.member;
    return {
      sealed: requestsIn(sealedUsage(this.disk.seals)),
      unsealed: requestsIn(
        unsealed
          .epochs()
          .map((epoch) => unsealed.usage(epoch))
          .reduce(addUsage, ZERO_USAGE),
      ),
    };
  }
}

export const memberKeyOf = (name: string): MemberKey => base64.encode(keysOf(name).transport.publicKey) as MemberKey;

/** The write by which the founder lets a newcomer in. */
export function admission(cluster: Cluster, name: string): readonly [key: string, value: string] {
  const { invite } = createInvite({
    cluster,
    operator,
    addresses: [{ transportKey: memberKeyOf(FOUNDER), host: '10.0.0.1', port: 7000 }],
    nowMs: START_MS,
    crypto: cheapCrypto,
    random: seededRandom([...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 1)),
    signerFromSeed: cheapSigner,
  });
  const fact = createAdmit(parseInvite(invite, cheapCrypto, cheapSigner), keysOf(name), START_MS, cheapCrypto);
  return [factKey(fact), encodeFact(fact)];
}

/** A founder and newcomers on a network without faults, unless one is cut off. */
export class TestCluster {
  readonly nodes: readonly TestNode[];
  readonly founder: TestNode;
  /** Second processes of members. The transport keeps one link to a key: in turns, for a second and a half, to the one and the other. */
  readonly twins: TestNode[] = [];
  /** What was for others, up to 3 000. */
  readonly frames: MemberEffect[] = [];
  /** Nobody hears them, and they hear nobody. */
  readonly cut = new Set<TestNode>();
  /** What goes to and from them over links is lost; datagrams are not. */
  readonly mute = new Set<TestNode>();

  constructor(newcomers: number) {
    const cluster = foundCluster();
    this.nodes = Array.from({ length: 1 + newcomers }, (_, i) => new TestNode(cluster, i === 0 ? FOUNDER : `n${i}`));
    this.founder = this.nodes[0]!;
    for (const { name } of this.nodes.slice(1)) this.founder.set(admission(cluster, name));
  }

  /** Lets time pass, and brings what was sent every 10 ms. */
  run(ms: number): void {
    for (let left = ms; left > 0; left -= 10) {
      const all = [...this.nodes, ...this.twins];
      for (const node of all) node.advance(10);
      for (const node of all) for (const effect of node.out.splice(0)) this.#bring(node, effect);
    }
  }

  /** The process that the others have their link to. */
  #holder(key: string): TestNode | undefined {
    const processes = [...this.nodes, ...this.twins].filter(({ name, isUp }) => isUp && memberKeyOf(name) === key);
    return processes[Math.floor(this.founder.nowMs / 1_500) % processes.length];
  }

  #bring(from: TestNode, effect: MemberEffect): void {
    if (this.frames.length < 3_000) this.frames.push(effect);
    if (effect.type === 'misbehaviour') throw new Error(`${from.name} complains: ${JSON.stringify(effect)}`);
    if (effect.type !== 'send' && effect.type !== 'datagram') return;
    const to = this.#holder(effect.to);
    if (to === undefined || this.cut.has(from) || this.cut.has(to)) return;
    if (this.#holder(memberKeyOf(from.name)) !== from) return;
    if (effect.type === 'send' && (this.mute.has(from) || this.mute.has(to))) return;
    const type = effect.type === 'send' ? 'message' : 'datagram';
    to.handle({ type, from: memberKeyOf(from.name), bytes: effect.bytes });
  }
}
