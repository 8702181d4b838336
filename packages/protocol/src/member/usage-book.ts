import {
  parseReplicaId,
  parseRun,
  present,
  type CustomerId,
  type Digest,
  type Epoch,
  type ReplicaId,
  type Run,
} from '../base/index.ts';
import {
  addUsage,
  equalUsage,
  equalUsageRow,
  GCounter,
  parseUsageWriter,
  Registers,
  usageKey,
  usageWriter,
  ZERO_USAGE,
  type Change,
  type Usage,
  type UsageRow,
  type WriterId,
} from '../lattice/index.ts';
import type { ChainState, HeldSlot, SealedEpoch } from '../sealing/index.ts';
import { compareSlots, parseSlot, slotName, type Slot, type SlotId } from '../usage/index.ts';
import { Counted, isCounted, uncounted, type Share, type UsageWriter } from './counted.ts';
import { addDifference, SlotTotals } from './slot-totals.ts';
import type { MemberOptions, UsageRegisterRow } from './types.ts';

/** Usage that no seal has counted yet, summed over replicas. */
export type UsageView = Pick<GCounter, 'usage' | 'epochs' | 'customers' | 'skus'>;

/** The run that a slot belongs to, by its `slotName`. */
function runOf(name: string): Pick<SlotId, 'replica' | 'run'> {
  const [replica, run] = name.split('-');
  return { replica: parseReplicaId(replica), run: parseRun(Number(run)) };
}

/** A slot of which more is counted now, and what was counted of it before. */
interface Reshared {
  readonly who: UsageWriter;
  readonly epoch: Epoch;
  readonly before: Share;
}

/** Rows that leave the registers in one step: a few ms. */
const DROPPED_AT_ONCE = 2_000;
/** Keys of one writer: others refuse more of it. */
const USAGE_KEYS_MAX = 4_000_000;
/** Of these, the part that is left when a run meters no more: of 100 000, a tenth may wait or be on its way to the disk. */
const USAGE_KEYS_SPARE = 1 / 40;

/**
 * The usage registers of the lattice with the counter that is folded from them: at any time it shows exactly what the rows held
 * have beyond what the seals on disk have counted. Rows stay until a seal has counted all of their slot.
 */
export class UsageBook {
  /** The writer that is this run. */
  readonly own: WriterId;
  readonly registers: Registers<UsageRow, WriterId>;
  readonly #keysSpare: number;
  readonly #counter = new GCounter();
  readonly #totals = new SlotTotals();
  readonly #counted: Counted;
  readonly #writers = new Map<WriterId, UsageWriter>();
  /** The latest run of each replica in registers and seals: what others know, too, so that all forget alike. */
  readonly #newest = new Map<ReplicaId, Run>();
  /** Slots off the disk, counted as closed, whose rows go little by little. */
  readonly #leaving: SlotId[] = [];
  /** The counted slots of the seal that was looked at last. */
  #read: { readonly epoch: Epoch; readonly slots: readonly { readonly id: SlotId; readonly content: Slot | null }[] } =
    {
      epoch: -1,
      slots: [],
    };

  /** Whether something was counted since it was last asked what of it is to be read. */
  #isUnread = false;

  /** Whether this run may meter more: without seals, after millions of rows, it may not. */
  get hasRoom(): boolean {
    return this.registers.room(this.own) >= this.#keysSpare;
  }

  constructor(
    { replica, run, usageKeysMax = USAGE_KEYS_MAX }: Pick<MemberOptions, 'replica' | 'run' | 'usageKeysMax'>,
    chain: ChainState,
  ) {
    this.own = usageWriter(replica, run);
    this.registers = new Registers({ keysMax: usageKeysMax, equal: equalUsageRow });
    this.#keysSpare = usageKeysMax * USAGE_KEYS_SPARE;
    this.#counted = new Counted(chain);
    for (const writer of chain.closed.keys()) this.#started(parseUsageWriter(writer));
    for (const slot of chain.counted.keys()) this.#started(runOf(slot));
  }

  get view(): UsageView {
    return this.#counter;
  }

  /** The chain of the seals on disk. */
  get chain(): ChainState {
    return this.#counted.chain;
  }

