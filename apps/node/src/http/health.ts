import { Type } from 'typebox';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { content, responses } from './schemas.ts';

const status = (text: string, description: string) =>
  Type.Object({ status: Type.String({ const: text }) }, { description });

/** What balancers and Prometheus ask. */
export function healthRoutes(app: App, { metrics, readiness }: Deps, guards: Guards): void {
  const common = { tags: ['Everyone'], security: [{}] };

  app.get(
    '/livez',
    {
      schema: {
        ...common,
        operationId: 'getLiveness',
        summary: 'Whether the process runs',
        response: responses({ 200: status('alive', 'It does.') }),
      },
    },
    async (_request, reply) => {
      reply.header('cache-control', 'no-store');
      return { status: 'alive' };
    },
  );

  app.get(
    '/readyz',
    {
      schema: {
        ...common,
        operationId: 'getReadiness',
        summary: 'Whether this node should get requests',
        description: 'It can write, a worker has made a picture within the last seconds, and it is not shutting down.',
        response: responses({ 200: status('ready', 'It should.') }, 'DRAINING', 'STORE_FULL', 'NOT_READY'),
      },
    },
    async (_request, reply) => {
      const error = await readiness.check();
      if (error !== null) throw error;
      reply.header('cache-control', 'no-store');
      return { status: 'ready' };
    },
  );

  app.get(
    '/metrics',
    {
      onRequest: guards.metrics,
      schema: {
        ...common,
        security: [{}, { token: [] }],
        operationId: 'getMetrics',
        summary: 'Metrics for Prometheus',
        description: 'For loopback without a proxy in between, and for metrics and operator tokens.',
        response: responses({ 200: content('The metrics.', 'text/plain') }, 'KEY_MISSING', 'ROLE_REQUIRED'),
      },
    },
    async (_request, reply) => reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );
}
