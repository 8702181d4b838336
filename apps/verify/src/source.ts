import type { Bundle, Verified } from '@waggle/protocol/audit';
import { WaggleError, type Epoch } from '@waggle/protocol/base';
import type { ReadTile } from '@waggle/protocol/transparency';

/** One bundle that a source has: which it says it is, and how to get it. */
export interface Item {
  readonly epoch: Epoch;
  /** Where it is, for messages: a path or URL. */
  readonly where: string;
  /** What the source says beside the bundle of the log after this epoch; null if it says nothing. */
  readonly listed: { readonly treeSize: number; readonly root: Uint8Array } | null;
  /**
   * Loads it whole, or without the contents of slots when the source keeps no more of it and `allowOutline` is given. Throws
   * `BUNDLE_MALFORMED`, and `UnusableError` if it cannot be read or, with the code `SLOTS_EXPIRED`, is not kept whole.
   */
  readonly load: (allowOutline: boolean) => Promise<Bundle>;
}

/** What a source shows of its log beside the bundles. Throws `BUNDLE_MALFORMED`, and `UnusableError` if it cannot be read. */
export interface LogSource {
  /** The newest checkpoint. */
  newest(): Promise<Uint8Array>;
  /** The checkpoint of a sealed epoch. */
  checkpoint(epoch: Epoch): Promise<Uint8Array>;
  readonly readTile: ReadTile;
}

/** Where bundles come from. */
export interface Source {
  /** The genesis that the source shows beside its bundles; null if it shows none. */
  readonly genesis: Uint8Array | null;
  /** Its log; null if it shows bundles only. */
  readonly log: LogSource | null;
  /**
   * Its bundles in ascending order of epochs, each once; those from `state` on will do, which is what was verified in an
   * earlier run. Throws `TwiceError`, and `HISTORY_CHANGED` where the source itself contradicts that.
   */
  items(state: Verified | null): AsyncIterable<Item>;
}

/** Two bundles of one epoch in a source: at best a mistake, at worst two histories. */
export class TwiceError extends WaggleError {
  readonly items: readonly [Item, Item];
  constructor(first: Item, second: Item) {
    super('BUNDLE_MALFORMED', `Expected one bundle for each epoch, received ${first.where} and ${second.where}`);
    this.items = [first, second];
  }
}

/** What was asked cannot be done, or not be read, whatever the bundles say: exit code 2. */
export class UnusableError extends Error {
  override readonly name = 'UnusableError';
  readonly code: 'CONFIG_INVALID' | 'PEER_UNREACHABLE' | 'SLOTS_EXPIRED';
  /** `code`: whether it may be another time (`PEER_UNREACHABLE`), with less (`SLOTS_EXPIRED`), or not as it was asked for. */
  constructor(
    message: string,
    { code = 'CONFIG_INVALID', ...options }: ErrorOptions & { readonly code?: UnusableError['code'] } = {},
  ) {
    super(message, options);
    this.code = code;
  }
}

/** A number of bytes for people. */
export const mebibytes = (bytes: number): string => `${Math.floor(bytes / 1_048_576)} MiB`;
