import { present, WaggleError } from '@waggle/protocol/base';
import type { App } from './app.ts';

/** Methods of routes by their pattern. */
type Routes = ReadonlyMap<string, ReadonlySet<string>>;

const noted = new WeakMap<object, Routes>();

/** The routes of a server, as `refuseUnknown` notes them. */
export const routesOf = ({ server }: Pick<App, 'server'>): Routes => present(noted.get(server), 'the table of routes');

/** The methods that a path takes, in order: none if there is nothing there. */
function allowedAt(routes: Routes, path: string): string[] {
  const methods = [...routes].flatMap(([pattern, each]) => (expressionOf(pattern).test(path) ? [...each] : []));
  return [...new Set(methods)].sort();
}

/** The paths that a pattern of Fastify's router stands for. */
function expressionOf(pattern: string): RegExp {
  const text = pattern
    .replaceAll(/[.+?^$()[\]{}|\\]/g, '\\$&')
    .replaceAll(/:[A-Za-z]+/g, '[^/]+')
    .replaceAll('*', '.*');
  return new RegExp(`^${text}$`);
}

/**
 * Notes the routes that are added from now on, and answers what none of them takes: `METHOD_NOT_ALLOWED` with `allow` where
 * another method is taken, else `NOT_FOUND`.
 */
export function refuseUnknown(app: App): void {
  const routes = new Map<string, Set<string>>();
  noted.set(app.server, routes);
  app.addHook('onRoute', ({ url, method }) => {
    const methods = routes.get(url) ?? new Set();
    for (const each of typeof method === 'string' ? [method] : method) methods.add(each);
    routes.set(url, methods);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!;
    const allowed = allowedAt(routes, path);
    if (allowed.length === 0)
      throw new WaggleError('NOT_FOUND', `Expected a path of the API, received ${path.slice(0, 200)}`);
    reply.header('allow', allowed.join(', '));
    throw new WaggleError(
      'METHOD_NOT_ALLOWED',
      `Expected one of ${allowed.join(', ')} here, received ${request.method}`,
    );
  });
}
