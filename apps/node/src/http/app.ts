import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type { ErrorCode } from '@waggle/protocol/base';
import type { Principal } from '@waggle/identity';
import type { Metrics } from '../metrics.ts';
import type { Node } from '../node.ts';
import type { Readiness } from '../probe.ts';
import type { Bounds } from './bounds.ts';
import type { Room } from './room.ts';

/** The server, or a scope of it, whose routes take their types from their schemas. */
export type App = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;

/** What routes work with. */
export interface Deps {
  readonly node: Node;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
  readonly bounds: Bounds;
  /** For requests that read the store. */
  readonly reads: Room;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks: set by the hooks of authenticate.ts, null on routes that are for everyone. */
    principal: Principal | null;
    /** Code of the problem that was answered with, for the log and the metrics. */
    problem: ErrorCode | null;
    /** What gives back what it holds, by holding.ts. */
    held: (() => void)[] | null;
  }
}
