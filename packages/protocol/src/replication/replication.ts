import { WaggleError, type ReplicaId, type Run } from '../base/index.ts';
import {
  controlRegisterBytes,
  DELTA_BYTES_MAX,
  decodeControlDelta,
  decodeUsageDelta,
  encodeControlDelta,
  encodeUsageDelta,
  equalControl,
  equalUsageRow,
  parseUsageWriter,
  usageRowSizer,
  usageWriter,
  verifyControl,
  type ControlRegister,
  type UsageRow,
  type WriterId,
} from '../lattice/index.ts';
import {
  COALESCE_MS,
  COMPARES_MAX,
  EXCHANGE_MS,
  FANOUT,
  GAP_MS,
  GOSSIP_MS,
  RUNS_MAX,
  VERSION_MAJOR,
  VERSION_MAJOR_MIN,
  VERSIONS_MS,
} from './constants.ts';
import { Contents } from './contents.ts';
import { Epochs } from './epochs.ts';
import { Exchange } from './exchange.ts';
import { decodeFrame, encodeFrame, type Frame } from './frames.ts';
import { Outbox } from './outbox.ts';
import { Rumors } from './rumors.ts';
import { Section, type Taken } from './section.ts';
import { newStats, type ReplicationStats } from './stats.ts';
import type { ClassName, Lag, ReplicationEffect, ReplicationInput, ReplicationOptions } from './types.ts';
import { Visibility } from './visibility.ts';

type Handlers = { readonly [T in Frame['type']]: (from: ReplicaId, frame: Extract<Frame, { type: T }>) => void };

/**
 * Anti-entropy (PROTOCOL section 2): rumors on change for `control`, push-pull exchanges for both classes, contents by digest.
 *
 * 1. The deltas of a message are decoded and verified before the first is joined; a bad one changes nothing but a counter.
 * 2. Nothing here waits for a member: every answer depends on the one message alone, and what is lost the next exchange finds.
 * 3. Dropped registers are taken out of a delta before it is joined, and its range stands: so the vector passes over them, they
 *    are no change again, and while they lack predecessors they are held by nobody who has dropped them.
 * 4. A writer forgotten by rule comes back only with a register that is not dropped.
 * 5. Nobody else's word about this node's own writer is joined.
 *
 * Who claims a longer range than he holds, or lies about usage, is outside the fault model: control registers are signed, usage
 * is authenticated by the closes.
 */
export class Replication {
  readonly #options: ReplicationOptions;
  readonly #stats = newStats();
  readonly #outbox: Outbox;
  readonly #control: Section<ControlRegister, ReplicaId>;
  readonly #usage: Section<UsageRow, WriterId>;
  readonly #rumors: Rumors;
  readonly #exchange: Exchange;
  readonly #contents: Contents;
  readonly #visibility: Visibility;
  readonly #epochs: Epochs;
  #live: readonly ReplicaId[] = [];
  #dead: readonly ReplicaId[] = [];
  /** Own control registers up to there have gone out as rumors, or are old. */
  #rumored: number;
  /** When the gap of a writer was last asked for. */
  readonly #gapsMs = new Map<string, number>();
  /** When a member of a version that is not understood was last told so. */
  readonly #foreignMs = new Map<ReplicaId, number>();
  /** Runs of other processes of this replica that were said. */
  readonly #otherRuns = new Set<Run>();
  /** The timers that are set: any other is stale. */
  #timers = { flush: 0, gossip: 0, exchange: 0 };
  #isHidden: boolean;
  #isFlushing = false;
  #isGossiping = false;
  #nowMs = 0;

