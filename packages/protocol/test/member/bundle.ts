import {
  BUNDLE_FILES,
  countedFile,
  encodeChainFile,
  encodeLines,
  slotFile,
  type Bundle,
} from '../../src/audit/index.ts';
import { present, utf8, type Digest } from '../../src/base/index.ts';
import { encodeGenesis, encodeRoster, type Cluster } from '../../src/sealing/index.ts';
import { frontierOf } from '../../src/transparency/index.ts';
import { slotName } from '../../src/usage/index.ts';
import { statementsIn } from '../support.ts';
import type { MemoryDisk, SealedRecord } from './disk.ts';
import { cheapCrypto } from './harness.ts';

/** Of a disk: the contents that it has. */
type Contents = Pick<MemoryDisk, 'content'>;

export const holding = (contents: ReadonlyMap<Digest, Uint8Array>): Contents => ({
  content: (digest) => contents.get(digest) ?? null,
});

/** The bundle of a sealed epoch, put together of what a disk has. */
export function bundleOf(cluster: Cluster, disk: Contents, { sealed, chain, edge }: SealedRecord): Bundle {
  const { value } = sealed;
  const content = (digest: Digest): Uint8Array => present(disk.content(digest), `content ${digest}`);
  const bundle = new Map<string, Uint8Array>([
    [BUNDLE_FILES.genesis, utf8(encodeGenesis(cluster.genesis))],
    [BUNDLE_FILES.chain, encodeChainFile(chain, frontierOf(cheapCrypto, edge), value.slotList)],
    [BUNDLE_FILES.header, value.header],
    [BUNDLE_FILES.checkpoint, utf8(sealed.checkpoint)],
    [BUNDLE_FILES.roster, encodeRoster(sealed.roster)],
    [BUNDLE_FILES.nextRoster, encodeRoster(value.nextRoster)],
    [BUNDLE_FILES.facts, value.facts],
    [BUNDLE_FILES.slotList, value.slotListBytes],
    [BUNDLE_FILES.statements, encodeLines(statementsIn(sealed).map(({ text }) => text))],
  ]);
  for (const entry of value.slotList) {
    bundle.set(slotFile(entry), content(entry.digest));
    const counted = chain.counted.get(slotName(entry));
    if (counted !== undefined) bundle.set(countedFile(entry), content(counted));
  }
  return bundle;
}
