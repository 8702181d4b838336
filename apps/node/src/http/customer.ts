import { Type } from 'typebox';
import { utf8, WaggleError, type Epoch } from '@waggle/protocol/base';
import { addUsage, ZERO_USAGE } from '@waggle/protocol/lattice';
import { epochBounds } from '@waggle/protocol/sealing';
import { readEpoch, readProof, STATEMENTS_PAGE_MAX, type StatementRow } from '@waggle/runtime';
import type { App, Deps } from './app.ts';
import { customerOf, type Guards } from './authenticate.ts';
import { readingIn } from './reads.ts';
import { isUnchanged, sealed } from './sealed.ts';
import {
  choice,
  closed,
  content,
  CUSTOMER_CODES,
  customerId,
  epochNumber,
  responses,
  time,
  usageRef,
} from './schemas.ts';
import { parseTime, rfc3339 } from './time.ts';
import { GROUPS, readUsage, statementUsage, type UsageQuery } from './usage.ts';

const late = Type.Unsafe({
  allOf: [{ $ref: 'Usage#' }],
  description: 'Usage of it that its seal missed and a later one counts.',
});
const sums = { usage: usageRef, late };

/** How fresh sums over the cluster are. */
export const freshness = {
  asOf: Type.Unsafe<string | null>({
    type: ['string', 'null'],
    format: 'date-time',
    description:
      'All that the live members had counted by then is in it; null: one of them was not compared since this node’s start.',
  }),
  coverage: Type.Object(
    {
      members: Type.Integer({ description: 'Members whose figures are in it as of a known time.' }),
      of: Type.Integer({ description: 'Members that count.' }),
      oldest: time('The oldest of these times, of members that are not reachable too; of those that have one.'),
      replicas: Type.Array(
        Type.Object({
          replica: Type.String(),
          url: Type.Unsafe({ type: ['string', 'null'] }),
          state: choice(['alive', 'suspect', 'dead', 'left', 'unheard']),
          asOf: Type.Unsafe({
            type: ['string', 'null'],
            format: 'date-time',
            description: 'All that it had counted by then is in it; null: not compared since this node’s start.',
          }),
        }),
      ),
    },
    { description: 'Whose figures are in it, and how old they are.' },
  ),
};

const usageAnswer = Type.Object(
  {
    customer: customerId,
    from: time('Start of the first epoch.'),
    to: time('End of the last epoch.'),
    ...freshness,
    totals: usageRef,
    epochs: Type.Optional(
      Type.Array(
        Type.Object({
          epoch: Type.Integer(),
          start: time('Inclusive.'),
          end: time('Exclusive.'),
          state: choice(['open', 'sealing', 'sealed'], { description: 'Only sealed figures never change.' }),
          ...sums,
        }),
        { description: 'With group=epoch: the epochs with any usage, and the open one.' },
      ),
    ),
    days: Type.Optional(
      Type.Array(Type.Object({ day: Type.String(), ...sums }), {
        description: 'With group=day (UTC, by start of epoch).',
      }),
    ),
    skus: Type.Optional(Type.Array(Type.Object({ sku: Type.String(), ...sums }), { description: 'With group=sku.' })),
  },
  { description: 'The usage.' },
);

/** The query of every usage route. */
export const usageQuery = closed({
  from: Type.Optional(
    Type.String({
      maxLength: 40,
      description: 'RFC 3339, inclusive, widened to whole epochs. Default: 24 hours before to. At most 10000 epochs.',
    }),
  ),
  to: Type.Optional(Type.String({ maxLength: 40, description: 'RFC 3339, exclusive, likewise. Default: now.' })),
  group: Type.Optional(choice(GROUPS, { default: 'epoch', description: 'What to sum up by.' })),
});
export const usageResponses = { 200: usageAnswer };

/** The parsed query of a usage route. Throws `REQUEST_INVALID`. */
export function usageQueryOf(
  query: { from?: string; to?: string; group?: UsageQuery['group'] },
  nowMs: number,
): UsageQuery {
  const toMs = query.to === undefined ? nowMs + 1 : parseTime(query.to, 'to');
  const fromMs = query.from === undefined ? null : parseTime(query.from, 'from');
  if (fromMs !== null && fromMs > toMs)
    throw new WaggleError(
      'REQUEST_INVALID',
      `Expected from before to, received ${rfc3339(fromMs)} and ${rfc3339(toMs)}`,
    );
  return { fromMs, toMs, group: query.group ?? 'epoch' };
}

const statementFields = Type.Object({
  epoch: Type.Integer({ description: 'The epoch whose seal counts it.' }),
  origin: Type.Integer({ description: 'The epoch in which it happened: another one if it is late.' }),
  start: time('Of the origin epoch.'),
  end: time('Exclusive.'),
  usage: usageRef,
  statement: Type.String({ description: 'Where its bytes are.' }),
  proof: Type.String({ description: 'Where its proof is.' }),
});

const epochParams = closed({ epoch: epochNumber('The epoch that sealed it.') });
const originQuery = closed({
  origin: Type.Optional(epochNumber('For late usage: the epoch in which it happened. Default: the same.')),
});

