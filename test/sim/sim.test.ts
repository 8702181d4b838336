import { describe, expect, it } from 'vitest';
import { seededRandom } from '../../packages/protocol/src/base/index.ts';
import { FAULTS, type Fault, type Mutation, type SimOptions } from './options.ts';
import { replayCommand, simulate } from './simulation.ts';
import type { Invariant } from './violation.ts';

/** Runs one seed; a failure shows how to see it again. */
function holds(options: SimOptions): void {
  const { violation, last } = simulate(options);
  if (violation === null) return;
  violation.message += `\n\n${last.join('\n')}\n\nAgain: ${replayCommand(options)}`;
  throw violation;
}

describe('the invariants hold', () => {
  const scenarios: readonly (readonly [what: string, options: SimOptions])[] = [
    ['in fair weather', { seed: 1, nodes: 5, minutes: 1, faults: [] }],
    ['alone, killed at every step of a seal', { seed: 2, nodes: 1, minutes: 3, faults: ['killAtSeal', 'kill'] }],
    ['alone, with every fault', { seed: 3, nodes: 1, minutes: 3 }],
    ['while the network is torn', { seed: 4, nodes: 5, minutes: 2, faults: ['partition', 'oneWay', 'breakLinks'] }],
    ['on a bad line', { seed: 5, nodes: 4, minutes: 2, faults: ['loss', 'slowLink'] }],
    ['when all go down at once', { seed: 6, nodes: 4, minutes: 2, faults: ['killAll', 'killAtSeal'] }],
    ['with clocks that are wrong', { seed: 7, nodes: 4, minutes: 2, faults: ['jump', 'drift', 'pause'] }],
    ['with slow and full disks', { seed: 8, nodes: 4, minutes: 2, faults: ['slowDisk', 'fullDisk', 'kill'] }],
    ['when disks are lost', { seed: 9, nodes: 4, minutes: 2, faults: ['loseDisk', 'kill', 'partition'] }],
    ['with everything at once', { seed: 42, nodes: 6, minutes: 3 }],
    ['with everything at once, again', { seed: 131, nodes: 5, minutes: 2 }],
  ];
  it.each(scenarios)('%s', (_, options) => holds(options));

  it('for fresh seeds, small and short', () => {
    for (let seed = 1_000; seed < 1_008; seed++) holds({ seed, nodes: 2 + (seed % 3), minutes: 1 });
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
      'npm run sim -- --seed 7 --nodes 4 --minutes 1 --faults kill,loss --mutation countTwice',
    );
  });

  it('every fault can happen alone', () => {
    const random = seededRandom(1);
    for (const fault of FAULTS) holds({ seed: random.below(1_000), nodes: 3, minutes: 1, faults: [fault] });
  });
});

describe('every checker bites', () => {
  const none: readonly Fault[] = [];
  const options = { seed: 3, nodes: 3, minutes: 1 };
  /** What is broken, what must be found, and the faults that bring it to light. */
  const broken: readonly (readonly [Mutation, Invariant, readonly Fault[]])[] = [
    ['otherRoot', 1, none],
    ['shrinkRows', 2, none],
    ['countTwice', 3, none],
    ['loseLateRows', 3, ['kill', 'partition']],
    ['forgetVotes', 7, ['killAtSeal']],
    ['otherSalts', 5, none],
    ['spoilContent', 6, none],
    ['ackBeforeWrite', 7, none],
    ['neverSeal', 8, none],
    ['believeAnything', 9, none],
    ['forgetRevocations', 10, ['kill']],
    ['skipFolds', 11, none],
    ['vectorsOnly', 12, ['kill']],
  ];
  it.each(broken)('%s', (mutation, invariant, faults) => {
    const { violation } = simulate({ ...options, faults, mutation });
    expect([violation?.invariant, violation?.message]).toEqual([invariant, violation?.message]);
  });
  it.each([...new Set(broken.map(([, , faults]) => faults.join()))])('and only then, with the faults "%s"', (faults) =>
    holds({ ...options, faults: FAULTS.filter((fault) => faults.split(',').includes(fault)) }),
  );
});
