import { Type, type TProperties, type TSchema } from 'typebox';
import { CUSTOMER_ID_PATTERN, ERRORS, type ErrorCode } from '@waggle/protocol/base';
import { DIMENSIONS } from '@waggle/protocol/lattice';
import { LIMITS, SCOPES, TOKEN_ROLES } from '@waggle/identity';

/*
 * Schemas that several routes share. Requests are validated by them and the OpenAPI document is made of them; responses are
 * described by them only.
 */

/** One of the texts. */
export const choice = <const T extends readonly string[]>(values: T, options: object = {}) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: [...values], ...options });

/** An object without any other fields: what is not known is refused, not ignored. */
export const closed = <T extends TProperties>(properties: T, options: object = {}) =>
  Type.Object(properties, { ...options, additionalProperties: false });

const whole = (description: string, maximum = Number.MAX_SAFE_INTEGER) =>
  Type.Integer({ minimum: 0, maximum, description });

export const Problem = Type.Object(
  {
    type: Type.String({ description: 'Where the code is explained: /docs#<code>.' }),
    title: Type.String({ description: 'The same for every occurrence of the code.' }),
    status: Type.Integer({ description: 'The HTTP status.' }),
    code: choice(Object.keys(ERRORS), { description: 'Stable: what programs decide by.' }),
    detail: Type.String({ description: 'What was expected and what came.' }),
    instance: Type.String({ description: 'This occurrence: urn:waggle:request:<waggle-request-id>.' }),
  },
  { $id: 'Problem', description: 'An error (RFC 9457).' },
);

const USAGE_TEXT: Record<(typeof DIMENSIONS)[number], string> = {
  requests: 'Requests that gave a result.',
  requestsFailed: 'Requests that did not.',
  bytesIn: 'Bytes of request bodies.',
  bytesOut: 'Bytes of results.',
  pixelsIn: 'Pixels decoded, frames summed.',
  pixelsOut: 'Pixels encoded, frames summed.',
  cpuMicros: 'CPU time in µs.',
};
export const UsageSchema = Type.Object(Object.fromEntries(DIMENSIONS.map((name) => [name, whole(USAGE_TEXT[name])])), {
  $id: 'Usage',
  description: 'What was counted, in whole numbers.',
});

/** References into `components.schemas`. */
export const usageRef = Type.Unsafe({ $ref: 'Usage#' });
const problemRef = Type.Unsafe({ $ref: 'Problem#' });

export const visibleAt = Type.Object(
  { members: whole('Live members that have it.'), of: whole('Live members.') },
  { description: 'How far a change has got.' },
);

export const time = (description: string) => Type.String({ format: 'date-time', description });

export const customerId = Type.String({
  pattern: CUSTOMER_ID_PATTERN,
  description: 'Id of a customer: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit.',
});
export const keyId = Type.String({ pattern: '^[0-9A-Za-z]{12}$', description: '12 base62 digits.' });
export const name = Type.String({ minLength: 1, maxLength: 128, description: 'A name, without control characters.' });
export const scopes = Type.Array(choice(SCOPES), {
  minItems: 1,
  maxItems: SCOPES.length,
  description:
    'What a key may do: resize is work that is metered; read is usage, statements, records and the account; changes of the account take both.',
});
export const role = choice(TOKEN_ROLES, {
  description: 'What a token may do. An operator may do whatever an auditor or a metrics reader may.',
});

const limitText = ({ description, unit }: { description: string; unit: string }) =>
  `${description[0]!.toUpperCase()}${description.slice(1)}, in ${unit}.`;

/** A change of limits, made of the table of identity: a number, or null for the default. */
export const limitsPatch = closed(
  Object.fromEntries(
    Object.entries(LIMITS).map(([limit, entry]) => [
      limit,
      Type.Optional(
        Type.Unsafe<number | null>({
          type: ['integer', 'null'],
          minimum: entry.min,
          maximum: entry.max,
          description: `${limitText(entry)} Default: ${entry.default}; null goes back to it.`,
        }),
      ),
    ]),
  ),
  { description: 'Limits of the customer’s own.' },
);

const limitsInForce = Type.Object(
  Object.fromEntries(
    Object.entries(LIMITS).map(([limit, entry]) => [limit, Type.Integer({ description: limitText(entry) })]),
  ),
  { description: 'The limits in force.' },
);

export const customerFields = {
  id: customerId,
  name,
  status: choice(['active', 'suspended', 'deleted'], { description: 'A deleted customer stays listed.' }),
  limits: limitsInForce,
  createdAt: time('When it was created.'),
};

export const keyFields = { id: keyId, scopes, createdAt: time('When it was issued.') };

/** How long a change waits for other members unless it says so, in ms. */
export const WAIT_MS = 5_000;

/** `?wait=&timeoutMs=` of changes, parsed. */
export interface WaitQuery {
  readonly wait?: 'all' | 'majority';
  readonly timeoutMs?: number;
}

/** `?wait=&timeoutMs=` of changes. */
export const waitQuery = {
  wait: Type.Optional(
    choice(['all', 'majority'], { description: 'Answer when that many of the live members have the change.' }),
  ),
  timeoutMs: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 60_000,
      description: `How long to wait for that at most, in ms; default ${WAIT_MS}. Then the answer says how far it has got.`,
    }),
  ),
};

export const epochNumber = (description: string) => Type.Integer({ minimum: 0, maximum: 2 ** 40, description });

type Answers = Record<number, TSchema | null>;

/** Content of a response that is not JSON. */
export const content = (description: string, ...types: readonly string[]): TSchema =>
  Type.Unsafe({
    description,
    content: Object.fromEntries(
      types.map((type) => [
        type,
        { schema: /text|json/.test(type) ? { type: 'string' } : { type: 'string', format: 'binary' } },
      ]),
    ),
  });

/** The responses of a route: its own, and a problem for each status that one of the codes has. */
export function responses(answers: Answers, ...codes: readonly ErrorCode[]): Record<string, unknown> {
  const described: Record<string, unknown> = {};
  for (const [status, schema] of Object.entries(answers))
    described[status] = schema ?? { type: 'null', description: 'Done.' };
  for (const code of codes) {
    const { status, title } = ERRORS[code];
    const before = described[status] as { description: string } | undefined;
    const description = `${before === undefined ? '' : `${before.description} `}\`${code}\`: ${title}`;
    described[status] = { description, content: { 'application/problem+json': { schema: problemRef } } };
  }
  described['default'] = {
    description: 'Any other problem.',
    content: { 'application/problem+json': { schema: problemRef } },
  };
  return described;
}

/** Codes that any route behind a credential may answer with. */
export const AUTHENTICATION_CODES = [
  'KEY_MISSING',
  'KEY_MALFORMED',
  'KEY_UNKNOWN',
  'KEY_REVOKED',
  'ROLE_REQUIRED',
] as const;
/** Those of API keys beside them. */
export const CUSTOMER_CODES = [...AUTHENTICATION_CODES, 'CUSTOMER_SUSPENDED', 'CUSTOMER_DELETED'] as const;
/** Codes that any change may answer with. */
export const CHANGE_CODES = ['REQUEST_INVALID', 'STORE_FULL', 'STORE_FAILED', 'STORE_BUSY', 'DRAINING'] as const;
