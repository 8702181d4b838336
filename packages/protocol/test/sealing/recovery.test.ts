import { describe, expect, it } from 'vitest';
import { present, type Json } from '../../src/base/index.ts';
import { ZERO_USAGE } from '../../src/lattice/index.ts';
import { lateSlots, RULES, writtenOff, type SealingRules } from '../../src/sealing/index.ts';
import { compareBallots, parseBallotState, type Ballot } from '../../src/sealing/ballots.ts';
import { covers, encodeSlot } from '../../src/usage/index.ts';
import { usageOf } from './harness.ts';
import { slotsIn } from '../support.ts';
import { World, type Faults, type Walker } from './walk.ts';

type Three = [Walker, Walker, Walker];
const GRACE_MS = 4_000;

function worldOf(broken: Partial<SealingRules> = {}, showsSealed = true): { world: World; abc: Three } {
  const world = new World({ seed: 1, members: 3, lossPercent: 0, faults: { rules: broken }, showsSealed });
  return { world, abc: world.walkers as Three };
}

/** Rounds of everyone who can be reached, until time has brought what it can. */
function run(world: World, rounds: number): void {
  for (let i = 0; i < rounds; i++) world.round();
}

/** Everyone meters and closes epoch 0; nobody has heard of it. */
function closed(world: World): void {
  for (const [i, walker] of world.walkers.entries()) walker.meter('shop', i + 1);
  world.toEndOf(0);
  for (const walker of world.walkers) walker.tick();
}

const sealedBy = (walker: Walker, epoch = 0): Walker['disk']['sealed'][number]['sealed'] =>
  walker.disk.sealed[epoch]!.sealed;

