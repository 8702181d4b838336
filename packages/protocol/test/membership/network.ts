import { createHash, type Hash } from 'node:crypto';
import { base64, hex, seededRandom, utf8, type ClusterId, type Random, type Run } from '../../src/base/index.ts';
import {
  memberOf,
  Membership,
  type Effect,
  type Input,
  type Member,
  type MemberChange,
  type MemberKey,
  type MemberState,
  type TimerInput,
} from '../../src/membership/index.ts';
import { nodeCrypto } from '../support.ts';

export const CLUSTER = 'c1'.repeat(32) as ClusterId;

/** The member of a name; the same key with another replica id for another `disk`. */
export const memberNamed = (name: string, disk = 0): Member =>
  memberOf(
    base64.encode(nodeCrypto.sha256(utf8(name))),
    hex.encode(nodeCrypto.sha256(utf8(`${name} ${disk}`)).subarray(0, 16)),
  );

export interface Change extends MemberChange {
  readonly atMs: number;
  readonly by: Member;
}

/** One process: what a node is from a start to its end. */
export interface Process {
  readonly member: Member;
  readonly core: Membership;
  up: boolean;
  /** Stopped from `stopAtMs` on for `stopMs`, then running for `runMs`, and so on until `untilMs`. */
  stops: { atMs: number; stopMs: number; runMs: number; untilMs: number } | undefined;
  bytes: number;
  datagrams: number;
  longest: number;
}

interface Event {
  readonly atMs: number;
  /** Among events of one ms: datagrams (0) before timers (1), as the effect `timer` asks for. */
  readonly rank: number;
  readonly order: number;
  readonly process: Process | undefined;
  readonly act: () => void;
}

const before = (a: Event, b: Event): boolean =>
  a.atMs !== b.atMs ? a.atMs < b.atMs : a.rank !== b.rank ? a.rank < b.rank : a.order < b.order;

/** A binary heap. */
class Queue {
  readonly #heap: Event[] = [];

  push(event: Event): void {
    const heap = this.#heap;
    let i = heap.push(event) - 1;
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (!before(event, heap[up]!)) break;
      heap[i] = heap[up]!;
      i = up;
    }
    heap[i] = event;
  }

  get first(): Event | undefined {
    return this.#heap[0];
  }

  pop(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let down = 2 * i + 1;
      if (down >= heap.length) break;
      if (down + 1 < heap.length && before(heap[down + 1]!, heap[down]!)) down++;
      if (!before(heap[down]!, last)) break;
      heap[i] = heap[down]!;
      i = down;
    }
    heap[i] = last;
    return first;
  }
}

export interface NetworkOptions {
  readonly seed: number;
  /** Datagrams lost, in per cent. */
  readonly loss?: number;
  /** Datagrams that come twice, in per cent. */
  readonly duplication?: number;
  /** Least and most delay of a datagram in ms: those between overtake each other. */
  readonly delayMs?: readonly [number, number];
  /** Every how many ms each node exchanges its full state with a random live one; never without. */
  readonly exchangeMs?: number;
  /** Whether a process that was stopped handles its timers before what came meanwhile, against the contract. */
  readonly timersFirst?: boolean;
  /** Whether each process measures every second how late its event loop is. */
  readonly sampleLag?: boolean;
}

/** A network in virtual time: one queue, one seeded generator; one seed, one run. */
export class Network {
  nowMs = 1_000_000;
  readonly random: Random;
  readonly changes: Change[] = [];
  readonly #queue = new Queue();
  readonly #options: Required<NetworkOptions>;
  readonly #byKey = new Map<MemberKey, Process>();
  readonly #trace: Hash = createHash('sha256');
  #order = 0;
  #runs = 0;
  #tap: ((bytes: Uint8Array, from: Process, to: Process) => void) | undefined;
  #reachable: (from: MemberKey, to: MemberKey) => boolean = () => true;
  loss: number;

