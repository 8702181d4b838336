import {
  chmodSync,
  cpSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  readdirSync,
} from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packBundle, type Bundle } from '@waggle/protocol/audit';
import { base64, seededRandom } from '@waggle/protocol/base';
import { encodeGenesis, epochBounds } from '@waggle/protocol/sealing';
import { parseTilePath } from '@waggle/protocol/transparency';
import { eventfulCluster, publish, type Published } from '../../../packages/protocol/test/audit/support.ts';
import { TileMap } from '../../../packages/protocol/test/transparency/support.ts';
import { runVerifier as verify, scratch, type Ran } from './support.ts';

const at = scratch();

interface Line {
  readonly type: string;
  readonly [key: string]: unknown;
}
const linesOf = ({ out }: Ran): Line[] =>
  out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
const resultOf = (ran: Ran): Line => linesOf(ran).at(-1)!;

const clusterOfThree = eventfulCluster({ members: 3 });
const good = await publish(clusterOfThree);
/** The same cluster, but another history of it. */
const forked = await publish(eventfulCluster({ members: 3, seed: 5 }));
/** Its tree. */
const tiles = new TileMap();
for (const { sealed } of clusterOfThree.nodes[0]!.disk.sealed) tiles.put(sealed.tiles);
const alone = await publish(eventfulCluster({ members: 1 }));

function unpack(folder: string, bundle: Bundle): void {
  for (const [name, bytes] of bundle) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
}

/** Writes bundles into a new folder: even epochs unpacked, odd ones as archives. */
function spread(name: string, { bundles }: Published, epochs: readonly number[] = [...bundles.keys()]): string {
  const folder = at(name);
  mkdirSync(folder);
  for (const epoch of epochs)
    if (epoch % 2 === 0) unpack(join(folder, `epoch-${epoch}`), bundles[epoch]!);
    else writeFileSync(join(folder, `${epoch}.tar`), packBundle(epoch, bundles[epoch]!));
  return folder;
}

const genesis = at('genesis.json');
writeFileSync(genesis, encodeGenesis(good.cluster.genesis));
const otherGenesis = at('other-genesis.json');
writeFileSync(otherGenesis, encodeGenesis(alone.cluster.genesis));
const tar = at('two.tar');
writeFileSync(tar, packBundle(2, good.bundles[2]!));
const all = spread('all', good);

