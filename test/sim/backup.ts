import type { ReplicaId } from '../../packages/protocol/src/base/index.ts';
import type { Cluster } from '../../packages/protocol/src/sealing/index.ts';
import { MemoryDisk } from '../../packages/protocol/test/member/disk.ts';

/** A copy of a disk, as of now. */
export function copyOf(disk: MemoryDisk, cluster: Cluster): MemoryDisk {
  const copy = new MemoryDisk(cluster);
  put(copy.control, disk.control);
  put(copy.usage, disk.usage);
  put(copy.contents, disk.contents);
  put(copy.meta, disk.meta);
  put(copy.metered, disk.metered);
  for (const [key, row] of disk.vectors) copy.vectors.set(key, { ...row });
  copy.seals.push(...disk.seals.map((record) => ({ ...record })));
  copy.chain = disk.chain;
  copy.edge = disk.edge;
  return copy;
}

/**
 * Takes what a replica wrote itself into control registers off its disk: after its disk went back, some of it has versions under
 * which others hold something else.
 */
export function withoutOwn(disk: MemoryDisk, replica: ReplicaId): MemoryDisk {
  for (const [key, row] of disk.control) if (row.replica === replica) disk.control.delete(key);
  disk.vectors.delete(`control/${replica}`);
  return disk;
}

function put<K, V>(to: Map<K, V>, from: ReadonlyMap<K, V>): void {
  for (const [key, value] of from) to.set(key, value);
}
