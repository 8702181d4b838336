import { present, type Digest, type Epoch } from '../../packages/protocol/src/base/index.ts';
import {
  atLeast,
  parseUsageWriter,
  usageKey,
  type Usage,
  type WriterId,
} from '../../packages/protocol/src/lattice/index.ts';
import { isCountedClosed } from '../../packages/protocol/src/sealing/index.ts';
import { parseSlot, slotName } from '../../packages/protocol/src/usage/index.ts';
import type { MemoryDisk } from '../../packages/protocol/test/member/disk.ts';

/** A row of usage, as its writer wrote it at some time. */
export interface Row {
  readonly writer: WriterId;
  /** Of `usageKey`. */
  readonly key: string;
  readonly usage: Usage;
}

export const epochOf = (usageRowKey: string): Epoch => Number(usageRowKey.slice(0, usageRowKey.indexOf('/')));

/** What seals have counted, read from a disk that has them. */
export class Counted {
  readonly #contents = new Map<string, ReadonlyMap<string, Usage>>();

  /** Whether the seals on a disk count at least every figure of a row. */
  has({ chain, ...disk }: Pick<MemoryDisk, 'chain' | 'contents'>, { writer, key, usage }: Row): boolean {
    const id = { ...parseUsageWriter(writer), epoch: epochOf(key) };
    if (isCountedClosed(chain, id)) return true;
    const digest = chain.counted.get(slotName(id));
    const counted = digest === undefined ? undefined : this.#content(disk.contents, digest, id.epoch).get(key);
    return counted !== undefined && atLeast(counted, usage);
  }

  #content(contents: MemoryDisk['contents'], digest: Digest, epoch: Epoch): ReadonlyMap<string, Usage> {
    // Two slots of two epochs may have one content.
    const name = `${digest} ${epoch}`;
    let content = this.#contents.get(name);
    if (content === undefined) {
      const rows = parseSlot(present(contents.get(digest)?.value, `content ${digest}`));
      content = new Map(rows.map(({ customer, sku, usage }) => [usageKey(epoch, customer, sku), usage]));
      this.#contents.set(name, content);
    }
    return content;
  }
}