describe('a folder of bundles', () => {
  it('is verified in sequence from the genesis', async () => {
    const ran = await verify([all, '--genesis', genesis]);
    expect(ran).toMatchObject({ code: 0, err: '' });
    const printed = ran.out.trimEnd().split('\n');
    // What is particular about an epoch is below it.
    expect(
      printed.filter((line) => line.startsWith(' ')).map((line) => line.replace(/[0-9a-f]{32}-\d+/, 'SLOT')),
    ).toEqual([
      '  written off, as far as it was known: slot SLOT-0',
      expect.stringMatching(/^ {2}late usage of epoch 0: 1 statement, requests 3, requestsFailed 3, /),
      '  written off, as far as it was known: slot SLOT-0',
    ]);
    const lines = printed.filter((line) => !line.startsWith(' '));
    expect(lines.map((line) => line.split(/[: ]/, 2).join(' '))).toEqual([
      'epoch 0',
      'epoch 1',
      'epoch 2',
      'epoch 3',
      `cluster ${good.cluster.id},`,
      'checked 4',
      'totals ',
      'OK',
    ]);
    expect(lines[2]).toMatch(
      /^epoch 2: 1 statement \(1 late\) from 4 slots, tree size 6, root \S{44}, cosigned by 2 of 3: [0-9a-f]{8} [0-9a-f]{8}$/,
    );
    expect(lines[5]).toBe('checked 4 epochs (0 to 3), 6 statements');
    expect(lines[6]).toMatch(
      /^totals: requests 115, requestsFailed \d+, bytesIn \d+, bytesOut \d+, pixelsIn \d+, pixelsOut \d+, cpuMicros \d+$/,
    );
  });

  it('says what it did as JSON lines, too', async () => {
    const lines = linesOf(await verify([all, '--genesis', genesis, '--json']));
    expect(lines.map(({ type }) => type)).toEqual(['epoch', 'epoch', 'epoch', 'epoch', 'result']);
    const { sealed } = clusterOfThree.nodes[0]!.disk.sealed[2]!;
    expect(lines[2]).toEqual({
      type: 'epoch',
      epoch: 2,
      where: join(all, 'epoch-2'),
      anchored: true,
      treeSize: 6,
      root: base64.encode(sealed.root),
      slots: 4,
      statements: 1,
      late: 1,
      lateUsage: [{ epoch: 0, statements: 1, totals: expect.objectContaining({ requests: '3' }) as unknown }],
      writtenOff: [expect.stringMatching(/^[0-9a-f]{32}-\d+-0$/)],
      recomputed: true,
      totals: {
        requests: '3',
        requestsFailed: '3',
        bytesIn: '3',
        bytesOut: '3',
        pixelsIn: '3',
        pixelsOut: '3',
        cpuMicros: '3',
      },
      roster: 3,
      cosigners: expect.arrayContaining([expect.stringMatching(/^[0-9a-f]{8}$/)]) as unknown,
    });
    expect(lines[4]).toMatchObject({
      ok: true,
      finding: null,
      cluster: good.cluster.id,
      origin: good.cluster.origin,
      pinned: 'genesis',
      epochs: 4,
      first: 0,
      last: 3,
      statements: 6,
      totals: { requests: '115' },
      unanchored: [],
      stateEpoch: 4,
    });
  });

  it('is not trusted for its genesis without saying so', async () => {
    const ran = await verify([all]);
    expect(ran.code).toBe(0);
    expect(ran.out).toMatch(/^UNPINNED: /m);
    expect(resultOf(await verify([all, '--json']))).toMatchObject({ ok: true, pinned: null });
    expect(await verify([all, '--genesis', otherGenesis])).toMatchObject({
      code: 1,
      err: expect.stringMatching(
        /^FAILED GENESIS_MISMATCH: .*\nepoch 0, .*epoch-0: Expected the genesis of cluster /,
      ) as string,
    });
  });

  it('with gaps is verified piece by piece, and it says what hangs in the air', async () => {
    const gaps = spread('gaps', good, [0, 2, 3]);
    const ran = await verify([gaps, '--genesis', genesis]);
    expect(ran.code).toBe(0);
    expect(ran.out.match(/^UNANCHORED: .*$/gm)).toEqual([expect.stringContaining('before epoch 2 ')]);
    const lines = linesOf(await verify([gaps, '--genesis', genesis, '--json']));
    expect(lines.slice(0, 3).map(({ epoch, anchored }) => [epoch, anchored])).toEqual([
      [0, true],
      [2, false],
      [3, false],
    ]);
    expect(lines[3]).toMatchObject({ ok: true, unanchored: [2], stateEpoch: 1 });
  });

  it('of two histories or of two clusters is refused', async () => {
    const mixed = spread('mixed', good, [0, 2]);
    writeFileSync(join(mixed, '1.tar'), packBundle(1, forked.bundles[1]!));
    expect(resultOf(await verify([mixed, '--json']))).toMatchObject({
      ok: false,
      finding: { code: 'HISTORY_CHANGED', epoch: 1, where: join(mixed, '1.tar') },
    });
    writeFileSync(join(mixed, '1.tar'), packBundle(1, alone.bundles[1]!));
    expect(resultOf(await verify([mixed, '--json']))).toMatchObject({
      finding: { code: 'GENESIS_MISMATCH', epoch: 1 },
    });
    unpack(join(mixed, 'epoch-1'), good.bundles[1]!);
    expect(resultOf(await verify([mixed, '--json']))).toMatchObject({
      finding: { code: 'BUNDLE_MALFORMED', message: expect.stringContaining('one bundle for each epoch') as string },
    });
  });

  it('may be one unpacked bundle', async () => {
    expect(resultOf(await verify([join(all, 'epoch-0'), '--genesis', genesis, '--json']))).toMatchObject({
      ok: true,
      epochs: 1,
      unanchored: [],
    });
    const moved = at('moved');
    cpSync(join(all, 'epoch-2'), moved, { recursive: true });
    expect(resultOf(await verify([moved, '--genesis', genesis, '--json']))).toMatchObject({
      ok: true,
      first: 2,
      unanchored: [2],
    });
    renameSync(moved, at('epoch-3'));
    expect(resultOf(await verify([at('epoch-3'), '--json']))).toMatchObject({
      finding: { code: 'BUNDLE_MALFORMED' },
    });
  });

  it('is refused with files that are missing, too many, or no files', async () => {
    const folder = at('epoch-0');
    const code = async (): Promise<unknown> =>
      (resultOf(await verify([folder, '--json'])) as { finding?: { code: string } }).finding?.code;
    const fresh = (): void => {
      rmSync(folder, { recursive: true, force: true });
      unpack(folder, good.bundles[0]!);
    };
    for (const spoil of [
      () => rmSync(join(folder, 'checkpoint')),
      () => writeFileSync(join(folder, 'notes.txt'), ''),
      () => mkdirSync(join(folder, 'slots', 'deep')),
      () => symlinkSync(genesis, join(folder, 'link')),
    ]) {
      fresh();
      spoil();
      expect(await code()).toBe('BUNDLE_MALFORMED');
    }
  });
});

