import { Type } from 'typebox';
import { WaggleError, type CustomerId } from '@waggle/protocol/base';
import { ENTRY_NAME_PATTERN, PRESET_BYTES_MAX, PRESETS_MAX, PROFILE_BYTES_MAX } from '@waggle/identity';
import { parsePlan } from '@waggle/images';
import type { RequestRecord } from '@waggle/runtime';
import type { Node } from '../node.ts';
import type { App, Deps } from './app.ts';
import { customerOf, principalOf, type Guards } from './authenticate.ts';
import { apply } from './change.ts';
import { sendLines } from './lines.ts';
import { readingIn } from './reads.ts';
import {
  AUTHENTICATION_CODES,
  CHANGE_CODES,
  closed,
  content,
  CUSTOMER_CODES,
  customerFields,
  customerId,
  keyFields,
  responses,
  visibleAt,
  waitQuery,
} from './schemas.ts';
import { rangeOf, rfc3339 } from './time.ts';

const entryName = Type.String({
  pattern: ENTRY_NAME_PATTERN,
  description: '1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit.',
});
const preset = Type.Unsafe<Record<string, string>>({
  type: 'object',
  additionalProperties: { type: 'string' },
  description: `Parameters of a resize as texts, as {"width": "400", "format": "webp"}; at most ${PRESET_BYTES_MAX} bytes.`,
});
const profilePatch = Type.Unsafe<Record<string, string | null>>({
  type: 'object',
  additionalProperties: { type: ['string', 'null'] },
  description: `Fields as texts, null removes one; at most ${PROFILE_BYTES_MAX} bytes in all.`,
});
const texts = Type.Unsafe({ type: 'object', additionalProperties: { type: 'string' } });

const account = Type.Object(
  {
    ...customerFields,
    profile: texts,
    presets: Type.Unsafe({ type: 'object', additionalProperties: texts }),
    keys: Type.Array(Type.Object({ ...keyFields, revoked: Type.Boolean() })),
  },
  { description: 'The account.' },
);

