import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { addUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { createClient } from '@waggle/client';
import {
  customerFetch,
  resize,
  root,
  scratch,
  startCluster,
  startNode,
  until,
  usageOf,
  waggle,
  type ClusterNode,
  type ClusterView,
  type RunningCluster,
} from './harness.ts';

/* Three nodes as operators run them: processes of their own, real UDP among them, real disks. The tests go on from one another. */

const photo = readFileSync(join(root, 'docs', 'assets', 'meadow.jpg'));
/** Long enough for what a test does meanwhile. */
const DRAIN_MS = 5_000;

let cluster: RunningCluster;
let a: ClusterNode;
let b: ClusterNode;
let c: ClusterNode;
/** Replica id of a member that has left. */
let gone: string;
beforeAll(async () => {
  cluster = await startCluster(3, ['--drain-ms', String(DRAIN_MS)]);
  [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
  return () => cluster.remove();
});

interface Visible {
  readonly visibleAt: { readonly members: number; readonly of: number };
}
interface UsageAnswer {
  readonly asOf: string | null;
  readonly totals: Usage;
  readonly coverage: {
    readonly members: number;
    readonly of: number;
    readonly replicas: { readonly asOf: string | null }[];
  };
}

/** A customer with a key, made at one node, and known at all. */
async function customerAt(node: ClusterNode, id: string): Promise<string> {
  await node.operator.json(`/v1/customers/${id}`, 'PUT', { name: id });
  const issued = await node.operator.json<Visible & { key: string }>(`/v1/customers/${id}/keys?wait=all`, 'POST', {});
  expect(issued.visibleAt.members).toBe(issued.visibleAt.of);
  return issued.key;
}

/** A picture at a node; what was metered. */
async function pictureAt(node: ClusterNode, key: string): Promise<Usage> {
  const response = await resize(node.url, key, 'width=64&format=webp', photo);
  expect(response.status).toBe(200);
  await response.arrayBuffer();
  return usageOf(response);
}

/** Waits until a node counts exactly that for a customer. */
const counts = (node: ClusterNode, id: string, usage: Usage): Promise<UsageAnswer> =>
  until(`the usage of ${id} at ${node.data}`, async () => {
    const answer = await node.operator.json<UsageAnswer>(`/v1/customers/${id}/usage`);
    return JSON.stringify(answer.totals) === JSON.stringify(usage) ? answer : undefined;
  });

const sum = (usages: readonly Usage[]): Usage => usages.reduce(addUsage, ZERO_USAGE);
const codeOf = async (response: Response): Promise<string> => ((await response.json()) as { code: string }).code;

describe('three nodes', () => {
  it('serve a customer made at the first, at the second, and sum up at the third', async () => {
    const key = await customerAt(a, 'acme');
    const usages = [await pictureAt(b, key), await pictureAt(b, key), await pictureAt(c, key), await pictureAt(a, key)];
    for (const node of [c, a, b]) {
      const { coverage } = await counts(node, 'acme', sum(usages));
      expect(coverage).toMatchObject({ members: 3, of: 3 });
      expect(coverage.replicas.every(({ asOf }) => asOf !== null)).toBe(true);
    }
  });

  it('say how far a change has got, and wait for it', async () => {
    const all = await a.operator.json<Visible>('/v1/customers/waited?wait=all', 'PUT', { name: 'waited' });
    expect(all.visibleAt).toEqual({ members: 3, of: 3 });
    for (const node of [b, c]) expect(await node.operator.json('/v1/customers/waited')).toMatchObject({ id: 'waited' });
    const most = await b.operator.json<Visible>('/v1/customers/most?wait=majority', 'PUT', { name: 'most' });
    expect(most.visibleAt.members).toBeGreaterThanOrEqual(2);
  });

  it('refuse a key at once that was revoked with ?wait=all', async () => {
    const key = await customerAt(a, 'revoked');
    for (const node of cluster.nodes) await pictureAt(node, key);
    const path = `/v1/customers/revoked/keys/${key.split('_')[1]}?wait=all`;
    const revoked = await a.operator.fetch(path, { method: 'DELETE' });
    expect([revoked.status, revoked.headers.get('waggle-visible')]).toEqual([204, 'members=3, of=3']);
    for (const node of cluster.nodes) {
      const refused = await resize(node.url, key, 'width=64', photo);
      expect([refused.status, await codeOf(refused)]).toEqual([401, 'KEY_REVOKED']);
    }
  });

  it('refuse a key in the end that was revoked without waiting', async () => {
    const key = await customerAt(a, 'leaked');
    for (const node of cluster.nodes) await pictureAt(node, key);
    const path = `/v1/customers/leaked/keys/${key.split('_')[1]}`;
    expect((await a.operator.fetch(path, { method: 'DELETE' })).status).toBe(204);
    for (const node of cluster.nodes)
      await until(`the revocation at ${node.data}`, async () => {
        const answer = await customerFetch(node.url, key, '/v1/account');
        return (await codeOf(answer)) === 'KEY_REVOKED' ? true : undefined;
      });
  });

  it('tell operators and customers of each other', async () => {
    const key = await customerAt(b, 'listing');
    const urls = cluster.nodes.map(({ url }) => url).toSorted();
    for (const node of cluster.nodes) {
      const { nodes } = (await (await customerFetch(node.url, key, '/v1/nodes')).json()) as {
        nodes: { url: string }[];
      };
      expect(nodes.map(({ url }) => url).toSorted()).toEqual(urls);
    }
  });
});

describe('the command line', () => {
  const asked = (node: ClusterNode): string[] => ['--url', node.url, '--data', a.data];

  it('status shows the members as each node sees them', async () => {
    await Promise.all(cluster.nodes.map((node) => node.sees(3)));
    const { code, stdout } = await waggle('status', '--all', ...asked(b));
    expect(code).toBe(0);
    expect(stdout).toMatch(/^members +3 of 3 reachable, \d may vote$/m);
    for (const node of cluster.nodes) {
      expect(stdout).toMatch(new RegExp(`^[0-9a-f]{32} +alive .* ${node.url} `, 'm'));
      expect(stdout).toMatch(new RegExp(`^${node.url} +alive, .* alive, .* alive, `, 'm'));
    }
  });

  it('invite works where the operator key is, and says so elsewhere', async () => {
    const made = await waggle('invite', '--quiet', '--uses', '2', '--expires', '10m', ...asked(a));
    expect(made.stdout).toMatch(/^wgi_[A-Za-z0-9_-]+\n$/);
    expect(made.stderr).toContain('this machine only');
    const elsewhere = await waggle('invite', ...asked(b));
    expect([elsewhere.code, elsewhere.stderr]).toEqual([1, expect.stringContaining('OPERATOR_KEY_MISSING')]);
    const brought = await waggle('invite', '--quiet', '--operator-key', join(a.data, 'operator.key'), ...asked(b));
    expect(brought.stdout).toMatch(/^wgi_/);
  });

  it.each([
    ['garbled', async () => `${(await cluster.invite()).slice(0, -1)}!`, /CONFIG_INVALID|DECODE_FAILED|INVITE_INVALID/],
    ['cut', async () => (await cluster.invite()).slice(0, -1), /CONFIG_INVALID|DECODE_FAILED|INVITE_INVALID/],
    [
      'expired',
      async () => {
        const { invite, expiresAt } = await a.operator.json<{ invite: string; expiresAt: string }>(
          '/v1/cluster/invites',
          'POST',
          { expiresInMs: 1_000 },
        );
        await until('the end of the invite', async () => (Date.now() > Date.parse(expiresAt) ? true : undefined));
        return invite;
      },
      /INVITE_EXPIRED/,
    ],
  ])('an invite that is %s starts no node, and the node says why', async (_, make, why) => {
    const empty = scratch();
    await expect(startNode(empty.path, [], { WAGGLE_JOIN: await make() })).rejects.toThrow(why);
    empty.remove();
  });

  it('an invite that is used up admits nobody else', async () => {
    const invite = await cluster.invite();
    const one = await cluster.add();
    await one.start(invite);
    gone = (await one.operator.json<ClusterView>('/v1/cluster')).self;
    const two = scratch();
    await expect(startNode(two.path, [], { WAGGLE_JOIN: invite })).rejects.toThrow(/INVITE_USED/);
    two.remove();
    await Promise.all(cluster.nodes.map((node) => node.sees(4)));
    expect(await one.stop()).toBe(0);
    await Promise.all([a, b, c].map((node) => node.sees(3)));
  });
});

describe('a node that is killed', () => {
  it('is missed by none: the others serve, and it comes back', async () => {
    const key = await customerAt(a, 'survivor');
    // It is told of one node, and learns of the others.
    const asked = new Set<string>();
    const client = createClient({ nodes: b.url, key, onAttempt: ({ node }) => asked.add(node) });
    const usages: Usage[] = [];
    const shrink = async (): Promise<void> => {
      usages.push((await client.resize(photo, { width: 64 })).answer.usage!);
    };
    await until('the client knows other nodes', async () => {
      await shrink();
      return asked.size > 1 ? true : undefined;
    });
    await counts(a, 'survivor', sum(usages));
    expect(await b.stop('SIGKILL')).toBe('SIGKILL');
    for (let i = 0; i < 6; i++) await shrink();
    await Promise.all([a, c].map((node) => node.sees(2)));
    const made = await a.operator.json<Visible>('/v1/customers/meanwhile?wait=all', 'PUT', { name: 'meanwhile' });
    expect(made.visibleAt).toEqual({ members: 2, of: 2 });
    await counts(c, 'survivor', sum(usages));
    await b.start();
    await Promise.all([a, b, c].map((node) => node.sees(3)));
    await until('the customer at the node that came back', async () =>
      (await b.operator.fetch('/v1/customers/meanwhile')).ok ? true : undefined,
    );
    usages.push(await pictureAt(b, key));
    for (const node of [a, b, c]) await counts(node, 'survivor', sum(usages));
  });
});

describe('a node that is drained', () => {
  it('is not ready first, ends what is in flight, leaves its last usage to another and exits with 0', async () => {
    const key = await customerAt(a, 'last');
    const { url } = c;
    const inFlight = resize(url, key, 'width=1500&format=avif', photo);
    await until('the work has begun', async () => {
      const { nodes } = (await (await customerFetch(url, key, '/v1/nodes')).json()) as {
        nodes: { url: string; load: { running: number } }[];
      };
      return nodes.find((node) => node.url === url)!.load.running > 0 ? true : undefined;
    });
    const ended = c.stop();
    const ready = await until('draining', async () => {
      const answer = await fetch(`${url}/readyz`);
      return answer.ok ? undefined : answer;
    });
    expect(await codeOf(ready)).toBe('DRAINING');
    const late = await resize(url, key, 'width=64', photo);
    const first = await inFlight;
    expect([first.status, late.status]).toEqual([200, 200]);
    await Promise.all([first.arrayBuffer(), late.arrayBuffer()]);
    expect(await ended).toBe(0);
    const usage = sum([usageOf(first), usageOf(late)]);
    for (const node of [a, b]) await counts(node, 'last', usage);
    expect(Object.values(await a.states())).toContain('left');
    await c.start();
    await Promise.all([a, b, c].map((node) => node.sees(3)));
  });
});

describe('the founder', () => {
  it('is needed by nobody: with it gone for good, a newcomer joins by another address', async () => {
    const key = await customerAt(a, 'orphan');
    const invite = await cluster.invite();
    await a.stop('SIGKILL');
    const d = await cluster.add();
    await d.start(invite);
    await Promise.all([b, c, d].map((node) => node.sees(3)));
    const usage = await pictureAt(d, key);
    for (const node of [b, c]) await counts(node, 'orphan', usage);
  });

  it('is not needed for its key: a member that is gone is retired and banned by a file that no node has', async () => {
    const keyFile = ['--operator-key', join(a.data, 'operator.key')];
    const asked = ['--url', b.url, '--data', a.data];
    const without = await waggle('retire', gone, ...asked);
    expect([without.code, without.stderr]).toEqual([1, expect.stringContaining('OPERATOR_KEY_MISSING')]);
    expect(await waggle('retire', gone, ...keyFile, ...asked)).toMatchObject({
      code: 0,
      stdout: `Replica ${gone} is retired.\n`,
    });
    await until('the retirement at another node', async () => {
      const { members } = await c.operator.json<ClusterView>('/v1/cluster');
      return members.find(({ replica }) => replica === gone)?.status === 'retired' ? true : undefined;
    });
    expect(await waggle('ban', gone, ...keyFile, ...asked)).toMatchObject({ code: 0 });
    await until('the ban at another node', async () => (gone in (await c.states()) ? undefined : true));
  });
});
