import { describe, expect, it } from 'vitest';
import { base64, hex, type ReplicaId } from '@waggle/protocol/base';
import type { ReplicaStatus } from '@waggle/protocol/authority';
import type { MemberKey, MemberState } from '@waggle/protocol/membership';
import type { Lag } from '@waggle/protocol/replication';
import type { RosterEntry } from '@waggle/protocol/sealing';
import type { NodeEntry } from '@waggle/runtime';
import {
  alarmsOf,
  coverageOf,
  demandQuorumWithout,
  hasCaughtUp,
  inviteAddresses,
  inviteWarnings,
  lagOf,
  liveEntries,
  memberEntries,
  rosterWarnings,
  visibleAt,
  type ClusterSource,
} from '../src/cluster.ts';

/** One member, and what of it differs from a live, admitted voter that is in step. */
interface Given {
  readonly state?: MemberState | 'unheard';
  readonly status?: ReplicaStatus;
  readonly votes?: boolean;
  readonly lag?: Lag;
  readonly host?: string | null;
  readonly held?: boolean;
  /** Since when it is in its state. */
  readonly sinceMs?: number;
}

/** By the clock that `sinceMs` goes by. */
const NOW_MS = 2_000;

const idOf = (i: number): ReplicaId => String(i).repeat(32) as ReplicaId;
const keyOf = (i: number): string => base64.encode(new Uint8Array(32).fill(i));
const entryOf = (i: number): RosterEntry => ({ replica: idOf(i), transportKey: keyOf(i), logKey: '', cosignerKey: '' });
const said = (host: string, i: number): NodeEntry => ({
  addresses: [{ host, port: 7070 + i }],
  url: `http://n${i}.example`,
  zone: null,
  version: '0.1.0',
  protocols: [1],
  formats: [1],
  load: { workers: 2, running: 1, queued: 0 },
  informed: true,
  writtenMs: 0,
});

/** A cluster seen by its first member. */
function clusterOf(
  given: readonly Given[],
  epochs: { open: number; sealing: number } = { open: 5, sealing: 4 },
): ClusterSource {
  const all = given.map((one, i) => ({ i, ...one }));
  return {
    standing: { replica: idOf(0) },
    members: all
      .filter(({ state }) => state !== 'unheard')
      .map(({ i, state, sinceMs }) => ({
        member: keyOf(i) as MemberKey,
        replica: idOf(i),
        state: (state ?? 'alive') as MemberState,
        incarnation: i,
        sinceMs: sinceMs ?? 1_000,
      })),
    authority: {
      admittedReplicas: () => all.filter(({ status }) => status !== 'banned').map(({ i }) => entryOf(i)),
      statusOf: (replica) => all.find(({ i }) => idOf(i) === replica)?.status ?? 'admitted',
    },
    roster: all.filter(({ votes }) => votes !== false).map(({ i }) => entryOf(i)),
    rosterWarnings: [],
    directory: new Map(
      all.flatMap(({ i, host }) => (host === null ? [] : [[idOf(i), said(host ?? `10.0.0.${i}`, i)] as const])),
    ),
    openEpoch: epochs.open,
    sealingEpoch: epochs.sealing,
    sealingStatus: { mayLeave: false },
    apartClocks: [],
    lag: (replica) => all.find(({ i }) => idOf(i) === replica)?.lag ?? { control: 10, usage: 20 },
    heldBy: () => all.filter(({ held }) => held === true).map(({ i }) => idOf(i)),
  };
}

describe('members', () => {
  it('are all that may connect, with what is known of them', () => {
    const source = clusterOf([
      {},
      { state: 'dead' },
      { state: 'unheard', host: null },
      { status: 'banned' },
      { status: 'retired', votes: false },
    ]);
    expect(
      memberEntries(source).map(({ replica, state, status, votes }) => [replica[0], state, status, votes]),
    ).toEqual([
      ['0', 'alive', 'admitted', true],
      ['1', 'dead', 'admitted', true],
      ['2', 'unheard', 'admitted', true],
      ['4', 'alive', 'retired', false],
    ]);
    expect(memberEntries(source)[0]).toMatchObject({
      member: hex.encode(new Uint8Array(32)),
      transportKey: keyOf(0),
      lag: { control: 0, usage: 0 },
    });
    expect(memberEntries(source)[2]).toMatchObject({ sinceMs: null, entry: null });
    expect(liveEntries(source).map(({ replica }) => replica[0])).toEqual(['0', '4']);
  });

  it('hold a node that nobody has told of itself yet', () => {
    expect(liveEntries(clusterOf([{ state: 'unheard' }]))).toHaveLength(1);
  });
});

