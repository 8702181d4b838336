import { describe, expect, it } from 'vitest';
import type { Run } from '@waggle/protocol/base';
import { StandingAlarms } from '../src/alarms.ts';

describe('standing alarms', () => {
  it('are those that hold on, once each', () => {
    const alarms = new StandingAlarms();
    expect([alarms.texts(3), alarms.isOvertaken]).toEqual([[], false]);
    alarms.raise({ what: 'overtaken', version: 1 });
    alarms.raise({ what: 'overtaken', version: 2 });
    alarms.raise({ what: 'duplicate', run: 1 as Run, mustStop: false });
    alarms.raise({ what: 'banned' });
    expect(alarms.isOvertaken).toBe(true);
    expect(alarms.texts(3)).toEqual([
      expect.stringContaining('older copy'),
      expect.stringMatching(/should have stopped\.$/),
    ]);
  });

  it('of a clock that is ahead stand while that epoch is open', () => {
    const alarms = new StandingAlarms();
    alarms.raise({ what: 'clockAhead', epoch: 7, membersClockMs: 0 });
    expect(alarms.texts(7)).toEqual([expect.stringContaining('clock')]);
    expect(alarms.texts(8)).toEqual([]);
  });
});
