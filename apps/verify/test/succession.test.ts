import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packBundle, type Bundle } from '@waggle/protocol/audit';
import { base64, utf8 } from '@waggle/protocol/base';
import { encodeGenesis } from '@waggle/protocol/sealing';
import { succeed, successorOf } from '../../../packages/protocol/test/audit/successor.ts';
import { eventfulCluster, publish } from '../../../packages/protocol/test/audit/support.ts';
import { TileMap } from '../../../packages/protocol/test/transparency/support.ts';
import { parseTilePath } from '@waggle/protocol/transparency';
import { runVerifier, scratch, type Ran } from './support.ts';

const at = scratch();

const verify = (...args: readonly string[]): Promise<Ran> => runVerifier(args);
const result = ({ out }: Ran): Record<string, unknown> =>
  JSON.parse(out.trimEnd().split('\n').at(-1)!) as Record<string, unknown>;

/** Epochs 0 to 3 of a cluster of three, and 4 and 5 of its successor. */
const lost = eventfulCluster({ members: 3 });
lost.meter(lost.nodes[0]!, 'shop', 10);
const before = await publish(lost);
const { cluster, bundles, records } = succeed(lost, 2);

function folder(name: string, all: readonly (readonly [epoch: number, bundle: Bundle])[]): string {
  const path = at(name);
  mkdirSync(path);
  for (const [epoch, bundle] of all) writeFileSync(join(path, `${epoch}.tar`), packBundle(epoch, bundle));
  return path;
}
function file(name: string, text: string): string {
  const path = at(name);
  writeFileSync(path, text);
  return path;
}

const old = before.bundles.map((bundle, epoch) => [epoch, bundle] as const);
const fresh = bundles.map((bundle, i) => [4 + i, bundle] as const);
const [oldFolder, newFolder] = [folder('old', old), folder('new', fresh)];
const both = folder('both', [...old, ...fresh]);
const genesis = file('genesis.json', encodeGenesis(cluster.genesis));
const oldGenesis = file('old-genesis.json', encodeGenesis(lost.cluster.genesis));