describe('a newcomer', () => {
  const source = (informed: boolean, lag: Lag, entries = true) => {
    const base = clusterOf([{}, { lag }]);
    const entry = { ...base.directory.get(idOf(1))!, informed };
    return {
      ...base,
      directory: new Map([[idOf(0), base.directory.get(idOf(0))!], ...(entries ? [[idOf(1), entry] as const] : [])]),
    };
  };
  const LEVEL = { control: 5, usage: null };

  it('has caught up once it was level with a member that knows the customers', () => {
    expect(hasCaughtUp(source(true, LEVEL))).toBe(true);
    expect(hasCaughtUp(source(true, { control: null, usage: null }))).toBe(false);
  });

  it('learns nothing from another newcomer, from one it has not heard of, or from itself', () => {
    expect(hasCaughtUp(source(false, LEVEL))).toBe(false);
    expect(hasCaughtUp(source(true, LEVEL, false))).toBe(false);
    expect(hasCaughtUp(clusterOf([{}]))).toBe(false);
  });
});

describe('how far a change has got', () => {
  it('counts live members that hold it, of all live ones, this node among both', () => {
    expect(visibleAt(clusterOf([{}]), 1)).toEqual({ members: 1, of: 1 });
    expect(visibleAt(clusterOf([{}, { held: true }, {}]), 1)).toEqual({ members: 2, of: 3 });
  });

  it('leaves out the dead, whether or not they hold it, and keeps suspects', () => {
    const source = clusterOf([
      {},
      { state: 'dead', held: true },
      { state: 'suspect' },
      { state: 'left' },
      { state: 'unheard' },
    ]);
    expect(visibleAt(source, 1)).toEqual({ members: 1, of: 2 });
  });
});

describe('coverage', () => {
  it('of one node is itself, now', () => {
    expect(coverageOf(clusterOf([{}]), 9_000)).toMatchObject({ asOfMs: 9_000, oldestMs: 9_000, members: 1, of: 1 });
  });

  it('is as old as the live member that was compared longest ago; the dead make only `oldest` older', () => {
    const source = clusterOf([
      {},
      { lag: { control: 0, usage: 300 } },
      { state: 'dead', lag: { control: 0, usage: 5_000 } },
    ]);
    expect(coverageOf(source, 9_000)).toEqual({
      asOfMs: 8_700,
      oldestMs: 4_000,
      members: 3,
      of: 3,
      replicas: [
        { replica: idOf(0), url: 'http://n0.example', state: 'alive', asOfMs: 9_000 },
        { replica: idOf(1), url: 'http://n1.example', state: 'alive', asOfMs: 8_700 },
        { replica: idOf(2), url: 'http://n2.example', state: 'dead', asOfMs: 4_000 },
      ],
    });
  });

  it('says whom it was not compared with, and leaves out who counts no more', () => {
    const none = { control: null, usage: null };
    const source = clusterOf([{}, { lag: none }, { status: 'retired', state: 'dead' }, { status: 'banned' }]);
    const { members, of, replicas } = coverageOf(source, 9_000);
    expect([members, of]).toEqual([1, 2]);
    expect(replicas[1]).toMatchObject({ replica: idOf(1), asOfMs: null });
  });

  it('has no time while a live member was not compared with: what that counted may be missing, however old', () => {
    const none = { control: null, usage: null };
    const fresh = { lag: { control: 0, usage: 300 } };
    for (const state of ['alive', 'suspect'] as const)
      expect(coverageOf(clusterOf([{}, fresh, { state, lag: none }]), 9_000)).toMatchObject({
        asOfMs: null,
        oldestMs: 8_700,
        members: 2,
        of: 3,
      });
    for (const state of ['dead', 'left', 'unheard'] as const)
      expect(coverageOf(clusterOf([{}, fresh, { state, lag: none }]), 9_000).asOfMs).toBe(8_700);
  });
});

