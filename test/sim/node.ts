import {
  base64,
  HybridClock,
  parseHlc,
  seededRandom,
  type Crypto,
  type CustomerId,
  type Digest,
  type Random,
  type ReplicaId,
  type Run,
  type Signer,
} from '../../packages/protocol/src/base/index.ts';
import { isFactKey } from '../../packages/protocol/src/authority/index.ts';
import { lwwKey, lwwValue } from '../../packages/protocol/src/lattice/index.ts';
import {
  Member,
  type Batch,
  type Loaded,
  type MemberEffect,
  type MemberInput,
  type Now,
  type Write,
} from '../../packages/protocol/src/member/index.ts';
import type { MemberKey } from '../../packages/protocol/src/membership/index.ts';
import { compute, type Cluster } from '../../packages/protocol/src/sealing/index.ts';
import { MemoryDisk } from '../../packages/protocol/test/member/disk.ts';
import { cheapCrypto, keysOf, replicaOf, usageOf } from '../../packages/protocol/test/member/harness.ts';
import type { Agenda } from './agenda.ts';
import type { Network, Station } from './network.ts';
import { START_MS, type Mutation } from './options.ts';
import { spoilBatch, spoilDisk } from './spoil.ts';
import type { Trace } from './trace.ts';
import { issuedKey, revokedKey, View } from './view.ts';
import type { Watch } from './watch.ts';

/** What all nodes of one simulation share. */
export interface World {
  readonly agenda: Agenda;
  readonly random: Random;
  readonly network: Network;
  readonly trace: Trace;
  readonly watch: Watch;
  readonly cluster: Cluster;
  /** All machines there ever were, in order of their indexes. */
  readonly nodes: SimNode[];
  /** The node with the most seals on disk. */
  readonly ahead: () => SimNode;
  readonly mutation: Mutation | undefined;
}

type Ticket =
  | { readonly kind: 'meter'; readonly customer: string; readonly requests: number }
  | { readonly kind: 'write'; readonly writes: readonly Write[] };

const CUSTOMERS = ['acme', 'bolt', 'crux', 'dune', 'echo'];
/** Sealed epochs that are shown to another node at once. */
const SHOWN_MAX = 16;
/** Inputs that wait for a process that stands still, beyond which what others send is lost. */
const INBOX_MAX = 2_000;
const SKUS = ['resize.jpeg', 'resize.webp', 'inspect'];

/**
 * How a machine stands to the cluster: not admitted yet under this id; admitted; retired by itself, to go when nothing is lost by
 * it; off for good.
 */
export type Standing = 'joining' | 'member' | 'leaving' | 'gone';

/** One machine: a disk, a clock that may be wrong, and a process that may be killed or stand still. */
export class SimNode implements Station {
  readonly index: number;
  readonly #world: World;
  name: string;
  replica: ReplicaId;
  key: MemberKey;
  disk: MemoryDisk;
  /** The ids that it had before, of which its disk still has something. */
  readonly formerReplicas: ReplicaId[] = [];
  standing: Standing;
  /** An older state of its disk. */
  backup: MemoryDisk | undefined;
  /** What to do if another member holds what it does not know to have written: set when its disk has gone back. */
  onOvertaken: (() => void) | undefined;
  process = 0;
  member: Member | undefined;
  view = new View();
  /** What faults have done to it. */
  pausedUntilMs = 0;
  clockOffsetMs = 0;
  clockDriftPerMille = 0;
  writeMsMax = 10;
  fullUntilMs = 0;
  /** Whether the process dies at its next write that says something about an epoch. */
  isDoomed = false;
  #bootMs = 0;
  /** Of processes of this machine, whatever its disk says: no run is ever drawn twice. */
  #runs = 0;
  /** What it was told when it was admitted: the roster facts, and the epoch that was open. */
  #welcome: Pick<Loaded, 'facts' | 'firstEpoch'> = {};
  #hlc = new HybridClock();
  #writing: Batch | undefined;
  readonly #admitted = new Set<MemberKey>();
  #tickets = new Map<number, Ticket>();
  #lastTicket = 0;
  /** What came while the process stood still. */
  readonly #inbox: MemberInput[] = [];

  constructor(world: World, index: number, name: string, standing: Standing) {
    this.#world = world;
    this.index = index;
    this.name = name;
    this.standing = standing;
    this.replica = replicaOf(name);
    this.key = keyOf(name);
    this.disk = new MemoryDisk(world.cluster);
  }

