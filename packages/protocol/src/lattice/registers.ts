import {
  assert,
  compareText,
  concat,
  digestOf,
  WaggleError,
  WireWriter,
  type Crypto,
  type Digest,
} from '../base/index.ts';
import { Part, type Range } from './part.ts';
import type { Register } from './register.ts';
import { indexAfter } from './version-log.ts';

/**
 * Some of a writer's registers on the wire: those whose current version, at the sender, lies in `(from, to]`, in version
 * order. `end` is how far the sender holds everything; `to` is below it if the delta was cut.
 */
export interface Delta<R extends Register, W extends string> extends Range {
  readonly writer: W;
  readonly end: number;
  readonly registers: readonly R[];
}

/** A register that is new under its key, and the one it replaces. */
export interface Change<R extends Register> {
  readonly register: R;
  readonly previous: R | undefined;
}

/** What came of a delta. */
export interface Joined<R extends Register> {
  /** In version order. */
  readonly changed: readonly Change<R>[];
  /** Two registers under one version, which no honest writer makes: the one held is kept. */
  readonly conflicts: readonly { readonly held: R; readonly received: R }[];
  /** What this writer is now known to have written and is not held, to be asked for at once. */
  readonly missing: Range | null;
}

export interface RegistersOptions<R extends Register> {
  /** Most keys of one writer. */
  readonly keysMax: number;
  /** Most of one writer that is taken from others, by `sizeOf`; unbounded if not given. */
  readonly bytesMax?: number;
  /** What a register takes; nothing if not given. */
  readonly sizeOf?: (register: R) => number;
  /** Whether two registers of one version are the same, as far as their writer decides it. */
  readonly equal: (a: R, b: R) => boolean;
}

/**
 * The lattice of one class: a map from writer to that writer's registers. Join is per writer and key: the higher version
 * wins; associative, commutative, idempotent, monotone (PROTOCOL section 1). Reconciled as in Scuttlebutt (van Renesse et
 * al. 2008), with pending registers and with catch-ups that advance the vector only when they are complete (`Part`).
 */
export class Registers<R extends Register, W extends string> {
  readonly #options: RegistersOptions<R>;
  readonly #sizeOf: (register: R) => number;
  readonly #parts = new Map<W, Part<R>>();
  /** Kept from one question to the next, as most come between two changes: the writers in order, each one's part of the digest, and it. */
  #sorted: readonly W[] | undefined;
  readonly #encoded = new Map<W, Uint8Array>();
  #digest: Digest | undefined;

  constructor(options: RegistersOptions<R>) {
    this.#options = options;
    this.#sizeOf = options.sizeOf ?? (() => 0);
  }

