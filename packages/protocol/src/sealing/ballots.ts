import {
  compareText,
  parseReplicaId,
  parseWhole,
  WaggleError,
  type Digest,
  parseDigest,
  type Json,
  type ReplicaId,
} from '../base/index.ts';
import { parseFields } from './roster.ts';

/**
 * One decision of the roster per epoch: single-decree Paxos (Lamport, "Paxos Made Simple", 2001) over registers instead of
 * messages. Every member overwrites one register with its `BallotState`; preparing is writing `promised`, proposing is
 * writing `accepted`, both in one's own register; anyone may relay them. Ballot 0 has no proposer: its value is the only one
 * that all closes determine.
 */
export interface Ballot {
  /** 0 for the ballot without a proposer, then 1, 2 … */
  readonly round: number;
  /** Who proposes; empty in round 0. */
  readonly replica: ReplicaId | '';
}

/** The ballot without a proposer, below all others. */
export const BALLOT_ZERO: Ballot = { round: 0, replica: '' };

/** Order of ballots: by round, then by replica. Two replicas never share one. */
export const compareBallots = (a: Ballot, b: Ballot): number => a.round - b.round || compareText(a.replica, b.replica);

/** What a member has accepted: a value, by the digest of its header, at a ballot. */
export interface Accepted {
  readonly ballot: Ballot;
  readonly value: Digest;
}

/** A member's register for one epoch. Durable before it is shown. */
export interface BallotState {
  readonly promised: Ballot;
  readonly accepted: Accepted | null;
  /** Digest of the frontier that a promise above 0 carries: what this member holds of every slot not wholly counted. */
  readonly frontier: Digest | null;
}

/** Before anything: nothing promised above ballot 0, nothing accepted. */
export const BALLOT_STATE_NEW: BallotState = { promised: BALLOT_ZERO, accepted: null, frontier: null };

/** The state after accepting, or null if something higher was promised. A member accepts `b` if b ≥ promised, and then promised = b. */
export function accept(state: BallotState, ballot: Ballot, value: Digest): BallotState | null {
  if (compareBallots(ballot, state.promised) < 0) return null;
  return { ...state, promised: ballot, accepted: { ballot, value } };
}

/** The state after promising, or null if as much or more was promised. A promise carries the frontier, and keeps what was accepted. */
export function promise(state: BallotState, ballot: Ballot, frontier: Digest): BallotState | null {
  if (compareBallots(ballot, state.promised) <= 0) return null;
  return { ...state, promised: ballot, frontier };
}

/**
 * What was chosen: accepted by `quorum` members at one and the same ballot; null if nothing was yet. Counting accepts across
 * ballots is unsafe.
 */
export function chosen(states: Iterable<BallotState>, quorum: number): Accepted | null {
  const votes = new Map<string, { accepted: Accepted; count: number }>();
  for (const { accepted } of states) {
    if (accepted === null) continue;
    const name = `${accepted.ballot.round} ${accepted.ballot.replica} ${accepted.value}`;
    const vote = votes.get(name) ?? { accepted, count: 0 };
    vote.count++;
    votes.set(name, vote);
    if (vote.count >= quorum) return vote.accepted;
  }
  return null;
}

const ballotJson = ({ round, replica }: Ballot): Json => ({ round, replica });

/** The JSON of a ballot register. */
export const ballotStateJson = ({ promised, accepted, frontier }: BallotState): Json => ({
  promised: ballotJson(promised),
  accepted: accepted === null ? null : { ballot: ballotJson(accepted.ballot), value: accepted.value },
  frontier,
});

function parseBallot(value: Json | undefined): Ballot {
  const { round, replica } = parseFields(value, ['round', 'replica'], 'a ballot');
  const ballot = {
    round: parseWhole(round, 'a round'),
    replica: replica === '' ? ('' as const) : parseReplicaId(replica),
  };
  if ((ballot.round === 0) !== (ballot.replica === ''))
    throw new WaggleError('DECODE_FAILED', 'Expected a proposer in every round but 0, and none there');
  return ballot;
}

/** Throws `DECODE_FAILED` unless the value is a ballot register's. */
export function parseBallotState(value: Json): BallotState {
  const { promised, accepted, frontier } = parseFields(
    value,
    ['promised', 'accepted', 'frontier'],
    'a ballot register',
  );
  const parseAccepted = (json: Json): Accepted => {
    const fields = parseFields(json, ['ballot', 'value'], 'an accepted value');
    return { ballot: parseBallot(fields['ballot']), value: parseDigest(fields['value']) };
  };
  return {
    promised: parseBallot(promised),
    accepted: accepted === null || accepted === undefined ? null : parseAccepted(accepted),
    frontier: frontier === null ? null : parseDigest(frontier),
  };
}
