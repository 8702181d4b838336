import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { totalsOf, unpackBundle, verifyBundle, type Totals, type Verified } from '@waggle/protocol/audit';
import { base64, seededRandom, WaggleError } from '@waggle/protocol/base';
import { addUsage, ZERO_USAGE } from '@waggle/protocol/lattice';
import {
  consistencyProof,
  decodeEntryBundle,
  inclusionProof,
  leafHash,
  tilePath,
  type ReadTile,
} from '@waggle/protocol/transparency';
import { nodeCrypto } from '@waggle/runtime';
import { Operator, resize, root, scratch, sealed, startNode, usageOf, type RunningNode } from './harness.ts';
import { makePictures } from './pictures.ts';

const run = promisify(execFile);
const VERIFY = join(root, 'apps', 'verify', 'bin', 'waggle-verify.js');
const MINUTE_MS = 60_000;
const EPOCH_MS = 2_000;
const CHANGES = 1_000;

const goIsHere = await run('go', ['version']).then(
  () => true,
  () => false,
);

describe('a minute of epochs under load', () => {
  const data = scratch();
  let node: RunningNode;
  let operator: Operator;
  let received = ZERO_USAGE;
  let last = 0;
  const bundles: Uint8Array[] = [];
  const folder = join(dirname(data.path), 'bundles');

  beforeAll(async () => {
    node = await startNode(data.path, ['--epoch-ms', String(EPOCH_MS)]);
    operator = new Operator(node.url, data.path);
    const customers = await Promise.all(['acme', 'brick', 'cloud'].map((id) => operator.customer(id)));
    const pictures = await makePictures();
    const end = Date.now() + MINUTE_MS;
    const client = async (key: string): Promise<void> => {
      for (let i = 0; Date.now() < end; i++) {
        const response = await resize(node.url, key, 'width=48&format=jpeg', pictures[i % pictures.length]!.bytes);
        await response.arrayBuffer();
        if (response.status === 200) received = addUsage(received, usageOf(response));
      }
    };
    await Promise.all(customers.map(({ key }) => client(key)));
    const { epochs } = await operator.json<{ epochs: { epoch: number }[] }>('/v1/epochs?limit=1');
    last = epochs[0]!.epoch;
    await sealed(operator, last);
    mkdirSync(folder);
    for (let epoch = 0; epoch <= last; epoch++) {
      const response = await operator.fetch(`/v1/epochs/${epoch}.tar`);
      expect(response.status).toBe(200);
      const bytes = new Uint8Array(await response.arrayBuffer());
      bundles.push(bytes);
      writeFileSync(join(folder, `${epoch}.tar`), bytes);
    }
  }, MINUTE_MS + 120_000);
  afterAll(async () => {
    await node.stop();
    data.remove();
  });

  it('every epoch is sealed, continues the one before, and together they hold what clients received', () => {
    expect(bundles.length).toBeGreaterThanOrEqual(MINUTE_MS / EPOCH_MS - 1);
    let verified: Verified | null = null;
    let totals: Totals = totalsOf([]);
    for (const bundle of bundles) {
      const result: ReturnType<typeof verifyBundle> = verifyBundle(unpackBundle(bundle), verified, null, nodeCrypto);
      ({ verified } = result);
      totals = totalsOf([totals, result.report.totals]);
    }
    expect(totals).toEqual(totalsOf([received]));
  });

  it('waggle-verify passes on each archive, on the folder and on the node', async () => {
    const genesis = join(dirname(data.path), 'genesis.json');
    writeFileSync(genesis, await (await fetch(`${node.url}/v1/genesis`)).text());
    for (let epoch = 0; epoch <= last; epoch++) {
      const { stdout } = await run(process.execPath, [VERIFY, join(folder, `${epoch}.tar`)]);
      expect(stdout).toContain('UNPINNED');
    }
    const pinned = await run(process.execPath, [VERIFY, folder, '--genesis', genesis]);
    expect(pinned.stdout).not.toContain('UNPINNED');
    const token = (await import('node:fs')).readFileSync(join(data.path, 'operator.token'), 'utf8').trim();
    const online = await run(process.execPath, [VERIFY, node.url, '--genesis', genesis], {
      env: { ...process.env, WAGGLE_TOKEN: token },
    });
    expect(online.stdout).not.toContain('UNPINNED');
  });

  it(`${CHANGES} random one-byte changes to a bundle are each caught`, () => {
    const random = seededRandom(200);
    const busiest = bundles.reduce((a, b) => (b.length > a.length ? b : a));
    for (let i = 0; i < CHANGES; i++) {
      const changed = busiest.slice();
      const at = random.below(changed.length);
      changed[at] = (changed[at]! + 1 + random.below(255)) % 256;
      let caught: unknown;
      try {
        verifyBundle(unpackBundle(changed), null, null, nodeCrypto);
      } catch (error) {
        caught = error;
      }
      expect(caught, `a change at byte ${at}`).toBeInstanceOf(WaggleError);
    }
  });

  it.skipIf(!goIsHere)(
    "Go's sumdb opens our checkpoint and checks our proofs (skipped without the Debian packages golang and golang-golang-x-mod-dev)",
    async () => {
      const read: ReadTile = async (level, index, width) => bytesOf(tilePath({ level, index, width }));
      const bytesOf = async (path: string): Promise<Uint8Array> => {
        const response = await fetch(`${node.url}/${path}`);
        expect(response.status, path).toBe(200);
        return new Uint8Array(await response.arrayBuffer());
      };
      const { epochs } = await operator.json<{ epochs: { treeSize: number; root: string; state: string }[] }>(
        '/v1/epochs?from=0&limit=1000',
      );
      const heads = epochs.filter(({ state }) => state === 'sealed');
      const checkpoint = new TextDecoder().decode(await bytesOf('checkpoint'));
      const [, size, rootText] = checkpoint.split('\n');
      const treeSize = Number(size);
      const inclusion = [];
      for (let index = 0; index < treeSize; index += 3) {
        const tile = Math.floor(index / 256);
        const entries = decodeEntryBundle(
          await bytesOf(tilePath({ level: 'entries', index: tile, width: Math.min(256, treeSize - tile * 256) })),
        );
        const { hashes } = await inclusionProof(nodeCrypto, read, index, treeSize);
        const leaf = base64.encode(leafHash(nodeCrypto, entries[index % 256]!));
        inclusion.push({ index, size: treeSize, root: rootText, leafHash: leaf, proof: hashes.map(base64.encode) });
      }
      const consistency = [];
      for (const head of heads.filter((one) => one.treeSize < treeSize)) {
        const { hashes } = await consistencyProof(nodeCrypto, read, head.treeSize, treeSize);
        consistency.push({
          oldSize: head.treeSize,
          oldRoot: head.root,
          newSize: treeSize,
          newRoot: rootText,
          proof: hashes.map(base64.encode),
        });
      }
      expect(consistency.length).toBeGreaterThan(20);
      const directory = join(dirname(data.path), 'go');
      mkdirSync(directory);
      writeFileSync(join(directory, 'checkpoint'), checkpoint);
      writeFileSync(join(directory, 'log.vkey'), await bytesOf('v1/log.vkey'));
      writeFileSync(join(directory, 'inclusion.json'), JSON.stringify(inclusion));
      writeFileSync(join(directory, 'consistency.json'), JSON.stringify(consistency));
      const env = { ...process.env, GO111MODULE: 'off', GOPATH: '/usr/share/gocode', GOFLAGS: '' };
      const binary = join(directory, 'check');
      await run('go', ['build', '-o', binary, '.'], { cwd: join(root, 'test', 'go'), env });
      const { stdout } = await run(binary, [directory]);
      expect(stdout).toMatch(/^ok/);
    },
  );
});
