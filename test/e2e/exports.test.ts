import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { parquetReadObjects } from 'hyparquet';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { unpackBundle } from '@waggle/protocol/audit';
import { addUsage, DIMENSIONS, ZERO_USAGE, type Dimension, type Usage } from '@waggle/protocol/lattice';
import { TILE_WIDTH, tilePath } from '@waggle/protocol/transparency';
import { customerFetch, Operator, resize, root, scratch, sealed, startNode, until, usageOf } from './harness.ts';
import type { RunningNode } from './harness.ts';
import { makePictures } from './pictures.ts';

const run = promisify(execFile);
const VERIFY = join(root, 'apps', 'verify', 'bin', 'waggle-verify.js');
const WAGGLE = join(root, 'apps', 'node', 'bin', 'waggle.js');
const EPOCHS = 40;
/** Runs of the auditor while the epochs go by. */
const AUDITS = 4;

const goIsHere = await run('go', ['version']).then(
  () => true,
  () => false,
);

interface Result {
  readonly ok: boolean;
  readonly epochs: number;
  readonly first: number | null;
  readonly last: number | null;
  readonly logSize: number;
  readonly totals: Readonly<Record<Dimension, string>>;
}

describe('sealed usage as others take it', () => {
  const data = scratch();
  const at = (...names: string[]): string => join(dirname(data.path), ...names);
  let node: RunningNode;
  let operator: Operator;
  let auditor = '';
  let customers: { readonly id: string; readonly key: string }[] = [];
  const received = new Map<string, Usage>();
  let last = 0;
  const audits: Result[] = [];
  let watched = '';

  const get = async (path: string): Promise<Uint8Array> => {
    const response = await fetch(node.url + path, { headers: { authorization: `Bearer ${auditor}` } });
    expect([path, response.status]).toEqual([path, 200]);
    return new Uint8Array(await response.arrayBuffer());
  };
  const text = async (path: string): Promise<string> => new TextDecoder().decode(await get(path));

  async function audit(): Promise<Result> {
    const args = [VERIFY, node.url, '--genesis', at('genesis.json'), '--state', at('state'), '--json'];
    const { stdout } = await run(process.execPath, args, { env: { ...process.env, WAGGLE_TOKEN: auditor } });
    return JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as Result;
  }

  beforeAll(async () => {
    node = await startNode(data.path, ['--epoch-ms', '1000']);
    operator = new Operator(node.url, data.path);
    auditor = (await operator.json<{ token: string }>('/v1/tokens', 'POST', { role: 'auditor', name: 'audit' })).token;
    customers = await Promise.all(['acme', 'brick'].map((id) => operator.customer(id)));
    writeFileSync(at('genesis.json'), await get('/v1/genesis'));
    const watching = spawn(process.execPath, [WAGGLE, 'epochs', '--watch', '--url', node.url], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    watching.stdout.on('data', (chunk: Buffer) => (watched += chunk.toString()));
    const pictures = await makePictures();
    for (let part = 1; part <= AUDITS; part++) {
      // Part of the epochs have work, part of them have none.
      for (const { id, key } of customers)
        for (const format of ['jpeg', 'webp']) {
          const response = await resize(
            node.url,
            key,
            `width=32&format=${format}`,
            pictures[part % pictures.length]!.bytes,
          );
          expect(response.status).toBe(200);
          await response.arrayBuffer();
          received.set(id, addUsage(received.get(id) ?? ZERO_USAGE, usageOf(response)));
        }
      const { openEpoch } = await operator.json<{ openEpoch: number }>('/v1/cluster');
      await sealed(operator, Math.max(openEpoch, Math.floor((EPOCHS * part) / AUDITS)));
      audits.push(await audit());
    }
    last = audits.at(-1)!.last!;
    await until('the watch to see the last epoch', () =>
      Promise.resolve(watched.includes(`epoch ${last} sealed`) ? true : undefined),
    );
    watching.kill();
    await once(watching, 'exit');
  }, 240_000);
  afterAll(async () => {
    await node.stop();
    data.remove();
  });

  it('is audited piece by piece, each going on where the one before ended, with the log that everybody sees', () => {
    let next = 0;
    for (const { ok, epochs, first, last: end, logSize } of audits) {
      expect([ok, first, epochs]).toEqual([true, next, end! - next + 1]);
      expect(logSize).toBeGreaterThanOrEqual(end! + 1);
      next = end! + 1;
    }
    const totals = audits.map((result) => result.totals);
    for (const name of DIMENSIONS)
      expect(
        totals.reduce((sum, each) => sum + Number(each[name]), 0),
        name,
      ).toBe([...received.values()].reduce(addUsage, ZERO_USAGE)[name]);
  });

  it('is what CSV, Parquet and FOCUS have, for auditors and for each customer', async () => {
    const sums = new Map<string, Usage>();
    const add = (customer: string, name: Dimension, figure: number): void =>
      void sums.set(customer, addUsage(sums.get(customer) ?? ZERO_USAGE, { ...ZERO_USAGE, [name]: figure }));
    const parquet = async (bytes: Uint8Array): Promise<Record<string, unknown>[]> =>
      parquetReadObjects({
        file: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer,
      });
    for (let epoch = 0; epoch <= last; epoch++) {
      const base = `/v1/epochs/${epoch}/statements`;
      const [head, ...rows] = (await text(`${base}.csv`)).trimEnd().split('\r\n');
      const names = head!.split(',');
      const table = await parquet(await get(`${base}.parquet`));
      expect(
        table.map((row) =>
          names.map((name) => (row[name] instanceof Date ? row[name].toISOString() : String(row[name]))).join(','),
        ),
      ).toEqual(rows);
      for (const row of await parquet(await get(`${base}.parquet?columns=focus`)))
        add(String(row['SubAccountId']), row['SkuMeter'] as Dimension, row['ConsumedQuantity'] as number);
      const bundle = unpackBundle(await get(`/v1/epochs/${epoch}.tar`));
      expect(await text(`${base}.jsonl`)).toBe(new TextDecoder().decode(bundle.get('statements.jsonl')));
      const outline = unpackBundle(await get(`/v1/epochs/${epoch}/outline.tar`));
      for (const [name, bytes] of outline) expect(Buffer.from(bytes).equals(bundle.get(name)!)).toBe(true);
    }
    expect(sums).toEqual(received);
    for (const { id, key } of customers) {
      const response = await customerFetch(node.url, key, '/v1/statements.parquet');
      const rows = await parquet(new Uint8Array(await response.arrayBuffer()));
      const cpu = rows.reduce((sum, row) => sum + Number(row['cpuMicros']), 0);
      expect([new Set(rows.map(({ customer }) => customer)), cpu]).toEqual([
        new Set([id]),
        received.get(id)!.cpuMicros,
      ]);
    }
  });

  it('is told as it comes by `waggle epochs --watch`', () => {
    const sealedOnes = [...watched.matchAll(/^epoch (\d+) sealed: \d+ leaves, root \S{44}$/gm)].map((match) =>
      Number(match[1]),
    );
    expect(sealedOnes.length).toBeGreaterThan(EPOCHS / 2);
    expect(sealedOnes).toEqual(sealedOnes.map((_, i) => sealedOnes[0]! + i));
    expect(watched).toMatch(/^epoch \d+ open until 20\S+Z$/m);
  });

  it.skipIf(!goIsHere)(
    "is what Go's sumdb finds in our tiles (skipped without the Debian packages golang and golang-golang-x-mod-dev)",
    async () => {
      // One moment: the policy and the tiles are those of this checkpoint.
      const checkpoint = await text('/checkpoint');
      const treeSize = Number(checkpoint.split('\n')[1]);
      const write = (name: string, content: string | Uint8Array): void => {
        mkdirSync(dirname(at('go', name)), { recursive: true });
        writeFileSync(at('go', name), content);
      };
      for (let level = 0, hashes = treeSize; hashes > 0; level++, hashes = Math.floor(hashes / TILE_WIDTH))
        for (let index = 0; index * TILE_WIDTH < hashes; index++)
          for (const kind of level === 0 ? [level, 'entries' as const] : [level]) {
            const path = tilePath({ level: kind, index, width: Math.min(TILE_WIDTH, hashes - index * TILE_WIDTH) });
            write(path, await get(`/${path}`));
          }
      const policy = await text('/v1/policy');
      const epochs = [];
      for (let epoch = 0; epoch <= last; epoch++)
        epochs.push({ checkpoint: await text(`/v1/epochs/${epoch}/checkpoint`), policy });
      write('epochs.json', JSON.stringify(epochs));
      write('checkpoint', checkpoint);
      write('log.vkey', await get('/v1/log.vkey'));
      for (const name of ['inclusion.json', 'consistency.json']) write(name, '[]');
      const env = { ...process.env, GO111MODULE: 'off', GOPATH: '/usr/share/gocode', GOFLAGS: '' };
      await run('go', ['build', '-o', at('go', 'check'), '.'], { cwd: join(root, 'test', 'go'), env });
      const { stdout } = await run(at('go', 'check'), [at('go')]);
      expect(stdout).toMatch(new RegExp(`^ok .* epochs=${last + 1}\n$`));
    },
  );
});