  constructor(options: NetworkOptions) {
    this.#options = {
      loss: 0,
      duplication: 0,
      delayMs: [1, 5],
      exchangeMs: 0,
      timersFirst: false,
      sampleLag: false,
      ...options,
    };
    this.random = seededRandom(options.seed);
    this.loss = this.#options.loss;
  }

  /** Processes that were started last under their keys, up or not, in the order of the first start. */
  get processes(): Process[] {
    return [...this.#byKey.values()];
  }

  /** Hash of every effect so far, in order. */
  get trace(): string {
    return this.#trace.copy().digest('hex');
  }

  /** Starts a process of a member: a later one under a key takes its place. */
  start(member: Member, known: readonly Member[], seeds: readonly Member[]): Process {
    const random = seededRandom(this.random.below(2 ** 32));
    const core = new Membership({ cluster: CLUSTER, self: member, run: ++this.#runs as Run, random });
    const process: Process = { member, core, up: true, stops: undefined, bytes: 0, datagrams: 0, longest: 0 };
    const earlier = this.#byKey.get(member.key);
    if (earlier !== undefined) earlier.up = false;
    this.#byKey.set(member.key, process);
    this.input(process, { type: 'known', members: known });
    this.input(process, { type: 'join', seeds });
    if (this.#options.exchangeMs > 0) this.#exchangeLater(process);
    if (this.#options.sampleLag) this.#sampleLag(process);
    return process;
  }

  /** Members that were each told of all others; `known` may have more of them. */
  found(members: readonly Member[], known: readonly Member[] = members): Process[] {
    const processes = members.map((member) => this.start(member, known, []));
    const frames = members.map((member) => ({ from: member.key, bytes: aliveFrame(member) }));
    for (const { core, member } of processes)
      for (const { from, bytes } of frames)
        if (from !== member.key) core.handle({ type: 'exchange', from, bytes }, this.nowMs);
    return processes;
  }

  process(member: Member): Process {
    return this.#byKey.get(member.key)!;
  }

  crash(member: Member): void {
    this.process(member).up = false;
  }

  /** Sees every datagram that arrives. */
  tap(tap: (bytes: Uint8Array, from: Process, to: Process) => void): void {
    this.#tap = tap;
  }

  /** Only members of one group reach each other; those in none reach nobody. Without groups: everybody. */
  partition(...groups: readonly (readonly Member[])[]): void {
    const group = new Map<MemberKey, number>();
    groups.forEach((members, i) => members.forEach(({ key }) => group.set(key, i)));
    this.#reachable = (from, to) => groups.length === 0 || (group.has(from) && group.get(from) === group.get(to));
  }

  /** What may reach whom, one way. */
  route(reachable: (from: MemberKey, to: MemberKey) => boolean): void {
    this.#reachable = reachable;
  }

  input(process: Process, input: Input): void {
    if (!process.up) return;
    for (const effect of process.core.handle(input, this.nowMs)) this.#carryOut(process, effect);
  }

  /** Both sides' full states, over a reliable stream: it is there or it is not. */
  exchange(a: Process, b: Process): void {
    if (!a.up || !b.up || !this.#reachable(a.member.key, b.member.key)) return;
    const [fromA, fromB] = [a.core.exchangeFrames(), b.core.exchangeFrames()];
    for (const bytes of fromA) this.input(b, { type: 'exchange', from: a.member.key, bytes });
    for (const bytes of fromB) this.input(a, { type: 'exchange', from: b.member.key, bytes });
  }

  at(afterMs: number, act: () => void): void {
    this.#push(afterMs, 1, undefined, act);
  }

  /**
   * Runs until the condition holds, asked after every change that some node notices and every 100 virtual ms; for so many
   * virtual ms at most. Gives whether it held.
   */
  runUntil(holds: () => boolean, ms: number): boolean {
    const end = this.nowMs + ms;
    let [asked, changes] = [this.nowMs, -1];
    for (;;) {
      if (changes !== this.changes.length || this.nowMs - asked >= 100) {
        if (holds()) return true;
        [asked, changes] = [this.nowMs, this.changes.length];
      }
      const event = this.#queue.first;
      if (event === undefined || event.atMs > end) break;
      this.#step(this.#queue.pop()!);
    }
    this.nowMs = end;
    return holds();
  }

  run(ms: number): void {
    this.runUntil(() => false, ms);
  }

  /** How many processes that are up hold a member for being in a state, itself not counted. */
  holding(member: Member, ...states: readonly MemberState[]): number {
    return this.up.filter((process) => {
      if (process.member.id === member.id) return false;
      const state = process.core.members().find(({ replica }) => replica === member.replica)?.state;
      return state !== undefined && states.includes(state);
    }).length;
  }

  get up(): Process[] {
    return this.processes.filter(({ up }) => up);
  }

  /** Whether all that are up hold exactly those that are up for alive. */
  get converged(): boolean {
    const up = this.up;
    const replicas = up.map(({ member }) => member.replica as string).sort();
    return up.every(({ core }) => {
      const alive = core.members().filter(({ state }) => state === 'alive');
      return alive.length === replicas.length && alive.every(({ replica }, i) => replica === replicas[i]);
    });
  }

  #carryOut(process: Process, effect: Effect): void {
    if (effect.type === 'notify') {
      const { member, from, to, incarnation } = effect.change;
      this.#trace.update(`${this.nowMs} ${process.member.key} ${member.replica} ${from} ${to} ${incarnation}\n`);
      this.changes.push({ ...effect.change, atMs: this.nowMs, by: process.member });
      return;
    }
    if (effect.type === 'timer') {
      const { input } = effect;
      this.#push(effect.afterMs, 1, process, () => this.input(process, input satisfies TimerInput));
      return;
    }
    if (effect.type === 'twoRuns') {
      this.#trace.update(
        `${this.nowMs} ${process.member.key} ${effect.member.replica} ${effect.newest} ${effect.older}\n`,
      );
      return;
    }
    const { bytes, to } = effect;
    this.#trace.update(bytes);
    process.bytes += bytes.length;
    process.datagrams++;
    process.longest = Math.max(process.longest, bytes.length);
    const copies = this.random.below(100) < this.#options.duplication ? 2 : 1;
    for (let i = 0; i < copies; i++) this.#deliver(process, to, bytes);
  }

  #deliver(sender: Process, to: MemberKey, bytes: Uint8Array): void {
    const from = sender.member.key;
    if (this.random.below(1_000) < this.loss * 10 || !this.#reachable(from, to)) return;
    const [least, most] = this.#options.delayMs;
    const process = this.#byKey.get(to);
    if (process === undefined) return;
    this.#push(least + this.random.below(most - least + 1), 0, process, () => {
      this.#tap?.(bytes, sender, process);
      this.input(process, { type: 'datagram', from, bytes });
    });
  }

  #exchangeLater(process: Process): void {
    this.#push(1 + this.random.below(this.#options.exchangeMs * 2), 1, process, () => {
      if (!process.up) return;
      const live = process.core
        .members()
        .filter(({ state, member }) => state === 'alive' && member !== process.member.key);
      const other = live.length > 0 ? this.#byKey.get(live[this.random.below(live.length)]!.member) : undefined;
      if (other !== undefined) this.exchange(process, other);
      this.#exchangeLater(process);
    });
  }

  #sampleLag(process: Process): void {
    const dueMs = this.nowMs + 1_000;
    this.#push(1_000, 1, process, () => {
      if (!process.up) return;
      this.input(process, { type: 'loopLag', lagMs: this.nowMs - dueMs });
      this.#sampleLag(process);
    });
  }

  #push(afterMs: number, rank: number, process: Process | undefined, act: () => void): void {
    this.#queue.push({ atMs: this.nowMs + afterMs, rank, order: this.#order++, process, act });
  }

  #step(event: Event): void {
    this.nowMs = event.atMs;
    const stops = event.process?.stops;
    if (stops !== undefined && event.atMs >= stops.atMs && event.atMs < stops.untilMs) {
      const phase = (event.atMs - stops.atMs) % (stops.stopMs + stops.runMs);
      if (phase < stops.stopMs) {
        // It waits for the process; `order` keeps those of one rank as they came.
        const rank = this.#options.timersFirst ? 1 - event.rank : event.rank;
        this.#queue.push({ ...event, atMs: event.atMs + stops.stopMs - phase, rank });
        return;
      }
    }
    event.act();
  }
}

/** What a member that knows nobody says in an exchange. */
function aliveFrame(member: Member): Uint8Array {
  const core = new Membership({ cluster: CLUSTER, self: member, run: 1 as Run, random: seededRandom(0) });
  return core.exchangeFrames()[0]!;
}

/** The middle of some figures, and the highest. */
export const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;
export const most = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), -Infinity);
