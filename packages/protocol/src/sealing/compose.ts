import { WaggleError, type Crypto, type Digest, type ReplicaId, type Run } from '../base/index.ts';
import { parseUsageWriter } from '../lattice/index.ts';
import { compareSlots, slotName } from '../usage/index.ts';
import { NO_ROWS, type Contents } from './contents.ts';
import type { SealingEffect } from './effects.ts';
import { encodeRoster, parseRoster, rosterDigest, type Cluster, type Roster } from './roster.ts';
import {
  appliedFacts,
  followingReplicas,
  isCountedClosed,
  LATE_SLOTS_MAX,
  parseHeader,
  parseSlotList,
  valueOf,
  type ChainState,
  type Report,
  type Sealable,
  type SlotEntry,
  type Value,
} from './value.ts';

/** The roster after one, by the facts of all closes together and the replicas that follow the chain. Pure. */
export type NextRoster = (roster: Roster, factsContents: readonly Uint8Array[], seen: ReadonlySet<ReplicaId>) => Roster;

/** Of a content of facts, as anybody may have written it, the content of those that prove themselves. The same at every node. */
export type ProvenFacts = (content: Uint8Array) => Uint8Array;

/** What values are computed with. */
export interface Ground {
  readonly cluster: Cluster;
  readonly crypto: Crypto;
  readonly nextRoster: NextRoster;
  readonly provenFacts: ProvenFacts;
  readonly chain: ChainState;
  readonly contents: Contents;
}

/** What a value is made of: closes of the roster, what is held of other slots, and roster facts. */
export interface Basis {
  readonly closes: readonly Sealable[];
  readonly reports: readonly Report[];
  readonly facts: readonly Digest[];
}

/**
 * The one value that a basis determines; undefined while a content is missing, which is then asked for, or being computed. At
 * ballot 0 the basis are all closes and their reports; above, the frontiers of a majority. What reports say of slots with a close in
 * the basis, of later epochs and of what was counted wholly is not looked at.
 */
export function composeValue(ground: Ground, basis: Basis, effects: SealingEffect[]): Value | undefined {
  const { chain, contents, cluster, crypto } = ground;
  const closed = new Set(basis.closes.map((close) => slotName({ ...close, epoch: chain.epoch })));
  const reports = basis.reports.filter(
    (report) => !closed.has(slotName(report)) && report.epoch <= chain.epoch && !isCountedClosed(chain, report),
  );
  const counted = reports.flatMap((report) => chain.counted.get(slotName(report)) ?? []);
  const named = [...basis.closes.map(({ slot }) => slot), ...reports.map(({ digest }) => digest)];
  if (!contents.have([...named, ...counted, ...basis.facts], effects)) return undefined;
  const closes: SlotEntry[] = basis.closes.map(({ replica, run, slot, salt }) => ({
    replica,
    run,
    epoch: chain.epoch,
    digest: slot,
    closed: true,
    salt,
  }));
  const reported = reportedEntries(ground, reports, effects);
  if (reported === undefined) return undefined;
  const entries = [...closes, ...reported];
  entries.push(...absentEntries(ground, entries, effects));
  const seen = followingReplicas(chain, entries);
  const facts = [...new Set(basis.facts)].sort().map((digest) => ground.provenFacts(contents.bytes(digest)));
  const nextRoster = ground.nextRoster(chain.roster, facts, seen);
  const change = { facts: appliedFacts(chain.roster, nextRoster, facts), nextRoster };
  const formats = basis.closes.map((close) => close.formats);
  return valueOf(cluster, chain, entries.sort(compareSlots), formats, change, crypto);
}

/**
 * What the reports add, joined slot by slot: late slots oldest first and bounded. Undefined while that is being computed.
 */
