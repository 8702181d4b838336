import { Type } from 'typebox';
import type { CustomerId } from '@waggle/protocol/base';
import { PAGE_MAX } from '@waggle/identity';
import type { VisibleAt } from '../cluster.ts';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { apply, change } from './change.ts';
import { usageQuery, usageQueryOf, usageResponses } from './customer.ts';
import { readingIn } from './reads.ts';
import {
  AUTHENTICATION_CODES,
  CHANGE_CODES,
  closed,
  customerFields,
  customerId,
  keyFields,
  keyId,
  limitsPatch,
  name,
  responses,
  scopes,
  visibleAt,
  waitQuery,
} from './schemas.ts';
import { readUsage } from './usage.ts';

const customer = Type.Object(customerFields, { description: 'The customer.' });
const changed = Type.Object({ ...customerFields, visibleAt }, { description: 'The customer as it is now.' });
const params = closed({ id: customerId });
const creation = closed({ name, limits: Type.Optional(limitsPatch) });
const CODES = [...AUTHENTICATION_CODES, ...CHANGE_CODES, 'CUSTOMER_UNKNOWN', 'CUSTOMER_DELETED'] as const;

/** What an operator does with customers. */
export function customerAdminRoutes(app: App, deps: Deps, guards: Guards): void {
  const { node } = deps;
  const { identity, clock } = node;
  const onRequest = guards.role('operator');
  const common = { tags: ['Operator'], security: [{ token: [] }] };
  const shown = (id: string, { visibleAt: visible }: { readonly visibleAt: VisibleAt }) => ({
    ...identity.getCustomer(id),
    visibleAt: visible,
  });

  app.post(
    '/v1/customers',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'createCustomer',
        summary: 'Create a customer under a made id',
        querystring: closed(waitQuery),
        body: creation,
        response: responses({ 201: changed }, ...AUTHENTICATION_CODES, ...CHANGE_CODES),
      },
    },
    async (request, reply) => {
      const created = await change(node, request, reply, (context) => identity.createCustomer(context, request.body));
      return reply.code(201).header('location', `/v1/customers/${created.id}`).send(shown(created.id, created));
    },
  );

  app.put(
    '/v1/customers/:id',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'putCustomer',
        summary: 'Create a customer under an id of your own',
        description: 'Idempotent: 201 when it is new, 200 when it is there with these values.',
        params,
        querystring: closed(waitQuery),
        body: creation,
        response: responses({ 201: changed, 200: changed }, ...CODES, 'CUSTOMER_EXISTS'),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const put = await change(node, request, reply, (context) =>
        identity.createCustomer(context, { ...request.body, id }),
      );
      return reply.code(put.writes.length > 0 ? 201 : 200).send(shown(id, put));
    },
  );

  app.get(
    '/v1/customers',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'listCustomers',
        summary: 'Customers, by id',
        querystring: closed({
          after: Type.Optional(Type.String({ maxLength: 64, description: 'Only ids above this one.' })),
          limit: Type.Optional(Type.Integer({ minimum: 1, maximum: PAGE_MAX, description: 'Default 100.' })),
        }),
        response: responses(
          {
            200: Type.Object(
              {
                customers: Type.Array(customer),
                next: Type.Unsafe({ type: ['string', 'null'], description: 'after of the next page, or null.' }),
              },
              { description: 'A page of customers.' },
            ),
          },
          ...AUTHENTICATION_CODES,
          'REQUEST_INVALID',
        ),
      },
    },
    async (request) => {
      const { after, limit = 100 } = request.query;
      const customers = identity.listCustomers({ after, limit });
      return { customers, next: customers.length === limit ? customers.at(-1)!.id : null };
    },
  );

  app.get(
    '/v1/customers/:id',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getCustomer',
        summary: 'One customer',
        params,
        response: responses({ 200: customer }, ...AUTHENTICATION_CODES, 'CUSTOMER_UNKNOWN'),
      },
    },
    async (request) => identity.getCustomer(request.params.id),
  );

  app.patch(
    '/v1/customers/:id',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'patchCustomer',
        summary: 'Change name and limits',
        description: 'All or nothing. A limit of null is the default again.',
        params,
        querystring: closed(waitQuery),
        body: closed({ name: Type.Optional(name), limits: Type.Optional(limitsPatch) }),
        response: responses({ 200: changed }, ...CODES),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const { name: renamed, limits } = request.body;
      identity.getCustomer(id);
      const applied = await apply(node, request, reply, (context) => [
        ...(renamed === undefined ? [] : identity.rename(context, id, renamed)),
        ...(limits === undefined ? [] : identity.setLimits(context, id, limits)),
      ]);
      return shown(id, applied);
    },
  );

  app.delete(
    '/v1/customers/:id',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'deleteCustomer',
        summary: 'Delete a customer for ever',
        description: 'Its keys are refused and its id is never used again. Its statements stay.',
        params,
        querystring: closed(waitQuery),
        response: responses({ 204: null }, ...CODES),
      },
    },
    async (request, reply) => {
      await apply(node, request, reply, (context) => identity.deleteCustomer(context, request.params.id));
      return reply.code(204).send();
    },
  );

  for (const action of ['suspend', 'resume'] as const)
    app.post(
      `/v1/customers/:id/${action}`,
      {
        onRequest,
        schema: {
          ...common,
          operationId: `${action}Customer`,
          summary:
            action === 'suspend'
              ? 'Refuse a customer’s keys until it is resumed'
              : 'Let a suspended customer’s keys in again',
          params,
          querystring: closed(waitQuery),
          response: responses({ 200: changed }, ...CODES),
        },
      },
      async (request, reply) => {
        const applied = await apply(node, request, reply, (context) => identity[action](context, request.params.id));
        return shown(request.params.id, applied);
      },
    );

  app.get(
    '/v1/customers/:id/usage',
    {
      onRequest: [onRequest, readingIn(deps.reads)],
      schema: {
        ...common,
        operationId: 'getCustomerUsage',
        summary: 'Usage of a customer',
        description: 'As GET /v1/usage.',
        params,
        querystring: usageQuery,
        response: responses(
          usageResponses,
          ...AUTHENTICATION_CODES,
          'REQUEST_INVALID',
          'CUSTOMER_UNKNOWN',
          'QUEUE_FULL',
        ),
      },
    },
    async (request) => {
      const { id } = identity.getCustomer(request.params.id);
      return readUsage(node, id, usageQueryOf(request.query, clock.nowMs()));
    },
  );
  keyRoutes(app, deps, guards);
}

