import { Type } from 'typebox';
import { PAGE_MAX } from '@waggle/identity';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { apply, change } from './change.ts';
import { sendLines } from './lines.ts';
import {
  AUTHENTICATION_CODES,
  CHANGE_CODES,
  closed,
  content,
  keyId,
  name,
  responses,
  role,
  time,
  visibleAt,
  waitQuery,
} from './schemas.ts';
import { rfc3339 } from './time.ts';

const tokenFields = { id: keyId, role, name, createdAt: time('When it was made.') };

/** Tokens for operators, auditors and metrics, and the log of who changed what. */
export function tokenRoutes(app: App, { node }: Deps, guards: Guards): void {
  const { identity } = node;
  const onRequest = guards.role('operator');
  const common = { tags: ['Operator'], security: [{ token: [] }] };

  app.post(
    '/v1/tokens',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'createToken',
        summary: 'Make a token',
        description: 'Its text is in the answer, this once and nowhere else.',
        querystring: closed(waitQuery),
        body: closed({ role, name }),
        response: responses(
          {
            201: Type.Object(
              { ...tokenFields, token: Type.String({ description: 'wgt_<id>_<secret>' }), visibleAt },
              { description: 'The token.' },
            ),
          },
          ...AUTHENTICATION_CODES,
          ...CHANGE_CODES,
        ),
      },
    },
    async (request, reply) => {
      const { role: given, name: called } = request.body;
      const made = await change(node, request, reply, (context) =>
        identity.createToken(context, { role: given, name: called }),
      );
      reply.code(201).header('cache-control', 'no-store');
      const { id, token, createdAt, visibleAt: visible } = made;
      return { id, token, role: given, name: called, createdAt, visibleAt: visible };
    },
  );

  app.get(
    '/v1/tokens',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'listTokens',
        summary: 'Tokens, revoked ones too',
        response: responses(
          {
            200: Type.Object(
              { tokens: Type.Array(Type.Object({ ...tokenFields, revoked: Type.Boolean() })) },
              { description: 'The tokens.' },
            ),
          },
          ...AUTHENTICATION_CODES,
        ),
      },
    },
    async () => ({ tokens: identity.listTokens() }),
  );

  app.delete(
    '/v1/tokens/:id',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'revokeToken',
        summary: 'Revoke a token for ever',
        description: 'The last operator token cannot be revoked.',
        params: closed({ id: keyId }),
        querystring: closed(waitQuery),
        response: responses({ 204: null }, ...AUTHENTICATION_CODES, ...CHANGE_CODES, 'NOT_FOUND'),
      },
    },
    async (request, reply) => {
      await apply(node, request, reply, (context) => identity.revokeToken(context, request.params.id));
      return reply.code(204).send();
    },
  );

  app.get(
    '/v1/audit',
    {
      onRequest,
      schema: {
        ...common,
        operationId: 'getAudit',
        summary: 'Who changed what and when, as JSON lines',
        description: 'Newest first. The id of the last line is `after` of the next page.',
        querystring: closed({
          after: Type.Optional(
            Type.String({
              pattern: '^[0-9a-f]{16}-[0-9A-Za-z]{8}$',
              description: 'Only entries older than the one with this id.',
            }),
          ),
          limit: Type.Optional(Type.Integer({ minimum: 1, maximum: PAGE_MAX, description: `Default ${PAGE_MAX}.` })),
        }),
        response: responses(
          { 200: content('One entry a line.', 'application/jsonl') },
          ...AUTHENTICATION_CODES,
          'REQUEST_INVALID',
        ),
      },
    },
    async (request, reply) => {
      const { after, limit = PAGE_MAX } = request.query;
      const entries = identity.audit({ after, limit });
      return sendLines(
        reply,
        'application/jsonl',
        entries.map(({ id, atMs, ...entry }) => `${JSON.stringify({ id, at: rfc3339(atMs), ...entry })}\n`),
      );
    },
  );
}
