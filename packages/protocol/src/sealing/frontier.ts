import { compareText, jcsBytes, parseDigest, parseJcs, WaggleError, type Digest, type Json } from '../base/index.ts';
import { assertAscending, compareSlots } from '../usage/index.ts';
import { parseFields } from './roster.ts';
import { parseReport, parseSealable, type Report, type Sealable } from './value.ts';

/**
 * What a promise above ballot 0 says of its member: all that it holds, on disk, of slots that no seal has counted wholly. Recovery
 * uses frontiers and never reports, which may name contents that died with their holder.
 */
export interface Frontier {
  /** Digest of the roster facts that it holds. */
  readonly facts: Digest;
  /** The closes of the epoch by its roster of which it holds the content too, by ascending replica. */
  readonly closes: readonly Sealable[];
  /** What it holds of every other slot up to the epoch, in the order of slots. */
  readonly slots: readonly Report[];
}

/** What a member promises with in an epoch that it knows sealed: there is nothing left to choose. */
export const frontierOfSealed = (empty: Digest): Frontier => ({ facts: empty, closes: [], slots: [] });

/** The content that a ballot register names its frontier by: JCS. */
export const encodeFrontier = ({ facts, closes, slots }: Frontier): Uint8Array<ArrayBuffer> =>
  jcsBytes({ facts, closes: closes.map((close) => ({ ...close })), slots: slots.map((slot) => ({ ...slot })) });

/** Throws `DECODE_FAILED` unless the bytes are an encoded frontier. */
export function parseFrontier(bytes: Uint8Array): Frontier {
  const fields = parseFields(parseJcs(bytes, 'a frontier'), ['facts', 'closes', 'slots'], 'a frontier');
  const closes = list(fields['closes'], 'closes').map(parseSealable);
  const slots = list(fields['slots'], 'slots').map(parseReport);
  assertAscending(closes, (a, b) => compareText(a.replica, b.replica), 'the closes of a frontier');
  assertAscending(slots, compareSlots, 'the slots of a frontier');
  return { facts: parseDigest(fields['facts']), closes, slots };
}

function list(value: Json | undefined, what: string): readonly Json[] {
  if (Array.isArray(value)) return value;
  throw new WaggleError('DECODE_FAILED', `Expected a list of ${what} in a frontier`);
}
