/**
 * Ids in ascending order, for lists that are read by pages. Sorted at the first read, so that a start that adds 100 000
 * pays once; from then on every id is put in its place.
 */
export class SortedIds {
  readonly #ids: string[] = [];
  #sorted = true;
  #reading = false;

  /** Adds an id that is not in it. */
  add(id: string): void {
    const last = this.#ids.at(-1);
    if (last === undefined || last < id) this.#ids.push(id);
    else if (this.#reading) this.#ids.splice(this.#indexAbove(id), 0, id);
    else {
      this.#ids.push(id);
      this.#sorted = false;
    }
  }

  /** How many there are. */
  get length(): number {
    return this.#ids.length;
  }

  /** Up to `limit` ids above `after`, ascending. */
  above(after: string | undefined, limit: number): readonly string[] {
    this.#sort();
    const from = after === undefined ? 0 : this.#indexAbove(after);
    return this.#ids.slice(from, from + limit);
  }

  /** Up to `limit` ids below `before`, descending. */
  below(before: string | undefined, limit: number): readonly string[] {
    this.#sort();
    let to = this.#ids.length;
    if (before !== undefined) {
      to = this.#indexAbove(before);
      if (this.#ids[to - 1] === before) to--;
    }
    return this.#ids.slice(Math.max(0, to - limit), to).reverse();
  }

  #sort(): void {
    this.#reading = true;
    if (this.#sorted) return;
    this.#ids.sort();
    this.#sorted = true;
  }

  /** Index of the first id above the given one. */
  #indexAbove(id: string): number {
    let low = 0;
    let high = this.#ids.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ids[middle]! <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
