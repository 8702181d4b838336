import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ClusterId, ReplicaId } from '@waggle/protocol/base';
import type { EvidencePiece } from '@waggle/runtime';
import { Accusations } from '../src/accusations.ts';
import { alarmText, type NodeAlarm } from '../src/alarms.ts';
import { temporary } from './cli/support.ts';

const CLUSTER = '0'.repeat(64) as ClusterId;
const liar = 'ab'.repeat(16) as ReplicaId;
const piece = (epoch: number, value = '{}'): EvidencePiece => ({
  epoch,
  replica: liar,
  what: 'noVote',
  code: 'DECODE_FAILED',
  registers: [{ key: `ballot/${epoch}`, version: 1, value, signature: 'c2lnbmVk' }],
});

describe('accusations', () => {
  it('are told once and kept, and neither told nor kept again after a restart', () => {
    const directory = temporary();
    const alarms: NodeAlarm[] = [];
    const found = [piece(7)];
    const open = () =>
      new Accusations({
        directory,
        cluster: CLUSTER,
        clock: { nowMs: () => 0 },
        found: () => found,
        alarm: (alarm) => void alarms.push(alarm),
      });
    for (const each of [open(), open()]) {
      each.look();
      expect(each.all).toMatchObject([{ epoch: 7, what: 'noVote' }]);
    }
    expect(alarms.map(alarmText)).toEqual([
      `Replica ${liar} voted without a vote, in epoch 7 (DECODE_FAILED): it was refused`,
    ]);
    found.pop();
    expect(open().all).toHaveLength(1);
  });

  it('that the disk refuses stand all the same, and are kept as they were seen once it takes them', () => {
    const directory = temporary();
    const file = join(directory, 'evidence.jsonl');
    const alarms: NodeAlarm[] = [];
    let found = [piece(7, '{"first":1}')];
    mkdirSync(file);
    const accusations = new Accusations({
      directory,
      cluster: CLUSTER,
      clock: { nowMs: () => 0 },
      found: () => found,
      alarm: (alarm) => void alarms.push(alarm),
    });
    accusations.look();
    expect(alarms.map(({ what }) => what)).toEqual(['evidenceNotKept', 'evidence']);
    expect(accusations.all).toMatchObject([{ epoch: 7 }]);
    rmdirSync(file);
    found = [piece(7, '{"second":2}')];
    accusations.look();
    accusations.look();
    expect(readFileSync(file, 'utf8').match(/first|second|\n/g)).toEqual(['first', '\n']);
    expect([alarms.length, accusations.all.length]).toEqual([2, 1]);
  });

  it('beyond the bound of the file stand, and that is said once', () => {
    const alarms: NodeAlarm[] = [];
    const accusations = new Accusations({
      directory: temporary(),
      cluster: CLUSTER,
      clock: { nowMs: () => 0 },
      found: () => Array.from({ length: 30 }, (_, epoch) => piece(epoch, 'x'.repeat(48_000))),
      alarm: (alarm) => void alarms.push(alarm),
    });
    accusations.look();
    expect(accusations.all).toHaveLength(30);
    expect(alarms.filter(({ what }) => what === 'evidence')).toHaveLength(30);
    expect(alarms.filter(({ what }) => what === 'evidenceNotKept').map(alarmText)).toEqual([
      expect.stringContaining('used up'),
    ]);
  });
});
