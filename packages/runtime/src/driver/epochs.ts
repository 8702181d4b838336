import { present, utf8, WaggleError, type Digest, type Epoch } from '@waggle/protocol/base';
import {
  BUNDLE_FILES,
  collectBundle,
  countedFile,
  encodeChainFile,
  encodeLines,
  slotFile,
  type Bundle,
  type BundleFile,
} from '@waggle/protocol/audit';
import {
  encodeGenesis,
  encodeRoster,
  parseHeader,
  parseRoster,
  parseSlotList,
  placedStatements,
  type ChainState,
  type Cluster,
  type Roster,
  type SealedEpoch,
  type SlotEntry,
} from '@waggle/protocol/sealing';
import { formatLogProof, frontierAt, inclusionProof, parseNote, type ReadTile } from '@waggle/protocol/transparency';
import { slotName, type SlotId } from '@waggle/protocol/usage';
import { nodeCrypto } from '../node-crypto.ts';
import {
  STATEMENTS_PAGE_MAX,
  type Batch,
  type SealedEpoch as SealedRow,
  type StatementRow,
  type Store,
} from '../store/types.ts';

export { parquetChunks, type ParquetCell, type ParquetColumn } from '../parquet.ts';

/** What the store keeps of a sealed epoch beside its header: the JSON in `details`. */
export interface Details {
  /** Rosters of this epoch and the next, as encoded. */
  readonly roster: string;
  readonly nextRoster: string;
  readonly facts: string;
  /** By slot name, what earlier seals had counted of slots that this one counts more of. */
  readonly counted: readonly (readonly [slot: string, digest: Digest])[];
}

export const parseDetails = (row: SealedRow): Details => JSON.parse(row.details) as Details;

const text = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8');

/** Its statements, from one up to, not including, another: their bytes are views of the epoch's. */
export const statementRows = (sealed: SealedEpoch, from = 0, to?: number): StatementRow[] =>
  placedStatements(sealed, from, to).map(({ customer, epoch, leaf, bytes }) => ({
    customer,
    epoch: sealed.epoch,
    origin: epoch,
    leafIndex: leaf,
    bytes,
  }));

/** The rows of a sealed epoch, but for its statements. `before` is the chain that it continued. */
export function sealedRows(
  sealed: SealedEpoch,
  before: ReadonlyMap<string, Digest>,
): Required<Pick<Batch, 'sealed' | 'tiles'>> {
  const details: Details = {
    roster: text(encodeRoster(sealed.roster)),
    nextRoster: text(encodeRoster(sealed.value.nextRoster)),
    facts: text(sealed.value.facts),
    counted: sealed.value.slotList.flatMap((entry) => {
      const digest = before.get(slotName(entry));
      return digest === undefined ? [] : [[slotName(entry), digest] as const];
    }),
  };
  return {
    sealed: [
      {
        epoch: sealed.epoch,
        firstLeaf: sealed.firstLeaf,
        treeSize: sealed.treeSize,
        root: sealed.root,
        header: text(sealed.value.header),
        checkpoint: sealed.checkpoint,
        details: JSON.stringify(details),
      },
    ],
    tiles: sealed.tiles.map(({ level, index, hashes }) => ({ level, index, hashes })),
  };
}

/** Reads tiles from the store, as the proofs want them. */
export const tileReader =
  (store: Store): ReadTile =>
  async (level, index, width) => {
    const hashes = present(await store.tile(level, index), `tile ${level}/${index}`);
    return hashes.subarray(0, width * 32);
  };

/** A sealed epoch as the API shows it. */
export interface EpochView {
  readonly row: SealedRow;
  readonly roster: Roster;
  readonly nextRoster: Roster;
  /** Key names of the cosigners of the checkpoint. */
  readonly cosigners: readonly string[];
}

