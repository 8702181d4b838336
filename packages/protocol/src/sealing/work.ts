import { digestOf, type Digest } from '../base/index.ts';
import type { Certificate } from './certificate.ts';
import type { Ground } from './compose.ts';
import type { Extended } from './extend.ts';
import type { Noted } from './noted.ts';
import type { Value } from './value.ts';

/** What is known about the epoch to be sealed next, and only needed for it. */
export interface Work {
  readonly values: Map<Digest, Value>;
  /** By header, or by statements; null if it cannot be sealed, which no majority of correct members chooses. */
  readonly extended: Map<Digest, Extended | null>;
  certificate: Certificate | undefined;
  /** Contents that nobody needs after the seal, unless something else names them: headers and frontiers of this member. */
  readonly made: Set<Digest>;
}

export const newWork = (): Work => ({
  values: new Map(),
  extended: new Map(),
  certificate: undefined,
  made: new Set(),
});

/**
 * What can go with the seal of a value: headers, which are leaves, reports, frontiers and the slot lists of values that were not
 * chosen, unless a later close made the same ones. Contents of slots stay, of facts too: another epoch, sealed or not, may name
 * the same bytes.
 */
export function releasable(work: Work, value: Value, { crypto, chain, contents }: Ground, noted: Noted): Digest[] {
  const { epoch } = chain;
  const digests = new Set(work.made);
  for (const close of noted.closes.get(epoch)?.values() ?? []) digests.add(close.reports);
  for (const { frontier, accepted } of noted.ballots.get(epoch)?.values() ?? []) {
    if (frontier !== null) digests.add(frontier);
    if (accepted !== null) digests.add(accepted.value);
  }
  for (const [digest, { slotListBytes }] of work.values) digests.add(digest).add(digestOf(crypto, slotListBytes));
  digests.delete(digestOf(crypto, value.slotListBytes));
  const named = noted.namedFrom(epoch + 1, contents);
  return [...digests].filter((digest) => contents.has(digest) && digest !== contents.empty && !named.has(digest));
}
