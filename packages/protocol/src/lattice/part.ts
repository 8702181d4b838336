import { findVersion, indexAfter, VersionLog } from './version-log.ts';
import type { Register } from './register.ts';

/** The versions after `from` up to and including `to`. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/**
 * What is held of one writer.
 *
 * The **base** is exactly the join of the writer's versions 1 to `upTo`. Whatever comes without its predecessors is
 * **pending**, beside the base and never in place of something in it: the base stays a prefix that can be handed on as one.
 *
 * A prefix cut at a byte budget is not enough to advance: its sender leaves out what has been overwritten above the cut, and
 * should the sender die before it sends the rest, the vector would claim what nobody here holds. So the pieces of a
 * **catch-up** are pending until they reach `until`, up to where their senders held everything; `reached` is the progress.
 */
export class Part<R extends Register> {
  readonly base: VersionLog<R>;
  readonly #sizeOf: (register: R) => number;
  #pendingBytes = 0;
  upTo = 0;
  reached = 0;
  until = 0;
  /** In version order; a key may be there more than once. */
  #pending: R[] = [];
  readonly #newestPending = new Map<string, R>();
  /** Pending keys that the base does not have. */
  #pendingOnly = 0;

  constructor(sizeOf: (register: R) => number) {
    this.#sizeOf = sizeOf;
    this.base = new VersionLog(sizeOf);
  }

  /** What all that is held takes, by `sizeOf`. */
  get bytes(): number {
    return this.base.bytes + this.#pendingBytes;
  }

  /** Distinct keys held. */
  get keys(): number {
    return this.base.size + this.#pendingOnly;
  }

  get pending(): readonly R[] {
    return this.#pending;
  }

  /** The highest version under a key, pending or not. */
  get(key: string): R | undefined {
    return this.#newestPending.get(key) ?? this.base.get(key);
  }

  /** The register written with that version, if it is still known. */
  at(version: number): R | undefined {
    return version > this.upTo ? findVersion(this.#pending, version) : this.base.at(version);
  }

  /** Every register with the highest version under its key, in version order. */
  *registers(): Generator<R> {
    for (const register of this.base.after(0)) if (!this.#newestPending.has(register.key)) yield register;
    for (const register of this.#pending) if (this.#newestPending.get(register.key) === register) yield register;
  }

  /** Adds a register above the base whose version is not held. */
  add(register: R): void {
    const held = this.#newestPending.get(register.key);
    if (held === undefined && this.base.get(register.key) === undefined) this.#pendingOnly++;
    if (held === undefined || held.version < register.version) this.#newestPending.set(register.key, register);
    if ((this.#pending.at(-1)?.version ?? 0) < register.version) this.#pending.push(register);
    else this.#pending.splice(indexAfter(this.#pending, register.version), 0, register);
    this.#pendingBytes += this.#sizeOf(register);
  }

  /** Takes note that the pending registers hold all of the range, as of a sender whose base reached to `end`. */
  follow({ from, to }: Range, end: number): void {
    if (from <= this.upTo && to > this.upTo && to >= end) this.#settle(to);
    else if (from <= this.reached && to > this.reached) {
      this.reached = to;
      this.until = Math.max(this.until, end);
    }
    for (let i = indexAfter(this.#pending, this.reached); this.#pending[i]?.version === this.reached + 1; i++)
      this.reached++;
    this.until = Math.max(this.until, this.reached);
    if (this.reached > this.upTo && this.reached >= this.until) this.#settle(this.reached);
  }

  /** What to ask for next, or null if nothing is known to be missing. */
  missing(): Range | null {
    if (this.until > this.reached) return { from: this.reached, to: this.until };
    const next = this.#pending[0];
    return next === undefined ? null : { from: this.upTo, to: next.version - 1 };
  }

  /** Forgets keys altogether. How many were held. */
  delete(keys: Iterable<string>): number {
    let deleted = 0;
    let deletedPending = false;
    for (const key of keys) {
      const inBase = this.base.delete(key);
      const inPending = this.#newestPending.delete(key);
      if (inBase || inPending) deleted++;
      if (inPending && !inBase) this.#pendingOnly--;
      deletedPending ||= inPending;
    }
    if (deletedPending) this.#keepPending(({ key }) => this.#newestPending.has(key));
    return deleted;
  }

  /** Gives the catch-up up: what came of it is pending like anything else, and has to be asked for again. */
  restart(): void {
    this.reached = this.upTo;
    this.until = this.upTo;
  }

  /** Keeps `count` of the pending registers at most, or one per key: gives up what is overwritten, and the catch-up with it. */
  bound(count: number): void {
    if (this.#pending.length <= count) return;
    this.#keepPending((register) => this.#newestPending.get(register.key) === register);
    this.restart();
  }

  /**
   * Ends a restore from disk, where everything was put into the base and the vector stood at `upTo`. A disk keeps one register
   * per key, so one beyond the vector may have replaced one below: then nothing is sure, and everything is pending.
   */
  restored(upTo: number): void {
    if (this.base.last <= upTo) {
      this.#settle(upTo);
      return;
    }
    this.#pending = [...this.base.after(0)];
    for (const register of this.#pending) this.#newestPending.set(register.key, register);
    this.#pendingOnly = this.#pending.length;
    this.#pendingBytes = this.base.bytes;
    this.base.clear();
    this.follow({ from: 0, to: 0 }, 0);
  }

  #keepPending(isKept: (register: R) => boolean): void {
    this.#pending = this.#pending.filter(isKept);
    this.#pendingBytes = this.#pending.reduce((bytes, register) => bytes + this.#sizeOf(register), 0);
  }

  /** Moves what is pending up to there into the base. */
  #settle(upTo: number): void {
    const count = indexAfter(this.#pending, upTo);
    const settled = count === this.#pending.length ? this.#pending : this.#pending.slice(0, count);
    this.#pending = count === this.#pending.length ? [] : this.#pending.slice(count);
    for (const register of settled) {
      if (this.base.get(register.key) === undefined) this.#pendingOnly--;
      if (this.#newestPending.get(register.key) === register) this.#newestPending.delete(register.key);
      this.base.set(register);
      this.#pendingBytes -= this.#sizeOf(register);
    }
    this.upTo = upTo;
    if (this.reached <= upTo) this.restart();
  }
}
