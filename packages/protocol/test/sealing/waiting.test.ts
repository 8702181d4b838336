import { describe, expect, it } from 'vitest';
import { World, type Walker } from './walk.ts';

type Three = [Walker, Walker, Walker];

/** Everyone meters and closes epoch 0; nobody has heard of it. */
function closed(world: World): Three {
  for (const [i, walker] of world.walkers.entries()) walker.meter('shop', i + 1);
  world.toEndOf(0);
  for (const walker of world.walkers) walker.tick();
  return world.walkers as Three;
}

function run(world: World, rounds: number): void {
  for (let i = 0; i < rounds; i++) world.round();
}

describe('a member that waits', () => {
  it('for its frontier looks once a second, not all the time, and at once when that is there', () => {
    const world = new World({ seed: 1, members: 3, lossPercent: 0, inlineBytes: 0 });
    const [a, , c] = closed(world);
    a.exchange(c, 0);
    c.isCut = true;
    run(world, 6);
    expect(a.sealing.status()).toMatchObject({ phase: 'closing', ballot: { round: 0 } });
    world.nowMs = a.sealing.wakeAtMs;
    a.tick();
    expect(a.disk.own.get('ballot/0')).toBeUndefined();
    expect(a.sealing.wakeAtMs).toBe(world.nowMs + 1_000);
    for (let i = 0; i < 20; i++) {
      a.fetch();
      a.commit();
    }
    expect(JSON.parse(a.disk.own.get('ballot/0')!.value)).toMatchObject({ promised: { round: 1 } });
  });

  it('for what nobody has asks no more, once the epoch is sealed without it', () => {
    const world = new World({ seed: 1, members: 3, lossPercent: 0 });
    const [a, b, c] = closed(world);
    // Its close is heard of, but nothing that it names.
    for (const walker of [a, b]) walker.listen(c);
    world.lose(c);
    run(world, 2);
    for (const walker of [a, b]) expect(walker.wanted.size).toBeGreaterThan(0);
    run(world, 40);
    for (const walker of [a, b]) {
      expect(walker.disk.sealed.length).toBeGreaterThan(0);
      expect([...walker.wanted]).toEqual([]);
    }
  });
});
