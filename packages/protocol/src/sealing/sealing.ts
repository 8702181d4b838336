import {
  assert,
  base64,
  digestOf,
  jcs,
  parseDigest,
  parseJcs,
  present,
  utf8,
  WaggleError,
  type Crypto,
  type Digest,
  type Epoch,
  type Json,
  type Random,
  type ReplicaId,
  type Run,
  type Signer,
} from '../base/index.ts';
import {
  appendLeaves,
  checkpointText,
  cosignCheckpoint,
  cosignerKey,
  edgeRoot,
  leafHash,
  logKey,
  openCheckpoint,
  signCheckpoint,
  type Checkpoint,
  type TileEdge,
} from '../transparency/index.ts';
import { compareSlots, encodeSlot, joinSlots, parseSlot, slotName, type Slot, type SlotId } from '../usage/index.ts';
import {
  accept,
  BALLOT_STATE_NEW,
  BALLOT_ZERO,
  ballotStateJson,
  chosen,
  compareBallots,
  parseBallotState,
  type BallotState,
} from './ballots.ts';
import type { HeldSlot, SealedEpoch, SealingEffect, SealingInput } from './effects.ts';
import { encodeRoster, epochBounds, parseFields, quorumOf, type Cluster, type Roster } from './roster.ts';
import {
  closeJson,
  encodeReports,
  FACTS_NONE,
  FORMATS,
  isCountedClosed,
  LATE_SLOTS_MAX,
  outcomeOf,
  parseClose,
  parseReports,
  valueOf,
  type ChainState,
  type Close,
  type Report,
  type SlotEntry,
  type Value,
} from './value.ts';

/** How far a local clock may be past an epoch's end alone, without its members, before it closes it, in ms. */
const CLOSE_SKEW_MS_MAX = 60_000;
/** Epochs closed in one step at most, after a long downtime. */
const CLOSES_PER_STEP = 64;
/** Sealed epochs whose close, ballot and seal registers are still shown to members that are behind. */
export const REGISTERS_KEPT_EPOCHS = 8;

/** Two signature lines with names of 255 characters at most. */
const SEAL_LINES_LENGTH_MAX = 1_024;

export interface SealingOptions {
  readonly cluster: Cluster;
  readonly replica: ReplicaId;
  readonly run: Run;
  readonly crypto: Crypto;
  readonly random: Random;
  /** Signs as the log (type 0x01) and as cosigner (type 0x04). */
  readonly logSigner: Signer;
  readonly cosigner: Signer;
  /** Every slot of which registers are held, up to an epoch. Rows that a seal has counted may still be among them. */
  readonly slotsUpTo: (epoch: Epoch) => Iterable<HeldSlot>;
  readonly chain: ChainState;
  readonly edge: TileEdge;
  /** The epoch that is open if no close of this replica says otherwise. */
  readonly firstEpoch: Epoch;
}

/** `seal/<epoch>`: this replica's two signature lines under the checkpoint. */
interface SealRegister {
  readonly header: Digest;
  readonly lines: string;
}

/**
 * Closes this replica's slots and seals epochs with the roster (PROTOCOL sections 4 and 5). Handlers only take note;
 * `#evaluate` alone decides.
 *
 * 1. A slot is closed once, after its epoch's end; nothing is added to it from then on.
 * 2. Epoch e is sealed after e − 1, and this member takes part only when its own slot of e is closed.
 * 3. Ballot 0: with the closes and all contents of the whole roster, and nothing higher promised, it accepts the one value
 *    that they determine.
 * 4. Only what a majority accepted at one ballot is chosen; only then is the checkpoint cosigned, once.
 * 5. With a majority's cosignatures the epoch is sealed.
 */
export class Sealing {
  readonly #options: SealingOptions;
  #chain: ChainState;
  #edge: TileEdge;
  #openEpoch: Epoch;
  readonly #closes = new Map<Epoch, Map<ReplicaId, Close>>();
  readonly #ballots = new Map<Epoch, Map<ReplicaId, BallotState>>();
  readonly #seals = new Map<Epoch, Map<ReplicaId, SealRegister>>();
  readonly #contents = new Map<Digest, Uint8Array>();
  /** Slots that this process encoded itself, by digest: reading a large one back takes as long as sealing it. */
  readonly #slots = new Map<Digest, Slot>();
  readonly #wanted = new Set<Digest>();
  /** Those contents that were pinned, so that it is done once. */
  readonly #pinned = new Set<Digest>();
  /** The value of the epoch to be sealed next, once it is known. */
  #value: Value | undefined;
  /** What that value makes of the log, once it is chosen. */
  #extended: Omit<SealedEpoch, 'checkpoint' | 'release'> | undefined;
  /** Counted contents that the next close needs to report more of their slots. */
  readonly #forReports = new Set<Digest>();
  /** Own registers written but not yet back from disk. */
  readonly #writing = new Set<string>();