describe('how far a member is behind', () => {
  const lag = (given: Given): number[] => {
    const entry = memberEntries(clusterOf([{}, given]))[1]!;
    return (['control', 'usage'] as const).map((name) => lagOf(entry, name, NOW_MS));
  };

  it('is what was measured, and before that as long as it is there', () => {
    expect(lag({ lag: { control: 7, usage: 8 }, sinceMs: 0 })).toEqual([7, 8]);
    expect(lag({ lag: { control: 7, usage: null }, sinceMs: 500 })).toEqual([7, 1_500]);
    expect(lag({ lag: { control: null, usage: null }, sinceMs: NOW_MS })).toEqual([0, 0]);
    expect(lag({ state: 'unheard', lag: { control: null, usage: null } })).toEqual([0, 0]);
  });
});

describe('the addresses of an invite', () => {
  it('are those of live members, this node first, one each, eight at most', () => {
    const source = clusterOf([{}, { state: 'dead' }, { host: null }, {}]);
    const own = { host: '10.1.1.1', port: 7070 };
    expect(inviteAddresses({ ...source, standing: { replica: idOf(3) } }, own)).toEqual([
      { transportKey: keyOf(3), ...own },
      { transportKey: keyOf(0), host: '10.0.0.0', port: 7070 },
    ]);
    expect(inviteAddresses(clusterOf(Array.from({ length: 10 }, () => ({}))), own)).toHaveLength(8);
    // One that has just started has told nobody of itself yet, not even itself.
    expect(inviteAddresses(clusterOf([{ host: null }]), own)).toEqual([{ transportKey: keyOf(0), ...own }]);
  });

  it('come with a warning when they all lead to this machine only', () => {
    expect(inviteWarnings([{ host: '127.0.0.1' }, { host: '127.0.0.2' }])).toEqual([
      expect.stringContaining('this machine only'),
    ]);
    expect(inviteWarnings([{ host: '127.0.0.1' }, { host: '10.0.0.2' }])).toEqual([]);
  });
});

