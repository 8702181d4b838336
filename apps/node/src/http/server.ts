import { randomBytes } from 'node:crypto';
import { STATUS_CODES, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import fastify, { LogController, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { WaggleError } from '@waggle/protocol/base';
import type { Metrics } from '../metrics.ts';
import type { Node } from '../node.ts';
import { Readiness } from '../probe.ts';
import { accountRoutes } from './account.ts';
import type { App, Deps } from './app.ts';
import { guardsOf } from './authenticate.ts';
import { BOUNDS, type Bounds } from './bounds.ts';
import { clusterRoutes } from './cluster.ts';
import { customerAdminRoutes } from './customers.ts';
import { customerRoutes } from './customer.ts';
import { describeApi, docsRoutes } from './docs.ts';
import { epochRoutes } from './epochs.ts';
import { healthRoutes } from './health.ts';
import { holdUntilOver, releaseAtEnd } from './holding.ts';
import { logRoutes } from './log.ts';
import { monthRoutes } from './months.ts';
import { pictureRoutes } from './pictures.ts';
import { problemOf, sendProblem } from './problem.ts';
import { Room } from './room.ts';
import { rosterRoutes } from './rosters.ts';
import { refuseUnknown } from './routing.ts';
import { VERSION } from './self.ts';
import { tokenRoutes } from './tokens.ts';
import { compileValidator } from './validation.ts';

/** What the server needs beside its node. */
export interface ServerDeps {
  readonly logger: Logger;
  /** The metrics that the node was opened with, if they are to show both. Watches the node from now on. */
  readonly metrics: Metrics;
  /** What `/readyz` answers by. */
  readonly readiness?: Readiness;
  /** Those that are not `BOUNDS`. */
  readonly bounds?: Partial<Bounds>;
}

/** Bytes of a JSON body: a profile, or a preset. */
const JSON_BYTES_MAX = 64 * 1024;
/** Bytes of the request line and all headers together. */
const HEADERS_BYTES_MAX = 16 * 1024;
/** How long headers, and a whole request, may take to arrive, in ms. */
const HEADERS_MS = 20_000;
const REQUEST_MS = 300_000;
/** How long an idle connection is kept, in ms: longer than balancers do, so that they are the ones to close it. */
const KEEP_ALIVE_MS = 75_000;

const newRequestId = (): string => randomBytes(16).toString('hex');

/** Builds the HTTP server of a node, without listening: `listen` or `inject` come after. */
export function buildServer(
  node: Node,
  { logger, metrics, readiness = new Readiness(node), ...rest }: ServerDeps,
): App {
  const bounds = { ...BOUNDS, ...rest.bounds };
  const app = fastify({
    loggerInstance: logger,
    // One line for each request says it all; a child logger for each would only cost.
    childLoggerFactory: (parent) => parent,
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: newRequestId,
    requestIdHeader: false,
    bodyLimit: JSON_BYTES_MAX,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    http: { maxHeaderSize: HEADERS_BYTES_MAX, headersTimeout: HEADERS_MS },
    routerOptions: { maxParamLength: 256 },
    // While it closes, the node says so itself, in the words of every other problem.
    return503OnClosing: false,
    frameworkErrors: (error, request, reply) => {
      mark(node, request, reply);
      sendProblem(error, request, reply);
    },
    clientErrorHandler(error, socket) {
      refuseMalformed(node, error.code, socket);
    },
  }) as unknown as App;
  app.decorateRequest('principal', null);
  app.decorateRequest('problem', null);
  app.setValidatorCompiler(compileValidator);
  // Responses go out as their routes made them: their schemas describe and take nothing away.
  app.setSerializerCompiler(() => JSON.stringify);
  app.setErrorHandler((error, request, reply) => sendProblem(error, request, reply));
  refuseUnknown(app);
  takeJson(app);
  app.server.maxConnections = bounds.connectionsMax;
  app.server.on('drop', () => metrics.connectionDropped());
  // Whether to send the body at all is answered by the routes (RFC 9110 §10.1.1), not by Node before they are asked.
  app.server.on('checkContinue', (request, response) => app.routing(request, response));
  app.server.on('checkExpectation', (request, response) => app.routing(request, response));
  app.addHook('onRequest', (request, reply, done) => {
    mark(node, request, reply);
    // Not `onResponse`, which is not told of clients that went away.
    holdUntilOver(request, () => report(metrics, request, reply));
    done(unexpected(request));
  });
  releaseAtEnd(app, bounds.writeIdleMs);
  metrics.watch(node, VERSION);
  addRoutes(app, {
    node,
    metrics,
    readiness,
    bounds,
    reads: new Room(bounds.readsMax, 'requests that read the store'),
  });
  return app;
}

function addRoutes(app: App, deps: Deps): void {
  const guards = guardsOf(deps.node);
  describeApi(app);
  app.register(async (scope) => pictureRoutes(scope as App, deps, guards));
  app.register(async (plain) => {
    const scope = plain as App;
    scope.addHook('preParsing', (request, reply, payload, done) => {
      if (request.headers.expect !== undefined) reply.raw.writeContinue();
      done(null, payload);
    });
    customerRoutes(scope, deps, guards);
    monthRoutes(scope, deps, guards);
    accountRoutes(scope, deps, guards);
    customerAdminRoutes(scope, deps, guards);
    tokenRoutes(scope, deps, guards);
    clusterRoutes(scope, deps, guards);
    epochRoutes(scope, deps, guards);
    rosterRoutes(scope, deps, guards);
    logRoutes(scope, deps, guards);
    healthRoutes(scope, deps, guards);
    docsRoutes(scope);
  });
}

/** What every response carries. */
function mark(node: Node, request: FastifyRequest, reply: FastifyReply): void {
  reply
    .header('waggle-request-id', request.id)
    .header('waggle-node', node.standing.replica)
    .header('x-content-type-options', 'nosniff');
  if (node.isDraining) reply.header('connection', 'close');
}

/** The problem of an expectation other than `100-continue`, which nobody here could meet (RFC 9110 §10.1.1). */
function unexpected({ headers: { expect } }: FastifyRequest): WaggleError | undefined {
  if (expect === undefined || /^100-continue$/i.test(expect)) return undefined;
  return new WaggleError(
    'REQUEST_INVALID',
    `Expected 100-continue or no expect header, received ${JSON.stringify(expect.slice(0, 60))}`,
  );
}

/** JSON and nothing else; an empty body is none, whatever its type. */
function takeJson(app: App): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body: string, done) => {
    if (body === '') done(null, undefined);
    else void parse(request, body, done);
  });
}

