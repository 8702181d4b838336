import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { utf8, WaggleError, type CustomerId, type Digest, type ReplicaId, type Run } from '../../src/base/index.ts';
import {
  equalControl,
  equalUsageRow,
  MESSAGE_BYTES_MAX,
  Registers,
  usageKey,
  usageWriter,
  ZERO_USAGE,
  type ControlRegister,
  type UsageRow,
  type WriterId,
} from '../../src/lattice/index.ts';
import { CatchUp } from '../../src/member/catch-up.ts';
import { Clocks } from '../../src/member/clocks.ts';
import { Entries } from '../../src/member/entries.ts';
import { decodeEnvelope, encodeEnvelope } from '../../src/member/envelope.ts';
import { Lookups } from '../../src/member/lookups.ts';
import {
  formatReleases,
  isExpired,
  parseReleases,
  releaseWith,
  withoutPinned,
  type Releases,
} from '../../src/member/retention.ts';
import { Unsaved } from '../../src/member/unsaved.ts';
import type { ShownEpoch } from '../../src/replication/index.ts';

const replica = 'ab'.repeat(16) as ReplicaId;
const run = 3 as Run;
const writer = usageWriter(replica, run);
const digest = (n: number): Digest => n.toString(16).padStart(64, '0') as Digest;

describe('clocks', () => {
  it('the median of those heard in the last ten seconds, the lower of two, going on with time', () => {
    const clocks = new Clocks();
    const ids = [1, 2, 3].map((n) => String(n).repeat(32) as ReplicaId);
    expect(clocks.medianMs(0)).toBeNull();
    clocks.heard(ids[0]!, 1_000, 0);
    expect(clocks.medianMs(500)).toBe(1_500);
    clocks.heard(ids[1]!, 9_000, 500);
    expect(clocks.medianMs(500)).toBe(1_500);
    clocks.heard(ids[2]!, 2_000, 500);
    expect(clocks.medianMs(500)).toBe(2_000);
    expect(clocks.medianMs(10_400)).toBe(11_900);
    expect(clocks.medianMs(10_501)).toBeNull();
  });
});

describe('envelopes', () => {
  it('say channel, clock and frame, and refuse other bytes', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('replication' as const, 'membership' as const),
        fc.nat(2 ** 31),
        fc.uint8Array({ maxLength: 100 }),
        (channel, wallMs, frame) => {
          const { frame: read, ...rest } = decodeEnvelope(encodeEnvelope({ channel, wallMs, frame }));
          expect({ ...rest, frame: [...read] }).toEqual({ channel, wallMs, frame: [...frame] });
        },
      ),
    );
    expect(() => decodeEnvelope(new Uint8Array([2, 0]))).toThrow(WaggleError);
    expect(() => decodeEnvelope(new Uint8Array([0]))).toThrow(WaggleError);
    const frame = new Uint8Array(MESSAGE_BYTES_MAX);
    expect(() => encodeEnvelope({ channel: 'membership', wallMs: 0, frame })).toThrow(WaggleError);
  });
});

describe('entries', () => {
  it('come in order, so many to a batch, and are refused when there are too many or one is too long', () => {
    const entries = new Entries();
    const write = (ticket: number, value = '"a"', key = 'k') =>
      ({ type: 'write', ticket, writes: [{ key, value }] }) as const;
    expect(entries.add(write(0, ''))).toBe('REQUEST_INVALID');
    expect(entries.add(write(0, '"a"', 'k'.repeat(257)))).toBe('REQUEST_INVALID');
    for (let i = 0; i < 10_000; i++) expect(entries.add(write(i))).toBeNull();
    expect(entries.add(write(10_000))).toBe('STORE_BUSY');
    expect(entries.take().map(({ ticket }) => ticket)).toEqual(Array.from({ length: 1_024 }, (_, i) => i));
    expect(entries.count).toBe(10_000 - 1_024);
  });

  it('give the writes back that are to be refused, and keep what was metered', () => {
    const entries = new Entries();
    const customer = 'acme' as CustomerId;
    entries.add({ type: 'write', ticket: 1, writes: [{ key: 'k', value: '1' }] });
    entries.add({ type: 'meter', ticket: 2, customer, sku: 'inspect', usage: ZERO_USAGE });
    entries.add({ type: 'write', ticket: 3, writes: [] });
    expect(entries.takeWrites().map(({ ticket }) => ticket)).toEqual([1, 3]);
    expect(entries.take().map(({ ticket }) => ticket)).toEqual([2]);
  });
});