/** What a customer reads and sets of its own account, and its request records. */
export function accountRoutes(app: App, { node, reads }: Deps, guards: Guards): void {
  const { identity, clock } = node;
  const onRequest = guards.customer('read');
  /** Presets change what resizes do, and a key that only reads must not: it takes both scopes. */
  const onChange = guards.customer('read', 'resize');
  const common = { tags: ['Customer'], security: [{ apiKey: [] }] };

  app.get(
    '/v1/account',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getAccount',
        summary: 'The account: limits, profile, presets, keys',
        response: responses({ 200: account }, ...CUSTOMER_CODES),
      },
    },
    async (request, reply) => {
      reply.header('cache-control', 'private, no-store');
      return view(customerOf(request).customer);
    },
  );

  app.patch(
    '/v1/account',
    {
      onRequest: onChange,
      schema: {
        ...common,
        operationId: 'patchProfile',
        summary: 'Set fields of the profile',
        description: 'Takes a key with both scopes.',
        querystring: closed(waitQuery),
        body: closed({ profile: profilePatch }),
        response: responses({ 200: account }, ...CUSTOMER_CODES, ...CHANGE_CODES),
      },
    },
    async (request, reply) => {
      const { customer } = customerOf(request);
      const applied = await apply(node, request, reply, (context) =>
        identity.patchProfile(context, customer, request.body.profile),
      );
      return { ...view(customer), visibleAt: applied.visibleAt };
    },
  );

  app.put(
    '/v1/account/presets/:name',
    {
      onRequest: onChange,
      schema: {
        ...common,
        operationId: 'putPreset',
        summary: 'Set a preset, used as preset=<name>',
        description: `At most ${PRESETS_MAX}. A preset has to be a valid request by itself. Takes a key with both scopes.`,
        params: closed({ name: entryName }),
        querystring: closed(waitQuery),
        body: preset,
        response: responses(
          {
            200: Type.Object(
              { name: entryName, preset: texts, visibleAt },
              { description: 'The preset, now in force.' },
            ),
          },
          ...CUSTOMER_CODES,
          ...CHANGE_CODES,
        ),
      },
    },
    async (request, reply) => {
      const { name } = request.params;
      parsePlan(request.body, undefined);
      const applied = await apply(node, request, reply, (context) =>
        identity.putPreset(context, customerOf(request).customer, name, request.body),
      );
      return { name, preset: request.body, visibleAt: applied.visibleAt };
    },
  );

  app.delete(
    '/v1/account/presets/:name',
    {
      onRequest: onChange,
      schema: {
        ...common,
        operationId: 'deletePreset',
        summary: 'Remove a preset',
        description: 'Takes a key with both scopes.',
        params: closed({ name: entryName }),
        querystring: closed(waitQuery),
        response: responses({ 204: null }, ...CUSTOMER_CODES, ...CHANGE_CODES),
      },
    },
    async (request, reply) => {
      await apply(node, request, reply, (context) =>
        identity.deletePreset(context, customerOf(request).customer, request.params.name),
      );
      return reply.code(204).send();
    },
  );

  app.get(
    '/v1/records',
    {
      onRequest: [guards.anyone, readingIn(reads)],
      schema: {
        tags: ['Customer', 'Operator'],
        security: [{ apiKey: [] }, { token: [] }],
        operationId: 'getRecords',
        summary: 'The requests that this node served, one by one, as JSON lines',
        description:
          'Each node has the records of what it served: ask all of them for all. A customer gets its own; an operator all, or those of one customer. By time. Records of epochs long past are in the node’s Parquet files instead.',
        querystring: closed({
          from: Type.Optional(
            Type.String({ maxLength: 40, description: 'RFC 3339, inclusive. Default: 24 hours before to.' }),
          ),
          to: Type.Optional(Type.String({ maxLength: 40, description: 'RFC 3339, exclusive. Default: now.' })),
          customer: Type.Optional(customerId),
          format: Type.Optional(
            Type.Unsafe<string>({ type: 'string', enum: ['jsonl'], default: 'jsonl', description: 'JSON lines.' }),
          ),
        }),
        response: responses(
          { 200: content('One record a line.', 'application/jsonl') },
          ...AUTHENTICATION_CODES,
          'REQUEST_INVALID',
          'CUSTOMER_UNKNOWN',
          'QUEUE_FULL',
        ),
      },
    },
    async (request, reply) => {
      const customer = whose(request.query.customer, principalOf(request), node);
      const range = rangeOf(request.query, clock.nowMs());
      const query = customer === undefined ? range : { ...range, customer };
      reply.header('cache-control', 'private, no-store');
      return sendLines(reply, 'application/jsonl', recordLines(node, query));
    },
  );

  function view(customer: CustomerId) {
    return { ...identity.getCustomer(customer), ...identity.getAccount(customer), keys: identity.listKeys(customer) };
  }
}

/** Whose records: the customer's own, or what an operator asks for. Throws `ROLE_REQUIRED`, `CUSTOMER_UNKNOWN`. */
function whose(
  asked: string | undefined,
  principal: ReturnType<typeof principalOf>,
  { identity }: Node,
): CustomerId | undefined {
  if (principal.kind === 'token') {
    if (principal.role !== 'operator')
      throw new WaggleError(
        'ROLE_REQUIRED',
        `Expected an API key or an operator's token, received one of the role ${principal.role}`,
      );
    return asked === undefined ? undefined : identity.getCustomer(asked).id;
  }
  if (!principal.scopes.includes('read') || (asked !== undefined && asked !== principal.customer))
    throw new WaggleError('ROLE_REQUIRED', 'Expected a key of that customer with the scope read, received another');
  return principal.customer;
}

async function* recordLines(
  { store }: Node,
  query: Parameters<Node['store']['streamRecords']>[0],
): AsyncGenerator<string> {
  for await (const record of store.streamRecords(query)) yield `${JSON.stringify(recordView(record))}\n`;
}

/** A record as the API shows it. */
const recordView = ({
  timeMs,
  requestId,
  customer,
  keyId,
  operation,
  epoch,
  status,
  code,
  params,
  sku,
  usage,
  ...rest
}: RequestRecord) => ({
  time: rfc3339(timeMs),
  requestId,
  customer,
  key: keyId,
  operation,
  epoch,
  status,
  code,
  params: JSON.parse(params) as Record<string, string>,
  sku,
  usage,
  queueMicros: rest.queueMicros,
  processMicros: rest.processMicros,
});
