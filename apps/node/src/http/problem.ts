import { Socket } from 'node:net';
import type { IncomingMessage } from 'node:http';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { ERRORS, WaggleError, type ErrorCode } from '@waggle/protocol/base';

/** An error as every route answers it (RFC 9457). */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: ErrorCode;
  readonly detail: string;
  readonly instance: string;
}

/** Codes of the statuses that say when to come again. */
type BusyCode = { [Code in ErrorCode]: (typeof ERRORS)[Code]['status'] extends 429 | 503 ? Code : never }[ErrorCode];

/** When a retry is worth it, in whole seconds (RFC 9110 `retry-after`), for every code that has the status 429 or 503. */
const RETRY_AFTER_S: Record<BusyCode, number> = {
  LIMIT_EXCEEDED: 1,
  // Until the key is forgotten.
  IDEMPOTENCY_EXHAUSTED: 86_400,
  QUEUE_FULL: 1,
  NOT_READY: 5,
  PEER_UNREACHABLE: 5,
  DRAINING: 5,
  STORE_FULL: 30,
  STORE_FAILED: 5,
  STORE_BUSY: 1,
};

/** A body up to this size is read to its end and thrown away when it is refused, in bytes; beyond it the connection is closed. */
const REST_BYTES_MAX = 64 * 1024;
/** How long a refused connection is read on after the answer, in ms. */
const LINGER_MS = 2_000;
/** How much of it is read at once, in bytes, and how long the pause is after that, in ms: 25 MB/s. */
const LINGER_STEP_BYTES = 256 * 1024;
const LINGER_STEP_MS = 10;

/** The body of a problem. `status` is that of the code unless said otherwise. */
export function problemOf(
  code: ErrorCode,
  detail: string,
  requestId: string,
  status: number = ERRORS[code].status,
): Problem {
  const { title } = ERRORS[code];
  return { type: `/docs#${code}`, title, status, code, detail, instance: `urn:waggle:request:${requestId}` };
}

/** What Fastify and its body parsers say, in our codes. Undefined for what is no fault of the request. */
function ofFastify(error: {
  readonly code?: unknown;
  readonly statusCode?: unknown;
  readonly message?: unknown;
}): WaggleError | undefined {
  const { code, statusCode, message } = error;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return new WaggleError('BODY_TOO_LARGE', 'Expected a body within the limit of the route, received a larger one');
  if (code === 'FST_ERR_CTP_INVALID_JSON_BODY' || error instanceof SyntaxError)
    return new WaggleError('REQUEST_INVALID', 'Expected JSON as the body, received something else');
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE')
    return new WaggleError('REQUEST_INVALID', 'Expected the content type application/json, received another');
  if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500)
    return new WaggleError('REQUEST_INVALID', `Expected a well-formed request: ${String(message).slice(0, 200)}`);
  return undefined;
}

/** Answers with the problem that the error is; what is not known is logged with its stack and told nobody. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const known = error instanceof WaggleError ? error : ofFastify(error as object);
  if (known === undefined || known.code === 'INTERNAL')
    request.log.error({ requestId: request.id, err: error }, 'unexpected error');
  const { code, message } = known ?? new WaggleError('INTERNAL');
  const { status } = ERRORS[code];
  request.problem = code;
  if (status === 401) reply.header('www-authenticate', 'Bearer');
  if (code in RETRY_AFTER_S) reply.header('retry-after', String(RETRY_AFTER_S[code as BusyCode]));
  if (code === 'DRAINING') reply.header('connection', 'close');
  if (code === 'BODY_TOO_LARGE' || code === 'REQUEST_TIMEOUT' || hasLongRest(request.raw))
    closeAfter(request.raw, reply);
  return reply
    .code(status)
    .header('cache-control', 'no-store')
    .type('application/problem+json')
    .send(
      Buffer.from(JSON.stringify(problemOf(code, code === 'INTERNAL' ? ERRORS.INTERNAL.title : message, request.id))),
    );
}

/** Whether more of the body may be on its way than is worth reading. */
function hasLongRest({ complete, headers }: IncomingMessage): boolean {
  if (complete) return false;
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > REST_BYTES_MAX;
}

/**
 * Closes the connection after the answer. What the client still sends is read and dropped for a moment: closed at once, the
 * kernel answers it with a reset, and the client may never see why it was refused (as nginx's lingering_close). It is read in
 * steps, so that a client which sends without a pause has to stop and look.
 */
function closeAfter(raw: IncomingMessage, reply: FastifyReply): void {
  reply.header('connection', 'close');
  const { socket } = raw;
  if (!(socket instanceof Socket)) return;
  let step: NodeJS.Timeout | undefined;
  let dropped = 0;
  raw.on('data', (chunk: Buffer) => {
    dropped += chunk.length;
    if (dropped < LINGER_STEP_BYTES) return;
    dropped = 0;
    raw.pause();
    step = setTimeout(() => raw.resume(), LINGER_STEP_MS);
  });
  raw.resume();
  socket.destroySoon = () => {
    socket.end();
    const last = setTimeout(() => socket.destroy(), LINGER_MS);
    socket.once('close', () => {
      clearTimeout(step);
      clearTimeout(last);
    });
  };
}
