import { Type } from 'typebox';
import { base64, fromUtf8, utf8, WaggleError, type Epoch } from '@waggle/protocol/base';
import { packBundle } from '@waggle/protocol/audit';
import { DIMENSIONS } from '@waggle/protocol/lattice';
import { encodeGenesis, encodeRoster, epochBounds } from '@waggle/protocol/sealing';
import { slotName } from '@waggle/protocol/usage';
import {
  readBundle,
  readContent,
  readEpoch,
  readSlotList,
  SEALED_PAGE_MAX,
  streamStatements,
  type EpochView,
  type SealedSummary,
} from '@waggle/runtime';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { newestSealed } from './log.ts';
import { holdUntilOver } from './holding.ts';
import { sendLines } from './lines.ts';
import { partyOf, readingIn } from './reads.ts';
import { Room } from './room.ts';
import { AUTHENTICATION_CODES, choice, closed, content, epochNumber, responses, time } from './schemas.ts';
import { isUnchanged, sealed } from './sealed.ts';
import { rfc3339 } from './time.ts';
import { statementUsage } from './usage.ts';

const nullable = (type: string, description: string) => Type.Unsafe({ type: [type, 'null'], description });

const epochFields = {
  epoch: Type.Integer(),
  start: time('Inclusive.'),
  end: time('Exclusive.'),
  state: choice(['open', 'closing', 'sealing', 'sealed'], {
    description:
      'open: requests count in it; closing: it is over and its last requests are counted; sealing: the cluster agrees on it; sealed: for ever.',
  }),
  treeSize: nullable('integer', 'Leaves of the log with this epoch in it.'),
  root: nullable('string', 'Root of the log, base64.'),
};

const ONE_CODES = ['REQUEST_INVALID', 'EPOCH_NOT_SEALED', 'EPOCH_UNKNOWN', 'QUEUE_FULL'] as const;

