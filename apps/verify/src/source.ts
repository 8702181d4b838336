import type { Bundle, Verified } from '@waggle/protocol/audit';
import type { Epoch } from '@waggle/protocol/base';

/** One bundle that a source has: which it says it is, and how to get it. */
export interface Item {
  readonly epoch: Epoch;
  /** Where it is, for messages: a path or URL. */
  readonly where: string;
  /** What the source says beside the bundle of the log after this epoch; null if it says nothing. */
  readonly listed: { readonly treeSize: number; readonly root: Uint8Array } | null;
  /** Loads it whole. Throws `BUNDLE_MALFORMED`. */
  readonly load: () => Promise<Bundle>;
}

/** Where bundles come from. */
export interface Source {
  /** The genesis that the source shows beside its bundles; null if it shows none. */
  readonly genesis: Uint8Array | null;
  /**
   * Its bundles in ascending order of epochs, each once; those from `state` on will do, which is what was verified in an
   * earlier run. Throws `HISTORY_CHANGED` where the source itself contradicts that.
   */
  items(state: Verified | null): AsyncIterable<Item>;
}

/** What was asked cannot be done, whatever the bundles say: exit code 2. */
export class UnusableError extends Error {
  override readonly name = 'UnusableError';
}

/** A number of bytes for people. */
export const mebibytes = (bytes: number): string => `${Math.floor(bytes / 1_048_576)} MiB`;
