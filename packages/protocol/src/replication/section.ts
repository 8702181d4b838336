import { assert, compareText, equalBytes, hex, present, type Crypto, type ReplicaId } from '../base/index.ts';
import {
  DELTA_BYTES_MAX,
  type Delta,
  type Joined,
  type Range,
  type Register,
  type Registers,
} from '../lattice/index.ts';
import { BODY_BYTES_MAX, ENTRY_VERSIONS_MAX, STUCK_EXCHANGES_MAX, WRITERS_PER_REPLICA_MAX } from './constants.ts';
import { entryBytes, packedBytes, SHORT_DIGEST_BYTES, VERSION_LAST, type Entry, type Page } from './frames.ts';
import type { Budget, Outbox } from './outbox.ts';
import type { ClassName, DropRules, JoinedEffect } from './types.ts';

/** What is particular to a class of registers. */
interface SectionOptions<R extends Register, W extends string> {
  readonly name: ClassName;
  readonly registers: Registers<R, W>;
  readonly crypto: Crypto;
  readonly rules: DropRules<R, W> | undefined;
  /** The writer that is this node itself. Nobody else's word about it is ever joined. */
  readonly own: W;
  /** Whether the own writer is kept to ourselves until `show`. */
  readonly isHidden: boolean;
  readonly replicaOf: (writer: W) => ReplicaId;
  readonly keyOf: (replica: ReplicaId) => Uint8Array | undefined;
  readonly encode: (delta: Delta<R, W>) => Uint8Array;
  readonly decode: (bytes: Uint8Array) => Delta<R, W>;
  /** A `sizeOf` for one delta. */
  readonly sizer: () => (register: R) => number;
  readonly equal: (a: R, b: R) => boolean;
  /** Throws `SIGNATURE_INVALID`. */
  readonly verify: (publicKey: Uint8Array, writer: W, register: R) => void;
  readonly joined: (writer: W, changes: Joined<R>['changed']) => JoinedEffect;
}

/** What came of one delta. */
export interface Taken {
  readonly writer: string;
  readonly range: Range;
  readonly encoded: Uint8Array;
  /** Registers in it. */
  readonly count: number;
  /** Registers are new here: worth telling others. */
  readonly isNew: boolean;
  /** Anything has changed here, if only how far the vector or a catch-up reaches. */
  readonly isProgress: boolean;
  /** The writer is known to have written what is not held, and no catch-up is under way that brings it. */
  readonly hasGap: boolean;
}

const NOTHING = { isNew: false, isProgress: false, hasGap: false };

/** A section of either class. */
export type AnySection = Omit<Section, 'forget'>;

/** One class of registers as the protocol sees it: what we hold, what others lack, and what is taken from them. */
export class Section<R extends Register = Register, W extends string = string> {
  readonly #options: SectionOptions<R, W>;
  readonly #registers: Registers<R, W>;
  #isHidden: boolean;
  /** How far the own writer went at the start: what others hold beyond, this process has not written. */
  readonly #started: number;
  /** Writers of each replica that others told of. */
  readonly #writers = new Map<ReplicaId, Set<W>>();
  /** Catch-ups that did not get on, and in how many complete exchanges. */
  readonly #stuck = new Map<W, { reached: number; exchanges: number }>();
  /** Who sent the last piece of a catch-up, and had more. */
  readonly #sources = new Map<W, ReplicaId>();

