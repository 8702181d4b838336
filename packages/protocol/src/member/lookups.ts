import type { Digest } from '../base/index.ts';

/** Who needs a content: sealing, the open figures, another member. */
export type Purpose = 'sealing' | 'counted' | 'peers';

/** The contents that are being looked for: on this disk first, and for this node's own purposes at the others then. */
export class Lookups {
  readonly #purposes = new Map<Digest, Set<Purpose>>();

  /** One more purpose. Whether the disk is to be asked: another member waits for an answer of its own. */
  add(digest: Digest, purpose: Purpose): boolean {
    const purposes = this.#purposes.get(digest);
    if (purposes === undefined) this.#purposes.set(digest, new Set([purpose]));
    else purposes.add(purpose);
    return purposes === undefined || purpose === 'peers';
  }

  /** Whether another member waited for the answer of the disk; it does not any more. */
  answerPeers(digest: Digest): boolean {
    const purposes = this.#purposes.get(digest);
    const waited = purposes?.delete('peers') === true;
    if (purposes?.size === 0) this.#purposes.delete(digest);
    return waited;
  }

  /** Whether this node itself needs it. */
  isWanted(digest: Digest): boolean {
    return this.#purposes.has(digest);
  }

  /** One purpose less. Whether this node itself needs it no more. */
  drop(digest: Digest, purpose: Purpose): boolean {
    const purposes = this.#purposes.get(digest);
    purposes?.delete(purpose);
    if (purposes?.size === 0) this.#purposes.delete(digest);
    return [...(purposes ?? [])].every((left) => left === 'peers');
  }

  /** It was found: for what, and nothing more is to be done. */
  take(digest: Digest): ReadonlySet<Purpose> {
    const purposes = this.#purposes.get(digest) ?? new Set();
    this.#purposes.delete(digest);
    return purposes;
  }
}
