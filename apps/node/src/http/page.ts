import { ERRORS, type ErrorEntry } from '@waggle/protocol/base';

/** The parts of a JSON Schema that the page shows. */
interface Schema {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly default?: unknown;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly allOf?: readonly Schema[];
  readonly $ref?: string;
}
type Content = Readonly<Record<string, { readonly schema?: Schema }>>;
interface Operation {
  readonly summary?: string;
  readonly description?: string;
  readonly tags?: readonly string[];
  readonly operationId?: string;
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly required?: boolean;
    readonly description?: string;
    readonly schema?: Schema;
  }[];
  readonly requestBody?: { readonly content: Content };
  readonly responses?: Readonly<
    Record<
      string,
      {
        readonly description: string;
        readonly content?: Content;
        readonly headers?: Readonly<Record<string, { description?: string }>>;
      }
    >
  >;
}

/** The parts of an OpenAPI document that the page shows. */
export interface ApiDocument {
  readonly info: { readonly title: string; readonly version: string; readonly description?: string };
  readonly tags?: readonly { readonly name: string; readonly description?: string }[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> };
}

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
/** Text as HTML, with `code` set as code. */
const text = (value: string): string =>
  value.replaceAll(/[&<>"]/g, (character) => ENTITIES[character]!).replaceAll(/`([^`]+)`/g, '<code>$1</code>');

/** What a value may be, in a few words. */
function kindOf(schema: Schema = {}): string {
  if (schema.$ref !== undefined) return schema.$ref.slice(schema.$ref.lastIndexOf('/') + 1);
  if (schema.allOf !== undefined) return schema.allOf.map(kindOf).join(' ');
  if (schema.enum !== undefined) return schema.enum.join(' | ');
  if (schema.items !== undefined) return `list of ${kindOf(schema.items)}`;
  const type = typeof schema.type === 'string' ? schema.type : (schema.type ?? []).join(' or ');
  const range =
    schema.minimum === undefined && schema.maximum === undefined
      ? ''
      : ` ${schema.minimum ?? '…'} to ${schema.maximum ?? '…'}`;
  const fallback = schema.default === undefined ? '' : `, default ${JSON.stringify(schema.default)}`;
  return `${type}${range}${fallback}`;
}

/** The fields of an object, those of objects in it indented. */
function fieldsOf(schema: Schema | undefined, prefix = ''): string[] {
  const inner = schema?.items ?? schema;
  return Object.entries(inner?.properties ?? {}).flatMap(([name, field]) => {
    const optional = inner?.required?.includes(name) === true ? '' : ' <i>optional</i>';
    const row = `<tr><td><code>${text(prefix + name)}</code>${optional}</td><td>${text(kindOf(field))}</td><td>${text(field.description ?? '')}</td></tr>`;
    return [row, ...fieldsOf(field, `${prefix}${name}${field.items === undefined ? '' : '[]'}.`)];
  });
}

const table = (title: string, rows: readonly string[]): string =>
  rows.length === 0 ? '' : `<h4>${title}</h4><table>${rows.join('')}</table>`;

const contentOf = (content: Content | undefined): string => Object.keys(content ?? {}).join(', ');

function operationHtml(path: string, method: string, operation: Operation): string {
  const parameters = (operation.parameters ?? []).map(
    ({ name, in: place, required, description, schema }) =>
      `<tr><td><code>${text(name)}</code>${required === true ? '' : ' <i>optional</i>'}</td><td>${place}: ${text(kindOf(schema))}</td><td>${text(description ?? '')}</td></tr>`,
  );
  const { requestBody } = operation;
  const responses = Object.entries(operation.responses ?? {}).map(([status, { description, content, headers }]) => {
    const carried = Object.entries(headers ?? {}).map(
      ([name, header]) => `<br><code>${text(name)}</code> ${text(header.description ?? '')}`,
    );
    return `<tr><td>${status}</td><td>${text(contentOf(content))}</td><td>${text(description)}${carried.join('')}</td></tr>`;
  });
  const answer = Object.entries(operation.responses ?? {}).find(([status]) => status.startsWith('2'))?.[1].content?.[
    'application/json'
  ]?.schema;
  return `<section id="${text(operation.operationId ?? '')}"><h3><b>${method.toUpperCase()}</b> <code>${text(path)}</code></h3>
<p>${text(operation.summary ?? '')}. ${text(operation.description ?? '')}</p>
${table('Parameters', parameters)}
${requestBody === undefined ? '' : `<h4>Body</h4><p>${text(contentOf(requestBody.content))}</p>`}
${table('Fields of the body', fieldsOf(requestBody?.content['application/json']?.schema))}
${table('Responses', responses)}
${table('Fields of the answer', fieldsOf(answer))}</section>`;
}

const errorHtml = ([code, { status, title, effect }]: [string, ErrorEntry]): string =>
  `<tr id="${code}"><td><code>${code}</code></td><td>${status}</td><td>${text(title)} <i>${text(effect)}</i></td></tr>`;

const STYLE = `:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
table{border-collapse:collapse;width:100%;margin-bottom:1rem}td{border-top:1px solid #8885;padding:.25rem .5rem;vertical-align:top}
td:first-child{white-space:nowrap}section{border-top:2px solid #888;margin-top:2rem}h4{margin:.5rem 0 0}code{font-size:.9em}
nav ul{columns:2 20rem;padding-left:1rem}:target{background:#fc03}i{opacity:.7}`;

/** The page of an API: one file, no scripts, nothing fetched. Errors have their code as id, as problems link to them. */
export function pageOf({ info, tags = [], paths, components }: ApiDocument): string {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  const parts = tags.map(({ name, description }) => {
    const own = operations.filter(({ operation }) => operation.tags?.[0] === name);
    const links = own.map(
      ({ path, method, operation }) =>
        `<li><a href="#${text(operation.operationId ?? '')}">${method.toUpperCase()} ${text(path)}</a> ${text(operation.summary ?? '')}</li>`,
    );
    return {
      nav: `<h3>${text(name)}</h3><p>${text(description ?? '')}</p><ul>${links.join('')}</ul>`,
      body: `<h2>${text(name)}</h2>${own.map(({ path, method, operation }) => operationHtml(path, method, operation)).join('\n')}`,
    };
  });
  const shared = Object.entries(components?.schemas ?? {}).map(
    ([name, schema]) => `<section id="${text(name)}">${table(text(name), fieldsOf(schema))}</section>`,
  );
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${text(info.title)} API</title><style>${STYLE}</style></head><body>
<h1>${text(info.title)} API ${text(info.version)}</h1><p>${text(info.description ?? '')} For programs: <a href="/openapi.json">/openapi.json</a>.</p>
<nav>${parts.map(({ nav }) => nav).join('')}</nav>
${parts.map(({ body }) => body).join('\n')}
<h2>Shared</h2>${shared.join('\n')}
<h2 id="errors">Errors</h2><table>${Object.entries(ERRORS).map(errorHtml).join('\n')}</table></body></html>
`;
}
