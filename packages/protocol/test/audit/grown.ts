import { fromUtf8 } from '../../src/base/index.ts';
import { encodeRosterChange } from '../../src/audit/index.ts';
import { createRetire, encodeFact, factKey } from '../../src/authority/index.ts';
import { rosterDigest } from '../../src/sealing/index.ts';
import { inclusionProof, type ReadTile } from '../../src/transparency/index.ts';
import type { SealedRecord } from '../member/disk.ts';
import { admission, cheapCrypto, EPOCH_MS, operator, TestCluster, TestNode } from '../member/harness.ts';
import { TileMap } from '../transparency/support.ts';

/** The tiles of all sealed epochs. */
export function tilesOf(records: readonly SealedRecord[]): ReadTile {
  const tiles = new TileMap();
  for (const { sealed } of records) tiles.put(sealed.tiles);
  return tiles.read;
}

/** The chain of rosters, as a node makes it of what it has sealed. */
export async function rosterLines(records: readonly SealedRecord[]): Promise<string[]> {
  const lines: string[] = [];
  for (const { sealed } of records) {
    const { epoch, checkpoint, firstLeaf, treeSize, value } = sealed;
    if (rosterDigest(sealed.roster, cheapCrypto) === rosterDigest(value.nextRoster, cheapCrypto)) continue;
    const { index, hashes } = await inclusionProof(cheapCrypto, tilesOf(records), firstLeaf, treeSize);
    const header = fromUtf8(value.header);
    lines.push(encodeRosterChange({ epoch, header, checkpoint, index, hashes, roster: value.nextRoster }));
  }
  return lines;
}

/** One founder, then three voters, then five, of whom two are retired; then there is more usage. */
export function grown(): TestCluster {
  const test = new TestCluster(2);
  const { founder: first } = test;
  test.run(3 * EPOCH_MS);
  for (const name of ['n3', 'n4']) {
    (test.nodes as TestNode[]).push(new TestNode(first.cluster, name));
    first.set(admission(first.cluster, name));
  }
  test.nodes.slice(3).forEach((node) => (node.nowMs = first.nowMs));
  for (const node of test.nodes) node.meter(1);
  test.run(5 * EPOCH_MS);
  for (const { replica } of test.nodes.slice(1, 3)) {
    const retire = createRetire(first.cluster.id, replica, operator);
    first.set([factKey(retire), encodeFact(retire)]);
  }
  test.run(3 * EPOCH_MS);
  first.meter(1);
  test.run(2 * EPOCH_MS);
  return test;
}