function keyRoutes(app: App, { node }: Deps, guards: Guards): void {
  const { identity } = node;
  const onRequest = guards.role('operator');
  const common = { tags: ['Operator'], security: [{ token: [] }] };

  app.post(
    '/v1/customers/:id/keys',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'issueKey',
        summary: 'Issue an API key',
        description: 'Its text is in the answer, this once and nowhere else.',
        params,
        querystring: closed(waitQuery),
        body: Type.Unsafe<{ scopes?: ('resize' | 'read')[] } | null | undefined>({
          ...closed({ scopes: Type.Optional(scopes) }),
          type: ['object', 'null'],
        }),
        response: responses(
          {
            201: Type.Object(
              { ...keyFields, key: Type.String({ description: 'wgl_<key id>_<secret>' }), visibleAt },
              { description: 'The key.' },
            ),
          },
          ...CODES,
        ),
      },
    },
    async (request, reply) => {
      const { id: owner } = request.params;
      const issued = await change(node, request, reply, (context) =>
        identity.issueKey(context, owner, request.body?.scopes),
      );
      const { id, key, scopes: granted, createdAt, visibleAt: visible } = issued;
      return reply
        .code(201)
        .header('cache-control', 'no-store')
        .send({ id, key, scopes: granted, createdAt, visibleAt: visible });
    },
  );

  app.get(
    '/v1/customers/:id/keys',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'listKeys',
        summary: 'Keys of a customer, revoked ones too',
        params,
        response: responses(
          {
            200: Type.Object(
              { keys: Type.Array(Type.Object({ ...keyFields, revoked: Type.Boolean() })) },
              { description: 'The keys.' },
            ),
          },
          ...AUTHENTICATION_CODES,
          'CUSTOMER_UNKNOWN',
        ),
      },
    },
    async (request) => ({ keys: identity.listKeys(request.params.id as CustomerId) }),
  );

  app.delete(
    '/v1/customers/:id/keys/:keyId',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'revokeKey',
        summary: 'Revoke a key for ever',
        params: closed({ id: customerId, keyId }),
        querystring: closed(waitQuery),
        response: responses({ 204: null }, ...CODES, 'NOT_FOUND'),
      },
    },
    async (request, reply) => {
      const { id, keyId: revoked } = request.params;
      await apply(node, request, reply, (context) => identity.revokeKey(context, id, revoked));
      return reply.code(204).send();
    },
  );
}
