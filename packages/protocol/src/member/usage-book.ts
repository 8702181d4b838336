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
import { compareSlots, slotName, sortRows, type Slot, type SlotId, type SlotRow } from '../usage/index.ts';
import { Counted, isCounted, uncounted, type UsageWriter } from './counted.ts';
import type { UsageRegisterRow } from './types.ts';

/** Usage that no seal has counted yet, summed over replicas. */
export type UsageView = Pick<GCounter, 'usage' | 'epochs' | 'customers' | 'skus'>;

/** The run that a slot belongs to, by its `slotName`. */
function runOf(name: string): Pick<SlotId, 'replica' | 'run'> {
  const [replica, run] = name.split('-');
  return { replica: parseReplicaId(replica), run: parseRun(Number(run)) };
}

/** Keys of one writer. */
const USAGE_KEYS_MAX = 4_000_000;

/**
 * The usage registers of the lattice with the counter that is folded from them: at any time it shows exactly what the rows held
 * have beyond what the seals on disk have counted. Rows stay until a seal has counted all of their slot.
 */
export class UsageBook {
  /** The writer that is this run. */
  readonly own: WriterId;
  readonly registers = new Registers<UsageRow, WriterId>({ keysMax: USAGE_KEYS_MAX, equal: equalUsageRow });
  readonly #counter = new GCounter();
  readonly #counted: Counted;
  readonly #writers = new Map<WriterId, UsageWriter>();
  /** The latest run of each replica in registers and seals: what others know, too, so that all forget alike. */
  readonly #newest = new Map<ReplicaId, Run>();

  constructor({ replica, run }: Pick<SlotId, 'replica' | 'run'>, chain: ChainState) {
    this.own = usageWriter(replica, run);
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
      if (share === 'nothing') this.#counter.fold({ register, previous });
      else this.#refold(register, previous === undefined ? ZERO_USAGE : uncounted(share, previous), share);
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
    if (this.chain.counted.size === 0) return [];
    return this.slotsUpTo(Number.MAX_SAFE_INTEGER).flatMap(({ id }) => {
      const who = this.#writer(usageWriter(id.replica, id.run));
      return this.#counted.shareOf(who, id.epoch) === 'unknown' ? [this.#counted.digestOf(who, id.epoch)!] : [];
    });
  }

  /** Every slot of which rows are held, up to an epoch. */
  slotsUpTo(epoch: Epoch): HeldSlot[] {
    return this.registers.writers().flatMap((writer) => {
      const { replica, run } = this.#writer(writer);
      const byEpoch = new Map<Epoch, SlotRow[]>();
      for (const row of this.registers.of(writer)) {
        if (row.epoch > epoch) continue;
        const rows = byEpoch.get(row.epoch) ?? [];
        rows.push({ customer: row.customer, sku: row.sku, usage: row.usage });
        byEpoch.set(row.epoch, rows);
      }
      return [...byEpoch].map(([slot, rows]) => ({ id: { replica, run, epoch: slot }, rows: sortRows(rows) }));
    });
  }