  /** What these requests make of this run's rows: one for each customer and SKU, not applied yet. */
  rows(
    requests: readonly { readonly customer: CustomerId; readonly sku: string; readonly usage: Usage }[],
    epoch: Epoch,
  ): UsageRow[] {
    const rows = new Map<string, Omit<UsageRow, 'version'>>();
    for (const { customer, sku, usage } of requests) {
      const key = usageKey(epoch, customer, sku);
      const before = rows.get(key)?.usage ?? this.registers.get(this.own, key)?.usage ?? ZERO_USAGE;
      rows.set(key, { key, epoch, customer, sku, usage: addUsage(before, usage) });
    }
    const version = this.registers.upTo(this.own) + 1;
    return [...rows.values()].map((row, i) => ({ ...row, version: version + i }));
  }

  /** Takes in this run's rows once they are on disk. */
  apply(rows: readonly UsageRow[]): void {
    this.joined(this.own, this.registers.apply(this.own, rows));
  }

  /** Folds changes of the registers. Gives the contents that must be read to know what of them was counted (`counted`). */
  joined(writer: WriterId, changes: readonly Change<UsageRow>[]): Digest[] {
    if (changes.length > 0 || this.registers.upTo(writer) > 0) this.#started(this.#writer(writer));
    const unknown = new Set<Digest>();
    for (const { register, previous } of changes) {
      const who = this.#writer(writer);
      const share = this.#counted.shareOf(who, register.epoch);
      if (share === 'unknown')
        unknown.add(present(this.#counted.digestOf(who, register.epoch), 'what was counted of the slot'));
      const before = previous === undefined ? ZERO_USAGE : uncounted(share, previous);
      this.#move(writer, register, before, uncounted(share, register));
    }
    return [...unknown];
  }

  /** Takes in rows from disk at start; then call `restored`. */
  restore({ replica, run, epoch, customer, sku, version, usage }: UsageRegisterRow): void {
    const writer = usageWriter(replica, run);
    const row: UsageRow = { key: usageKey(epoch, customer, sku), version, epoch, customer, sku, usage };
    this.registers.restore(writer, row);
    this.joined(writer, [{ register: row, previous: undefined }]);
  }

  /** Ends a restore. Gives the contents to be read, as `joined`. */
  restored(vector: Iterable<readonly [writer: WriterId, upTo: number]>): Digest[] {
    this.registers.restored(vector);
    // A writer of nothing is known here alone.
    for (const writer of this.registers.writers())
      if (this.registers.upTo(writer) > 0 || this.registers.pendingVersions(writer).length > 0)
        this.#started(this.#writer(writer));
    this.#isUnread = true;
    return this.unread();
  }

  /** After seals whose slots were not kept: the contents to be read, as `joined`. Nothing if that was asked since. */
  unread(): Digest[] {
    if (!this.#isUnread || this.chain.counted.size === 0) return [];
    this.#isUnread = false;
    return this.slotsUpTo(Number.MAX_SAFE_INTEGER).flatMap(({ id }) => {
      const who = this.#writer(usageWriter(id.replica, id.run));
      return this.#counted.shareOf(who, id.epoch) === 'unknown' ? [this.#counted.digestOf(who, id.epoch)!] : [];
    });
  }

  /** Every slot of which rows are held, up to an epoch. */
  slotsUpTo(epoch: Epoch): HeldSlot[] {
    return this.registers.writers().flatMap((writer) => {
      const { replica, run } = this.#writer(writer);
      const byEpoch = new Map<Epoch, UsageRow[]>();
      for (const row of this.registers.of(writer)) {
        if (row.epoch > epoch) continue;
        const rows = byEpoch.get(row.epoch);
        if (rows === undefined) byEpoch.set(row.epoch, [row]);
        else rows.push(row);
      }
      return [...byEpoch].map(([slot, rows]) => ({ id: { replica, run, epoch: slot }, rows }));
    });
  }

  /** Whether a seal on disk counts at least every figure of a row. */
  isCounted(writer: WriterId, row: UsageRow): boolean {
    return isCounted(this.#counted.shareOf(this.#writer(writer), row.epoch), row);
  }

  /**
   * The slots whose rows can go with a seal. The own slot of an epoch that is not closed stays, whatever was counted of it: it is still to
   * grow, from where it stands.
   */
  coveredBy(sealed: SealedEpoch, unclosedEpoch: Epoch): SlotId[] {
    const { outcome } = sealed;
    const next = new Counted(outcome.next);
    for (const { id, content } of this.#contentsOf(sealed))
      next.set(this.#writer(usageWriter(id.replica, id.run)), id.epoch, content);
    return outcome.slots
      .filter(({ id }) => {
        const who = this.#writer(usageWriter(id.replica, id.run));
        if (this.#isOpen(who, id.epoch, unclosedEpoch)) return false;
        const share = next.shareOf(who, id.epoch);
        const rows = this.#rowsOf(who.writer, id.epoch, share === 'all' ? 1 : undefined);
        return rows.length > 0 && rows.every((row) => isCounted(share, row));
      })
      .map(({ id: { replica, run, epoch } }) => ({ replica, run, epoch }))
      .sort(compareSlots);
  }

  /**
   * An epoch is sealed, on disk; `covered` are the slots of which the disk has no rows any more. Gives further slots whose rows
   * can go: they came while it was written.
   */
  seal(sealed: SealedEpoch, covered: readonly SlotId[], unclosedEpoch: Epoch): SlotId[] {
    for (const { id } of sealed.outcome.slots) this.#started(id);
    const slots = this.#contentsOf(sealed).map(({ id, content }) => {
      const who = this.#writer(usageWriter(id.replica, id.run));
      return { who, epoch: id.epoch, before: this.#counted.shareOf(who, id.epoch), content };
    });
    this.#counted.advance(
      sealed.outcome.next,
      (writer) => new Set(Array.from(this.registers.of(writer), ({ epoch }) => epoch)),
    );
    for (const { who, epoch, content } of slots) this.#counted.set(who, epoch, content);
    this.#isUnread ||= slots.some(({ content }) => content === null);
    this.#reshare(slots);
    const gone = new Set(covered.map(slotName));
    return slots.flatMap(({ who, epoch }) => {
      if (!gone.has(slotName({ ...who, epoch }))) return this.reconsider(who, epoch, unclosedEpoch);
      const share = this.#counted.shareOf(who, epoch);
      if (share === 'all') this.#leave(who, epoch);
      else
        this.#drop(
          who.writer,
          this.#rowsOf(who.writer, epoch).filter((row) => isCounted(share, row)),
        );
      return [];
    });
  }

  /** What a seal counts of each slot, read once, null if it was not kept; of those that it counts as closed nothing needs to be known. */
  #contentsOf({ epoch, outcome }: SealedEpoch): readonly { readonly id: SlotId; readonly content: Slot | null }[] {
    if (this.#read.epoch !== epoch)
      this.#read = {
        epoch,
        slots: outcome.slots.map(({ id, content }) => ({
          id,
          content: id.closed ? [] : content && parseSlot(content),
        })),
      };
    return this.#read.slots;
  }

  /** A counted content was read. Gives the slots whose rows can go. */
  counted(digest: Digest, content: Slot, unclosedEpoch: Epoch): SlotId[] {
    return this.slotsUpTo(Number.MAX_SAFE_INTEGER).flatMap(({ id: { replica, run, epoch } }) => {
      const who = this.#writer(usageWriter(replica, run));
      if (this.#counted.digestOf(who, epoch) !== digest) return [];
      const before = this.#counted.shareOf(who, epoch);
      this.#counted.set(who, epoch, content);
      this.#reshare([{ who, epoch, before }]);
      return this.reconsider(who, epoch, unclosedEpoch);
    });
  }

  /** Lets go of the rows of a slot if all are counted. Gives the slot, if the disk may still have rows of it. */
  reconsider({ replica, run }: Pick<SlotId, 'replica' | 'run'>, epoch: Epoch, unclosedEpoch: Epoch): SlotId[] {
    const who = this.#writer(usageWriter(replica, run));
    if (this.#isOpen(who, epoch, unclosedEpoch)) return [];
    const share = this.#counted.shareOf(who, epoch);
    const rows = this.#rowsOf(who.writer, epoch, share === 'all' ? 1 : undefined);
    if (rows.length === 0 || !rows.every((row) => isCounted(share, row))) return [];
    if (share === 'all') this.#leave(who, epoch);
    else this.#drop(who.writer, rows);
    return [{ replica, run, epoch }];
  }

  /** Whether no rows are left that could be let go of. */
  get isTidy(): boolean {
    return this.#leaving.length === 0;
  }

  /** Lets go of some rows of a large slot. Gives the slot when they were the last: what of it came since may be on disk. */
  tidy(): SlotId[] {
    const [slot] = this.#leaving;
    if (slot === undefined) return [];
    if (!this.#dropSome(usageWriter(slot.replica, slot.run), slot.epoch)) return [];
    this.#leaving.shift();
    return [slot];
  }

  /** Whether a run has a successor: then it writes no more, and with its last row counted it leaves the vectors. */
  isOver(writer: WriterId): boolean {
    const { replica, run } = parseUsageWriter(writer);
    return writer !== this.own && run < (this.#newest.get(replica) ?? 0);
  }

  /** The runs that are over and of which no row is held: a seal has counted them all. What comes of them yet brings them back. */
  settled(): WriterId[] {
    return this.registers
      .writers()
      .filter((writer) => this.isOver(writer) && this.registers.of(writer).next().done === true);
  }

  /** Forgets a run beside its registers; what was counted of it goes with time. */
  forget(writer: WriterId): void {
    this.#writers.delete(writer);
  }

  #started({ replica, run }: Pick<SlotId, 'replica' | 'run'>): void {
    if (run > (this.#newest.get(replica) ?? 0)) this.#newest.set(replica, run);
  }

  #isOpen({ writer }: UsageWriter, epoch: Epoch, unclosedEpoch: Epoch): boolean {
    return writer === this.own && epoch >= unclosedEpoch;
  }

  /** The rows of a slot, in the order of their versions, so many at most. */
  #rowsOf(writer: WriterId, epoch: Epoch, max = Number.MAX_SAFE_INTEGER): UsageRow[] {
    const rows: UsageRow[] = [];
    for (const row of this.registers.of(writer)) {
      if (rows.length >= max) break;
      if (row.epoch === epoch) rows.push(row);
    }
    return rows;
  }

  /** Makes the counter follow after more was counted of slots. */
  #reshare(slots: readonly Reshared[]): void {
    for (const epoch of new Set(slots.map((slot) => slot.epoch))) {
      const of = slots.filter((slot) => slot.epoch === epoch);
      const whole = of.filter(({ who }) => this.#counted.shareOf(who, epoch) === 'all');
      const less = { ...ZERO_USAGE };
      for (const { who } of whole) addDifference(less, this.#totals.of(who.writer, epoch), ZERO_USAGE);
      // Mostly that is all that there is of the epoch: then nothing has to be taken away row by row.
      const isKnown = of.every(({ before }) => before !== 'unknown');
      const isAll = isKnown && equalUsage(less, this.#counter.usage(epoch));
      if (!isAll) for (const slot of of) this.#reshareRows(slot);
      if (isAll || equalUsage(this.#counter.usage(epoch), ZERO_USAGE)) this.#counter.dropEpoch(epoch);
      for (const { who } of of)
        if (isAll || equalUsage(this.#totals.of(who.writer, epoch), ZERO_USAGE)) this.#totals.drop(who.writer, epoch);
    }
  }

  #reshareRows({ who, epoch, before }: Reshared): void {
    const after = this.#counted.shareOf(who, epoch);
    for (const row of this.#rowsOf(who.writer, epoch))
      this.#move(who.writer, row, uncounted(before, row), uncounted(after, row));
  }

  #move(writer: WriterId, row: UsageRow, before: Usage, after: Usage): void {
    if (before === after || equalUsage(before, after)) return;
    this.#counter.move(row, before, after);
    this.#totals.move(writer, row.epoch, before, after);
  }

  /** Lets go of the rows of a slot that is counted as closed, not all at once: nothing is ever made of them again. */
  #leave({ writer, replica, run }: UsageWriter, epoch: Epoch): void {
    if (!this.#dropSome(writer, epoch)) this.#leaving.push({ replica, run, epoch });
  }

  /** Whether those were the last rows of the slot. */
  #dropSome(writer: WriterId, epoch: Epoch): boolean {
    const rows = this.#rowsOf(writer, epoch, DROPPED_AT_ONCE);
    this.#drop(writer, rows);
    return rows.length < DROPPED_AT_ONCE;
  }

  #drop(writer: WriterId, rows: readonly UsageRow[]): void {
    this.registers.drop(
      writer,
      rows.map(({ key }) => key),
    );
  }

  #writer(writer: WriterId): UsageWriter {
    let who = this.#writers.get(writer);
    if (who === undefined) this.#writers.set(writer, (who = { writer, ...parseUsageWriter(writer) }));
    return who;
  }
}
