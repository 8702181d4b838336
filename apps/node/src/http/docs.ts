import swagger from '@fastify/swagger';
import { Type } from 'typebox';
import type { App } from './app.ts';
import { pageOf, type ApiDocument } from './page.ts';
import { content, Problem, responses, UsageSchema } from './schemas.ts';
import { VERSION } from './self.ts';

const TAGS = [
  { name: 'Customer', description: 'With an API key.' },
  { name: 'Operator', description: 'With an operator’s token.' },
  { name: 'Auditor', description: 'With an auditor’s token, or for everyone where the log is public.' },
  { name: 'Everyone', description: 'Without a credential.' },
];

const DESCRIPTION =
  'An image-resizing service that any number of equal nodes provide together. Every response carries waggle-request-id and ' +
  'waggle-node. Errors are problems (RFC 9457) with a stable code. Parameters that are not known are refused.';

/** Lets the OpenAPI document be made of the schemas of all routes that are added after this. */
export function describeApi(app: App): void {
  app.addSchema(Problem);
  app.addSchema(UsageSchema);
  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Waggle',
        version: VERSION,
        description: DESCRIPTION,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      tags: TAGS,
      components: {
        securitySchemes: {
          apiKey: { type: 'http', scheme: 'bearer', description: 'A customer’s API key: wgl_<key id>_<secret>.' },
          token: {
            type: 'http',
            scheme: 'bearer',
            description: 'A token of an operator, an auditor or a metrics reader.',
          },
        },
      },
    },
    refResolver: {
      buildLocalReference: ({ $id }, _baseUri, _fragment, i) => (typeof $id === 'string' ? $id : `schema-${i}`),
    },
  });
}

/** The document for programs and the page for people, made once, when first asked for. */
export function docsRoutes(app: App): void {
  let json: string | undefined;
  let page: string | undefined;
  const documentOf = (): ApiDocument => app.swagger() as unknown as ApiDocument;
  const common = { tags: ['Everyone'], security: [{}] };

  app.get(
    '/openapi.json',
    {
      schema: {
        ...common,
        operationId: 'getOpenApi',
        summary: 'This API, for programs (OpenAPI 3.1)',
        response: responses({ 200: Type.Unsafe({ type: 'object', description: 'The document.' }) }),
      },
    },
    (_request, reply) =>
      reply
        .header('cache-control', 'no-cache')
        .type('application/json')
        .send((json ??= JSON.stringify(documentOf()))),
  );

  app.get(
    '/docs',
    {
      schema: {
        ...common,
        operationId: 'getDocs',
        summary: 'This API, for people',
        response: responses({ 200: content('A page without scripts.', 'text/html') }),
      },
    },
    (_request, reply) =>
      reply
        .header('cache-control', 'no-cache')
        .header(
          'content-security-policy',
          "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        )
        .type('text/html; charset=utf-8')
        .send((page ??= pageOf(documentOf()))),
  );
}
