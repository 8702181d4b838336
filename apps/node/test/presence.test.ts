import { beforeEach, describe, expect, it } from 'vitest';
import { WaggleError, type ReplicaId } from '@waggle/protocol/base';
import { parseNodeEntry, type NodeEntry, type NodeLoad, type Standing } from '@waggle/runtime';
import { Presence, type PresenceOptions, type Self } from '../src/presence.ts';

const replica = 'a'.repeat(32) as ReplicaId;
const self = (port: number): Self => ({
  address: { host: '10.0.0.4', port },
  url: 'http://10.0.0.4:8080',
  zone: null,
  version: '0.1.0',
});

let isFull: boolean;
let isInformed: boolean;
let load: NodeLoad;
/** By the monotonic clock; the wall clock may be anywhere. */
let nowMs: number;
let wallMs: number;
let writes: number;
let directory: Map<ReplicaId, NodeEntry>;
let presence: Presence;
const entry = (): NodeEntry | undefined => directory.get(replica);

beforeEach(() => {
  [isFull, isInformed, nowMs, wallMs, writes] = [false, false, 0, 1_000_000, 0];
  load = { workers: 4, running: 0, queued: 0 };
  directory = new Map();
  const driver: PresenceOptions['driver'] = {
    standing: { replica } as Standing,
    directory,
    write: async ([write]) => {
      if (isFull) throw new WaggleError('STORE_FULL');
      directory.set(replica, parseNodeEntry(write!.value)!);
      return ++writes;
    },
  };
  const clock = { nowMs: () => wallMs, monotonicMs: () => nowMs, after: () => () => undefined };
  presence = new Presence({ driver, clock, load: () => load, isInformed: () => isInformed });
});

describe('what a node says of itself', () => {
  it('is written once there is room, the first time and after it moved', async () => {
    for (const port of [7070, 7071]) {
      isFull = true;
      await expect(presence.announce(self(port))).rejects.toThrow(expect.objectContaining({ code: 'STORE_FULL' }));
      await expect(presence.tick()).rejects.toThrow(expect.objectContaining({ code: 'STORE_FULL' }));
      isFull = false;
      await presence.tick();
      expect(entry()?.addresses).toEqual([{ host: '10.0.0.4', port }]);
    }
    await presence.tick();
    expect(writes).toBe(2);
  });

  it('is its load when that has changed much, at most every five seconds, wherever the clock jumps', async () => {
    nowMs = 10_000;
    await presence.announce(self(7070));
    wallMs -= 500_000;
    load = { ...load, running: 4 };
    await presence.tick();
    expect(entry()?.load.running).toBe(0);
    nowMs += 5_000;
    await presence.tick();
    expect(entry()?.load.running).toBe(4);
    nowMs += 5_000;
    await presence.tick();
    expect(writes).toBe(2);
  });

  it('is at once that it knows the customers', async () => {
    await presence.announce(self(7070));
    expect(entry()?.informed).toBe(false);
    isInformed = true;
    await presence.tick();
    expect(entry()?.informed).toBe(true);
  });
});
