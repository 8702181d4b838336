import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { addUsage, DIMENSIONS, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import {
  customerFetch,
  resize,
  root,
  sealed,
  startCluster,
  until,
  usageOf,
  waggle,
  type ClusterNode,
  type ClusterView,
  type RunningCluster,
} from './harness.ts';
import { makePictures } from './pictures.ts';

/* A cluster that loses half of its voters for good, and goes on as its successor. The tests go on from one another. */

const EPOCH_MS = 2_000;
const VERIFY = join(root, 'apps', 'verify', 'bin', 'waggle-verify.js');
const [picture] = await makePictures();

type View = ClusterView & { readonly cluster: string };

let cluster: RunningCluster;
/** Those whose disks burn, the founder among them; the one that starts the successor; the one that follows. */
let lost: readonly ClusterNode[];
let survivor: ClusterNode;
let follower: ClusterNode;
/** Off the nodes, where an operator keeps it. */
let operatorKey: string;
let oldId: string;
let key: string;
let acknowledged: Usage = ZERO_USAGE;

beforeAll(async () => {
  cluster = await startCluster(4, ['--epoch-ms', String(EPOCH_MS), '--seal-grace-ms', String(EPOCH_MS)]);
  const [a, b, c, d] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode, ClusterNode];
  [lost, survivor, follower] = [[a, b], c, d];
  operatorKey = join(dirname(a.data), 'operator.key');
  copyFileSync(join(a.data, 'operator.key'), operatorKey);
  ({ key } = await a.operator.customer('shop'));
  for (const { url } of cluster.nodes)
    await until('the key', async () => ((await customerFetch(url, key, '/v1/nodes')).ok ? true : undefined));
  return () => cluster.remove();
});

const view = (node: ClusterNode): Promise<View> => node.operator.json<View>('/v1/cluster');
const sealedUpTo = async (node: ClusterNode): Promise<number> =>
  (await node.operator.json<{ sealedUpTo: number | null }>('/v1/epochs?limit=1')).sealedUpTo ?? -1;

/** Work that is acknowledged. */
async function work(node: ClusterNode, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const response = await resize(node.url, key, 'width=40&format=png', picture!.bytes);
    expect(response.status, await response.clone().text()).toBe(200);
    acknowledged = addUsage(acknowledged, usageOf(response));
  }
}

/** What a node knows of the customer's usage, sealed or not, in its own log. */
const known = async (node: ClusterNode): Promise<number> =>
  (await node.operator.json<{ totals: Usage }>('/v1/customers/shop/usage')).totals.requests;

/** Runs `waggle-verify`: its exit code, and the last line of what it printed. */
const verify = (
  ...args: readonly string[]
): Promise<{ readonly code: number; readonly result: Record<string, unknown> }> =>
  new Promise((resolve) => {
    execFile(process.execPath, [VERIFY, ...args, '--json'], (error, stdout) =>
      resolve({
        code: error === null ? 0 : Number(error.code),
        result: JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as Record<string, unknown>,
      }),
    );
  });

it('seals with four voters, and then loses two of them', async () => {
  await until('four voters', async () => ((await view(survivor)).roster.length === 4 ? true : undefined));
  for (const node of cluster.nodes) await work(node, 2);
  await sealed(survivor.operator, (await sealedUpTo(survivor)) + 2);
  oldId = (await view(survivor)).cluster;
  for (const node of lost) await work(node, 1);
  await until('usage of those that will be lost', async () =>
    (await known(survivor)) === acknowledged.requests ? true : undefined,
  );
  await Promise.all(lost.map((node) => node.stop('SIGKILL')));
  // The operator has key and token elsewhere; the rest is gone.
  const token = join(lost[0]!.data, 'operator.token');
  copyFileSync(token, `${operatorKey}.token`);
  for (const { data } of lost) rmSync(data, { recursive: true });
  mkdirSync(lost[0]!.data);
  copyFileSync(`${operatorKey}.token`, token);
  // Two of four are no majority: they serve and count on.
  await work(survivor, 2);
  // In order, so that what it had from the others is on its disk: by now it is nowhere else.
  await survivor.stop();
  // This one alone holds that.
  await work(follower, 3);
  await follower.stop();
});

