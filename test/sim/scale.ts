import { base64, hex, seededRandom, utf8 } from '../../packages/protocol/src/base/index.ts';
import type { ClusterId, Random, ReplicaId, Run } from '../../packages/protocol/src/base/index.ts';
import { equalControl, equalUsageRow, Registers, signControl } from '../../packages/protocol/src/lattice/index.ts';
import type { ControlRegister, UsageRow, WriterId } from '../../packages/protocol/src/lattice/index.ts';
import {
  memberOf,
  Membership,
  type Effect,
  type Input,
  type Member,
  type MemberChange,
  type MemberKey,
} from '../../packages/protocol/src/membership/index.ts';
import {
  Replication,
  type ReplicationEffect,
  type ReplicationInput,
} from '../../packages/protocol/src/replication/index.ts';
import { cheapCrypto, cheapSigner } from '../../packages/protocol/test/member/harness.ts';
import { Agenda } from './agenda.ts';

const CLUSTER = '5ca1e'.padEnd(64, '0') as ClusterId;
/** Virtual ms until the measurement begins, and at most those until the crash at its end is known to all. */
const WARM_MS = 5_000;
const CRASH_MS_MAX = 60_000;
/** Between two rumors, in ms. */
const RUMOR_MS = 500;
/** Latency of a datagram, in ms: of one network. */
const LATENCY_MS = [1, 5] as const;
/** What a lost packet costs on a reliable link, in ms: the least retransmission timeout of most stacks. */
const RESEND_MS = 200;

export interface ScaleOptions {
  readonly seed: number;
  readonly nodes: number;
  /** Virtual seconds of the measurement. */
  readonly seconds: number;
  /** Packets lost, of 1 000. */
  readonly lossPerMille: number;
}

/** Median and 99th percentile, in virtual ms. */
export interface Spread {
  readonly medianMs: number;
  readonly p99Ms: number;
}

export interface ScaleResult {
  readonly rumors: number;
  /** Rumors that had not come to everyone by the end. */
  readonly unfinished: number;
  /** From a write until every node has it; and until one node has it. */
  readonly toAll: Spread;
  readonly toOne: Spread;
  /** Suspicions of members that were there, however many nodes shared them; and those that were found dead so. */
  readonly falselySuspected: number;
  readonly falselyDead: number;
  /** Per node and second, sent. */
  readonly membershipBytes: number;
  readonly replicationBytes: number;
  readonly datagrams: number;
  readonly messages: number;
  /** From a crash until the first node, and until the last one, finds the member dead. */
  readonly crash: { readonly firstMs: number; readonly lastMs: number };
}

/**
 * Membership and replication of many nodes, without usage, seals and disks: how fast news is everywhere, who is wrongly taken for
 * dead, and what it costs. Every two nodes have a link.
 */
export class Scale {
  readonly #options: ScaleOptions;
  readonly #agenda = new Agenda();
  readonly #random: Random;
  readonly #nodes: ScaleNode[] = [];
  readonly #byKey = new Map<MemberKey, ScaleNode>();
  readonly #byReplica = new Map<ReplicaId, ScaleNode>();
  /** By register key: when it was written, and how many nodes have it. */
  readonly #rumors = new Map<string, { readonly atMs: number; readonly tookMs: number[] }>();
  readonly #deathsMs: number[] = [];
  /** By member and incarnation. */
  readonly #falselySuspected = new Set<string>();
  readonly #falselyDead = new Set<string>();
  #sent = { membershipBytes: 0, replicationBytes: 0, datagrams: 0, messages: 0 };

