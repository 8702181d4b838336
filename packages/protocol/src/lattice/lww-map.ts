import { isAhead, parseHlc, WaggleError, type Hlc, type Json, type ReplicaId } from '../base/index.ts';
import type { Register } from './register.ts';

/** One replica's current value of one field. */
export interface LwwEntry<V> {
  readonly map: string;
  readonly key: string;
  readonly value: V;
  readonly hlc: Hlc;
  readonly replica: ReplicaId;
  /** Of the register it stands in: a replica's later write replaces its earlier one. */
  readonly version: number;
}

const PREFIX = 'lww/';

/** `lww/<map>/<key>`: the register's key of a field. The map's name has no slash, the key may have some. */
export const lwwKey = (map: string, key: string): string => `${PREFIX}${map}/${key}`;

/** Whether a register is a field of an LWW map. */
export const isLwwKey = (key: string): boolean => key.startsWith(PREFIX);

/** The value of a field's register: JSON text of `{hlc, value}`. */
export const lwwValue = (hlc: Hlc, value: Json): string => JSON.stringify({ hlc, value });

/** Parses a register with a key of `lwwKey` and a value of `lwwValue`. Throws `DECODE_FAILED`. */
export function parseLww(replica: ReplicaId, register: Register & { readonly value: string }): LwwEntry<Json> {
  const { key, version, value: text } = register;
  const slash = key.indexOf('/', PREFIX.length);
  if (!isLwwKey(key) || slash <= PREFIX.length || slash === key.length - 1)
    throw new WaggleError('DECODE_FAILED', `Expected lww/<map>/<key>, received ${JSON.stringify(key.slice(0, 80))}`);
  let fields: { readonly hlc?: unknown; readonly value?: Json } | null;
  try {
    fields = JSON.parse(text) as typeof fields;
  } catch (cause) {
    throw new WaggleError('DECODE_FAILED', `Expected JSON, received ${JSON.stringify(text.slice(0, 60))}`, { cause });
  }
  if (typeof fields !== 'object' || fields === null || fields.value === undefined)
    throw new WaggleError('DECODE_FAILED', `Expected {hlc, value}, received ${JSON.stringify(text.slice(0, 60))}`);
  const map = key.slice(PREFIX.length, slash);
  return { map, key: key.slice(slash + 1), value: fields.value, hlc: parseHlc(fields.hlc), replica, version };
}

const wins = <V>(a: LwwEntry<V>, b: LwwEntry<V>): boolean =>
  a.hlc > b.hlc || (a.hlc === b.hlc && a.replica > b.replica);

/**
 * A view: maps of fields whose winner is, among the current entries of all replicas, the one of the highest
 * `(hlc, replica)` (last writer wins). Any order and repetition of the same registers gives the same view.
 *
 * An entry too far ahead of the local clock (`isAhead`) is quarantined: held, one for each field and replica, and folded by
 * `tick` when the clock gets there. So one broken clock cannot win for ever. Sizes are bounded by the keys of the lattice.
 */
export class LwwMap<V> {
  /** Per map and key the current entry of each replica that wrote it, the winner first. */
  readonly #maps = new Map<string, Map<string, LwwEntry<V>[]>>();
  /** Quarantined entries by replica and field. */
  readonly #waiting = new Map<string, LwwEntry<V>>();

  /** Entries in quarantine. */
  get quarantined(): number {
    return this.#waiting.size;
  }

  /** Takes an entry in. Whether the winner of its field changed. */
  fold(entry: LwwEntry<V>, nowMs: number): boolean {
    const id = `${entry.replica}/${entry.map}/${entry.key}`;
    const waiting = this.#waiting.get(id);
    if (!isAhead(entry.hlc, nowMs)) {
      if (waiting !== undefined && waiting.version <= entry.version) this.#waiting.delete(id);
      return this.#settle(entry);
    }
    const settled = this.#entries(entry.map, entry.key).find(({ replica }) => replica === entry.replica);
    if (Math.max(waiting?.version ?? 0, settled?.version ?? 0) < entry.version) this.#waiting.set(id, entry);
    return false;
  }

  /** Folds what the local clock has reached. The winners that changed. */
  tick(nowMs: number): LwwEntry<V>[] {
    const changed: LwwEntry<V>[] = [];
    for (const [id, entry] of this.#waiting) {
      if (isAhead(entry.hlc, nowMs)) continue;
      this.#waiting.delete(id);
      if (this.#settle(entry)) changed.push(this.#entries(entry.map, entry.key)[0]!);
    }
    return changed;
  }

  /** The winner of a field. */
  get(map: string, key: string): LwwEntry<V> | undefined {
    return this.#entries(map, key)[0];
  }

  /** The winners of a map, in no particular order. */
  *entries(map: string): Generator<LwwEntry<V>> {
    for (const entries of this.#maps.get(map)?.values() ?? []) yield entries[0]!;
  }

  #entries(map: string, key: string): readonly LwwEntry<V>[] {
    return this.#maps.get(map)?.get(key) ?? [];
  }

  #settle(entry: LwwEntry<V>): boolean {
    let fields = this.#maps.get(entry.map);
    if (fields === undefined) this.#maps.set(entry.map, (fields = new Map()));
    const before = fields.get(entry.key) ?? [];
    const own = before.find(({ replica }) => replica === entry.replica);
    if (own !== undefined && own.version >= entry.version) return false;
    const after = [entry, ...before.filter((other) => other !== own)];
    const winner = after.reduce((best, other) => (wins(other, best) ? other : best));
    fields.set(entry.key, [winner, ...after.filter((other) => other !== winner)]);
    return winner !== before[0];
  }
}
