import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom, type Digest, type ReplicaId } from '../../src/base/index.ts';
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

/** The rules under test; a test of the checker breaks one of them. */
interface Rules {
  readonly accept: typeof accept;
  readonly promise: typeof promise;
  readonly chosen: typeof chosen;
  /** What a proposer proposes after these promises at its ballot. */
  readonly propose: (promises: readonly BallotState[], free: Digest) => Digest;
}

const RULES: Rules = {
  accept,
  promise,
  chosen,
  propose: (promises, free) =>
    promises.flatMap(({ accepted }) => accepted ?? []).sort((a, b) => compareBallots(b.ballot, a.ballot))[0]?.value ??
    free,
};

/**
 * One epoch's decision. Each member's register is its whole history: whoever reads it sees any of its states, as registers are
 * lost, late or out of order.
 */
interface World {
  readonly histories: readonly (readonly BallotState[])[];
  /** By ballot, what was proposed at it. */
  readonly proposals: readonly (Digest | null)[];
}

const subsets = <T>(items: readonly T[], size: number): T[][] =>
  size === 0 ? [[]] : items.flatMap((item, i) => subsets(items.slice(i + 1), size - 1).map((rest) => [item, ...rest]));

const product = <T>(lists: readonly (readonly T[])[]): T[][] =>
  lists.reduce<T[][]>((all, list) => all.flatMap((head) => list.map((item) => [...head, item])), [[]]);

/** All that can happen next. `values[i]` is what the proposer of `contest[i]` would freely propose; at 0 it is the one that all closes determine. */
function nexts(world: World, contest: readonly Ballot[], values: readonly Digest[], rules: Rules): World[] {
  const found: World[] = [];
  const quorum = Math.floor(world.histories.length / 2) + 1;
  const write = (member: number, next: BallotState | null, proposals = world.proposals): void => {
    const history = world.histories[member]!;
    if (next === null || history.some((old) => JSON.stringify(old) === JSON.stringify(next))) return;
    found.push({ histories: world.histories.map((old, i) => (i === member ? [...old, next] : old)), proposals });
  };
  contest.forEach((b, i) => {
    world.histories.forEach((history, member) => {
      const own = history.at(-1)!;
      if (i > 0) write(member, rules.promise(own, b, FRONTIER));
      const proposal = i === 0 ? values[0]! : world.proposals[i]!;
      // At 0 a member accepts once, and only if it has promised nothing higher.
      if (proposal !== null && (i > 0 || own.accepted === null)) write(member, rules.accept(own, b, proposal));
    });
    if (i === 0 || world.proposals[i] !== null) return;
    const promised = world.histories.map((history) => history.filter(({ promised: p }) => compareBallots(p, b) === 0));
    for (const members of subsets([...promised.keys()], quorum))
      for (const promises of product(members.map((member) => promised[member]!))) {
        const proposals = world.proposals.map((old, j) => (j === i ? rules.propose(promises, values[i]!) : old));
        found.push({ ...world, proposals });
      }
  });
  return found;
}

/** Every value that some reader could take for chosen, whichever states it sees. */
function choices(world: World, rules: Rules): Set<Digest> {
  const quorum = Math.floor(world.histories.length / 2) + 1;
  const values = product(world.histories).flatMap((states) => rules.chosen(states, quorum)?.value ?? []);
  return new Set(values);
}

/** Goes through all worlds; gives how many there are, and how many values the worst of them chose. */
function explore(contest: readonly Ballot[], rules: Rules): { worlds: number; worst: number } {
  const values = contest.map((_, i) => digest('abc'[i]!));
  const start: World = { histories: [1, 2, 3].map(() => [BALLOT_STATE_NEW]), proposals: contest.map(() => null) };
  const seen = new Set<string>();
  const open = [start];
  let worst = 0;
  for (let world = open.pop(); world !== undefined; world = open.pop()) {
    // Members 1 and 2 and 3 are alike but for who proposes, which the ballots say: their order does not matter.
    const name = JSON.stringify([world.histories.map((history) => JSON.stringify(history)).sort(), world.proposals]);
    if (seen.has(name)) continue;
    seen.add(name);
    worst = Math.max(worst, choices(world, rules).size);
    open.push(...nexts(world, contest, values, rules));
  }
  return { worlds: seen.size, worst };
}

const contest = [BALLOT_ZERO, { round: 1, replica: replica(1) }, { round: 1, replica: replica(2) }];

describe('agreement (invariant 1)', () => {
  it('holds in every world of three members, ballot 0 and two proposers', () => {
    const { worlds, worst } = explore(contest, RULES);
    expect(worlds).toBeGreaterThan(2_000);
    expect(worst).toBe(1);
  });

  it('is lost without each of the rules: the checker sees it', () => {
    const unsafe: Record<string, Partial<Rules>> = {
      'accepts across ballots are counted': {
        chosen: (states, quorum) => {
          const accepted = [...states].flatMap((s) => s.accepted ?? []);
          return accepted.length >= quorum ? (accepted[0] ?? null) : null;
        },
      },
      'a promise is not kept': {
        accept: (s, b, v) => ({ ...s, promised: b, accepted: { ballot: b, value: v } }),
      },
      'a proposer does not ask what was accepted': { propose: (_, free) => free },
      'a promise forgets what was accepted': {
        promise: (s, b, frontier) =>
          promise(s, b, frontier) === null ? null : { promised: b, accepted: null, frontier },
      },
      'less than a majority chooses': { chosen: (states) => chosen(states, 1) },
    };
    for (const [name, broken] of Object.entries(unsafe))
      expect(explore(contest.slice(0, 2), { ...RULES, ...broken }).worst, name).toBeGreaterThan(1);
  });

  it('holds in random walks of three and five members through several ballots', () => {
    for (let seed = 0; seed < 400; seed++) {
      const random = seededRandom(seed);
      const members = seed % 2 === 0 ? 3 : 5;
      const walk = [...contest, { round: 2, replica: replica(1) }, { round: 3, replica: replica(3) }];
      const values = walk.map((_, i) => digest('abcde'[i]!));
      let world: World = {
        histories: Array.from({ length: members }, () => [BALLOT_STATE_NEW]),
        proposals: walk.map(() => null),
      };
      for (let steps = 0; steps < 60; steps++) {
        const all = nexts(world, walk, values, RULES);
        if (all.length === 0) break;
        world = all[random.below(all.length)]!;
      }
      const accepts = world.histories.map(
        (history) =>
          new Map(
            history.flatMap(({ accepted }) =>
              accepted === null ? [] : [[JSON.stringify(accepted), accepted.value] as const],
            ),
          ),
      );
      const quorum = Math.floor(members / 2) + 1;
      const names = new Set(accepts.flatMap((map) => [...map.keys()]));
      const won = [...names].filter((name) => accepts.filter((map) => map.has(name)).length >= quorum);
      expect(
        new Set(won.map((name) => (JSON.parse(name) as { value: Digest }).value)).size,
        `seed ${seed}`,
      ).toBeLessThan(2);
    }
  });
});