  get isUp(): boolean {
    return this.member !== undefined;
  }

  get isFull(): boolean {
    return this.#world.agenda.nowMs < this.fullUntilMs;
  }

  get wallMs(): number {
    const { nowMs } = this.#world.agenda;
    return START_MS + nowMs + this.clockOffsetMs + Math.floor((nowMs * this.clockDriftPerMille) / 1_000);
  }

  get now(): Now {
    return { wallMs: this.wallMs, steadyMs: this.#world.agenda.nowMs - this.#bootMs };
  }

  start(): void {
    const { agenda, random, cluster, trace, watch, mutation } = this.#world;
    if (this.isUp || this.standing === 'joining' || this.standing === 'gone') return;
    this.process++;
    this.disk.run = ++this.#runs;
    this.#bootMs = agenda.nowMs;
    if (mutation !== undefined) spoilDisk(this, mutation);
    const hlc = this.disk.meta.get('hlc');
    this.#hlc = new HybridClock(hlc === undefined ? undefined : parseHlc(hlc));
    this.view = new View();
    for (const row of this.disk.control.values())
      if (mutation !== 'forgetRevocations' || !row.key.startsWith(revokedKey(''))) this.#fold(row.replica, row);
    trace.add(`${this.name} starts, run ${this.disk.run}, epoch ${this.disk.chain.epoch}`);
    const { transport, log, cosigner } = keysOf(this.name);
    this.member = Member.restore(
      {
        cluster,
        replica: this.replica,
        run: this.disk.run as Run,
        crypto: mutation === 'otherSalts' && this.index === 1 ? OTHER_CRYPTO : cheapCrypto,
        random: seededRandom(random.below(2 ** 32)),
        transport,
        log,
        cosigner: this.#watched(cosigner),
        hlc: this.#hlc,
        // Every other machine takes its time with what a large epoch would take.
        inlineBytes: this.index % 2 === 0 ? 0 : undefined,
      },
      { ...this.disk.load(), ...this.#welcome },
    );
    watch.started(this);
    this.#step({ type: 'start' });
  }

  /** The process is gone at once, perhaps with a write that got to the disk all the same. */
  kill(): void {
    const { network, random, trace } = this.#world;
    if (!this.isUp) return;
    if (this.#writing !== undefined && random.below(2) === 0) this.#write(this.#writing);
    trace.add(`${this.name} is killed`);
    this.member = undefined;
    this.process++;
    this.#writing = undefined;
    this.#admitted.clear();
    this.#tickets = new Map();
    this.pausedUntilMs = 0;
    this.#inbox.length = 0;
    this.isDoomed = false;
    network.gone(this);
  }

  /** Goes on under another id, over this disk. It is to be admitted. */
  renew(disk: MemoryDisk): void {
    this.kill();
    this.name = `${this.name}'`;
    this.replica = replicaOf(this.name);
    this.key = keyOf(this.name);
    this.disk = disk;
    this.standing = 'joining';
    this.backup = undefined;
    this.onOvertaken = undefined;
  }

  /** It is admitted: another member tells it who belongs to the cluster, and which epoch is open. */
  welcome({ member, disk }: SimNode): void {
    this.#welcome = {
      facts: [...disk.control.values()].filter(({ key }) => isFactKey(key)),
      firstEpoch: member!.openEpoch,
    };
    this.standing = 'member';
  }

  // The network's side

  admits(other: Station): boolean {
    return this.#admitted.has((other as SimNode).key);
  }

  receive(from: Station, kind: 'datagram' | 'message', bytes: Uint8Array): void {
    this.handle({ type: kind, from: (from as SimNode).key, bytes });
  }

  link(other: Station, isUp: boolean): void {
    this.handle({ type: isUp ? 'linkUp' : 'linkDown', member: (other as SimNode).key });
  }

  // The process

  /** Hands it an input: at once, or in order when it goes on after standing still. Of what others sent meanwhile much is lost. */
  handle(input: MemberInput): void {
    if (!this.#isPaused && this.#inbox.length === 0) return this.#step(input);
    const isSent = input.type === 'datagram' || input.type === 'message';
    if (this.#inbox.length === 0) this.#wake();
    if (!isSent || this.#inbox.length < INBOX_MAX) this.#inbox.push(input);
  }

  /** Goes on after standing still, with what came meanwhile. */
  resume(): void {
    this.pausedUntilMs = 0;
    const { process } = this;
    for (const input of this.#inbox.splice(0)) if (this.process === process) this.#step(input);
  }

  get #isPaused(): boolean {
    return this.pausedUntilMs > this.#world.agenda.nowMs;
  }

  #wake(): void {
    const { agenda } = this.#world;
    const { process } = this;
    agenda.after(this.pausedUntilMs - agenda.nowMs, () => {
      if (this.process !== process) return;
      if (this.#isPaused) this.#wake();
      else this.resume();
    });
  }

  #step(input: MemberInput): void {
    const { member } = this;
    if (member === undefined) return;
    const { watch, trace } = this.#world;
    trace.add(`${this.name} < ${input.type}`, false);
    const effects = watch.guard(this, () => member.handle(input, this.now));
    for (const effect of effects) {
      trace.add(`${this.name} > ${effect.type}${'bytes' in effect ? ` ${effect.bytes.length}` : ''}`, false);
      if (this.member === member) this.#carry(effect);
    }
  }

  #carry(effect: MemberEffect): void {
    const { network, random, trace, watch, mutation } = this.#world;
    switch (effect.type) {
      case 'persist':
        return this.#persist(effect.batch);
      case 'send':
        return this.#to(effect.to, (other) => network.send(this, other, effect.bytes));
      case 'datagram':
        return this.#to(effect.to, (other) => network.datagram(this, other, effect.bytes));
      case 'timer':
        return this.#later(effect.afterMs, { type: 'timer', timer: effect.timer });
      case 'load':
        return this.#later(this.#world.random.below(5), () => this.#content(effect.digest));
      case 'done':
        return this.#done(effect.ticket, effect.epoch);
      case 'refused':
        this.#tickets.delete(effect.ticket);
        return;
      case 'folded':
        if (mutation === 'skipFolds' && this.index === 1 && effect.register.version % 2 === 0) return;
        return this.#fold(effect.replica, effect.register);
      case 'admitted':
        for (const { transportKey } of effect.replicas) this.#admitted.add(transportKey as MemberKey);
        return;
      case 'sealed':
        trace.add(`${this.name} has sealed epoch ${effect.epoch}`);
        return;
      case 'alarm':
      case 'misbehaviour':
        trace.add(`${this.name} ! ${JSON.stringify(effect)}`);
        watch.alarm(this, effect);
        if (effect.type === 'alarm' && effect.alarm.what === 'overtaken') this.onOvertaken?.();
        return;
      case 'member':
        trace.add(`${this.name} finds ${this.#nameOf(effect.change.member.replica)} ${effect.change.to}`);
        return;
      case 'visible':
        return;
      case 'readSealed': {
        const { from, to } = effect;
        return this.#later(this.#world.random.below(5), () => ({
          type: 'sealedRead',
          to,
          epochs: this.disk.sealedFrom(from).slice(0, SHOWN_MAX),
        }));
      }
      case 'compute': {
        const { name, job } = effect;
        watch.computes(this, name);
        return this.#later(random.below(100), () => ({
          type: 'computed',
          name,
          result: compute(job, mutation === 'otherSalts' && this.index === 1 ? OTHER_CRYPTO : cheapCrypto),
        }));
      }
      case 'stage':
        return this.#later(0, { type: 'staged', epoch: effect.sealed.epoch });
    }
  }

  #later(ms: number, input: MemberInput | (() => MemberInput)): void {
    const { process } = this;
    this.#world.agenda.after(ms, () => {
      if (this.process === process) this.handle(typeof input === 'function' ? input() : input);
    });
  }

  #to(key: MemberKey, send: (other: SimNode) => void): void {
    const other = this.#world.nodes.find((node) => node.key === key);
    if (other !== undefined) send(other);
  }

  #nameOf(replica: ReplicaId): string {
    return this.#world.nodes.find((node) => node.replica === replica)?.name ?? replica.slice(0, 8);
  }

  #fold(replica: ReplicaId, register: Parameters<View['fold']>[1]): void {
    this.view.fold(replica, register, this.wallMs);
  }

  #watched(signer: Signer): Signer {
    return {
      publicKey: signer.publicKey,
      sign: (message) => {
        this.#world.watch.cosigned(this.replica, message);
        return signer.sign(message);
      },
    };
  }

  // The disk

  #persist(batch: Batch): void {
    const { agenda, random, mutation } = this.#world;
    const { process } = this;
    this.#writing = batch;
    const { number } = batch;
    const isStuck = mutation === 'neverSeal' && this.index === 0 && batch.seal !== null;
    if (mutation === 'ackBeforeWrite') this.#later(0, { type: 'persisted', number });
    const slowMs = mutation === 'ackBeforeWrite' ? 2_000 : 0;
    agenda.after(1 + slowMs + random.below(this.writeMsMax), () => {
      if (this.process !== process) return;
      const isVote = batch.seal !== null || batch.control.some(({ key }) => /^(close|ballot|seal)\//.test(key));
      const isLast = this.isDoomed && isVote;
      if (isLast && random.below(2) === 0) return this.#die();
      if (this.isFull || isStuck) return this.#later(0, { type: 'full', number });
      this.#write(batch);
      if (isLast) return this.#die();
      if (mutation !== 'ackBeforeWrite') this.#later(random.below(3), { type: 'persisted', number });
    });
  }

  #die(): void {
    const { agenda, random } = this.#world;
    this.kill();
    agenda.after(200 + random.below(3_000), () => this.start());
  }

  #write(batch: Batch): void {
    if (this.#writing === batch) this.#writing = undefined;
    const { mutation, watch } = this.#world;
    const written = mutation === undefined ? batch : spoilBatch(this, batch, mutation);
    this.disk.apply(written);
    watch.written(this, written);
  }

  #content(digest: Digest): MemberInput {
    return { type: 'content', digest, bytes: this.disk.content(digest) };
  }

  // The work

  /** Does something that a client or an operator might ask for. */
  work(): void {
    const { random } = this.#world;
    if (this.standing === 'leaving') return;
    if (this.isUp && random.below(4) > 0) this.#meter(1 + random.below(3));
    else if (this.isUp) this.write(this.#change());
  }

  #meter(requests: number): void {
    const { random, mutation, watch } = this.#world;
    const [customer, sku] = [CUSTOMERS[random.below(CUSTOMERS.length)]!, SKUS[random.below(SKUS.length)]!];
    watch.attempted(customer, requests);
    for (let times = mutation === 'countTwice' ? 2 : 1; times > 0; times--) {
      const ticket = this.#ticket({ kind: 'meter', customer, requests });
      this.handle({ type: 'meter', ticket, customer: customer as CustomerId, sku, usage: usageOf(requests) });
    }
  }

  write(writes: readonly Write[]): void {
    this.handle({ type: 'write', ticket: this.#ticket({ kind: 'write', writes }), writes });
  }

  #change(): Write[] {
    const { random } = this.#world;
    const known = [...this.view.issued].filter((id) => !this.view.revoked.has(id));
    const choice = random.below(3);
    if (choice === 0) return [{ key: issuedKey(`${this.name}-${this.process}-${this.#lastTicket}`), value: '{}' }];
    if (choice === 1 && known.length > 5) return [{ key: revokedKey(known[random.below(known.length)]!), value: '{}' }];
    const value = lwwValue(this.#hlc.now(this.wallMs), random.below(1_000));
    return [{ key: lwwKey('m', `setting-${random.below(6)}`), value }];
  }

  #ticket(ticket: Ticket): number {
    // No two processes of a machine use one ticket: the disk remembers them all.
    const number = this.process * 1_000_000 + ++this.#lastTicket;
    this.#tickets.set(number, ticket);
    return number;
  }

  #done(number: number, epoch: number): void {
    const ticket = this.#tickets.get(number);
    this.#tickets.delete(number);
    if (ticket?.kind === 'meter') this.#world.watch.metered(this, number, epoch);
    else if (ticket !== undefined) this.#world.watch.changed(this, ticket.writes);
  }
}

/** Every keyed hash is another one. */
const OTHER_CRYPTO: Crypto = {
  ...cheapCrypto,
  hmacSha256: (key, message) => cheapCrypto.sha256(cheapCrypto.hmacSha256(key, message)),
};

const keyOf = (name: string): MemberKey => base64.encode(keysOf(name).transport.publicKey) as MemberKey;
