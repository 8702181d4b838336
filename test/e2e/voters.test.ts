import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { customerFetch, resize, root as home, startCluster, until, waggle } from './harness.ts';
import type { ClusterNode, ClusterView, RunningCluster } from './harness.ts';
import { makePictures } from './pictures.ts';

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

/** Waits until nothing is wrong any more, as a node sees it. */
const isCalm = (node: ClusterNode): Promise<unknown> =>
  until(`no alarms at ${node.data}`, async () => ((await view(node)).alarms.length === 0 ? true : undefined));

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
  for (const node of [a, b, c]) await voters(node, 3);
  await Promise.all([a, b, c].map(isCalm));
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
  await isCalm(d);
});

it('a customer checks its statement offline, by voters that the genesis does not know, as AUDITING.md says', async () => {
  const run = promisify(execFile);
  const VERIFY = `"${process.execPath}" "${join(home, 'apps', 'verify', 'bin', 'waggle-verify.js')}"`;
  const directory = mkdtempSync(join(tmpdir(), 'waggle-customer-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  // The genesis came with the contract; what is asked for comes from several nodes.
  writeFileSync(join(directory, 'genesis.json'), await (await fetch(`${b.url}/v1/genesis`)).text());
  const { key } = await b.operator.customer('acme');
  const [picture] = await makePictures();
  const made = await until('a key that is known at c', async () => {
    const response = await resize(c.url, key, 'width=32&format=jpeg', picture!.bytes);
    return response.status === 200 ? response : undefined;
  });
  await made.arrayBuffer();
  const epoch = await until('a statement', async () => {
    const response = await customerFetch(c.url, key, '/v1/statements');
    return ((await response.json()) as { statements: { epoch: number }[] }).statements[0]?.epoch;
  });
  const page = readFileSync(join(home, 'docs', 'AUDITING.md'), 'utf8');
  const commands = /```sh customer\n([^`]*)```/.exec(page)![1]!;
  const script = commands
    .replaceAll('https://pictures.example.com', c.url)
    .replaceAll('/v1/statements/17', `/v1/statements/${epoch}`)
    .replaceAll('npx waggle-verify', VERIFY);
  const { stdout } = await run('sh', ['-ec', script], { cwd: directory, env: { ...process.env, KEY: key } });
  expect(stdout).toMatch(/^statement of acme for epoch \d+, sealed in \d+, cosigned by [0-9a-f]{8} [0-9a-f]{8}\n/);
  expect(stdout).toMatch(/^OK: /m);
  // Every node shows a chain that holds; without one, nobody knows who had to sign.
  const check = script.trimEnd().split('\n').at(-1)!;
  for (const { url } of cluster.nodes.slice(1)) {
    writeFileSync(join(directory, 'rosters.jsonl'), await (await fetch(`${url}/v1/rosters.jsonl`)).text());
    expect((await run('sh', ['-ec', check], { cwd: directory })).stdout).toMatch(/^OK: /m);
  }
  const alone = run('sh', ['-ec', check.replace(' --rosters rosters.jsonl', '')], { cwd: directory });
  await expect(alone).rejects.toMatchObject({
    code: 2,
    stderr: expect.stringContaining('/v1/rosters.jsonl') as string,
  });
  // The bundle of that epoch by itself, as an auditor has kept it.
  const archive = new Uint8Array(await (await b.operator.fetch(`/v1/epochs/${epoch}.tar`)).arrayBuffer());
  writeFileSync(join(directory, 'epoch.tar'), archive);
  const audit = `${VERIFY} epoch.tar --genesis genesis.json`;
  const known = await run('sh', ['-ec', `${audit} --rosters rosters.jsonl`], { cwd: directory });
  expect(known.stdout).toContain(`UNANCHORED: nothing before epoch ${epoch} `);
  await expect(run('sh', ['-ec', audit], { cwd: directory })).rejects.toMatchObject({ code: 2 });
});
