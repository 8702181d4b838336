import { expect } from 'vitest';
import { base64, compareText, digestOf, hex, jcs, present, seededRandom, utf8 } from '../../src/base/index.ts';
import type { CustomerId, Digest, Epoch, Json, Random, ReplicaId, Run } from '../../src/base/index.ts';
import { addUsage, ZERO_USAGE, type Usage } from '../../src/lattice/index.ts';
import {
  chainStart,
  clusterOf,
  compute,
  epochBounds,
  parseBallotState,
  quorumOf,
  Sealing,
} from '../../src/sealing/index.ts';
import type {
  ChainState,
  Cluster,
  HeldSlot,
  Roster,
  RosterEntry,
  SealedEpoch,
  SealingEffect,
  SealingInput,
  SealingRules,
} from '../../src/sealing/index.ts';
import { EMPTY_EDGE, type TileEdge } from '../../src/transparency/index.ts';
import { covers, encodeSlot, joinSlots, parseLines, slotName, type Slot, type SlotId } from '../../src/usage/index.ts';
import { cheapCrypto, cheapSigner } from '../member/harness.ts';
import { slotsIn, statementsIn } from '../support.ts';
import { usageOf } from './harness.ts';

export const EPOCH_MS = 20_000;
const START_MS = 1_700_000_000_000;

interface Versioned {
  readonly version: number;
  readonly value: string;
}

/** What of a member survives a crash. */
interface Disk {
  run: number;
  version: number;
  readonly own: Map<string, Versioned>;
  readonly contents: Map<Digest, Uint8Array>;
  readonly rows: Map<string, { id: SlotId; rows: Slot }>;
  readonly sealed: { readonly sealed: SealedEpoch; checkpoint: string }[];
  chain: ChainState;
  edge: TileEdge;
}

/** Ways in which a whole member does what it must not; each must be found. */
export interface Faults {
  readonly rules?: Partial<SealingRules>;
  /** A restart forgets its own closes, ballots and seals, and goes on under its id. */
  readonly amnesia?: boolean;
  /** A restart forgets its closes. */
  readonly closesTwice?: boolean;
  /** Rows of a sealed epoch go, counted or not. */
  readonly dropsUncounted?: boolean;
  /** Rows of sealed epochs are not taken any more. */
  readonly refusesLate?: boolean;
  readonly nextRoster?: typeof fakeNextRoster;
}

export const entryOf = (name: string): RosterEntry => ({
  replica: hex.encode(cheapCrypto.sha256(utf8(name)).subarray(0, 16)) as ReplicaId,
  transportKey: base64.encode(cheapSigner(`transport ${name}`).publicKey),
  logKey: base64.encode(cheapSigner(`log ${name}`).publicKey),
  cosignerKey: base64.encode(cheapSigner(`cosigner ${name}`).publicKey),
});

const factLine = (kind: 'admit' | 'retire', entry: RosterEntry): string =>
  `${jcs({ entry: { ...entry }, kind, replica: entry.replica })}\n`;

/** Roster changes without invites and signatures: retire wins over admit, and the last one stays. */
export function fakeNextRoster(roster: Roster, contents: readonly Uint8Array[], seen: ReadonlySet<ReplicaId>): Roster {
  const facts = contents.flatMap((bytes) => parseLines(bytes, 'a fact', (fact) => fact));
  const retired = new Set(facts.filter(({ kind }) => kind === 'retire').map(({ replica }) => replica));
  const next = new Map(roster.filter(({ replica }) => !retired.has(replica)).map((entry) => [entry.replica, entry]));
  for (const { kind, replica, entry } of facts)
    if (kind === 'admit' && !retired.has(replica) && seen.has(replica as ReplicaId))
      next.set(replica as ReplicaId, entry as unknown as RosterEntry);
  if (next.size === 0) return [roster[0]!];
  return [...next.values()].sort((a, b) => compareText(a.replica, b.replica));
}

export class Walker {
  readonly world: World;
  readonly name: string;
  readonly entry: RosterEntry;
  readonly disk: Disk;
  sealing!: Sealing;
  effects: SealingEffect[] = [];
  wanted = new Set<Digest>();
  /** Results that the process does not have yet. */
  #computed: SealingInput[] = [];
  /** Registers of all replicas as far as they were heard; lost with the process. */
  heard = new Map<ReplicaId, Map<string, Versioned>>();
  readonly facts = new Set<string>();
  isUp = true;
  isCut = false;