function reportedEntries(
  { chain, contents }: Ground,
  reports: readonly Report[],
  effects: SealingEffect[],
): SlotEntry[] | undefined {
  const bySlot = new Map<string, Report[]>();
  for (const report of reports) {
    const name = slotName(report);
    const several = bySlot.get(name);
    if (several === undefined) bySlot.set(name, [report]);
    else several.push(report);
  }
  let isComputing = false;
  const entries = [...bySlot].flatMap(([name, several]) => {
    const counted = chain.counted.get(name);
    const digests = new Set([...several.map(({ digest }) => digest), ...(counted === undefined ? [] : [counted])]);
    const digest = contents.join(NO_ROWS, digests, effects);
    isComputing ||= digest === undefined;
    if (digest === undefined) return [];
    contents.pinHeld(chain.epoch, [digest], effects);
    const isClosed = several.some((report) => report.closed);
    const { replica, run, epoch } = several[0]!;
    return digest === counted && !isClosed ? [] : [{ replica, run, epoch, digest, closed: isClosed, salt: null }];
  });
  if (isComputing) return undefined;
  const late = entries.filter(({ epoch }) => epoch < chain.epoch).sort(compareSlots);
  return [...late.slice(0, LATE_SLOTS_MAX), ...entries.filter(({ epoch }) => epoch === chain.epoch)];
}

/** For each voter of which nobody holds anything: an empty slot, written off, of the last run that was heard of. */
function absentEntries(
  { chain, contents }: Ground,
  entries: readonly SlotEntry[],
  effects: SealingEffect[],
): SlotEntry[] {
  const named = new Set(entries.filter(({ epoch }) => epoch === chain.epoch).map(({ replica }) => replica));
  return chain.roster
    .filter(({ replica }) => !named.has(replica))
    .map(({ replica }) => ({
      replica,
      run: lastRun(chain, replica),
      epoch: chain.epoch,
      digest: contents.pin(chain.epoch, new Uint8Array(0), effects),
      closed: false,
      salt: null,
    }));
}

function lastRun({ closed }: ChainState, replica: ReplicaId): Run {
  const runs = Array.from(closed.keys(), parseUsageWriter).filter((writer) => writer.replica === replica);
  return Math.max(1, ...runs.map(({ run }) => run)) as Run;
}

/**
 * The value of a header, out of the contents that it names, those of slots among them unless said otherwise; undefined while one is
 * missing, which is then asked for.
 * Throws `DECODE_FAILED`, or `HEADER_MISMATCH` for a header of another place in the chain.
 */
export function readValue(
  { chain, contents, crypto }: Ground,
  digest: Digest,
  effects: SealingEffect[],
  withSlots = true,
): Value | undefined {
  if (!contents.have([digest], effects)) return undefined;
  const bytes = contents.bytes(digest);
  const header = parseHeader(bytes);
  if (header.epoch !== chain.epoch || header.previous !== chain.previous)
    throw new WaggleError(
      'HEADER_MISMATCH',
      `Expected a header of epoch ${chain.epoch}, received one of ${header.epoch}`,
    );
  const stays = header.roster === rosterDigest(chain.roster, crypto);
  const lists = [header.slots.digest, ...rest(header.facts, contents.empty), ...(stays ? [] : [header.roster])];
  if (!contents.have(lists, effects)) return undefined;
  const slotListBytes = contents.bytes(header.slots.digest);
  const slotList = parseSlotList(slotListBytes);
  const slots = slotList.flatMap((entry) => [entry.digest, chain.counted.get(slotName(entry)) ?? []].flat());
  if (withSlots && !contents.have(slots, effects)) return undefined;
  return {
    header: bytes,
    slotList,
    slotListBytes,
    facts: header.facts === contents.empty ? new Uint8Array(0) : contents.bytes(header.facts),
    nextRoster: stays ? chain.roster : parseRoster(contents.bytes(header.roster)),
  };
}

const rest = (digest: Digest, empty: Digest): Digest[] => (digest === empty ? [] : [digest]);

/** Sees to it that all that a value names is on disk, as `readValue`: whoever accepts or seals it holds it. The header's digest. */
export function pinValue(
  { chain, contents, crypto }: Ground,
  value: Value,
  effects: SealingEffect[],
  withSlots = true,
): Digest {
  const header = contents.pin(chain.epoch, value.header, effects);
  contents.pin(chain.epoch, value.slotListBytes, effects);
  if (value.facts.length > 0) contents.pin(chain.epoch, value.facts, effects);
  if (rosterDigest(value.nextRoster, crypto) !== rosterDigest(chain.roster, crypto))
    contents.pin(chain.epoch, encodeRoster(value.nextRoster), effects);
  const slots = withSlots ? value.slotList.map(({ digest }) => digest) : [];
  contents.pinHeld(chain.epoch, slots, effects);
  return header;
}
