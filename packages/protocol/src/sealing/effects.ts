import type { Digest, Epoch, ReplicaId } from '../base/index.ts';
import type { Tile, TileEdge } from '../transparency/index.ts';
import type { SlotId, SlotRow } from '../usage/index.ts';
import type { Ballot } from './ballots.ts';
import type { PastEpoch } from './certificate.ts';
import type { Computed, Job } from './compute.ts';
import { unpackStatements, type PackedStatements, type StatementBytes } from './packed.ts';
import type { Roster } from './roster.ts';
import type { ChainState, SlotEntry, Value } from './value.ts';

/** A slot as its registers say it: its rows now, at most one for each customer and SKU, in any order. They are not changed. */
export interface HeldSlot {
  readonly id: SlotId;
  readonly rows: readonly SlotRow[];
}

export type SealingInput =
  /**
   * Time has passed. `membersClockMs` is the median of the members' clocks, the own one among them; null if none was heard, and
   * minus infinity while they are awaited: then nothing is closed.
   */
  | { readonly type: 'tick'; readonly membersClockMs: number | null }
  /** A `close/`, `ballot/` or `seal/` register, this replica's own ones too, once it is on disk. */
  | { readonly type: 'register'; readonly replica: ReplicaId; readonly key: string; readonly value: string }
  /** A content that was wanted, or pinned before a restart. */
  | { readonly type: 'content'; readonly bytes: Uint8Array }
  /** The result of a `compute`, by its name. */
  | { readonly type: 'computed'; readonly name: string; readonly result: Computed }
  /**
   * A sealed epoch as another node shows it: the header's bytes and the signed note, and the digest of its statements, one line each,
   * if it does not keep the slots any more. Nothing of it is believed unchecked.
   */
  | {
      readonly type: 'learned';
      readonly header: Uint8Array;
      readonly checkpoint: string;
      readonly statements?: Digest | undefined;
    }
  /**
   * An epoch that was sealed lately, off the own disk: its roster, header and signed note. At a restart, after all registers: what
   * they say of it is looked at, and for its vote this member must know what it wrote.
   */
  | ({ readonly type: 'past' } & PastEpoch);

export type SealingEffect =
  /** Pins a content. Durable before any register of the same list. */
  | { readonly type: 'content'; readonly epoch: Epoch; readonly digest: Digest; readonly bytes: Uint8Array }
  /** Writes a control register of this replica; comes back as an input when it is durable. */
  | { readonly type: 'write'; readonly key: string; readonly value: string }
  /** Fetch this content: from the disk, or from whoever has it. */
  | { readonly type: 'want'; readonly digest: Digest }
  /** What was wanted is needed for no epoch any more: a content that nobody has would be looked for for ever. */
  | { readonly type: 'unwant'; readonly digest: Digest }
  /**
   * Do this job (`compute`), in another thread if there is one, and hand back the result. The next comes after it. Needs no disk.
   */
  | { readonly type: 'compute'; readonly name: string; readonly job: Job }
  /** An epoch is sealed. Durable in one piece; afterwards its rows and pinned contents can go. */
  | { readonly type: 'sealed'; readonly sealed: SealedEpoch }
  /** More cosignatures came after the seal: this note takes the place of the epoch's checkpoint. Only the signatures differ. */
  | { readonly type: 'improved'; readonly epoch: Epoch; readonly checkpoint: string };

/** How the sealing of the next epoch goes. */
export interface SealingStatus {
  readonly epoch: Epoch;
  /** open: this node still counts in it; closing: not all have closed it; sealing: the roster votes and signs. */
  readonly phase: 'open' | 'closing' | 'sealing';
  /** Who has not closed it, or not signed it. */
  readonly waitingFor: readonly ReplicaId[];
  /** Unix ms from which it is sealed without those who have not closed it. */
  readonly deadlineMs: number;
  /** The highest ballot that anyone has prepared. */
  readonly ballot: Ballot;
  /** Whether this replica may be stopped for good: it votes no more, and a majority of those who do is known to hold the last seal. */
  readonly mayLeave: boolean;
}

/** What a sealed value says: statements, and the chain after it. Its leaves are the header and one for each statement. */
export interface SealedOutcome {
  readonly statements: PackedStatements;
  /**
   * The counted slots, in the order of the slot list, with the bytes of their whole contents: null if the epoch was learned without
   * them.
   */
  readonly slots: readonly { readonly id: SlotEntry; readonly content: Uint8Array | null }[];
  readonly next: ChainState;
}

/** All that a sealed epoch is. */
export interface SealedEpoch {
  readonly epoch: Epoch;
  readonly roster: Roster;
  readonly value: Value;
  readonly outcome: SealedOutcome;
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
export interface PlacedStatement extends StatementBytes {
  readonly leaf: number;
}

/** The statements of a sealed epoch with their leaf indexes, from one up to, not including, another. */
export const placedStatements = ({ firstLeaf, outcome }: SealedEpoch, from = 0, to?: number): PlacedStatement[] =>
  unpackStatements(outcome.statements, from, to).map((statement, i) => ({
    ...statement,
    leaf: firstLeaf + 1 + from + i,
  }));

/** The slots of its own epoch that a seal wrote off: what more they hold, and all that was not known of them, comes late. */
export const writtenOff = ({ epoch, value }: SealedEpoch): SlotEntry[] =>
  value.slotList.filter((entry) => entry.epoch === epoch && !entry.closed);

/** The slots of earlier epochs of which a seal counts more, or that it counts as closed. */
export const lateSlots = ({ epoch, value }: SealedEpoch): SlotEntry[] =>
  value.slotList.filter((entry) => entry.epoch < epoch);
