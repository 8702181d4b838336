import type { Digest, ReplicaId } from '../base/index.ts';
import { accept, chosen, compareBallots, promise, type Accepted, type Ballot, type BallotState } from './ballots.ts';
import type { Report } from './value.ts';

/**
 * The decisions that safety hangs on, each a pure function, so that a test can put in one that is known to be wrong and see that
 * it is found. Nothing but tests passes any.
 */
export interface SealingRules {
  readonly accept: typeof accept;
  readonly promise: typeof promise;
  /** The value that a member may take for decided, from what the roster's members have written and from what it knows itself. */
  decided(votes: readonly BallotState[], quorum: number, own: OwnView): Digest | null;
  /** The ballot that a member starts after the highest it has seen. */
  nextBallot(highest: Ballot, self: ReplicaId): Ballot;
  /** Whether a ballot is for a member to propose at. */
  isMine(ballot: Ballot, self: ReplicaId): boolean;
  /** Whether a register is a promise for a ballot. */
  isPromise(state: BallotState, ballot: Ballot): boolean;
  /** What a proposer is bound to by promises: the accepted value of the highest ballot; null if it is free. */
  bound(promises: readonly BallotState[]): Accepted | null;
  /** Whether a member may vote in an epoch. */
  mayVote(hasClosed: boolean): boolean;
  /** Whether a frontier names a close, and not only what is held of the slot. */
  namesClose(holdsContent: boolean): boolean;
  /** What is joined with a slot's rows here: what the seals have counted of it, and contents of it that were fetched. */
  partsOf(counted: readonly Digest[], fetched: readonly Digest[]): readonly Digest[];
  /** What a value is recovered from beside closes: what the frontiers say of slots, never what the closes report. */
  recoveredFrom(frontiers: readonly Report[], reported: () => readonly Report[]): readonly Report[];
  /** Whether a member goes on promising and accepting in epochs that it knows sealed. */
  servesSealed(): boolean;
}

/** What a member knows by itself when it asks whether a value is decided. */
export interface OwnView {
  readonly accepted: Digest | null;
  /** The value that all closes of the roster determine, if it holds them. */
  readonly determined: () => Digest | null;
}

/** The rules of PROTOCOL section 5. */
export const RULES: SealingRules = {
  accept,
  promise,
  decided: (votes, quorum) => chosen(votes, quorum)?.value ?? null,
  nextBallot: ({ round }, self) => ({ round: round + 1, replica: self }),
  isMine: ({ replica }, self) => replica === self,
  isPromise: ({ promised }, ballot) => compareBallots(promised, ballot) === 0,
  bound: (promises) =>
    promises
      .flatMap(({ accepted }) => accepted ?? [])
      .reduce<Accepted | null>(
        (best, each) => (best === null || compareBallots(each.ballot, best.ballot) > 0 ? each : best),
        null,
      ),
  mayVote: (hasClosed) => hasClosed,
  namesClose: (holdsContent) => holdsContent,
  partsOf: (counted, fetched) => [...counted, ...fetched],
  recoveredFrom: (frontiers) => frontiers,
  servesSealed: () => true,
};