  constructor(options: ReplicationOptions) {
    this.#options = options;
    const { cluster, replica, run, crypto, random, control, usage, keyOf } = options;
    this.#outbox = new Outbox(cluster, this.#stats);
    this.#control = new Section({
      name: 'control',
      registers: control,
      crypto,
      rules: options.controlRules,
      own: replica,
      isHidden: options.isHidden ?? false,
      replicaOf: (writer) => writer,
      keyOf,
      encode: encodeControlDelta,
      decode: decodeControlDelta,
      sizer: () => controlRegisterBytes,
      equal: equalControl,
      verify: (publicKey, writer, register) =>
        verifyControl(crypto, publicKey, options.boundTo?.(writer) ?? cluster, writer, register),
      joined: (writer, changes) => ({ type: 'joined', class: 'control', writer, changes }),
    });
    this.#usage = new Section({
      name: 'usage',
      registers: usage,
      crypto,
      rules: options.usageRules,
      own: usageWriter(replica, run),
      isHidden: false,
      replicaOf: (writer) => parseUsageWriter(writer).replica,
      keyOf,
      encode: encodeUsageDelta,
      decode: decodeUsageDelta,
      sizer: usageRowSizer,
      equal: equalUsageRow,
      verify: () => {},
      joined: (writer, changes) => ({ type: 'joined', class: 'usage', writer, changes }),
    });
    this.#rumors = new Rumors(this.#outbox, random);
    const sections = { control: this.#control, usage: this.#usage };
    this.#visibility = new Visibility(this.#outbox, {
      run,
      own: { control: () => this.#control.ownUpTo, usage: () => this.#usage.ownUpTo },
      heldOf: (name, writer, ofRun) =>
        name === 'control' ? control.upTo(writer) : usage.upTo(usageWriter(writer, ofRun)),
    });
    this.#exchange = new Exchange(this.#outbox, random, sections, (member, name, upTo) =>
      this.#visibility.learn(member, name, upTo),
    );
    this.#epochs = new Epochs(this.#outbox, random);
    this.#contents = new Contents(this.#outbox, random, crypto);
    this.#rumored = control.upTo(replica);
    this.#isHidden = options.isHidden ?? false;
  }

  get stats(): Readonly<ReplicationStats> {
    return this.#stats;
  }

  /** How old this node's view of what a member had is: what `coverage` and `asOf` of an answer are made of. */
  lag(member: ReplicaId, nowMs: number): Lag {
    return this.#exchange.lag(member, nowMs);
  }

  /** Whether this node has once compared all that it and the member show of `control`: so also what the member has of its own. */
  isCompared(member: ReplicaId): boolean {
    return this.#exchange.isCompared(member);
  }

  /** How many contents are being looked for. */
  get wanted(): number {
    return this.#contents.wanted;
  }

  /** The members that are known to hold this node's own registers of a class up to a version. */
  heldBy(name: ClassName, version: number): ReplicaId[] {
    return this.#visibility.heldBy(name, version, this.#live);
  }

  /** A frame that shows one control register, whoever wrote it; null if nobody that is shown holds it with that value. */
  frameOf(key: string, value: string): Uint8Array | null {
    const { cluster, control, replica } = this.#options;
    for (const writer of control.writers()) {
      const register = this.#isHidden && writer === replica ? undefined : control.get(writer, key);
      if (register?.value !== value) continue;
      const { version } = register;
      const delta = { writer, from: version - 1, to: version, end: version, registers: [register] };
      return encodeFrame(cluster, { type: 'rumor', deltas: [encodeControlDelta(delta)] });
    }
    return null;
  }

  /** Forgets a run by the rule of `usageRules.isForgotten`, which must hold for it from now on: registers, vector and all. */
  forget(writer: WriterId): void {
    this.#usage.forget(writer);
  }

  /** One step. `nowMs` never goes back. The effects are to be carried out in order. */
  handle(input: ReplicationInput, nowMs: number): ReplicationEffect[] {
    this.#nowMs = nowMs;
    switch (input.type) {
      case 'start':
        this.#timer('exchange', 1 + this.#options.random.below(EXCHANGE_MS));
        break;
      case 'message':
        this.#message(input.from, input.bytes);
        break;
      case 'flush':
      case 'gossip':
      case 'exchange':
        if (input.round === this.#timers[input.type]) this.#fire[input.type]();
        break;
      case 'members':
        this.#live = input.live;
        this.#dead = input.dead;
        this.#keep(new Set([...input.live, ...input.dead, ...input.left]));
        this.#compare();
        break;
      case 'show':
        this.#isHidden = false;
        this.#control.show();
        this.#scheduleFlush();
        this.#visibility.again(this.#live);
        break;
      case 'written':
        this.#scheduleFlush();
        break;
      case 'linkOpened':
        this.#exchange.abandon(input.member);
        if (this.#live.includes(input.member)) this.#exchange.openSome([input.member], 1, nowMs);
        break;
      case 'linkClosed':
        this.#exchange.abandon(input.member);
        this.#contents.linkClosed(input.member, this.#live);
        this.#visibility.linkClosed(input.member);
        this.#epochs.linkClosed(input.member, this.#live);
        break;
      case 'fetch':
        this.#contents.timer(input.digest, input.step, this.#live);
        break;
      case 'held':
        this.#contents.held(input.digest, input.bytes, this.#live);
        break;
      case 'absent':
        this.#contents.absent(input.digest);
        break;
      case 'want':
        this.#contents.want(input.digest, input.from, this.#live);
        break;
      case 'unwant':
        this.#contents.unwant(input.digest, this.#live);
        break;
      case 'follow':
        // Usage has no rumors.
        if (this.#visibility.follow(input.of, input.version, this.#live) && input.of === 'usage')
          this.#exchange.openSome(this.#live, FANOUT, nowMs);
        break;
      case 'follows':
        this.#visibility.timer(this.#live);
        break;
      case 'behind':
        this.#epochs.behind(input.from, input.hint, this.#live);
        break;
      case 'epochs':
        this.#epochs.timer(input.step, this.#live);
        break;
      case 'sealedRead':
        this.#epochs.read(input.to, input.epochs, this.#exchange.allowance(input.to));
        break;
      case 'runs':
        this.#outbox.send(input.member, { type: 'runs', newest: input.newest, older: input.older });
        break;
    }
    return this.#outbox.take();
  }

  readonly #fire = {
    flush: (): void => this.#flush(),
    gossip: (): void => {
      this.#isGossiping = false;
      this.#rumors.spread(this.#live);
      this.#gossip();
    },
    exchange: (): void => {
      this.#compare();
      this.#exchange.tick(this.#live, this.#dead, this.#nowMs);
      this.#timer('exchange', EXCHANGE_MS);
    },
  };

  #scheduleFlush(): void {
    if (this.#isFlushing || this.#isHidden) return;
    this.#isFlushing = true;
    this.#timer('flush', COALESCE_MS);
  }

  /** Own news since the last time, as rumors. */
  #flush(): void {
    const { control, replica } = this.#options;
    this.#isFlushing = false;
    const ids: string[] = [];
    for (let from = this.#rumored; from < control.upTo(replica);) {
      const delta = control.delta(replica, from, DELTA_BYTES_MAX, controlRegisterBytes)!;
      const id = rumorId({ writer: replica, range: delta });
      if (!this.#rumors.add(id, encodeControlDelta(delta), delta.registers.length, null)) break;
      ids.push(id);
      from = delta.to;
    }
    this.#rumored = control.upTo(replica);
    this.#rumors.spread(this.#live, ids);
    this.#gossip();
  }

  #gossip(): void {
    if (this.#isGossiping || this.#rumors.size === 0) return;
    this.#isGossiping = true;
    this.#timer('gossip', GOSSIP_MS);
  }

  #timer(type: 'flush' | 'gossip' | 'exchange', afterMs: number): void {
    this.#outbox.timer(afterMs, { type, round: ++this.#timers[type] });
  }

  #message(from: ReplicaId, bytes: Uint8Array): void {
    this.#stats.messages.in++;
    this.#stats.bytes.in += bytes.length;
    try {
      const frame = decodeFrame(this.#options.cluster, bytes);
      if (frame.type in this.#handlers)
        (this.#handlers[frame.type as Frame['type']] as Handlers['ask'])(from, frame as never);
      else this.#ignore(from, frame as Exclude<typeof frame, Frame>);
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      this.#outbox.misbehaviour(from, error.code);
      // Part of what it had is not here: nothing is to be concluded from what follows.
      this.#exchange.abandon(from);
    }
  }

  /** Counts what is not for this node; a member of another version is told which ones are understood here, and may know. */
  #ignore(from: ReplicaId, frame: Exclude<ReturnType<typeof decodeFrame>, Frame>): void {
    this.#stats[frame.type]++;
    if (frame.type === 'foreignVersion' && this.#isForeign(from, frame.major))
      this.#outbox.send(from, { type: 'versions', least: VERSION_MAJOR_MIN, most: VERSION_MAJOR });
  }

  /** Says once that a member speaks another version. Whether it was not told for a while. */
  #isForeign(member: ReplicaId, major: number): boolean {
    const lastMs = this.#foreignMs.get(member);
    if (lastMs !== undefined && this.#nowMs - lastMs < VERSIONS_MS) return false;
    if (lastMs === undefined) this.#outbox.add({ type: 'foreignVersion', from: member, major });
    this.#foreignMs.set(member, this.#nowMs);
    return true;
  }

  readonly #handlers: Handlers = {
    rumor: (from, { deltas }) => {
      const taken = this.#control.take(from, deltas, this.#outbox);
      const news = taken.filter(({ isNew }) => isNew);
      for (const each of taken) this.#rumors.heard(rumorId(each), from);
      const ids = news.map(rumorId);
      news.forEach(({ encoded, count }, i) => this.#rumors.add(ids[i]!, encoded.slice(), count, from));
      this.#rumors.spread(this.#live, ids);
      this.#gossip();
      for (const { writer, hasGap } of taken) if (hasGap) this.#askGap(from, writer);
      this.#progressed('control', taken);
    },
    open: (from, frame) => this.#exchange.onOpen(from, frame, this.#nowMs),
    answer: (from, frame) => this.#exchange.onAnswer(from, frame, this.#nowMs),
    vector: (from, frame) => this.#exchange.onVector(from, frame, this.#nowMs),
    want: (from, frame) => this.#exchange.onWant(from, frame, this.#nowMs),
    deltas: (from, frame) => {
      const { class: name, deltas } = frame;
      const section = name === 'control' ? this.#control : this.#usage;
      const taken = section.take(from, deltas, this.#outbox);
      this.#exchange.onTaken(from, frame, taken, this.#nowMs);
      this.#progressed(name, taken);
    },
    done: (from, frame) => this.#exchange.onDone(from, frame, this.#nowMs),
    ask: (from, frame) => this.#contents.onAsk(from, frame),
    have: (from, frame) => this.#contents.onHave(from, frame, this.#live),
    lack: (from, frame) => this.#contents.onLack(from, frame, this.#live),
    get: (from, frame) => this.#contents.onGet(from, frame, this.#exchange.allowance(from), this.#nowMs),
    chunk: (from, frame) => this.#contents.onChunk(from, frame, this.#live),
    follow: (from, frame) => this.#visibility.onFollow(from, frame),
    holds: (from, frame) => this.#visibility.onHolds(from, frame),
    epochs: (from, frame) => this.#epochs.onEpochs(from, frame, this.#exchange.allowance(from), this.#nowMs),
    sealed: (from, frame) => this.#epochs.onSealed(from, frame, this.#live),
    runs: (_, { newest, older }) => this.#compareRuns(newest, older),
    versions: (from, { most }) => {
      // That nothing is understood is to be known at both ends.
      if (most < VERSION_MAJOR_MIN) this.#isForeign(from, most);
    },
  };

  #progressed(name: ClassName, taken: readonly Taken[]): void {
    const replicas = taken
      .filter(({ isProgress }) => isProgress)
      .map(({ writer }) => (name === 'control' ? (writer as ReplicaId) : parseUsageWriter(writer).replica));
    for (const replica of new Set(replicas)) this.#visibility.progressed(name, replica);
  }

  /** A member hears two processes of this replica; unless both are earlier ones, this is one of them. */
  #compareRuns(newest: Run, older: Run): void {
    const { run } = this.#options;
    const other = newest > run ? newest : newest === run && older < run ? older : null;
    if (other === null || this.#otherRuns.has(other) || this.#otherRuns.size >= RUNS_MAX) return;
    this.#otherRuns.add(other);
    this.#outbox.add({ type: 'duplicate', run: other });
  }

  /** As long as it is hidden, it compares with everybody as soon as it can. */
  #compare(): void {
    if (!this.#isHidden) return;
    const others = this.#live.filter((member) => this.lag(member, this.#nowMs).control === null);
    this.#exchange.openSome(others, COMPARES_MAX, this.#nowMs);
  }

  #keep(members: ReadonlySet<ReplicaId>): void {
    this.#exchange.keep(members);
    this.#visibility.keep(members);
    for (const member of this.#foreignMs.keys()) if (!members.has(member)) this.#foreignMs.delete(member);
  }

  /** Asks whoever told of a register for those before it; often they are on their way already, so not each time. */
  #askGap(from: ReplicaId, writer: string): void {
    const lastMs = this.#gapsMs.get(writer);
    if (lastMs !== undefined && this.#nowMs - lastMs < GAP_MS) return;
    this.#gapsMs.set(writer, this.#nowMs);
    this.#exchange.ask(from, 0, 'control', this.#control.gap(writer));
  }
}

const rumorId = ({ writer, range: { from, to } }: Pick<Taken, 'writer' | 'range'>): string => `${writer}/${from}-${to}`;
