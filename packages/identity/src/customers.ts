import { WaggleError, type CustomerId, type Json, type ReplicaId } from '@waggle/protocol/base';
import { LwwMap, type LwwEntry } from '@waggle/protocol/lattice';
import { isLower, parseLwwField, type CustomerFact, type StatusRegister } from './facts.ts';
import { LIMIT_NAMES, type LimitName, type Limits } from './limits.ts';
import { SortedIds } from './sorted.ts';

/** The map of LWW registers that is about customers: fields `<id>/name` and `<id>/limit.<limit>`. */
export const CUSTOMER_MAP = 'customer';

/** What is known of a customer here. Facts about it may be here before its creation is. */
export interface CustomerRecord {
  readonly id: CustomerId;
  readonly created: (CustomerFact & { readonly replica: ReplicaId }) | undefined;
  readonly generation: number;
  readonly status: StatusRegister['status'];
  readonly deleted: boolean;
}

/** A customer as the API shows it. */
export interface Customer {
  readonly id: CustomerId;
  readonly name: string;
  /** A deleted customer stays listed, because its statements do. */
  readonly status: StatusRegister['status'] | 'deleted';
  /** The limits in force. */
  readonly limits: Limits;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
}

/** Unix ms as RFC 3339, UTC. */
export const rfc3339 = (ms: number): string => new Date(ms).toISOString();

type Mutable<T> = { -readonly [Name in keyof T]: T[Name] };
/** With the limits in force, computed when asked for and good until a limit of anyone changes. */
type Row = Mutable<CustomerRecord> & { limits?: Limits; limitsAge?: number };

/** The view of all customers: creations, deletions, suspensions, names and limits. */
export class Customers {
  readonly #defaults: Limits;
  readonly #rows = new Map<CustomerId, Row>();
  readonly #ids = new SortedIds();
  readonly #fields = new LwwMap<string | number | null>();
  #limitsAge = 0;

  constructor(defaults: Limits) {
    this.#defaults = defaults;
  }

  /** Customers created, deleted ones included. */
  get size(): number {
    return this.#ids.length;
  }

  /** LWW fields that wait for the local clock to reach them. */
  get quarantined(): number {
    return this.#fields.quarantined;
  }

  /** The record of an id, whether or not the customer's creation is known. */
  row(id: CustomerId): CustomerRecord {
    return this.#row(id);
  }

  #row(id: CustomerId): Row {
    let row = this.#rows.get(id);
    if (row === undefined) {
      row = { id, created: undefined, generation: 0, status: 'active', deleted: false };
      this.#rows.set(id, row);
    }
    return row;
  }

  foldCreation(replica: ReplicaId, id: CustomerId, fact: CustomerFact): void {
    const row = this.#row(id);
    const known = row.created;
    if (known === undefined) this.#ids.add(id);
    else if (!isLower(fact.createdMs, replica, known.createdMs, known.replica)) return;
    row.created = { ...fact, replica };
    delete row.limits;
  }

  foldDeletion(id: CustomerId): void {
    this.#row(id).deleted = true;
  }

  foldStatus(id: CustomerId, { generation, status }: StatusRegister): void {
    const row = this.#row(id);
    if (generation < row.generation || (generation === row.generation && status === 'active')) return;
    row.generation = generation;
    row.status = status;
  }

  /** A field under the HLC. Throws `DECODE_FAILED`. */
  foldField(entry: LwwEntry<Json>, nowMs: number): void {
    const checked = parseLwwField(entry);
    if (checked !== undefined && this.#fields.fold(checked, nowMs)) this.#limitsAge++;
  }

  /** Lets in what waited for the local clock. The fields that changed. */
  tick(nowMs: number): readonly LwwEntry<unknown>[] {
    const changed = this.#fields.tick(nowMs);
    if (changed.length > 0) this.#limitsAge++;
    return changed;
  }

  /** A customer whose creation is known. Throws `CUSTOMER_UNKNOWN`. */
  created(id: string): CustomerRecord & { readonly created: CustomerFact } {
    const row = this.#rows.get(id as CustomerId);
    if (row?.created === undefined)
      throw new WaggleError(
        'CUSTOMER_UNKNOWN',
        `Expected the id of a customer, received ${JSON.stringify(id.slice(0, 80))}`,
      );
    return row as CustomerRecord & { readonly created: CustomerFact };
  }

  /** The record if the customer's creation is known. */
  find(id: CustomerId): CustomerRecord | undefined {
    const row = this.#rows.get(id);
    return row?.created === undefined ? undefined : row;
  }

  /** The limits in force: the node's defaults, overlaid with the customer's own. Cheap enough for every request. */
  limits(id: CustomerId): Limits {
    const row = this.#row(this.created(id).id);
    if (row.limits === undefined || row.limitsAge !== this.#limitsAge) {
      row.limits = Object.fromEntries(
        LIMIT_NAMES.map((name) => [name, this.ownLimit(id, name) ?? this.#defaults[name]]),
      ) as Limits;
      row.limitsAge = this.#limitsAge;
    }
    return row.limits;
  }

  /** The customer's own limit, or null if it has the node's default. */
  ownLimit(id: CustomerId, name: LimitName): number | null {
    const field = this.#fields.get(CUSTOMER_MAP, `${id}/limit.${name}`);
    if (field !== undefined) return field.value as number | null;
    return this.#rows.get(id)?.created?.limits?.[name] ?? null;
  }

  view(id: string): Customer {
    const { id: customer, created, deleted, status } = this.created(id);
    return {
      id: customer,
      name: (this.#fields.get(CUSTOMER_MAP, `${id}/name`)?.value as string | undefined) ?? created.name,
      status: deleted ? 'deleted' : status,
      limits: this.limits(customer),
      createdAt: rfc3339(created.createdMs),
    };
  }

  /** Up to `limit` customers above the id `after`, by id. */
  list(after: string | undefined, limit: number): Customer[] {
    return this.#ids.above(after, limit).map((id) => this.view(id));
  }
}