  constructor(options: ScaleOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
    for (let index = 0; index < options.nodes; index++) {
      const node = new ScaleNode(this, index, seededRandom(this.#random.below(2 ** 32)));
      this.#nodes.push(node);
      this.#byKey.set(node.member.key, node);
      this.#byReplica.set(node.member.replica, node);
    }
  }

  get nowMs(): number {
    return this.#agenda.nowMs;
  }

  run(): ScaleResult {
    const { seconds, nodes } = this.#options;
    this.#found();
    this.#agenda.runUntil(WARM_MS);
    this.#sent = { membershipBytes: 0, replicationBytes: 0, datagrams: 0, messages: 0 };
    this.#falselySuspected.clear();
    this.#falselyDead.clear();
    for (let ms = 0; ms < seconds * 1_000; ms += RUMOR_MS)
      this.#agenda.after(ms, () => this.#nodes[this.#random.below(nodes)]!.write(`rumor/${this.#rumors.size}`));
    this.#agenda.runUntil(WARM_MS + seconds * 1_000);
    const sent = { ...this.#sent };
    const falsely = { suspected: this.#falselySuspected.size, dead: this.#falselyDead.size };
    const crash = this.#crash();
    const took = [...this.#rumors.values()].map(({ tookMs }) => tookMs);
    const finished = took.filter(({ length }) => length === nodes - 1);
    const perNode = (sum: number): number => sum / nodes / seconds;
    return {
      rumors: took.length,
      unfinished: took.length - finished.length,
      toAll: spread(finished.map((each) => each.reduce((most, ms) => Math.max(most, ms), 0))),
      toOne: spread(took.flat()),
      falselySuspected: falsely.suspected,
      falselyDead: falsely.dead,
      membershipBytes: perNode(sent.membershipBytes),
      replicationBytes: perNode(sent.replicationBytes),
      datagrams: perNode(sent.datagrams),
      messages: perNode(sent.messages),
      crash,
    };
  }

  /** Everyone knows everyone, and holds what each has said of itself. */
  #found(): void {
    const members = this.#nodes.map(({ member }) => member);
    const first = this.#nodes.map((node) => ({ writer: node.member.replica, register: node.sign('node/self', 1) }));
    for (const node of this.#nodes) node.start(members, first);
    // Through one of them, as if each had joined by it.
    const seed = this.#nodes[0]!;
    for (const node of this.#nodes) if (node !== seed) seed.meet(node);
    for (const node of this.#nodes) if (node !== seed) node.meet(seed);
    for (const node of this.#nodes) node.begin();
  }

  #crash(): ScaleResult['crash'] {
    const atMs = this.nowMs;
    this.#nodes.at(-1)!.isUp = false;
    const isKnown = (): boolean => this.#deathsMs.length === this.#nodes.length - 1;
    while (!isKnown() && this.nowMs < atMs + CRASH_MS_MAX) this.#agenda.runUntil(this.nowMs + 100);
    return {
      firstMs: (this.#deathsMs[0] ?? Number.POSITIVE_INFINITY) - atMs,
      lastMs: isKnown() ? this.#deathsMs.at(-1)! - atMs : Number.POSITIVE_INFINITY,
    };
  }

  // What the nodes do

  keyOf(replica: ReplicaId): Uint8Array | undefined {
    return this.#byReplica.get(replica)?.signer.publicKey;
  }

  later(node: ScaleNode, ms: number, act: () => void): void {
    this.#agenda.after(ms, () => {
      if (node.isUp) act();
    });
  }

  datagram(from: Member, to: MemberKey, bytes: Uint8Array): void {
    this.#sent.datagrams++;
    this.#sent.membershipBytes += bytes.length;
    const other = this.#byKey.get(to)!;
    if (!this.#isLost()) this.later(other, this.#latencyMs(), () => other.datagram(from.key, bytes));
  }

  message(from: Member, to: ReplicaId, bytes: Uint8Array): void {
    this.#sent.messages++;
    this.#sent.replicationBytes += bytes.length;
    const other = this.#byReplica.get(to)!;
    let atMs = this.nowMs + this.#latencyMs();
    while (this.#isLost()) atMs += RESEND_MS;
    // Links keep order.
    atMs = Math.max(atMs, other.lastMs.get(from.replica) ?? 0);
    other.lastMs.set(from.replica, atMs);
    this.later(other, atMs - this.nowMs, () => other.message(from.replica, bytes));
  }

  wrote(key: string): void {
    this.#rumors.set(key, { atMs: this.nowMs, tookMs: [] });
  }

  heard(key: string): void {
    const rumor = this.#rumors.get(key);
    rumor?.tookMs.push(this.nowMs - rumor.atMs);
  }

  found({ member, to, incarnation }: MemberChange): void {
    const { isUp } = this.#byKey.get(member.key)!;
    const name = `${member.replica} ${incarnation}`;
    if (to === 'dead' && !isUp) this.#deathsMs.push(this.nowMs);
    else if (to === 'dead') this.#falselyDead.add(name);
    else if (to === 'suspect' && isUp) this.#falselySuspected.add(name);
  }

  #isLost(): boolean {
    return this.#random.below(1_000) < this.#options.lossPerMille;
  }

  #latencyMs(): number {
    return LATENCY_MS[0] + this.#random.below(LATENCY_MS[1] - LATENCY_MS[0] + 1);
  }
}

/** Both cores of a member with nothing else. */
class ScaleNode {
  isUp = true;
  readonly member: Member;
  readonly signer: ReturnType<typeof cheapSigner>;
  /** When the last message from each other arrives. */
  readonly lastMs = new Map<ReplicaId, number>();
  readonly #scale: Scale;
  readonly #control = new Registers<ControlRegister, ReplicaId>({ keysMax: 10_000, equal: equalControl });
  readonly #random: Random;
  readonly #live = new Set<ReplicaId>();
  readonly #dead = new Set<ReplicaId>();
  readonly #membership: Membership;
  #replication!: Replication;
  #hasBegun = false;

  constructor(scale: Scale, index: number, random: Random) {
    this.#scale = scale;
    this.#random = random;
    this.signer = cheapSigner(`scale ${index}`);
    const replica = hex.encode(cheapCrypto.sha256(utf8(`scale ${index}`)).subarray(0, 16));
    this.member = memberOf(base64.encode(this.signer.publicKey), replica);
    this.#membership = new Membership({ cluster: CLUSTER, self: this.member, run: 1 as Run, random });
  }

  sign(key: string, version: number): ControlRegister {
    return signControl(this.signer, CLUSTER, this.member.replica, { key, value: '{"at":"somewhere"}', version });
  }

  start(
    known: readonly Member[],
    first: readonly { readonly writer: ReplicaId; readonly register: ControlRegister }[],
  ): void {
    for (const { writer, register } of first) this.#control.restore(writer, register);
    this.#control.restored(first.map(({ writer }) => [writer, 1] as const));
    this.#replication = new Replication({
      cluster: CLUSTER,
      replica: this.member.replica,
      run: 1 as Run,
      crypto: cheapCrypto,
      random: this.#random,
      control: this.#control,
      usage: new Registers<UsageRow, WriterId>({ keysMax: 1, equal: equalUsageRow }),
      keyOf: (replica) => this.#scale.keyOf(replica),
    });
    this.#inform({ type: 'known', members: known.filter(({ key }) => key !== this.member.key) });
    this.#inform({ type: 'join', seeds: [] });
  }

  /** Takes in all that another one knows of the members. */
  meet(other: ScaleNode): void {
    for (const bytes of other.#membership.exchangeFrames())
      this.#inform({ type: 'exchange', from: other.member.key, bytes });
  }

  begin(): void {
    this.#hasBegun = true;
    this.#replicate({ type: 'start' });
    this.#reach();
  }

  write(key: string): void {
    const { replica } = this.member;
    this.#scale.wrote(key);
    this.#control.apply(replica, [this.sign(key, this.#control.upTo(replica) + 1)]);
    this.#replicate({ type: 'written' });
  }

  datagram(from: MemberKey, bytes: Uint8Array): void {
    this.#inform({ type: 'datagram', from, bytes });
  }

  message(from: ReplicaId, bytes: Uint8Array): void {
    this.#replicate({ type: 'message', from, bytes });
  }

  #inform(input: Input): void {
    const effects = this.#membership.handle(input, this.#scale.nowMs);
    for (const effect of effects) this.#tell(effect);
    if (this.#hasBegun && effects.some(({ type }) => type === 'notify')) this.#reach();
  }

  #tell(effect: Effect): void {
    if (effect.type === 'send') this.#scale.datagram(this.member, effect.to, effect.bytes);
    else if (effect.type === 'timer') this.#scale.later(this, effect.afterMs, () => this.#inform(effect.input));
    else if (effect.type === 'notify') this.#noticed(effect.change);
  }

  #noticed(change: MemberChange): void {
    const { member, to } = change;
    if (to === 'alive' || to === 'suspect') this.#live.add(member.replica);
    else this.#live.delete(member.replica);
    if (to === 'dead') this.#dead.add(member.replica);
    else this.#dead.delete(member.replica);
    this.#scale.found(change);
  }

  #reach(): void {
    this.#replicate({ type: 'members', live: [...this.#live], dead: [...this.#dead], left: [] });
  }

  #replicate(input: ReplicationInput): void {
    for (const effect of this.#replication.handle(input, this.#scale.nowMs)) this.#carry(effect);
  }

  #carry(effect: ReplicationEffect): void {
    if (effect.type === 'send') this.#scale.message(this.member, effect.to, effect.bytes);
    else if (effect.type === 'timer') this.#scale.later(this, effect.afterMs, () => this.#replicate(effect.input));
    else if (effect.type === 'joined') for (const { register } of effect.changes) this.#scale.heard(register.key);
  }
}

/** Of no values: NaN. */
export function spread(values: readonly number[]): Spread {
  const sorted = Float64Array.from(values).sort();
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN;
  return { medianMs: at(0.5), p99Ms: at(0.99) };
}
