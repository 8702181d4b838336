import { describe, expect, it, vi } from 'vitest';
import { verifyBundle, type Verified } from '../../src/audit/index.ts';
import type { CustomerId } from '../../src/base/index.ts';
import { Registers, ZERO_USAGE } from '../../src/lattice/index.ts';
import { bundleOf } from './bundle.ts';
import { cheapCrypto, EPOCH_MS, foundCluster, TestNode, usageOf } from './harness.ts';

const acme = 'acme' as CustomerId;

/** Verifies every sealed epoch as the continuation of the one before (invariant 6). */
function audit(node: TestNode): void {
  let verified: Verified | null = null;
  for (const record of node.disk.seals) {
    const bundle = bundleOf(node.cluster, node.disk, record);
    ({ verified } = verifyBundle(bundle, verified, node.cluster.id, cheapCrypto));
  }
}

describe('a roster of one', () => {
  it('meters into the open epoch, closes it when its time has passed, and seals it', () => {
    const node = new TestNode(foundCluster());
    expect(node.done.get(node.meter(1))).toBe(0);
    expect(node.done.get(node.meter(2))).toBe(0);
    expect(node.member.unsealed.usage(0, acme)).toEqual(usageOf(3));
    node.advance(EPOCH_MS);
    expect(node.sealed).toEqual([0]);
    expect(node.member.sealingEpoch).toBe(1);
    expect(node.done.get(node.meter(4))).toBe(1);
    expect(node.member.unsealed.usage(0, acme)).toEqual(ZERO_USAGE);
    expect(node.member.unsealed.epochs()).toEqual([1]);
    expect(node.counted).toEqual({ sealed: 3, unsealed: 4 });
    expect(node.disk.requests('acme')).toBe(4 * 'requests'.length);
    audit(node);
  });

  it('says nothing to anybody, and no timer but its own runs', () => {
    const node = new TestNode(foundCluster());
    node.set(['fact/x/1', '"a"']);
    node.advance(3 * EPOCH_MS);
    expect(node.out.map(({ type }) => type)).toEqual(['admitted']);
  });

  it('goes on after a restart in mid-epoch: the earlier run counts once, and its own slot beside it', () => {
    const node = new TestNode(foundCluster());
    node.meter(1);
    node.start();
    expect(node.counted).toEqual({ sealed: 0, unsealed: 1 });
    node.meter(2);
    node.advance(3 * EPOCH_MS);
    expect(node.counted).toEqual({ sealed: 3, unsealed: 0 });
    expect(node.disk.seals[0]!.sealed.value.slotList.map(({ run, closed }) => [run, closed])).toEqual([
      [1, false],
      [2, true],
    ]);
    audit(node);
  });

  it('closes every epoch of a long downtime before it meters again', () => {
    const node = new TestNode(foundCluster());
    node.meter(1);
    node.nowMs += 200 * EPOCH_MS;
    node.isHolding = true;
    node.start();
    const ticket = node.meter(2);
    expect(node.member.isBehind({ wallMs: 1_700_000_000_000 + node.nowMs, steadyMs: node.nowMs })).toBe(true);
    while (node.held.length > 0) node.write();
    expect(node.done.get(ticket)).toBe(200);
    expect(node.member.openEpoch).toBe(200);
    expect(node.sealed.at(-1)).toBe(199);
    expect(node.counted).toEqual({ sealed: 1, unsealed: 2 });
    audit(node);
  });

  it('shows nothing before it is on disk (invariant 7): no answer, no view, no register, no next step of sealing', () => {
    const node = new TestNode(foundCluster());
    node.isHolding = true;
    const [metered, written] = [node.meter(1), node.set(['fact/x/1', '"a"'])];
    expect(node.held).toHaveLength(1);
    expect([node.done.size, node.folded.length, node.counted.unsealed]).toEqual([0, 0, 0]);
    expect(node.member.registers.usage.writers()).toEqual([]);
    node.write();
    expect([...node.done.keys()]).toEqual([metered]);
    expect([node.folded.length, node.counted.unsealed]).toEqual([0, 1]);
    node.write();
    expect([...node.done.keys()]).toEqual([metered, written]);
    expect(node.folded.map(({ register }) => register.key)).toEqual(['fact/x/1']);
    node.advance(EPOCH_MS);
    const steps = [];
    for (; node.held.length > 0; node.write()) steps.push(node.held[0]!.control.map(({ key }) => key).join());
    expect(steps.filter((keys) => keys !== '')).toEqual(['close/0', 'ballot/0', 'seal/0']);
    expect(node.sealed).toEqual([0]);
  });

  it('takes what came meanwhile into one batch, and bounds what may wait', () => {
    const node = new TestNode(foundCluster());
    node.isHolding = true;
    for (let i = 0; i < 500; i++) node.meter(1, `c${i % 7}`);
    expect(node.member.waiting).toBe(499);
    node.write();
    expect(node.held[0]!.metered.tickets).toHaveLength(499);
    expect(node.held[0]!.usage).toHaveLength(7);
    node.write();
    expect(node.counted.unsealed).toBe(500);
    node.meter(1);
    for (let i = 0; i < 10_000; i++) node.meter(1);
    expect(node.refused.size).toBe(0);
    const late = node.meter(1);
    expect(node.refused.get(late)).toBe('STORE_BUSY');
  });

  it('refuses registers above the bounds of the wire, and writes the others whole', () => {
    const node = new TestNode(foundCluster());
    const refused = node.set(['fact/x/1', '"a"'], ['fact/x/2', `"${'x'.repeat(50_000)}"`]);
    expect(node.refused.get(refused)).toBe('REQUEST_INVALID');
    expect(node.disk.control.size).toBe(0);
    node.set(['fact/x/1', '"a"'], ['fact/x/1', '"b"']);
    expect(node.folded.map(({ register }) => [register.version, register.value])).toEqual([
      [1, '"a"'],
      [2, '"b"'],
    ]);
    expect([...node.disk.registersOf(node.replica).values()].map(({ value }) => value)).toEqual(['"b"']);
  });

  it('a full disk refuses, keeps what was acknowledged, and closes and seals once there is room', () => {
    const node = new TestNode(foundCluster());
    node.meter(1);
    node.isFull = true;
    expect(node.refused.get(node.meter(2))).toBe('STORE_FULL');
    expect(node.member.isFull).toBe(true);
    const before = node.batches.length;
    node.advance(2 * EPOCH_MS + 500);
    // Asked again about once a second, not in a loop.
    expect(node.batches.length - before).toBeLessThan(25);
    expect([node.disk.seals.length, node.counted.unsealed]).toEqual([0, 1]);
    node.isFull = false;
    node.advance(1_000);
    expect(node.member.isFull).toBe(false);
    expect(node.sealed).toEqual([0, 1]);
    node.meter(4);
    expect(node.counted).toEqual({ sealed: 1, unsealed: 4 });
    audit(node);
  });

  it('a full disk does not let closes pile up in memory, and none is missing once there is room', () => {
    const node = new TestNode(foundCluster());
    node.meter(1);
    node.isFull = true;
    node.advance(50 * EPOCH_MS);
    expect(node.refused.get(node.meter(2))).toBe('STORE_FULL');
    const { control } = node.batches.at(-1)!;
    expect(control.length).toBeGreaterThan(0);
    expect(control.length).toBeLessThanOrEqual(10);
    expect(node.member.openEpoch).toBe(50);
    node.isFull = false;
    node.advance(2_000);
    expect(node.sealed).toEqual(Array.from({ length: 50 }, (_, epoch) => epoch));
    expect(node.done.get(node.meter(4))).toBe(50);
    node.advance(EPOCH_MS);
    expect(node.counted).toEqual({ sealed: 5, unsealed: 0 });
    audit(node);
  });

  it('says that its clock was ahead, once that is right again and it meters into an epoch to come', () => {
    const node = new TestNode(foundCluster());
    node.clockOffsetMs = 3_600_000;
    node.advance(10_000);
    expect(node.alarms).toEqual([]);
    node.clockOffsetMs = 0;
    node.advance(11_000);
    const epoch = node.member.openEpoch;
    expect(epoch).toBeGreaterThanOrEqual(360);
    expect(node.alarms).toMatchObject([{ what: 'clockAhead', epoch }]);
    node.advance(60_000);
    expect(node.alarms).toHaveLength(1);
  });

  it('asks for a large seal to be staged, meters meanwhile, and writes it when it is', () => {
    const node = new TestNode(foundCluster(), 'founder', 10);
    for (let i = 0; i < 20; i++) node.meter(1, `c${i}`);
    node.advance(EPOCH_MS);
    const staging = node.out.filter(({ type }) => type === 'stage');
    expect(staging).toMatchObject([{ sealed: { epoch: 0 }, before: { epoch: 0 } }]);
    expect(node.sealed).toEqual([]);
    expect(node.done.get(node.meter(1))).toBe(1);
    node.advance(EPOCH_MS);
    expect(node.out.filter(({ type }) => type === 'stage')).toHaveLength(1);
    node.handle({ type: 'staged', epoch: 0 });
    expect(node.sealed).toEqual([0, 1]);
    expect(node.counted).toEqual({ sealed: 21, unsealed: 0 });
    audit(node);
  });

  it('drops its registers of epochs sealed long ago, but for the last close', () => {
    const node = new TestNode(foundCluster());
    node.advance(20 * EPOCH_MS);
    const epochs = [...node.disk.registersOf(node.replica).keys()].map((key) => Number(key.split('/')[1]));
    expect(Math.min(...epochs)).toBe(20 - 8);
    expect(node.disk.contents.size).toBeLessThan(25);
  });
});