  constructor(options: SectionOptions<R, W>) {
    this.#options = options;
    this.#registers = options.registers;
    this.#isHidden = options.isHidden;
    this.#started = this.#registers.upTo(options.own);
    for (const writer of this.#registers.writers()) this.#writersOf(writer).add(writer);
  }

  get name(): ClassName {
    return this.#options.name;
  }

  /** Up to where this node's own registers go. */
  get ownUpTo(): number {
    return this.#registers.upTo(this.#options.own);
  }

  /** What this node itself wrote, as others have it. */
  isOwn(writer: string): boolean {
    return writer === this.#options.own;
  }

  /** While the own writer is hidden it is equal to nobody's: digests tell versions apart, not what was written under them. */
  isSame(digest: Uint8Array): boolean {
    return !this.#isHidden && equalBytes(this.digest(), digest);
  }

  digest(): Uint8Array {
    if (this.#isHidden) return new Uint8Array(SHORT_DIGEST_BYTES);
    return hex.decode(this.#registers.digest(this.#options.crypto)).subarray(0, SHORT_DIGEST_BYTES);
  }

  /** All that is held, as pages of a vector. */
  pages(): Page[] {
    const pages: { after: string | null; through: string | null; entries: Entry[] }[] = [];
    let page = { after: null as string | null, through: null as string | null, entries: [] as Entry[] };
    let bytes = 0;
    pages.push(page);
    for (const writer of this.#registers.writers())
      for (const entry of this.#isHidden && this.isOwn(writer) ? this.#startEntries() : this.#entries(writer)) {
        if (bytes + entryBytes(entry) > BODY_BYTES_MAX) {
          page.through = page.entries.at(-1)!.writer;
          pages.push((page = { after: page.through, through: null, entries: [] }));
          bytes = 0;
        }
        page.entries.push(entry);
        bytes += entryBytes(entry);
      }
    return pages;
  }

  /** What a member with such a page of its vector lacks: encoded deltas, within the budget. */
  surplus({ after, through, entries }: Page, budget: Budget, outbox: Outbox): Uint8Array[] {
    const deltas = entries.flatMap((entry) => this.supply(entry, budget, outbox));
    const named = new Set(entries.map(({ writer }) => writer));
    for (const writer of this.#registers.writers()) {
      const isWithin =
        (after === null || compareText(writer, after) > 0) && (through === null || compareText(writer, through) <= 0);
      if (!isWithin || named.has(writer)) continue;
      const nothing = { writer, upTo: 0, reached: 0, after: 0, through: VERSION_LAST, pending: [] };
      deltas.push(...this.supply(nothing, budget, outbox));
    }
    return deltas;
  }

  /** What a member with that entry lacks of the writer: encoded deltas, within the budget. */
  supply(entry: Entry, budget: Budget, outbox: Outbox): Uint8Array[] {
    const { encode, sizer } = this.#options;
    const writer = entry.writer as W;
    const deltas: Uint8Array[] = [];
    if (this.#isHidden && this.isOwn(writer)) {
      budget.isHiding ||= this.#started > entry.reached;
      return deltas;
    }
    const push = (delta: Delta<R, W>): void => {
      const bytes = encode(delta);
      assert(packedBytes(bytes) <= BODY_BYTES_MAX, 'a delta fits into a frame');
      outbox.stats.registers[this.name].out += delta.registers.length;
      budget.left -= bytes.length;
      deltas.push(bytes);
    };
    for (let from = entry.reached; entry.after === entry.reached && from < this.#registers.upTo(writer);) {
      if (budget.left <= 0) {
        budget.isCut = true;
        return deltas;
      }
      const delta = this.#registers.delta(writer, from, Math.min(DELTA_BYTES_MAX, budget.left), sizer());
      from = present(delta, 'what the vector claims').to;
      push(delta!);
    }
    const held = new Set(entry.pending);
    for (const version of this.#registers.pendingAfter(writer, entry.after)) {
      if (version > entry.through) break;
      if (held.has(version)) continue;
      if (budget.left <= 0) {
        budget.isCut = true;
        return deltas;
      }
      push(present(this.#registers.pendingDelta(writer, version), 'what is pending'));
    }
    return deltas;
  }

  /** What to ask a member for that has such an entry; nothing if it has no more than we do. */
  lacking(entry: Entry): Entry[] {
    const writer = entry.writer as W;
    if (!this.isKnown(writer)) return [];
    if (this.#isHidden && this.isOwn(writer))
      return Math.max(entry.upTo, ...entry.pending.slice(-1)) > this.#started ? this.#startEntries() : [];
    const reached = this.#registers.wanted(writer);
    const lacksBase = entry.upTo > reached && entry.after === entry.reached;
    if (!lacksBase && !this.#lacksAny(writer, entry.pending, reached)) return [];
    return this.#entries(writer, lacksBase ? reached : Math.max(reached, entry.after), entry.through);
  }

  /** Whether all is held that an entry of somebody else's vector says of its writer. */
  holds({ writer, upTo }: Entry): boolean {
    return !this.isKnown(writer) || this.#registers.upTo(writer as W) >= upTo;
  }

  /** Whether the writer's replica is admitted, and has not too many writers. */
  isKnown(name: string): boolean {
    const { keyOf, replicaOf } = this.#options;
    const writer = name as W;
    const replica = replicaOf(writer);
    if (keyOf(replica) === undefined) return false;
    const writers = this.#writers.get(replica);
    return writers === undefined || writers.has(writer) || writers.size < WRITERS_PER_REPLICA_MAX;
  }

  /** What to ask for to close the gap of a writer. */
  gap(writer: string): Entry[] {
    return this.#entries(writer as W);
  }

  /**
   * Joins deltas of a member. All are decoded and verified before the first is joined. Throws `DECODE_FAILED`,
   * `SIGNATURE_INVALID`.
   */
  take(from: ReplicaId, encoded: readonly Uint8Array[], outbox: Outbox): Taken[] {
    const deltas = encoded.map((bytes) => this.#options.decode(bytes));
    const checked = deltas.map((delta) => this.#check(delta));
    return deltas.map((delta, i): Taken => {
      outbox.stats.registers[this.name].in += delta.registers.length;
      const common = { writer: delta.writer, range: delta, encoded: encoded[i]!, count: delta.registers.length };
      const registers = checked[i]!;
      if (delta.writer === this.#options.own) this.#compareOwn(registers, outbox);
      else if (!this.isKnown(delta.writer)) outbox.stats.unknownWriters++;
      else if (registers.length > 0 || !this.#isForgotten(delta.writer))
        return { ...common, ...this.#join(from, { ...delta, registers }, outbox) };
      return { ...common, ...NOTHING };
    });
  }

  /** Whether catch-ups are under way: then something below their reach may be lacking. */
  get isCatchingUp(): boolean {
    return this.#registers.writers().some((writer) => this.#registers.wanted(writer) > this.#registers.upTo(writer));
  }

  /**
   * Called after each complete exchange: catch-ups that no one can finish start over. How many. One whose source is live waits
   * for it, however little others have, until an exchange with the source itself brings nothing.
   */
  restartStuck(member: ReplicaId, live: readonly ReplicaId[]): number {
    let restarts = 0;
    for (const writer of this.#registers.writers()) {
      const reached = this.#registers.wanted(writer);
      const stuck = this.#stuck.get(writer);
      const source = this.#sources.get(writer);
      if (reached === this.#registers.upTo(writer)) this.#settled(writer);
      else if (stuck?.reached !== reached) this.#stuck.set(writer, { reached, exchanges: 1 });
      else if (source !== undefined && source !== member && live.includes(source)) continue;
      else if (++stuck.exchanges >= STUCK_EXCHANGES_MAX || source === member) {
        this.#registers.restart(writer);
        this.#settled(writer);
        restarts++;
      }
    }
    return restarts;
  }

  /** No catch-up of the writer is under way. */
  #settled(writer: W): void {
    this.#stuck.delete(writer);
    this.#sources.delete(writer);
  }

  /** From now on the own writer is shown to others, too. */
  show(): void {
    this.#isHidden = false;
  }

  forget(writer: W): void {
    this.#registers.forget(writer);
    this.#settled(writer);
    const writers = this.#writersOf(writer);
    writers.delete(writer);
    if (writers.size === 0) this.#writers.delete(this.#options.replicaOf(writer));
  }

  /** The own writer as it was at the start; nothing if it had written nothing. */
  #startEntries(): Entry[] {
    const [writer, upTo] = [this.#options.own, this.#started];
    return [{ writer, upTo, reached: upTo, after: upTo, through: VERSION_LAST, pending: [] }];
  }

  /** What we hold of a writer in a window, as entries of bounded length; none if there is nothing to say. */
  #entries(writer: W, from = this.#registers.wanted(writer), through = VERSION_LAST): Entry[] {
    const upTo = this.#registers.upTo(writer);
    const reached = this.#registers.wanted(writer);
    const versions = [...this.#registers.pendingAfter(writer, from)].filter((version) => version <= through);
    const entries: Entry[] = [];
    let after = from;
    for (let i = 0; versions.length - i > ENTRY_VERSIONS_MAX; i += ENTRY_VERSIONS_MAX) {
      const pending = versions.slice(i, i + ENTRY_VERSIONS_MAX);
      entries.push({ writer, upTo, reached, after, through: pending.at(-1)!, pending });
      after = pending.at(-1)!;
    }
    entries.push({ writer, upTo, reached, after, through, pending: versions.filter((version) => version > after) });
    return entries;
  }

  #lacksAny(writer: W, versions: readonly number[], reached: number): boolean {
    if (versions.length === 0) return false;
    return versions.some((version) => version > reached && this.#registers.pendingDelta(writer, version) === null);
  }

  /** The registers of a delta that are to be joined, verified; dropped ones and what was overwritten long ago are left out. */
  #check({ writer, registers }: Delta<R, W>): R[] {
    const { verify, equal, rules, keyOf, replicaOf } = this.#options;
    const publicKey = keyOf(replicaOf(writer));
    if (publicKey === undefined) return [];
    const upTo = this.isOwn(writer) ? 0 : this.#registers.upTo(writer);
    return registers.filter((register) => {
      if (rules?.isDropped(writer, register) === true) return false;
      const held = this.#registers.get(writer, register.key);
      const isHeld = held?.version === register.version;
      if (register.version <= upTo && !isHeld) return false;
      if (!isHeld || !equal(held, register)) verify(publicKey, writer, register);
      return true;
    });
  }

  #join(from: ReplicaId, delta: Delta<R, W>, outbox: Outbox): Pick<Taken, 'isNew' | 'isProgress' | 'hasGap'> {
    const { writer } = delta;
    const before = [this.#registers.upTo(writer), this.#registers.wanted(writer)];
    const { changed, conflicts, missing } = this.#registers.join(delta);
    this.#writersOf(writer).add(writer);
    const [upTo, wanted] = [this.#registers.upTo(writer), this.#registers.wanted(writer)];
    const hasMoved = upTo !== before[0] || wanted !== before[1];
    if (wanted !== before[1] && wanted < delta.end) this.#sources.set(writer, from);
    outbox.stats.changes[this.name] += changed.length;
    for (const { held } of conflicts) outbox.add({ type: 'conflict', class: this.name, writer, version: held.version });
    if (changed.length > 0 || hasMoved) outbox.add(this.#options.joined(writer, changed));
    return {
      isNew: changed.length > 0,
      isProgress: changed.length > 0 || hasMoved,
      hasGap: missing !== null && wanted === upTo,
    };
  }

  /**
   * What others hold of this node's own writer, verified: anything that this process, or its disk at the start, does not have
   * means that the disk went back, or that another process writes under the id.
   */
  #compareOwn(registers: readonly R[], outbox: Outbox): void {
    if (this.name !== 'control') return;
    const upTo = this.#isHidden ? this.#started : this.ownUpTo;
    const strange = registers.findLast((register) => {
      const held = this.#registers.get(this.#options.own, register.key);
      if (register.version > upTo) return true;
      // What is dropped says nothing.
      if (held === undefined || held.version > register.version) return false;
      return held.version < register.version || !this.#options.equal(held, register);
    });
    if (strange !== undefined) outbox.add({ type: 'overtaken', version: strange.version });
  }

  #isForgotten(writer: W): boolean {
    return !this.#writersOf(writer).has(writer) && this.#options.rules?.isForgotten(writer) === true;
  }

  #writersOf(writer: W): Set<W> {
    const replica = this.#options.replicaOf(writer);
    let writers = this.#writers.get(replica);
    if (writers === undefined) this.#writers.set(replica, (writers = new Set()));
    return writers;
  }
}