/** Probes come every few seconds: they are logged where details are. */
const QUIET: ReadonlySet<string> = new Set(['/livez', '/readyz', '/metrics']);

/** One line and one count for each answer. Neither the query nor any header is in it. */
function report(metrics: Metrics, request: FastifyRequest, reply: FastifyReply): void {
  const { method, principal, problem: code } = request;
  const route = request.routeOptions.url ?? 'unmatched';
  const status = reply.statusCode;
  const ms = reply.elapsedTime;
  metrics.answered({ method, route, status, code: code ?? '', ms });
  const level = QUIET.has(route) && status < 500 ? 'debug' : 'info';
  const customer = principal?.kind === 'customer' ? principal.customer : undefined;
  const token = principal?.kind === 'token' ? principal.id : undefined;
  request.log[level](
    { requestId: request.id, method, route, status, code, customer, token, ms: Math.round(ms * 100) / 100 },
    'request',
  );
}

/** Answers what is not HTTP, or came too slowly: there is no request that a route could answer. */
function refuseMalformed(node: Node, code: string | undefined, socket: Socket): void {
  // As Node's own handler sees whether an answer is under way: what is written into it would count as its content.
  const { _httpMessage: answer } = socket as Socket & { readonly _httpMessage?: ServerResponse | null };
  if (!socket.writable || code === 'ECONNRESET' || answer?.headersSent === true) return void socket.destroy();
  const [problem, status, expected] =
    code === 'HPE_HEADER_OVERFLOW'
      ? (['REQUEST_INVALID', 431, `headers of at most ${HEADERS_BYTES_MAX} bytes`] as const)
      : code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? (['REQUEST_TIMEOUT', 408, `headers within ${HEADERS_MS} ms and all of it within ${REQUEST_MS} ms`] as const)
        : (['REQUEST_INVALID', 400, 'a request in HTTP/1.1'] as const);
  const requestId = newRequestId();
  const body = JSON.stringify(problemOf(problem, `Expected ${expected}, received something else`, requestId, status));
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    'content-type: application/problem+json',
    `content-length: ${Buffer.byteLength(body)}`,
    `waggle-request-id: ${requestId}`,
    `waggle-node: ${node.standing.replica}`,
    'connection: close',
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`);
}
