import type { Digest, ReplicaId } from '../base/index.ts';
import { BALLOT_ZERO, compareBallots, type Ballot, type BallotState } from './ballots.ts';
import type { SealingRules } from './rules.ts';

/** What a member looks at when it votes on an epoch: registers, and questions about what it holds. */
export interface VoteView {
  readonly self: ReplicaId;
  readonly own: BallotState;
  /** The registers of the roster's members as far as they are held, the own one among them. */
  readonly votes: ReadonlyMap<ReplicaId, BallotState>;
  readonly isVoter: (replica: ReplicaId) => boolean;
  readonly quorum: number;
  /** Whether it is time to start a ballot. */
  readonly isDue: boolean;
  /** Whether a value and all contents that it names are held. */
  readonly holds: (value: Digest) => boolean;
  /** The value that the closes of the whole roster determine; null while one, or a content, is missing. */
  readonly determined: () => Digest | null;
  /** The frontier to promise with; null while it cannot be told. */
  readonly frontier: () => Digest | null;
  /** Whether all contents that a promise's frontier names are held. */
  readonly holdsFrontier: (frontier: Digest) => boolean;
  /** The value that the frontiers of these promises determine; null while a content is missing. */
  readonly recovered: (promises: readonly BallotState[]) => Digest | null;
}

/**
 * What a member writes next into its ballot register; null for nothing. One step at a time: the next is for when this one is on disk.
 *
 * 1. A proposal at what was promised or above is accepted, once all that it names is held.
 * 2. The highest ballot that anyone prepares is promised.
 * 3. At ballot 0, with nothing higher promised, the value that all closes determine is accepted.
 * 4. With a majority of promises at exactly its own ballot, it proposes: what they bind it to, else what they determine.
 * 5. When it is time, it starts a ballot above all that it has seen.
 */
export function nextVote(view: VoteView, rules: SealingRules): BallotState | null {
  return (
    accepting(view, rules) ??
    promising(view, rules) ??
    acceptingClosed(view, rules) ??
    proposing(view, rules) ??
    starting(view, rules)
  );
}

const isAbove = (a: Ballot, b: Ballot | undefined): boolean => b === undefined || compareBallots(a, b) > 0;

function accepting({ own, votes, isVoter, holds }: VoteView, rules: SealingRules): BallotState | null {
  const proposal = [...votes.values()]
    .flatMap(({ accepted }) => accepted ?? [])
    .filter(({ ballot }) => ballot.replica !== '' && isVoter(ballot.replica) && isAbove(ballot, own.accepted?.ballot))
    .reduce<BallotState['accepted']>(
      (best, each) => (best === null || isAbove(each.ballot, best.ballot) ? each : best),
      null,
    );
  if (proposal === null) return null;
  const next = rules.accept(own, proposal.ballot, proposal.value);
  return next !== null && holds(proposal.value) ? next : null;
}

/** The highest ballot of a voter that anyone has promised. */
export function highestBallot({ votes, isVoter }: Pick<VoteView, 'votes' | 'isVoter'>): Ballot {
  return [...votes.values()]
    .map(({ promised }) => promised)
    .filter(({ replica }) => replica !== '' && isVoter(replica))
    .reduce((best, each) => (isAbove(each, best) ? each : best), BALLOT_ZERO);
}

function promising(view: VoteView, rules: SealingRules): BallotState | null {
  const highest = highestBallot(view);
  if (!isAbove(highest, view.own.promised)) return null;
  const frontier = view.frontier();
  return frontier === null ? null : rules.promise(view.own, highest, frontier);
}

function acceptingClosed({ own, determined }: VoteView, rules: SealingRules): BallotState | null {
  if (own.accepted !== null || own.promised.round > 0) return null;
  const value = determined();
  return value === null ? null : rules.accept(own, BALLOT_ZERO, value);
}

function proposing(view: VoteView, rules: SealingRules): BallotState | null {
  const { own, self, votes, quorum } = view;
  if (!rules.isMine(own.promised, self) || !isAbove(own.promised, own.accepted?.ballot)) return null;
  const promises = [...votes.values()].filter(
    (state) =>
      rules.isPromise(state, own.promised) &&
      state.frontier !== null &&
      view.holdsFrontier(state.frontier) &&
      (state.accepted === null || view.holds(state.accepted.value)),
  );
  if (promises.length < quorum) return null;
  const value = rules.bound(promises)?.value ?? view.recovered(promises);
  return value === null ? null : rules.accept(own, own.promised, value);
}

function starting(view: VoteView, rules: SealingRules): BallotState | null {
  if (!view.isDue) return null;
  const frontier = view.frontier();
  return frontier === null ? null : rules.promise(view.own, rules.nextBallot(highestBallot(view), view.self), frontier);
}
