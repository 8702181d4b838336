import { WaggleError, type CustomerId, type KeyId } from '@waggle/protocol/base';

/** What an API key may do: `resize` is work that is metered, `read` is usage, statements, records and the account. */
export const SCOPES = ['resize', 'read'] as const;
/** One of `SCOPES`. */
export type Scope = (typeof SCOPES)[number];

/** What a token may do. An operator may do whatever an auditor or a metrics reader may. */
export const TOKEN_ROLES = ['operator', 'auditor', 'metrics'] as const;
/** One of `TOKEN_ROLES`. */
export type TokenRole = (typeof TOKEN_ROLES)[number];

/** Whoever has shown a valid credential. */
export type Principal =
  | {
      readonly kind: 'customer';
      readonly customer: CustomerId;
      readonly keyId: KeyId;
      readonly scopes: readonly Scope[];
    }
  | { readonly kind: 'token'; readonly id: KeyId; readonly role: TokenRole; readonly name: string };

/** Who made a change, as audit entries name them. `node` is a node acting for itself, as at its first start. */
export interface Actor {
  /** Id of the API key or token; never any part of its secret. */
  readonly credential: string;
  readonly role: TokenRole | 'customer' | 'node';
}

/** The actor that a principal is in the audit log. */
export const actorOf = (principal: Principal): Actor =>
  principal.kind === 'customer'
    ? { credential: principal.keyId, role: 'customer' }
    : { credential: principal.id, role: principal.role };

/** Throws `ROLE_REQUIRED` unless the principal is a token of that role or of the operator's. */
export function authorize(principal: Principal, role: TokenRole): void {
  if (principal.kind === 'token' && (principal.role === role || principal.role === 'operator')) return;
  const received = principal.kind === 'customer' ? 'an API key of a customer' : `a token of the role ${principal.role}`;
  throw new WaggleError('ROLE_REQUIRED', `Expected a token of the role ${role}, received ${received}`);
}

/** The customer of an API key that has the scope. Throws `ROLE_REQUIRED` for keys without it and for tokens. */
export function authorizeCustomer(principal: Principal, scope: Scope): CustomerId {
  if (principal.kind === 'token')
    throw new WaggleError(
      'ROLE_REQUIRED',
      `Expected an API key of a customer, received a token of the role ${principal.role}`,
    );
  if (principal.scopes.includes(scope)) return principal.customer;
  throw new WaggleError(
    'ROLE_REQUIRED',
    `Expected a key with the scope ${scope}, received one with ${principal.scopes.join(' and ')}`,
  );
}
