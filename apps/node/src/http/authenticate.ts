import type { FastifyRequest, HookHandlerDoneFunction, FastifyReply } from 'fastify';
import { WaggleError, type CustomerId } from '@waggle/protocol/base';
import { authorize, authorizeCustomer, type Principal, type Scope, type TokenRole } from '@waggle/identity';
import type { Node } from '../node.ts';
import { banned, uninformed } from '../probe.ts';

/** What runs before any of the body is read. */
export type Hook = (request: FastifyRequest, reply: FastifyReply, done: HookHandlerDoneFunction) => void;

const BEARER = /^bearer +([!-~]+) *$/i;

/** `onRequest` hooks, which run before any of the body is read. */
export interface Guards {
  /** Lets any valid credential in. */
  readonly anyone: Hook;
  /** Lets the API keys of customers with all these scopes in. */
  customer(...scopes: readonly Scope[]): Hook;
  /** Lets tokens of that role in, and operators. */
  role(role: TokenRole): Hook;
  /** For the log: everyone, known by their credential if they show a valid one, unless the configuration says auditors only. */
  readonly log: Hook;
  /** For loopback without a proxy in between, else as `role('metrics')`. */
  readonly metrics: Hook;
}

/** Whoever the authorization header names. Throws what `Identity.authenticate` throws, and `NOT_READY`. */
function authenticate(node: Node, request: FastifyRequest): Principal {
  const { authorization } = request.headers;
  const text = authorization === undefined ? undefined : BEARER.exec(authorization)?.[1];
  if (authorization !== undefined && text === undefined)
    throw new WaggleError(
      'KEY_MALFORMED',
      'Expected "Bearer <API key or token>" in the authorization header, received another scheme',
    );
  const principal = identify(node, text);
  request.principal = principal;
  return principal;
}

/**
 * A newcomer cannot say of a credential that it is unknown: the others may know it. A node that has just started again cannot say
 * that one is good either: the others may know that it was revoked. A banned one hears of neither any more, and what it counts is
 * nobody's: customers are sent elsewhere, operators see what there is to see.
 */
function identify(node: Node, text: string | undefined): Principal {
  try {
    const principal = node.identity.authenticate(text);
    if (node.isSettling) throw uninformed();
    if (node.isBanned && principal.kind === 'customer') throw banned();
    return principal;
  } catch (error) {
    if (!(error instanceof WaggleError) || error.code !== 'KEY_UNKNOWN') throw error;
    throw node.isBanned ? banned() : node.isInformed ? error : uninformed();
  }
}

/** For routes that are for everyone: whose credential it is, if it is a valid one, so that strangers do not crowd them out. */
function recognize(node: Node, request: FastifyRequest): undefined {
  if (request.headers.authorization === undefined) return;
  try {
    authenticate(node, request);
  } catch (error) {
    if (!(error instanceof WaggleError)) throw error;
  }
}

const LOOPBACK = /^(127\.|::1$|::ffff:127\.)/;

/** Whether this very machine asks, and not a proxy on it for someone else. */
const isLocal = ({ ip, headers }: FastifyRequest): boolean =>
  LOOPBACK.test(ip) && headers['x-forwarded-for'] === undefined && headers['forwarded'] === undefined;

/** The guards of a node's routes. */
export function guardsOf(node: Node): Guards {
  const guard =
    (check: (principal: Principal) => unknown): Hook =>
    (request, _reply, done) => {
      check(authenticate(node, request));
      done();
    };
  const role = (wanted: TokenRole): Hook => guard((principal) => authorize(principal, wanted));
  const metrics = role('metrics');
  return {
    anyone: guard(() => undefined),
    customer: (...scopes) => guard((principal) => scopes.forEach((scope) => authorizeCustomer(principal, scope))),
    role,
    log: node.config.publicLog ? (request, _reply, done) => done(recognize(node, request)) : role('auditor'),
    metrics: (request, reply, done) => (isLocal(request) ? done() : metrics(request, reply, done)),
  };
}

/** The principal behind a guard. */
export function principalOf({ principal }: FastifyRequest): Principal {
  if (principal === null) throw new WaggleError('KEY_MISSING');
  return principal;
}

/** The customer and key behind `customer(scope)`. */
export function customerOf(request: FastifyRequest): { readonly customer: CustomerId; readonly keyId: string } {
  const principal = principalOf(request);
  if (principal.kind !== 'customer') throw new WaggleError('ROLE_REQUIRED');
  return principal;
}