  constructor(world: World, name: string) {
    this.world = world;
    this.name = name;
    this.entry = entryOf(name);
    this.disk = {
      run: 0,
      version: 0,
      own: new Map(),
      contents: new Map(),
      rows: new Map(),
      sealed: [],
      chain: chainStart(world.cluster),
      edge: EMPTY_EDGE,
    };
    this.start();
  }

  get replica(): ReplicaId {
    return this.entry.replica;
  }

  start(firstEpoch?: Epoch): void {
    const { disk, world, name } = this;
    disk.run++;
    this.effects = [];
    this.wanted = new Set();
    this.#computed = [];
    this.heard = new Map();
    const { faults } = world;
    if (faults.amnesia) disk.own.clear();
    if (faults.closesTwice) for (const key of disk.own.keys()) if (key.startsWith('close/')) disk.own.delete(key);
    this.sealing = new Sealing({
      cluster: world.cluster,
      replica: this.replica,
      run: disk.run as Run,
      crypto: cheapCrypto,
      random: world.random,
      logSigner: cheapSigner(`log ${name}`),
      cosigner: cheapSigner(`cosigner ${name}`),
      slotsUpTo: (epoch): HeldSlot[] => [...disk.rows.values()].filter(({ id }) => id.epoch <= epoch),
      facts: () => {
        const bytes = utf8([...this.facts].sort(compareText).join(''));
        return { bytes, digest: digestOf(cheapCrypto, bytes) };
      },
      nextRoster: faults.nextRoster ?? fakeNextRoster,
      provenFacts: (content) => content,
      chain: disk.chain,
      edge: disk.edge,
      firstEpoch: firstEpoch ?? disk.chain.epoch,
      inlineBytes: world.inlineBytes,
      ...(faults.rules === undefined ? {} : { rules: faults.rules }),
    });
    this.heard.set(this.replica, new Map(disk.own));
    for (const bytes of disk.contents.values()) this.handle({ type: 'content', bytes });
    const keys = [...disk.own.keys()].sort((a, b) => Number(a.startsWith('close/')) - Number(b.startsWith('close/')));
    for (const key of keys)
      this.handle({ type: 'register', replica: this.replica, key, value: disk.own.get(key)!.value });
  }

  handle(input: SealingInput): void {
    this.effects.push(...this.sealing.handle(input, this.world.nowMs));
  }

  meter(customer: string, requests: number): void {
    const id: SlotId = { replica: this.replica, run: this.disk.run as Run, epoch: this.sealing.openEpoch };
    const held = this.disk.rows.get(slotName(id))?.rows ?? [];
    const before = held.find((row) => row.customer === customer)?.usage ?? ZERO_USAGE;
    const row = { customer: customer as CustomerId, sku: 'inspect', usage: addUsage(before, usageOf(requests)) };
    this.hold(id, [row]);
    this.world.acknowledge(id, [row], usageOf(requests));
  }

  hold(id: SlotId, rows: Slot): void {
    if (this.world.faults.refusesLate && id.replica !== this.replica && id.epoch < this.disk.chain.epoch) return;
    const name = slotName(id);
    this.disk.rows.set(name, { id, rows: joinSlots(this.disk.rows.get(name)?.rows ?? [], rows) });
  }

  /** Carries out the first so many effects as one transaction; then shows what is on disk. */
  commit(count = this.effects.length): void {
    const written: string[] = [];
    for (const effect of this.effects.splice(0, count)) {
      if (effect.type === 'content') this.disk.contents.set(effect.digest, effect.bytes);
      else if (effect.type === 'want') this.wanted.add(effect.digest);
      else if (effect.type === 'unwant') this.wanted.delete(effect.digest);
      else if (effect.type === 'improved') this.disk.sealed[effect.epoch]!.checkpoint = effect.checkpoint;
      else if (effect.type === 'sealed') this.#seal(effect.sealed);
      else if (effect.type === 'compute')
        this.#computed.push({ type: 'computed', name: effect.name, result: compute(effect.job, cheapCrypto) });
      else {
        this.disk.own.set(effect.key, { version: ++this.disk.version, value: effect.value });
        written.push(effect.key);
      }
    }
    for (const key of written) {
      const register = present(this.disk.own.get(key), key);
      this.world.wrote(this, key, register.value);
      this.hear(this.replica, key, register);
    }
  }

