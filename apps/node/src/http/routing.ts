import { present, WaggleError } from '@waggle/protocol/base';
import type { App } from './app.ts';

/** A pattern of Fastify's router: the paths that it stands for, and the methods that they take. */
interface Route {
  readonly expression: RegExp;
  readonly methods: Set<string>;
}

/** Routes by their pattern. */
type Routes = ReadonlyMap<string, Route>;

const noted = new WeakMap<object, Routes>();

/** The methods of a server's routes by their pattern, as `refuseUnknown` notes them. */
export const routesOf = ({ server }: Pick<App, 'server'>): ReadonlyMap<string, ReadonlySet<string>> =>
  new Map([...present(noted.get(server), 'the table of routes')].map(([url, { methods }]) => [url, methods]));

/** The methods that a path takes, in order: none if there is nothing there. */
function allowedAt(routes: Routes, path: string): string[] {
  const methods = [...routes.values()].flatMap((route) => (route.expression.test(path) ? [...route.methods] : []));
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
  const routes = new Map<string, Route>();
  noted.set(app.server, routes);
  app.addHook('onRoute', ({ url, method }) => {
    const route = routes.get(url) ?? { expression: expressionOf(url), methods: new Set() };
    for (const each of typeof method === 'string' ? [method] : method) route.methods.add(each);
    routes.set(url, route);
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
