import { Readable } from 'node:stream';
import { Type } from 'typebox';
import { base64, fromUtf8, utf8, WaggleError, type Epoch } from '@waggle/protocol/base';
import { streamBundle, type BundleFile } from '@waggle/protocol/audit';
import { encodeGenesis, encodeRoster, epochBounds, type SlotEntry } from '@waggle/protocol/sealing';
import { slotName } from '@waggle/protocol/usage';
import {
  bundleFiles,
  outlineFiles,
  readEpoch,
  readSlot,
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
import { requestsIn } from './figures.ts';
import { sendLines } from './lines.ts';
import { partyOf, readingIn } from './reads.ts';
import { Room } from './room.ts';
import { AUTHENTICATION_CODES, choice, closed, content, epochNumber, responses, time } from './schemas.ts';
import { exportRoutes } from './exports.ts';
import { isUnchanged, sealed } from './sealed.ts';
import { rfc3339 } from './time.ts';

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
  waitingFor: Type.Optional(
    Type.Array(Type.String(), { description: 'Until it is sealed: replicas whose part in the seal is not here yet.' }),
  ),
  deadline: Type.Optional(
    nullable(
      'string',
      'Until it is sealed: when the others stop waiting for them; null once that has passed, and where it is being sealed.',
    ),
  ),
};

const slotFields = {
  slot: Type.String({ description: '<replica>-<run>-<epoch>' }),
  replica: Type.String(),
  origin: Type.Integer({ description: 'The epoch in which it was counted.' }),
  requests: Type.Optional(
    Type.Integer({ description: 'For auditors, while the slot is kept: how many no earlier seal had counted.' }),
  ),
};

const ONE_CODES = ['REQUEST_INVALID', 'EPOCH_NOT_SEALED', 'EPOCH_UNKNOWN', 'QUEUE_FULL'] as const;

/** Archives of an epoch: what comes after its number, what is in it, and what it is. */
const ARCHIVES = [
  ['.tar', bundleFiles, 'Everything that it takes to verify the epoch offline, for waggle-verify'],
  ['/outline.tar', outlineFiles, 'The same without the contents of slots, which are not kept for ever'],
] as const;

/**
 * The first epoch of a page and how many there are in it, the open one the last of all: `from` that epoch on, or else so that the
 * page ends with the open one; none before the log's first.
 */
export function pageOfEpochs(
  from: Epoch | undefined,
  limit: number,
  firstEpoch: Epoch,
  openEpoch: Epoch,
): { readonly first: Epoch; readonly count: number } {
  const first = Math.max(firstEpoch, from ?? openEpoch - limit + 1);
  return { first, count: Math.max(0, Math.min(limit, openEpoch - first + 1)) };
}

/** Whether whoever asks may see what is in slots. */
const mayAudit = ({ principal }: FastifyRequest): boolean =>
  principal?.kind === 'token' && (principal.role === 'auditor' || principal.role === 'operator');