  #seal(sealed: SealedEpoch): void {
    const { disk } = this;
    expect(sealed.epoch).toBe(disk.sealed.length);
    this.world.sealed(this, sealed, disk.chain);
    disk.sealed.push({ sealed, checkpoint: sealed.checkpoint });
    disk.chain = sealed.outcome.next;
    disk.edge = sealed.edge;
    for (const { id, content } of slotsIn(sealed)) {
      const held = disk.rows.get(slotName(id));
      const isOwnOpen = id.replica === this.replica && id.run === disk.run && id.epoch >= this.sealing.openEpoch;
      if (held !== undefined && !isOwnOpen && covers(content, held.rows)) disk.rows.delete(slotName(id));
    }
    if (this.world.faults.dropsUncounted)
      for (const [name, { id }] of disk.rows)
        if (id.epoch <= sealed.epoch && id.replica !== this.replica) disk.rows.delete(name);
  }

  hear(replica: ReplicaId, key: string, register: Versioned): void {
    const of = this.heard.get(replica) ?? new Map<string, Versioned>();
    this.heard.set(replica, of);
    if (replica !== this.replica && (of.get(key)?.version ?? 0) >= register.version) return;
    of.set(key, register);
    this.handle({ type: 'register', replica, key, value: register.value });
  }

  /** Takes over the registers of another, all that it holds, of which each may be lost. */
  listen(other: Walker, lossPercent = 0): void {
    const { random } = this.world;
    for (const [replica, registers] of other.heard)
      if (replica !== this.replica)
        for (const [key, register] of registers)
          if (random.below(100) >= lossPercent) this.hear(replica, key, register);
  }

  /** Anti-entropy with one other: registers, rows, facts and sealed epochs. */
  exchange(other: Walker, lossPercent: number): void {
    const { random, showsSealed } = this.world;
    const arrives = (): boolean => random.below(100) >= lossPercent;
    this.listen(other, lossPercent);
    for (const { id, rows } of other.disk.rows.values())
      if (id.replica !== this.replica && arrives()) this.hold(id, rows);
    for (const fact of other.facts) if (arrives()) this.facts.add(fact);
    const { epoch } = this.disk.chain;
    for (const { sealed, checkpoint } of showsSealed ? other.disk.sealed.slice(epoch, epoch + 4) : [])
      if (arrives()) this.handle({ type: 'learned', header: sealed.value.header, checkpoint });
  }

  /** Closes what is over, and carries out what comes of it. */
  tick(): void {
    this.handle({ type: 'tick', membersClockMs: null });
    this.commit();
  }

  /** Gets what it wants, if its own disk or anyone who can be reached has it, and what was computed for it. */
  fetch(): void {
    for (const input of this.#computed.splice(0)) this.handle(input);
    for (const digest of this.wanted) {
      const from = [this, ...this.world.reachable(this)];
      const bytes = from.map(({ disk }) => disk.contents.get(digest)).find((found) => found !== undefined);
      if (bytes === undefined) continue;
      this.wanted.delete(digest);
      this.handle({ type: 'content', bytes });
    }
  }
}

export interface WorldOptions {
  readonly seed: number;
  readonly members: number;
  /** Named beside the members, admitted while it goes on. */
  readonly joiners?: number;
  readonly lossPercent?: number;
  readonly faults?: Faults;
  /** Whether members show each other sealed epochs; else only registers and contents. */
  readonly showsSealed?: boolean;
  /** Work that reads more bytes than that takes a while. */
  readonly inlineBytes?: number | undefined;
}

/** Members in memory, chance, and a judge who sees everything. */
export class World {
  readonly random: Random;
  readonly cluster: Cluster;
  readonly walkers: Walker[] = [];
  readonly faults: Faults;
  readonly lossPercent: number;
  readonly showsSealed: boolean;
  readonly inlineBytes: number | undefined;
  nowMs = START_MS;
  acknowledged: Usage = ZERO_USAGE;
  readonly #truth = new Map<string, Slot>();
  /** By replica and key, what was shown of closes and seals: never anything else. */
  readonly #shown = new Map<string, string>();
  /** By epoch: header, root, statements, and what they are. */
  readonly #said = new Map<Epoch, string>();
  readonly #closed = new Map<string, Slot>();
  /** By epoch and ballot, what a majority held when it was first prepared. */
  readonly #heldByMost = new Map<string, ReadonlyMap<string, Slot>>();
  /** By header: the ballot at which it was first proposed. */
  readonly #proposedAt = new Map<Digest, string>();
  recoveries = 0;
  lostDisks = 0;

