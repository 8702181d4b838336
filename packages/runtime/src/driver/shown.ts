import { digestOf, utf8, type Digest, type Epoch } from '@waggle/protocol/base';
import type { ShownEpoch } from '@waggle/protocol/member';
import { nodeCrypto } from '../node-crypto.ts';
import { slotsOf } from '../retention.ts';
import type { Store } from '../store/types.ts';
import { streamStatements } from './epochs.ts';

/** Sealed epochs that are shown at once to a member that is behind: headers and checkpoints of some kilobytes each. */
const EPOCHS_PER_READ = 32;
/** With statements as soon as they are so many bytes no more, and so many are kept until they are fetched: the last ones. */
const STATEMENT_BYTES_PER_READ = 4 * 1024 * 1024;
const STATEMENT_BYTES_KEPT = 64 * 1024 * 1024;

const LINE_FEED = utf8('\n');

/** Sealed epochs for members that are behind: with all of its statements each whose slots are not kept here any more. */
export class Shown {
  readonly #store: Store;
  /** The latest last. */
  readonly #statements = new Map<Digest, Uint8Array>();
  #bytes = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  /** Statements that were shown lately. */
  content(digest: Digest): Uint8Array | null {
    return this.#statements.get(digest) ?? null;
  }

  /** Some sealed epochs from this one on. */
  async read(from: Epoch): Promise<ShownEpoch[]> {
    const epochs: ShownEpoch[] = [];
    let bytes = 0;
    for (const row of await this.#store.sealedRange(from, EPOCHS_PER_READ)) {
      const shown = { epoch: row.epoch, header: utf8(row.header), checkpoint: row.checkpoint };
      const isKept = (await this.#store.lacks(await slotsOf(this.#store, row))).length === 0;
      if (isKept) epochs.push(shown);
      else {
        const statements = await this.#read(row.epoch);
        bytes += statements.length;
        epochs.push({ ...shown, statements: this.#keep(statements) });
      }
      if (bytes >= STATEMENT_BYTES_PER_READ) break;
    }
    return epochs;
  }

  async #read(epoch: Epoch): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const { bytes } of streamStatements(this.#store, epoch)) parts.push(bytes, LINE_FEED);
    return Buffer.concat(parts);
  }

  #keep(statements: Uint8Array): Digest {
    const digest = digestOf(nodeCrypto, statements);
    this.#drop(digest);
    this.#statements.set(digest, statements);
    this.#bytes += statements.length;
    for (const oldest of this.#statements.keys()) {
      if (this.#bytes <= STATEMENT_BYTES_KEPT || oldest === digest) break;
      this.#drop(oldest);
    }
    return digest;
  }

  #drop(digest: Digest): void {
    this.#bytes -= this.#statements.get(digest)?.length ?? 0;
    this.#statements.delete(digest);
  }
}