describe('lookups', () => {
  it('ask the disk once for this node, and each time for another', () => {
    const lookups = new Lookups();
    expect(lookups.add(digest(1), 'sealing')).toBe(true);
    expect(lookups.add(digest(1), 'counted')).toBe(false);
    expect(lookups.add(digest(1), 'peers')).toBe(true);
    expect(lookups.answerPeers(digest(1))).toBe(true);
    expect(lookups.answerPeers(digest(1))).toBe(false);
    expect(lookups.isWanted(digest(1))).toBe(true);
    expect([...lookups.take(digest(1))]).toEqual(['sealing', 'counted']);
    expect(lookups.isWanted(digest(1))).toBe(false);
    lookups.add(digest(2), 'peers');
    lookups.answerPeers(digest(2));
    expect(lookups.isWanted(digest(2))).toBe(false);
  });
});

describe('retention', () => {
  it('registers of sealing expire eight epochs after their seal, others never', () => {
    const keys = ['close/3', 'ballot/3', 'seal/3', 'close/4', 'fact/close/3', 'close/x'];
    expect(keys.filter((key) => isExpired(key, 12))).toEqual(['close/3', 'ballot/3', 'seal/3']);
    expect(keys.filter((key) => isExpired(key, 11))).toEqual([]);
  });

  it('contents go with their seal when alone, and eight epochs later with others, each once', () => {
    const dropped: Digest[] = [];
    let releases: Releases = new Map();
    for (let epoch = 0; epoch < 30; epoch++) {
      const result = releaseWith(releases, epoch, [digest(epoch), digest(1_000)], epoch >= 25);
      dropped.push(...result.dropped);
      releases = parseReleases(formatReleases(result.kept));
      if (epoch >= 25) expect([...releases.keys()]).toEqual([]);
      else
        expect([...releases.keys()]).toEqual(
          Array.from({ length: Math.min(8, epoch + 1) }, (_, i) => Math.max(0, epoch - 7) + i),
        );
      // What another epoch still holds stays.
      if (epoch < 25) expect(result.dropped).toEqual(epoch < 8 ? [] : [digest(epoch - 8)]);
    }
    expect(dropped.filter((each) => each !== digest(1_000))).toEqual(Array.from({ length: 30 }, (_, i) => digest(i)));
    expect(dropped).toContain(digest(1_000));
  });

  it('what is pinned again is not let go of', () => {
    const releases: Releases = new Map([[3, [digest(1), digest(2)]]]);
    expect(withoutPinned(releases, new Set([digest(1)]))).toEqual(new Map([[3, [digest(2)]]]));
    expect(parseReleases(undefined)).toEqual(new Map());
  });
});