  /** Writers of which anything is known, in order. */
  writers(): readonly W[] {
    return (this.#sorted ??= [...this.#parts.keys()].sort(compareText));
  }

  /** The version vector's entry: the version up to which everything of the writer is held; 0 for an unknown one. */
  upTo(writer: W): number {
    return this.#parts.get(writer)?.upTo ?? 0;
  }

  /** The version vector, in the order of the writers. */
  vector(): Map<W, number> {
    return new Map(this.writers().map((writer) => [writer, this.upTo(writer)]));
  }

  get(writer: W, key: string): R | undefined {
    return this.#parts.get(writer)?.get(key);
  }

  /** A writer's registers, one per key, in version order (pending ones last). Not to be changed meanwhile. */
  *of(writer: W): Generator<R> {
    yield* this.#parts.get(writer)?.registers() ?? [];
  }

  /** How many more keys the writer may have. */
  room(writer: W): number {
    return this.#options.keysMax - (this.#parts.get(writer)?.keys ?? 0);
  }

  /** What is held of the writer, by `sizeOf`. */
  bytes(writer: W): number {
    return this.#parts.get(writer)?.bytes ?? 0;
  }

  /** Writes of our own: the writer's next versions, one after the other. Asserts it, and that there is room. */
  apply(writer: W, registers: readonly R[]): Change<R>[] {
    const part = this.#part(writer);
    assert(part.pending.length === 0 && part.reached === part.until, 'a writer of our own has nothing missing');
    assert(this.#newKeys(part, registers) <= this.room(writer), 'a writer of our own keeps to its bound of keys');
    this.#touch(writer);
    return registers.map((register) => {
      assert(register.version === part.upTo + 1, 'a write takes the next version');
      const previous = part.get(register.key);
      part.add(register);
      part.follow({ from: part.upTo, to: register.version }, register.version);
      return { register, previous };
    });
  }

  /**
   * Takes in what another node sent; verified before (PROTOCOL section 2). Throws `DECODE_FAILED`, before anything changes, if
   * the range is not in order or the writer would have more than `keysMax` keys or `bytesMax` bytes.
   */
  join(delta: Delta<R, W>): Joined<R> {
    checkDelta(delta);
    const known = this.#parts.get(delta.writer);
    const part = known ?? new Part<R>(this.#sizeOf);
    const keys = part.keys + this.#newKeys(part, delta.registers);
    if (keys > this.#options.keysMax)
      throw new WaggleError(
        'DECODE_FAILED',
        `Expected at most ${this.#options.keysMax} keys of ${delta.writer}, received ${keys}`,
      );
    this.#demandBytes(part, delta);
    if (known === undefined) this.#add(delta.writer, part);
    this.#touch(delta.writer);
    const changed: Change<R>[] = [];
    const conflicts: { held: R; received: R }[] = [];
    for (const register of delta.registers) {
      const held = part.at(register.version);
      if (held !== undefined && !this.#options.equal(held, register)) conflicts.push({ held, received: register });
      if (held !== undefined || register.version <= part.upTo) continue;
      const previous = part.get(register.key);
      part.add(register);
      if (previous === undefined || previous.version < register.version) changed.push({ register, previous });
    }
    part.follow(delta, delta.end);
    part.bound(2 * this.#options.keysMax);
    return { changed, conflicts, missing: part.missing() };
  }

  /** What this writer is known to have written and is not held, or null. */
  missing(writer: W): Range | null {
    return this.#parts.get(writer)?.missing() ?? null;
  }

  /** From which version on to ask for more of a writer: the vector's entry, or how far a catch-up has got beyond it. */
  wanted(writer: W): number {
    return this.#parts.get(writer)?.reached ?? 0;
  }

  /** Starts a catch-up over: for one that no reachable node can finish, since none has a vector that reaches `missing`'s end. */
  restart(writer: W): void {
    this.#parts.get(writer)?.restart();
  }

  /** Versions held beyond the vector's entry, ascending. */
  pendingVersions(writer: W): number[] {
    return this.#parts.get(writer)?.pending.map(({ version }) => version) ?? [];
  }

  /** Those after a version, one by one. The writer is not to be changed meanwhile. */
  *pendingAfter(writer: W, after: number): Generator<number> {
    const pending = this.#parts.get(writer)?.pending ?? [];
    for (let i = indexAfter(pending, after); i < pending.length; i++) yield pending[i]!.version;
  }

  /** The register pending with that version, as a delta of its own: whole, as one version is. */
  pendingDelta(writer: W, version: number): Delta<R, W> | null {
    const part = this.#parts.get(writer);
    const register = part !== undefined && version > part.upTo ? part.at(version) : undefined;
    return register === undefined
      ? null
      : { writer, from: version - 1, to: version, end: version, registers: [register] };
  }

  /**
   * A hash of what is held: of every writer the vector's entry and the versions beyond. Equal digests mean equal registers
   * (invariant 11), but for dropped ones.
   */
  digest(crypto: Crypto): Digest {
    return (this.#digest ??= digestOf(crypto, concat(...this.writers().map((writer) => this.#encode(writer)))));
  }

  /**
   * What a node that holds everything up to `from` lacks of a writer, or null if nothing that we can hand on as a whole. Cut
   * before `budgetBytes` are exceeded, but never before the first register.
   */
  delta(writer: W, from: number, budgetBytes: number, sizeOf: (register: R) => number): Delta<R, W> | null {
    const part = this.#parts.get(writer);
    if (part === undefined || from >= part.upTo) return null;
    const registers: R[] = [];
    let bytes = 0;
    for (const register of part.base.after(from)) {
      bytes += sizeOf(register);
      if (bytes > budgetBytes && registers.length > 0)
        return { writer, from, to: register.version - 1, end: part.upTo, registers };
      registers.push(register);
    }
    return { writer, from, to: part.upTo, end: part.upTo, registers };
  }

  /** Forgets keys, such as rows that a seal has counted; the vector stays. How many were held. */
  drop(writer: W, keys: Iterable<string>): number {
    this.#touch(writer);
    return this.#parts.get(writer)?.delete(keys) ?? 0;
  }

  /** Forgets a writer, vector and all. Only for one that never writes again and whom every node forgets by the same rule. */
  forget(writer: W): void {
    this.#touch(writer);
    this.#parts.delete(writer);
    this.#sorted = undefined;
  }

  /** Puts back a register from our own disk: one for each key, in any order. Then call `restored`, before anything else. */
  restore(writer: W, register: R): void {
    this.#part(writer).base.load(register);
  }

  /**
   * Ends a restore with the vector as it was on disk, written in the same transactions as the registers. Where the disk has
   * registers beyond the vector, the vector starts again from 0 and everything is pending (see `Part`).
   */
  restored(vector: Iterable<readonly [writer: W, upTo: number]>): void {
    const upTo = new Map(vector);
    for (const writer of upTo.keys()) this.#part(writer);
    for (const [writer, part] of this.#parts) {
      this.#touch(writer);
      part.restored(upTo.get(writer) ?? 0);
    }
  }

  #part(writer: W): Part<R> {
    let part = this.#parts.get(writer);
    if (part === undefined) this.#add(writer, (part = new Part(this.#sizeOf)));
    return part;
  }

  #add(writer: W, part: Part<R>): void {
    this.#parts.set(writer, part);
    this.#sorted = undefined;
  }

  /** What is held of a writer is about to change. */
  #touch(writer: W): void {
    this.#encoded.delete(writer);
    this.#digest = undefined;
  }

  /** A writer's part of the digest: empty if nothing is held. */
  #encode(writer: W): Uint8Array {
    let bytes = this.#encoded.get(writer);
    if (bytes === undefined) this.#encoded.set(writer, (bytes = encodePart(writer, this.#parts.get(writer)!)));
    return bytes;
  }

  #demandBytes(part: Part<R>, { writer, registers }: Delta<R, W>): void {
    const { bytesMax } = this.#options;
    if (bytesMax === undefined) return;
    const fresh = registers.filter(({ version }) => version > part.upTo && part.at(version) === undefined);
    const bytes = fresh.reduce((sum, register) => sum + this.#sizeOf(register), part.bytes);
    if (fresh.length > 0 && bytes > bytesMax)
      throw new WaggleError('DECODE_FAILED', `Expected at most ${bytesMax} bytes of ${writer}, received ${bytes}`);
  }

  /** How many keys the registers beyond the vector would add. */
  #newKeys(part: Part<R>, registers: readonly R[]): number {
    const keys = new Set<string>();
    for (const { key, version } of registers) if (version > part.upTo && part.get(key) === undefined) keys.add(key);
    return keys.size;
  }
}

function encodePart(writer: string, { upTo, pending }: Pick<Part<Register>, 'upTo' | 'pending'>): Uint8Array {
  const wire = new WireWriter();
  if (upTo === 0 && pending.length === 0) return wire.finish();
  wire.text(writer).varint(upTo).varint(pending.length);
  let last = upTo;
  for (const { version } of pending) {
    wire.varint(version - last);
    last = version;
  }
  return wire.finish();
}

function checkDelta<R extends Register>({ from, to, end, registers }: Delta<R, string>): void {
  let last = from;
  let good =
    Number.isSafeInteger(from) &&
    Number.isSafeInteger(to) &&
    Number.isSafeInteger(end) &&
    from >= 0 &&
    from <= to &&
    to <= end;
  for (const { version } of registers) {
    good &&= Number.isSafeInteger(version) && version > last && version <= to;
    last = version;
  }
  if (!good) throw new WaggleError('DECODE_FAILED', `Expected versions in order within (${from}, ${to}] up to ${end}`);
}
