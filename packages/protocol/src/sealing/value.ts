import {
  base64,
  compareText,
  digestOf,
  equalBytes,
  hex,
  jcs,
  jcsBytes,
  parseDigest,
  parseJcs,
  parseReplicaId,
  parseRun,
  parseWhole,
  utf8,
  WaggleError,
  type ClusterId,
  type Crypto,
  type Digest,
  type Epoch,
  type Json,
  type ReplicaId,
  type Run,
} from '../base/index.ts';
import { parseUsageWriter, usageWriter, type WriterId } from '../lattice/index.ts';
import { leafHash, saltKey, statementLeaf, statementsOf } from '../transparency/index.ts';
import {
  addSlots,
  assertAscending,
  compareSlots,
  parseLines,
  slotName,
  subtractSlots,
  type Slot,
  type SlotId,
} from '../usage/index.ts';
import { addToRanges, inRanges, type EpochRanges } from './ranges.ts';
import {
  encodeRoster,
  epochBounds,
  parseFields,
  parseRoster,
  quorumOf,
  rosterDigest,
  TIME_MS_MAX,
  type Cluster,
  type Roster,
} from './roster.ts';

/** The formats of sealed epochs that this version can compute. */
export const FORMATS: readonly number[] = [1];

/** Late slots that one seal counts at most, oldest first; the rest wait for the next. */
export const LATE_SLOTS_MAX = 256;

/** What a seal takes of a close. */
export interface Sealable {
  readonly replica: ReplicaId;
  readonly run: Run;
  /** Digest of the slot's content. */
  readonly slot: Digest;
  /** 32 random bytes, base64: this member's share of the salts. */
  readonly salt: string;
  /** Formats that this node can compute. */
  readonly formats: readonly number[];
}

/** `close/<epoch>`: this run's slot of the epoch is complete. Written exactly once per replica and epoch, ever. */
export interface Close extends Sealable {
  readonly epoch: Epoch;
  /** Digest of the reports: every other slot up to this epoch that holds more than the seals have counted. */
  readonly reports: Digest;
  /** Digest of the roster facts that it holds. */
  readonly facts: Digest;
}

/** The JSON of a close register. */
export const closeJson = (close: Close): Json => ({ ...close });

/** Throws `DECODE_FAILED` unless the value is a close register's. */
export function parseClose(value: Json): Close {
  const close = parseFields(
    value,
    ['replica', 'run', 'epoch', 'slot', 'salt', 'formats', 'reports', 'facts'],
    'a close',
  );
  return {
    ...sealable(close),
    epoch: parseWhole(close['epoch'], 'an epoch'),
    reports: parseDigest(close['reports']),
    facts: parseDigest(close['facts']),
  };
}

/** Throws `DECODE_FAILED` unless the value is what a frontier has of a close. */
export const parseSealable = (value: Json): Sealable =>
  sealable(parseFields(value, ['replica', 'run', 'slot', 'salt', 'formats'], 'a close in a frontier'));

function sealable(close: { readonly [key: string]: Json }): Sealable {
  const formats = close['formats'];
  if (!Array.isArray(formats) || formats.length === 0 || formats.length > 16)
    throw new WaggleError('DECODE_FAILED', 'Expected 1 to 16 formats in a close');
  return {
    replica: parseReplicaId(close['replica']),
    run: parseRun(close['run']),
    slot: parseDigest(close['slot']),
    salt: parseSalt(close['salt']),
    formats: formats.map((format: Json) => parseWhole(format, 'a format', 1)),
  };
}

function parseSalt(value: Json | undefined): string {
  if (typeof value === 'string' && base64.decode(value).length === 32) return value;
  throw new WaggleError('DECODE_FAILED', 'Expected 32 bytes in base64 for a salt share');
}

/** What a member holds of another slot, named by the digest of its content. */
export interface Report extends SlotId {
  readonly digest: Digest;
  /** Whether its writer closed it. */
  readonly closed: boolean;
}

/** One counted slot, as the slot list names it. */
export interface SlotEntry extends Report {
  /** The salt share of its close, base64; null if it was written off. */
  readonly salt: string | null;
}

const lines = (items: readonly Json[]): Uint8Array<ArrayBuffer> => utf8(items.map((item) => `${jcs(item)}\n`).join(''));

