import type { Batch } from '../../packages/protocol/src/member/index.ts';
import type { SimNode } from './node.ts';
import type { Mutation } from './options.ts';

/** What a mutation does to a disk between two processes. */
export function spoilDisk(node: SimNode, mutation: Mutation): void {
  const { disk, replica } = node;
  if (mutation === 'forgetVotes') {
    for (const key of disk.registersOf(replica).keys())
      if (/^(close|ballot|seal)\//.test(key) && Number(key.split('/')[1]) >= disk.chain.epoch)
        disk.control.delete(`${replica}/${key}`);
  }
  if (mutation === 'loseLateRows')
    for (const rows of [disk.usage, disk.vectors])
      for (const key of rows.keys()) if (key.includes(`${replica}-`) || key.includes(`${replica}/`)) rows.delete(key);
}

/** What a mutation makes of a batch on its way to the disk. */
export function spoilBatch(node: SimNode, batch: Batch, mutation: Mutation): Batch {
  switch (mutation) {
    case 'shrinkRows':
      return {
        ...batch,
        usage: batch.usage.map((row) =>
          row.replica === node.replica ? { ...row, usage: { ...row.usage, requests: row.usage.requests - 1 } } : row,
        ),
      };
    case 'vectorsOnly':
      return {
        ...batch,
        control: batch.control.filter(({ replica }) => replica === node.replica),
        usage: batch.usage.filter(({ replica }) => replica === node.replica),
      };
    case 'otherRoot':
      if (node.index !== 1 || batch.seal === null) return batch;
      return { ...batch, seal: { ...batch.seal, sealed: { ...batch.seal.sealed, root: new Uint8Array(32) } } };
    case 'spoilContent':
      if (node.index !== 0) return batch;
      return { ...batch, contents: batch.contents.map((row) => ({ ...row, bytes: row.bytes.slice(1) })) };
    default:
      return batch;
  }
}