  constructor({
    seed,
    members,
    joiners = 0,
    lossPercent = 20,
    faults = {},
    showsSealed = true,
    inlineBytes,
  }: WorldOptions) {
    this.random = seededRandom(seed);
    this.faults = faults;
    this.lossPercent = lossPercent;
    this.showsSealed = showsSealed;
    this.inlineBytes = inlineBytes;
    const names = Array.from({ length: members + joiners }, (_, i) => `w${i}`);
    const roster = names.slice(0, members).map(entryOf);
    const genesis = {
      format: 1 as const,
      name: 'waggle.example',
      operatorKey: entryOf('operator').transportKey,
      startMs: START_MS,
      epochMs: EPOCH_MS,
      sealGraceMs: 4_000,
      roster: roster.sort((a, b) => compareText(a.replica, b.replica)),
    };
    this.cluster = clusterOf(genesis, cheapCrypto);
    for (const name of names) this.walkers.push(new Walker(this, name));
  }

  get up(): Walker[] {
    return this.walkers.filter(({ isUp }) => isUp);
  }

  reachable(walker: Walker): Walker[] {
    return walker.isCut ? [] : this.up.filter((other) => other !== walker && !other.isCut);
  }

  admit(walker: Walker): void {
    this.up[0]!.facts.add(factLine('admit', walker.entry));
  }

  retire(walker: Walker): void {
    this.up[0]!.facts.add(factLine('retire', walker.entry));
  }

