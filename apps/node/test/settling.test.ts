import { describe, expect, it } from 'vitest';
import { Settling, SETTLING_MS_MAX } from '../src/settling.ts';

describe('a member that has started again', () => {
  let nowMs = 1_000;
  let isLevel = false;
  const start = (hasOthers: boolean): Settling =>
    new Settling({ clock: { monotonicMs: () => nowMs }, hasOthers, hasCaughtUp: () => isLevel });

  it('settles when it holds all that another has, for good', () => {
    isLevel = false;
    const settling = start(true);
    expect(settling.isOver).toBe(false);
    isLevel = true;
    expect(settling.isOver).toBe(true);
    isLevel = false;
    expect(settling.isOver).toBe(true);
  });

  it('settles after a while, when it is cut off', () => {
    isLevel = false;
    const settling = start(true);
    nowMs += SETTLING_MS_MAX - 1;
    expect(settling.isOver).toBe(false);
    nowMs++;
    expect(settling.isOver).toBe(true);
  });

  it('settles at once when it is alone', () => {
    isLevel = false;
    expect(start(false).isOver).toBe(true);
  });
});