/** The sealed epoch, or an error: `EPOCH_NOT_SEALED` up to `openEpoch`, `EPOCH_UNKNOWN` beyond. */
export async function readEpoch(store: Store, epoch: Epoch, openEpoch: Epoch): Promise<EpochView> {
  const row = await store.sealedEpoch(epoch);
  if (row === null)
    throw epoch <= openEpoch
      ? new WaggleError('EPOCH_NOT_SEALED', `Expected a sealed epoch; epoch ${epoch} is not sealed yet`)
      : new WaggleError('EPOCH_UNKNOWN', `Expected an epoch up to ${openEpoch}, received ${epoch}`);
  const details = parseDetails(row);
  return {
    row,
    roster: parseRoster(utf8(details.roster)),
    nextRoster: parseRoster(utf8(details.nextRoster)),
    cosigners: parseNote(row.checkpoint)
      .signatures.map(({ name }) => name)
      .filter((name) => name !== row.checkpoint.slice(0, row.checkpoint.indexOf('\n'))),
  };
}

/** The slot list of a sealed epoch. */
export async function readSlotList(
  store: Store,
  row: SealedRow,
): Promise<{ readonly bytes: Uint8Array; readonly entries: readonly SlotEntry[] }> {
  const bytes = await readContent(store, parseHeader(utf8(row.header)).slots.digest);
  return { bytes, entries: parseSlotList(bytes) };
}

/** A content that must be there. */
export const readContent = async (store: Store, digest: Digest): Promise<Uint8Array> =>
  present(await store.content(digest), `content ${digest}`);

async function* statementPages(store: Store, epoch: Epoch): AsyncGenerator<readonly StatementRow[]> {
  let after: number | null = null;
  for (;;) {
    const page: StatementRow[] = await store.statements(epoch, after, STATEMENTS_PAGE_MAX);
    yield page;
    if (page.length < STATEMENTS_PAGE_MAX) return;
    after = page.at(-1)!.leafIndex;
  }
}

/** All statements sealed in an epoch, page by page, in the order of their leaves. */
export async function* streamStatements(store: Store, epoch: Epoch): AsyncGenerator<StatementRow> {
  for await (const page of statementPages(store, epoch)) yield* page;
}

/** Sealed content that is not there was let go of when its time was over (retention.ts). */
const expired = (epoch: Epoch, slot: SlotId): WaggleError =>
  new WaggleError(
    'SLOTS_EXPIRED',
    `Expected slot ${slotName(slot)} of epoch ${epoch}, which is not kept any more; /v1/epochs/${epoch}/outline.tar has the rest`,
  );

/** The content of a slot that a sealed epoch counts. Throws `SLOTS_EXPIRED`. */
async function readSlotContent(store: Store, epoch: Epoch, slot: SlotId, digest: Digest): Promise<Uint8Array> {
  const bytes = await store.content(digest);
  if (bytes === null) throw expired(epoch, slot);
  return bytes;
}

/** The content of a slot of a slot list. Throws `SLOTS_EXPIRED`. */
export const readSlot = (store: Store, epoch: Epoch, entry: SlotEntry): Promise<Uint8Array> =>
  readSlotContent(store, epoch, entry, entry.digest);

/**
 * All that it takes to verify a sealed epoch, as files to be read one at a time: the same bytes at every node. Throws as `readEpoch`,
 * and `SLOTS_EXPIRED`; so does a file when its slot is let go of before it is read.
 */
export async function bundleFiles(
  store: Store,
  cluster: Cluster,
  epoch: Epoch,
  openEpoch: Epoch,
): Promise<BundleFile[]> {
  const { row } = await readEpoch(store, epoch, openEpoch);
  const slotList = await readSlotList(store, row);
  const slots = await slotFiles(store, row, slotList.entries);
  return [...(await outlineOf(store, cluster, row, slotList)), ...slots];
}

