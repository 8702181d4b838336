import { assert, utf8, WaggleError, type Digest, type Epoch } from '@waggle/protocol/base';
import { epochAt, parseHeader, parseSlotList, type Genesis, type SlotEntry } from '@waggle/protocol/sealing';
import { parseSlot, slotName } from '@waggle/protocol/usage';
import { parseDetails } from './driver/epochs.ts';
import { nodeCrypto } from './node-crypto.ts';
import { CONTENTS_PAGE_MAX, SEALED_PAGE_MAX, type ContentEntry, type SealedEpoch, type Store } from './store/types.ts';

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
 * Drops the contents of slots of sealed epochs that are older than the retention, from an epoch on: what their seals counted, and
 * what was pinned for them and not counted, as what a close reported of a slot that its own close came to speak for. Headers, slot
 * lists, rosters, facts, checkpoints, leaves, tiles and statements stay for ever: without slots an epoch is still proven and billed,
 * only that its statements are the sums of its slots, nobody can compute any more.
 *
 * A content stays as long as anything else names it: an epoch within the retention (what its seal counted, or had counted before),
 * or the chain (`counted`: of a slot that was written off, a later seal counts the difference). Closes and votes on epochs that are
 * not sealed pin what they name in those epochs. Beginning again at an earlier epoch, or after a crash, drops nothing more and
 * nothing less.
 */
export async function sweepSlots(from: Epoch, nowMs: number, options: RetentionOptions): Promise<Swept> {
  const { store, genesis, slotRetentionMs, sealingEpoch, counted, drop } = options;
  const old = epochAt(genesis, nowMs - slotRetentionMs);
  const end = Math.max(from, Math.min(old, sealingEpoch(), from + EPOCHS_PER_SWEEP_MAX));
  if (end === from) return { from, contents: 0 };
  const expired = new Set<Digest>();
  const pinned = await pinnedIn(store, from, end);
  for await (const row of rowsOf(store, from, end)) {
    const { slots, facts, roster } = parseHeader(utf8(row.header));
    for (const digest of [slots.digest, facts, roster]) pinned.delete(digest);
    for (const digest of await slotsOf(store, row)) expired.add(digest);
  }
  for (const digest of pinned) if (!expired.has(digest) && (await isSlot(store, digest))) expired.add(digest);
  // Takes no room, and every idle slot is this one.
  expired.delete(EMPTY);
  // What went before a restart need not be looked for again.
  for (const digest of await store.lacks([...expired])) expired.delete(digest);
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

/** The contents that were pinned in these epochs, and not since. */
async function pinnedIn(store: Store, from: Epoch, end: Epoch): Promise<Set<Digest>> {
  const pinned = new Set<Digest>();
  for (let after: Digest | null = null; ;) {
    const page: ContentEntry[] = await store.contentDigests(after, CONTENTS_PAGE_MAX);
    for (const { digest, epoch } of page) if (epoch >= from && epoch < end) pinned.add(digest);
    const last = page.at(-1);
    if (page.length < CONTENTS_PAGE_MAX || last === undefined) return pinned;
    after = last.digest;
  }
}

/** Whether a content is one of a slot: no other kind of content begins with a row of one. */
async function isSlot(store: Store, digest: Digest): Promise<boolean> {
  const bytes = await store.content(digest);
  if (bytes === null) return false;
  try {
    return parseSlot(bytes.subarray(0, bytes.indexOf(LINE_FEED) + 1)).length > 0;
  } catch (error) {
    if (error instanceof WaggleError) return false;
    throw error;
  }
}

const LINE_FEED = 0x0a;

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