describe('recovery, after the deadline', () => {
  it('seals without one who is cut off, at a ballot above 0, and counts it later', () => {
    const { world, abc } = worldOf();
    const [a, b, c] = abc;
    closed(world);
    c.isCut = true;
    run(world, 2);
    expect(a.disk.sealed).toEqual([]);
    expect(a.sealing.status()).toEqual({
      epoch: 0,
      phase: 'closing',
      waitingFor: [c.replica],
      deadlineMs: 1_700_000_000_000 + 20_000 + GRACE_MS,
      ballot: { round: 0, replica: '' },
      mayLeave: false,
    });
    expect(a.sealing.wakeAtMs).toBeGreaterThanOrEqual(a.sealing.status().deadlineMs);
    run(world, 30);
    for (const walker of [a, b]) {
      expect(writtenOff(sealedBy(walker))).toEqual([
        expect.objectContaining({ replica: c.replica, epoch: 0, closed: false, salt: null }),
      ]);
      expect(JSON.parse(walker.disk.own.get('ballot/0')!.value)).toMatchObject({ promised: { round: 1 } });
    }
    expect(c.disk.sealed).toEqual([]);
    expect(c.sealing.status().waitingFor).toContain(a.replica);
    for (let epoch = 1; epoch <= 3; epoch++) world.heal(epoch);
    for (const walker of world.walkers) expect(world.statements(walker)).toEqual(world.acknowledged);
    const late = a.disk.sealed.flatMap(({ sealed }) => lateSlots(sealed));
    expect(late.map(({ replica, epoch, closed: isClosed }) => [replica, epoch, isClosed])).toContainEqual([
      c.replica,
      0,
      true,
    ]);
    // Nothing is left open: the slot was closed, and counted as that.
    expect([...a.sealing.counted.keys()]).toEqual([]);
  });

  it('counts what a majority holds of one that was lost', () => {
    const { world, abc } = worldOf();
    const [a, b, c] = abc;
    c.meter('shop', 9);
    a.exchange(c, 0);
    b.exchange(c, 0);
    world.lose(c);
    world.toEndOf(0);
    run(world, 40);
    for (const walker of [a, b]) expect(world.statements(walker)).toEqual(usageOf(9));
  });

  it('names a voter of whom nobody holds anything, with an empty slot', () => {
    const { world, abc } = worldOf();
    const [a, , c] = abc;
    world.lose(c);
    world.heal(2);
    for (const epoch of [0, 1, 2]) {
      const [absent] = writtenOff(sealedBy(a, epoch));
      expect(absent).toMatchObject({ replica: c.replica, run: 1, epoch });
    }
    expect(world.statements(a)).toEqual(ZERO_USAGE);
    expect([...a.sealing.counted.keys()]).toEqual([]);
  });

  it('improves the certificate when more signatures come, until all have the same', () => {
    const { world, abc } = worldOf({}, false);
    const [a, b, c] = abc;
    closed(world);
    for (let i = 0; i < 3; i++)
      for (const walker of abc) for (const other of abc) if (walker !== other) walker.listen(other);
    world.heal(0);
    run(world, 3);
    expect(new Set([a, b, c].map(({ disk }) => disk.sealed[0]!.checkpoint)).size).toBe(1);
  });

  it('keeps what no correct member writes as evidence', () => {
    const { world, abc } = worldOf();
    const [a, b] = abc;
    closed(world);
    const close = b.disk.own.get('close/0')!;
    a.hear(b.replica, 'close/0', close);
    a.hear(b.replica, 'close/0', { version: 99, value: close.value.replace('"run":1', '"run":2') });
    const stranger = '0'.repeat(32) as typeof b.replica;
    const ballot = '{"accepted":null,"frontier":null,"promised":{"replica":"","round":0}}';
    a.hear(stranger, 'ballot/0', { version: 1, value: ballot });
    const seal = `{"header":"${'0'.repeat(64)}","lines":"— x AAAAAAAA\\n— y AAAAAAAA\\n"}`;
    a.hear(b.replica, 'seal/0', { version: 98, value: seal });
    world.walkers[2]!.exchange(a, 0);
    world.heal(0);
    const kinds = new Set(a.sealing.evidence.map(({ what, replica }) => `${what} ${replica}`));
    expect(kinds).toContain(`closedTwice ${b.replica}`);
    expect(kinds).toContain(`noVote ${stranger}`);
    expect(a.disk.sealed).toHaveLength(1);
  });

  it('hears nothing of epochs that are far from having begun, and says so once', () => {
    const { world, abc } = worldOf();
    const [a, b] = abc;
    closed(world);
    const close = b.disk.own.get('close/0')!;
    const ahead = (epoch: number): void =>
      a.hear(b.replica, `close/${epoch}`, {
        version: epoch,
        value: close.value.replace('"epoch":0', `"epoch":${epoch}`),
      });
    for (const epoch of [500, 1_000]) ahead(epoch);
    expect(a.sealing.evidence).toEqual([]);
    for (let epoch = 2_000; epoch < 2_100; epoch++) ahead(epoch);
    expect(a.sealing.evidence).toEqual([{ epoch: 2_000, replica: b.replica, what: 'ahead', code: 'DECODE_FAILED' }]);
    world.nowMs += 1_200 * world.cluster.genesis.epochMs;
    expect(() => a.hear(b.replica, 'close/2100', { version: 9_999, value: close.value })).toThrow('2100');
    expect(a.sealing.evidence.map(({ what }) => what)).toEqual(['ahead', 'malformed']);
  });

  it('refuses a sealed epoch that does not follow, or that no majority signed, and takes a good one', () => {
    const { world, abc } = worldOf();
    const [a, b, c] = abc;
    closed(world);
    c.isCut = true;
    run(world, 40);
    world.toEndOf(1);
    run(world, 40);
    c.isCut = false;
    const [first, second] = a.disk.sealed;
    const note = first!.checkpoint;
    const show = (header: Uint8Array, checkpoint: string): void => c.handle({ type: 'learned', header, checkpoint });
    const sealed = first!.sealed.value.header;
    show(sealed, note.slice(0, note.indexOf('\n— ') + 1) + '\n— x AAAAAAAA\n');
    show(sealed, second!.checkpoint);
    show(second!.sealed.value.header, second!.checkpoint);
    c.commit();
    c.fetch();
    c.commit();
    expect(c.disk.sealed).toHaveLength(0);
    show(sealed, note);
    for (let i = 0; i < 6; i++) {
      c.commit();
      c.fetch();
    }
    c.commit();
    // The second had come before, and waited.
    expect(c.disk.sealed.map(({ sealed: { epoch } }) => epoch)).toEqual([0, 1]);
    expect(c.disk.sealed[0]!.checkpoint).toBe(note);
    expect(b.disk.sealed[1]!.checkpoint).toBe(c.disk.sealed[1]!.checkpoint);
  });
});