describe('an archive', () => {
  it('is one bundle', async () => {
    expect(resultOf(await verify([tar, '--genesis', genesis, '--json']))).toMatchObject({
      ok: true,
      first: 2,
      last: 2,
      unanchored: [2],
    });
  });

  it('is refused for any byte that is not what it was', async () => {
    const random = seededRandom(3);
    const archive = readFileSync(tar);
    const spoilt = at('spoilt.tar');
    const rans = Array.from({ length: 8 }, async (_, i) => {
      const copy = Buffer.from(archive);
      copy[random.below(copy.length)]! ^= 1 + random.below(255);
      writeFileSync(`${spoilt}.${i}`, copy);
      const ran = await verify([`${spoilt}.${i}`, '--genesis', genesis]);
      expect(ran, `${i}`).toMatchObject({ code: 1, err: expect.stringMatching(/^FAILED [A-Z]+_[A-Z]+: /) as string });
    });
    await Promise.all(rans);
  });

  it('is refused when it is cut, empty, or no archive', async () => {
    for (const bytes of [readFileSync(tar).subarray(0, 2000), Buffer.alloc(0), Buffer.from('PK\u0003\u0004')]) {
      writeFileSync(at('no.tar'), bytes);
      expect(await verify([at('no.tar')])).toMatchObject({
        code: 1,
        err: expect.stringContaining('FAILED BUNDLE_MALFORMED') as string,
      });
    }
  });
});

describe('a state', () => {
  it('is kept, gone on from, and written for its owner only', async () => {
    const state = at('state');
    const early = spread('early', good, [0, 1]);
    expect(resultOf(await verify([early, '--state', state, '--genesis', genesis, '--json']))).toMatchObject({
      ok: true,
      pinned: 'genesis',
      stateEpoch: 2,
    });
    expect(readdirSync(state)).toEqual(['waggle-verify.json']);
    expect(statSync(state).mode & 0o777).toBe(0o700);
    expect(statSync(join(state, 'waggle-verify.json')).mode & 0o777).toBe(0o600);
    // The state is what is trusted now: no genesis is needed, and 2 is not in the air.
    const rest = spread('rest', good, [2, 3]);
    expect(resultOf(await verify([rest, '--state', state, '--json']))).toMatchObject({
      ok: true,
      pinned: 'state',
      unanchored: [],
      stateEpoch: 4,
    });
    // Again, with what was verified before and nothing new.
    const bytes = readFileSync(join(state, 'waggle-verify.json'));
    for (const source of [all, rest, early])
      expect(resultOf(await verify([source, '--state', state, '--json']))).toMatchObject({
        ok: true,
        stateEpoch: 4,
      });
    expect(readFileSync(join(state, 'waggle-verify.json'))).toEqual(bytes);
  });

  it('notices when history was changed', async () => {
    const state = at('state-2');
    expect((await verify([all, '--state', state])).code).toBe(0);
    const bytes = readFileSync(join(state, 'waggle-verify.json'));
    const other = spread('other', forked);
    expect(forked.cluster.id).toBe(good.cluster.id);
    // All of it is good in itself: signed by the same members.
    expect((await verify([other, '--genesis', genesis])).code).toBe(0);
    expect(await verify([other, '--state', state])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^FAILED HISTORY_CHANGED: .*\nepoch 3, /) as string,
    });
    expect(readFileSync(join(state, 'waggle-verify.json'))).toEqual(bytes);
    const third = spread('third', forked, [3]);
    expect(resultOf(await verify([third, '--state', state, '--json']))).toMatchObject({
      finding: { code: 'HISTORY_CHANGED' },
    });
  });

  it('keeps what was good before what was not', async () => {
    const state = at('state-3');
    const broken = spread('broken', good);
    writeFileSync(join(broken, 'epoch-2', 'statements.jsonl'), '');
    const ran = await verify([broken, '--state', state, '--json']);
    expect(ran.code).toBe(1);
    expect(resultOf(ran)).toMatchObject({
      finding: { code: 'STATEMENT_MISMATCH', epoch: 2 },
      epochs: 2,
      stateEpoch: 2,
    });
    expect(resultOf(await verify([spread('mended', good, [2, 3]), '--state', state, '--json']))).toMatchObject({
      ok: true,
      stateEpoch: 4,
    });
  });

  it('does not begin in the middle', async () => {
    const state = at('state-4');
    const ran = await verify([tar, '--state', state]);
    expect(ran.code).toBe(0);
    expect(ran.out).toContain('STATE NOT KEPT');
    expect(() => statSync(state)).toThrow('ENOENT');
  });
});

