import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Digest, ReplicaId } from '../../src/base/index.ts';
import {
  accept,
  BALLOT_STATE_NEW,
  BALLOT_ZERO,
  ballotStateJson,
  chosen,
  compareBallots,
  parseBallotState,
  promise,
  type Ballot,
  type BallotState,
} from '../../src/sealing/index.ts';
import { valueOr } from '../transparency/support.ts';

const replica = (i: number): ReplicaId => String(i).repeat(32) as ReplicaId;
const digest = (letter: string): Digest => letter.repeat(64) as Digest;
const FRONTIER = digest('f');
const ballots: Ballot[] = [
  BALLOT_ZERO,
  ...[1, 2].flatMap((round) => [1, 2, 3].map((i) => ({ round, replica: replica(i) }))),
];

const ballot = fc.constantFrom(...ballots);
const value = fc.constantFrom(digest('a'), digest('b'), digest('c'));
const state: fc.Arbitrary<BallotState> = fc.record({
  promised: ballot,
  accepted: fc.option(fc.record({ ballot, value })),
  frontier: fc.option(fc.constant(FRONTIER)),
});

describe('a ballot register', () => {
  it('accepts at what was promised and above, and promises only above', () => {
    fc.assert(
      fc.property(state, ballot, value, (before, b, v) => {
        const order = compareBallots(b, before.promised);
        const accepted = accept(before, b, v);
        if (order < 0) expect(accepted).toBeNull();
        else expect(accepted).toEqual({ ...before, promised: b, accepted: { ballot: b, value: v } });
        const promised = promise(before, b, FRONTIER);
        if (order <= 0) expect(promised).toBeNull();
        else expect(promised).toEqual({ ...before, promised: b, frontier: FRONTIER });
      }),
    );
  });

  it('orders ballots by round, then by replica', () => {
    expect([...ballots].reverse().sort(compareBallots)).toEqual(ballots);
  });

  it('comes back as it went', () => {
    fc.assert(
      fc.property(state, (register) => {
        expect(parseBallotState(ballotStateJson(register))).toEqual(register);
      }),
    );
  });

  it('is a register or an error, whatever the JSON', () => {
    const { promised } = BALLOT_STATE_NEW;
    const good = { promised: { ...promised }, accepted: null, frontier: null };
    expect(parseBallotState(good)).toEqual(BALLOT_STATE_NEW);
    for (const bad of [
      null,
      [],
      {},
      { ...good, more: 1 },
      { promised: good.promised, accepted: null },
      { ...good, promised: { round: 1, replica: '' } },
      { ...good, promised: { round: 0, replica: replica(1) } },
      { ...good, promised: { round: -1, replica: replica(1) } },
      { ...good, accepted: { ballot: good.promised, value: 'x' } },
      { ...good, frontier: 'x' },
      { promised: good.promised, 'accepted,frontier': null },
    ])
      expect(() => parseBallotState(bad), JSON.stringify(bad)).toThrow(
        expect.objectContaining({ code: 'DECODE_FAILED' }),
      );
    fc.assert(
      fc.property(fc.jsonValue(), (json) => void valueOr(['DECODE_FAILED'], () => parseBallotState(json as never))),
    );
  });

  it('is chosen by a majority at one and the same ballot only', () => {
    const at = (b: Ballot, v: Digest): BallotState => ({
      ...BALLOT_STATE_NEW,
      promised: b,
      accepted: { ballot: b, value: v },
    });
    const [zero, one, two] = [ballots[0]!, ballots[1]!, ballots[2]!];
    expect(chosen([], 2)).toBeNull();
    expect(chosen([at(zero, digest('a')), BALLOT_STATE_NEW], 2)).toBeNull();
    expect(chosen([at(one, digest('a')), at(two, digest('a'))], 2)).toBeNull();
    expect(chosen([at(one, digest('a')), at(one, digest('b'))], 2)).toBeNull();
    expect(chosen([at(one, digest('b')), at(two, digest('a')), at(one, digest('b'))], 2)).toEqual({
      ballot: one,
      value: digest('b'),
    });
    expect(chosen([at(zero, digest('a'))], 1)).toEqual({ ballot: zero, value: digest('a') });
  });
});