/** Each a rule of PROTOCOL section 5 and what comes of it; without the rule, something is lost, or nothing is sealed any more. */
const stories: Record<
  string,
  { readonly broken: Partial<SealingRules>; readonly tell: (broken: Partial<SealingRules>) => void }
> = {
  'seals nothing without a vote, though all closes are held': {
    broken: { decided: (votes, quorum, own) => own.determined() ?? RULES.decided(votes, quorum, own) },
    tell: (broken) => {
      const { world, abc } = worldOf(broken);
      const [a, b, c] = abc;
      closed(world);
      for (let i = 0; i < 4; i++) {
        a.listen(b);
        a.listen(c);
        a.commit();
        a.fetch();
      }
      a.isCut = true;
      run(world, 40);
      for (let epoch = 0; epoch <= 3; epoch++) world.heal(epoch);
      for (const walker of world.walkers) expect(walker.sealing.evidence).toEqual([]);
    },
  },
  'names no close in a promise whose content it does not hold': {
    broken: { namesClose: () => true },
    tell: (broken) => {
      const { world, abc } = worldOf(broken);
      const [a, b, c] = abc;
      closed(world);
      b.listen(a);
      c.listen(a);
      b.commit();
      c.commit();
      world.lose(a);
      world.heal(1);
    },
  },
  'takes no part in an epoch whose own slot is open': {
    broken: { mayVote: () => true },
    tell: (broken) => {
      const { world, abc } = worldOf(broken);
      const [a, b, c] = abc;
      c.meter('shop', 1);
      world.toEndOf(0);
      for (const walker of [a, b]) walker.tick();
      world.nowMs += 10_000;
      a.tick();
      c.listen(a);
      c.commit();
      c.meter('shop', 1);
      for (let epoch = 0; epoch <= 3; epoch++) world.heal(epoch);
      expect(world.statements(b)).toEqual(usageOf(2));
    },
  },
  'goes on voting in epochs that it knows sealed': {
    broken: { servesSealed: () => false },
    tell: (broken) => {
      const { world, abc } = worldOf(broken, false);
      const [a, b, c] = abc;
      closed(world);
      c.isCut = true;
      run(world, 40);
      expect(b.disk.sealed).toHaveLength(1);
      // What it held of the others' registers is gone, and so is one of them.
      world.lose(a);
      b.heard.delete(a.replica);
      c.isCut = false;
      for (let i = 0; i < 400 && c.disk.own.get('seal/0') === undefined; i++) world.round();
      expect(c.disk.own.has('seal/0')).toBe(true);
    },
  },
  'counts no promise above its ballot, which may be older, and so its frontier': {
    broken: { isPromise: ({ promised }, ballot) => compareBallots(promised, ballot) >= 0 },
    tell: (broken) => {
      // Computing takes a while: a member may have heard of a higher ballot and not promised it yet.
      const world = new World({
        seed: 1,
        members: 3,
        joiners: 1,
        lossPercent: 0,
        faults: { rules: broken },
        inlineBytes: 2_000,
      });
      const late = world.walkers[3]!;
      const [a, b, c] = world.cluster.genesis.roster.map(({ replica }) =>
        present(
          world.walkers.find((walker) => walker.replica === replica),
          replica,
        ),
      ) as Three;
      const settle = (walker: Walker): void => {
        for (let i = 0; i < 6; i++) {
          walker.commit();
          walker.fetch();
        }
      };
      const hear = (walker: Walker, from: Walker): void => {
        for (const [key, register] of from.disk.own) walker.hear(from.replica, key, register);
      };
      const prepare = (walker: Walker): Ballot => {
        walker.tick();
        settle(walker);
        return parseBallotState(JSON.parse(walker.disk.own.get('ballot/0')!.value) as Json).promised;
      };
      for (let i = 0; i < 50; i++) late.meter(`c${i}`, 1);
      closed(world);
      world.walkers.forEach(settle);
      world.nowMs = Math.max(a.sealing.wakeAtMs, b.sealing.wakeAtMs);
      const above = prepare(b);
      // B is not heard. A majority, it and C, holds what somebody without a vote has counted before A prepares.
      for (const member of [b, c]) member.exchange(late, 0);
      expect(compareBallots(prepare(a), above)).toBeLessThan(0);
      hear(c, a);
      settle(c);
      // What A holds has changed: it computes, while B is heard.
      a.exchange(late, 0);
      for (const bytes of b.disk.contents.values()) a.handle({ type: 'content', bytes });
      hear(a, b);
      a.commit();
      hear(c, a);
      settle(c);
      hear(a, c);
      for (let epoch = 0; epoch <= 2; epoch++) world.heal(epoch);
    },
  },
  'joins contents that it has fetched into what it holds of a slot': {
    broken: { partsOf: (counted) => RULES.partsOf(counted, []) },
    tell: (broken) => fetched(broken, 'joined'),
  },
  'recovers from frontiers, never from reports': {
    broken: { recoveredFrom: (frontiers, reported) => [...frontiers, ...reported()] },
    tell: (broken) => fetched(broken, 'sealed'),
  },
};

