import type {
  Crypto,
  CustomerId,
  Digest,
  Epoch,
  ErrorCode,
  HybridClock,
  Random,
  ReplicaId,
  Run,
  Signer,
} from '../base/index.ts';
import type { ControlRegister, Usage } from '../lattice/index.ts';
import type { MemberChange, MemberKey, TimerInput } from '../membership/index.ts';
import type { ClassName, ReplicationTimer, ShownEpoch } from '../replication/index.ts';
import type { ChainState, Cluster, Computed, Job, PastEpoch, RosterEntry, SealedEpoch } from '../sealing/index.ts';
import type { TileEdge } from '../transparency/index.ts';
import type { SlotId } from '../usage/index.ts';

/** The time, twice: what the wall says, which may jump, and what has passed, which does not. Whole ms. */
export interface Now {
  /** Unix ms. */
  readonly wallMs: number;
  /** ms since some moment of this process; never goes back. */
  readonly steadyMs: number;
}

/** A control register to be written by this replica: key and JSON text. */
export interface Write {
  readonly key: string;
  readonly value: string;
}

/** A control register and its writer. */
export interface ControlRow extends ControlRegister {
  readonly replica: ReplicaId;
}

/** A usage register and its writer, `(replica, run)`. */
export interface UsageRegisterRow extends SlotId {
  readonly customer: CustomerId;
  readonly sku: string;
  readonly version: number;
  readonly usage: Usage;
}

/** How far everything of a writer is held. */
export interface VectorRow {
  readonly class: ClassName;
  readonly writer: string;
  readonly upTo: number;
}

/** A timer, handed back when it is due: what it carries makes a stale one known. */
export type MemberTimer =
  | { readonly core: 'membership'; readonly input: TimerInput }
  | { readonly core: 'replication'; readonly input: ReplicationTimer }
  /**
   * Looks whether an epoch is over; writes what others sent; lets go of rows; asks a full disk again; looks whether others have
   * sealed more.
   */
  | { readonly core: 'member'; readonly input: 'epoch' | 'lazy' | 'tidy' | 'full' | 'catchUp' };

export type MemberInput =
  /** Once, before any other. */
  | { readonly type: 'start' }
  | { readonly type: 'timer'; readonly timer: MemberTimer }
  /** From the member whose key the transport has verified. */
  | { readonly type: 'datagram'; readonly from: MemberKey; readonly bytes: Uint8Array }
  | { readonly type: 'message'; readonly from: MemberKey; readonly bytes: Uint8Array }
  /** A reliable, ordered link to that member is there. */
  | { readonly type: 'linkUp'; readonly member: MemberKey }
  /** It is gone, with what was on its way. */
  | { readonly type: 'linkDown'; readonly member: MemberKey }
  /** What a finished request adds. Answered by `done` or `refused` with the same ticket. */
  | {
      readonly type: 'meter';
      readonly ticket: number;
      readonly customer: CustomerId;
      readonly sku: string;
      readonly usage: Usage;
    }
  /** Control registers of this replica, all in one transaction. Answered likewise. */
  | { readonly type: 'write'; readonly ticket: number; readonly writes: readonly Write[] }
  /** The batch of that number is on disk. */
  | { readonly type: 'persisted'; readonly number: number }
  /** Nothing of the batch is on disk, for want of room: what must not be lost of it is offered again, under another number. */
  | { readonly type: 'full'; readonly number: number }
  /** The parts of a large seal are on disk (`stage`). */
  | { readonly type: 'staged'; readonly epoch: Epoch }
  /** The answer to a `load`: null if the disk does not have it. */
  | { readonly type: 'content'; readonly digest: Digest; readonly bytes: Uint8Array | null }
  /** The answer to a `compute`, by its name. */
  | { readonly type: 'computed'; readonly name: string; readonly result: Computed }
  /** How far the event loop is behind, in ms, sampled about once a second. */
  | { readonly type: 'loopLag'; readonly lagMs: number }
  /** Finds out which live members hold this replica's registers of a class up to a version: `visible`, `heldBy`, `usageHeldBy`. */
  | { readonly type: 'follow'; readonly version: number; readonly of?: ClassName }
  /** The answer to a `readSealed`: sealed epochs in order, without a gap. */
  | { readonly type: 'sealedRead'; readonly to: ReplicaId; readonly epochs: readonly ShownEpoch[] }
  /** This node goes, in order: the others are told. */
  | { readonly type: 'leave' };