describe('a writer with few keys left', () => {
  it('refuses writes, and goes on metering, closing and sealing with what it has kept back', () => {
    const node = new TestNode(foundCluster());
    let left = 100_000;
    const room = vi
      .spyOn(Registers.prototype, 'room')
      .mockImplementation((writer) => (writer === node.replica ? left : 4_000_000));
    try {
      expect(node.done.has(node.set(['fact/x/1', '"a"']))).toBe(true);
      left = 99_999;
      expect(node.refused.get(node.set(['fact/x/1', '"b"'], ['fact/x/2', '"b"']))).toBe('STORE_FULL');
      expect(node.disk.registersOf(node.replica).get('fact/x/1')?.value).toBe('"a"');
      expect(node.done.has(node.meter(2))).toBe(true);
      node.advance(EPOCH_MS);
      expect(node.sealed).toEqual([0]);
      expect(node.counted).toEqual({ sealed: 2, unsealed: 0 });
      left = 100_000;
      expect(node.done.has(node.set(['fact/x/2', '"c"']))).toBe(true);
    } finally {
      room.mockRestore();
    }
  });
});

describe('a run of which as many rows wait for a seal as others take', () => {
  it('meters no more until one has counted them', () => {
    const node = new TestNode(foundCluster(), undefined, undefined, undefined, undefined, 40);
    const tickets = Array.from({ length: 41 }, (_, i) => node.meter(1, `c${i}`));
    expect(tickets.filter((ticket) => node.done.has(ticket))).toHaveLength(40);
    expect(node.refused.get(tickets[40]!)).toBe('STORE_FULL');
    node.advance(2 * EPOCH_MS);
    expect(node.counted).toEqual({ sealed: 40, unsealed: 0 });
    expect(node.done.has(node.meter(1, 'c40'))).toBe(true);
  });
});

