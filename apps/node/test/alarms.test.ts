import { describe, expect, it } from 'vitest';
import type { Run } from '@waggle/protocol/base';
import { StandingAlarms } from '../src/alarms.ts';

describe('standing alarms', () => {
  let nowMs = 0;
  const clock = { nowMs: () => nowMs };

  it('are those that hold on, once each', () => {
    const alarms = new StandingAlarms(clock);
    expect([alarms.texts(3), alarms.isOvertaken]).toEqual([[], false]);
    alarms.raise({ what: 'overtaken', version: 1 });
    alarms.raise({ what: 'overtaken', version: 2 });
    alarms.raise({ what: 'duplicate', run: 1 as Run, mustStop: false });
    alarms.raise({ what: 'banned' });
    expect(alarms.isOvertaken).toBe(true);
    expect(alarms.texts(3)).toEqual([
      expect.stringContaining('older copy'),
      expect.stringContaining('should have stopped'),
    ]);
  });

  it('of processes that should not be say when they were seen, and stand for ten minutes', () => {
    const alarms = new StandingAlarms(clock);
    const minute = 60_000;
    const duplicate = { what: 'duplicate', run: 1 as Run, mustStop: false } as const;
    alarms.raise(duplicate);
    nowMs = 5 * minute;
    alarms.raise({ what: 'secondStart', pid: 4711 });
    const [copy, second] = alarms.texts(0);
    expect(copy).toContain('(seen at 1970-01-01T00:00:00.000Z).');
    expect(second).toMatch(/pid 4711.*DATA_LOCKED.*\(seen at 1970-01-01T00:05:00\.000Z\)\.$/);
    nowMs = 10 * minute;
    expect(alarms.texts(0)).toEqual([copy, second]);
    nowMs++;
    expect(alarms.texts(0)).toEqual([second]);
    alarms.raise({ ...duplicate, run: 2 as Run });
    nowMs = 16 * minute;
    expect(alarms.texts(0)).toEqual([expect.stringContaining('(seen at 1970-01-01T00:10:00.001Z).')]);
  });

  it('of a clock that is ahead stand while that epoch is open', () => {
    const alarms = new StandingAlarms(clock);
    alarms.raise({ what: 'clockAhead', epoch: 7, membersClockMs: 0 });
    expect(alarms.texts(7)).toEqual([expect.stringContaining('clock')]);
    expect(alarms.texts(8)).toEqual([]);
  });
});
