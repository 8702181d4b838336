import { describe, expect, it } from 'vitest';
import type { ReplicaId, Run } from '@waggle/protocol/base';
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

  it('of misbehaviour are by member and code, with how many and when, for ten minutes after the last', () => {
    nowMs = 0;
    const alarms = new StandingAlarms(clock);
    const liar = 'a'.repeat(32) as ReplicaId;
    alarms.misbehaved(liar, 'SIGNATURE_INVALID');
    alarms.misbehaved(liar, 'DECODE_FAILED');
    nowMs = 60_000;
    alarms.misbehaved(liar, 'SIGNATURE_INVALID');
    const sent = (what: string) => `Replica ${liar} sent ${what} changed nothing.`;
    const twice = sent(
      '2 frames that no correct node sends (SIGNATURE_INVALID), the last at 1970-01-01T00:01:00.000Z: they',
    );
    expect(alarms.texts(0)).toEqual([
      sent('1 frame that no correct node sends (DECODE_FAILED), the last at 1970-01-01T00:00:00.000Z: it'),
      twice,
    ]);
    nowMs = 600_001;
    expect(alarms.texts(0)).toEqual([twice]);
    nowMs = 660_001;
    expect(alarms.texts(0)).toEqual([]);
    alarms.misbehaved(liar, 'SIGNATURE_INVALID');
    expect(alarms.texts(0)).toEqual([expect.stringContaining('sent 1 frame that')]);
  });

  it('of misbehaviour are at most 64: the oldest goes', () => {
    const alarms = new StandingAlarms(clock);
    const idOf = (i: number) => String(i).padStart(32, '0') as ReplicaId;
    for (let i = 0; i < 65; i++) alarms.misbehaved(idOf(i), 'DECODE_FAILED');
    const texts = alarms.texts(0);
    expect(texts).toHaveLength(64);
    expect(texts[0]).toContain(idOf(1));
  });
});