/** What a customer reads of its own: usage and statements. */
export function customerRoutes(app: App, { node, reads }: Deps, guards: Guards): void {
  const { driver, store, standing, clock } = node;
  const onRequest = [guards.customer('read'), readingIn(reads)];
  const common = { tags: ['Customer'], security: [{ apiKey: [] }] };

  app.get(
    '/v1/usage',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getUsage',
        summary: 'Usage, live and sealed',
        description: 'Sealed, sealing and still open usage told apart. By default of the last 24 hours.',
        querystring: usageQuery,
        response: responses(usageResponses, ...CUSTOMER_CODES, 'REQUEST_INVALID', 'QUEUE_FULL'),
      },
    },
    (request, reply) => {
      reply.header('cache-control', 'private, no-store');
      return readUsage(node, customerOf(request).customer, usageQueryOf(request.query, clock.nowMs()));
    },
  );

  app.get(
    '/v1/statements',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'listStatements',
        summary: 'Statements',
        description: 'By the epoch that sealed them. At most 1000; `next` says where to go on.',
        querystring: closed({
          from: Type.Optional(epochNumber('First epoch. Default: 999 before to.')),
          to: Type.Optional(epochNumber('Last epoch. Default: the last that is sealed.')),
        }),
        response: responses(
          {
            200: Type.Object(
              {
                statements: Type.Array(statementFields),
                next: Type.Unsafe({ type: ['integer', 'null'], description: 'from of the next page, or null.' }),
              },
              { description: 'The statements.' },
            ),
          },
          ...CUSTOMER_CODES,
          'REQUEST_INVALID',
          'QUEUE_FULL',
        ),
      },
    },
    async (request, reply) => {
      const to = Math.min(request.query.to ?? Number.MAX_SAFE_INTEGER, driver.openEpoch);
      const from = request.query.from ?? Math.max(0, to - 999);
      const page = await store.statementsOf(customerOf(request).customer, from, to, STATEMENTS_PAGE_MAX);
      // An epoch is never cut in two: a full page leaves its last one to the next.
      const next = page.length < STATEMENTS_PAGE_MAX ? null : page.at(-1)!.epoch;
      const whole = next === null ? page : page.filter(({ epoch }) => epoch < next);
      reply.header('cache-control', 'private, no-store');
      return { statements: whole.map(statementView), next };
    },
  );

  const one = [
    ...CUSTOMER_CODES,
    'REQUEST_INVALID',
    'EPOCH_NOT_SEALED',
    'EPOCH_UNKNOWN',
    'STATEMENT_UNKNOWN',
    'QUEUE_FULL',
  ] as const;

  app.get(
    '/v1/statements/:epoch',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getStatement',
        summary: 'A statement, byte for byte as it was sealed',
        params: epochParams,
        querystring: originQuery,
        response: responses({ 200: content('The statement (RFC 8785).', 'application/json') }, ...one),
      },
    },
    async (request, reply) => {
      const { statement, row } = await find(customerOf(request).customer, request.params.epoch, request.query.origin);
      if (isUnchanged(request, reply, sealed(row, `statement-${statement.leafIndex}`, false))) return reply.send();
      return reply.type('application/json').send(Buffer.from(statement.bytes));
    },
  );

  app.get(
    '/v1/statements/:epoch.tlog-proof',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getStatementProof',
        summary: 'The proof that a statement is in the log',
        description: 'With the statement’s bytes it can be checked offline (c2sp.org/tlog-proof@v1).',
        params: epochParams,
        querystring: originQuery,
        response: responses({ 200: content('The proof.', 'text/plain') }, ...one),
      },
    },
    async (request, reply) => {
      const { statement, row } = await find(customerOf(request).customer, request.params.epoch, request.query.origin);
      if (isUnchanged(request, reply, sealed(row, `proof-${statement.leafIndex}`, false))) return reply.send();
      return reply
        .type('text/plain; charset=utf-8')
        .send(Buffer.from(utf8(await readProof(store, statement, row.checkpoint, row.treeSize))));
    },
  );

  async function find(customer: StatementRow['customer'], epoch: Epoch, origin: Epoch = epoch) {
    const { row } = await readEpoch(store, epoch, driver.openEpoch);
    const page = await store.statementsOf(customer, epoch, epoch, STATEMENTS_PAGE_MAX);
    const statement = page.find((candidate) => candidate.origin === origin);
    if (statement !== undefined) return { statement, row };
    throw new WaggleError(
      'STATEMENT_UNKNOWN',
      `Expected an epoch that counts usage of epoch ${origin}, received ${epoch}`,
    );
  }

  function statementView({ epoch, origin, bytes }: StatementRow) {
    const { startMs, endMs } = epochBounds(standing.cluster.genesis, origin);
    const query = origin === epoch ? '' : `?origin=${origin}`;
    return {
      epoch,
      origin,
      start: rfc3339(startMs),
      end: rfc3339(endMs),
      usage: statementUsage(bytes)
        .map(([, usage]) => usage)
        .reduce(addUsage, ZERO_USAGE),
      statement: `/v1/statements/${epoch}${query}`,
      proof: `/v1/statements/${epoch}.tlog-proof${query}`,
    };
  }
}