describe('what is not on disk yet', () => {
  const control = new Registers<ControlRegister, ReplicaId>({ keysMax: 100, equal: equalControl });
  const row = (version: number, customer: string, requests: number): UsageRow => ({
    key: usageKey(5, customer as CustomerId, 'inspect'),
    version,
    epoch: 5,
    customer: customer as CustomerId,
    sku: 'inspect',
    usage: { ...ZERO_USAGE, requests },
  });
  function book(): {
    readonly usage: Registers<UsageRow, WriterId>;
    readonly unsaved: Unsaved;
    readonly join: (...rows: UsageRow[]) => void;
  } {
    const usage = new Registers<UsageRow, WriterId>({ keysMax: 100, equal: equalUsageRow });
    const unsaved = new Unsaved(control, usage);
    const join = (...rows: UsageRow[]): void => {
      const [from, to] = [rows[0]!.version - 1, rows.at(-1)!.version];
      const { changed } = usage.join({ writer, from, to, end: to, registers: rows });
      unsaved.joined({ type: 'joined', class: 'usage', writer, changes: changed });
    };
    return { usage, unsaved, join };
  }
  const slot = { replica, run, epoch: 5 };

  it('goes whole up to the vector, never what is pending, and comes back if it was not written', () => {
    const { unsaved, join } = book();
    join(row(1, 'a', 1), row(2, 'b', 1));
    join(row(5, 'c', 1));
    const first = unsaved.take([]);
    expect(first.usage.map(({ version }) => version)).toEqual([1, 2]);
    expect(first.vectors).toEqual([{ class: 'usage', writer, upTo: 2 }]);
    unsaved.putBack(first);
    expect(unsaved.take([])).toEqual(first);
    unsaved.saved(first);
    join(row(3, 'a', 2), row(4, 'd', 1));
    expect(unsaved.take([]).usage.map(({ version }) => version)).toEqual([3, 4, 5]);
    expect(unsaved.isEmpty).toBe(true);
  });

  it('leaves out what a seal covers, but not what came to a slot after its rows went', () => {
    const { usage, unsaved, join } = book();
    join(row(1, 'a', 1));
    expect(unsaved.take([slot])).toMatchObject({ usage: [], vectors: [{ upTo: 1 }] });
    usage.drop(writer, [row(1, 'a', 1).key]);
    unsaved.gone([slot]);
    join(row(2, 'a', 2));
    const { gone, usage: rows } = unsaved.take([]);
    expect(gone).toEqual([slot]);
    expect(rows).toMatchObject([{ version: 2, usage: { requests: 2 } }]);
  });

  it('says when it should not wait any longer', () => {
    const { unsaved, join } = book();
    for (let version = 1; version <= 4_097; version++) {
      expect(unsaved.isFull).toBe(false);
      join(row(version, 'a', version));
    }
    expect(unsaved.isFull).toBe(true);
    expect(utf8(JSON.stringify(unsaved.take([]).usage)).length).toBeLessThan(1_000);
    expect(unsaved.isFull).toBe(false);
  });
});

describe('catching up', () => {
  const shown = (epoch: number): ShownEpoch => ({ epoch, header: utf8(`${epoch}`), checkpoint: '' });
  const [one, two] = ['1'.repeat(32), '2'.repeat(32)] as [ReplicaId, ReplicaId];

  it('asks once when somebody is there first, and again only when an epoch is overdue and nothing gets on', () => {
    const catchUp = new CatchUp();
    expect(catchUp.look(3, false, 0)).toEqual({});
    expect(catchUp.look(3, false, 60_000)).toBeNull();
    expect(catchUp.look(3, true, 60_000)).toEqual({});
    expect(catchUp.look(3, true, 62_000)).toBeNull();
    expect(catchUp.look(3, true, 65_000)).toEqual({});
    // It gets on, if slowly.
    expect(catchUp.look(4, true, 70_000)).toBeNull();
    expect(catchUp.look(4, true, 75_000)).toEqual({});
  });

  it('asks whoever is two epochs further, and not each time it shows', () => {
    const catchUp = new CatchUp();
    expect(catchUp.sign(one, 4, 3, 0)).toBeNull();
    expect(catchUp.sign(one, 5, 3, 0)).toEqual({ hint: one });
    expect(catchUp.sign(two, 6, 3, 500)).toBeNull();
    expect(catchUp.sign(two, 6, 3, 1_000)).toEqual({ hint: two });
  });

  it('hands on what is next, once, then asks the same member for more', () => {
    const catchUp = new CatchUp();
    catchUp.received(two, [shown(3), shown(4), shown(5)], 0);
    expect(catchUp.sign(one, 9, 3, 10)).toBeNull();
    expect(catchUp.next(3)?.epoch).toBe(3);
    expect(catchUp.next(3)).toBeNull();
    expect(catchUp.more(3, 100)).toBeNull();
    // Another way was faster.
    expect(catchUp.next(5)?.epoch).toBe(5);
    expect(catchUp.more(6, 200)).toEqual({ hint: two });
    expect(catchUp.more(6, 300)).toBeNull();
    expect(catchUp.next(6)).toBeNull();
  });

  it('hands the same epoch on again when another member shows it, once nothing came of the first', () => {
    const catchUp = new CatchUp();
    catchUp.received(one, [shown(3)], 0);
    expect(catchUp.next(3)?.epoch).toBe(3);
    expect(catchUp.look(3, true, 60_000)).toEqual({});
    catchUp.received(two, [shown(3)], 60_100);
    expect(catchUp.next(3)?.epoch).toBe(3);
  });
});
