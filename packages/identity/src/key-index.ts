import type { KeyId, ReplicaId } from '@waggle/protocol/base';
import type { CustomerRecord } from './customers.ts';
import { isLower, type KeyFact } from './facts.ts';
import { SCOPES, type Scope } from './principals.ts';

/** A key as the index holds it. `hash` and `urlKey` are views of 32 bytes: compare or copy, do not keep. */
export interface IndexedKey {
  readonly customer: CustomerRecord;
  readonly hash: Uint8Array;
  readonly urlKey: Uint8Array;
  readonly scopes: readonly Scope[];
  readonly createdMs: number;
}

const ROWS_FIRST = 64;
/** Every set of scopes, by its bits. */
const SCOPE_SETS = Array.from({ length: 1 << SCOPES.length }, (_, bits) =>
  SCOPES.filter((_scope, i) => bits & (1 << i)),
);
const bitsOf = (scopes: readonly Scope[]): number =>
  SCOPES.reduce((bits, scope, i) => bits | (scopes.includes(scope) ? 1 << i : 0), 0);

/**
 * The API keys of all customers, in columns: about 150 bytes a key, where a record with its strings would take 400.
 * Of two records under one id (which chance does not bring about) the lower (created, replica) stands at every node.
 */
export class KeyIndex {
  readonly #rows = new Map<KeyId, number>();
  readonly #customers: CustomerRecord[] = [];
  readonly #creators: ReplicaId[] = [];
  #bytes = new Uint8Array(ROWS_FIRST * 64);
  #createdMs = new Float64Array(ROWS_FIRST);
  #scopes = new Uint8Array(ROWS_FIRST);

  get size(): number {
    return this.#rows.size;
  }

  fold(replica: ReplicaId, id: KeyId, fact: KeyFact, customer: CustomerRecord): void {
    const known = this.#rows.get(id);
    if (known !== undefined && !isLower(fact.createdMs, replica, this.#createdMs[known]!, this.#creators[known]!))
      return;
    const row = known ?? this.#rows.size;
    if (row === this.#createdMs.length) this.#grow();
    this.#rows.set(id, row);
    this.#customers[row] = customer;
    this.#creators[row] = replica;
    this.#bytes.set(fact.hash, row * 64);
    this.#bytes.set(fact.urlKey, row * 64 + 32);
    this.#createdMs[row] = fact.createdMs;
    this.#scopes[row] = bitsOf(fact.scopes);
  }

  get(id: KeyId): IndexedKey | undefined {
    const row = this.#rows.get(id);
    return row === undefined ? undefined : this.#at(row);
  }

  /** Keys of one customer, by a scan: for management, not for requests. */
  of(customer: CustomerRecord): { readonly id: KeyId; readonly key: IndexedKey }[] {
    const keys: { id: KeyId; key: IndexedKey }[] = [];
    for (const [id, row] of this.#rows) if (this.#customers[row] === customer) keys.push({ id, key: this.#at(row) });
    return keys;
  }

  #at(row: number): IndexedKey {
    return {
      customer: this.#customers[row]!,
      hash: this.#bytes.subarray(row * 64, row * 64 + 32),
      urlKey: this.#bytes.subarray(row * 64 + 32, row * 64 + 64),
      scopes: SCOPE_SETS[this.#scopes[row]!]!,
      createdMs: this.#createdMs[row]!,
    };
  }

  #grow(): void {
    const rows = Math.ceil(this.#createdMs.length * 1.5);
    const grown = <T extends Uint8Array | Float64Array>(to: T, from: T): T => (to.set(from), to);
    this.#bytes = grown(new Uint8Array(rows * 64), this.#bytes);
    this.#createdMs = grown(new Float64Array(rows), this.#createdMs);
    this.#scopes = grown(new Uint8Array(rows), this.#scopes);
  }
}