/** Sealed epochs as files, and the list of all. */
export function epochRoutes(app: App, deps: Deps, guards: Guards): void {
  exportRoutes(app, deps, guards);
  const { node, bounds, reads } = deps;
  const { store, driver, standing, clock, config } = node;
  const { cluster } = standing;
  /** A successor goes on with the numbers of its predecessor, whose log is another. */
  const firstEpoch = cluster.genesis.predecessor?.epoch ?? 0;
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
      const { first, count } = pageOfEpochs(request.query.from, limit, firstEpoch, driver.openEpoch);
      const sealedCount = Math.min(limit, driver.sealingEpoch - first);
      const page = sealedCount > 0 ? await store.sealedRange(first, sealedCount) : [];
      const last = page.at(-1)?.epoch;
      // A page that does not end before the newest sealed epoch ends with it.
      const sealedUpTo = last !== undefined && page.length < limit ? last : (await newestSealed(node))?.epoch;
      const rows = new Map(page.map((row) => [row.epoch, row]));
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
                writtenOff: Type.Optional(
                  Type.Array(Type.Object(slotFields), {
                    description: 'Slots that their writer has not closed: counted as far as the cluster knew them.',
                  }),
                ),
                late: Type.Optional(
                  Type.Array(Type.Object({ ...slotFields, closed: Type.Boolean() }), {
                    description: 'Slots of earlier epochs that this one counts more of.',
                  }),
                ),
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
        return await detail(await readEpoch(store, epoch, driver.openEpoch), mayAudit(request));
      } catch (error) {
        if (!(error instanceof WaggleError) || error.code !== 'EPOCH_NOT_SEALED') throw error;
        if (epoch >= firstEpoch) return view(epoch, undefined);
        throw new WaggleError(
          'EPOCH_UNKNOWN',
          `Expected an epoch from ${firstEpoch} on, received ${epoch}, which is in the log of the cluster before this one`,
        );
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
            ...(name === '.tar' ? (['SLOTS_EXPIRED'] as const) : []),
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
  file('/slots.jsonl', 'application/jsonl', 'The slot list: what was counted', closedOff, async ({ row }, _, reply) =>
    reply.send(Buffer.from((await readSlotList(store, row)).bytes)),
  );
  for (const [name, filesOf, summary] of ARCHIVES)
    file(name, 'application/x-tar', summary, closedOff, async ({ row: { epoch } }, request, reply) => {
      const party = partyOf(request);
      archives.take(party, 1);
      holdUntilOver(request, () => archives.give(party, 1));
      const { size, pieces } = streamBundle(epoch, await opened(epoch, filesOf));
      return reply.header('content-length', size).send(Readable.from(pieces, { objectMode: false }));
    });

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
          'SLOTS_EXPIRED',
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
      return reply.type('application/jsonl').send(Buffer.from(await readSlot(store, epoch, entry)));
    },
  );

  function view(epoch: Epoch, row: SealedSummary | undefined) {
    const { startMs, endMs } = epochBounds(cluster.genesis, epoch);
    const isOver = clock.nowMs() >= endMs;
    const { openEpoch, sealingStatus } = driver;
    // Those after the one to be sealed next wait for it, whoever has closed them.
    const later = epoch > sealingStatus.epoch ? 'closing' : 'sealing';
    const ended = epoch === sealingStatus.epoch ? sealingStatus.phase : later;
    const state = row !== undefined ? 'sealed' : epoch < openEpoch ? ended : isOver ? 'closing' : 'open';
    const deadlineMs = endMs + cluster.genesis.sealGraceMs;
    const isWaiting = state !== 'sealing' && clock.nowMs() < deadlineMs;
    return {
      epoch,
      start: rfc3339(startMs),
      end: rfc3339(endMs),
      state,
      treeSize: row?.treeSize ?? null,
      root: row === undefined ? null : base64.encode(row.root),
      ...(row === undefined
        ? {
            waitingFor: epoch === sealingStatus.epoch ? sealingStatus.waitingFor : [],
            deadline: isWaiting ? rfc3339(deadlineMs) : null,
          }
        : {}),
    };
  }

  async function detail({ row, roster, cosigners }: EpochView, isAuditor: boolean) {
    const { entries } = await readSlotList(store, row);
    const writtenOff = entries.filter(({ closed: isClosed }) => !isClosed);
    const late = entries.filter(({ epoch }) => epoch < row.epoch);
    const requests = isAuditor ? await requestsIn(store, row, [...new Set([...writtenOff, ...late])]) : null;
    const base = `/v1/epochs/${row.epoch}`;
    const names = ['header.json', 'checkpoint', 'roster.json', 'statements.jsonl', 'slots.jsonl', 'outline.tar'];
    const exports = ['csv', 'parquet'].map((format) => `statements.${format}`);
    const files = [...names, ...exports, ...entries.map((entry) => `slots/${slotName(entry)}.jsonl`)].map(
      (name) => `${base}/${name}`,
    );
    const header: unknown = JSON.parse(row.header);
    const slotView = (entry: SlotEntry) => {
      const slot = slotName(entry);
      const sum = requests?.get(slot);
      return { slot, replica: entry.replica, origin: entry.epoch, ...(sum === undefined ? {} : { requests: sum }) };
    };
    return {
      ...view(row.epoch, row),
      header,
      roster,
      cosigners,
      writtenOff: writtenOff.map(slotView),
      late: late.map((entry) => ({ ...slotView(entry), closed: entry.closed })),
      files: [`${base}.tar`, ...files],
    };
  }

  async function* statementLines(epoch: Epoch): AsyncGenerator<string> {
    for await (const { bytes } of streamStatements(store, epoch)) yield `${fromUtf8(bytes)}\n`;
  }

  let opening: Promise<unknown> = Promise.resolve();

  /**
   * The files of an archive, of which all is known that a proper answer can still say. One archive at a time: to find out how large
   * it is takes the store a while. After that each goes on as fast as its client takes it, and none waits for a slow one.
   */
  function opened(epoch: Epoch, filesOf: typeof bundleFiles): Promise<BundleFile[]> {
    const files = opening.then(() => filesOf(store, cluster, epoch, driver.openEpoch));
    opening = files.catch(() => undefined);
    return files;
  }
}
