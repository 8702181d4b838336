import type { CustomerId, Epoch, ReplicaId, Run } from '@waggle/protocol/base';
import {
  addUsage,
  equalUsage,
  GCounter,
  parseUsageWriter,
  Registers,
  usageKey,
  usageWriter,
  ZERO_USAGE,
  type Usage,
  type UsageRow,
  type WriterId,
} from '@waggle/protocol/lattice';
import type { HeldSlot, SealedEpoch } from '@waggle/protocol/sealing';
import { covers, slotName, sortRows, type SlotRow } from '@waggle/protocol/usage';
import type { UsageRegisterRow } from '../store/types.ts';

/** Usage that no seal has counted yet, summed over replicas. */
export type UsageView = Pick<GCounter, 'usage' | 'epochs' | 'customers' | 'skus'>;

/** Keys of one writer. */
const USAGE_KEYS_MAX = 4_000_000;

/** The usage registers of the lattice with the counter that is folded from them. Rows stay until a seal has counted them. */
export class UsageBook {
  /** The writer that is this run. */
  readonly self: WriterId;
  readonly #registers = new Registers<UsageRow, WriterId>({
    keysMax: USAGE_KEYS_MAX,
    equal: (a, b) => a.key === b.key && equalUsage(a.usage, b.usage),
  });
  readonly #counter = new GCounter();

  constructor(replica: ReplicaId, run: Run) {
    this.self = usageWriter(replica, run);
  }

  get view(): UsageView {
    return this.#counter;
  }

  /** The last version that this run has written. */
  get upTo(): number {
    return this.#registers.upTo(this.self);
  }

  /** What these requests make of this run's rows: one for each customer and SKU, not applied yet. */
  rows(
    requests: readonly { readonly customer: CustomerId; readonly sku: string; readonly usage: Usage }[],
    epoch: Epoch,
  ): UsageRow[] {
    const rows = new Map<string, Omit<UsageRow, 'version'>>();
    for (const { customer, sku, usage } of requests) {
      const key = usageKey(epoch, customer, sku);
      const before = rows.get(key)?.usage ?? this.#registers.get(this.self, key)?.usage ?? ZERO_USAGE;
      rows.set(key, { key, epoch, customer, sku, usage: addUsage(before, usage) });
    }
    const version = this.upTo + 1;
    return [...rows.values()].map((row, i) => ({ ...row, version: version + i }));
  }

  /** Takes in this run's rows once they are on disk. */
  apply(rows: readonly UsageRow[]): void {
    for (const change of this.#registers.apply(this.self, rows)) this.#counter.fold(change);
  }

  /** Takes in rows from disk at start; then call `restored`. */
  restore(rows: readonly UsageRegisterRow[]): void {
    for (const { replica, run, epoch, customer, sku, version, usage } of rows) {
      const row: UsageRow = { key: usageKey(epoch, customer, sku), version, epoch, customer, sku, usage };
      this.#registers.restore(usageWriter(replica, run), row);
      this.#counter.fold({ register: row, previous: undefined });
    }
  }

  restored(vector: Iterable<readonly [writer: WriterId, upTo: number]>): void {
    this.#registers.restored(vector);
  }

  /** Every slot of which rows are held, up to an epoch. */
  slotsUpTo(epoch: Epoch): HeldSlot[] {
    return this.#registers.writers().flatMap((writer) => {
      const { replica, run } = parseUsageWriter(writer);
      const byEpoch = new Map<Epoch, SlotRow[]>();
      for (const row of this.#registers.of(writer)) {
        if (row.epoch > epoch) continue;
        const rows = byEpoch.get(row.epoch) ?? [];
        rows.push({ customer: row.customer, sku: row.sku, usage: row.usage });
        byEpoch.set(row.epoch, rows);
      }
      return [...byEpoch].map(([slot, rows]) => ({ id: { replica, run, epoch: slot }, rows: sortRows(rows) }));
    });
  }

  /** The slots of a seal of which no row holds more than it counts: their rows can go. */
  covered(sealed: SealedEpoch): HeldSlot[] {
    const contents = new Map(sealed.outcome.slots.map(({ id, content }) => [slotName(id), content]));
    return this.slotsUpTo(sealed.epoch).filter(({ id, rows }) => {
      const content = contents.get(slotName(id));
      return content !== undefined && covers(content, rows);
    });
  }

  /** Lets go of the rows that a seal covers, once it is on disk. */
  forget(covered: readonly HeldSlot[]): void {
    for (const { id, rows } of covered) {
      const writer = usageWriter(id.replica, id.run);
      const keys = rows.map(({ customer, sku }) => usageKey(id.epoch, customer, sku));
      for (const key of keys) {
        const row = this.#registers.get(writer, key)!;
        this.#counter.fold({ register: { ...row, usage: ZERO_USAGE }, previous: row });
      }
      this.#registers.drop(writer, keys);
      if (equalUsage(this.#counter.usage(id.epoch), ZERO_USAGE)) this.#counter.dropEpoch(id.epoch);
    }
  }
}
