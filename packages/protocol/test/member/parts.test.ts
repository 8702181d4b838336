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
import { UsageBook } from '../../src/member/usage-book.ts';
import type { Alarm, Now } from '../../src/member/index.ts';
import type { Genesis } from '../../src/sealing/index.ts';
import type { ShownEpoch } from '../../src/replication/index.ts';
import type { SealedEpoch } from '../../src/sealing/index.ts';
import { slotName, type Slot } from '../../src/usage/index.ts';
import { usageOf } from './harness.ts';

const replica = 'ab'.repeat(16) as ReplicaId;
const run = 3 as Run;
const writer = usageWriter(replica, run);
const digest = (n: number): Digest => n.toString(16).padStart(64, '0') as Digest;

describe('clocks', () => {
  const ids = [1, 2, 3, 4].map((n) => String(n).repeat(32) as ReplicaId) as [
    ReplicaId,
    ReplicaId,
    ReplicaId,
    ReplicaId,
  ];
  const genesis = { startMs: 0, epochMs: 10_000 } as Genesis;
  const clocksOf = (given: { voters?: readonly ReplicaId[]; members?: readonly ReplicaId[] } = {}): Clocks => {
    const { voters = [replica, ...ids], members = ids } = given;
    const clocks = new Clocks(replica, {
      isVoter: (other) => voters.includes(other),
      isMember: (other) => members.includes(other),
      others: () => members.length,
    });
    clocks.started(0);
    return clocks;
  };
  /** Ms since the start, and how far the own clock is ahead of that. */
  const at = (steadyMs: number, aheadMs = 0): Now => ({ steadyMs, wallMs: steadyMs + aheadMs });
  const HOUR = 3_600_000;

  it('of three one may be wrong, either way, this node as well; of two the one that is ahead counts', () => {
    const clocks = clocksOf();
    expect(clocks.read(at(20_000)).membersClockMs).toBeNull();
    clocks.heard(ids[0], 20_000 - HOUR, 20_000);
    expect(clocks.read(at(20_000)).membersClockMs).toBe(20_000);
    clocks.heard(ids[0], 20_000 + HOUR, 20_000);
    clocks.heard(ids[1], 20_010, 20_000);
    expect(clocks.read(at(20_000)).membersClockMs).toBe(20_010);
    clocks.heard(ids[0], 20_000 - HOUR, 20_000);
    expect(clocks.read(at(21_000)).membersClockMs).toBe(21_000);
    clocks.heard(ids[0], 20_000, 20_000);
    expect(clocks.read(at(20_000, HOUR)).membersClockMs).toBe(20_010);
  });

  it('two voters that are heard count alone, and those that are retired never', () => {
    const heardOf = (clocks: Clocks): number | null => {
      for (const [i, id] of ids.entries()) clocks.heard(id, i < 2 ? 20_000 : 20_000 + HOUR, 20_000);
      return clocks.read(at(20_000)).membersClockMs;
    };
    expect(heardOf(clocksOf({ voters: ids }))).toBe(20_000);
    expect(heardOf(clocksOf({ voters: ids.slice(2) }))).toBe(20_000 + HOUR);
    expect(heardOf(clocksOf({ voters: ids.slice(0, 2) }))).toBe(20_000);
    expect(heardOf(clocksOf({ voters: ids.slice(1, 2), members: ids.slice(0, 3) }))).toBe(20_000);
  });

  it('goes on with time, and counts for five minutes', () => {
    const clocks = clocksOf();
    clocks.heard(ids[0], 25_000, 20_000);
    expect(clocks.read(at(319_000)).membersClockMs).toBe(324_000);
    expect(clocks.read(at(320_001)).membersClockMs).toBeNull();
  });

  it('after a start two others are awaited, if there are two, and ten seconds at most', () => {
    const clocks = clocksOf();
    expect(clocks.read(at(1)).membersClockMs).toBe(Number.NEGATIVE_INFINITY);
    clocks.heard(ids[0], 1_000, 1_000);
    expect(clocks.read(at(1_000)).membersClockMs).toBe(Number.NEGATIVE_INFINITY);
    clocks.heard(ids[1], 1_000, 1_000);
    expect(clocks.read(at(1_000)).membersClockMs).toBe(1_000);
    const deserted = clocksOf();
    expect(deserted.read(at(9_999)).membersClockMs).toBe(Number.NEGATIVE_INFINITY);
    expect(deserted.read(at(10_000)).membersClockMs).toBeNull();
    expect(clocksOf({ members: [] }).read(at(0)).membersClockMs).toBeNull();
    const two = clocksOf({ members: ids.slice(0, 1) });
    two.heard(ids[0], 5, 5);
    expect(two.read(at(5)).membersClockMs).toBe(5);
  });

  it('an alarm names the clock that is apart, once until it is right again', () => {
    const clocks = clocksOf();
    const raised = (wallMs: number): Alarm[] => {
      clocks.heard(ids[0], wallMs, 20_000);
      clocks.heard(ids[1], 20_000, 20_000);
      return clocks.alarms(at(20_000), genesis, 2);
    };
    const behind = { what: 'clockApart', replica: ids[0], aheadMs: -HOUR, isOwn: false };
    expect(raised(20_000 - HOUR)).toEqual([behind]);
    expect(raised(20_000 - HOUR)).toEqual([]);
    expect(raised(20_000 - 60_000)).toEqual([]);
    expect(raised(20_000 - HOUR)).toEqual([behind]);
    expect(clocks.read(at(20_000)).apart).toEqual([{ replica: ids[0], aheadMs: -HOUR }]);
    raised(20_000);
    expect(clocks.alarms(at(20_000, HOUR), genesis, 500)).toEqual([
      { what: 'clockApart', replica, aheadMs: HOUR, isOwn: true },
      { what: 'clockAhead', epoch: 500, membersClockMs: 20_000 },
    ]);
  });

  it('an alarm says that the open epoch has not begun for more than a minute', () => {
    const clocks = clocksOf();
    clocks.heard(ids[0], 20_000, 20_000);
    clocks.heard(ids[1], 20_000, 20_000);
    expect(clocks.alarms(at(20_000), genesis, 8)).toEqual([]);
    const alarm = { what: 'clockAhead', epoch: 9, membersClockMs: 20_000 };
    expect(clocks.alarms(at(20_000), genesis, 9)).toEqual([alarm]);
    expect(clocks.alarms(at(20_000), genesis, 9)).toEqual([]);
    // Also when nobody can contradict; but not as long as somebody may.
    expect(clocksOf({ members: [] }).alarms(at(20_000), genesis, 9)).toEqual([alarm]);
    expect(clocksOf().alarms(at(9_999), genesis, 9)).toEqual([]);
  });

  it('an alarm says that an epoch which is over by its own clock is held open by the others', () => {
    const clocks = clocksOf();
    for (const id of ids) clocks.heard(id, 20_000, 20_000);
    const held = (epoch: number): string[] => clocks.alarms(at(20_000, HOUR), genesis, epoch).map(({ what }) => what);
    expect(held(7)).toEqual(['clockApart']);
    expect(held(8)).toEqual(['clockAhead']);
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

  it('end when this node needs a content no more, whoever else waits for the disk', () => {
    const lookups = new Lookups();
    for (const purpose of ['sealing', 'counted', 'peers'] as const) lookups.add(digest(1), purpose);
    expect(lookups.drop(digest(1), 'sealing')).toBe(false);
    expect(lookups.drop(digest(1), 'counted')).toBe(true);
    expect(lookups.answerPeers(digest(1))).toBe(true);
    lookups.add(digest(2), 'sealing');
    expect(lookups.drop(digest(2), 'sealing')).toBe(true);
    expect(lookups.isWanted(digest(2))).toBe(false);
    expect(lookups.add(digest(2), 'sealing')).toBe(true);
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

  it('goes in pieces when it is much, the vector with the last: a crash between them claims nothing that is not there', () => {
    const count = 20_000;
    const usage = new Registers<UsageRow, WriterId>({ keysMax: count, equal: equalUsageRow });
    const unsaved = new Unsaved(control, usage);
    // Every other version was overwritten by a later one.
    const rows = Array.from({ length: count }, (_, i) => row(2 * (i + 1), `c${i}`, 1));
    const end = 2 * count;
    unsaved.joined({
      type: 'joined',
      class: 'usage',
      writer,
      changes: usage.join({ writer, from: 0, to: end, end, registers: rows }).changed,
    });
    const disk: UsageRow[] = [];
    let upTo = 0;
    const isWritten = unsaved.mark();
    for (let pieces = 1; !isWritten(); pieces++) {
      const taken = unsaved.take([]);
      expect(isWritten()).toBe(false);
      if (pieces === 2) {
        unsaved.putBack(taken);
        expect(unsaved.take([])).toEqual(taken);
      }
      unsaved.saved(taken);
      disk.push(...taken.usage.map(({ version, customer }) => row(version, customer, 1)));
      upTo = taken.vectors[0]?.upTo ?? upTo;
      const restarted = new Registers<UsageRow, WriterId>({ keysMax: count, equal: equalUsageRow });
      for (const register of disk) restarted.restore(writer, register);
      restarted.restored([[writer, upTo]]);
      expect(restarted.upTo(writer)).toBe(pieces < 3 ? 0 : end);
      expect(unsaved.isFull).toBe(pieces < 3);
      expect([...restarted.of(writer)]).toHaveLength(Math.min(pieces * 8_192, count));
    }
    expect(disk).toEqual(rows);
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

describe('the usage of ten thousand runs', () => {
  const runs = Array.from({ length: 10_000 }, (_, i) => (i + 1) as Run);
  const content: Slot = [{ customer: 'acme' as CustomerId, sku: 'resize.jpeg', usage: usageOf(1) }];
  const own = { replica: '1'.repeat(32) as ReplicaId, run };

  /** A book with one row of each, all of them counted by seals, as it is read from disk. */
  function read(): UsageBook {
    const counted = new Map(runs.map((of) => [slotName({ replica, run: of, epoch: 0 }), digest(1)]));
    const book = new UsageBook(own, { epoch: 1, previous: null, roster: [], format: 1, counted, closed: new Map() });
    for (const of of runs) book.restore({ replica, run: of, epoch: 0, version: 1, ...content[0]! });
    expect(new Set(book.restored(runs.map((of) => [usageWriter(replica, of), 1])))).toEqual(new Set([digest(1)]));
    return book;
  }

  it('is off the registers when seals have counted it, all but the last run, which may go on', () => {
    const book = read();
    expect(book.settled()).toEqual([]);
    expect(book.counted(digest(1), content, 1)).toHaveLength(runs.length);
    const settled = book.settled();
    expect(new Set(settled)).toEqual(new Set(runs.slice(0, -1).map((of) => usageWriter(replica, of))));
    for (const over of settled) {
      book.forget(over);
      book.registers.forget(over);
    }
    expect(book.registers.writers()).toEqual([usageWriter(replica, 10_000 as Run)]);
    expect(book.view.epochs()).toEqual([]);
  });

  it('comes back with a row that nobody has counted, and then counts for what it is more', () => {
    const book = read();
    book.counted(digest(1), content, 1);
    const seventh = usageWriter(replica, 7 as Run);
    book.forget(seventh);
    book.registers.forget(seventh);
    const late: UsageRow = {
      key: usageKey(0, content[0]!.customer, 'resize.jpeg'),
      version: 2,
      epoch: 0,
      ...content[0]!,
    };
    book.joined(seventh, [{ register: { ...late, usage: usageOf(5) }, previous: undefined }]);
    expect(book.view.usage(0)).toEqual(usageOf(4));
    expect(book.isOver(seventh)).toBe(true);
    expect(book.isOver(usageWriter(replica, 10_000 as Run))).toBe(false);
  });
});

describe('a large slot', () => {
  const own = { replica: 'a'.repeat(32) as ReplicaId, run: 1 as Run };
  const ownWriter = usageWriter(own.replica, own.run);
  const rowsIn = (epoch: number, count: number, version: number): UsageRow[] =>
    Array.from({ length: count }, (_, i) => {
      const customer = `c${i}` as CustomerId;
      const key = usageKey(epoch, customer, 'inspect');
      return { key, version: version + i, epoch, customer, sku: 'inspect', usage: usageOf(1) };
    });
  /** The seal of epoch 0, which counts the slot as closed. */
  const sealed = (): SealedEpoch => {
    const id = { ...own, epoch: 0, digest: '0'.repeat(64) as Digest, closed: true, salt: null };
    const next = {
      epoch: 1,
      previous: null,
      roster: [],
      format: 1,
      counted: new Map(),
      closed: new Map([[ownWriter, [[0, 0]]]]),
    };
    return { epoch: 0, outcome: { slots: [{ id, content: new Uint8Array(0) }], next } } as unknown as SealedEpoch;
  };
  const started = (): UsageBook => {
    const chain = { epoch: 0, previous: null, roster: [], format: 1, counted: new Map(), closed: new Map() };
    return new UsageBook(own, chain);
  };

  it('is out of the open figures at once, and of the registers little by little', () => {
    const book = started();
    book.apply(rowsIn(0, 5_000, 1));
    book.apply(rowsIn(1, 3, 5_001));
    const seal = sealed();
    const covered = book.coveredBy(seal, 1);
    expect(covered).toEqual([{ ...own, epoch: 0 }]);
    expect(book.seal(seal, covered, 1)).toEqual([]);
    expect(book.view.epochs()).toEqual([1]);
    expect(book.isTidy).toBe(false);
    const left = [...book.registers.of(ownWriter)].length;
    expect(left).toBeGreaterThan(3);
    expect(left).toBeLessThan(5_003);
    const gone = [];
    for (let i = 0; i < 10 && !book.isTidy; i++) gone.push(...book.tidy());
    expect(gone).toEqual([{ ...own, epoch: 0 }]);
    expect([...book.registers.of(ownWriter)].map(({ epoch }) => epoch)).toEqual([1, 1, 1]);
    expect(book.view.usage(1)).toEqual(usageOf(3));
  });

  it('leaves the figures of another that nobody has counted', () => {
    const book = started();
    const other = usageWriter('b'.repeat(32) as ReplicaId, 1 as Run);
    book.apply(rowsIn(0, 10, 1));
    book.joined(
      other,
      book.registers.join({ writer: other, from: 0, to: 4, end: 4, registers: rowsIn(0, 4, 1) }).changed,
    );
    expect(book.view.usage(0)).toEqual(usageOf(14));
    book.seal(sealed(), book.coveredBy(sealed(), 1), 1);
    expect(book.view.usage(0)).toEqual(usageOf(4));
    expect(book.isTidy).toBe(true);
    expect([...book.registers.of(ownWriter)]).toEqual([]);
  });
});

describe('catching up', () => {
  const genesis = { startMs: 0, epochMs: 10_000, sealGraceMs: 0 } as Genesis;
  const shown = (epoch: number): ShownEpoch => ({ epoch, header: utf8(`${epoch}`), checkpoint: '' });
  const [one, two] = ['1'.repeat(32), '2'.repeat(32)] as [ReplicaId, ReplicaId];

  it('asks once when somebody is there first, and again only when an epoch is overdue and nothing gets on', () => {
    const catchUp = new CatchUp(genesis);
    const look = (epoch: number, steadyMs: number, isOverdue = true) =>
      catchUp.look(epoch, { wallMs: isOverdue ? 43_000 + 10_000 * (epoch - 3) : 42_999, steadyMs });
    expect(look(3, 0, false)).toEqual({});
    expect(look(3, 60_000, false)).toBeNull();
    expect(look(3, 60_000)).toEqual({});
    expect(look(3, 62_000)).toBeNull();
    expect(look(3, 65_000)).toEqual({});
    // It gets on, if slowly.
    expect(look(4, 70_000)).toBeNull();
    expect(look(4, 75_000)).toEqual({});
  });

  it('asks whoever is two epochs further, and not each time it shows', () => {
    const catchUp = new CatchUp(genesis);
    expect(catchUp.sign(one, 4, 3, 0)).toBeNull();
    expect(catchUp.sign(one, 5, 3, 0)).toEqual({ hint: one });
    expect(catchUp.sign(two, 6, 3, 500)).toBeNull();
    expect(catchUp.sign(two, 6, 3, 1_000)).toEqual({ hint: two });
  });

  it('hands on what is next, once, then asks the same member for more', () => {
    const catchUp = new CatchUp(genesis);
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
    const catchUp = new CatchUp(genesis);
    catchUp.received(one, [shown(3)], 0);
    expect(catchUp.next(3)?.epoch).toBe(3);
    expect(catchUp.look(3, { wallMs: 43_000, steadyMs: 60_000 })).toEqual({});
    catchUp.received(two, [shown(3)], 60_100);
    expect(catchUp.next(3)?.epoch).toBe(3);
  });
});
