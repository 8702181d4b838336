import type { Register } from './register.ts';

/** Below this many stale entries a compaction is not worth its pass. */
const STALE_MIN = 64;

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
 * One register per key, with an append log in version order. A register that is replaced or dropped stays in the log, stale,
 * until half of the log is: so writes are constant-time (amortised) and a read from some version on is a binary search.
 */
export class VersionLog<R extends Register> {
  readonly #byKey = new Map<string, R>();
  #order: R[] = [];
  #ordered = true;

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
    this.#byKey.set(register.key, register);
    const last = this.#order.at(-1);
    if (last !== undefined && last.version > register.version) this.#ordered = false;
    this.#order.push(register);
    this.#compact();
  }

  delete(key: string): boolean {
    const deleted = this.#byKey.delete(key);
    this.#compact();
    return deleted;
  }

  clear(): void {
    this.#byKey.clear();
    this.#order = [];
    this.#ordered = true;
  }

  /** The registers above a version, in version order. Not to be changed meanwhile. */
  *after(version: number): Generator<R> {
    const order = this.#log();
    for (let i = indexAfter(order, version); i < order.length; i++) {
      const register = order[i]!;
      if (this.#byKey.get(register.key) === register) yield register;
    }
  }

  #log(): readonly R[] {
    if (!this.#ordered) this.#order.sort((a, b) => a.version - b.version);
    this.#ordered = true;
    return this.#order;
  }

  #compact(): void {
    const stale = this.#order.length - this.#byKey.size;
    if (stale < STALE_MIN || stale * 2 < this.#order.length) return;
    this.#order = this.#order.filter((register) => this.#byKey.get(register.key) === register);
  }
}