  constructor(options: SealingOptions) {
    this.#options = options;
    this.#chain = options.chain;
    this.#edge = options.edge;
    this.#openEpoch = options.firstEpoch;
  }

  /** The epoch that requests are metered in. */
  get openEpoch(): Epoch {
    return this.#openEpoch;
  }

  /** The epoch to be sealed next; all before it are. */
  get sealingEpoch(): Epoch {
    return this.#chain.epoch;
  }

  /** The roster of the epoch to be sealed next. */
  get roster(): Roster {
    return this.#chain.roster;
  }

  /** Digests of contents that must stay on disk. */
  get counted(): ReadonlyMap<string, Digest> {
    return this.#chain.counted;
  }

  /** Unix ms at which the open epoch ends: nothing happens by itself before. */
  get wakeAtMs(): number {
    return epochBounds(this.#options.cluster.genesis, this.#openEpoch).endMs;
  }

  /** Whether an epoch whose time has passed is still open. */
  isClosable(nowMs: number, membersClockMs: number | null): boolean {
    const { endMs } = epochBounds(this.#options.cluster.genesis, this.#openEpoch);
    return nowMs >= endMs && (membersClockMs === null || membersClockMs >= endMs - CLOSE_SKEW_MS_MAX);
  }

  /**
   * Takes an input and says what to do. The driver carries out all effects of a list in one transaction, in order, and never
   * drops one: what it cannot write now it writes later.
   */
  handle(input: SealingInput, nowMs: number): SealingEffect[] {
    const effects: SealingEffect[] = [];
    if (input.type === 'register') this.#note(input.replica, input.key, input.value);
    else if (input.type === 'content') this.#hold(input.bytes);
    else
      for (let i = 0; i < CLOSES_PER_STEP && this.isClosable(nowMs, input.membersClockMs); i++)
        effects.push(...this.#close());
    for (let epoch = -1; epoch !== this.#chain.epoch;) {
      epoch = this.#chain.epoch;
      effects.push(...this.#evaluate(nowMs));
    }
    return effects;
  }

  #note(replica: ReplicaId, key: string, value: string): void {
    const match = /^(close|ballot|seal)\/(0|[1-9][0-9]{0,15})$/.exec(key);
    if (match === null) return;
    const epoch = Number(match[2]);
    const json = parseJcs(utf8(value), `register ${key}`);
    const own = replica === this.#options.replica;
    if (own) this.#writing.delete(key);
    if (match[1] === 'close') {
      const close = parseClose(json);
      if (close.replica !== replica || close.epoch !== epoch)
        throw new WaggleError(
          'DECODE_FAILED',
          `Expected a close of epoch ${epoch} by ${replica}, received ${close.epoch} by ${close.replica}`,
        );
      if (own) this.#openEpoch = Math.max(this.#openEpoch, epoch + 1);
      put(this.#closes, epoch, replica, close, this.#chain.epoch);
    } else if (match[1] === 'ballot') put(this.#ballots, epoch, replica, parseBallotState(json), this.#chain.epoch);
    else put(this.#seals, epoch, replica, parseSeal(json), this.#chain.epoch);
  }

  #hold(bytes: Uint8Array): Digest {
    const digest = digestOf(this.#options.crypto, bytes);
    this.#contents.set(digest, bytes);
    this.#wanted.delete(digest);
    return digest;
  }

  #pin(epoch: Epoch, bytes: Uint8Array, effects: SealingEffect[]): Digest {
    const digest = this.#hold(bytes);
    if (!this.#pinned.has(digest)) effects.push({ type: 'content', epoch, digest, bytes });
    this.#pinned.add(digest);
    return digest;
  }

  #pinSlot(epoch: Epoch, slot: Slot, effects: SealingEffect[]): Digest {
    const digest = this.#pin(epoch, encodeSlot(slot), effects);
    this.#slots.set(digest, slot);
    return digest;
  }

  /** Rule 1. */
  #close(): SealingEffect[] {
    const { replica, run, random } = this.#options;
    const epoch = this.#openEpoch;
    const effects: SealingEffect[] = [];
    let own: Slot = [];
    const reports: Report[] = [];
    for (const { id, rows } of this.#options.slotsUpTo(epoch)) {
      if (id.replica === replica && id.run === run && id.epoch === epoch) own = rows;
      else reports.push(...this.#report(id, rows, epoch, effects));
    }
    const close: Close = {
      replica,
      run,
      epoch,
      slot: this.#pinSlot(epoch, own, effects),
      salt: base64.encode(random.bytes(32)),
      formats: FORMATS,
      reports: this.#pin(epoch, encodeReports(reports.sort(compareSlots)), effects),
      facts: this.#pin(epoch, FACTS_NONE, effects),
    };
    this.#openEpoch = epoch + 1;
    // At once, though it says nothing before it is on disk: from here on it speaks for the slot and needs its contents.
    put(this.#closes, epoch, replica, close, this.#chain.epoch);
    effects.push(this.#write(`close/${epoch}`, closeJson(close)));
    return effects;
  }

  /** A report of another slot: none while its own close speaks for it, nor once a seal has counted that. */
  #report(id: SlotId, rows: Slot, epoch: Epoch, effects: SealingEffect[]): Report[] {
    const close = this.#closes.get(id.epoch)?.get(id.replica);
    const hasClosed = close !== undefined && close.run === id.run;
    if (rows.length === 0 || isCountedClosed(this.#chain, id)) return [];
    if (hasClosed && id.epoch >= this.#chain.epoch && this.#isVoter(id.replica)) return [];
    const before = this.#chain.counted.get(slotName(id));
    // Without what was counted there is nothing to report yet: a later close does.
    if (before !== undefined && !this.#have([before], effects)) {
      this.#forReports.add(before);
      return [];
    }
    if (before !== undefined) this.#forReports.delete(before);
    const content = before === undefined ? rows : joinSlots(rows, this.#slot(before));
    const bytes = encodeSlot(content);
    const digest = digestOf(this.#options.crypto, bytes);
    if (digest === before) return [];
    this.#pin(epoch, bytes, effects);
    // A part of a closed slot is not closed: the rest would never be counted.
    return [{ ...id, digest, closed: hasClosed && close.slot === digest }];
  }

  #isVoter(replica: ReplicaId): boolean {
    return this.#chain.roster.some((entry) => entry.replica === replica);
  }

  #write(key: string, value: Json): SealingEffect {
    this.#writing.add(key);
    return { type: 'write', key, value: jcs(value) };
  }

  /** Rules 2 to 5: the only place that decides. */
  #evaluate(nowMs: number): SealingEffect[] {
    const effects: SealingEffect[] = [];
    const epoch = this.#chain.epoch;
    if (!this.#closes.get(epoch)?.has(this.#options.replica) || this.#writing.has(`close/${epoch}`)) return effects;
    const own = this.#ballots.get(epoch)?.get(this.#options.replica) ?? BALLOT_STATE_NEW;
    if (own.accepted === null && compareBallots(own.promised, BALLOT_ZERO) === 0) this.#acceptClosed(own, effects);
    const choice = chosen(this.#votes(epoch), quorumOf(this.#chain.roster));
    if (choice !== null) this.#learn(choice.value, nowMs, effects);
    return effects;
  }

  /** What the roster's members have written of an epoch; nobody else votes. */
  #votes(epoch: Epoch): BallotState[] {
    const ballots = this.#ballots.get(epoch);
    return this.#chain.roster.flatMap(({ replica }) => ballots?.get(replica) ?? []);
  }

  /** Rule 3. */
  #acceptClosed(own: BallotState, effects: SealingEffect[]): void {
    const epoch = this.#chain.epoch;
    const key = `ballot/${epoch}`;
    if (this.#writing.has(key)) return;
    const value = this.#determined(effects);
    if (value === undefined) return;
    this.#value = value;
    const digest = this.#pin(epoch, value.header, effects);
    this.#pin(epoch, value.slotListBytes, effects);
    // Whoever accepts a value holds every content that it names on disk, those of others too.
    for (const entry of value.slotList) this.#pin(epoch, this.#content(entry.digest), effects);
    const state = present(accept(own, BALLOT_ZERO, digest) ?? undefined, 'a state that promised nothing accepts');
    effects.push(this.#write(key, ballotStateJson(state)));
  }

  /** The value that the closes of the whole roster determine; undefined while one, or a content, is missing. */
  #determined(effects: SealingEffect[]): Value | undefined {
    const { cluster, crypto } = this.#options;
    const epoch = this.#chain.epoch;
    const held = this.#closes.get(epoch);
    const closes = this.#chain.roster.flatMap(({ replica }) => held?.get(replica) ?? []);
    if (closes.length < this.#chain.roster.length) return undefined;
    if (
      !this.#have(
        closes.flatMap((close) => [close.slot, close.reports, close.facts]),
        effects,
      )
    )
      return undefined;
    const reports = closes.flatMap((close) => parseReports(this.#content(close.reports)));
    const counted = reports.flatMap((report) => this.#chain.counted.get(slotName(report)) ?? []);
    if (!this.#have([...reports.map(({ digest }) => digest), ...counted], effects)) return undefined;
    const entries: SlotEntry[] = closes.map(({ replica, run, slot, salt }) => ({
      replica,
      run,
      epoch,
      digest: slot,
      closed: true,
      salt,
    }));
    entries.push(...this.#reported(reports, new Set(entries.map(slotName)), effects));
    return valueOf(
      cluster,
      this.#chain,
      entries.sort(compareSlots),
      closes.map(({ formats }) => formats),
      crypto,
    );
  }

  /** What the reports add, joined slot by slot: late slots oldest first and bounded, slots with a close in the set left out. */
  #reported(reports: readonly Report[], closed: ReadonlySet<string>, effects: SealingEffect[]): SlotEntry[] {
    const bySlot = new Map<string, Report[]>();
    for (const report of reports) {
      const name = slotName(report);
      if (closed.has(name) || report.epoch > this.#chain.epoch || isCountedClosed(this.#chain, report)) continue;
      bySlot.set(name, [...(bySlot.get(name) ?? []), report]);
    }
    const entries = [...bySlot].flatMap(([name, several]) => {
      const counted = this.#chain.counted.get(name);
      const digests = [...several.map(({ digest }) => digest), ...(counted === undefined ? [] : [counted])];
      const content = digests.map((digest) => this.#slot(digest)).reduce(joinSlots);
      const digest = this.#pinSlot(this.#chain.epoch, content, effects);
      const { replica, run, epoch } = several[0]!;
      return digest === counted
        ? []
        : [{ replica, run, epoch, digest, closed: several.some((report) => report.closed), salt: null }];
    });
    const late = entries.filter(({ epoch }) => epoch < this.#chain.epoch).sort(compareSlots);
    return [...late.slice(0, LATE_SLOTS_MAX), ...entries.filter(({ epoch }) => epoch === this.#chain.epoch)];
  }

  #have(digests: readonly Digest[], effects: SealingEffect[]): boolean {
    const missing = [...new Set(digests)].filter((digest) => !this.#contents.has(digest));
    for (const digest of missing) {
      if (this.#wanted.has(digest)) continue;
      this.#wanted.add(digest);
      effects.push({ type: 'want', digest });
    }
    return missing.length === 0;
  }

  #content(digest: Digest): Uint8Array {
    return present(this.#contents.get(digest), `content ${digest}`);
  }

  #slot(digest: Digest): Slot {
    return this.#slots.get(digest) ?? parseSlot(this.#content(digest));
  }

  /** Rules 4 and 5: the value is chosen. */
  #learn(header: Digest, nowMs: number, effects: SealingEffect[]): void {
    const epoch = this.#chain.epoch;
    this.#value ??= this.#determined(effects);
    if (this.#value === undefined) return;
    assert(
      digestOf(this.#options.crypto, this.#value.header) === header,
      `the value chosen for epoch ${epoch} is the one the closes determine`,
    );
    const sealed = (this.#extended ??= this.#extend(this.#value));
    const checkpoint = { origin: this.#options.cluster.origin, size: sealed.treeSize, root: sealed.root };
    const key = `seal/${epoch}`;
    if (!this.#seals.get(epoch)?.has(this.#options.replica)) {
      if (!this.#writing.has(key)) effects.push(this.#write(key, this.#sign(header, checkpoint, nowMs)));
      return;
    }
    const signatures = this.#signatures(header, checkpoint);
    const quorum = quorumOf(this.#chain.roster);
    if (signatures.length < quorum) return;
    const note = `${checkpointText(checkpoint)}\n${signatures.slice(0, quorum).join('')}`;
    const release = this.#releasable(this.#value);
    effects.push({ type: 'sealed', sealed: { ...sealed, checkpoint: note, release } });
    this.#advance(sealed);
  }

  /** The signature lines that members have shown for this checkpoint and that are good, in roster order. */
  #signatures(header: Digest, checkpoint: Checkpoint): string[] {
    const { crypto } = this.#options;
    const { origin } = checkpoint;
    return this.#chain.roster.flatMap((member) => {
      const seal = this.#seals.get(this.#chain.epoch)?.get(member.replica);
      if (seal?.header !== header) return [];
      const keys = [
        logKey(crypto, origin, base64.decode(member.logKey)),
        cosignerKey(crypto, origin, member.replica, base64.decode(member.cosignerKey)),
      ];
      try {
        const { verified } = openCheckpoint(crypto, `${checkpointText(checkpoint)}\n${seal.lines}`, keys);
        return verified.length === keys.length ? [seal.lines] : [];
      } catch (error) {
        if (error instanceof WaggleError) return [];
        throw error;
      }
    });
  }

  #extend(value: Value): Omit<SealedEpoch, 'checkpoint' | 'release'> {
    const { cluster, crypto } = this.#options;
    const bytes = {
      header: value.header,
      slotList: value.slotList,
      facts: value.facts,
      nextRoster: encodeRoster(value.nextRoster),
    };
    const outcome = outcomeOf(cluster, this.#chain, bytes, (digest) => this.#slot(digest), crypto);
    const { edge, tiles } = appendLeaves(
      crypto,
      this.#edge,
      outcome.leaves.map((leaf) => leafHash(crypto, leaf)),
    );
    return {
      epoch: this.#chain.epoch,
      roster: this.#chain.roster,
      value,
      outcome,
      firstLeaf: this.#edge.size,
      treeSize: edge.size,
      root: edgeRoot(crypto, edge),
      tiles,
      edge,
    };
  }

  /**
   * The header, which is a leaf, and the reports, unless a later close made the same ones. The empty content stays: as a slot
   * it may be named by any epoch.
   */
  #releasable(value: Value): Digest[] {
    const reports = [...(this.#closes.get(this.#chain.epoch)?.values() ?? [])].map((close) => close.reports);
    const named = this.#namedAfter(this.#chain.epoch);
    return [...reports, digestOf(this.#options.crypto, value.header)].filter(
      (digest) => (this.#contents.get(digest)?.length ?? 0) > 0 && !named.has(digest),
    );
  }

  #sign(header: Digest, checkpoint: Checkpoint, nowMs: number): Json {
    const { replica, logSigner, cosigner, crypto } = this.#options;
    const text = checkpointText(checkpoint);
    const log = signCheckpoint(crypto, text, checkpoint.origin, logSigner);
    return {
      header,
      lines: log + cosignCheckpoint(crypto, text, checkpoint.origin, replica, cosigner, Math.floor(nowMs / 1000)),
    };
  }

  #advance(sealed: Omit<SealedEpoch, 'checkpoint' | 'release'>): void {
    this.#chain = sealed.outcome.next;
    this.#edge = sealed.edge;
    this.#value = undefined;
    this.#extended = undefined;
    for (const map of [this.#closes, this.#ballots, this.#seals])
      for (const epoch of map.keys()) if (epoch < this.#chain.epoch) map.delete(epoch);
    const kept = this.#namedAfter(this.#chain.epoch - 1);
    for (const digest of this.#contents.keys())
      if (!kept.has(digest) && !this.#forReports.has(digest)) {
        this.#contents.delete(digest);
        this.#slots.delete(digest);
        this.#pinned.delete(digest);
      }
  }

  /** The contents that closes of later epochs name. */
  #namedAfter(epoch: Epoch): Set<Digest> {
    const later = [...this.#closes].filter(([closed]) => closed > epoch);
    return new Set(later.flatMap(([, closes]) => [...closes.values()].flatMap((close) => this.#named(close))));
  }

  /** The contents that a close names. */
  #named(close: Close): Digest[] {
    const reports = this.#contents.get(close.reports);
    return [
      close.slot,
      close.reports,
      close.facts,
      ...(reports === undefined ? [] : parseReports(reports).map(({ digest }) => digest)),
    ];
  }
}

/** Takes note of a register of an epoch that is not sealed yet; a later write of the same replica replaces the earlier one. */
function put<T>(map: Map<Epoch, Map<ReplicaId, T>>, epoch: Epoch, replica: ReplicaId, value: T, sealing: Epoch): void {
  if (epoch < sealing) return;
  const byReplica = map.get(epoch) ?? new Map<ReplicaId, T>();
  byReplica.set(replica, value);
  map.set(epoch, byReplica);
}

function parseSeal(value: Json): SealRegister {
  const { header, lines } = parseFields(value, ['header', 'lines'], 'a seal');
  if (typeof lines !== 'string' || lines.length > SEAL_LINES_LENGTH_MAX || !/^(— [^\n]+\n){2}$/.test(lines))
    throw new WaggleError('DECODE_FAILED', 'Expected two signature lines in a seal');
  return { header: parseDigest(header), lines };
}
