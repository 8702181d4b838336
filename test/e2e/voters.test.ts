import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { startCluster, until, waggle, type ClusterNode, type ClusterView, type RunningCluster } from './harness.ts';

/* Who votes: the roster of a cluster of real nodes, through a loss, a retirement and a newcomer. The tests go on from one another. */

const EPOCH_MS = 3_000;

let cluster: RunningCluster;
let a: ClusterNode;
let b: ClusterNode;
let c: ClusterNode;
/** The founder, whose key is on its disk only. */
let founder: string;
beforeAll(async () => {
  cluster = await startCluster(3, ['--epoch-ms', String(EPOCH_MS), '--seal-grace-ms', String(EPOCH_MS)]);
  [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
  founder = (await view(a)).self;
  return () => cluster.remove();
});

const view = (node: ClusterNode): Promise<ClusterView> => node.operator.json<ClusterView>('/v1/cluster');

/** Waits until a node sees so many voters. */
const voters = (node: ClusterNode, count: number): Promise<ClusterView> =>
  until(`${count} voters at ${node.data}`, async () => {
    const seen = await view(node);
    return seen.roster.length === count ? seen : undefined;
  });

const sealedUpTo = async (node: ClusterNode): Promise<number> =>
  (await node.operator.json<{ sealedUpTo: number | null }>('/v1/epochs?limit=1')).sealedUpTo ?? -1;

/** Waits until the nodes have sealed an epoch that was not sealed yet, and says which root each has for it. */
async function nextSeal(nodes: readonly ClusterNode[]): Promise<string[]> {
  const epoch = Math.max(...(await Promise.all(nodes.map(sealedUpTo)))) + 1;
  return Promise.all(
    nodes.map((node) =>
      until(`epoch ${epoch} at ${node.data}`, async () => {
        const { state, root } = await node.operator.json<{ state: string; root: string }>(`/v1/epochs/${epoch}`);
        return state === 'sealed' ? root : undefined;
      }),
    ),
  );
}

it('three that are there all vote, and have one root', async () => {
  for (const node of [a, b, c]) expect(await voters(node, 3)).toMatchObject({ alarms: [] });
  expect(new Set(await nextSeal([a, b, c])).size).toBe(1);
});

it('without one of them the others go on sealing, and say what is wrong', async () => {
  await a.stop('SIGKILL');
  await Promise.all([b, c].map((node) => node.sees(2)));
  const { alarms } = await view(b);
  expect(alarms).toContainEqual(expect.stringContaining(`Replica ${founder} may vote and is dead`));
  expect(new Set(await nextSeal([b, c])).size).toBe(1);
});

it('the founder is retired by its key from elsewhere, with a warning that two voters are left', async () => {
  const key = ['--operator-key', join(a.data, 'operator.key')];
  const retired = await waggle('retire', founder, ...key, '--url', c.url, '--data', a.data);
  expect(retired).toMatchObject({ code: 0, stdout: `Replica ${founder} is retired.\n` });
  expect(retired.stderr).toContain('two voters');
  for (const node of [b, c]) expect((await voters(node, 2)).roster).not.toContain(founder);
});

it('a newcomer takes its place, by an invite that was signed where the key is', async () => {
  const key = ['--operator-key', join(a.data, 'operator.key')];
  const { stdout } = await waggle('invite', '--quiet', ...key, '--url', c.url, '--data', a.data);
  const d = await cluster.add();
  await d.start(stdout.trim());
  const { self } = await view(d);
  for (const node of [b, c, d]) expect((await voters(node, 3)).roster).toContain(self);
  expect(new Set(await nextSeal([b, c, d])).size).toBe(1);
  expect((await view(d)).alarms).toEqual([]);
});