const parseSlotId = (value: { readonly [key: string]: Json }): SlotId => ({
  replica: parseReplicaId(value['replica']),
  run: parseRun(value['run']),
  epoch: parseWhole(value['epoch'], 'an epoch'),
});

function parseClosed(value: Json | undefined): boolean {
  if (typeof value === 'boolean') return value;
  throw new WaggleError('DECODE_FAILED', 'Expected true or false for closed');
}

/** The content that a close names its reports by: one JCS line each, in the order of slots. */
export const encodeReports = (reports: readonly Report[]): Uint8Array<ArrayBuffer> =>
  lines(reports.map((report) => ({ ...report })));

/** Throws `DECODE_FAILED`. */
export function parseReports(bytes: Uint8Array): Report[] {
  const reports = parseLines(bytes, 'a report', parseReport);
  assertAscending(reports, compareSlots, 'reports');
  return reports;
}

/** Throws `DECODE_FAILED` unless the value is a report. */
export function parseReport(value: Json): Report {
  const report = parseFields(value, ['replica', 'run', 'epoch', 'digest', 'closed'], 'a report');
  return { ...parseSlotId(report), digest: parseDigest(report['digest']), closed: parseClosed(report['closed']) };
}

/** The content that a header names its slot list by: one JCS line each, in the order of slots. */
export const encodeSlotList = (entries: readonly SlotEntry[]): Uint8Array<ArrayBuffer> =>
  lines(entries.map((entry) => ({ ...entry })));

/** Throws `DECODE_FAILED`. */
export function parseSlotList(bytes: Uint8Array): SlotEntry[] {
  const entries = parseLines(bytes, 'a slot list', (value) => {
    const entry = parseFields(
      value,
      ['replica', 'run', 'epoch', 'digest', 'closed', 'salt'],
      'an entry of the slot list',
    );
    const salt = entry['salt'];
    return {
      ...parseSlotId(entry),
      digest: parseDigest(entry['digest']),
      closed: parseClosed(entry['closed']),
      salt: salt === null ? null : parseSalt(salt),
    };
  });
  assertAscending(entries, compareSlots, 'the slot list');
  return entries;
}

/** The value of an epoch: what the roster agrees on, and the first leaf that the epoch appends. */
export interface Header {
  readonly format: number;
  readonly cluster: ClusterId;
  readonly epoch: Epoch;
  /** Leaf hash of the previous header, hexadecimal, across clusters; null in epoch 0. */
  readonly previous: Digest | null;
  /** The slot list: digest of its content, and number of its entries. */
  readonly slots: { readonly digest: Digest; readonly count: number };
  /** Digest of the roster facts applied. */
  readonly facts: Digest;
  /** Digest of roster(epoch + 1). */
  readonly roster: Digest;
  /** The format of epoch + 1: the highest that all closes can compute. */
  readonly nextFormat: number;
}

/** The JCS bytes of a header: its content, and its leaf. */
export const encodeHeader = (header: Header): Uint8Array<ArrayBuffer> =>
  jcsBytes({ ...header, slots: { ...header.slots } });

/** Throws `DECODE_FAILED` unless the bytes are an encoded header. */
export function parseHeader(bytes: Uint8Array): Header {
  const names = ['format', 'cluster', 'epoch', 'previous', 'slots', 'facts', 'roster', 'nextFormat'];
  const header = parseFields(parseJcs(bytes, 'a header'), names, 'a header');
  const slots = parseFields(header['slots'], ['digest', 'count'], 'the slots of a header');
  return {
    format: parseWhole(header['format'], 'a format', 1),
    cluster: parseDigest(header['cluster']) as string as ClusterId,
    epoch: parseWhole(header['epoch'], 'an epoch'),
    previous: header['previous'] === null ? null : parseDigest(header['previous']),
    slots: { digest: parseDigest(slots['digest']), count: parseWhole(slots['count'], 'a count of slots') },
    facts: parseDigest(header['facts']),
    roster: parseDigest(header['roster']),
    nextFormat: parseWhole(header['nextFormat'], 'a format', 1),
  };
}

/** Leaf hash of a header, as the next header names it. */
export const headerHash = (header: Uint8Array, crypto: Crypto): Digest =>
  hex.encode(leafHash(crypto, header)) as Digest;