/**
 * One transaction: rows replace those of the same key, registers only when their version is higher; drops come first. On disk in
 * one piece or not at all.
 */
export interface Batch {
  readonly number: number;
  /** The tickets of the meterings in it, whose records go with it, and the epoch that they count in. */
  readonly metered: { readonly epoch: Epoch; readonly tickets: readonly number[] };
  readonly meta: readonly (readonly [name: string, value: string])[];
  readonly control: readonly ControlRow[];
  readonly usage: readonly UsageRegisterRow[];
  readonly vectors: readonly VectorRow[];
  readonly contents: readonly { readonly digest: Digest; readonly epoch: Epoch; readonly bytes: Uint8Array }[];
  /** At most one; `before` is the chain that it continues, and `sealed.outcome.next` the one to start from afterwards. */
  readonly seal: { readonly sealed: SealedEpoch; readonly before: ChainState } | null;
  /** Sealed epochs whose checkpoint has got other signatures. */
  readonly checkpoints: readonly { readonly epoch: Epoch; readonly checkpoint: string }[];
  readonly dropControl: readonly { readonly replica: ReplicaId; readonly key: string }[];
  readonly dropUsage: readonly SlotId[];
  /** Of runs that every node forgets, now that seals have counted all their rows. */
  readonly dropVectors: readonly Omit<VectorRow, 'upTo'>[];
  readonly dropContents: readonly Digest[];
}

/** What a person should hear of. */
export type Alarm =
  /**
   * Another node holds a register of this replica that it did not write: its disk went back. It must not go on under this id, and
   * writes no control register any more: neither closes nor votes, while requests are metered as before.
   */
  | { readonly what: 'overtaken'; readonly version: number }
  /** Two processes write as one replica. */
  | { readonly what: 'conflict'; readonly class: ClassName; readonly writer: string; readonly version: number }
  /**
   * By the median of the clocks the open epoch is not over, or has not even begun, for more than a minute: this node's clock says
   * that it is over, or was ahead when it closed those before. Requests count in it until time gets there.
   */
  | { readonly what: 'clockAhead'; readonly epoch: Epoch; readonly membersClockMs: number }
  /** A member's clock is more than a minute from the median, by so many ms (negative: behind). `isOwn`: it is this node's. */
  | { readonly what: 'clockApart'; readonly replica: ReplicaId; readonly aheadMs: number; readonly isOwn: boolean }
  /**
   * Another process writes as this replica, under that run. The newer of the two must stop; the older one goes on and should say
   * so, too.
   */
  | { readonly what: 'duplicate'; readonly run: Run; readonly mustStop: boolean }
  /** The operator has shut this replica out: nobody connects to it any more. */
  | { readonly what: 'banned' }
  /** This replica was retired: it votes no more once a seal has taken that up, and its usage still counts. */
  | { readonly what: 'retired' }
  /** A member speaks a version of the protocol of which nothing is understood here. */
  | { readonly what: 'foreignVersion'; readonly replica: ReplicaId; readonly major: number }
  /** A signed register that no correct node writes. It is held, and means nothing. */
  | { readonly what: 'malformed'; readonly replica: ReplicaId; readonly key: string; readonly code: ErrorCode };

