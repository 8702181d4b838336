import type { KeyId, ReplicaId } from '@waggle/protocol/base';
import type { CustomerRecord } from './customers.ts';
import { isLower, type KeyFact } from './facts.ts';
import { SCOPES, type Scope } from './principals.ts';

/** Where a key stands in the index. */
export type KeyRow = number & { readonly __keyRow: unique symbol };

const ROWS_FIRST = 64;
/** Bytes of hash and URL key together. */
const STRIDE = 64;
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
  readonly #rows = new Map<KeyId, KeyRow>();
  readonly #customers: CustomerRecord[] = [];
  readonly #creators: ReplicaId[] = [];
  #bytes = new Uint8Array(ROWS_FIRST * STRIDE);
  #createdMs = new Float64Array(ROWS_FIRST);
  #scopes = new Uint8Array(ROWS_FIRST);

  fold(replica: ReplicaId, id: KeyId, fact: KeyFact, customer: CustomerRecord): void {
    const known = this.#rows.get(id);
    if (known !== undefined && !isLower(fact.createdMs, replica, this.#createdMs[known]!, this.#creators[known]!))
      return;
    const row = known ?? (this.#rows.size as KeyRow);
    if (row === this.#createdMs.length) this.#grow();
    this.#rows.set(id, row);
    this.#customers[row] = customer;
    this.#creators[row] = replica;
    this.#bytes.set(fact.hash, row * STRIDE);
    this.#bytes.set(fact.urlKey, row * STRIDE + 32);
    this.#createdMs[row] = fact.createdMs;
    this.#scopes[row] = bitsOf(fact.scopes);
  }

  find(id: KeyId): KeyRow | undefined {
    return this.#rows.get(id);
  }

  /** SHA-256 of the key's text: a view, to compare and not to keep. */
  hash(row: KeyRow): Uint8Array {
    return this.#bytes.subarray(row * STRIDE, row * STRIDE + 32);
  }

  /** A copy of the public key of signed URLs. */
  urlKey(row: KeyRow): Uint8Array {
    return this.#bytes.slice(row * STRIDE + 32, row * STRIDE + 64);
  }

  customer(row: KeyRow): CustomerRecord {
    return this.#customers[row]!;
  }

  scopes(row: KeyRow): readonly Scope[] {
    return SCOPE_SETS[this.#scopes[row]!]!;
  }

  createdMs(row: KeyRow): number {
    return this.#createdMs[row]!;
  }

  /** Keys of one customer, by a scan of all: for management, not for requests. */
  of(customer: CustomerRecord): (readonly [KeyId, KeyRow])[] {
    const keys: (readonly [KeyId, KeyRow])[] = [];
    for (const entry of this.#rows) if (this.#customers[entry[1]] === customer) keys.push(entry);
    return keys;
  }

  #grow(): void {
    const rows = Math.ceil(this.#createdMs.length * 1.5);
    const grown = <T extends Uint8Array | Float64Array>(to: T, from: T): T => (to.set(from), to);
    this.#bytes = grown(new Uint8Array(rows * STRIDE), this.#bytes);
    this.#createdMs = grown(new Float64Array(rows), this.#createdMs);
    this.#scopes = grown(new Uint8Array(rows), this.#scopes);
  }
}
