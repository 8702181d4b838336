import { describe, expect, it } from 'vitest';
import type { Run } from '../../src/base/index.ts';
import { RunWatch, type TwoRuns } from '../../src/membership/runs.ts';

type Heard = readonly [run: number, sequence: number, ms: number];
const listen = (heard: readonly Heard[]): (TwoRuns | null)[] => {
  const watch = new RunWatch();
  return heard.map(([run, sequence, ms]) => watch.heard(run as Run, sequence, ms));
};
const OLD = 5;
const NEW = 9;
const every = (run: number, fromMs: number, toMs: number, stepMs = 500): Heard[] =>
  Array.from({ length: Math.floor((toMs - fromMs) / stepMs) }, (_, i) => [run, 1 + i, fromMs + i * stepMs]);
const byTime = (heard: Heard[]): Heard[] => heard.sort((a, b) => a[2] - b[2]);

describe('the runs of a member', () => {
  it('say nothing when one process follows another, with its last datagrams late', () => {
    const heard = byTime([
      ...every(OLD, 0, 10_000),
      ...every(NEW, 10_001, 60_000),
      [OLD, 21, 10_500],
      [OLD, 22, 11_900],
    ]);
    expect(listen(heard).every((said) => said === null)).toBe(true);
  });

  it('say nothing of one datagram that comes much later, nor of its repeats', () => {
    const late: Heard[] = [20_000, 22_000, 25_000].map((ms) => [OLD, 40, ms]);
    expect(listen(byTime([...every(NEW, 0, 60_000), ...late])).every((said) => said === null)).toBe(true);
  });

  it('tell of two processes within a few seconds, at either, about once a second', () => {
    for (const olderFromMs of [0, 10_000]) {
      const heard = byTime([...every(OLD, olderFromMs, 30_000), ...every(NEW, 5_000, 30_000)]);
      const said = listen(heard);
      const told = heard.filter((_, i) => said[i] !== null);
      expect(said.find((each) => each !== null)).toEqual({ newest: NEW, older: OLD });
      expect(told[0]![2]).toBeLessThanOrEqual(Math.max(olderFromMs, 5_000) + 4_000);
      expect(new Set(told.map(([, , ms]) => ms)).size).toBeLessThanOrEqual(30);
    }
  });

  it('are outlived by an older process once the newer one was silent for half a minute, and not by a late datagram', () => {
    const watch = new RunWatch();
    const outlivedMs: number[] = [];
    const heard = byTime([...every(OLD, 0, 60_000), ...every(NEW, 5_000, 20_000), ...every(NEW, 60_000, 70_000)]);
    for (const [run, sequence, ms] of heard) {
      watch.heard(run as Run, sequence, ms);
      if (watch.isOutlived(ms)) outlivedMs.push(ms);
    }
    expect(outlivedMs[0]).toBe(49_500);
    expect(outlivedMs.at(-1)).toBe(59_500);
    const late = new RunWatch();
    for (const [run, sequence, ms] of byTime([...every(NEW, 0, 10_000), [OLD, 40, 60_000], [OLD, 40, 62_000]])) {
      late.heard(run as Run, sequence, ms);
      expect(late.isOutlived(ms)).toBe(false);
    }
  });

  it('fall silent when the older process has ended, and start anew with a third', () => {
    const heard = byTime([...every(OLD, 0, 20_000), ...every(NEW, 5_000, 90_000), ...every(NEW + 1, 90_000, 120_000)]);
    const said = listen(heard);
    expect(said.some((each, i) => each !== null && heard[i]![2] > 55_000)).toBe(false);
    expect(said.some((each) => each !== null)).toBe(true);
  });
});
