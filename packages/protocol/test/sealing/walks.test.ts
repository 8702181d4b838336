import { describe, expect, it } from 'vitest';
import type { Roster } from '../../src/sealing/index.ts';
import { fakeNextRoster, World, type Faults, type WorldOptions } from './walk.ts';

/** How many times more walks than in a quick run: for hours, set `WALKS`. */
const SCALE = Number(process.env['WALKS'] ?? 1);

const LIVELY = { crash: 3, cut: 3 };

/** A walk through some epochs, then everything heals: whatever was acknowledged is sealed. */
function walk(
  options: WorldOptions,
  steps: number,
  chances = LIVELY,
  between: (world: World, i: number) => void = () => {},
): World {
  const world = new World(options);
  for (let i = 0; i < steps; i++) {
    world.step(chances);
    between(world, i);
  }
  const last = Math.max(...world.up.map(({ sealing }) => sealing.openEpoch));
  world.heal(last);
  // The next close reports more of a slot that has grown since it was counted, once the counted content is there.
  for (let epoch = last + 1; epoch <= last + 2; epoch++) world.heal(epoch);
  // Signatures that came after the seal get around.
  for (let i = 0; i < 6; i++) world.round();
  return world;
}

/** All that was acknowledged is in the statements, everyone says the same, and nobody was accused. */
function judge(world: World): void {
  const [first] = world.up;
  for (const walker of world.up) {
    expect(walker.sealing.evidence).toEqual([]);
    if (world.lostDisks === 0) expect(world.statements(walker), 'invariant 3').toEqual(world.acknowledged);
    // Registers of older epochs are not shown any more: signatures that came too late for one stay away.
    const sealedByBoth = [...walker.disk.sealed.entries()].slice(0, first!.disk.sealed.length);
    for (const [epoch, { checkpoint }] of sealedByBoth.slice(-6))
      expect(checkpoint).toBe(first!.disk.sealed[epoch]!.checkpoint);
  }
}

describe('random walks of whole members (invariants 1 to 8)', () => {
  it('agree and conserve, whatever is lost on the way, cut off or killed', () => {
    let recoveries = 0;
    for (let seed = 0; seed < 16 * SCALE; seed++) {
      const world = walk({ seed, members: 2 + (seed % 4), inlineBytes: seed % 3 === 0 ? undefined : 0 }, 400);
      judge(world);
      recoveries += world.recoveries;
    }
    expect(recoveries).toBeGreaterThan(5);
  });

  it('agree when a minority loses its disks for ever', () => {
    for (let seed = 0; seed < 6 * SCALE; seed++) {
      const world = walk({ seed, members: 3 + 2 * (seed % 2) }, 300, { crash: 2, cut: 2 }, (walking, i) => {
        if (i === 150) walking.lose(walking.up[seed % 3]!);
        if (i === 200 && seed % 2 === 1) walking.lose(walking.up[seed % 4]!);
      });
      judge(world);
    }
  });

  it('agree while members come and go', () => {
    for (let seed = 0; seed < 6 * SCALE; seed++) {
      const options = { seed, members: 1 + (seed % 3), joiners: 2 };
      const world = walk(options, 500, { crash: 2, cut: 2 }, (walking, i) => {
        if (i === 50) for (const joiner of walking.walkers.slice(options.members)) walking.admit(joiner);
        if (i === 250) walking.retire(walking.walkers[0]!);
      });
      judge(world);
      const leaver = world.walkers[0]!;
      const voters = (roster: Roster): string[] => roster.map(({ replica }) => replica);
      for (const walker of world.up) {
        const expected = world.walkers.filter((other) => other !== leaver).map(({ replica }) => replica as string);
        expect(voters(walker.disk.chain.roster)).toEqual(expected.sort());
      }
      expect(leaver.sealing.status().mayLeave).toBe(true);
      expect(world.walkers[1]!.sealing.status().mayLeave).toBe(false);
      expect(leaver.disk.chain.roster.length).toBe(options.members + 1);
    }
  });
});

describe('a wrong rule', () => {
  const wrong: Record<string, Faults> = {
    'an acceptor that lost its votes and kept its name': { amnesia: true },
    'closing a slot twice': { closesTwice: true },
  };
  for (const [name, faults] of Object.entries(wrong))
    it(`is found: ${name}`, () => {
      const find = (): void => {
        for (let seed = 0; seed < 30; seed++) judge(walk({ seed, members: 3 + 2 * (seed % 2), faults }, 400));
      };
      expect(find).toThrow(/./);
    });

  it('is found: a change of roster that leaves nobody', () => {
    const nextRoster: typeof fakeNextRoster = (roster, facts, seen) =>
      fakeNextRoster(roster, facts, seen).filter(() => facts.every((bytes) => bytes.length === 0));
    expect(() =>
      judge(
        walk({ seed: 1, members: 3, faults: { nextRoster } }, 300, LIVELY, (world, i) => {
          if (i === 100) world.retire(world.walkers[0]!);
        }),
      ),
    ).toThrow(/./);
  });
});
