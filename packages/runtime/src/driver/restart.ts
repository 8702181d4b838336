import { assert, utf8, type Digest, type Epoch } from '@waggle/protocol/base';
import {
  chainStart,
  headerHash,
  parseHeader,
  parseRoster,
  REGISTERS_KEPT_EPOCHS,
  type ChainState,
  type Cluster,
  type EpochRanges,
  type PastEpoch,
} from '@waggle/protocol/sealing';
import type { WriterId } from '@waggle/protocol/lattice';
import { nodeCrypto } from '../node-crypto.ts';
import { CONTENTS_PAGE_MAX, type ContentEntry, type Loaded, type Store } from '../store/types.ts';
import { parseDetails } from './epochs.ts';
import { META } from './founding.ts';

/** Where the chain of sealed epochs stands on disk. */
export async function readChain(store: Store, loaded: Loaded, cluster: Cluster): Promise<ChainState> {
  const last = loaded.sealed.at(-1);
  if (last === undefined) return chainStart(cluster);
  const row = await store.sealedEpoch(last.epoch);
  assert(row !== null, 'the last sealed epoch can be read');
  const header = utf8(row.header);
  return {
    epoch: last.epoch + 1,
    previous: headerHash(header, nodeCrypto),
    roster: parseRoster(utf8(parseDetails(row).nextRoster)),
    format: parseHeader(header).nextFormat,
    counted: new Map(entries<string, Digest>(loaded.meta.get(META.counted))),
    closed: new Map(entries<WriterId, EpochRanges>(loaded.meta.get(META.closed))),
  };
}

/** The epochs sealed last, for which more signatures may still come: oldest first. */
export async function readPast(store: Store, next: Epoch): Promise<PastEpoch[]> {
  const rows = await store.sealedRange(Math.max(0, next - REGISTERS_KEPT_EPOCHS), REGISTERS_KEPT_EPOCHS);
  return rows.map((row) => ({
    roster: parseRoster(utf8(parseDetails(row).roster)),
    header: utf8(row.header),
    checkpoint: row.checkpoint,
  }));
}

/** The part of `meta` that `readChain` reads back, as of this state. */
export const chainMeta = ({ counted, closed }: ChainState): [name: string, value: string][] => [
  [META.counted, JSON.stringify([...counted])],
  [META.closed, JSON.stringify([...closed])],
];

const entries = <K, V>(text: string | undefined): [K, V][] =>
  text === undefined ? [] : (JSON.parse(text) as [K, V][]);

/** The contents that epochs from this one on have pinned. */
export async function readPinned(store: Store, from: Epoch): Promise<Uint8Array[]> {
  const contents: Uint8Array[] = [];
  for (let after: Digest | null = null; ;) {
    const page: ContentEntry[] = await store.contentDigests(after, CONTENTS_PAGE_MAX);
    for (const { digest, epoch } of page) {
      const bytes = epoch >= from ? await store.content(digest) : null;
      if (bytes !== null) contents.push(bytes);
    }
    if (page.length < CONTENTS_PAGE_MAX) return contents;
    after = page.at(-1)!.digest;
  }
}