/** One reports two slots of its earlier runs and is lost; the others have fetched one of them, and the other is gone with it. */
function fetched(broken: Partial<SealingRules>, what: 'joined' | 'sealed'): void {
  const { world, abc } = worldOf(broken);
  const [a, b, c] = abc;
  a.meter('shop', 3);
  const early = [...a.disk.rows.values()][0]!.rows;
  a.start();
  a.meter('shop', 5);
  const dying = [...a.disk.rows.values()].at(-1)!.rows;
  a.start();
  world.toEndOf(0);
  for (const walker of abc) walker.tick();
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
  for (const [digest, bytes] of a.disk.contents)
    if (text(bytes) === text(encodeSlot(dying))) a.disk.contents.delete(digest);
  for (let i = 0; i < 6; i++) {
    for (const walker of [b, c]) {
      for (const other of abc) if (other !== walker) walker.listen(other);
      walker.commit();
      walker.fetch();
    }
  }
  world.lose(a);
  world.heal(2);
  const contents = b.disk.sealed.flatMap(({ sealed }) => slotsIn(sealed).map(({ content }) => content));
  if (what === 'joined') expect(contents.some((content) => content.length > 0 && covers(content, early))).toBe(true);
}

/** Someone without a vote is heard of late, and is lost right after: in what order the others take what it had. */
function latecomer(faults: Faults): void {
  const world = new World({ seed: 1, members: 3, joiners: 1, lossPercent: 0, faults });
  const [a, b, c, late] = world.walkers as [...Three, Walker];
  late.meter('shop', 3);
  for (const member of [a, b, c]) member.exchange(late, 0);
  late.meter('zoo', 4);
  late.isCut = true;
  world.toEndOf(0);
  late.tick();
  run(world, 10);
  expect(world.statements(a)).toEqual(usageOf(3));
  world.toEndOf(1);
  for (const member of [a, b, c]) member.tick();
  // Its close of 0, and the rest of its rows, come between the closes of 1 and their seal.
  for (const member of [a, b, c]) {
    member.listen(late);
    for (const { id, rows } of late.disk.rows.values())
      member.hold(
        id,
        rows.filter(({ customer }) => customer === 'zoo'),
      );
  }
  world.lose(late);
  for (let epoch = 1; epoch <= 4; epoch++) world.heal(epoch);
  for (const member of [a, b, c]) {
    expect(world.statements(member)).toEqual(usageOf(7));
    expect([...member.sealing.counted]).toEqual([]);
  }
}

describe('usage of someone without a vote, late and then lost', () => {
  it('is counted once, and once more as closed', () => latecomer({}));
  const wrong: Record<string, Faults> = {
    'dropping rows that no seal has counted': { dropsUncounted: true },
    'refusing rows of sealed epochs': { refusesLate: true },
    'a late digest of less than what was counted': { rules: { partsOf: () => [] } },
  };
  for (const [name, faults] of Object.entries(wrong))
    it(`is lost, or left open, by ${name}`, () => {
      expect(() => latecomer(faults)).toThrow(/./);
    });
});

describe('a member', () => {
  for (const [name, { broken, tell }] of Object.entries(stories)) {
    it(`${name}: nothing is lost`, () => tell({}));
    it(`${name}: if not, it is seen`, () => {
      expect(() => tell(broken)).toThrow(/./);
    });
  }
});
