import { digestOf, present, WaggleError, type Crypto, type Digest, type ErrorCode } from '../base/index.ts';
import { appendLeaves, edgeRoot, leafHash, type Tile, type TileEdge } from '../transparency/index.ts';
import { encodeSlot, joinSlots, parseSlot, sortRows, type Slot } from '../usage/index.ts';
import { outlineOf } from './outline.ts';
import { packStatements, unpackRows, type PackedRows, type PackedStatements } from './packed.ts';
import type { Cluster } from './roster.ts';
import { outcomeOf, parseSlotList, type ChainState } from './value.ts';

/**
 * A piece of work that takes long when an epoch is large: plain data, so that another thread can do it. It depends on nothing
 * else.
 */
export type Job =
  /** Joins what is held of one slot: its rows, and contents of it. */
  | { readonly kind: 'slot'; readonly rows: PackedRows; readonly contents: readonly Uint8Array[] }
  /** Computes what a value says, and the tree with it. */
  | {
      readonly kind: 'seal';
      readonly cluster: Cluster;
      readonly chain: ChainState;
      readonly edge: TileEdge;
      readonly header: Uint8Array;
      readonly slotList: Uint8Array;
      readonly facts: Uint8Array;
      readonly nextRoster: Uint8Array;
      /** Of the slots in the list, and what was counted of them before. */
      readonly contents: ReadonlyMap<Digest, Uint8Array>;
    }
  /** Computes the chain after a sealed value whose slots are not kept any more, and the tree with its statements. */
  | {
      readonly kind: 'outline';
      readonly cluster: Cluster;
      readonly chain: ChainState;
      readonly edge: TileEdge;
      readonly header: Uint8Array;
      readonly slotList: Uint8Array;
      readonly facts: Uint8Array;
      readonly nextRoster: Uint8Array;
      /** One line each, in the order of their leaves. */
      readonly statements: Uint8Array;
    };

/** A sealed value computed. */
interface Seal {
  readonly kind: 'seal';
  readonly statements: PackedStatements;
  readonly next: ChainState;
  /** The tree with the header's leaf and one for each statement. */
  readonly edge: TileEdge;
  readonly root: Uint8Array;
  readonly tiles: readonly Tile[];
}

/** What a job of a kind has for a result. */
export interface Results {
  readonly slot: { readonly kind: 'slot'; readonly digest: Digest; readonly bytes: Uint8Array };
  readonly seal: Seal;
  readonly outline: Seal;
}

/** The result of a job: plain data, too. */
export type Computed =
  | Results[Job['kind']]
  /** What others wrote does not hold. */
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string };

/** Does a job. Pure: the same result wherever and whenever it is done. */
export function compute(job: Job, crypto: Crypto): Computed {
  try {
    if (job.kind === 'slot') return computeSlot(job, crypto);
    const value = { ...job, slotList: parseSlotList(job.slotList) };
    if (job.kind === 'seal') return computeSeal(job, value, crypto);
    return sealOf(
      job.edge,
      outlineOf(job.cluster, job.chain, { ...value, statements: job.statements }, crypto),
      crypto,
    );
  } catch (error) {
    if (!(error instanceof WaggleError)) throw error;
    return { kind: 'failed', code: error.code, message: error.message };
  }
}

function computeSlot({ rows, contents }: Extract<Job, { kind: 'slot' }>, crypto: Crypto): Computed {
  const bytes = encodeSlot(contents.map(parseSlot).reduce(joinSlots, sortRows(unpackRows(rows))));
  return { kind: 'slot', digest: digestOf(crypto, bytes), bytes };
}

function computeSeal(
  job: Extract<Job, { kind: 'seal' }>,
  value: Parameters<typeof outcomeOf>[2],
  crypto: Crypto,
): Computed {
  const slots = new Map<Digest, Slot>();
  const contentOf = (digest: Digest): Slot => {
    let slot = slots.get(digest);
    if (slot === undefined) slots.set(digest, (slot = parseSlot(present(job.contents.get(digest), digest))));
    return slot;
  };
  return sealOf(job.edge, outcomeOf(job.cluster, job.chain, value, contentOf, crypto), crypto);
}

function sealOf(
  before: TileEdge,
  { statements, leaves, next }: ReturnType<typeof outlineOf>,
  crypto: Crypto,
): Results['seal'] {
  const hashes = leaves.map((leaf) => leafHash(crypto, leaf));
  const { edge, tiles } = appendLeaves(crypto, before, hashes);
  return { kind: 'seal', statements: packStatements(statements), next, edge, root: edgeRoot(crypto, edge), tiles };
}
