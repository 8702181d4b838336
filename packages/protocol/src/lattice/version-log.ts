import { assert } from '../base/index.ts';
import type { Register } from './register.ts';

/** Below this many stale entries a compaction is not worth its pass. */
const STALE_MIN = 64;
const STALE_BYTES_MIN = 16 * 1024 * 1024;

/** First index whose register has a version above `version`, in an array ordered by version. */
export function indexAfter(order: readonly Register[], version: number): number {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (order[middle]!.version <= version) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The register of exactly that version, in an array ordered by version. */
export function findVersion<R extends Register>(order: readonly R[], version: number): R | undefined {
  const register = order[indexAfter(order, version) - 1];
  return register?.version === version ? register : undefined;
}

/**
 * The registers in version order. A writer's versions are dense, and then counting them is ten times as fast as comparing:
 * a start with half a million registers is where it matters.
 */
function inOrder<R extends Register>(registers: readonly R[]): R[] {
  let least = Number.MAX_SAFE_INTEGER;
  let most = 0;
  for (const { version } of registers) {
    least = Math.min(least, version);
    most = Math.max(most, version);
  }
  if (most - least > 8 * registers.length) return registers.toSorted((a, b) => a.version - b.version);
  const starts = new Uint32Array(most - least + 2);
  for (const { version } of registers) starts[version - least + 1]!++;
  for (let i = 1; i < starts.length; i++) starts[i]! += starts[i - 1]!;
  const sources = new Uint32Array(registers.length);
  registers.forEach(({ version }, i) => {
    sources[starts[version - least]!++] = i;
  });
  return Array.from(sources, (i) => registers[i]!);
}

/**
 * One register per key, with an append log in version order. A register that is replaced or dropped stays in the log, stale,
 * until half of the log is, by count or by size: so writes are constant-time (amortised) and a read from some version on is a
 * binary search.
 */
export class VersionLog<R extends Register> {
  readonly #byKey = new Map<string, R>();
  #order: R[] = [];
  #ordered = true;
  readonly #sizeOf: (register: R) => number;
  #bytes = 0;
  #staleBytes = 0;

  constructor(sizeOf: (register: R) => number) {
    this.#sizeOf = sizeOf;
  }

  /** What the registers held take, by `sizeOf`. */
  get bytes(): number {
    return this.#bytes - this.#staleBytes;
  }

  /** Registers held. */
  get size(): number {
    return this.#byKey.size;
  }

  /** The highest version ever put in and not compacted away; 0 if there is none. */
  get last(): number {
    return this.#log().at(-1)?.version ?? 0;
  }

  get(key: string): R | undefined {
    return this.#byKey.get(key);
  }

  /** The register written with that version, if it is still in the log; it may be stale. */
  at(version: number): R | undefined {
    return findVersion(this.#log(), version);
  }

  /** Puts a register under its key unless a higher version is there. In version order, or the next read sorts once. */
  set(register: R): void {
    const held = this.#byKey.get(register.key);
    if (held !== undefined && held.version >= register.version) return;
    if (held !== undefined) this.#staleBytes += this.#sizeOf(held);
    this.#byKey.set(register.key, register);
    this.#push(register);
    this.#compact();
  }

  /** Puts the one register under its key, with a single look-up: two are most of the time of a start. */
  load(register: R): void {
    const size = this.#byKey.size;
    this.#byKey.set(register.key, register);
    assert(this.#byKey.size > size, 'one register per key is loaded');
    this.#push(register);
  }

  delete(key: string): boolean {
    const held = this.#byKey.get(key);
    if (held === undefined) return false;
    this.#byKey.delete(key);
    this.#staleBytes += this.#sizeOf(held);
    this.#compact();
    return true;
  }

  clear(): void {
    this.#byKey.clear();
    this.#order = [];
    this.#ordered = true;
    this.#bytes = 0;
    this.#staleBytes = 0;
  }

  /** The registers above a version, in version order. Not to be changed meanwhile. */
  *after(version: number): Generator<R> {
    const order = this.#log();
    const fresh = order.length === this.#byKey.size;
    for (let i = indexAfter(order, version); i < order.length; i++) {
      const register = order[i]!;
      if (fresh || this.#byKey.get(register.key) === register) yield register;
    }
  }

  #push(register: R): void {
    const last = this.#order.at(-1);
    if (last !== undefined && last.version > register.version) this.#ordered = false;
    this.#order.push(register);
    this.#bytes += this.#sizeOf(register);
  }

  #log(): readonly R[] {
    if (!this.#ordered) this.#order = inOrder(this.#order);
    this.#ordered = true;
    return this.#order;
  }

  #compact(): void {
    const stale = this.#order.length - this.#byKey.size;
    const isLarge = this.#staleBytes >= STALE_BYTES_MIN && this.#staleBytes * 2 >= this.#bytes;
    if (!isLarge && (stale < STALE_MIN || stale * 2 < this.#order.length)) return;
    this.#order = this.#order.filter((register) => this.#byKey.get(register.key) === register);
    this.#bytes -= this.#staleBytes;
    this.#staleBytes = 0;
  }
}
