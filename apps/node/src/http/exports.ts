import { Readable } from 'node:stream';
import type { CustomerId, Epoch } from '@waggle/protocol/base';
import {
  parquetChunks,
  readEpoch,
  STATEMENTS_PAGE_MAX,
  streamStatements,
  type ParquetCell,
  type StatementRow,
} from '@waggle/runtime';
import type { FastifyReply } from 'fastify';
import { Type } from 'typebox';
import type { App, Deps } from './app.ts';
import { customerOf, type Guards } from './authenticate.ts';
import { COLUMN_SETS, tableOf, type ColumnSet, type Table } from './columns.ts';
import { sendLines } from './lines.ts';
import { readingIn } from './reads.ts';
import { AUTHENTICATION_CODES, choice, closed, content, CUSTOMER_CODES, epochNumber, responses } from './schemas.ts';
import { isUnchanged, sealed } from './sealed.ts';

/** Rows of a row group of a Parquet file: some MB in memory, some ms of encoding at a time. */
const GROUP_ROWS = 4_096;

const FORMATS = {
  csv: { type: 'text/csv; charset=utf-8', send: sendCsv, what: 'a table (RFC 4180)' },
  parquet: { type: 'application/vnd.apache.parquet', send: sendParquet, what: 'an Apache Parquet file' },
} as const;
type Format = keyof typeof FORMATS;

const columns = Type.Optional(
  choice(COLUMN_SETS, {
    description:
      'waggle (default): a row for each customer, origin epoch and SKU. focus: the usage columns of FOCUS 1.2, a row for each count that is not zero.',
  }),
);

/**
 * Statements as tables, for spreadsheets, data frames and FinOps tools. They are made from the sealed bytes when they are asked for
 * and streamed: what is hashed, signed and proven are the statements, never these.
 */
export function exportRoutes(app: App, deps: Deps, guards: Guards): void {
  for (const format of Object.keys(FORMATS) as Format[]) {
    epochExport(app, deps, guards, format);
    customerExport(app, deps, guards, format);
  }
}

function epochExport(app: App, { node, reads }: Deps, guards: Guards, format: Format): void {
  const { store, driver, standing } = node;
  const { type, send, what } = FORMATS[format];
  app.get(
    `/v1/epochs/:epoch/statements.${format}`,
    {
      onRequest: [guards.role('auditor'), readingIn(reads)],
      schema: {
        tags: ['Auditor'],
        security: [{ token: [] }],
        operationId: `getEpochStatements${capital(format)}`,
        summary: `All statements of an epoch as ${what}`,
        params: closed({ epoch: epochNumber('The number of the epoch.') }),
        querystring: closed({ columns }),
        response: responses(
          { 200: content('The table.', type) },
          ...AUTHENTICATION_CODES,
          'REQUEST_INVALID',
          'EPOCH_NOT_SEALED',
          'EPOCH_UNKNOWN',
          'QUEUE_FULL',
        ),
      },
    },
    async (request, reply) => {
      const set = setOf(request.query);
      const { row } = await readEpoch(store, request.params.epoch, driver.openEpoch);
      if (isUnchanged(request, reply, sealed(row, `statements.${format}-${set}`, false))) return reply.send();
      return send(reply, tableOf(set, standing.cluster), streamStatements(store, row.epoch));
    },
  );
}

function customerExport(app: App, { node, reads }: Deps, guards: Guards, format: Format): void {
  const { store, driver, standing } = node;
  const { type, send, what } = FORMATS[format];
  app.get(
    `/v1/statements.${format}`,
    {
      onRequest: [guards.customer('read'), readingIn(reads)],
      schema: {
        tags: ['Customer'],
        security: [{ apiKey: [] }],
        operationId: `listStatements${capital(format)}`,
        summary: `Statements as ${what}`,
        querystring: closed({
          from: Type.Optional(epochNumber('First epoch that sealed them. Default: 0.')),
          to: Type.Optional(epochNumber('Last epoch. Default: the last that is sealed.')),
          columns,
        }),
        response: responses({ 200: content('The table.', type) }, ...CUSTOMER_CODES, 'REQUEST_INVALID', 'QUEUE_FULL'),
      },
    },
    (request, reply) => {
      const { from = 0, to = driver.openEpoch } = request.query;
      const { customer } = customerOf(request);
      reply.header('cache-control', 'private, no-store');
      const statements = statementsOf(customer, from, Math.min(to, driver.openEpoch));
      return send(reply, tableOf(setOf(request.query), standing.cluster), statements);
    },
  );

  async function* statementsOf(customer: CustomerId, first: Epoch, last: Epoch): AsyncGenerator<StatementRow> {
    for (let from = first; ;) {
      const page = await store.statementsOf(customer, from, last, STATEMENTS_PAGE_MAX);
      if (page.length < STATEMENTS_PAGE_MAX) return yield* page;
      // The last epoch of a full page may go on: it is read again.
      from = page.at(-1)!.epoch;
      yield* page.filter(({ epoch }) => epoch < from);
    }
  }
}

const capital = (word: string): string => word[0]!.toUpperCase() + word.slice(1);

const setOf = (query: { readonly columns?: ColumnSet | undefined }): ColumnSet => query.columns ?? 'waggle';

/** No cell needs quoting: ids, SKUs, names of clusters, times, numbers and our constants have no comma, quote or line break. */
function sendCsv(reply: FastifyReply, table: Table, statements: AsyncIterable<StatementRow>): FastifyReply {
  const isTime = table.columns.map(({ type }) => type === 'TIMESTAMP');
  const cellText = (cell: ParquetCell, i: number): string =>
    cell === null ? '' : isTime[i] === true ? table.timeText(Number(cell)) : String(cell);
  async function* lines(): AsyncGenerator<string> {
    yield `${table.columns.map(({ name }) => name).join(',')}\r\n`;
    for await (const statement of statements)
      for (const row of table.rowsOf(statement)) yield `${row.map(cellText).join(',')}\r\n`;
  }
  return sendLines(reply, FORMATS.csv.type, lines());
}

function sendParquet(reply: FastifyReply, table: Table, statements: AsyncIterable<StatementRow>): FastifyReply {
  async function* groups(): AsyncGenerator<ParquetCell[][]> {
    let rows: ParquetCell[][] = [];
    for await (const statement of statements) {
      rows.push(...table.rowsOf(statement));
      if (rows.length < GROUP_ROWS) continue;
      yield rows;
      rows = [];
    }
    if (rows.length > 0) yield rows;
  }
  return reply
    .type(FORMATS.parquet.type)
    .send(Readable.from(parquetChunks(table.columns, groups()), { objectMode: false }));
}
