import { assert, utf8, type Digest, type Epoch } from '@waggle/protocol/base';
import { epochAt, parseHeader, parseSlotList, type Genesis, type SlotEntry } from '@waggle/protocol/sealing';
import { slotName } from '@waggle/protocol/usage';
import { parseDetails } from './driver/epochs.ts';
import { nodeCrypto } from './node-crypto.ts';
import { SEALED_PAGE_MAX, type SealedEpoch, type Store } from './store/types.ts';

/** Sealed epochs that one sweep lets go of at most: bounds its memory, and its one transaction. */
export const EPOCHS_PER_SWEEP_MAX = 1_000;

/** How the slots of sealed epochs go. */
export interface RetentionOptions {
  readonly store: Store;
  readonly genesis: Genesis;
  /** How long after its end an epoch's slots are kept, in ms. */
  readonly slotRetentionMs: number;
  /** The epoch to be sealed next: those from there on keep everything. */
  readonly sealingEpoch: () => Epoch;
  /** What the chain of seals still needs: contents of slots that may grow (`ChainState.counted`), as of `sealingEpoch`. */
  readonly counted: () => ReadonlyMap<string, Digest>;
  /**
   * Drops those of the contents that nothing has pinned in epoch `before` or later, in one transaction. What is asked in the
   * transaction itself is the last word: a close that is on its way to disk may pin the same bytes.
   */
  readonly drop: (digests: readonly Digest[], before: Epoch) => Promise<void>;
}

/** What a sweep did. */
export interface Swept {
  /** The first epoch that may still have all its slots: where the next sweep begins. */
  readonly from: Epoch;
  readonly contents: number;
}

/**
 * Drops the contents of slots of sealed epochs that are older than the retention, from an epoch on. Headers, slot lists, rosters,
 * facts, checkpoints, leaves, tiles and statements stay for ever: without slots an epoch is still proven and billed, only that its
 * statements are the sums of its slots, nobody can compute any more.
 *
 * A content stays as long as anything else names it: an epoch within the retention (what its seal counted, or had counted before),
 * or the chain (`counted`: of a slot that was written off, a later seal counts the difference). Beginning again at an earlier epoch,
 * or after a crash, drops nothing more and nothing less.
 */
export async function sweepSlots(from: Epoch, nowMs: number, options: RetentionOptions): Promise<Swept> {
  const { store, genesis, slotRetentionMs, sealingEpoch, counted, drop } = options;
  const old = epochAt(genesis, nowMs - slotRetentionMs);
  const end = Math.max(from, Math.min(old, sealingEpoch(), from + EPOCHS_PER_SWEEP_MAX));
  const expired = new Set<Digest>();
  for await (const row of rowsOf(store, from, end)) for (const digest of await slotsOf(store, row)) expired.add(digest);
  // Takes no room, and every idle slot is this one.
  expired.delete(EMPTY);
  // Epochs that are sealed while this goes on are looked at as well: they may name what `counted` named until then.
  for (let next = end; expired.size > 0 && next < sealingEpoch();) {
    const upTo = sealingEpoch();
    for await (const row of rowsOf(store, next, upTo))
      for (const digest of await slotsOf(store, row)) expired.delete(digest);
    next = upTo;
  }
  for (const digest of counted().values()) expired.delete(digest);
  if (expired.size > 0) await drop([...expired], end);
  return { from: end, contents: expired.size };
}

const EMPTY = Buffer.from(nodeCrypto.sha256(new Uint8Array())).toString('hex') as Digest;

/** The sealed epochs from `from` up to, not including, `end`. */
async function* rowsOf(store: Store, from: Epoch, end: Epoch): AsyncGenerator<SealedEpoch> {
  for (let next = from; next < end;) {
    const page: SealedEpoch[] = await store.sealedRange(next, Math.min(SEALED_PAGE_MAX, end - next));
    for (const row of page) if (row.epoch < end) yield row;
    const last = page.at(-1);
    if (last === undefined) return;
    next = last.epoch + 1;
  }
}

/** The contents that the bundle of a sealed epoch has as slots: what it counted, and what was counted before. */
export async function slotsOf(store: Store, row: SealedEpoch): Promise<Digest[]> {
  const bytes = await store.content(parseHeader(utf8(row.header)).slots.digest);
  assert(bytes !== null, `the slot list of epoch ${row.epoch} is kept`);
  const entries: readonly SlotEntry[] = parseSlotList(bytes);
  const before = new Map(parseDetails(row).counted);
  return entries.flatMap((entry) => {
    const earlier = before.get(slotName(entry));
    return earlier === undefined ? [entry.digest] : [entry.digest, earlier];
  });
}
