import type { Digest, Epoch, ReplicaId } from '../base/index.ts';
import { slotName, type Slot, type SlotId } from '../usage/index.ts';
import type { Ground } from './compose.ts';
import type { HeldSlot, SealingEffect } from './effects.ts';
import type { Noted } from './noted.ts';
import type { SealingRules } from './rules.ts';
import { isCountedClosed, type Close, type Report } from './value.ts';

/** What is held of a slot: its rows, and whole contents of it that were fetched because someone named them. */
export interface Held {
  readonly id: SlotId;
  readonly rows: Slot;
  readonly fetched: Set<Digest>;
}

/** Every slot up to an epoch of which anything is held or a close is known, by name. */
export function heldSlots(
  { contents }: Ground,
  noted: Noted,
  rows: Iterable<HeldSlot>,
  epoch: Epoch,
): ReadonlyMap<string, Held> {
  const held = new Map<string, Held>();
  for (const each of rows) held.set(slotName(each.id), { ...each, fetched: new Set() });
  const add = ({ replica, run, epoch: of }: SlotId, digest: Digest): void => {
    if (of > epoch) return;
    const id = { replica, run, epoch: of };
    let each = held.get(slotName(id));
    if (each === undefined) held.set(slotName(id), (each = { id, rows: [], fetched: new Set() }));
    if (contents.has(digest)) each.fetched.add(digest);
  };
  for (const close of noted.closesHeld()) {
    add(close, close.slot);
    if (!contents.has(close.reports)) continue;
    const reports = noted.reading(close.epoch, close.replica, () => contents.reports(close.reports));
    for (const report of reports ?? []) add(report, report.digest);
  }
  for (const [at, ballots] of noted.ballots)
    for (const [replica, { frontier: digest }] of ballots) {
      if (digest === null || !contents.has(digest)) continue;
      const frontier = noted.reading(at, replica, () => contents.frontier(digest));
      for (const close of frontier?.closes ?? []) add({ ...close, epoch: at }, close.slot);
      for (const slot of frontier?.slots ?? []) add(slot, slot.digest);
    }
  return held;
}

/** The close of a slot, if it is known. */
export function closeOf(noted: Noted, { replica, run, epoch }: SlotId): Close | undefined {
  const close = noted.closes.get(epoch)?.get(replica);
  return close?.run === run ? close : undefined;
}

/**
 * What is to be said of a slot: its content here and what the seals have counted of it, together. Null if that is nothing more than
 * what they have counted; undefined while that cannot be read yet, which is then asked for. Of a replica of which no seal has
 * heard yet a closed slot is reported though it is empty: so its first one makes it known.
 */
export function reportOf(
  { chain, contents }: Ground,
  noted: Noted,
  rules: SealingRules,
  { id, rows, fetched }: Held,
  heard: ReadonlySet<ReplicaId>,
  effects: SealingEffect[],
): Report | null | undefined {
  if (isCountedClosed(chain, id)) return null;
  const close = closeOf(noted, id);
  const counted = chain.counted.get(slotName(id));
  if (rows.length === 0 && fetched.size === 0) {
    const isFirst = close?.slot === contents.empty && counted === undefined && !heard.has(id.replica);
    return isFirst ? { ...id, digest: contents.pinSlot(id.epoch, [], effects), closed: true } : null;
  }
  if (counted !== undefined && !contents.have([counted], effects)) return undefined;
  const others = noted.reading(id.epoch, id.replica, () => [...fetched].map((digest) => contents.slot(digest)));
  const content = rules.contentOf(rows, counted === undefined ? [] : contents.slot(counted), others ?? []);
  // A part of a closed slot is not closed: the rest would never be counted.
  const digest = contents.holdSlot(content);
  const closed = close?.slot === digest;
  if (digest === counted && !closed) return null;
  if (content.length === 0 && (counted !== undefined || heard.has(id.replica))) return null;
  contents.pinHeld(id.epoch, [digest], effects);
  return { ...id, digest, closed };
}
