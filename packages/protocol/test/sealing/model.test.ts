import { describe, expect, it } from 'vitest';
import type { Digest, ReplicaId } from '../../src/base/index.ts';
import {
  BALLOT_STATE_NEW,
  chosen,
  compareBallots,
  nextVote,
  RULES,
  type BallotState,
  type SealingRules,
} from '../../src/sealing/index.ts';

/**
 * The highest round in which each member starts a ballot. `1,1,0` are ballots 0, (1, a) and (1, b): two proposers are enough to
 * conflict. `MODEL_ROUNDS` sets more.
 */
const ROUNDS = (process.env['MODEL_ROUNDS'] ?? '1,1,0').split(',').map(Number);
const MEMBERS = ['a', 'b', 'c'].map((letter) => letter.repeat(32) as ReplicaId);
const QUORUM = 2;
const FRONTIER = 'f'.repeat(64) as Digest;
const DETERMINED = '0'.repeat(64) as Digest;

/**
 * One epoch's agreement: each member's register, what each member has last seen of the others', and all values that anyone has ever
 * taken for decided. Registers are overwritten; to read one late, or never, is to see an old one, or none.
 */
interface World {
  /** `seen[i][j]`: member j's register as i knows it, by number; `seen[i][i]` is i's own, on disk. */
  readonly seen: readonly (readonly number[])[];
  readonly decided: readonly Digest[];
}

class Model {
  readonly #rules: SealingRules;
  readonly #forgets: boolean;
  readonly #rounds: readonly number[];
  readonly #states: BallotState[] = [BALLOT_STATE_NEW];
  readonly #numbers = new Map<string, number>([[JSON.stringify(BALLOT_STATE_NEW), 0]]);
  readonly #votes = new Map<string, number | null>();

  constructor(broken: Partial<SealingRules> = {}, forgets = false, rounds = ROUNDS) {
    this.#rules = { ...RULES, ...broken };
    this.#forgets = forgets;
    this.#rounds = rounds;
  }

  #number(state: BallotState): number {
    const text = JSON.stringify(state);
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.#states.push(state) - 1;
      this.#numbers.set(text, number);
    }
    return number;
  }

  /** What a member writes next, knowing this; null for nothing. The worst case: each ballot that is free proposes another value. */
  #vote(member: number, seen: readonly number[], isDue: boolean, hasCloses: boolean): number | null {
    const name = `${member} ${seen.join()} ${isDue} ${hasCloses}`;
    const known = this.#votes.get(name);
    if (known !== undefined) return known;
    const own = this.#states[seen[member]!]!;
    const next = nextVote(
      {
        self: MEMBERS[member]!,
        own,
        votes: new Map(seen.map((number, i) => [MEMBERS[i]!, this.#states[number]!])),
        isVoter: () => true,
        quorum: QUORUM,
        isDue,
        holds: () => true,
        determined: () => (hasCloses ? DETERMINED : null),
        frontier: () => FRONTIER,
        holdsFrontier: () => true,
        recovered: () => `${own.promised.round}${MEMBERS[member]![0]}`.repeat(32) as Digest,
      },
      this.#rules,
    );
    const number = next === null ? null : this.#number(next);
    this.#votes.set(name, number);
    return number;
  }

  #isNewer(a: number, b: number): boolean {
    const [x, y] = [this.#states[a]!, this.#states[b]!];
    const order = compareBallots(x.promised, y.promised);
    return order > 0 || (order === 0 && x.accepted !== null && x.accepted.value !== y.accepted?.value);
  }

  #with(world: World, member: number, of: number, number: number): World {
    const row = world.seen[member]!.map((old, i) => (i === of ? number : old));
    const seen = world.seen.map((old, i) => (i === member ? row : old));
    const states = row.map((each) => this.#states[each]!);
    const own = { accepted: states[member]!.accepted?.value ?? null, determined: () => DETERMINED };
    const decided = this.#rules.decided(states, QUORUM, own);
    return decided === null || world.decided.includes(decided)
      ? { seen, decided: world.decided }
      : { seen, decided: [...world.decided, decided].sort() };
  }

  #nexts(world: World): World[] {
    const found: World[] = [];
    world.seen.forEach((row, member) => {
      const round = Math.max(...row.map((number) => this.#states[number]!.promised.round));
      for (const isDue of round < this.#rounds[member]! ? [false, true] : [false])
        for (const hasCloses of [false, true]) {
          const next = this.#vote(member, row, isDue, hasCloses);
          if (next !== null) found.push(this.#with(world, member, member, next));
        }
      // Whoever holds a newer register of someone shows it: its writer, or a third.
      world.seen.forEach((others, from) =>
        others.forEach((number, of) => {
          if (from !== member && of !== member && this.#isNewer(number, row[of]!))
            found.push(this.#with(world, member, of, number));
        }),
      );
      if (this.#forgets && row[member] !== 0) found.push(this.#with(world, member, member, 0));
    });
    return found;
  }

  /** Goes through all worlds, or until two values are decided in one. */
  explore(): { readonly worlds: number; readonly isSafe: boolean } {
    const start: World = { seen: MEMBERS.map(() => MEMBERS.map(() => 0)), decided: [] };
    const known = new Set<string>();
    const open = [start];
    for (let world = open.pop(); world !== undefined; world = open.pop()) {
      const name = `${world.seen.join(';')} ${world.decided.join()}`;
      if (known.has(name)) continue;
      known.add(name);
      if (world.decided.length > 1) return { worlds: known.size, isSafe: false };
      open.push(...this.#nexts(world));
    }
    return { worlds: known.size, isSafe: true };
  }
}

describe('agreement (invariant 1)', () => {
  it('holds in every world of three members and three ballots, with registers lost, late and relayed', () => {
    const { worlds, isSafe } = new Model().explore();
    expect(isSafe).toBe(true);
    expect(worlds).toBeGreaterThan(10_000);
  }, 7_200_000);

  const wrong: Record<string, Partial<SealingRules>> = {
    'sealing without a vote when all closes are held': {
      decided: (votes, quorum, own) => chosen(votes, quorum)?.value ?? own.determined(),
    },
    'cosigning on acceptance': { decided: (_, __, own) => own.accepted },
    'counting accepts across ballots': {
      decided: (votes, quorum) => {
        const accepted = votes.flatMap((state) => state.accepted ?? []);
        return accepted.length >= quorum ? accepted[0]!.value : null;
      },
    },
    'counting promises below the ballot': {
      isPromise: ({ promised }, ballot) => compareBallots(promised, ballot) <= 0,
    },
    'proposing freely whatever was accepted': { bound: () => null },
    'accepting below what was promised': {
      accept: (state, ballot, value) => ({ ...state, promised: ballot, accepted: { ballot, value } }),
    },
    'a promise that forgets what was accepted': {
      promise: (state, ballot, frontier) =>
        RULES.promise(state, ballot, frontier) === null ? null : { promised: ballot, accepted: null, frontier },
    },
  };
  for (const [name, broken] of Object.entries(wrong))
    it(`is lost by ${name}`, () => {
      expect(new Model(broken).explore().isSafe).toBe(false);
    });

  it('is lost by two proposers sharing a ballot', () => {
    const shared: Partial<SealingRules> = {
      nextBallot: ({ round }) => ({ round: round + 1, replica: MEMBERS[0]! }),
      isMine: ({ round }) => round > 0,
    };
    expect(new Model(shared, false, [1, 2, 0]).explore().isSafe).toBe(false);
  });

  it('is lost by an acceptor that loses its disk and keeps its name', () => {
    expect(new Model({}, true).explore().isSafe).toBe(false);
  });
});
