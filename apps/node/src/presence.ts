import { VERSION_MAJOR, VERSION_MAJOR_MIN } from '@waggle/protocol/replication';
import { FORMATS } from '@waggle/protocol/sealing';
import { encodeNodeEntry, NODE_KEY, type Clock, type Driver, type NodeEntry, type NodeLoad } from '@waggle/runtime';
import type { Address } from '@waggle/runtime/transport';

/** Between two entries that differ only in how busy the node is, in ms: each goes to every member. */
const LOAD_MS_MIN = 5_000;
/** How much of the workers' number the load has to change by to be told. */
const LOAD_SHARE_MIN = 0.25;

/** What of a node does not change while it runs. */
export interface Self {
  /** Where members dial it. */
  readonly address: Address;
  /** What clients call it. */
  readonly url: string;
  readonly zone: string | null;
  /** Of the program. */
  readonly version: string;
}

export interface PresenceOptions {
  readonly driver: Pick<Driver, 'write' | 'directory' | 'standing'>;
  readonly clock: Clock;
  readonly load: () => NodeLoad;
  /** Whether this node knows the cluster's customers. */
  readonly isInformed: () => boolean;
}

/** Tells the others where this node is and how busy: its entry in the node directory. */
export class Presence {
  readonly #options: PresenceOptions;
  #self: Self | undefined;
  #isWriting = false;
  /** What was announced is not on disk yet. */
  #isStale = false;
  /** When the last entry was written, in ms of the monotonic clock. */
  #writtenMs = 0;

  constructor(options: PresenceOptions) {
    this.#options = options;
  }

  /** From now on the others are to know this. Resolves when it is on disk, and rejects when it cannot be written. */
  async announce(self: Self): Promise<void> {
    this.#self = self;
    this.#isStale = true;
    await this.#write();
  }

  /** Says what was refused before, and how busy the node is if that has changed; to be called about once a second. */
  async tick(): Promise<void> {
    const { driver, clock, load, isInformed } = this.#options;
    const entry = driver.directory.get(driver.standing.replica);
    const isLoadDue = clock.monotonicMs() - this.#writtenMs >= LOAD_MS_MIN;
    if (
      this.#isStale ||
      entry?.informed !== isInformed() ||
      (isLoadDue && (entry === undefined || differ(entry.load, load())))
    )
      await this.#write();
  }

  async #write(): Promise<void> {
    const { driver, clock, load, isInformed } = this.#options;
    if (this.#self === undefined || this.#isWriting) return;
    const { address, url, zone, version } = this.#self;
    const entry: NodeEntry = {
      addresses: [address],
      url,
      zone,
      version,
      protocols: [...new Set([VERSION_MAJOR_MIN, VERSION_MAJOR])],
      formats: FORMATS,
      load: load(),
      informed: isInformed(),
      writtenMs: clock.nowMs(),
    };
    this.#isWriting = true;
    this.#isStale = false;
    try {
      await driver.write([{ key: NODE_KEY, value: encodeNodeEntry(entry) }]);
      this.#writtenMs = clock.monotonicMs();
    } catch (error) {
      this.#isStale = true;
      throw error;
    } finally {
      this.#isWriting = false;
    }
  }
}

/** Whether a load is another one, for who chooses where to send work. */
const differ = (a: NodeLoad, b: NodeLoad): boolean =>
  Math.abs(a.running + a.queued - (b.running + b.queued)) >= Math.max(1, b.workers * LOAD_SHARE_MIN);