describe('a URL', () => {
  /** A node that shows these bundles; `spoil` may answer something else. */
  async function serve(
    { bundles, cluster }: Published,
    test: (url: string, seen: string[]) => Promise<void>,
    spoil: (path: string) => { status: number; body: string | Uint8Array } | undefined = () => undefined,
    token?: string,
  ): Promise<void> {
    const seen: string[] = [];
    const answer = async (
      path: string,
      authorization: string | undefined,
    ): Promise<{ status: number; body: string | Uint8Array }> => {
      const spoilt = spoil(path);
      if (spoilt !== undefined) return spoilt;
      if (path === '/v1/genesis') return { status: 200, body: encodeGenesis(cluster.genesis) };
      const page = /^\/v1\/epochs\?from=(\d+)&limit=(\d+)$/.exec(path);
      if (page !== null) {
        const [from, limit] = [Number(page[1]), Number(page[2])];
        const records = (bundles === good.bundles ? clusterOfThree : null)?.nodes[0]!.disk.sealed;
        const epochs = bundles.map((_, epoch) => {
          const { startMs, endMs } = epochBounds(cluster.genesis, epoch);
          const sealed = records?.[epoch]?.sealed;
          return {
            epoch,
            start: new Date(startMs).toISOString(),
            end: new Date(endMs).toISOString(),
            state: 'sealed',
            treeSize: sealed?.treeSize ?? null,
            root: sealed === undefined ? null : base64.encode(sealed.root),
          };
        });
        const open = { epoch: bundles.length, start: '', end: '', state: 'open', treeSize: null, root: null };
        const body = JSON.stringify({
          sealedUpTo: bundles.length - 1,
          epochs: [...epochs, open].slice(from, from + Math.min(limit, 3)),
        });
        return { status: 200, body };
      }
      const sealed =
        path === '/checkpoint' ? bundles.at(-1) : bundles[Number(/^\/v1\/epochs\/(\d+)\/checkpoint$/.exec(path)?.[1])];
      if (sealed !== undefined) return { status: 200, body: sealed.get('checkpoint')! };
      const tile = parseTilePath(path.slice(1));
      if (tile !== null && tile.level !== 'entries')
        return { status: 200, body: await tiles.read(tile.level, tile.index, tile.width) };
      const epoch = /^\/v1\/epochs\/(\d+)\.tar$/.exec(path);
      if (epoch === null || bundles[Number(epoch[1])] === undefined) return { status: 404, body: '{}' };
      if (token !== undefined && authorization !== `Bearer ${token}`) return { status: 401, body: '{}' };
      return { status: 200, body: packBundle(Number(epoch[1]), bundles[Number(epoch[1])]!) };
    };
    const server = createServer((request, response) => {
      seen.push(request.url!);
      void answer(request.url!, request.headers.authorization).then(({ status, body }) =>
        response.writeHead(status, { location: '/elsewhere' }).end(body),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      await test(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen);
    } finally {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  it('is verified from the first epoch to the last sealed, then from where it was', async () => {
    const state = at('state-url');
    await serve(good, async (url, seen) => {
      const ran = await verify([url, '--state', state, '--json']);
      expect(resultOf(ran)).toMatchObject({ ok: true, pinned: null, epochs: 4, first: 0, last: 3, stateEpoch: 4 });
      expect(linesOf(ran)[2]).toMatchObject({ epoch: 2, where: `${url}/v1/epochs/2.tar` });
      expect(seen.filter((path) => path.endsWith('.tar'))).toEqual(
        [0, 1, 2, 3].map((epoch) => `/v1/epochs/${epoch}.tar`),
      );
      seen.length = 0;
      expect(resultOf(await verify([`${url}/`, '--state', state, '--json']))).toMatchObject({
        ok: true,
        pinned: 'state',
        epochs: 0,
        first: null,
      });
      expect(seen.filter((path) => path.endsWith('.tar'))).toEqual([]);
    });
    // The log has become shorter, or another.
    await serve({ ...good, bundles: good.bundles.slice(0, 2) }, async (url) => {
      expect(resultOf(await verify([url, '--state', state, '--json']))).toMatchObject({
        finding: { code: 'HISTORY_CHANGED', epoch: null, where: url },
      });
    });
    await serve(
      good,
      async (url) => {
        expect(resultOf(await verify([url, '--state', state, '--json']))).toMatchObject({
          finding: { code: 'HISTORY_CHANGED' },
        });
      },
      (path) =>
        path.startsWith('/v1/epochs?')
          ? {
              status: 200,
              body: JSON.stringify({
                sealedUpTo: 3,
                epochs: [{ epoch: 3, state: 'sealed', treeSize: 10, root: base64.encode(new Uint8Array(32)) }],
              }),
            }
          : undefined,
    );
  });

  it('is asked with a token, and says when it needs one', async () => {
    await serve(
      good,
      async (url) => {
        expect(await verify([url])).toMatchObject({
          code: 2,
          err: expect.stringContaining('WAGGLE_TOKEN') as string,
        });
        expect(await verify([url, '--token', 'wrong'])).toMatchObject({ code: 2 });
        expect((await verify([url, '--token', 'right'])).code).toBe(0);
        expect((await verify([url], { WAGGLE_TOKEN: 'right' })).code).toBe(0);
      },
      undefined,
      'right',
    );
  });

  it('is refused for another genesis, a list that lies, a bundle of another history, or no answer', async () => {
    const finding = async (
      spoil: Parameters<typeof serve>[2],
      args: readonly string[] = [],
    ): Promise<{ code: string; epoch: number | null; message: string }> => {
      let found: unknown;
      await serve(
        good,
        async (url) => {
          const ran = await verify([url, '--json', ...args]);
          expect(ran.code).toBe(1);
          found = resultOf(ran)['finding'];
        },
        spoil,
      );
      return found as { code: string; epoch: number | null; message: string };
    };
    const bad =
      (on: string, body: string | Uint8Array, status = 200) =>
      (path: string) =>
        path.startsWith(on) ? { status, body } : undefined;
    expect(await finding(undefined, ['--genesis', otherGenesis])).toMatchObject({
      code: 'GENESIS_MISMATCH',
      epoch: null,
    });
    expect(await finding(bad('/v1/genesis', encodeGenesis(alone.cluster.genesis)))).toMatchObject({
      code: 'GENESIS_MISMATCH',
      epoch: 0,
    });
    expect(await finding(bad('/v1/genesis', '{}'))).toMatchObject({ code: 'GENESIS_MISMATCH', epoch: null });
    const liar = JSON.stringify({
      sealedUpTo: 0,
      epochs: [{ epoch: 0, state: 'sealed', treeSize: 3, root: base64.encode(new Uint8Array(32)) }],
    });
    expect(await finding(bad('/v1/epochs?', liar))).toMatchObject({ code: 'ROOT_MISMATCH', epoch: 0 });
    for (const body of ['null', '{"sealedUpTo":-1,"epochs":[]}', '{"sealedUpTo":0,"epochs":[]}', ' '.repeat(1_100_000)])
      expect(await finding(bad('/v1/epochs?', body))).toMatchObject({ code: 'BUNDLE_MALFORMED', epoch: null });
    expect(await finding(bad('/v1/epochs/1.tar', packBundle(1, forked.bundles[1]!)))).toMatchObject({
      code: 'HISTORY_CHANGED',
      epoch: 1,
    });
    expect(await finding(bad('/v1/epochs/1.tar', packBundle(2, good.bundles[2]!)))).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      epoch: 1,
    });
    expect(await finding(bad('/v1/epochs/2.tar', '', 404))).toMatchObject({
      code: 'BUNDLE_MALFORMED',
      epoch: 2,
      message: expect.stringContaining('404') as string,
    });
    expect(await finding(bad('/v1/epochs/2.tar', '', 302))).toMatchObject({ code: 'BUNDLE_MALFORMED', epoch: 2 });
  });

  it('is held to the log that everybody sees', async () => {
    const log = async (
      shown: Readonly<Record<string, Uint8Array>>,
      listed = 4,
    ): Promise<{ logSize: number | null; finding: { code: string; misbehaviour?: object } | null }> => {
      let result: unknown;
      await serve(
        good,
        async (url) => {
          result = resultOf(await verify([url, '--json', '--genesis', genesis]));
        },
        (path) => {
          const body = shown[path.replace(/\/tile\/.*/, '/tile')];
          if (body !== undefined) return { status: 200, body };
          const page = JSON.stringify({ sealedUpTo: listed - 1, epochs: listedEpochs.slice(0, listed) });
          return path.startsWith('/v1/epochs?') ? { status: 200, body: page } : undefined;
        },
      );
      return result as Awaited<ReturnType<typeof log>>;
    };
    const sealed = clusterOfThree.nodes[0]!.disk.sealed.map((record) => record.sealed);
    const listedEpochs = sealed.map(({ epoch, treeSize, root }) => ({
      epoch,
      state: 'sealed',
      treeSize,
      root: base64.encode(root),
    }));
    expect(await log({})).toMatchObject({ finding: null, logSize: sealed[3]!.treeSize });
    // It has grown since the list was read: the proof is made of its tiles.
    expect(await log({}, 2)).toMatchObject({ finding: null, logSize: sealed[3]!.treeSize });
    const zeros = new Uint8Array(32 * sealed[3]!.treeSize);
    expect((await log({ '/tile': zeros }, 2)).finding).toMatchObject({ code: 'PROOF_INVALID' });
    const old = good.bundles[1]!.get('checkpoint')!;
    expect((await log({ '/checkpoint': old })).finding).toMatchObject({ code: 'HISTORY_CHANGED' });
    const other = forked.bundles[3]!.get('checkpoint')!;
    expect((await log({ '/checkpoint': other })).finding).toMatchObject({
      code: 'HISTORY_CHANGED',
      misbehaviour: { treeSize: sealed[3]!.treeSize },
    });
    expect((await log({ '/checkpoint': old.subarray(0, 40) })).finding).toMatchObject({ code: 'CHECKPOINT_INVALID' });
  });

  it('whose slots are not kept any more is verified without, if that will do', async () => {
    const gone = (path: string): { status: number; body: string | Uint8Array } | undefined => {
      if (/^\/v1\/epochs\/[01]\.tar$/.test(path)) return { status: 410, body: '{}' };
      const epoch = /^\/v1\/epochs\/([01])\/outline\.tar$/.exec(path)?.[1];
      if (epoch === undefined) return undefined;
      const files = [...good.bundles[Number(epoch)]!].filter(([name]) => !/^(slots|counted)\//.test(name));
      return { status: 200, body: packBundle(Number(epoch), new Map(files)) };
    };
    await serve(
      good,
      async (url) => {
        const refused = await verify([url, '--json', '--genesis', genesis]);
        expect([refused.code, resultOf(refused)]).toMatchObject([2, { ok: false, finding: { code: 'SLOTS_EXPIRED' } }]);
        expect(resultOf(await verify([url, '--json', '--genesis', genesis, '--without-slots']))).toMatchObject({
          ok: true,
          epochs: 4,
          notRecomputed: [0, 1],
        });
      },
      gone,
    );
  });

  it('with nothing sealed yet has nothing to find', async () => {
    await serve(
      good,
      async (url) =>
        expect(resultOf(await verify([url, '--json']))).toMatchObject({
          ok: true,
          epochs: 0,
          cluster: good.cluster.id,
        }),
      (path) => (path.startsWith('/v1/epochs?') ? { status: 200, body: '{"sealedUpTo":null,"epochs":[]}' } : undefined),
    );
  });
});

describe('a statement', () => {
  const [first, second] = good.proven;
  writeFileSync(at('statement.json'), first!.statement);
  writeFileSync(at('proof'), first!.proof);
  writeFileSync(at('other-proof'), second!.proof);
  const args = ['--statement', at('statement.json'), '--proof', at('proof')];

  it('is verified offline against its proof', async () => {
    const ran = await verify([...args, '--genesis', genesis]);
    expect(ran).toMatchObject({ code: 0, err: '' });
    expect(ran.out).toMatch(
      /^statement of shop for epoch 0, sealed in 0, cosigned by [0-9a-f]{8} [0-9a-f]{8}\ntotals: requests 48, .*\nOK: /,
    );
    const [line, result] = linesOf(await verify([...args, '--genesis', genesis, '--json']));
    expect(line).toMatchObject({
      type: 'statement',
      cluster: good.cluster.id,
      customer: 'shop',
      epoch: 0,
      totals: { requests: '48' },
    });
    expect(result).toEqual({ type: 'result', ok: true, finding: null });
  });

  it('is refused when it, its proof or the genesis is another', async () => {
    writeFileSync(at('changed.json'), Buffer.from(first!.statement).toString().replace('"shop"', '"shop2"'));
    expect(await verify([...args, '--genesis', otherGenesis])).toMatchObject({
      code: 1,
      err: expect.stringContaining('FAILED GENESIS_MISMATCH') as string,
    });
    expect(
      await verify(['--statement', at('changed.json'), '--proof', at('proof'), '--genesis', genesis]),
    ).toMatchObject({ code: 1, err: expect.stringContaining('FAILED PROOF_INVALID') as string });
    expect(
      resultOf(
        await verify([
          '--statement',
          at('statement.json'),
          '--proof',
          at('other-proof'),
          '--genesis',
          genesis,
          '--json',
        ]),
      ),
    ).toMatchObject({ ok: false, finding: { code: 'PROOF_INVALID', epoch: null } });
  });
});

describe('arguments that cannot be used', () => {
  it('are exit code 2, with a reason', async () => {
    const empty = at('empty');
    mkdirSync(empty);
    const broken = at('broken-state');
    mkdirSync(broken);
    writeFileSync(join(broken, 'waggle-verify.json'), '{}');
    const cases: readonly (readonly string[])[] = [
      [],
      [at('nowhere')],
      [empty],
      [all, tar],
      [all, '--unknown'],
      [all, '--genesis', at('nowhere')],
      [all, '--genesis', tar],
      [all, '--state', broken],
      [all, '--state', genesis],
      ['ftp://example.invalid/'],
      ['http://'],
      ['http://127.0.0.1:1'],
      ['--statement', genesis],
      ['--statement', genesis, '--proof', genesis],
      [all, '--statement', genesis, '--proof', genesis, '--genesis', genesis],
    ];
    await Promise.all(
      cases.map(async (args) => {
        const ran = await verify(args);
        expect(ran, args.join(' ')).toMatchObject({ code: 2, out: '' });
        expect(ran.err, args.join(' ')).toMatch(/(Expected|error: )/);
        expect(ran.err.split('\n').length, ran.err).toBeLessThan(4);
      }),
    );
    expect(resultOf(await verify([at('nowhere'), '--json']))).toMatchObject({
      ok: false,
      finding: { code: 'CONFIG_INVALID' },
    });
    expect(await verify(['--help'])).toMatchObject({
      code: 0,
      out: expect.stringContaining('Exit codes') as string,
    });
  });

  it('with a state of another cluster are not used', async () => {
    const state = at('state-other');
    expect((await verify([spread('alone', alone, [0]), '--state', state])).code).toBe(0);
    expect((await verify([all, '--state', state, '--genesis', genesis])).code).toBe(2);
    expect(resultOf(await verify([all, '--state', state, '--json']))).toMatchObject({
      finding: { code: 'GENESIS_MISMATCH' },
    });
  });

  it('drive no terminal', async () => {
    const evil = at('evil\u001b[2J');
    mkdirSync(evil);
    writeFileSync(join(evil, 'x.tar'), '');
    chmodSync(evil, 0o700);
    const ran = await verify([evil]);
    expect(ran.code).toBe(1);
    expect(ran.err).not.toContain('\u001b');
  });
});