/** Where the chain of sealed epochs stands: what the next one is computed from. */
export interface ChainState {
  /** The epoch to be sealed next. */
  readonly epoch: Epoch;
  /** Leaf hash of the last header; null before epoch 0. */
  readonly previous: Digest | null;
  /** Roster(epoch). */
  readonly roster: Roster;
  /** The format that the last header decided. */
  readonly format: number;
  /** By slot name, the digest of what the seals have counted of slots that were never closed and so may still grow. */
  readonly counted: ReadonlyMap<string, Digest>;
  /** The slots that the seals have counted as closed: complete, and never to be counted again. */
  readonly closed: ReadonlyMap<WriterId, EpochRanges>;
}

/** Whether a seal has counted a slot as closed. */
export const isCountedClosed = (chain: ChainState, { replica, run, epoch }: SlotId): boolean =>
  inRanges(chain.closed.get(usageWriter(replica, run)) ?? [], epoch);

/** Before the first seal: of a successor, where its predecessor ended. */
export const chainStart = ({ genesis: { roster, predecessor } }: Cluster): ChainState => ({
  epoch: predecessor?.epoch ?? 0,
  previous: predecessor?.previous ?? null,
  roster,
  format: predecessor?.format ?? 1,
  counted: new Map(predecessor?.counted),
  closed: new Map(predecessor?.closed),
});

/** A value with the contents that its header names. */
export interface Value {
  readonly header: Uint8Array;
  readonly slotList: readonly SlotEntry[];
  readonly slotListBytes: Uint8Array;
  readonly facts: Uint8Array;
  readonly nextRoster: Roster;
}

/** Who is in one of two rosters only. */
function changedReplicas(before: Roster, after: Roster): ReadonlySet<ReplicaId> {
  const [old, next] = [before, after].map((roster) => new Set(roster.map(({ replica }) => replica)));
  return new Set([...old!, ...next!].filter((replica) => !old!.has(replica) || !next!.has(replica)));
}

/** The facts that a change of roster applies: of all that the closes brought, the lines about those who come or go. */
export function appliedFacts(before: Roster, after: Roster, contents: readonly Uint8Array[]): Uint8Array {
  const changed = changedReplicas(before, after);
  if (changed.size === 0) return new Uint8Array(0);
  const texts = contents.flatMap((bytes) =>
    parseLines(bytes, 'a roster fact', (fact) => fact).filter((fact) => changed.has(fact['replica'] as ReplicaId)),
  );
  return utf8([...new Set(texts.map((fact) => `${jcs(fact)}\n`))].sort(compareText).join(''));
}

/** How far behind the seals someone without a vote closes its slots at most, and how long after such a close it may be let in. */
export const FOLLOWED_EPOCHS = 8;

/**
 * The replicas that follow the chain: those of which the seals, or these entries of the next one, count a slot of the last epochs as
 * closed, if an empty one. Who cannot follow closes nothing, and so gets no vote that it could not use.
 */
export function followingReplicas({ epoch, closed }: ChainState, entries: readonly SlotEntry[] = []): Set<ReplicaId> {
  const isRecent = (of: Epoch | undefined): boolean => of !== undefined && of >= epoch - FOLLOWED_EPOCHS;
  const following = new Set<ReplicaId>();
  for (const [writer, ranges] of closed)
    if (isRecent(ranges.at(-1)?.[1])) following.add(parseUsageWriter(writer).replica);
  for (const entry of entries) if (entry.closed && isRecent(entry.epoch)) following.add(entry.replica);
  return following;
}

/**
 * The value that the entries determine, and nothing else: same state and entries, same bytes, at every node.
 * Entries come in the order of slots; `formats` are those of each close in the set; `facts` are those that make the next roster.
 */
export function valueOf(
  cluster: Cluster,
  chain: ChainState,
  entries: readonly SlotEntry[],
  formats: readonly (readonly number[])[],
  change: { readonly facts: Uint8Array; readonly nextRoster: Roster },
  crypto: Crypto,
): Value {
  const slotListBytes = encodeSlotList(entries);
  const common = FORMATS.filter((format) => formats.every((known) => known.includes(format)));
  const header = encodeHeader({
    format: chain.format,
    cluster: cluster.id,
    epoch: chain.epoch,
    previous: chain.previous,
    slots: { digest: digestOf(crypto, slotListBytes), count: entries.length },
    facts: digestOf(crypto, change.facts),
    roster: rosterDigest(change.nextRoster, crypto),
    nextFormat: Math.max(chain.format, ...common),
  });
  return { header, slotList: entries, slotListBytes, ...change };
}