  acknowledge(id: SlotId, rows: Slot, more: Usage): void {
    const name = slotName(id);
    expect(this.#closed.has(name), `nothing is added to ${name} after its close`).toBe(false);
    this.#truth.set(name, joinSlots(this.#truth.get(name) ?? [], rows));
    this.acknowledged = addUsage(this.acknowledged, more);
  }

  /** A register of a member is on disk. Invariants 1 and 5: a close and a cosignature are written once, ever. */
  wrote(walker: Walker, key: string, value: string): void {
    const name = `${walker.replica} ${key}`;
    const [kind, epoch] = [key.slice(0, key.indexOf('/')), Number(key.slice(key.indexOf('/') + 1))];
    if (kind !== 'ballot') {
      expect(this.#shown.get(name) ?? value, `${walker.name} writes ${key} once`).toBe(value);
      this.#shown.set(name, value);
    }
    if (kind === 'close') {
      const run = (JSON.parse(value) as { run: Run }).run;
      const slot = slotName({ replica: walker.replica, run, epoch });
      this.#closed.set(slot, this.#truth.get(slot) ?? []);
    } else if (kind === 'ballot') this.#voted(walker, epoch, value);
    else expect(walker.sealing.openEpoch, 'signs what it has closed').toBeGreaterThan(epoch);
  }

  #voted(walker: Walker, epoch: Epoch, value: string): void {
    expect(walker.sealing.openEpoch, `${walker.name} votes on what it has closed`).toBeGreaterThan(epoch);
    const { promised, accepted } = parseBallotState(JSON.parse(value) as Json);
    const ballot = `${epoch} ${promised.round} ${promised.replica}`;
    if (promised.round > 0 && !this.#heldByMost.has(ballot)) {
      // Its own frontier is a little older than its register: what the starter holds does not count.
      this.#heldByMost.set(ballot, this.#majority(walker.disk.chain.roster, epoch, walker));
    }
    if (accepted !== null && !this.#proposedAt.has(accepted.value))
      this.#proposedAt.set(accepted.value, `${epoch} ${accepted.ballot.round} ${accepted.ballot.replica}`);
  }

  /** Of every slot up to an epoch, the rows that a majority has on disk: entry by entry. */
  #majority(roster: Roster, epoch: Epoch, starter: Walker): ReadonlyMap<string, Slot> {
    const disks = this.walkers.filter(
      (walker) => walker !== starter && roster.some((entry) => entry.replica === walker.replica),
    );
    const most = new Map<string, Slot>();
    for (const [name, truth] of this.#truth) {
      if (Number(name.slice(name.lastIndexOf('-') + 1)) > epoch) continue;
      const whole = disks.filter(({ disk }) => covers(disk.rows.get(name)?.rows ?? [], truth));
      if (truth.length > 0 && whole.length >= quorumOf(roster)) most.set(name, truth);
    }
    return most;
  }

  /** An epoch is sealed on a member's disk. */
  sealed(walker: Walker, sealed: SealedEpoch, before: ChainState): void {
    const { epoch, value } = sealed;
    const said = [
      hex.encode(value.header),
      hex.encode(sealed.root),
      ...statementsIn(sealed).map(({ text }) => text),
    ].join('\n');
    // Invariants 1 and 6.
    expect(this.#said.get(epoch) ?? said, `epoch ${epoch} at ${walker.name}`).toBe(said);
    const isNew = !this.#said.has(epoch);
    this.#said.set(epoch, said);
    // Invariant 2.
    for (const [i, { id, content }] of slotsIn(sealed).entries()) {
      const name = slotName(id);
      expect(covers(this.#truth.get(name) ?? [], content), `${name} is at most the truth`).toBe(true);
      if (value.slotList[i]!.closed)
        expect(encodeSlot(content)).toEqual(encodeSlot(present(this.#closed.get(name), name)));
    }
    const header = digestOf(cheapCrypto, value.header);
    const ballot = this.#proposedAt.get(header);
    if (!isNew || ballot === undefined) return;
    // Invariant 4, for values that were freely chosen: the first ballot at which a value is proposed.
    const most = this.#heldByMost.get(ballot);
    if (most === undefined) return;
    this.recoveries++;
    const counted = new Map(slotsIn(sealed).map(({ id, content }) => [slotName(id), content]));
    for (const [name, content] of most) {
      const isDone = !this.walkers.some(({ disk }) => disk.rows.has(name)) || this.#wasCounted(before, name, content);
      if (!isDone)
        expect(covers(counted.get(name) ?? [], content), `${name}, held by most, is in seal ${epoch}`).toBe(true);
    }
  }

  #wasCounted(before: ChainState, name: string, content: Slot): boolean {
    const counted = before.counted.get(name);
    if (counted === digestOf(cheapCrypto, encodeSlot(content))) return true;
    const [replica, run, epoch] = name.split('-');
    const ranges = before.closed.get(`${replica}/${run}` as never) ?? [];
    return ranges.some(([from, to]) => from <= Number(epoch) && Number(epoch) <= to);
  }

  /** What all statements say, at a member. */
  statements(walker: Walker): Usage {
    return walker.disk.sealed
      .flatMap(({ sealed }) => statementsIn(sealed))
      .flatMap(({ text }) => Object.values((JSON.parse(text) as { usage: Record<string, Usage> }).usage))
      .reduce(addUsage, ZERO_USAGE);
  }

  /** One random thing. */
  step(chances: { readonly crash: number; readonly cut: number }): void {
    const { random, up } = this;
    const walker = up[random.below(up.length)]!;
    const others = this.reachable(walker);
    const roll = random.below(100);
    if (roll < 20) walker.meter(`c${random.below(2)}`, 1 + random.below(3));
    else if (roll < 45) walker.commit(random.below(3) === 0 ? random.below(walker.effects.length + 1) : undefined);
    else if (roll < 65 && others.length > 0) walker.exchange(others[random.below(others.length)]!, this.lossPercent);
    else if (roll < 75) walker.fetch();
    else if (roll < 75 + chances.crash) {
      walker.commit(random.below(walker.effects.length + 1));
      walker.start();
    } else if (roll < 75 + chances.crash + chances.cut) walker.isCut = !walker.isCut;
    else {
      this.nowMs += random.below(1_500);
      walker.handle({ type: 'tick', membersClockMs: null });
    }
  }

  /** The time at which an epoch is over. */
  toEndOf(epoch: Epoch): void {
    this.nowMs = epochBounds(this.cluster.genesis, epoch).endMs;
  }

  /** A disk is destroyed, and what was only on it. */
  lose(walker: Walker): void {
    walker.isUp = false;
    this.lostDisks++;
  }

  /** The network is whole again: rounds until all who are up have sealed an epoch. Invariant 8: not for ever. */
  heal(epoch: Epoch, roundsMax = 600): void {
    for (const walker of this.up) walker.isCut = false;
    this.nowMs = Math.max(this.nowMs, epochBounds(this.cluster.genesis, epoch).endMs);
    for (let rounds = 0; this.up.some(({ disk }) => disk.chain.epoch <= epoch); rounds++) {
      expect(rounds, `epoch ${epoch} is sealed: ${this.up.map(({ disk }) => disk.chain.epoch).join()}`).toBeLessThan(
        roundsMax,
      );
      this.round();
    }
  }

  round(): void {
    for (const walker of this.up) {
      walker.tick();
      for (const other of this.reachable(walker)) walker.exchange(other, 0);
      walker.fetch();
      walker.commit();
    }
    this.nowMs += 500;
  }
}