  /** Whether a seal on disk counts at least every figure of a row. */
  isCounted(writer: WriterId, row: UsageRow): boolean {
    return isCounted(this.#counted.shareOf(this.#writer(writer), row.epoch), row);
  }

  /**
   * The slots whose rows can go with a seal. The own slot of an open epoch stays, whatever was counted of it: it is still to
   * grow, from where it stands.
   */
  coveredBy({ outcome }: SealedEpoch, openEpoch: Epoch): SlotId[] {
    const next = new Counted(outcome.next);
    for (const { id, content } of outcome.slots)
      next.set(this.#writer(usageWriter(id.replica, id.run)), id.epoch, content);
    return outcome.slots
      .filter(({ id }) => {
        const who = this.#writer(usageWriter(id.replica, id.run));
        const rows = this.#rowsOf(who.writer, id.epoch);
        const share = next.shareOf(who, id.epoch);
        return rows.length > 0 && !this.#isOpen(who, id.epoch, openEpoch) && rows.every((row) => isCounted(share, row));
      })
      .map(({ id: { replica, run, epoch } }) => ({ replica, run, epoch }))
      .sort(compareSlots);
  }

  /**
   * An epoch is sealed, on disk; `covered` are the slots of which the disk has no rows any more. Gives further slots whose rows
   * can go: they came while it was written.
   */
  seal({ outcome }: SealedEpoch, covered: readonly SlotId[], openEpoch: Epoch): SlotId[] {
    for (const { id } of outcome.slots) this.#started(id);
    const slots = outcome.slots.map(({ id, content }) => {
      const who = this.#writer(usageWriter(id.replica, id.run));
      return { who, epoch: id.epoch, content, before: this.#uncounted(who, id.epoch) };
    });
    this.#counted.advance(
      outcome.next,
      (writer) => new Set(Array.from(this.registers.of(writer), ({ epoch }) => epoch)),
    );
    const gone = new Set(covered.map(slotName));
    return slots.flatMap(({ who, epoch, content, before }) => {
      this.#counted.set(who, epoch, content);
      this.#reshare(who, epoch, before);
      if (!gone.has(slotName({ ...who, epoch }))) return this.reconsider(who, epoch, openEpoch);
      this.#drop(
        who.writer,
        this.#rowsOf(who.writer, epoch).filter((row) => this.isCounted(who.writer, row)),
      );
      return [];
    });
  }

  /** A counted content was read. Gives the slots whose rows can go. */
  counted(digest: Digest, content: Slot, openEpoch: Epoch): SlotId[] {
    return this.slotsUpTo(Number.MAX_SAFE_INTEGER).flatMap(({ id: { replica, run, epoch } }) => {
      const who = this.#writer(usageWriter(replica, run));
      if (this.#counted.digestOf(who, epoch) !== digest) return [];
      const before = this.#uncounted(who, epoch);
      this.#counted.set(who, epoch, content);
      this.#reshare(who, epoch, before);
      return this.reconsider(who, epoch, openEpoch);
    });
  }

  /** Lets go of the rows of a slot if all are counted. Gives the slot, if the disk may still have rows of it. */
  reconsider({ replica, run }: Pick<SlotId, 'replica' | 'run'>, epoch: Epoch, openEpoch: Epoch): SlotId[] {
    const who = this.#writer(usageWriter(replica, run));
    const rows = this.#rowsOf(who.writer, epoch);
    if (rows.length === 0 || this.#isOpen(who, epoch, openEpoch)) return [];
    const share = this.#counted.shareOf(who, epoch);
    if (!rows.every((row) => isCounted(share, row))) return [];
    this.#drop(who.writer, rows);
    return [{ replica, run, epoch }];
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

  #isOpen({ writer }: UsageWriter, epoch: Epoch, openEpoch: Epoch): boolean {
    return writer === this.own && epoch >= openEpoch;
  }

  #rowsOf(writer: WriterId, epoch: Epoch): UsageRow[] {
    return Array.from(this.registers.of(writer)).filter((row) => row.epoch === epoch);
  }

  /** What the counter has of each row of a slot now. */
  #uncounted(who: UsageWriter, epoch: Epoch): Map<string, Usage> {
    const share = this.#counted.shareOf(who, epoch);
    return new Map(this.#rowsOf(who.writer, epoch).map((row) => [row.key, uncounted(share, row)]));
  }

  /** Makes the counter follow after more was counted of a slot. */
  #reshare(who: UsageWriter, epoch: Epoch, before: ReadonlyMap<string, Usage>): void {
    const share = this.#counted.shareOf(who, epoch);
    for (const row of this.#rowsOf(who.writer, epoch)) this.#refold(row, before.get(row.key) ?? ZERO_USAGE, share);
    if (equalUsage(this.#counter.usage(epoch), ZERO_USAGE)) this.#counter.dropEpoch(epoch);
  }

  #refold(row: UsageRow, before: Usage, share: Parameters<typeof uncounted>[0]): void {
    const after = uncounted(share, row);
    if (equalUsage(after, before)) return;
    this.#counter.fold({ register: { ...row, usage: after }, previous: { ...row, usage: before } });
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