it('is recovered where it survived: looked at first, then done', async () => {
  const args = ['recover', '--data', survivor.data, '--operator-key', operatorKey];
  const looked = await waggle(...args);
  expect(looked).toMatchObject({ code: 0, stdout: expect.stringContaining(oldId) });
  expect(looked.stderr).toContain('nothing was changed');
  const done = await waggle(...args, '--reason', 'The building burned down.', '--yes');
  expect(done).toMatchObject({ code: 0, stderr: '' });
  // Once more would found a successor of the successor, which nobody could follow or check.
  const again = await waggle(...args, '--reason', 'It burned down.', '--yes');
  expect(again).toMatchObject({ code: 2, stderr: expect.stringContaining(`continues cluster ${oldId}`) });
  await survivor.start();
  const { cluster: id, roster, self } = await view(survivor);
  expect(id).not.toBe(oldId);
  expect(roster).toEqual([self]);
  await until('all of the pause sealed', async () => ((await view(survivor)).alarms.length === 0 ? true : undefined));
  const genesis = await survivor.operator.json<{ predecessor: { epoch: number } }>('/v1/genesis');
  const { epochs } = await survivor.operator.json<{ epochs: { epoch: number; state: string }[] }>('/v1/epochs?from=0');
  expect(epochs[0], 'its own log begins there').toMatchObject({ epoch: genesis.predecessor.epoch, state: 'sealed' });
  expect((await survivor.operator.fetch(`/v1/epochs/${genesis.predecessor.epoch - 1}`)).status).toBe(404);
  // The customer and the operator's token are those of the old cluster.
  await work(survivor, 2);
});

it('the other survivor follows with an invite, and brings what it alone holds; a newcomer joins too', async () => {
  const invite = async (): Promise<string> =>
    (
      await waggle('invite', '--quiet', '--operator-key', operatorKey, '--url', survivor.url, '--data', lost[0]!.data)
    ).stdout.trim();
  const followed = await waggle('recover', '--data', follower.data, '--successor', survivor.url, '--yes');
  expect(followed).toMatchObject({ code: 0, stderr: '' });
  await follower.start(await invite());
  const newcomer = await cluster.add();
  await newcomer.start(await invite());
  for (const node of [survivor, follower, newcomer]) await node.sees(3);
  await work(newcomer, 1);
  await until('three voters', async () => ((await view(newcomer)).roster.length === 3 ? true : undefined));
  // Late slots come with the closes after the one that made them known: later where a node missed a deadline.
  const unsealed = async (node: ClusterNode): Promise<number> =>
    (await node.operator.json<{ unsealed: Usage }>('/v1/customers/shop/usage/month')).unsealed.requests;
  for (const node of [survivor, follower, newcomer])
    await until('all of it in seals', async () => ((await unsealed(node)) === 0 ? true : undefined));
  await sealed(survivor.operator, await sealedUpTo(newcomer));
});

it('waggle-verify finds the break signed, and everything counted once over both logs', async () => {
  const archive = join(survivor.data, `predecessor-${oldId.slice(0, 16)}`);
  const before = await verify(archive);
  expect(before).toMatchObject({ code: 0, result: { cluster: oldId } });
  const token = readFileSync(join(lost[0]!.data, 'operator.token'), 'utf8').trim();
  const after = await verify(survivor.url, '--token', token, '--predecessor', archive);
  expect(after).toMatchObject({ code: 0, result: { finding: null } });
  expect(after.result['succession']).toMatchObject({
    predecessor: oldId,
    reason: 'The building burned down.',
    checked: true,
  });
  // An auditor who had not seen the old log to its end goes there first, from what the survivors keep.
  const behind = join(dirname(operatorKey), 'behind');
  mkdirSync(behind);
  copyFileSync(join(archive, 'epoch-0.tar'), join(behind, 'epoch-0.tar'));
  const state = join(dirname(operatorKey), 'state');
  const across = ['--token', token, '--state', state] as const;
  expect((await verify(behind, '--state', state)).code).toBe(0);
  expect(await verify(survivor.url, ...across)).toMatchObject({ code: 2, result: { ok: false } });
  expect((await verify(archive, '--state', state)).code).toBe(0);
  expect(await verify(survivor.url, ...across)).toMatchObject({ code: 0, result: { succession: { checked: true } } });
  const totals = [before, after].map(({ result }) => result['totals'] as Record<string, string>);
  for (const dimension of DIMENSIONS)
    expect(
      totals.reduce((sum, each) => sum + Number(each[dimension]), 0),
      dimension,
    ).toBe(acknowledged[dimension]);
});
