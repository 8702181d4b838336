import { digestOf, present, type Crypto, type Digest, type Epoch } from '../base/index.ts';
import type { SlotRow } from '../usage/index.ts';
import type { SealingEffect } from './effects.ts';
import { parseFrontier, type Frontier } from './frontier.ts';
import { ROW_BYTES, type Jobs } from './jobs.ts';
import { packRows } from './packed.ts';
import { parseReports, type Report } from './value.ts';

/** What is held of a slot beside whole contents of it. `name` says which rows, of which moment. */
export interface NamedRows {
  readonly name: string;
  readonly rows: readonly SlotRow[];
}

export const NO_ROWS: NamedRows = { name: 'join', rows: [] };

/**
 * The contents that the epochs still to be sealed are made of, by digest: held in memory, pinned on disk (once, and again for a
 * later epoch that names it: what the disk has of an epoch that is over may go), or wanted (once). Reading one throws
 * `DECODE_FAILED` if whoever named it lied about what it is. Slots are not read here: they may be large.
 */
export class Contents {
  /** The digest of no bytes: of an empty slot, of no reports, of no facts. */
  readonly empty: Digest;
  readonly #crypto: Crypto;
  readonly #jobs: Jobs;
  readonly #bytes = new Map<Digest, Uint8Array>();
  /** What was read of them. */
  readonly #reports = new Map<Digest, readonly Report[]>();
  readonly #frontiers = new Map<Digest, Frontier>();
  readonly #wanted = new Set<Digest>();
  /** And for which epoch, the last. */
  readonly #pinned = new Map<Digest, Epoch>();

  constructor(crypto: Crypto, jobs: Jobs) {
    this.#crypto = crypto;
    this.#jobs = jobs;
    this.empty = digestOf(crypto, new Uint8Array(0));
  }

  has(digest: Digest): boolean {
    return this.#bytes.has(digest);
  }

  bytes(digest: Digest): Uint8Array {
    return present(this.#bytes.get(digest), `content ${digest}`);
  }

  reports(digest: Digest): readonly Report[] {
    return read(this.#reports, digest, () => parseReports(this.bytes(digest)));
  }

  frontier(digest: Digest): Frontier {
    return read(this.#frontiers, digest, () => parseFrontier(this.bytes(digest)));
  }

  hold(bytes: Uint8Array): Digest {
    return this.#hold(digestOf(this.#crypto, bytes), bytes);
  }

  #hold(digest: Digest, bytes: Uint8Array): Digest {
    this.#bytes.set(digest, bytes);
    this.#wanted.delete(digest);
    return digest;
  }

  /** Holds a content and sees to it that it is on disk before any register of the same effects. */
  pin(epoch: Epoch, bytes: Uint8Array, effects: SealingEffect[]): Digest {
    const digest = this.hold(bytes);
    this.#save(epoch, digest, effects);
    return digest;
  }

  /**
   * Holds the join of rows and contents of one slot; undefined while it is being computed. Throws `DECODE_FAILED` if a content is
   * none of a slot.
   */
  join({ name, rows }: NamedRows, digests: Iterable<Digest>, effects: SealingEffect[]): Digest | undefined {
    const parts = [...new Set(digests)].sort();
    const contents = parts.map((digest) => this.bytes(digest));
    const bytes = contents.reduce((sum, { length }) => sum + length, rows.length * ROW_BYTES);
    const job = () => ({ kind: 'slot', rows: packRows(rows), contents }) as const;
    const joined = this.#jobs.result<'slot'>([name, ...parts].join(' '), bytes, job, effects);
    return joined && this.#hold(joined.digest, joined.bytes);
  }

  /** Pins contents that are held: those of others, too. */
  pinHeld(epoch: Epoch, digests: Iterable<Digest>, effects: SealingEffect[]): void {
    for (const digest of digests) this.#save(epoch, digest, effects);
  }

  #save(epoch: Epoch, digest: Digest, effects: SealingEffect[]): void {
    const pinned = this.#pinned.get(digest);
    if (pinned !== undefined && pinned >= epoch) return;
    effects.push({ type: 'content', epoch, digest, bytes: this.bytes(digest) });
    this.#pinned.set(digest, epoch);
  }

  /** Whether all are held; those that are not are asked for. */
  have(digests: Iterable<Digest>, effects: SealingEffect[]): boolean {
    const missing = [...new Set(digests)].filter((digest) => !this.#bytes.has(digest));
    for (const digest of missing) {
      if (this.#wanted.has(digest)) continue;
      this.#wanted.add(digest);
      effects.push({ type: 'want', digest });
    }
    return missing.length === 0;
  }

  /** Lets go of all others. */
  keep(kept: ReadonlySet<Digest>): void {
    for (const digest of this.#bytes.keys()) {
      if (kept.has(digest)) continue;
      for (const each of [this.#bytes, this.#reports, this.#frontiers, this.#pinned]) each.delete(digest);
    }
  }

  /** Takes back what was asked for and did not come, but for these. */
  unwant(but: (digest: Digest) => boolean, effects: SealingEffect[]): void {
    for (const digest of this.#wanted) {
      if (but(digest)) continue;
      this.#wanted.delete(digest);
      effects.push({ type: 'unwant', digest });
    }
  }
}

function read<T>(map: Map<Digest, T>, digest: Digest, parse: () => T): T {
  let value = map.get(digest);
  if (value === undefined) map.set(digest, (value = parse()));
  return value;
}
