import { WaggleError } from '@waggle/protocol/base';

/**
 * Room for something that is bounded at one node, such as memory for bodies. Beyond it a request is refused at once, and nobody
 * ever gets more than half of it: one customer alone does not shut the others out.
 */
export class Room {
  readonly #what: string;
  readonly #max: number;
  readonly #taken = new Map<string, number>();
  #total = 0;

  /** `what` names it in messages, as in "more bytes of request bodies". */
  constructor(max: number, what: string) {
    this.#max = max;
    this.#what = what;
  }

  /** How much is taken in all. */
  get taken(): number {
    return this.#total;
  }

  /** Whether somebody could have that much more. */
  has(who: string, amount: number): boolean {
    return this.#total + amount <= this.#max && this.takenBy(who) + amount <= this.#max / 2;
  }

  takenBy(who: string): number {
    return this.#taken.get(who) ?? 0;
  }

  /** Throws `QUEUE_FULL`, having taken nothing. */
  take(who: string, amount: number): void {
    this.check(who, amount);
    this.add(who, amount);
  }

  /** Throws `QUEUE_FULL` if somebody could not have that much more. */
  check(who: string, amount: number): void {
    if (this.has(who, amount)) return;
    throw new WaggleError(
      'QUEUE_FULL',
      `Expected room for ${amount} more ${this.#what}, ${this.takenBy(who)} are taken by the same and ${this.#total} in all`,
    );
  }

  /** Takes it in any case: for what is there already. */
  add(who: string, amount: number): void {
    this.#total += amount;
    this.#taken.set(who, this.takenBy(who) + amount);
  }

  give(who: string, amount: number): void {
    const left = this.takenBy(who) - amount;
    this.#total -= amount;
    if (left > 0) this.#taken.set(who, left);
    else this.#taken.delete(who);
  }
}
