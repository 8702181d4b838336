import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { base64, type ReplicaId } from '../../src/base/index.ts';
import {
  appendLeaves,
  checkpointText,
  consistencyProof,
  cosignCheckpoint,
  cosignerKey,
  EMPTY_EDGE,
  edgeRoot,
  formatVerifierKey,
  frontierAt,
  frontierRoot,
  inclusionProof,
  leafHash,
  logKey,
  signCheckpoint,
} from '../../src/transparency/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { leaf, range, TileMap } from './support.ts';

const run = promisify(execFile);
const SOURCE = fileURLToPath(new URL('../../../../test/go', import.meta.url));
/** Where Debian's golang-golang-x-mod-dev puts the module; no network and no module proxy is needed. */
const GOPATH = '/usr/share/gocode';
const go = await run('go', ['list', 'golang.org/x/mod/sumdb/tlog'], {
  env: { ...process.env, GO111MODULE: 'off', GOPATH },
}).then(
  () => true,
  () => false,
);
if (!go)
  process.stderr.write('Skipped: the check by Go needs the Debian packages golang-go and golang-golang-x-mod-dev.\n');

const ORIGIN = 'waggle.example/0123456789abcdef';
const REPLICA = 'a1b2c3d4e5f60718a1b2c3d4e5f60718' as ReplicaId;
const SIZE = 70_000;

interface Published {
  checkpoint: string;
  'log.vkey': string;
  'inclusion.json': { index: number; size?: number; root?: string; leaf?: string; leafHash: string; proof: string[] }[];
  'consistency.json': { oldSize: number; oldRoot: string; newSize: number; newRoot: string; proof: string[] }[];
}

/** A signed tree of 70 000 leaves with proofs between many of its sizes. */
async function publish(): Promise<Published> {
  const [log, cosigner] = [testSigner('log'), testSigner('cosigner')];
  const leafHashes = range(0, SIZE).map((i) => leafHash(nodeCrypto, leaf(i)));
  const { edge, tiles } = appendLeaves(nodeCrypto, EMPTY_EDGE, leafHashes);
  const store = new TileMap();
  store.put(tiles);
  const rootAt = async (size: number) =>
    base64.encode(frontierRoot(nodeCrypto, await frontierAt(nodeCrypto, store.read, size)));
  const text = checkpointText({ origin: ORIGIN, size: SIZE, root: edgeRoot(nodeCrypto, edge) });
  const encoded = (hashes: readonly Uint8Array[]) => hashes.map((hash) => base64.encode(hash));

  const inclusion = async (index: number, size: number) => {
    const proof = encoded((await inclusionProof(nodeCrypto, store.read, index, size)).hashes);
    const at = size === SIZE ? {} : { size, root: await rootAt(size) };
    return { index, ...at, leaf: base64.encode(leaf(index)), leafHash: base64.encode(leafHashes[index]!), proof };
  };
  const consistency = async (oldSize: number, newSize: number) => {
    const proof = encoded((await consistencyProof(nodeCrypto, store.read, oldSize, newSize)).hashes);
    return { oldSize, oldRoot: await rootAt(oldSize), newSize, newRoot: await rootAt(newSize), proof };
  };
  const sizes = [1, 2, 3, 5, 8, 13, 255, 256, 257, 1_000, 4_096, 65_535, 65_536, 65_537, SIZE];
  const pairs = sizes.flatMap((newSize) =>
    sizes.filter((size) => size <= newSize).map((size) => [size, newSize] as const),
  );
  const keys = [
    logKey(nodeCrypto, ORIGIN, log.publicKey),
    cosignerKey(nodeCrypto, ORIGIN, REPLICA, cosigner.publicKey),
  ];
  return {
    checkpoint:
      `${text}\n${signCheckpoint(nodeCrypto, text, ORIGIN, log)}` +
      cosignCheckpoint(nodeCrypto, text, ORIGIN, REPLICA, cosigner, 1_700_000_000),
    'log.vkey': keys.map((key) => `${formatVerifierKey(key)}\n`).join(''),
    'inclusion.json': await Promise.all(pairs.map(([oldSize, newSize]) => inclusion(oldSize - 1, newSize))),
    'consistency.json': await Promise.all(pairs.map(([oldSize, newSize]) => consistency(oldSize, newSize))),
  };
}

describe.skipIf(!go)('golang.org/x/mod/sumdb', () => {
  let directory = '';
  let published: Published;
  const check = async (changes: Partial<Published>) => {
    for (const [name, content] of Object.entries({ ...published, ...changes })) {
      await writeFile(join(directory, name), typeof content === 'string' ? content : JSON.stringify(content));
    }
    return run(join(directory, 'check'), [directory]).then(
      ({ stdout }) => stdout,
      ({ code, stderr }: { code: number; stderr: string }) => `${code} ${stderr}`,
    );
  };

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'waggle-go-'));
    const env = { ...process.env, GO111MODULE: 'off', GOPATH, GOFLAGS: '' };
    await run('go', ['build', '-o', join(directory, 'check'), '.'], { cwd: SOURCE, env });
    published = await publish();
  }, 120_000);
  afterAll(() => rm(directory, { recursive: true, force: true }));

  it('accepts our checkpoint, its signatures and every proof', async () => {
    expect(await check({})).toBe(`ok ${ORIGIN} size=${SIZE} signatures=2 unknown=0 inclusions=120 consistencies=120\n`);
  });

  it('refuses a wrong proof, leaf, root and signature', async () => {
    const [first, ...inclusions] = published['inclusion.json'].toReversed();
    const [last, ...consistencies] = published['consistency.json'].toReversed().slice(1);
    const other = base64.encode(new Uint8Array(32));
    expect(
      await check({ 'inclusion.json': [{ ...first!, proof: first!.proof.with(3, other) }, ...inclusions] }),
    ).toMatch(/^1 failed: inclusion\.json \[0\]/);
    expect(await check({ 'inclusion.json': [{ ...first!, leaf: other }] })).toMatch(/does not have that hash/);
    expect(await check({ 'inclusion.json': [{ ...first!, index: 5 }] })).toMatch(/^1 failed: inclusion\.json/);
    expect(await check({ 'consistency.json': [...consistencies, { ...last!, oldRoot: other }] })).toMatch(
      /^1 failed: consistency\.json/,
    );
    expect(await check({ 'consistency.json': [{ ...last!, newRoot: other }] })).toMatch(/not the checkpoint's/);
    const { checkpoint } = published;
    expect(await check({ checkpoint: checkpoint.replace(`\n${SIZE}\n`, '\n70001\n') })).toMatch(
      /^1 failed: checkpoint/,
    );
    const forged = cosignCheckpoint(
      nodeCrypto,
      'another text\n',
      ORIGIN,
      REPLICA,
      testSigner('cosigner'),
      1_700_000_000,
    );
    const lines = checkpoint.split('\n');
    expect(await check({ checkpoint: [...lines.slice(0, -2), forged].join('\n') })).toMatch(
      /^1 failed: checkpoint: invalid/,
    );
  });
});
