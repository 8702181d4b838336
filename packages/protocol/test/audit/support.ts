import { utf8 } from '../../src/base/index.ts';
import type { Bundle } from '../../src/audit/index.ts';
import { placedStatements, type Cluster } from '../../src/sealing/index.ts';
import { formatLogProof, inclusionProof } from '../../src/transparency/index.ts';
import type { Usage } from '../../src/lattice/index.ts';
import { bundleOf, holding } from '../member/bundle.ts';
import { TestCluster, type Node } from '../sealing/harness.ts';
import { nodeCrypto } from '../support.ts';
import { TileMap } from '../transparency/support.ts';

/** A statement with its proof under the checkpoint of its own epoch. */
export interface Proven {
  readonly customer: string;
  readonly statement: Uint8Array;
  readonly proof: Uint8Array;
}

/** What an auditor is handed of a cluster: the bundles in order, and every statement with its proof. */
export interface Published {
  readonly cluster: Cluster;
  readonly bundles: readonly Bundle[];
  readonly proven: readonly Proven[];
}

export async function publish(test: TestCluster, node: Node = test.nodes[0]!): Promise<Published> {
  const tiles = new TileMap();
  const proven: Proven[] = [];
  for (const { sealed } of node.disk.sealed) {
    tiles.put(sealed.tiles);
    for (const { customer, bytes, leaf } of placedStatements(sealed)) {
      const { index, hashes } = await inclusionProof(nodeCrypto, tiles.read, leaf, sealed.treeSize);
      const proof = formatLogProof({ index, hashes, checkpoint: sealed.checkpoint });
      proven.push({ customer, statement: bytes, proof: utf8(proof) });
    }
  }
  return {
    cluster: test.cluster,
    bundles: node.disk.sealed.map((record) => bundleOf(test.cluster, holding(node.disk.contents), record)),
    proven,
  };
}

/**
 * A life with all that bundles can hold: epoch 0 with the slot of an earlier run, 1 empty, 2 with late usage of that slot
 * (and so what was counted of it), 3 with work of all.
 */
export function eventfulCluster(options: {
  readonly members: number;
  readonly seed?: number;
  readonly scale?: number;
}): TestCluster {
  const test = new TestCluster(options);
  const node = test.nodes[0]!;
  const scale = options.scale ?? 1;
  test.meter(node, 'shop', 5 * scale);
  test.meter(node, 'zoo', 2, 'inspect');
  const [early] = [...node.disk.slots.values()];
  node.start();
  test.meter(node, 'shop', 1, 'resize.png');
  test.sealUpTo(1);
  // A copy surfaces that holds more: the close of 2 reports it.
  const [row] = early!.rows;
  const more = Object.fromEntries(Object.entries(row!.usage).map(([dimension, figure]) => [dimension, figure + 3]));
  node.hold(early!.id, [{ ...row!, usage: more as unknown as Usage }]);
  test.sealUpTo(2);
  for (const member of test.nodes) test.meter(member, `c${member.index}`, 1 + member.index);
  test.sealUpTo(3);
  return test;
}