/** The same without the contents of slots: what is kept of every sealed epoch for ever. Throws as `readEpoch`. */
export async function outlineFiles(
  store: Store,
  cluster: Cluster,
  epoch: Epoch,
  openEpoch: Epoch,
): Promise<BundleFile[]> {
  const { row } = await readEpoch(store, epoch, openEpoch);
  return outlineOf(store, cluster, row, await readSlotList(store, row));
}

/** All files of the bundle of a sealed epoch, in memory. Throws as `bundleFiles`. */
export const readBundle = async (store: Store, cluster: Cluster, epoch: Epoch, openEpoch: Epoch): Promise<Bundle> =>
  collectBundle(await bundleFiles(store, cluster, epoch, openEpoch));

/** The contents that a seal counted, and had counted before. Throws `SLOTS_EXPIRED` if any of them is gone. */
async function slotFiles(store: Store, row: SealedRow, entries: readonly SlotEntry[]): Promise<BundleFile[]> {
  const before = new Map(parseDetails(row).counted);
  const files = entries.flatMap((slot) => {
    const file = { name: slotFile(slot), slot, digest: slot.digest };
    const counted = before.get(slotName(slot));
    return counted === undefined ? [file] : [file, { name: countedFile(slot), slot, digest: counted }];
  });
  const sizes = await store.contentSizes(files.map(({ digest }) => digest));
  return files.map(({ name, slot, digest }, i) => {
    const size = sizes[i] ?? null;
    if (size === null) throw expired(row.epoch, slot);
    return {
      name,
      size,
      async *read() {
        yield await readSlotContent(store, row.epoch, slot, digest);
      },
    };
  });
}

/** What there is beside slots. All but the statements is small, and read already. */
async function outlineOf(
  store: Store,
  cluster: Cluster,
  row: SealedRow,
  slotList: Awaited<ReturnType<typeof readSlotList>>,
): Promise<BundleFile[]> {
  const { epoch, firstLeaf, treeSize } = row;
  const details = parseDetails(row);
  const header = parseHeader(utf8(row.header));
  const chain: ChainState = {
    epoch,
    previous: header.previous,
    roster: parseRoster(utf8(details.roster)),
    format: header.format,
    counted: new Map(details.counted),
    closed: new Map(),
  };
  const frontier = await frontierAt(nodeCrypto, tileReader(store), firstLeaf);
  const file = (name: string, bytes: Uint8Array): BundleFile => ({ name, size: bytes.length, read: () => [bytes] });
  return [
    file(BUNDLE_FILES.genesis, utf8(encodeGenesis(cluster.genesis))),
    file(BUNDLE_FILES.chain, encodeChainFile(chain, frontier, slotList.entries)),
    file(BUNDLE_FILES.header, utf8(row.header)),
    file(BUNDLE_FILES.checkpoint, utf8(row.checkpoint)),
    file(BUNDLE_FILES.roster, utf8(details.roster)),
    file(BUNDLE_FILES.nextRoster, utf8(details.nextRoster)),
    file(BUNDLE_FILES.facts, utf8(details.facts)),
    file(BUNDLE_FILES.slotList, slotList.bytes),
    {
      name: BUNDLE_FILES.statements,
      // With a line feed after each: all leaves but the header's are statements.
      size: (await store.statementBytes(epoch)) + treeSize - firstLeaf - 1,
      async *read() {
        for await (const page of statementPages(store, epoch)) yield encodeLines(page.map(({ bytes }) => text(bytes)));
      },
    },
  ];
}

/**
 * The `.tlog-proof` of a statement, under the checkpoint of the epoch that sealed it. What it proves never changes; while the
 * epoch's registers are kept, signatures under the checkpoint may give way to those of members further ahead in the roster.
 */
export async function readProof(
  store: Store,
  statement: StatementRow,
  checkpoint: string,
  treeSize: number,
): Promise<string> {
  const { index, hashes } = await inclusionProof(nodeCrypto, tileReader(store), statement.leafIndex, treeSize);
  return formatLogProof({ index, hashes, checkpoint });
}
