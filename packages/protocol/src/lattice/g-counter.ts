import type { CustomerId, Epoch } from '../base/index.ts';
import { DIMENSIONS, mapUsage, ZERO_USAGE, type Dimension, type Usage } from './counts.ts';
import type { UsageRow } from './register.ts';
import type { Change } from './registers.ts';

type Sums = Record<Dimension, number>;

interface CustomerSums {
  readonly total: Sums;
  readonly skus: Map<string, Sums>;
}

interface EpochSums {
  readonly total: Sums;
  readonly customers: Map<CustomerId, CustomerSums>;
}

const zero = (): Sums => ({ ...ZERO_USAGE });
/** A hostile figure must not stop a node: what is no count any more reads as the nearest one. */
const read = (sums: Sums | undefined): Usage =>
  sums === undefined
    ? ZERO_USAGE
    : mapUsage((dimension) => Math.max(0, Math.min(sums[dimension], Number.MAX_SAFE_INTEGER)));

function add(sums: Sums, next: Usage, previous: Usage): void {
  for (const dimension of DIMENSIONS) sums[dimension] += next[dimension] - previous[dimension];
}

/**
 * A view: the grow-only counter. Sums over all writers of the usage rows, by epoch, customer and SKU, with totals, kept in
 * constant time per change. It counts each change once, so it must be handed exactly those that `Registers` gives out (and
 * at start each row, as a change from nothing).
 */
export class GCounter {
  readonly #epochs = new Map<Epoch, EpochSums>();

  fold({ register, previous }: Change<UsageRow>): void {
    const before = previous?.usage ?? ZERO_USAGE;
    let epoch = this.#epochs.get(register.epoch);
    if (epoch === undefined) this.#epochs.set(register.epoch, (epoch = { total: zero(), customers: new Map() }));
    let customer = epoch.customers.get(register.customer);
    if (customer === undefined) epoch.customers.set(register.customer, (customer = { total: zero(), skus: new Map() }));
    let sums = customer.skus.get(register.sku);
    if (sums === undefined) customer.skus.set(register.sku, (sums = zero()));
    for (const level of [epoch.total, customer.total, sums]) add(level, register.usage, before);
  }

  /** The usage of an epoch, of a customer in it, or of one billing category of that customer; zeros if there is none. */
  usage(epoch: Epoch, customer?: CustomerId, sku?: string): Usage {
    const sums = this.#epochs.get(epoch);
    if (customer === undefined) return read(sums?.total);
    const ofCustomer = sums?.customers.get(customer);
    return read(sku === undefined ? ofCustomer?.total : ofCustomer?.skus.get(sku));
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
    return this.#epochs.get(epoch)?.customers.get(customer)?.skus.keys() ?? [];
  }

  /** Forgets an epoch, as when its rows are dropped. */
  dropEpoch(epoch: Epoch): void {
    this.#epochs.delete(epoch);
  }
}
