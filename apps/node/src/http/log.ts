import { base64, WaggleError } from '@waggle/protocol/base';
import {
  encodeEntryBundle,
  formatPolicy,
  formatVerifierKey,
  logKey,
  parseTilePath,
  TILE_WIDTH,
  type TileCoordinates,
} from '@waggle/protocol/transparency';
import type { Roster } from '@waggle/protocol/sealing';
import { nodeCrypto, readEpoch, type SealedEpoch } from '@waggle/runtime';
import { Type } from 'typebox';
import type { Node } from '../node.ts';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { readingIn } from './reads.ts';
import { closed, content, responses } from './schemas.ts';
import { isUnchanged } from './sealed.ts';

/** Bytes of a hash in a tile. */
const HASH_BYTES = 32;

/** The newest sealed epoch on disk, or null before the first. The core may be one seal ahead of the disk. */
export async function newestSealed({ driver, store }: Pick<Node, 'driver' | 'store'>): Promise<SealedEpoch | null> {
  const newest = driver.sealingEpoch - 1;
  for (const epoch of [newest, newest - 1]) {
    const row = epoch < 0 ? null : await store.sealedEpoch(epoch);
    if (row !== null) return row;
  }
  return null;
}

/** The transparency log as C2SP's tools read it (c2sp.org/tlog-tiles), with the keys to check it by. */
export function logRoutes(app: App, { node, reads }: Deps, guards: Guards): void {
  const { store, driver, standing, config } = node;
  const { cluster } = standing;
  const isPublic = config.publicLog;
  const onRequest = [guards.log, readingIn(reads)];
  const common = { tags: ['Auditor'], security: isPublic ? [{}, { token: [] }] : [{ token: [] }] };

  app.get(
    '/checkpoint',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getCheckpoint',
        summary: 'The newest checkpoint of the log',
        response: responses(
          { 200: content('A signed note (c2sp.org/tlog-checkpoint).', 'text/plain') },
          'NOT_FOUND',
          'QUEUE_FULL',
        ),
      },
    },
    async (_request, reply) =>
      reply
        .header('cache-control', 'no-cache')
        .type('text/plain; charset=utf-8')
        .send((await newest()).checkpoint),
  );

  app.get(
    '/tile/*',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getTile',
        summary: 'A tile, or a bundle of entries, of the log',
        description: '`/tile/<L>/<N>[.p/<W>]` and `/tile/entries/<N>[.p/<W>]` (c2sp.org/tlog-tiles).',
        params: closed({
          '*': Type.String({ maxLength: 64, description: '<L>/<N>[.p/<W>]; L is 0 to 63 or entries.' }),
        }),
        response: responses(
          { 200: content('Hashes of 32 bytes, or entries after their lengths.', 'application/octet-stream') },
          'NOT_FOUND',
          'QUEUE_FULL',
        ),
      },
    },
    async (request, reply) => {
      const path = `tile/${request.params['*']}`;
      const coordinates = parseTilePath(path);
      const bytes = coordinates === null ? null : await readTile(coordinates, (await newest()).treeSize);
      if (bytes === null)
        throw new WaggleError(
          'NOT_FOUND',
          `Expected the path of a tile within the newest checkpoint, received /${path}`,
        );
      // Tiles of one log and path have one content for ever.
      if (isUnchanged(request, reply, { etag: `"${cluster.id.slice(0, 16)}-${path}"`, isPublic })) return reply.send();
      return reply.type('application/octet-stream').send(Buffer.from(bytes));
    },
  );

  app.get(
    '/v1/policy',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getPolicy',
        summary: 'Whose signatures the newest checkpoint needs (c2sp.org/tlog-policy)',
        response: responses({ 200: content('The policy.', 'text/plain') }, 'QUEUE_FULL'),
      },
    },
    async (_request, reply) => {
      const members = (await roster()).map(({ replica, ...keys }) => ({
        replica,
        logKey: base64.decode(keys.logKey),
        cosignerKey: base64.decode(keys.cosignerKey),
      }));
      return reply
        .header('cache-control', 'no-cache')
        .type('text/plain; charset=utf-8')
        .send(formatPolicy(nodeCrypto, cluster.origin, members));
    },
  );

  app.get(
    '/v1/log.vkey',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getLogKeys',
        summary: 'The keys that sign as the log, one for each member of the roster',
        response: responses(
          { 200: content('Verifier keys (c2sp.org/signed-note), one a line.', 'text/plain') },
          'QUEUE_FULL',
        ),
      },
    },
    async (_request, reply) => {
      const keys = (await roster()).map((member) =>
        formatVerifierKey(logKey(nodeCrypto, cluster.origin, base64.decode(member.logKey))),
      );
      return reply
        .header('cache-control', 'no-cache')
        .type('text/plain; charset=utf-8')
        .send(keys.map((key) => `${key}\n`).join(''));
    },
  );

  async function newest(): Promise<SealedEpoch> {
    const row = await newestSealed(node);
    if (row !== null) return row;
    throw new WaggleError('NOT_FOUND', 'Expected a sealed epoch, but none is sealed yet');
  }

  /** The roster of the newest checkpoint; before the first, that of the genesis. */
  async function roster(): Promise<Roster> {
    const row = await newestSealed(node);
    return row === null ? cluster.genesis.roster : (await readEpoch(store, row.epoch, driver.openEpoch)).roster;
  }

  /** The first `width` hashes or entries, or null if the tree of that size does not have them all. */
  async function readTile({ level, index, width }: TileCoordinates, treeSize: number): Promise<Uint8Array | null> {
    const perHash = level === 'entries' ? 1 : TILE_WIDTH ** level;
    if (Math.floor(treeSize / perHash) - index * TILE_WIDTH < width) return null;
    if (level !== 'entries') return (await store.tile(level, index))?.subarray(0, width * HASH_BYTES) ?? null;
    const first = index * TILE_WIDTH;
    return encodeEntryBundle((await store.leaves(first, first + width)).map(({ data }) => data));
  }
}
