import type { CustomerId, Digest, Epoch, ReplicaId } from '../base/index.ts';
import type { Tile, TileEdge } from '../transparency/index.ts';
import type { Slot, SlotId } from '../usage/index.ts';
import type { Roster } from './roster.ts';
import type { Outcome, Value } from './value.ts';

/** A slot as its registers say it. */
export interface HeldSlot {
  readonly id: SlotId;
  readonly rows: Slot;
}

export type SealingInput =
  /** Time has passed. `membersClockMs` is the median of the clocks heard from members in the last 10 s; null if there are none. */
  | { readonly type: 'tick'; readonly membersClockMs: number | null }
  /** A `close/`, `ballot/` or `seal/` register, this replica's own ones too, once it is on disk. */
  | { readonly type: 'register'; readonly replica: ReplicaId; readonly key: string; readonly value: string }
  /** A content that was wanted, or pinned before a restart. */
  | { readonly type: 'content'; readonly bytes: Uint8Array };

export type SealingEffect =
  /** Pins a content. Durable before any register of the same list. */
  | { readonly type: 'content'; readonly epoch: Epoch; readonly digest: Digest; readonly bytes: Uint8Array }
  /** Writes a control register of this replica; comes back as an input when it is durable. */
  | { readonly type: 'write'; readonly key: string; readonly value: string }
  /** Fetch this content: from the disk, or from whoever has it. */
  | { readonly type: 'want'; readonly digest: Digest }
  /** An epoch is sealed. Durable in one piece; afterwards its rows and pinned contents can go. */
  | { readonly type: 'sealed'; readonly sealed: SealedEpoch };

/** All that a sealed epoch is. */
export interface SealedEpoch {
  readonly epoch: Epoch;
  readonly roster: Roster;
  readonly value: Value;
  readonly outcome: Outcome;
  /** The signed note: text and a majority's signatures. */
  readonly checkpoint: string;
  /** Leaves before this epoch's header. */
  readonly firstLeaf: number;
  /** Leaves after this epoch. */
  readonly treeSize: number;
  readonly root: Uint8Array;
  /** Tiles that this epoch created or made grow. */
  readonly tiles: readonly Tile[];
  readonly edge: TileEdge;
  /** Contents that nobody needs once the epoch is sealed; slot contents and the slot list stay. */
  readonly release: readonly Digest[];
}

/** One statement of a sealed epoch with its place in the log. */
export interface PlacedStatement {
  readonly customer: CustomerId;
  readonly epoch: Epoch;
  readonly text: string;
  readonly leaf: number;
}

/** The statements of a sealed epoch with their leaf indexes. */
export const placedStatements = (sealed: SealedEpoch): PlacedStatement[] =>
  sealed.outcome.statements.map((statement, i) => ({ ...statement, leaf: sealed.firstLeaf + 1 + i }));
