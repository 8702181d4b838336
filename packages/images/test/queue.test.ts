import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FairQueue } from '../src/queue.ts';

interface TestJob {
  customer: string;
  bytes: number;
  cost: number;
  n: number;
}
const job = (customer: string, n = 0, cost = 1, bytes = 1): TestJob => ({ customer, bytes, cost, n });

/** Serves everything, one at a time, in the order that the queue gives. */
function serve(queue: FairQueue<TestJob>, count = Number.POSITIVE_INFINITY): TestJob[] {
  const served: TestJob[] = [];
  while (served.length < count) {
    const next = queue.take();
    if (next === undefined) break;
    queue.charge(next.customer, next.cost);
    queue.finish(next.customer);
    served.push(next);
  }
  return served;
}

describe('FairQueue', () => {
  it('does not let 20 jobs of one customer go before one of another', () => {
    const queue = new FairQueue<TestJob>(100, 1e6);
    for (let i = 0; i < 20; i++) queue.push(job('a', i));
    expect(serve(queue, 3).map((j) => j.n)).toEqual([0, 1, 2]);
    queue.push(job('b'));
    expect(serve(queue, 2).map((j) => j.customer)).toContain('b');
  });

  it('shares by cost and not by jobs', () => {
    const queue = new FairQueue<TestJob>(1000, 1e6);
    for (let i = 0; i < 100; i++) {
      queue.push(job('dear', i, 10));
      queue.push(job('cheap', i, 1));
    }
    const served = serve(queue, 55);
    expect(served.filter((j) => j.customer === 'dear').length).toBeLessThanOrEqual(6);
  });

  it('gives no credit for having been away', () => {
    const queue = new FairQueue<TestJob>(1000, 1e6);
    for (let i = 0; i < 50; i++) queue.push(job('busy', i));
    serve(queue, 40);
    for (let i = 0; i < 20; i++) queue.push(job('back', i));
    expect(serve(queue, 10).filter((j) => j.customer === 'busy').length).toBeGreaterThanOrEqual(4);
  });

  it('makes who holds most give way, and nobody else', () => {
    const queue = new FairQueue<TestJob>(4, 1e6);
    for (let i = 0; i < 4; i++) expect(queue.push(job('a', i)).accepted).toBe(true);
    expect(queue.push(job('a', 4))).toEqual({ accepted: false, dropped: [] });
    expect(queue.push(job('b'))).toEqual({ accepted: true, dropped: [job('a', 3)] });
    expect(queue.push(job('c'))).toEqual({ accepted: true, dropped: [job('a', 2)] });
    expect(queue.push(job('b', 1))).toEqual({ accepted: false, dropped: [] });
    expect(queue.length).toBe(4);
  });

  it('keeps its bounds and its books under anything', () => {
    const step = fc.oneof(
      fc.record({
        do: fc.constant('push' as const),
        customer: fc.constantFrom('a', 'b', 'c'),
        bytes: fc.integer({ min: 1, max: 40 }),
      }),
      fc.record({
        do: fc.constantFrom('take' as const, 'finish' as const, 'remove' as const),
        cost: fc.integer({ min: -5, max: 50 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const queue = new FairQueue<TestJob>(5, 100);
        const waiting = new Set<TestJob>();
        const running: TestJob[] = [];
        const lastTaken = new Map<string, number>();
        let n = 0;
        for (const s of steps) {
          if (s.do === 'push') {
            const next = job(s.customer, n++, 1, s.bytes);
            const { accepted, dropped } = queue.push(next);
            for (const other of dropped) expect(waiting.delete(other)).toBe(true);
            if (accepted) waiting.add(next);
            else
              expect(waiting.size + 1 > 5 || [...waiting].reduce((sum, j) => sum + j.bytes, s.bytes) > 100).toBe(true);
          } else if (s.do === 'take') {
            const next = queue.take();
            expect(next === undefined).toBe(waiting.size === 0);
            if (next === undefined) continue;
            expect(waiting.delete(next)).toBe(true);
            expect(next.n).toBeGreaterThan(lastTaken.get(next.customer) ?? -1);
            lastTaken.set(next.customer, next.n);
            queue.charge(next.customer, s.cost);
            running.push(next);
          } else if (s.do === 'finish') {
            const done = running.shift();
            if (done !== undefined) queue.finish(done.customer);
          } else {
            const [first] = waiting;
            if (first === undefined) continue;
            expect(queue.remove(first)).toBe(true);
            expect(queue.remove(first)).toBe(false);
            waiting.delete(first);
          }
          expect(queue.length).toBe(waiting.size);
          expect(queue.bytes).toBe([...waiting].reduce((sum, j) => sum + j.bytes, 0));
          expect(queue.length).toBeLessThanOrEqual(5);
          expect(queue.bytes).toBeLessThanOrEqual(100);
        }
      }),
    );
  });
});
