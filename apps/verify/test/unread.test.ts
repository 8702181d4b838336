import { readFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { packBundle } from '@waggle/protocol/audit';
import { base64 } from '@waggle/protocol/base';
import { encodeGenesis } from '@waggle/protocol/sealing';
import { parseTilePath } from '@waggle/protocol/transparency';
import { eventfulCluster, publish } from '../../../packages/protocol/test/audit/support.ts';
import { TileMap } from '../../../packages/protocol/test/transparency/support.ts';
import { explain } from '../src/check.ts';
import { UnusableError } from '../src/source.ts';
import { runVerifier, scratch, type Ran } from './support.ts';

/* Nodes that are busy, that go away, and that break off: they could not be read, and are not called forgers for it. */

const at = scratch();

const verify = (...args: readonly string[]): Promise<Ran> => runVerifier(args);

const test = eventfulCluster({ members: 1 });
const { cluster, bundles } = await publish(test);
const { sealed } = test.nodes[0]!.disk;
const tiles = new TileMap();
for (const { sealed: epoch } of sealed) tiles.put(epoch.tiles);
const list = JSON.stringify({
  sealedUpTo: bundles.length - 1,
  epochs: sealed.map(({ sealed: { epoch, treeSize, root } }) => ({
    epoch,
    state: 'sealed',
    treeSize,
    root: base64.encode(root),
  })),
});

async function bodyOf(path: string): Promise<string | Uint8Array> {
  if (path === '/v1/genesis') return encodeGenesis(cluster.genesis);
  if (path.startsWith('/v1/epochs?')) return list;
  if (path === '/checkpoint') return bundles.at(-1)!.get('checkpoint')!;
  const epoch = Number(/^\/v1\/epochs\/(\d+)(\.tar|\/checkpoint)$/.exec(path)?.[1] ?? -1);
  if (path.endsWith('/checkpoint')) return bundles[epoch]!.get('checkpoint')!;
  if (epoch >= 0) return packBundle(epoch, bundles[epoch]!);
  const { level, index, width } = parseTilePath(path.slice(1))!;
  return tiles.read(level as number, index, width);
}

/** Shows the bundles. `spoil` may answer in its own way: of a path, for the first, second, … time. */
async function serve(
  use: (url: string, asked: ReadonlyMap<string, number>) => Promise<void>,
  spoil: (path: string, time: number, response: ServerResponse, body: Buffer) => boolean,
): Promise<void> {
  const asked = new Map<string, number>();
  const server = createServer((request, response) => {
    const path = request.url!;
    const time = (asked.get(path) ?? 0) + 1;
    asked.set(path, time);
    void bodyOf(path).then((body) => {
      const bytes = Buffer.from(body as Uint8Array);
      if (!spoil(path, time, response, bytes)) response.end(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const busy = (response: ServerResponse, status: number): boolean => {
  response.writeHead(status, { 'retry-after': '0' }).end('{}');
  return true;
};
/** Breaks off in the middle of a body whose length was said. */
const breakOff = (response: ServerResponse, body: Buffer): boolean => {
  response.writeHead(200, { 'content-length': body.length });
  response.write(body.subarray(0, body.length / 2), () => response.destroy());
  return true;
};

describe('a node that cannot answer', () => {
  it('is asked again, and verified when it can', async () => {
    await serve(
      async (url, asked) => {
        expect(await verify(url)).toMatchObject({ code: 0, err: '' });
        expect(asked.get('/v1/genesis')).toBe(3);
        expect(asked.get('/v1/epochs/1.tar')).toBe(3);
        expect(asked.get('/v1/epochs/2.tar')).toBe(2);
      },
      (path, time, response, body) => {
        if (path === '/v1/genesis' && time < 3) return busy(response, time === 1 ? 503 : 429);
        if (path === '/v1/epochs/1.tar' && time < 3) return breakOff(response, body);
        if (path !== '/v1/epochs/2.tar' || time > 1) return false;
        response.destroy();
        return true;
      },
    );
  });

  it.each([503, 429, 500, 502, 'breaks off', 'goes away'])(
    'in the end is not read, which is no finding, and keeps what was verified before: %s',
    async (how) => {
      const state = at(`state-${how}`);
      await serve(
        async (url, asked) => {
          const ran = await verify(url, '--state', state);
          expect(ran).toMatchObject({ code: 2, err: expect.stringContaining('it could not be read') as string });
          expect(ran.err).not.toContain('FAILED');
          expect(ran.out).not.toMatch(/^OK$/m);
          expect(asked.get('/v1/epochs/2.tar')).toBe(3);
        },
        (path, _time, response, body) => {
          if (path !== '/v1/epochs/2.tar') return false;
          if (typeof how === 'number') return busy(response, how);
          if (how === 'breaks off') return breakOff(response, body);
          response.destroy();
          return true;
        },
      );
      expect(JSON.parse(readFileSync(join(state, 'waggle-verify.json'), 'utf8'))).toMatchObject({ epoch: 2 });
      await serve(
        async (url, asked) => {
          expect((await verify(url, '--state', state)).code).toBe(0);
          expect([...asked.keys()].filter((path) => path.endsWith('.tar'))).toEqual(
            [2, 3].map((epoch) => `/v1/epochs/${epoch}.tar`),
          );
        },
        () => false,
      );
    },
  );

  it('is waited for no longer than is worth it', async () => {
    await serve(
      async (url, asked) => {
        const ran = await verify(url, '--json');
        expect(ran.code).toBe(2);
        expect(JSON.parse(ran.out)).toMatchObject({
          ok: false,
          finding: {
            code: 'PEER_UNREACHABLE',
            message: expect.stringContaining('received status 503, 3 times') as string,
          },
        });
        expect(asked.get('/v1/genesis')).toBe(3);
      },
      (path, time, response) => {
        if (path !== '/v1/genesis') return false;
        response.writeHead(503, { 'retry-after': time === 1 ? '1' : 'soon' }).end();
        return true;
      },
    );
  });
});

it('an answer in very many pieces is whole', async () => {
  const pieces = 200_000;
  await serve(
    async (url) => expect(await verify(url)).toMatchObject({ code: 0, err: '' }),
    (path, _time, response, body) => {
      if (!path.startsWith('/v1/epochs?')) return false;
      // Chunks of one space each (RFC 9112 §7.1), which JSON does not mind.
      response.socket!.end(
        `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n${'1\r\n \r\n'.repeat(pieces)}` +
          `${body.length.toString(16)}\r\n${body.toString()}\r\n0\r\n\r\n`,
      );
      return true;
    },
  );
});

it('mistakes of ours, and files that cannot be read, are not laid to the bundle', () => {
  expect(explain(new RangeError('Maximum call stack size exceeded'))).toMatchObject({ code: 'INTERNAL' });
  expect(explain(new TypeError('x is not a function'))).toMatchObject({ code: 'INTERNAL' });
  const denied = Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES', syscall: 'open' });
  expect(explain(denied)).toBeInstanceOf(UnusableError);
});
