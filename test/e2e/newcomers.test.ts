import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { addUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import {
  resize,
  root,
  sealed,
  startCluster,
  until,
  usageOf,
  type ClusterNode,
  type ClusterView,
  type RunningCluster,
} from './harness.ts';
import { makePictures } from './pictures.ts';

/* Who joins a cluster that is older than the slots that it keeps. The tests go on from one another. */

/** More epochs than a newcomer may be behind when it closes its slots. */
const AGE_EPOCHS = 12;
const VERIFY = join(root, 'apps', 'verify', 'bin', 'waggle-verify.js');
const [picture] = await makePictures();

let cluster: RunningCluster;
let founder: ClusterNode;
let key: string;
let acknowledged: Usage = ZERO_USAGE;

beforeAll(async () => {
  cluster = await startCluster(1, ['--epoch-ms', '1000', '--seal-grace-ms', '1000', '--slot-retention-ms', '4000']);
  founder = cluster.nodes[0]!;
  ({ key } = await founder.operator.customer('shop'));
  return () => cluster.remove();
});

async function work(node: ClusterNode): Promise<void> {
  const response = await resize(node.url, key, 'width=40&format=png', picture!.bytes);
  expect(response.status, await response.clone().text()).toBe(200);
  acknowledged = addUsage(acknowledged, usageOf(response));
}

const sealedUpTo = async (node: ClusterNode): Promise<number> =>
  (await node.operator.json<{ sealedUpTo: number | null }>('/v1/epochs?limit=1')).sealedUpTo ?? -1;

const file = async (node: ClusterNode, path: string): Promise<string> => {
  const response = await node.operator.fetch(path);
  expect(response.status, path).toBe(200);
  return response.text();
};

/** The statements of each epoch up to that one. */
async function statementsOf(node: ClusterNode, last: number): Promise<string[]> {
  const epochs: string[] = [];
  for (let epoch = 0; epoch <= last; epoch++) epochs.push(await file(node, `/v1/epochs/${epoch}/statements.jsonl`));
  return epochs;
}

const counted = (epochs: readonly string[]): number =>
  [...epochs.join('').matchAll(/"requests":([0-9]+)/g)].reduce((sum, [, count]) => sum + Number(count), 0);

it('a node that is alone lets go of the slots of old epochs', async () => {
  const first = await sealedUpTo(founder);
  for (let epoch = first + 1; epoch <= first + AGE_EPOCHS; epoch++) {
    await work(founder);
    await sealed(founder.operator, epoch);
  }
  // Not of each: some were idle, and what nobody used is kept.
  await until('slots of old epochs gone', async () => {
    const epochs = Array.from({ length: AGE_EPOCHS / 2 }, (_, i) => first + 1 + i);
    const bundles = await Promise.all(epochs.map((epoch) => founder.operator.fetch(`/v1/epochs/${epoch}.tar`)));
    return bundles.filter(({ status }) => status === 410).length >= 2 ? true : undefined;
  });
});

it('two nodes that join it then follow to the end, and vote', async () => {
  const nodes = [await cluster.add(), await cluster.add()];
  const invite = await cluster.invite(2);
  await Promise.all(nodes.map((node) => node.start(invite)));
  for (const node of cluster.nodes)
    await until(`three voters at ${node.data}`, async () => {
      const { roster } = await node.operator.json<ClusterView>('/v1/cluster');
      return roster.length === 3 ? true : undefined;
    });
  for (const node of nodes) await work(node);
  // Late, where a node missed a deadline of a second.
  const last = await until('all of it in seals', async () => {
    const upTo = await sealedUpTo(founder);
    return counted(await statementsOf(founder, upTo)) === acknowledged.requests ? upTo : undefined;
  });
  for (const node of cluster.nodes) await sealed(node.operator, last);
  const { cosigners } = await founder.operator.json<{ cosigners: string[] }>(`/v1/epochs/${last}`);
  expect(cosigners.length).toBeGreaterThanOrEqual(2);
});

it('they have the same epochs, to the byte, and can prove them', async () => {
  const last = Math.min(...(await Promise.all(cluster.nodes.map(sealedUpTo))));
  const expected = await statementsOf(founder, last);
  for (const node of cluster.nodes.slice(1)) expect(await statementsOf(node, last)).toEqual(expected);
  expect(counted(expected)).toBe(acknowledged.requests);
  const token = readFileSync(join(founder.data, 'operator.token'), 'utf8').trim();
  for (const node of cluster.nodes) {
    const verified = await new Promise((resolve) => {
      execFile(process.execPath, [VERIFY, node.url, '--token', token, '--without-slots'], (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : error.code, output: stdout.slice(-200) + stderr }),
      );
    });
    expect(verified).toMatchObject({ code: 0 });
  }
});
