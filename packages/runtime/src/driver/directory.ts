import { isIPv4 } from 'node:net';
import type { ReplicaId } from '@waggle/protocol/base';
import type { ControlRegister } from '@waggle/protocol/lattice';
import { ADDRESSES_MAX, type Address } from '../transport/transport.ts';

/** How busy a node is. */
export interface NodeLoad {
  /** Jobs that may be at work at the same time. */
  readonly workers: number;
  readonly running: number;
  readonly queued: number;
}

/** What a node says of itself: its register `node/self`. */
export interface NodeEntry {
  /** Where members dial it, by UDP; up to `ADDRESSES_MAX`. */
  readonly addresses: readonly Address[];
  /** What clients call it. */
  readonly url: string;
  /** Rack or room; null if none is configured. */
  readonly zone: string | null;
  /** Of the program. */
  readonly version: string;
  /** Versions of the protocol that it speaks, and formats that it can compute. */
  readonly protocols: readonly number[];
  readonly formats: readonly number[];
  readonly load: NodeLoad;
  /** Whether it knows the cluster's customers: a newcomer does not until it held all that a member had which does. */
  readonly informed: boolean;
  /** When it was written, by its own clock, in Unix ms. */
  readonly writtenMs: number;
}

/** The key of the register that holds a node's entry. */
export const NODE_KEY = 'node/self';
/** Characters of a text in an entry. */
const TEXT_LENGTH_MAX = 512;
const NUMBERS_MAX = 16;

/** The node directory: a view of the `node/self` registers, the latest of each replica. */
export class NodeDirectory {
  readonly #entries = new Map<ReplicaId, NodeEntry>();
  #malformed = 0;

  get entries(): ReadonlyMap<ReplicaId, NodeEntry> {
    return this.#entries;
  }

  /** Registers that could not be read; what they replaced stands. */
  get malformed(): number {
    return this.#malformed;
  }

  /** Takes a register in. Whether it was an entry that changed the addresses of its node. */
  fold(replica: ReplicaId, { key, value }: Pick<ControlRegister, 'key' | 'value'>): boolean {
    if (key !== NODE_KEY) return false;
    const entry = parseNodeEntry(value);
    if (entry === undefined) {
      this.#malformed++;
      return false;
    }
    const before = this.#entries.get(replica);
    this.#entries.set(replica, entry);
    return JSON.stringify(before?.addresses) !== JSON.stringify(entry.addresses);
  }
}

/** The text of an entry. */
export const encodeNodeEntry = (entry: NodeEntry): string => JSON.stringify(entry);

/** The entry of a text, or undefined for one that is none. Fields that are not known are a newer version's, and are passed over. */
export function parseNodeEntry(value: string): NodeEntry | undefined {
  let json: unknown;
  try {
    json = JSON.parse(value);
  } catch {
    return undefined;
  }
  if (!isObject(json)) return undefined;
  const { addresses, url, zone, version, protocols, formats, load, informed, writtenMs } = json;
  const known =
    Array.isArray(addresses) &&
    addresses.every(isAddress) &&
    isText(url) &&
    URL.canParse(url) &&
    (zone === null || isText(zone)) &&
    isText(version) &&
    areWhole(protocols) &&
    areWhole(formats) &&
    isObject(load) &&
    typeof informed === 'boolean' &&
    isWhole(writtenMs);
  if (!known) return undefined;
  const { workers, running, queued } = load;
  if (!isWhole(workers) || !isWhole(running) || !isWhole(queued)) return undefined;
  return {
    addresses: addresses.slice(0, ADDRESSES_MAX).map(({ host, port }: Address) => ({ host, port })),
    url,
    zone,
    version,
    protocols,
    formats,
    load: { workers, running, queued },
    informed,
    writtenMs,
  };
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const isText = (value: unknown): value is string => typeof value === 'string' && value.length <= TEXT_LENGTH_MAX;
const isWhole = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const areWhole = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= NUMBERS_MAX && value.every(isWhole);

/** An address that can be dialled. */
function isAddress(value: unknown): value is Address {
  if (!isObject(value)) return false;
  const { host, port } = value;
  return typeof host === 'string' && isIPv4(host) && host !== '0.0.0.0' && isWhole(port) && port >= 1 && port <= 65_535;
}