export type MemberEffect =
  /** One at a time: the next comes after `persisted` or `full`. */
  | { readonly type: 'persist'; readonly batch: Batch }
  /** A seal of many leaves is to come: what may be on disk before it (leaves, statements) can be written now, in parts. */
  | { readonly type: 'stage'; readonly sealed: SealedEpoch; readonly before: ChainState }
  /** Do this job of a large epoch (`compute`), best in another thread: answered by `computed`. One at a time. */
  | { readonly type: 'compute'; readonly name: string; readonly job: Job }
  /** On the reliable link, if there is one; at most 64 KiB. What it says of this replica is on disk. */
  | { readonly type: 'send'; readonly to: MemberKey; readonly bytes: Uint8Array }
  /** Unreliable; at most 1 200 bytes. */
  | { readonly type: 'datagram'; readonly to: MemberKey; readonly bytes: Uint8Array }
  /** Hands `timer` back after so many ms, after the datagrams that have come by then. */
  | { readonly type: 'timer'; readonly afterMs: number; readonly timer: MemberTimer }
  /** A metering or write is on disk; a metering counts in that epoch. */
  | { readonly type: 'done'; readonly ticket: number; readonly epoch: Epoch }
  /** It is not, and will not be. */
  | { readonly type: 'refused'; readonly ticket: number; readonly code: ErrorCode }
  /**
   * A control register to be folded into the views above, sealing's own left out: this replica's once it is on disk, others' at
   * once. Not those in `Loaded`, which whoever loads them folds.
   */
  | { readonly type: 'folded'; readonly replica: ReplicaId; readonly register: ControlRegister }
  /** An epoch is sealed, on disk. */
  | { readonly type: 'sealed'; readonly epoch: Epoch }
  /** Read this content from disk: answered by `content`. */
  | { readonly type: 'load'; readonly digest: Digest }
  /** Read the sealed epochs from this one on, some: answered by `sealedRead`. */
  | { readonly type: 'readSealed'; readonly from: Epoch; readonly to: ReplicaId }
  /** A member is newly known to hold this replica's registers of a class up to a version. */
  | { readonly type: 'visible'; readonly replica: ReplicaId; readonly upTo: number; readonly of: ClassName }
  /** Who may connect from now on, in roster order. */
  | { readonly type: 'admitted'; readonly replicas: readonly RosterEntry[] }
  /** A member got into another state for this node. */
  | { readonly type: 'member'; readonly change: MemberChange }
  /** A frame that no correct node sends. It changed nothing. */
  | { readonly type: 'misbehaviour'; readonly from: ReplicaId; readonly code: ErrorCode }
  | { readonly type: 'alarm'; readonly alarm: Alarm };

export interface MemberOptions {
  readonly cluster: Cluster;
  readonly replica: ReplicaId;
  /** Of this process start: above every earlier one of this replica. */
  readonly run: Run;
  readonly crypto: Crypto;
  readonly random: Random;
  /** The keys of this replica: who it is among the members, the log's, and the cosigner's. */
  readonly transport: Signer;
  readonly log: Signer;
  readonly cosigner: Signer;
  /** Its high-water mark goes to disk with every transaction. */
  readonly hlc: HybridClock;
  /** A seal of more leaves than that is staged; none is unless said. */
  readonly stageAbove?: number;
  /** Work of sealing that reads more bytes than that is not done at once, but by `compute`; tests set it. */
  readonly inlineBytes?: number | undefined;
  /** Most rows of one run that no seal has counted; tests set it. */
  readonly usageKeysMax?: number | undefined;
}

/** What the disk held. */
export interface Loaded {
  /** In any order; the rows are kept. */
  readonly control: Iterable<ControlRow>;
  readonly usage: Iterable<UsageRegisterRow>;
  readonly vectors: Iterable<VectorRow>;
  readonly meta: ReadonlyMap<string, string>;
  /** Roster facts that a member showed to a newcomer, of which the registers may not have come yet: their keys and texts. */
  readonly facts?: Iterable<{ readonly key: string; readonly value: string }>;
  /** The first epoch that this replica meters in, unless a close of its own says more; else the one after the last sealed. */
  readonly firstEpoch?: Epoch;
  /** Contents that the chain has counted and that are not on disk. */
  readonly lacking?: Iterable<Digest>;
  /** Where the chain of sealed epochs stands, and the tree that they make. */
  readonly chain: ChainState;
  readonly edge: TileEdge;
  /** The epochs sealed last, `REGISTERS_KEPT_EPOCHS` of them, oldest first. */
  readonly past: Iterable<PastEpoch>;
  /** The contents pinned for the epochs that are not sealed. */
  readonly pinned: Iterable<Uint8Array>;
}
