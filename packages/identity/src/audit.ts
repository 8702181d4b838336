import { parseAuditEntry, type AuditEntry } from './facts.ts';
import { SortedIds } from './sorted.ts';

/** The audit entries of all replicas: grow-only, newest first. Their number is bounded by the keys a writer may have. */
export class AuditLog {
  /** The texts as the registers hold them; parsed when read. */
  readonly #texts = new Map<string, string>();
  readonly #ids = new SortedIds();

  /** Throws `DECODE_FAILED` for a malformed entry. */
  fold(id: string, text: string): void {
    parseAuditEntry(id, text);
    const known = this.#texts.get(id);
    if (known === undefined) this.#ids.add(id);
    // Two writers under one id do not happen; if they do, every node shows the same one.
    if (known === undefined || text < known) this.#texts.set(id, text);
  }

  /** Up to `limit` entries older than the entry with the id `after`, newest first. */
  list(after: string | undefined, limit: number): AuditEntry[] {
    return this.#ids.below(after, limit).map((id) => parseAuditEntry(id, this.#texts.get(id)!));
  }
}
