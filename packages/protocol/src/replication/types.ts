import type { ClusterId, Crypto, Digest, Epoch, ErrorCode, Random, ReplicaId, Run } from '../base/index.ts';
import type { Change, ControlRegister, Registers, UsageRow, WriterId } from '../lattice/index.ts';

/** The two classes of registers. */
export const CLASSES = ['control', 'usage'] as const;
export type ClassName = (typeof CLASSES)[number];
/** One value for each class. */
export type PerClass<T> = Readonly<Record<ClassName, T>>;

/** A sealed epoch as one node shows it to another: the contents that its header names are fetched by their digests. */
export interface ShownEpoch {
  readonly epoch: Epoch;
  /** JCS bytes. */
  readonly header: Uint8Array;
  /** Signed note. */
  readonly checkpoint: string;
  /** Digest of its statements, one line each: a content that the sender has, if it does not keep the slots any more. */
  readonly statements?: Digest | undefined;
}

/** What comes back after a while; each carries what makes it stale. */
export type ReplicationTimer =
  | { readonly type: 'flush'; readonly round: number }
  | { readonly type: 'gossip'; readonly round: number }
  | { readonly type: 'exchange'; readonly round: number }
  | { readonly type: 'fetch'; readonly digest: Digest; readonly step: number }
  | { readonly type: 'follows' }
  | { readonly type: 'epochs'; readonly step: number };

export type ReplicationInput =
  /** Once, before any other: the exchanges begin. */
  | { readonly type: 'start' }
  /** A message of a member, as the authenticated link names it. */
  | { readonly type: 'message'; readonly from: ReplicaId; readonly bytes: Uint8Array }
  | ReplicationTimer
  /** Who is reachable now, this node left out: all that are alive or suspect, all that are believed dead, and all that left. */
  | {
      readonly type: 'members';
      readonly live: readonly ReplicaId[];
      readonly dead: readonly ReplicaId[];
      readonly left: readonly ReplicaId[];
    }
  /** Ends `isHidden`. */
  | { readonly type: 'show' }
  /** Control registers of this replica were applied to the lattice, after they were durable. */
  | { readonly type: 'written' }
  /** There is a new link to a member: what was sent before is lost, and what was missed meanwhile is to be had now. */
  | { readonly type: 'linkOpened'; readonly member: ReplicaId }
  /** The link to a member is gone: what was under way on it is lost. */
  | { readonly type: 'linkClosed'; readonly member: ReplicaId }
  /** A content that is on disk: made here, or read for a `load`. */
  | { readonly type: 'held'; readonly digest: Digest; readonly bytes: Uint8Array }
  /** The answer to a `load` of what is not on disk. */
  | { readonly type: 'absent'; readonly digest: Digest }
  /**
   * A content is needed: it is looked for until it comes, is `held` or not needed any more (`unwant`). `from` is said to have it, as the writer
   * of the register that names it, and is asked first.
   */
  | { readonly type: 'want'; readonly digest: Digest; readonly from?: ReplicaId }
  | { readonly type: 'unwant'; readonly digest: Digest }
  /** Finds out which live members hold this node's own registers of a class up to a version: `visible`, `heldBy`. */
  | { readonly type: 'follow'; readonly of: ClassName; readonly version: number }
  /** Sealed epochs are lacking from this one on; `hint` seems to have them. Asks a few members, and stops: to be said again. */
  | { readonly type: 'behind'; readonly from: Epoch; readonly hint?: ReplicaId }
  /** The answer to a `readSealed`: sealed epochs in order, without a gap; what does not fit into a frame is left out. */
  | { readonly type: 'sealedRead'; readonly to: ReplicaId; readonly epochs: readonly ShownEpoch[] }
  /** A member's replica is heard from under two runs. */
  | { readonly type: 'runs'; readonly member: ReplicaId; readonly newest: Run; readonly older: Run };