describe('alarms', () => {
  it('are none when all is well', () => {
    expect(alarmsOf(clusterOf([{}]), NOW_MS, [])).toEqual([]);
    expect(alarmsOf(clusterOf([{}, {}, {}]), NOW_MS, [])).toEqual([]);
  });

  it.each<[string, Given[], RegExp[]]>([
    ['a voter is gone', [{}, {}, { state: 'dead' }], [/2{32} may vote and is dead/]],
    [
      'a majority of voters is gone',
      [{}, { state: 'dead' }, { state: 'unheard' }],
      [/1{32} may vote/, /2{32} may vote/, /^1 of 3 voters .* until 2 are/],
    ],
    [
      'a banned voter is still counted',
      [{}, { state: 'dead', status: 'banned' }],
      [/1{32} may vote and was banned/, /^1 of 2 voters .* until 2 are/, /two voters/],
    ],
    ['there are two voters', [{}, {}], [/two voters/]],
    [
      'a live member was never in step',
      [{}, {}, { lag: { control: 0, usage: null }, sinceMs: NOW_MS - 30_001 }],
      [/2{32} answers, but/],
    ],
    [
      'a live member was not in step yet',
      [{}, {}, { lag: { control: null, usage: null }, sinceMs: NOW_MS - 30_000 }],
      [],
    ],
    [
      'a live member is not in step',
      [{}, {}, { lag: { control: 31_000, usage: 0 }, sinceMs: NOW_MS - 60_000 }],
      [/2{32} answers, but/],
    ],
    ['a live member is just back', [{}, {}, { lag: { control: 3_600_000, usage: 0 }, sinceMs: NOW_MS - 1_000 }], []],
    ['this node is retired', [{ status: 'retired', votes: false }, {}], [/^This node was retired: no majority/]],
    ['and votes yet', [{ status: 'retired' }, {}, {}], [/^This node was retired: it votes/]],
    ['a member that does not vote is gone: nothing waits for it', [{}, { state: 'dead', votes: false }], []],
  ])('%s', (_, given, expected) => {
    const alarms = alarmsOf(clusterOf(given), NOW_MS, []);
    expect(alarms).toHaveLength(expected.length);
    expected.forEach((pattern, i) => expect(alarms[i]).toMatch(pattern));
  });

  it('a retired node may go when others hold the last seal', () => {
    const source = { ...clusterOf([{ status: 'retired', votes: false }, {}]), sealingStatus: { mayLeave: true } };
    expect(alarmsOf(source, NOW_MS, [])).toEqual(['This node was retired: it may be stopped for good.']);
  });

  it('epochs wait to be sealed', () => {
    expect(alarmsOf(clusterOf([{}], { open: 5, sealing: 3 }), NOW_MS, [])).toEqual([]);
    expect(alarmsOf(clusterOf([{}], { open: 6, sealing: 3 }), NOW_MS, [])).toEqual([
      expect.stringMatching(/^3 epochs/),
    ]);
  });

  it('name clocks that are wrong', () => {
    const apartClocks = [
      { replica: idOf(0), aheadMs: 61_000 },
      { replica: idOf(1), aheadMs: -3_600_000 },
    ];
    expect(alarmsOf({ ...clusterOf([{}, {}, {}]), apartClocks }, NOW_MS, [])).toEqual([
      expect.stringMatching(/^The clock of this node is 61 s ahead of the median of the members' clocks: /),
      expect.stringMatching(/^The clock of replica 1{32} is 3600 s behind the median/),
    ]);
  });

  it('name who wrote what no correct node writes', () => {
    const evidence = [
      { epoch: 7, replica: idOf(1), what: 'otherRoot', code: 'ROOT_MISMATCH' },
      { epoch: 8, replica: null, what: 'malformed', code: 'DECODE_FAILED' },
    ] as const;
    expect(alarmsOf(clusterOf([{}]), NOW_MS, evidence)).toEqual([
      expect.stringMatching(/^Replica 1{32} signed another root .*epoch 7/),
      expect.stringMatching(/^Somebody wrote a close, ballot or seal .*epoch 8 \(DECODE_FAILED\)/),
    ]);
    const many = Array.from({ length: 70 }, (_, epoch) => ({ ...evidence[0], epoch }));
    const texts = alarmsOf(clusterOf([{}]), NOW_MS, many);
    expect([texts.length, texts[0]]).toEqual([65, '6 earlier ones are in evidence.jsonl.']);
  });

  it('say who votes, or does not, other than its status says, and of two voters once', () => {
    const source = clusterOf([{}, {}]);
    const warnings = [
      { type: 'rosterOfTwo' },
      { type: 'inviteUsed', replica: idOf(7) },
      { type: 'waitsForThird', replica: idOf(8) },
    ] as const;
    expect(alarmsOf({ ...source, rosterWarnings: warnings }, NOW_MS, [])).toEqual([
      expect.stringContaining('two voters'),
      expect.stringMatching(/7{32} .*used up its invite/),
      expect.stringMatching(/8{32} .*until a third/),
    ]);
    expect(alarmsOf({ ...clusterOf([{}]), rosterWarnings: [warnings[0]] }, NOW_MS, [])).toEqual([
      expect.stringContaining('two voters'),
    ]);
  });

  it('say what retiring leaves behind', () => {
    expect(rosterWarnings(clusterOf([{}, {}, { status: 'retired' }]))).toEqual([expect.stringContaining('two voters')]);
    expect(rosterWarnings(clusterOf([{}, {}, {}]))).toEqual([]);
    expect(rosterWarnings(clusterOf([{}, { state: 'dead', status: 'retired' }]))).toEqual([
      expect.stringMatching(/takes effect once an epoch is sealed, which takes 2 of the 2 voters: 1 are reachable/),
    ]);
  });
});

describe('a ban', () => {
  const refused = (given: readonly Given[], i: number): boolean => {
    try {
      demandQuorumWithout(clusterOf(given), idOf(i));
      return false;
    } catch (error) {
      expect(error).toMatchObject({ code: 'BAN_REFUSED' });
      return true;
    }
  };

  it.each<[string, Given[], boolean]>([
    ['one of three voters leaves two', [{}, {}, {}], false],
    ['one of two voters leaves one', [{}, {}], true],
    ['one of three voters while another is dead', [{}, {}, { state: 'dead' }], true],
    ['one of three voters while another is retired', [{}, {}, { status: 'retired' }], true],
    ['one that does not vote', [{}, { votes: false }], false],
  ])('of %s: refused %#', (_, given, expected) => {
    expect(refused(given, 1)).toBe(expected);
  });
});
