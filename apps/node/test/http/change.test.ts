import type { FastifyReply, FastifyRequest } from 'fastify';
import { expect, it } from 'vitest';
import type { ReplicaId } from '@waggle/protocol/base';
import type { MemberState } from '@waggle/protocol/membership';
import { apply } from '../../src/http/change.ts';
import type { WaitQuery } from '../../src/http/schemas.ts';
import type { Node } from '../../src/node.ts';

/** A node among others of which nobody holds anything yet; its time is that of its waits. */
class Cluster {
  readonly states: MemberState[];
  readonly held = new Set<ReplicaId>();
  isDraining = false;
  /** ms that were waited. */
  waitedMs = 0;
  /** Called in each wait: what happens meanwhile. */
  meanwhile: () => void = () => undefined;

  constructor(others: number) {
    this.states = Array.from({ length: others }, () => 'alive');
  }

  get #node(): Node {
    const driver = {
      standing: { replica: 'self' },
      members: this.states.map((state, i) => ({ replica: `other-${i}`, state })),
      heldBy: () => [...this.held],
      follow: async (_version: number, isEnough: () => boolean, timeoutMs: number) => {
        this.waitedMs += timeoutMs;
        await Promise.resolve();
        this.meanwhile();
        driver.members = this.states.map((state, i) => ({ replica: `other-${i}`, state }));
        return isEnough();
      },
    };
    const clock = { monotonicMs: () => this.waitedMs };
    const manage = async (_actor: unknown, command: (context: unknown) => object) => ({ ...command({}), version: 7 });
    const draining = (): boolean => this.isDraining;
    return {
      driver,
      clock,
      manage,
      get isDraining() {
        return draining();
      },
    } as unknown as Node;
  }

  /** A change that waits as the query says; how far it has got, and the header that says so. */
  async change(query: WaitQuery, id = 'token'): Promise<{ visibleAt: object; header: unknown }> {
    let header: unknown;
    const request = { query, principal: { kind: 'token', id, role: 'operator' } } as unknown as FastifyRequest;
    const reply = {
      header: (name: string, value: unknown) => (header = name === 'waggle-visible' ? value : header),
    } as unknown as FastifyReply;
    const { visibleAt } = await apply(this.#node, request, reply, () => []);
    return { visibleAt, header };
  }
}

const other = (i: number): ReplicaId => `other-${i}` as ReplicaId;

it('does not wait unless it is asked to', async () => {
  const cluster = new Cluster(2);
  expect(await cluster.change({})).toEqual({ visibleAt: { members: 1, of: 3 }, header: 'members=1, of=3' });
  expect(cluster.waitedMs).toBe(0);
});

it('waits for a majority, this node among it, and no longer', async () => {
  const cluster = new Cluster(4);
  cluster.meanwhile = () => cluster.held.add(other(cluster.held.size));
  expect((await cluster.change({ wait: 'majority' })).visibleAt).toEqual({ members: 3, of: 5 });
});

it('waits for all', async () => {
  const cluster = new Cluster(4);
  cluster.meanwhile = () => cluster.held.add(other(cluster.held.size));
  expect((await cluster.change({ wait: 'all' })).visibleAt).toEqual({ members: 5, of: 5 });
});

it('when its time is up it says how far it has got', async () => {
  const cluster = new Cluster(2);
  cluster.held.add(other(0));
  expect((await cluster.change({ wait: 'all', timeoutMs: 1_700 })).visibleAt).toEqual({ members: 2, of: 3 });
  expect(cluster.waitedMs).toBe(1_700);
  expect((await cluster.change({ wait: 'all', timeoutMs: 0 })).visibleAt).toEqual({ members: 2, of: 3 });
  expect(cluster.waitedMs).toBe(1_700);
});

it('does not wait for a member that dies', async () => {
  const cluster = new Cluster(2);
  cluster.held.add(other(0));
  cluster.meanwhile = () => (cluster.states[1] = 'dead');
  expect((await cluster.change({ wait: 'all', timeoutMs: 60_000 })).visibleAt).toEqual({ members: 2, of: 2 });
  expect(cluster.waitedMs).toBeLessThan(60_000);
});

it('ends with the node', async () => {
  const cluster = new Cluster(2);
  cluster.meanwhile = () => (cluster.isDraining = true);
  expect((await cluster.change({ wait: 'all', timeoutMs: 60_000 })).visibleAt).toEqual({ members: 1, of: 3 });
  expect(cluster.waitedMs).toBeLessThan(60_000);
});

it('of too many that wait the last ones do not', async () => {
  const cluster = new Cluster(1);
  const waiting = Array.from({ length: 256 }, (_, i) =>
    cluster.change({ wait: 'all', timeoutMs: 500 }, `token ${i % 2}`),
  );
  await Promise.resolve();
  const late = new Cluster(1);
  await late.change({ wait: 'all', timeoutMs: 500 });
  await Promise.all(waiting);
  expect(late.waitedMs).toBe(0);
  await late.change({ wait: 'all', timeoutMs: 500 });
  expect(late.waitedMs).toBe(500);
});

it('one principal has half of the places', async () => {
  const cluster = new Cluster(1);
  const waiting = Array.from({ length: 128 }, () => cluster.change({ wait: 'all', timeoutMs: 500 }, 'greedy'));
  await Promise.resolve();
  const [same, another] = [new Cluster(1), new Cluster(1)];
  await Promise.all([
    same.change({ wait: 'all', timeoutMs: 500 }, 'greedy'),
    another.change({ wait: 'all', timeoutMs: 500 }, 'modest'),
  ]);
  await Promise.all(waiting);
  expect([same.waitedMs, another.waitedMs]).toEqual([0, 500]);
});
