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
}

/** Tells the others where this node is and how busy: its entry in the node directory. */
export class Presence {
  readonly #options: PresenceOptions;
  #self: Self | undefined;
  #isWriting = false;

  constructor(options: PresenceOptions) {
    this.#options = options;
  }

  /** From now on the others are to know this. Resolves when it is on disk, and rejects when it cannot be written. */
  async announce(self: Self): Promise<void> {
    this.#self = self;
    await this.#write();
  }

  /** Says how busy the node is if that has changed; to be called about once a second. */
  async tick(): Promise<void> {
    const { driver, clock, load } = this.#options;
    const entry = driver.directory.get(driver.standing.replica);
    if (this.#self === undefined || this.#isWriting || entry === undefined) return;
    if (clock.nowMs() - entry.writtenMs >= LOAD_MS_MIN && differ(entry.load, load())) await this.#write();
  }

  async #write(): Promise<void> {
    const { driver, clock, load } = this.#options;
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
      writtenMs: clock.nowMs(),
    };
    this.#isWriting = true;
    try {
      await driver.write([{ key: NODE_KEY, value: encodeNodeEntry(entry) }]);
    } finally {
      this.#isWriting = false;
    }
  }
}

/** Whether a load is another one, for who chooses where to send work. */
const differ = (a: NodeLoad, b: NodeLoad): boolean =>
  Math.abs(a.running + a.queued - (b.running + b.queued)) >= Math.max(1, b.workers * LOAD_SHARE_MIN);