describe('a log that continues another one', () => {
  it('says so, and that nobody has compared the two', async () => {
    const ran = await verify(newFolder, '--genesis', genesis);
    expect(ran).toMatchObject({ code: 0, err: '' });
    expect(ran.out).toContain(`continues cluster ${lost.cluster.id} at epoch 4, signed by the operator`);
    expect(ran.out).toContain('the operator says: The building burned down.');
    expect(ran.out).toContain('NOT CHECKED against its log');
  });

  it('is held against the other one: bundles, or what an earlier run verified of it', async () => {
    const state = at('old-state');
    expect((await verify(oldFolder, '--state', state)).code).toBe(0);
    for (const predecessor of [oldFolder, state]) {
      const ran = await verify(newFolder, '--genesis', genesis, '--predecessor', predecessor);
      expect(ran).toMatchObject({ code: 0, err: '' });
      expect(ran.out).toContain('nothing that it counted is counted again');
    }
  });

  it('is neither good nor bad where the other one was not verified to its end yet, and good once it was', async () => {
    const shorter = folder('shorter', old.slice(0, -1));
    const gap = folder('gap', [...old.slice(0, -1), ...fresh]);
    const state = at('behind');
    expect((await verify(shorter, '--state', state)).code).toBe(0);
    for (const args of [
      [newFolder, '--predecessor', shorter],
      [newFolder, '--predecessor', state],
      [newFolder, '--state', state],
      [gap],
    ]) {
      const ran = await verify(...args, '--json');
      expect([args, ran.code]).toEqual([args, 2]);
      const message = expect.stringContaining('up to its end, epoch 3, received it up to epoch 2') as string;
      expect(result(ran)).toMatchObject({ ok: false, finding: { code: 'CONFIG_INVALID', message } });
    }
    // One under another name is no successor, however little was seen.
    const other = utf8(encodeGenesis(successorOf(lost, {}, { name: 'example.com/other' })));
    const renamed = folder('renamed', [...old.slice(0, -1), [4, new Map(bundles[0]).set('genesis.json', other)]]);
    const refused = await verify(renamed, '--json');
    expect(refused.code).toBe(1);
    expect(result(refused)).toMatchObject({ finding: { code: 'GENESIS_MISMATCH' } });
    // What the survivors keep brings a state to the end, and it goes on with the successor.
    expect((await verify(oldFolder, '--state', state)).code).toBe(0);
    expect(result(await verify(newFolder, '--state', state, '--json'))).toMatchObject({
      ok: true,
      succession: { checked: true },
    });
  });

  it('is refused where the other one goes on, was not seen from its beginning, or is another', async () => {
    const later = folder('later', old.slice(1));
    for (const [predecessor, code] of [
      [later, 'GENESIS_MISMATCH'],
      [newFolder, 'GENESIS_MISMATCH'],
    ] as const) {
      const ran = await verify(newFolder, '--predecessor', predecessor, '--json');
      expect(ran.code).toBe(1);
      expect(result(ran)).toMatchObject({ ok: false, finding: { code } });
    }
    expect(await verify(oldFolder, '--predecessor', newFolder)).toMatchObject({
      code: 2,
      err: expect.stringContaining('succeeds another one'),
    });
  });

  it('is gone on with where both are in one folder, whichever genesis is trusted', async () => {
    for (const pin of [['--genesis', genesis], ['--genesis', oldGenesis], []]) {
      const ran = await verify(both, '--json', ...pin);
      expect(ran.code).toBe(0);
      expect(result(ran)).toMatchObject({
        cluster: cluster.id,
        epochs: 6,
        unanchored: [],
        stateEpoch: 6,
        succession: { predecessor: lost.cluster.id, epoch: 4, checked: true },
      });
    }
    expect(result(await verify(oldFolder, '--genesis', genesis, '--json'))).toMatchObject({
      finding: { code: 'GENESIS_MISMATCH', message: expect.stringContaining('its predecessor only') },
    });
  });

  it('is gone on with from a state of the other one, also at a node', async () => {
    const tiles = new TileMap();
    for (const { sealed } of records) tiles.put(sealed.tiles);
    const last = records.at(-1)!.sealed;
    const server = createServer((request, response) => {
      const path = new URL(request.url!, 'http://node').pathname.slice(1);
      void (async (): Promise<string | Uint8Array | null> => {
        if (path === 'v1/genesis') return encodeGenesis(cluster.genesis);
        if (path === 'checkpoint') return last.checkpoint;
        if (path === 'v1/epochs')
          return JSON.stringify({
            sealedUpTo: last.epoch,
            epochs: records.map(({ sealed: { epoch, treeSize, root } }) => ({
              epoch,
              state: 'sealed',
              treeSize,
              root: base64.encode(root),
            })),
          });
        const epoch = /^v1\/epochs\/(\d+)\.tar$/.exec(path)?.[1];
        if (epoch !== undefined) return packBundle(Number(epoch), bundles[Number(epoch) - 4]!);
        if (!path.startsWith('tile/')) return null;
        const tile = parseTilePath(path);
        return tile === null || tile.level === 'entries' ? null : tiles.read(tile.level, tile.index, tile.width);
      })().then((body) => response.writeHead(body === null ? 404 : 200).end(body));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const state = at('state');
    expect((await verify(oldFolder, '--state', state)).code).toBe(0);
    const crossed = await verify(url, '--state', state, '--json');
    expect(crossed.err).toBe('');
    expect(result(crossed)).toMatchObject({ ok: true, epochs: 2, stateEpoch: 6, succession: { checked: true } });
    expect(result(await verify(url, '--state', state, '--json'))).toMatchObject({
      ok: true,
      epochs: 0,
      cluster: cluster.id,
    });
    server.close();
  });
});
