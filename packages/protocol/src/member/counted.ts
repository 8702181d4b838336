import type { Digest, Epoch, ReplicaId, Run } from '../base/index.ts';
import { atLeast, joinUsage, subtractUsage, usageKey, ZERO_USAGE } from '../lattice/index.ts';
import type { Usage, UsageRow, WriterId } from '../lattice/index.ts';
import { isCountedClosed, type ChainState } from '../sealing/index.ts';
import { slotName, type Slot } from '../usage/index.ts';

/** Epochs before the one to be sealed whose counted contents are kept, because late rows of them are likely. */
const KEPT_EPOCHS = 8;

/** A run of a replica, as the writer of usage that it is. */
export interface UsageWriter {
  readonly writer: WriterId;
  readonly replica: ReplicaId;
  readonly run: Run;
}

/**
 * What the seals have counted of a slot: nothing; all of it, which never grows; so much of each row, by its key; or something that
 * is yet to be read from disk.
 */
export type Share = 'nothing' | 'all' | 'unknown' | ReadonlyMap<string, Usage>;

/** What the seals on disk have counted of the slots that rows are held of. */
export class Counted {
  #chain: ChainState;
  readonly #contents = new Map<WriterId, Map<Epoch, ReadonlyMap<string, Usage>>>();

  constructor(chain: ChainState) {
    this.#chain = chain;
  }

  get chain(): ChainState {
    return this.#chain;
  }

  shareOf({ writer, replica, run }: UsageWriter, epoch: Epoch): Share {
    const id = { replica, run, epoch };
    if (this.#chain.closed.has(writer) && isCountedClosed(this.#chain, id)) return 'all';
    const rows = this.#contents.get(writer)?.get(epoch);
    if (rows !== undefined) return rows;
    return this.#chain.counted.size > 0 && this.#chain.counted.has(slotName(id)) ? 'unknown' : 'nothing';
  }

  /** The digest of what was counted of a slot that may still grow. */
  digestOf({ replica, run }: UsageWriter, epoch: Epoch): Digest | undefined {
    return this.#chain.counted.get(slotName({ replica, run, epoch }));
  }

  /** Takes note of a counted content, null if it is yet to be read; of a slot that was counted as closed nothing needs to be known. */
  set({ writer, replica, run }: UsageWriter, epoch: Epoch, content: Slot | null): void {
    if (content === null || isCountedClosed(this.#chain, { replica, run, epoch })) {
      this.#contents.get(writer)?.delete(epoch);
      return;
    }
    let epochs = this.#contents.get(writer);
    if (epochs === undefined) this.#contents.set(writer, (epochs = new Map()));
    epochs.set(epoch, new Map(content.map(({ customer, sku, usage }) => [usageKey(epoch, customer, sku), usage])));
  }

  /** One more epoch is sealed. `isHeld` says of which slots rows are held. */
  advance(chain: ChainState, isHeld: (writer: WriterId) => ReadonlySet<Epoch>): void {
    this.#chain = chain;
    for (const [writer, epochs] of this.#contents) {
      const old = [...epochs.keys()].filter((epoch) => epoch < chain.epoch - KEPT_EPOCHS);
      if (old.length === 0) continue;
      const held = isHeld(writer);
      for (const epoch of old) if (!held.has(epoch)) epochs.delete(epoch);
      if (epochs.size === 0) this.#contents.delete(writer);
    }
  }
}

/** What a row has beyond what was counted of it. */
export function uncounted(share: Share, { key, usage }: UsageRow): Usage {
  if (share === 'nothing') return usage;
  if (share === 'all' || share === 'unknown') return ZERO_USAGE;
  const counted = share.get(key) ?? ZERO_USAGE;
  return subtractUsage(joinUsage(usage, counted), counted);
}

/** Whether a seal counts at least every figure of a row. */
export function isCounted(share: Share, { key, usage }: UsageRow): boolean {
  if (share === 'nothing' || share === 'unknown') return false;
  return share === 'all' || atLeast(share.get(key) ?? ZERO_USAGE, usage);
}
