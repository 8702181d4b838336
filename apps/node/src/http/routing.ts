import { WaggleError } from '@waggle/protocol/base';
import type { App } from './app.ts';

/** Every route that a server has: its pattern, with its methods. */
export class RouteTable {
  readonly #methods = new Map<string, Set<string>>();

  /** Takes note of the routes that are added from now on. */
  watch(app: App): void {
    app.addHook('onRoute', ({ url, method }) => {
      const methods = this.#methods.get(url) ?? new Set();
      for (const each of typeof method === 'string' ? [method] : method) methods.add(each);
      this.#methods.set(url, methods);
    });
  }

  /** Patterns with their methods. */
  get routes(): ReadonlyMap<string, ReadonlySet<string>> {
    return this.#methods;
  }

  /** The methods that a path takes: none if there is nothing there. */
  allowed(path: string): string[] {
    const methods = [...this.#methods].flatMap(([pattern, each]) => (expressionOf(pattern).test(path) ? [...each] : []));
    return [...new Set(methods)].sort();
  }
}

/** The paths that a pattern of Fastify's router stands for. */
function expressionOf(pattern: string): RegExp {
  const text = pattern
    .replaceAll(/[.+?^$()[\]{}|\\]/g, '\\$&')
    .replaceAll(/:[A-Za-z]+/g, '[^/]+')
    .replaceAll('*', '.*');
  return new RegExp(`^${text}$`);
}

/** Answers what no route takes: `METHOD_NOT_ALLOWED` with `allow` where another method is taken, else `NOT_FOUND`. */
export function refuseUnknown(app: App, table: RouteTable): void {
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!;
    const allowed = table.allowed(path);
    if (allowed.length === 0) throw new WaggleError('NOT_FOUND', `Expected a path of the API, received ${path.slice(0, 200)}`);
    reply.header('allow', allowed.join(', '));
    throw new WaggleError('METHOD_NOT_ALLOWED', `Expected one of ${allowed.join(', ')} here, received ${request.method}`);
  });
}
