import { describe, expect, it } from 'vitest';
import { FAULT_NAMES, type Fault, type Mutation, type SimOptions } from './options.ts';
import { Scale } from './scale.ts';
import { replayCommand, simulate } from './simulation.ts';
import { INVARIANTS, type Invariant } from './violation.ts';

/** Runs one seed; a failure shows how to see it again. */
function holds(options: SimOptions): void {
  const { violation, last } = simulate(options);
  if (violation === null) return;
  violation.message += `\n\n${last.join('\n')}\n\nAgain: ${replayCommand(options)}`;
  throw violation;
}

const LASTING: readonly Fault[] = ['longPartition', 'longPause', 'fullForLong', 'loseMessages'];

describe('the invariants hold', () => {
  const scenarios: readonly (readonly [what: string, options: SimOptions])[] = [
    ['in fair weather', { seed: 1, nodes: 5, voters: 3, minutes: 1, faults: [] }],
    ['alone, killed at every step of a seal', { seed: 2, nodes: 1, minutes: 2, faults: ['killAtSeal', 'kill'] }],
    ['alone, with every fault', { seed: 3, nodes: 1, minutes: 2 }],
    [
      'while the network is torn',
      { seed: 4, nodes: 5, voters: 3, minutes: 1, faults: ['partition', 'oneWay', 'breakLinks'] },
    ],
    ['on a bad line', { seed: 5, nodes: 4, voters: 3, minutes: 1, faults: ['loss', 'slowLink', 'corrupt'] }],
    ['when all go down at once', { seed: 6, nodes: 4, voters: 3, minutes: 2, faults: ['killAll', 'killAtSeal'] }],
    ['when a majority goes, and comes back', { seed: 7, nodes: 5, voters: 5, minutes: 2, faults: ['loseMajority'] }],
    [
      'when members are away for long',
      { seed: 2, nodes: 4, voters: 3, minutes: 3, faults: ['away', 'loseDisk', 'join'] },
    ],
    // Of these some stand still, the others are cut off, and in each one has no room.
    ['with trouble that lasts', { seed: 36, nodes: 5, voters: 5, minutes: 5, faults: LASTING }],
    ['with trouble that lasts, once more', { seed: 33, nodes: 5, voters: 5, minutes: 5, faults: LASTING }],
    ['with clocks that are wrong', { seed: 7, nodes: 4, voters: 3, minutes: 1, faults: ['jump', 'drift', 'pause'] }],
    [
      'with slow and full disks',
      { seed: 8, nodes: 4, voters: 3, minutes: 1, faults: ['slowDisk', 'fullDisk', 'kill'] },
    ],
    [
      'when disks are lost, or go back',
      { seed: 9, nodes: 5, voters: 3, minutes: 2, faults: ['loseDisk', 'restore', 'restoreUnnoticed', 'kill'] },
    ],
    [
      'while members come and go',
      { seed: 10, nodes: 5, voters: 3, minutes: 2, faults: ['join', 'leave', 'retire', 'ban', 'kill'] },
    ],
    ['with two voters, who need each other', { seed: 11, nodes: 2, voters: 2, minutes: 1 }],
    ['with nine voters', { seed: 12, nodes: 9, voters: 9, minutes: 1, faults: ['kill', 'partition', 'killAtSeal'] }],
    ['with everything at once', { seed: 42, nodes: 5, voters: 3, minutes: 2 }],
    ['with everything at once, once more', { seed: 200, nodes: 3, voters: 1, minutes: 3 }],
  ];
  it.each(scenarios)('%s', (_, options) => holds(options));

  it('and every fault is in one of them', () => {
    const named = new Set(scenarios.flatMap(([, { faults }]) => faults ?? []));
    expect(FAULT_NAMES.filter((fault) => !named.has(fault))).toEqual([]);
  });

  it('for more seeds, small and short', () => {
    for (let seed = 1_000; seed < 1_004; seed++)
      holds({ seed, nodes: 3 + (seed % 2), voters: 1 + 2 * (seed % 2), minutes: 1 });
  });
});

describe('membership and rumors of many', () => {
  it('bring a rumor to everyone in time, and find nobody dead who is there', () => {
    const { rumors, unfinished, toAll, falselyDead, crash } = new Scale({
      seed: 1,
      nodes: 40,
      seconds: 20,
      lossPerMille: 50,
    }).run();
    expect([rumors, unfinished, falselyDead]).toEqual([40, 0, 0]);
    // Virtual time: the same with every run.
    expect(toAll.p99Ms).toBeLessThan(1_000);
    expect(crash.lastMs).toBeLessThan(30_000);
  });
});

describe('one seed is one run', () => {
  it('the same options give the same trace, others do not', () => {
    const options: SimOptions = { seed: 7, nodes: 4, minutes: 1 };
    const lines = (extra: Partial<SimOptions>): { readonly trace: string; readonly fingerprint: string } => {
      const trace: string[] = [];
      const { fingerprint } = simulate({ ...options, ...extra, onLine: (line) => trace.push(line) });
      return { trace: trace.join('\n'), fingerprint };
    };
    const first = lines({});
    expect(lines({})).toEqual(first);
    expect(lines({ seed: 8 }).fingerprint).not.toBe(first.fingerprint);
  });

  it('a failure names the command that shows it again', () => {
    expect(replayCommand({ seed: 7, nodes: 4, minutes: 1, faults: ['kill', 'loss'], mutation: 'countTwice' })).toBe(
      'npm run sim -- --seed 7 --nodes 4 --voters 1 --minutes 1 --faults kill,loss --mutation countTwice',
    );
  });
});

describe('every checker bites', () => {
  const options = { seed: 6, nodes: 3, minutes: 1 };
  /** What is broken, what must be found, the faults that bring it to light, and how many founders there are. */
  const broken: readonly (readonly [Mutation, Invariant, readonly Fault[], number])[] = [
    ['openAnything', 0, ['corrupt'], 1],
    ['otherRoot', 1, [], 1],
    ['shrinkRows', 2, [], 1],
    ['countTwice', 3, [], 1],
    ['loseLateRows', 4, ['kill', 'partition'], 1],
    ['otherSalts', 5, [], 3],
    ['spoilContent', 6, [], 1],
    ['forgetVotes', 7, ['killAtSeal'], 1],
    ['ackBeforeWrite', 7, [], 1],
    ['neverSeal', 8, [], 1],
    ['believeAnything', 9, [], 1],
    ['forgetRevocations', 10, ['kill'], 1],
    ['skipFolds', 11, [], 1],
    ['vectorsOnly', 12, ['kill'], 1],
  ];
  it.each(broken)('%s', (mutation, invariant, faults, voters) => {
    const { violation } = simulate({ ...options, faults, voters, mutation });
    expect([violation?.invariant, violation?.message]).toEqual([invariant, violation?.message]);
  });

  it('each of them', () => {
    expect([...new Set(broken.map(([, invariant]) => invariant))]).toEqual(Object.keys(INVARIANTS).map(Number));
  });

  it.each([...new Set(broken.map(([, , faults]) => faults.join()))])('and only then, with the faults "%s"', (faults) =>
    holds({ ...options, faults: FAULT_NAMES.filter((fault) => faults.split(',').includes(fault)) }),
  );
});
