import type { Digest, Epoch, ReplicaId } from '../base/index.ts';
import { slotName, type SlotId, type SlotRow } from '../usage/index.ts';
import type { Ground } from './compose.ts';
import { NO_ROWS } from './contents.ts';
import type { HeldSlot, SealingEffect } from './effects.ts';
import type { Noted } from './noted.ts';
import type { SealingRules } from './rules.ts';
import { isCountedClosed, type Close, type Report } from './value.ts';

/** What is held of a slot: its rows, and whole contents of it that were fetched because someone named them. */
export interface Held {
  readonly id: SlotId;
  readonly rows: readonly SlotRow[];
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

/** Why nothing can be said of a slot yet: what was counted of it is not here, or its content is being computed. */
export type NotYet = 'uncountable' | 'computing';

/**
 * What is to be said of a slot: its content here and what the seals have counted of it, together. Null if that is nothing more than
 * what they have counted; what is missing is asked for. Of a replica of which no seal has counted a closed slot lately one is
 * reported though it is empty: so it is known to follow. `moment` names the rows: those of one moment are computed once.
 * What it names is not pinned: that is for whoever writes it, in the epoch that it is written for.
 */
export function reportOf(
  { chain, contents }: Ground,
  noted: Noted,
  rules: SealingRules,
  moment: string,
  { id, rows, fetched }: Held,
  following: ReadonlySet<ReplicaId>,
  effects: SealingEffect[],
): Report | null | NotYet {
  if (isCountedClosed(chain, id)) return null;
  const close = closeOf(noted, id);
  const counted = chain.counted.get(slotName(id));
  if (rows.length === 0 && fetched.size === 0) {
    const isFirst = close?.slot === contents.empty && counted === undefined && !following.has(id.replica);
    return isFirst ? { ...id, digest: contents.hold(new Uint8Array(0)), closed: true } : null;
  }
  const before = counted === undefined ? [] : [counted];
  if (!contents.have(before, effects)) return 'uncountable';
  const named = rows.length === 0 ? NO_ROWS : { name: `${moment} ${slotName(id)}`, rows };
  const join = (others: readonly Digest[]): { readonly digest: Digest | undefined } => ({
    digest: contents.join(named, rules.partsOf(before, others), effects),
  });
  const { digest } = noted.reading(id.epoch, id.replica, () => join([...fetched])) ?? join([]);
  if (digest === undefined) return 'computing';
  // A part of a closed slot is not closed: the rest would never be counted.
  const closed = close?.slot === digest;
  if (digest === counted && !closed) return null;
  if (digest === contents.empty && (counted !== undefined || following.has(id.replica))) return null;
  return { ...id, digest, closed };
}