describe.each(['before', 'after'] as const)('a process killed right %s any write', (when) => {
  it('loses and doubles nothing, and never says two things (invariants 1, 3, 5, 6, 7)', () => {
    const node = new TestNode(foundCluster());
    const acknowledged = new Set<number>();
    const attempted: number[] = [];
    const roots = new Map<number, string>();
    for (let crashAt = 1; crashAt <= 40; crashAt++) {
      node.writesLeft = crashAt % 13;
      if (!node.isUp) node.start();
      for (let i = 0; node.isUp && i < 12; i++) {
        const ticket = node.meter(1);
        attempted.push(ticket);
        node.set([`lww/m/${i}`, `{"n":${crashAt}}`]);
        node.advance(EPOCH_MS / 3);
      }
      // Killed after: the write itself got to the disk, the answer did not get back.
      const [lost] = when === 'after' ? node.batches.slice(-1) : [];
      if (!node.isUp && lost !== undefined) node.disk.apply(lost);
      for (const { sealed } of node.disk.seals) {
        const root = Buffer.from(sealed.root).toString('hex');
        expect(roots.get(sealed.epoch) ?? root).toBe(root);
        roots.set(sealed.epoch, root);
      }
    }
    for (const ticket of node.done.keys()) if (attempted.includes(ticket)) acknowledged.add(ticket);
    node.writesLeft = Number.POSITIVE_INFINITY;
    if (!node.isUp) node.start();
    node.advance(2 * EPOCH_MS);
    for (const ticket of acknowledged) expect(node.disk.metered.has(ticket)).toBe(true);
    const metered = attempted.filter((ticket) => node.disk.metered.has(ticket)).length;
    expect(node.counted.sealed + node.counted.unsealed).toBe(metered);
    expect(metered).toBeLessThanOrEqual(attempted.length);
    expect(acknowledged.size).toBeGreaterThan(50);
    expect(node.alarms).toEqual([]);
    audit(node);
  });
});
