/** What the queue needs to know of a job. */
export interface Queued {
  readonly customer: string;
  /** Memory it holds while it waits. */
  readonly bytes: number;
}

interface Account<T> {
  /** Start tag of the customer's next job: cost served so far, in µs, since the busy period began. */
  virtualMicros: number;
  bytes: number;
  running: number;
  readonly waiting: T[];
}

/** Idle customers that are remembered for what they owe, beyond the jobs that can wait. */
const DEBTORS_MAX = 1_000;

/**
 * Start-time fair queuing (Goyal, Vin and Cheng 1996) of jobs whose cost is known only afterwards: each customer has a
 * virtual time that grows by what its jobs cost, the job of the customer furthest behind is next, and a customer that
 * comes back starts at the present, so that it can neither save up nor be shut out. First in, first out within a
 * customer. Bounded in jobs and bytes; when full, who holds most of the queue gives way (McKenney 1990), so that one
 * customer's flood does not turn the others away.
 */
export class FairQueue<T extends Queued> {
  readonly #countMax: number;
  readonly #bytesMax: number;
  readonly #accounts = new Map<string, Account<T>>();
  /** Start tag of the job taken last. */
  #virtualMicros = 0;
  #count = 0;
  #bytes = 0;

  constructor(countMax: number, bytesMax: number) {
    this.#countMax = countMax;
    this.#bytesMax = bytesMax;
  }

  /** Jobs that wait. */
  get length(): number {
    return this.#count;
  }

  /** Bytes that the waiting jobs hold. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a job, or says that there is no room. `dropped` are the jobs that had to give way, newest first. */
  push(job: T): { accepted: boolean; dropped: T[] } {
    const dropped: T[] = [];
    const own = this.#accounts.get(job.customer);
    const ownShare = this.#share((own?.waiting.length ?? 0) + 1, (own?.bytes ?? 0) + job.bytes);
    while (this.#count + 1 > this.#countMax || this.#bytes + job.bytes > this.#bytesMax) {
      const victim = this.#heaviest(ownShare);
      if (victim === undefined) return { accepted: false, dropped };
      this.remove(victim);
      dropped.push(victim);
    }
    const account = this.#open(job.customer);
    account.waiting.push(job);
    account.bytes += job.bytes;
    this.#count++;
    this.#bytes += job.bytes;
    return { accepted: true, dropped };
  }

  /** The next job, which counts as running until `finish`. Its cost is charged by `charge`. */
  take(): T | undefined {
    let next: Account<T> | undefined;
    for (const account of this.#accounts.values())
      if (account.waiting.length > 0 && (next === undefined || account.virtualMicros < next.virtualMicros))
        next = account;
    const job = next?.waiting[0];
    if (next === undefined || job === undefined) return undefined;
    this.#virtualMicros = Math.max(this.#virtualMicros, next.virtualMicros);
    next.running++;
    this.remove(job);
    return job;
  }

  /** Takes a waiting job out. False if it does not wait. */
  remove(job: T): boolean {
    const account = this.#accounts.get(job.customer);
    const index = account?.waiting.indexOf(job) ?? -1;
    if (account === undefined || index < 0) return false;
    account.waiting.splice(index, 1);
    account.bytes -= job.bytes;
    this.#count--;
    this.#bytes -= job.bytes;
    this.#tidy(job.customer, account);
    return true;
  }

  /** Adds to what a customer was served, in µs; negative to take an estimate back. */
  charge(customer: string, micros: number): void {
    const account = this.#accounts.get(customer);
    if (account !== undefined) account.virtualMicros += micros;
  }

  /** A job that was taken is done. */
  finish(customer: string): void {
    const account = this.#accounts.get(customer);
    if (account === undefined) return;
    account.running--;
    this.#tidy(customer, account);
  }

  #share(count: number, bytes: number): number {
    return count / this.#countMax + bytes / this.#bytesMax;
  }

  /** The newest job of whoever holds most, if that customer holds more than `share` even without it. */
  #heaviest(share: number): T | undefined {
    let heaviest: T | undefined;
    let most = share;
    for (const account of this.#accounts.values()) {
      const newest = account.waiting.at(-1);
      if (newest === undefined || this.#share(account.waiting.length, account.bytes) <= most) continue;
      if (this.#share(account.waiting.length - 1, account.bytes - newest.bytes) < share) continue;
      most = this.#share(account.waiting.length, account.bytes);
      heaviest = newest;
    }
    return heaviest;
  }

  #open(customer: string): Account<T> {
    let account = this.#accounts.get(customer);
    if (account === undefined) {
      account = { virtualMicros: this.#virtualMicros, bytes: 0, running: 0, waiting: [] };
      this.#accounts.set(customer, account);
    } else if (account.running === 0 && account.waiting.length === 0)
      account.virtualMicros = Math.max(account.virtualMicros, this.#virtualMicros);
    return account;
  }

  /** Forgets who is idle and owes nothing; and all debts when the busy period ends. */
  #tidy(customer: string, account: Account<T>): void {
    const idle = (other: Account<T>): boolean => other.running === 0 && other.waiting.length === 0;
    if (!idle(account)) return;
    if (account.virtualMicros <= this.#virtualMicros) this.#accounts.delete(customer);
    const crowded = this.#accounts.size > this.#countMax + DEBTORS_MAX;
    if (!crowded && this.#count > 0) return;
    const busy = [...this.#accounts.values()].some((other) => !idle(other));
    if (busy && !crowded) return;
    for (const [other, its] of this.#accounts) if (idle(its)) this.#accounts.delete(other);
  }
}
