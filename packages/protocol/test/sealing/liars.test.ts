import { describe, expect, it } from 'vitest';
import { digestOf, present, utf8, type CustomerId, type Digest, type Run } from '../../src/base/index.ts';
import { ZERO_USAGE } from '../../src/lattice/index.ts';
import type { Close } from '../../src/sealing/index.ts';
import { cheapCrypto } from '../member/harness.ts';
import { World, type Walker } from './walk.ts';

/** Three voters have closed epoch 0, of which the third names another content for its slot; then it is never seen again. */
function worldWith(content: Uint8Array): { readonly world: World; readonly honest: readonly Walker[] } {
  const world = new World({ seed: 1, members: 3, lossPercent: 0 });
  const [one, two, liar] = world.walkers as [Walker, Walker, Walker];
  for (const [i, walker] of world.walkers.entries()) walker.meter('shop', i + 1);
  world.toEndOf(0);
  for (const walker of world.walkers) walker.tick();
  const close = present(liar.disk.own.get('close/0'), 'a close').value;
  const { slot, reports, facts } = JSON.parse(close) as Close;
  liar.isUp = false;
  for (const walker of [one, two]) {
    walker.handle({ type: 'content', bytes: content });
    for (const digest of [reports, facts])
      walker.handle({ type: 'content', bytes: present(liar.disk.contents.get(digest), digest) });
    const value = close.replace(slot, digestOf(cheapCrypto, content));
    walker.hear(liar.replica, 'close/0', { version: 1, value });
  }
  return { world, honest: [one, two] };
}

const slotsOf = (walker: Walker): Digest[] => walker.disk.sealed[0]!.sealed.value.slotList.map(({ digest }) => digest);

describe('a close whose content is no slot', () => {
  it('is never voted for: its slot is written off, and the others seal on', () => {
    const content = utf8('hello\n');
    const { world, honest } = worldWith(content);
    for (let epoch = 0; epoch < 4; epoch++) world.heal(epoch);
    for (const walker of honest) {
      expect(slotsOf(walker)).not.toContain(digestOf(cheapCrypto, content));
      expect(slotsOf(walker)).toEqual(slotsOf(honest[0]!));
      expect(walker.sealing.evidence).not.toEqual([]);
    }
  });
});

describe('a close whose figures add up to more than can be said', () => {
  it('is sealed with the most that can: nobody can stop an epoch so', () => {
    const world = new World({ seed: 1, members: 3, lossPercent: 0 });
    const usage = { ...ZERO_USAGE, requests: Number.MAX_SAFE_INTEGER };
    const rows = [{ customer: 'shop' as CustomerId, sku: 'inspect', usage }];
    const [one, two, liar] = world.walkers as [Walker, Walker, Walker];
    for (const walker of [one, two]) walker.meter('shop', 1);
    const id = { replica: liar.replica, run: 1 as Run, epoch: 0 };
    liar.hold(id, rows);
    world.acknowledge(id, rows, ZERO_USAGE);
    for (let epoch = 0; epoch < 4; epoch++) world.heal(epoch);
    for (const walker of world.walkers) expect(world.statements(walker).requests).toBe(Number.MAX_SAFE_INTEGER);
  });
});