/** Sealed epochs as files, and the list of all. */
export function epochRoutes(app: App, { node, bounds, reads }: Deps, guards: Guards): void {
  const { store, driver, standing, clock, config } = node;
  const { cluster } = standing;
  const isPublic = config.publicLog;
  const open = { onRequest: [guards.log, readingIn(reads)] };
  const closedOff = { onRequest: [guards.role('auditor'), readingIn(reads)] };
  const archives = new Room(bounds.archivesMax, 'archives');
  const common = { tags: ['Auditor'], security: isPublic ? [{}, { token: [] }] : [{ token: [] }] };
  const guarded = { tags: ['Auditor'], security: [{ token: [] }] };
  const params = closed({ epoch: epochNumber('The number of the epoch.') });

  app.get(
    '/v1/genesis',
    {
      onRequest: guards.log,
      schema: {
        ...common,
        operationId: 'getGenesis',
        summary: 'What founded the cluster',
        description: 'In canonical form (RFC 8785): its SHA-256 is the id of the cluster.',
        response: responses({ 200: content('The genesis.', 'application/json') }),
      },
    },
    (request, reply) => {
      if (isUnchanged(request, reply, { etag: `"${cluster.id}"`, isPublic })) return reply.send();
      return reply.type('application/json').send(Buffer.from(utf8(encodeGenesis(cluster.genesis))));
    },
  );

  app.get(
    '/v1/epochs',
    {
      ...open,
      schema: {
        ...common,
        operationId: 'listEpochs',
        summary: 'Epochs and how far they are',
        querystring: closed({
          from: Type.Optional(epochNumber('First epoch. Default: so that the open epoch is the last.')),
          limit: Type.Optional(Type.Integer({ minimum: 1, maximum: SEALED_PAGE_MAX, description: 'Default 100.' })),
        }),
        response: responses(
          {
            200: Type.Object(
              {
                sealedUpTo: nullable('integer', 'The last sealed epoch: all before it are sealed too.'),
                epochs: Type.Array(Type.Object(epochFields)),
              },
              { description: 'A page of epochs, ascending.' },
            ),
          },
          'REQUEST_INVALID',
          'QUEUE_FULL',
        ),
      },
    },
    async (request, reply) => {
      const { limit = 100 } = request.query;
      const first = request.query.from ?? Math.max(0, driver.openEpoch - limit + 1);
      const sealedCount = Math.min(limit, driver.sealingEpoch - first);
      const page = sealedCount > 0 ? await store.sealedRange(first, sealedCount) : [];
      const last = page.at(-1)?.epoch;
      // A page that does not end before the newest sealed epoch ends with it.
      const sealedUpTo = last !== undefined && page.length < limit ? last : (await newestSealed(node))?.epoch;
      const rows = new Map(page.map((row) => [row.epoch, row]));
      const count = Math.max(0, Math.min(limit, driver.openEpoch - first + 1));
      const epochs = Array.from({ length: count }, (_, i) => view(first + i, rows.get(first + i)));
      reply.header('cache-control', 'no-cache');
      return { sealedUpTo: sealedUpTo ?? null, epochs };
    },
  );

  app.get(
    '/v1/epochs/:epoch',
    {
      ...open,
      schema: {
        ...common,
        operationId: 'getEpoch',
        summary: 'One epoch, with header, roster, cosigners and files once it is sealed',
        params,
        response: responses(
          {
            200: Type.Object(
              {
                ...epochFields,
                header: Type.Optional(Type.Unsafe({ type: 'object', description: 'What was agreed on.' })),
                roster: Type.Optional(Type.Array(Type.Unsafe({ type: 'object' }))),
                cosigners: Type.Optional(Type.Array(Type.String(), { description: 'Key names.' })),
                files: Type.Optional(Type.Array(Type.String(), { description: 'Paths.' })),
              },
              { description: 'The epoch.' },
            ),
          },
          'REQUEST_INVALID',
          'EPOCH_UNKNOWN',
          'QUEUE_FULL',
        ),
      },
    },
    async (request, reply) => {
      const { epoch } = request.params;
      reply.header('cache-control', 'no-cache');
      try {
        return await detail(await readEpoch(store, epoch, driver.openEpoch));
      } catch (error) {
        if (error instanceof WaggleError && error.code === 'EPOCH_NOT_SEALED') return view(epoch, undefined);
        throw error;
      }
    },
  );

  const file = (
    name: string,
    type: string,
    summary: string,
    guard: typeof open,
    send: (found: EpochView, request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply> | FastifyReply,
  ): void => {
    app.get(
      `/v1/epochs/:epoch${name}`,
      {
        ...guard,
        schema: {
          ...(guard === open ? common : guarded),
          operationId: `getEpoch${name.replaceAll(/[^a-z]+(.)/g, (_, letter: string) => letter.toUpperCase())}`,
          summary,
          params,
          response: responses(
            { 200: content(summary, type) },
            ...(guard === open ? [] : AUTHENTICATION_CODES),
            ...ONE_CODES,
          ),
        },
      },
      async (request, reply) => {
        const found = await readEpoch(store, request.params.epoch, driver.openEpoch);
        if (isUnchanged(request, reply, sealed(found.row, name.slice(1), guard === open && isPublic)))
          return reply.send();
        return send(found, request, reply.type(type));
      },
    );
  };

  file(
    '/header.json',
    'application/json',
    'The header: what was agreed on, and the first leaf of the epoch',
    open,
    ({ row }, _, reply) => reply.send(Buffer.from(utf8(row.header))),
  );
  file(
    '/checkpoint',
    'text/plain; charset=utf-8',
    'The checkpoint with its cosignatures (c2sp.org/tlog-checkpoint)',
    open,
    ({ row }, _, reply) => reply.send(row.checkpoint),
  );
  file('/roster.json', 'application/json', 'The members that may vote', open, ({ roster }, _, reply) =>
    reply.send(Buffer.from(encodeRoster(roster))),
  );
  file(
    '/statements.jsonl',
    'application/jsonl',
    'All statements, one a line, in the order of their leaves',
    closedOff,
    ({ row }, _, reply) => sendLines(reply, 'application/jsonl', statementLines(row.epoch)),
  );
  file(
    '/statements.csv',
    'text/csv; charset=utf-8',
    'The same as a table (RFC 4180): a row for each customer, origin epoch and SKU',
    closedOff,
    ({ row }, _, reply) => sendLines(reply, 'text/csv; charset=utf-8', statementRows(row.epoch)),
  );
  file('/slots.jsonl', 'application/jsonl', 'The slot list: what was counted', closedOff, async ({ row }, _, reply) =>
    reply.send(Buffer.from((await readSlotList(store, row)).bytes)),
  );
  file(
    '.tar',
    'application/x-tar',
    'Everything that it takes to verify the epoch offline, for waggle-verify',
    closedOff,
    async ({ row }, request, reply) => {
      const party = partyOf(request);
      archives.take(party, 1);
      holdUntilOver(request, () => archives.give(party, 1));
      return reply.send(Buffer.from((await packed(row.epoch)).buffer));
    },
  );

  app.get(
    '/v1/epochs/:epoch/slots/:slot.jsonl',
    {
      ...closedOff,
      schema: {
        ...guarded,
        operationId: 'getSlot',
        summary: 'One slot that the epoch counts: its SHA-256 is in the slot list',
        params: closed({
          epoch: epochNumber('The epoch that counts it.'),
          slot: Type.String({
            pattern: '^[0-9a-f]{32}-[0-9]{1,16}-[0-9]{1,16}$',
            description: '<replica>-<run>-<epoch>',
          }),
        }),
        response: responses(
          { 200: content('One row a line.', 'application/jsonl') },
          ...AUTHENTICATION_CODES,
          ...ONE_CODES,
          'NOT_FOUND',
        ),
      },
    },
    async (request, reply) => {
      const { epoch, slot } = request.params;
      const { row } = await readEpoch(store, epoch, driver.openEpoch);
      const entry = (await readSlotList(store, row)).entries.find((candidate) => slotName(candidate) === slot);
      if (entry === undefined)
        throw new WaggleError('NOT_FOUND', `Expected a slot of the slot list of epoch ${epoch}, received ${slot}`);
      if (isUnchanged(request, reply, sealed(row, slot, false))) return reply.send();
      return reply.type('application/jsonl').send(Buffer.from(await readContent(store, entry.digest)));
    },
  );

  function view(epoch: Epoch, row: SealedSummary | undefined) {
    const { startMs, endMs } = epochBounds(cluster.genesis, epoch);
    const isOver = clock.nowMs() >= endMs;
    const state = row !== undefined ? 'sealed' : epoch < driver.openEpoch ? 'sealing' : isOver ? 'closing' : 'open';
    return {
      epoch,
      start: rfc3339(startMs),
      end: rfc3339(endMs),
      state,
      treeSize: row?.treeSize ?? null,
      root: row === undefined ? null : base64.encode(row.root),
    };
  }

  async function detail({ row, roster, cosigners }: EpochView) {
    const { entries } = await readSlotList(store, row);
    const base = `/v1/epochs/${row.epoch}`;
    const names = ['header.json', 'checkpoint', 'roster.json', 'statements.jsonl', 'statements.csv', 'slots.jsonl'];
    const files = [...names, ...entries.map((entry) => `slots/${slotName(entry)}.jsonl`)].map(
      (name) => `${base}/${name}`,
    );
    const header: unknown = JSON.parse(row.header);
    return { ...view(row.epoch, row), header, roster, cosigners, files: [`${base}.tar`, ...files] };
  }

  async function* statementLines(epoch: Epoch): AsyncGenerator<string> {
    for await (const { bytes } of streamStatements(store, epoch)) yield `${fromUtf8(bytes)}\n`;
  }

  /** No field needs quoting: ids, SKUs, times and numbers have no comma, quote or line break. */
  async function* statementRows(epoch: Epoch): AsyncGenerator<string> {
    yield `epoch,origin,start,end,customer,sku,${DIMENSIONS.join(',')}\r\n`;
    for await (const { customer, origin, bytes } of streamStatements(store, epoch)) {
      const { startMs, endMs } = epochBounds(cluster.genesis, origin);
      for (const [sku, usage] of statementUsage(bytes))
        yield `${epoch},${origin},${rfc3339(startMs)},${rfc3339(endMs)},${customer},${sku},${DIMENSIONS.map((name) => usage[name]).join(',')}\r\n`;
    }
  }

  let packing: Promise<unknown> = Promise.resolve();

  /** One archive at a time. */
  function packed(epoch: Epoch): Promise<Uint8Array<ArrayBuffer>> {
    const archive = packing.then(async () =>
      packBundle(epoch, await readBundle(store, cluster, epoch, driver.openEpoch)),
    );
    packing = archive.catch(() => undefined);
    return archive;
  }
}
