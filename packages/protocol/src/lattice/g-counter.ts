import type { CustomerId, Epoch } from '../base/index.ts';
import { mapUsage, ZERO_USAGE, type Dimension, type Usage } from './counts.ts';
import type { UsageRow } from './register.ts';
import type { Change } from './registers.ts';

type Sums = Record<Dimension, number>;

interface EpochSums {
  readonly total: Sums;
  readonly customers: Map<CustomerId, Map<string, Sums>>;
}

const zero = (): Sums => mapUsage(() => 0);
/** A hostile figure must not stop a node: what is no count any more reads as the nearest one. */
const read = (sums: Sums | undefined): Usage =>
  sums === undefined
    ? ZERO_USAGE
    : mapUsage((dimension) => Math.max(0, Math.min(sums[dimension], Number.MAX_SAFE_INTEGER)));

/** Written out: this is most of the time of a start with many rows. */
function add(sums: Sums, next: Usage, previous: Usage): void {
  sums.requests += next.requests - previous.requests;
  sums.requestsFailed += next.requestsFailed - previous.requestsFailed;
  sums.bytesIn += next.bytesIn - previous.bytesIn;
  sums.bytesOut += next.bytesOut - previous.bytesOut;
  sums.pixelsIn += next.pixelsIn - previous.pixelsIn;
  sums.pixelsOut += next.pixelsOut - previous.pixelsOut;
  sums.cpuMicros += next.cpuMicros - previous.cpuMicros;
}

/**
 * A view: the grow-only counter. Sums over all writers of the usage rows, by epoch, customer and SKU, with totals, kept in
 * constant time per change. It counts each change once, so it must be handed exactly those that `Registers` gives out (and
 * at start each row, as a change from nothing).
 */
export class GCounter {
  readonly #epochs = new Map<Epoch, EpochSums>();

  fold({ register, previous }: Change<UsageRow>): void {
    this.move(register, previous?.usage ?? ZERO_USAGE, register.usage);
  }

  /** Counts something else of a row than before. */
  move(row: Pick<UsageRow, 'epoch' | 'customer' | 'sku'>, before: Usage, after: Usage): void {
    let epoch = this.#epochs.get(row.epoch);
    if (epoch === undefined) this.#epochs.set(row.epoch, (epoch = { total: zero(), customers: new Map() }));
    let skus = epoch.customers.get(row.customer);
    if (skus === undefined) epoch.customers.set(row.customer, (skus = new Map()));
    let sums = skus.get(row.sku);
    if (sums === undefined) skus.set(row.sku, (sums = zero()));
    add(epoch.total, after, before);
    add(sums, after, before);
  }

  /** The usage of an epoch, of a customer in it, or of one billing category of that customer; zeros if there is none. */
  usage(epoch: Epoch, customer?: CustomerId, sku?: string): Usage {
    const sums = this.#epochs.get(epoch);
    if (customer === undefined) return read(sums?.total);
    const skus = sums?.customers.get(customer);
    if (sku !== undefined) return read(skus?.get(sku));
    const total = zero();
    for (const each of skus?.values() ?? []) add(total, each, ZERO_USAGE);
    return read(total);
  }

  /** The epochs with any rows, ascending. */
  epochs(): Epoch[] {
    return [...this.#epochs.keys()].sort((a, b) => a - b);
  }

  /** The customers with rows in an epoch, in no particular order. */
  customers(epoch: Epoch): Iterable<CustomerId> {
    return this.#epochs.get(epoch)?.customers.keys() ?? [];
  }

  /** A customer's billing categories in an epoch, in no particular order. */
  skus(epoch: Epoch, customer: CustomerId): Iterable<string> {
    return this.#epochs.get(epoch)?.customers.get(customer)?.keys() ?? [];
  }

  /** Forgets an epoch, as when its rows are dropped. */
  dropEpoch(epoch: Epoch): void {
    this.#epochs.delete(epoch);
  }
}
