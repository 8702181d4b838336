import type { ClusterId, Random, ReplicaId, Run } from '../base/index.ts';
import type { Member, MemberId, MemberKey, MemberState } from './member.ts';
import type { PeerState } from './table.ts';

/** A timer, handed back when it is due. What it carries makes a stale one known; `dueMs` makes a late one known. */
export type TimerInput =
  | { readonly type: 'periodEnded'; readonly period: number; readonly dueMs: number }
  | { readonly type: 'probeTimedOut'; readonly period: number; readonly dueMs: number }
  | { readonly type: 'gossip'; readonly dueMs: number }
  | { readonly type: 'relayTimedOut'; readonly number: number; readonly dueMs: number }
  | {
      readonly type: 'suspicionExpired';
      readonly member: MemberId;
      readonly incarnation: number;
      readonly dueMs: number;
    };

export type Input =
  /**
   * All members that the node directory has (admitted and not banned), each time that changes, and before `join`. Whoever is
   * not among them is ignored; at most 10 000 are taken, the first ones.
   */
  | { readonly type: 'known'; readonly members: readonly Member[] }
  /** Starts probing, and pings the seeds (at most 8, known ones): none for the first node of a cluster. */
  | { readonly type: 'join'; readonly seeds: readonly Member[] }
  /** From the member whose key the transport has verified. */
  | { readonly type: 'datagram'; readonly from: MemberKey; readonly bytes: Uint8Array }
  /** One of the frames that the other side's `exchangeFrames` gave. */
  | { readonly type: 'exchange'; readonly from: MemberKey; readonly bytes: Uint8Array }
  /** How far the event loop is behind, in ms, sampled about once a second. */
  | { readonly type: 'loopLag'; readonly lagMs: number }
  /** This node goes, in order: it says so, and from then on neither hears nor speaks. */
  | { readonly type: 'leave' }
  | TimerInput;

/** A member of the node directory got into another state for this node. */
export interface MemberChange {
  readonly member: Member;
  readonly from: PeerState;
  /** `unheard`: forgotten, 24 h after it died or left, or no longer in the node directory. */
  readonly to: PeerState;
  readonly incarnation: number;
}

export type Effect =
  /** An unreliable datagram of at most 1 200 bytes to the process that holds the key; nothing if there is no connection. */
  | { readonly type: 'send'; readonly to: MemberKey; readonly bytes: Uint8Array<ArrayBuffer> }
  /**
   * Hands `input` back after so many whole ms. After the datagrams that have come by then (with Node: from a `setImmediate`
   * in the timer), so that a process that was stopped reads its answers before it judges.
   */
  | { readonly type: 'timer'; readonly afterMs: number; readonly input: TimerInput }
  /** For those who choose whom to talk to, for metrics and for people. */
  | { readonly type: 'notify'; readonly change: MemberChange }
  /** Two processes speak for that member: to be told to it, again and again while it is so. */
  | { readonly type: 'twoRuns'; readonly member: Member; readonly newest: Run; readonly older: Run };

/** A member as `GET /v1/cluster` shows it. */
export interface MemberView {
  readonly member: MemberKey;
  readonly replica: ReplicaId;
  readonly state: MemberState;
  readonly incarnation: number;
  /** When it got into this state, by the monotonic clock of this node. */
  readonly sinceMs: number;
}

/** What was ignored or held back so far. */
export interface MembershipCounts {
  /** Frames that do not decode. */
  readonly malformed: number;
  /** Frames of another cluster or protocol version. */
  readonly foreign: number;
  /** Frames from, and updates about, somebody who is not in the node directory. */
  readonly unknown: number;
  /** Datagrams that came before, or too late to tell. */
  readonly replayed: number;
  /** Indirect probes not carried out, because too many were under way. */
  readonly relaysRefused: number;
  /** Suspicions not originated, because this node had originated too many. */
  readonly accusationsWithheld: number;
  /** Probes and suspicions not judged, because this process itself had stood still. */
  readonly judgementsVoided: number;
}

export interface MembershipOptions {
  readonly cluster: ClusterId;
  readonly self: Member;
  /** Of this process start: above every earlier one of this replica. */
  readonly run: Run;
  readonly random: Random;
}