/** Registers that are new here: fold them at once, write them to disk with the writer's vector entry when there is time. */
export type JoinedEffect =
  | {
      readonly type: 'joined';
      readonly class: 'control';
      readonly writer: ReplicaId;
      readonly changes: readonly Change<ControlRegister>[];
    }
  | {
      readonly type: 'joined';
      readonly class: 'usage';
      readonly writer: WriterId;
      readonly changes: readonly Change<UsageRow>[];
    };

export type ReplicationEffect =
  /** On the reliable, ordered link to that member, if there is one; at most 64 KiB. */
  | { readonly type: 'send'; readonly to: ReplicaId; readonly bytes: Uint8Array }
  | { readonly type: 'timer'; readonly afterMs: number; readonly input: ReplicationTimer }
  | JoinedEffect
  /** A wanted content, checked against its digest. */
  | { readonly type: 'content'; readonly digest: Digest; readonly bytes: Uint8Array }
  /** Someone asks for a content: answer with `held` or `absent`. */
  | { readonly type: 'load'; readonly digest: Digest }
  /** A frame that no correct node sends. It changed nothing. */
  | { readonly type: 'misbehaviour'; readonly from: ReplicaId; readonly code: ErrorCode }
  /** Two registers of one writer under one version: two processes write as one replica. The one held is kept. */
  | { readonly type: 'conflict'; readonly class: ClassName; readonly writer: string; readonly version: number }
  /** Another node holds a control register of this replica, well signed, that this node did not write: its disk went back. */
  | { readonly type: 'overtaken'; readonly version: number }
  /** A member is newly known to hold this node's own registers of a class up to a version. */
  | { readonly type: 'visible'; readonly replica: ReplicaId; readonly upTo: number; readonly of: ClassName }
  /** Someone asks for sealed epochs: answer with `sealedRead`. */
  | { readonly type: 'readSealed'; readonly from: Epoch; readonly to: ReplicaId }
  /** Sealed epochs of a member, one after the other, as they were asked for. Nothing of them is checked. */
  | { readonly type: 'epochs'; readonly from: ReplicaId; readonly epochs: readonly ShownEpoch[] }
  /** Another process writes as this replica, under that run. Said once for a run. */
  | { readonly type: 'duplicate'; readonly run: Run }
  /** A member speaks a major version of which nothing is understood. */
  | { readonly type: 'foreignVersion'; readonly from: ReplicaId; readonly major: number };

/** Rules by which every node drops the same registers and writers, without tombstones. */
export interface DropRules<R, W> {
  /**
   * Whether a register needs not be held any more: a row of which a verified seal counts at least every figure, a close, ballot or
   * seal long past. Once true of a register, true for ever.
   */
  readonly isDropped: (writer: W, register: R) => boolean;
  /** Whether a writer leaves the vectors: a run that has a successor and whose rows are all counted. */
  readonly isForgotten: (writer: W) => boolean;
}

export interface ReplicationOptions {
  readonly cluster: ClusterId;
  readonly replica: ReplicaId;
  readonly run: Run;
  readonly crypto: Crypto;
  readonly random: Random;
  /** The lattice, as restored from disk. Own writes are applied to it by its owner, everything else is joined here. */
  readonly control: Registers<ControlRegister, ReplicaId>;
  readonly usage: Registers<UsageRow, WriterId>;
  /** The public key of an admitted replica, 32 bytes; undefined for others: nothing of theirs is taken. */
  readonly keyOf: (replica: ReplicaId) => Uint8Array | undefined;
  /** The cluster that the signatures of a replica's control registers are bound to; this one if not given. */
  readonly boundTo?: (replica: ReplicaId) => ClusterId;
  /**
   * Whether this replica's own control registers are shown to nobody until `show`: after a start with an older disk than the
   * others have seen, the versions could be given to other values. What others hold is compared all the same, with what was
   * held at the start: `lag`, `overtaken`.
   */
  readonly isHidden?: boolean;
  readonly controlRules?: DropRules<ControlRegister, ReplicaId>;
  readonly usageRules?: DropRules<UsageRow, WriterId>;
}

/** How long ago this node held all that a member had to show, in ms by class; null if never since the start. */
export type Lag = PerClass<number | null>;
