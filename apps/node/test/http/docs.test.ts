import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ERRORS } from '@waggle/protocol/base';
import { LIMITS } from '@waggle/identity';
import { RESIZE_PARAMETERS } from '@waggle/images';
import { routesOf } from '../../src/http/routing.ts';
import { openTestNode, type TestNode } from './support.ts';

interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly tags: readonly string[];
  readonly security: readonly object[];
  readonly parameters?: readonly {
    readonly name: string;
    readonly in: string;
    readonly description: string;
    readonly schema: Record<string, unknown>;
  }[];
  readonly requestBody?: {
    readonly content: Record<
      string,
      { readonly schema: { readonly properties: Record<string, { properties: object }> } }
    >;
  };
  readonly responses: Record<string, { readonly description: string; readonly content?: object }>;
}
interface Document {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { readonly schemas: object; readonly securitySchemes: object };
}

let test: TestNode;
let document: Document;
beforeAll(async () => {
  test = await openTestNode();
  document = (await test.as('')('GET', '/openapi.json')).json<Document>();
});
afterAll(() => test.close());

const operations = (): [string, Operation][] =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, Operation] => [
      `${method.toUpperCase()} ${path}`,
      operation,
    ]),
  );

describe('the OpenAPI document', () => {
  it('has every route, and no other', () => {
    const routes = [...routesOf(test.app)].flatMap(([path, methods]) =>
      [...methods]
        .filter((method) => method !== 'HEAD')
        .map((method) => `${method} ${path.replaceAll(/:([A-Za-z]+)/g, '{$1}').replace('*', '{*}')}`),
    );
    expect(
      operations()
        .map(([name]) => name)
        .sort(),
    ).toEqual(routes.sort());
    expect(routes.length).toBeGreaterThan(40);
  });

  it('says of each what it does, for whom, and how it can fail', () => {
    expect(document.openapi).toBe('3.1.0');
    for (const [name, operation] of operations()) {
      expect(operation.summary, name).toBeTruthy();
      expect(operation.security, name).toBeDefined();
      for (const tag of operation.tags) expect(['Customer', 'Operator', 'Auditor', 'Everyone']).toContain(tag);
      expect(Object.keys(operation.responses), name).toContain('default');
      for (const [status, { description }] of Object.entries(operation.responses)) {
        expect(description, `${name} ${status}`).toBeTruthy();
        expect(description).not.toBe('Default Response');
      }
      for (const parameter of operation.parameters ?? [])
        expect(parameter.description, `${name} ${parameter.name}`).toBeTruthy();
    }
    const ids = operations().map(([, { operationId }]) => operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(Object.keys(document.components.schemas).sort()).toEqual(['Problem', 'Usage']);
  });

  it('has every parameter of a resize with its range, and every limit', () => {
    const { parameters = [], requestBody } = document.paths['/v1/resize']!['post']!;
    for (const [name, entry] of Object.entries(RESIZE_PARAMETERS)) {
      const { schema } = parameters.find((parameter) => parameter.name === name)!;
      if (entry.type === 'integer') expect(schema).toMatchObject({ minimum: entry.minimum, maximum: entry.maximum });
      if (entry.type === 'choice') expect(schema).toMatchObject({ enum: entry.choices });
    }
    expect(Object.keys(requestBody!.content)).toEqual(['image/*', 'application/octet-stream', 'multipart/form-data']);
    const creation = document.paths['/v1/customers']!['post']!.requestBody!.content['application/json']!.schema;
    expect(Object.keys(creation.properties['limits']!.properties)).toEqual(Object.keys(LIMITS));
  });
});

describe('the page', () => {
  it('shows every operation and every error, and fetches nothing', async () => {
    const { body, headers } = await test.as('')('GET', '/docs');
    expect(headers['content-type']).toBe('text/html; charset=utf-8');
    for (const [, { operationId }] of operations()) expect(body).toContain(`id="${operationId}"`);
    for (const code of Object.keys(ERRORS)) expect(body).toContain(`id="${code}"`);
    expect(body).not.toMatch(/<script|src=|@import|url\(|href="http/);
    expect(headers['content-security-policy']).toContain("default-src 'none'");
  });
});
