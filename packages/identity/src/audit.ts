import { WaggleError } from '@waggle/protocol/base';
import { checkAuditId, parseAuditEntry, type AuditEntry } from './facts.ts';
import { SortedIds } from './sorted.ts';

/** The audit entries of all replicas: grow-only, newest first. Their number is bounded by the keys a writer may have. */
export class AuditLog {
  /** The texts as the registers hold them. Parsed only when read: parsing all would take half of a node's start. */
  readonly #texts = new Map<string, string>();
  readonly #ids = new SortedIds();

  /** Throws `DECODE_FAILED` for a malformed id. A malformed text is left out when it is read. */
  fold(id: string, text: string): void {
    checkAuditId(id);
    const known = this.#texts.get(id);
    if (known === undefined) this.#ids.add(id);
    // Two writers under one id do not happen; if they do, every node shows the same one.
    if (known === undefined || text < known) this.#texts.set(id, text);
  }

  /** Up to `limit` entries older than the entry with the id `after`, newest first; fewer only if there are no more. */
  list(after: string | undefined, limit: number): AuditEntry[] {
    const entries: AuditEntry[] = [];
    let last = after;
    while (entries.length < limit) {
      const ids = this.#ids.below(last, limit - entries.length);
      if (ids.length === 0) break;
      last = ids.at(-1);
      for (const id of ids) entries.push(...this.#read(id));
    }
    return entries;
  }

  #read(id: string): AuditEntry[] {
    try {
      return [parseAuditEntry(id, this.#texts.get(id)!)];
    } catch (error) {
      if (error instanceof WaggleError) return [];
      throw error;
    }
  }
}
