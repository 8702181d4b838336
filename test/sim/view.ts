import { compareText, type Hlc, type Json, type ReplicaId } from '../../packages/protocol/src/base/index.ts';
import { isLwwKey, LwwMap, parseLww, type ControlRegister } from '../../packages/protocol/src/lattice/index.ts';

const ISSUED = 'fact/key/';
const REVOKED = 'fact/key-revoked/';

export const issuedKey = (id: string): string => `${ISSUED}${id}`;
export const revokedKey = (id: string): string => `${REVOKED}${id}`;

/** A small identity: API keys that are issued and revoked, and settings of which the last one wins. */
export class View {
  readonly #issued = new Set<string>();
  readonly #revoked = new Set<string>();
  readonly #settings = new LwwMap<Json>();

  fold(replica: ReplicaId, register: ControlRegister, wallMs: number): void {
    const { key } = register;
    if (key.startsWith(ISSUED)) this.#issued.add(key.slice(ISSUED.length));
    else if (key.startsWith(REVOKED)) this.#revoked.add(key.slice(REVOKED.length));
    else if (isLwwKey(key)) this.#settings.fold(parseLww(replica, register), wallMs);
  }

  get issued(): ReadonlySet<string> {
    return this.#issued;
  }

  get revoked(): ReadonlySet<string> {
    return this.#revoked;
  }

  /** Whether a request with that key would be served. */
  isUsable(id: string): boolean {
    return this.#issued.has(id) && !this.#revoked.has(id);
  }

  /** All of it, as one text; equal for equal views. */
  dump(): string {
    const settings = [...this.#settings.entries('m')].map(({ key, value, hlc }): [string, Json, Hlc] => [
      key,
      value,
      hlc,
    ]);
    return JSON.stringify([
      [...this.#issued].sort(),
      [...this.#revoked].sort(),
      settings.sort(([a], [b]) => compareText(a, b)),
    ]);
  }

  get quarantined(): number {
    return this.#settings.quarantined;
  }
}
