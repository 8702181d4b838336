import { Compile } from 'typebox/compile';
import type { TSchema } from 'typebox';
import { WaggleError } from '@waggle/protocol/base';

/** The parts of JSON Schema that our routes use. */
interface Schema {
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly patternProperties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
}

/** As Fastify names the parts of a request, and what people call them. */
const PARTS: Readonly<Record<string, string>> = { body: 'the body', querystring: 'the query', params: 'the path' };

/**
 * Compiles a schema once, into a function that gives the value or `REQUEST_INVALID` with what was expected and what came. Texts
 * of query and path become the whole numbers and booleans that the schema asks for; a body is taken as it is. Headers are
 * described by their schema and checked by their route.
 */
export function compileValidator({ schema, httpPart = 'body' }: { schema: unknown; httpPart?: string | undefined }) {
  if (httpPart === 'headers') return (value: unknown) => ({ value });
  const validator = Compile(schema as TSchema);
  return (input: unknown): { value: unknown } | { error: WaggleError } => {
    const value = httpPart === 'body' ? input : fromTexts(schema as Schema, input as Record<string, unknown>);
    if (validator.Check(value)) return { value };
    const message = explain(schema as Schema, PARTS[httpPart] ?? httpPart, value, validator.Errors(value));
    return { error: new WaggleError('REQUEST_INVALID', message) };
  };
}

function fromTexts(schema: Schema, texts: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(texts).map(([name, text]) => {
      const type = schema.properties?.[name]?.type;
      if (type === 'integer' && typeof text === 'string' && /^\d{1,16}$/.test(text)) return [name, Number(text)];
      if (type === 'boolean' && (text === 'true' || text === 'false')) return [name, text === 'true'];
      return [name, text];
    }),
  );
}

type Failure = ReturnType<ReturnType<typeof Compile>['Errors']>[number];

function explain(schema: Schema, part: string, value: unknown, failures: readonly Failure[]): string {
  // Of an unknown field, two errors are told; the one that names the others is more use.
  const failure = failures.find(({ keyword }) => keyword === 'additionalProperties') ?? failures[0];
  const path = (failure?.instancePath ?? '')
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
  const { schema: at, value: received } = follow(schema, value, path);
  const where = path.length === 0 ? part : `${path.join('.')} in ${part}`;
  if (failure?.keyword === 'additionalProperties') {
    const known = Object.keys(at.properties ?? {});
    const [unknown = ''] = failure.params.additionalProperties;
    return `Expected ${known.length === 0 ? 'nothing' : `no more than ${known.join(', ')}`} in ${where}, received ${quoted(unknown)}`;
  }
  if (failure?.keyword === 'required')
    return `Expected ${failure.params.requiredProperties.join(', ')} in ${where}, received ${quoted(Object.keys(Object(received)))}`;
  return `Expected ${expected(at)} for ${where}, received ${quoted(received)}`;
}

function follow(schema: Schema, value: unknown, path: readonly string[]): { schema: Schema; value: unknown } {
  let at = schema;
  let received = value;
  for (const step of path) {
    const more = typeof at.additionalProperties === 'object' ? at.additionalProperties : undefined;
    at = at.properties?.[step] ?? at.items ?? Object.values(at.patternProperties ?? {})[0] ?? more ?? {};
    received = (Object(received) as Record<string, unknown>)[step];
  }
  return { schema: at, value: received };
}

/** No body is null in Fastify's words. */
const quoted = (value: unknown): string =>
  value === undefined || value === null ? 'nothing' : JSON.stringify(value).slice(0, 80);

function expected(schema: Schema): string {
  const types = typeof schema.type === 'string' ? [schema.type] : (schema.type ?? []);
  if (schema.enum !== undefined) return `one of ${schema.enum.join(', ')}`;
  return types.map((type) => expectedOf(type, schema)).join(' or ') || 'another value';
}

function expectedOf(type: string, { minimum, maximum, minLength, maxLength, pattern }: Schema): string {
  switch (type) {
    case 'integer':
      return `a whole number from ${minimum ?? 0} to ${maximum ?? Number.MAX_SAFE_INTEGER}`;
    case 'boolean':
      return 'true or false';
    case 'string':
      if (pattern !== undefined) return `a text of the form ${pattern}`;
      return maxLength === undefined ? 'a text' : `a text of ${minLength ?? 0} to ${maxLength} characters`;
    case 'array':
      return 'a list of the right length';
    case 'object':
      return 'an object';
    default:
      return type;
  }
}