/** What a sealed value says: statements, leaves, and the chain after it. */
export interface Outcome {
  readonly statements: ReturnType<typeof statementsOf>;
  /** The header's leaf, then one for each statement. */
  readonly leaves: readonly Uint8Array[];
  /** The counted slots with their whole contents. */
  readonly slots: readonly { readonly id: SlotId; readonly content: Slot }[];
  readonly next: ChainState;
}

/**
 * Computes what a value means, from its slot list and the contents it names: the same at every node and for every auditor.
 * `contentOf` gives the slot with a digest, checked against it.
 * Throws `HEADER_MISMATCH` if the header does not continue the chain, `CONSERVATION_BROKEN` if a slot is below what was
 * counted of it before or was counted as closed, `ROSTER_MISMATCH` if the next roster is not the one that the header names, or the
 * facts do not name who comes and goes.
 */
export function outcomeOf(
  cluster: Cluster,
  chain: ChainState,
  value: {
    readonly header: Uint8Array;
    readonly slotList: readonly SlotEntry[];
    readonly facts: Uint8Array;
    readonly nextRoster: Uint8Array;
  },
  contentOf: (digest: Digest) => Slot,
  crypto: Crypto,
): Outcome {
  const header = parseHeader(value.header);
  checkHeader(header, cluster, chain, value, crypto);
  const perEpoch = new Map<Epoch, Slot>();
  const counted = new Map(chain.counted);
  const closed = new Map(chain.closed);
  const slots: { id: SlotId; content: Slot }[] = [];
  for (const entry of value.slotList) {
    const name = slotName(entry);
    const before = chain.counted.get(name);
    const content = contentOf(entry.digest);
    slots.push({ id: entry, content });
    if (isCountedClosed(chain, entry))
      throw new WaggleError('CONSERVATION_BROKEN', `Expected slot ${name} once only: it was counted as closed before`);
    const added = difference(name, content, before === undefined ? [] : contentOf(before));
    perEpoch.set(entry.epoch, addSlots(perEpoch.get(entry.epoch) ?? [], added));
    if (entry.closed) {
      counted.delete(name);
      const writer = usageWriter(entry.replica, entry.run);
      closed.set(writer, addToRanges(closed.get(writer) ?? [], entry.epoch));
    } else if (content.length > 0) counted.set(name, entry.digest);
  }
  const usage = [...perEpoch]
    .map(([epoch, slot]) => ({ epoch, ...epochBounds(cluster.genesis, epoch), usage: slot }))
    .sort((a, b) => a.epoch - b.epoch);
  const statements = statementsOf(
    cluster.id,
    chain.epoch,
    usage,
    saltKey(sharesOf(chain, value.slotList), crypto),
    crypto,
  );
  return {
    statements,
    leaves: [value.header, ...statements.map(({ text }) => statementLeaf(text, chain.epoch, crypto))],
    slots,
    next: {
      epoch: chain.epoch + 1,
      previous: headerHash(value.header, crypto),
      roster: parseRoster(value.nextRoster),
      format: header.nextFormat,
      counted,
      closed,
    },
  };
}

function difference(name: string, content: Slot, before: Slot): Slot {
  try {
    return subtractSlots(content, before);
  } catch (cause) {
    throw new WaggleError(
      'CONSERVATION_BROKEN',
      `Expected slot ${name} to hold at least what was counted of it before`,
      { cause },
    );
  }
}

/** The salt shares of this epoch's closes by roster members, in roster order. */
function sharesOf(chain: ChainState, slotList: readonly SlotEntry[]): Uint8Array[] {
  const members = new Set<string>(chain.roster.map(({ replica }) => replica));
  return slotList
    .filter(
      ({ epoch, replica, closed, salt }) => epoch === chain.epoch && closed && salt !== null && members.has(replica),
    )
    .sort((a, b) => compareText(a.replica, b.replica))
    .map(({ salt }) => base64.decode(salt!));
}

