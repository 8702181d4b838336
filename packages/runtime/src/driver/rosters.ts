import { createHash } from 'node:crypto';
import { present, utf8, type Epoch } from '@waggle/protocol/base';
import { encodeRosterChange } from '@waggle/protocol/audit';
import { parseRoster, REGISTERS_KEPT_EPOCHS } from '@waggle/protocol/sealing';
import { inclusionProof } from '@waggle/protocol/transparency';
import { nodeCrypto } from '../node-crypto.ts';
import type { SealedEpoch, Store } from '../store/types.ts';
import { parseDetails, tileReader } from './epochs.ts';

/** Sealed epochs that are looked at in one read: headers, checkpoints and details of some kilobytes each. */
const PAGE = 64;
/** Signatures come in while registers are kept: so many changes at the end may still be shown with others. */
const UNSETTLED_MAX = 2 * REGISTERS_KEPT_EPOCHS;

/**
 * The chain of rosters as a store has it: which sealed epochs decided another roster. What was looked at once is not looked at again;
 * of each change no more than its number is kept in memory.
 */
export class Rosters {
  readonly #store: Store;
  readonly #changes: Epoch[] = [];
  #next: Epoch = 0;
  #looking: Promise<unknown> = Promise.resolve();

  constructor(store: Store) {
    this.#store = store;
  }

  /** The chain up to the newest sealed epoch on disk: a name for these very bytes, and its lines, each with its line feed. */
  async read(): Promise<{ readonly tag: string; readonly lines: AsyncGenerator<string> }> {
    // One after the other: each finds what those before it have found.
    const looking = this.#looking.then(() => this.#look());
    this.#looking = looking.catch(() => undefined);
    await looking;
    const changes = [...this.#changes];
    const hash = createHash('sha256').update(`${changes.join()}\n`);
    for (const epoch of changes.slice(-UNSETTLED_MAX)) hash.update((await this.#row(epoch)).checkpoint);
    return { tag: hash.digest('base64url'), lines: this.#lines(changes) };
  }

  async #look(): Promise<void> {
    for (;;) {
      const page = await this.#store.sealedRange(this.#next, PAGE);
      for (const row of page) {
        const { roster, nextRoster } = parseDetails(row);
        if (roster !== nextRoster) this.#changes.push(row.epoch);
        this.#next = row.epoch + 1;
      }
      if (page.length < PAGE) return;
    }
  }

  async *#lines(changes: readonly Epoch[]): AsyncGenerator<string> {
    for (const epoch of changes) {
      const row = await this.#row(epoch);
      const { header, checkpoint, firstLeaf, treeSize } = row;
      const { index, hashes } = await inclusionProof(nodeCrypto, tileReader(this.#store), firstLeaf, treeSize);
      const roster = parseRoster(utf8(parseDetails(row).nextRoster));
      yield `${encodeRosterChange({ epoch, header, checkpoint, index, hashes, roster })}\n`;
    }
  }

  async #row(epoch: Epoch): Promise<SealedEpoch> {
    return present(await this.#store.sealedEpoch(epoch), `sealed epoch ${epoch}`);
  }
}