function checkHeader(
  header: Header,
  cluster: Cluster,
  chain: ChainState,
  value: { readonly slotList: readonly SlotEntry[]; readonly facts: Uint8Array; readonly nextRoster: Uint8Array },
  crypto: Crypto,
): void {
  const slotList = encodeSlotList(value.slotList);
  const expect = (what: string, expected: string | number | null, received: string | number | null): void => {
    if (expected !== received)
      throw new WaggleError(
        'HEADER_MISMATCH',
        `Expected ${what} ${expected} in the header of epoch ${chain.epoch}, received ${received}`,
      );
  };
  expect('cluster', cluster.id, header.cluster);
  expect('epoch', chain.epoch, header.epoch);
  expect('previous header', chain.previous, header.previous);
  expect('format', chain.format, header.format);
  expect('slot list', digestOf(crypto, slotList), header.slots.digest);
  expect('number of slots', value.slotList.length, header.slots.count);
  expect('roster facts', digestOf(crypto, value.facts), header.facts);
  for (const format of [header.format, header.nextFormat])
    if (!FORMATS.includes(format))
      throw new WaggleError(
        'HEADER_MISMATCH',
        `Expected one of the formats ${FORMATS.join(', ')} in the header of epoch ${chain.epoch}, received ${format}`,
      );
  if (epochBounds(cluster.genesis, chain.epoch).endMs > TIME_MS_MAX)
    throw new WaggleError('HEADER_MISMATCH', `Expected an epoch before the year 10 000, received ${chain.epoch}`);
  if (digestOf(crypto, value.nextRoster) !== header.roster)
    throw new WaggleError(
      'ROSTER_MISMATCH',
      `Expected the roster with digest ${header.roster} after epoch ${chain.epoch}`,
    );
  checkChange(chain, value);
  checkSlots(chain, value.slotList);
}

/** The facts say who comes and who goes, and of nobody else. What they prove is for those who can read them to check. */
function checkChange(
  { epoch, roster }: ChainState,
  { facts, nextRoster }: { readonly facts: Uint8Array; readonly nextRoster: Uint8Array },
): void {
  const after = parseRoster(nextRoster);
  const changed = changedReplicas(roster, after);
  const said = parseLines(facts, 'a roster fact', (fact) => parseReplicaId(fact['replica']));
  if (said.some((replica) => !changed.has(replica)) || new Set(said).size !== changed.size)
    throw new WaggleError(
      'ROSTER_MISMATCH',
      `Expected roster facts of epoch ${epoch} about exactly the ${changed.size} replicas that come or go`,
    );
  const before = new Map(roster.map((entry) => [entry.replica, encodeRoster([entry])]));
  for (const entry of after) {
    const known = before.get(entry.replica);
    if (known !== undefined && !equalBytes(known, encodeRoster([entry])))
      throw new WaggleError('ROSTER_MISMATCH', `Expected ${entry.replica} to keep its keys in epoch ${epoch}`);
  }
}

/** Every voter is named, a majority of them by their closes; nobody else has a share in the salts. */
function checkSlots({ epoch, roster }: ChainState, slotList: readonly SlotEntry[]): void {
  const voters = new Set(roster.map(({ replica }) => replica));
  const salted = slotList.filter(({ salt }) => salt !== null);
  const good =
    slotList.every((entry) => entry.epoch <= epoch) &&
    salted.every((entry) => entry.closed && entry.epoch === epoch && voters.has(entry.replica)) &&
    new Set(salted.map(({ replica }) => replica)).size === salted.length;
  if (!good)
    throw new WaggleError(
      'HEADER_MISMATCH',
      `Expected slots up to epoch ${epoch} only, with one salt share for each close of its roster`,
    );
  const named = new Set(slotList.filter((entry) => entry.epoch === epoch).map(({ replica }) => replica));
  for (const replica of voters)
    if (!named.has(replica))
      throw new WaggleError('HEADER_MISMATCH', `Expected a slot of ${replica}, which votes in epoch ${epoch}`);
  if (salted.length < quorumOf(roster))
    throw new WaggleError(
      'HEADER_MISMATCH',
      `Expected the closes of ${quorumOf(roster)} of ${roster.length} members in epoch ${epoch}, received ${salted.length}`,
    );
}
