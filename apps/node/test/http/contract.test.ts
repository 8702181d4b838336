import { pino } from 'pino';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { base64, WaggleError } from '@waggle/protocol/base';
import { buildServer } from '../../src/http/index.ts';
import { Metrics } from '../../src/metrics.ts';
import { customerOf, keyOf, openTestNode, OPERATOR_TOKEN, PNG, type Caller, type TestNode } from './support.ts';

let test: TestNode;
let acme: Caller;
let nobody: Caller;
beforeAll(async () => {
  test = await openTestNode({ publicUrl: 'https://waggle.example' });
  acme = await customerOf(test, 'acme');
  nobody = test.as('');
});
afterAll(() => test.close());

const TIME = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string;
const VISIBLE = { members: 1, of: 1 };

describe('problems', () => {
  it('are RFC 9457, with the ids of request and node', async () => {
    const { statusCode, headers, body } = await nobody('GET', '/v1/usage');
    const id = String(headers['waggle-request-id']);
    expect(id).toMatch(/^[0-9a-f]{32}$/);
    expect(statusCode).toBe(401);
    expect(headers).toMatchObject({
      'content-type': 'application/problem+json',
      'www-authenticate': 'Bearer',
      'waggle-node': test.node.standing.replica,
    });
    expect(JSON.parse(body)).toEqual({
      type: '/docs#KEY_MISSING',
      title: 'No credential was sent.',
      status: 401,
      code: 'KEY_MISSING',
      detail: 'Expected an API key or token in the authorization header, received none',
      instance: `urn:waggle:request:${id}`,
    });
  });

  it('never believe the request id of a client', async () => {
    const { headers } = await nobody('GET', '/livez', undefined, {
      'waggle-request-id': 'mine',
      'x-request-id': 'mine',
    });
    expect(headers['waggle-request-id']).not.toBe('mine');
  });

  it.each([
    ['GET', '/v1/usage', 'nonsense', 401, 'KEY_MALFORMED'],
    ['GET', '/v1/usage', OPERATOR_TOKEN, 403, 'ROLE_REQUIRED'],
    ['GET', '/v1/usage', 'another-token-of-some-operator', 401, 'KEY_UNKNOWN'],
    ['GET', '/nowhere', '', 404, 'NOT_FOUND'],
    ['GET', '/v1/customers/acme/nothing', OPERATOR_TOKEN, 404, 'NOT_FOUND'],
    ['GET', '/v1/customers/none', OPERATOR_TOKEN, 404, 'CUSTOMER_UNKNOWN'],
    ['GET', '/v1/epochs/999999999', '', 404, 'EPOCH_UNKNOWN'],
    ['GET', '/v1/epochs/abc', '', 400, 'REQUEST_INVALID'],
    ['GET', '/%', '', 400, 'REQUEST_INVALID'],
  ] as const)('%s %s as %j: %i %s', async (method, path, credential, status, code) => {
    const response = await test.as(credential)(method, path);
    expect([response.statusCode, response.json<{ code: string }>().code]).toEqual([status, code]);
    expect(response.headers['waggle-request-id']).toMatch(/^[0-9a-f]{32}$/);
    expect(response.headers['www-authenticate']).toBe(status === 401 ? 'Bearer' : undefined);
  });

  it('say what a path takes instead (405)', async () => {
    for (const [method, path, allow] of [
      ['GET', '/v1/resize', 'POST'],
      ['DELETE', '/v1/customers', 'GET, HEAD, POST'],
      ['POST', '/v1/customers/acme', 'DELETE, GET, HEAD, PATCH, PUT'],
      ['PUT', '/tile/0/000', 'GET, HEAD'],
      ['POST', '/v1/epochs/3.tar', 'GET, HEAD'],
      ['OPTIONS', '/livez', 'GET, HEAD'],
    ] as const) {
      const response = await nobody(method, path);
      expect([response.statusCode, response.headers['allow'], response.json<{ code: string }>().code]).toEqual([
        405,
        allow,
        'METHOD_NOT_ALLOWED',
      ]);
    }
  });

  it('refuse what no node can meet before it is sent', async () => {
    const { statusCode, body } = await nobody('GET', '/livez', undefined, { expect: 'nonsense' });
    expect([statusCode, JSON.parse(body)]).toMatchObject([
      400,
      { code: 'REQUEST_INVALID', detail: 'Expected 100-continue or no expect header, received "nonsense"' },
    ]);
  });

  it('name what was expected and what came', async () => {
    const json = { 'content-type': 'application/json' };
    for (const [method, path, body, detail] of [
      [
        'GET',
        '/v1/customers?limit=0',
        undefined,
        'Expected a whole number from 1 to 1000 for limit in the query, received 0',
      ],
      [
        'GET',
        '/v1/customers?limit=ten',
        undefined,
        'Expected a whole number from 1 to 1000 for limit in the query, received "ten"',
      ],
      [
        'GET',
        '/v1/customers?colour=red',
        undefined,
        'Expected no more than after, limit in the query, received "colour"',
      ],
      ['POST', '/v1/customers', { nam: 'x' }, 'Expected no more than name, limits in the body, received "nam"'],
      ['POST', '/v1/customers', {}, 'Expected name in the body, received []'],
      ['POST', '/v1/customers', { name: 7 }, 'Expected a text of 1 to 128 characters for name in the body, received 7'],
      [
        'POST',
        '/v1/customers',
        { name: 'x', limits: { framesMax: 0 } },
        'Expected a whole number from 1 to 10000 or null for limits.framesMax in the body, received 0',
      ],
      ['POST', '/v1/customers', undefined, 'Expected an object for the body, received nothing'],
      [
        'POST',
        '/v1/tokens',
        { role: 'king', name: 'x' },
        'Expected one of operator, auditor, metrics for role in the body, received "king"',
      ],
      [
        'PUT',
        '/v1/customers/-x',
        { name: 'x' },
        'Expected a text of the form ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ for id in the path, received "-x"',
      ],
    ] as const) {
      const response = await test.operator(method, path, body);
      expect(response.json()).toMatchObject({ status: 400, code: 'REQUEST_INVALID', detail });
    }
    for (const [payload, headers] of [
      ['{', json],
      ['name=x', { 'content-type': 'application/x-www-form-urlencoded' }],
      ['{"__proto__":{}}', json],
    ] as const)
      expect((await test.operator('POST', '/v1/customers', payload, headers)).json()).toMatchObject({
        status: 400,
        code: 'REQUEST_INVALID',
      });
    const large = await test.operator('POST', '/v1/customers', { name: 'x'.repeat(70_000) });
    expect(large.json()).toMatchObject({ status: 413, code: 'BODY_TOO_LARGE' });
  });

  it('keep what went wrong inside to the log', async () => {
    const broken = vi.spyOn(test.node.identity, 'getCustomer').mockImplementation(() => {
      throw new TypeError('a secret of the node');
    });
    const response = await test.operator('GET', '/v1/customers/acme');
    broken.mockRestore();
    expect(response.json()).toMatchObject({ status: 500, code: 'INTERNAL' });
    expect(response.body).not.toContain('secret');
    const line = test.logged.find(({ err }) => err !== undefined);
    expect(line).toMatchObject({
      requestId: response.headers['waggle-request-id'],
      err: { message: 'a secret of the node', stack: expect.any(String) as string },
    });
  });
});

describe('what an operator does', () => {
  it('customers: create, list, change, suspend, resume, delete', async () => {
    const { operator } = test;
    const made = await operator('POST', '/v1/customers', { name: 'Made' });
    expect(made.statusCode).toBe(201);
    expect(made.json()).toEqual({
      id: expect.any(String) as string,
      name: 'Made',
      status: 'active',
      limits: expect.any(Object) as object,
      createdAt: TIME,
      visibleAt: VISIBLE,
    });

    const put = (name: string) =>
      operator('PUT', '/v1/customers/brick?wait=all&timeoutMs=100', { name, limits: { framesMax: 7 } });
    expect([(await put('Brick')).statusCode, (await put('Brick')).statusCode]).toEqual([201, 200]);
    expect((await put('Other')).json()).toMatchObject({ status: 409, code: 'CUSTOMER_EXISTS' });

    const page = (await operator('GET', '/v1/customers?limit=1')).json<{ customers: { id: string }[]; next: string }>();
    expect(page).toMatchObject({ customers: [{ id: 'acme' }], next: 'acme' });
    expect((await operator('GET', '/v1/customers?after=acme')).json()).toMatchObject({
      customers: [{ id: 'brick' }, { name: 'Made' }],
      next: null,
    });

    const patched = await operator('PATCH', '/v1/customers/brick', {
      name: 'Stone',
      limits: { framesMax: null, deadlineMs: 50 },
    });
    expect(patched.json()).toMatchObject({
      id: 'brick',
      name: 'Stone',
      limits: { framesMax: 500, deadlineMs: 50 },
      visibleAt: VISIBLE,
    });
    expect((await operator('GET', '/v1/customers/brick')).json()).toMatchObject({ name: 'Stone', status: 'active' });

    const key = await operator('POST', '/v1/customers/brick/keys');
    const brick = test.as(key.json<{ key: string }>().key);
    expect((await operator('POST', '/v1/customers/brick/suspend')).json()).toMatchObject({ status: 'suspended' });
    expect((await brick('GET', '/v1/account')).json()).toMatchObject({ status: 403, code: 'CUSTOMER_SUSPENDED' });
    expect((await operator('POST', '/v1/customers/brick/resume')).json()).toMatchObject({ status: 'active' });
    expect((await brick('GET', '/v1/account')).statusCode).toBe(200);
    const deleted = await operator('DELETE', '/v1/customers/brick');
    expect([deleted.statusCode, deleted.body]).toEqual([204, '']);
    expect((await brick('GET', '/v1/account')).json()).toMatchObject({ code: 'CUSTOMER_DELETED' });
    expect((await operator('PATCH', '/v1/customers/brick', { name: 'x' })).json()).toMatchObject({
      code: 'CUSTOMER_DELETED',
    });
  });

  it('keys: issue with scopes, list, revoke', async () => {
    const { operator } = test;
    const issued = await operator('POST', '/v1/customers/acme/keys', { scopes: ['read'] });
    expect([issued.statusCode, issued.headers['cache-control']]).toEqual([201, 'no-store']);
    const { id, key } = issued.json<{ id: string; key: string }>();
    expect(issued.json()).toEqual({
      id,
      key: expect.stringContaining(`wgl_${id}_`) as string,
      scopes: ['read'],
      createdAt: TIME,
      visibleAt: VISIBLE,
    });
    const reader = test.as(key);
    expect((await reader('GET', '/v1/usage')).statusCode).toBe(200);
    expect((await reader('POST', '/v1/resize', PNG)).json()).toMatchObject({ status: 403, code: 'ROLE_REQUIRED' });
    const { keys } = (await operator('GET', '/v1/customers/acme/keys')).json<{ keys: object[] }>();
    expect(keys).toContainEqual({ id, scopes: ['read'], createdAt: TIME, revoked: false });
    expect(JSON.stringify(keys)).not.toContain(key.slice(17));
    expect((await operator('DELETE', `/v1/customers/acme/keys/${id}`)).statusCode).toBe(204);
    expect((await reader('GET', '/v1/usage')).json()).toMatchObject({ status: 401, code: 'KEY_REVOKED' });
    expect((await operator('DELETE', '/v1/customers/acme/keys/000000000000')).json()).toMatchObject({
      code: 'NOT_FOUND',
    });
    expect((await operator('POST', '/v1/customers/acme/keys', { scopes: [] })).statusCode).toBe(400);
  });

  it('tokens: make, list, use by role, revoke', async () => {
    const { operator } = test;
    const made = await operator('POST', '/v1/tokens', { role: 'auditor', name: 'Audit' });
    expect(made.statusCode).toBe(201);
    const { id, token } = made.json<{ id: string; token: string }>();
    expect(made.json()).toEqual({ id, token, role: 'auditor', name: 'Audit', createdAt: TIME, visibleAt: VISIBLE });
    const auditor = test.as(token);
    expect((await auditor('GET', '/v1/customers')).json()).toMatchObject({ code: 'ROLE_REQUIRED' });
    expect((await auditor('GET', '/v1/records')).json()).toMatchObject({ code: 'ROLE_REQUIRED' });
    expect((await operator('GET', '/v1/tokens')).json<{ tokens: object[] }>().tokens).toContainEqual({
      id,
      role: 'auditor',
      name: 'Audit',
      createdAt: TIME,
      revoked: false,
    });
    expect((await operator('DELETE', `/v1/tokens/${id}`)).statusCode).toBe(204);
    expect((await auditor('GET', '/v1/cluster')).json()).toMatchObject({ code: 'KEY_REVOKED' });
  });

  it('audit: who changed what, newest first, in pages', async () => {
    const { operator } = test;
    await operator('PUT', '/v1/customers/audited', { name: 'Audited' });
    const first = await operator('GET', '/v1/audit?limit=1');
    expect(first.headers['content-type']).toBe('application/jsonl');
    const entry = JSON.parse(first.body) as { id: string };
    expect(entry).toMatchObject({
      at: TIME,
      actor: { role: 'operator' },
      node: test.node.standing.replica,
      action: 'customer.create',
      target: 'audited',
    });
    const rest = (await operator('GET', `/v1/audit?after=${entry.id}`)).body;
    expect(rest).not.toContain(entry.id);
    expect(rest.trim().split('\n').length).toBeGreaterThan(1);
  });

  it('the cluster: one member', async () => {
    const { replica, cluster } = test.node.standing;
    const said = { replica, url: 'https://waggle.example', zone: null, load: { workers: 1, running: 0, queued: 0 } };
    const transportKey = base64.encode(test.node.standing.keys.transport.publicKey);
    expect((await test.operator('GET', '/v1/cluster')).json()).toEqual({
      cluster: cluster.id,
      origin: cluster.origin,
      self: replica,
      asOf: TIME,
      members: [
        {
          ...said,
          member: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
          state: 'alive',
          since: TIME,
          incarnation: expect.any(Number) as number,
          status: 'admitted',
          addresses: expect.any(Array) as unknown[],
          version: '0.1.0',
          lag: { controlMs: 0, usageMs: 0 },
        },
      ],
      roster: [replica],
      openEpoch: expect.any(Number) as number,
      sealingEpoch: expect.any(Number) as number,
      alarms: [],
    });
    expect((await acme('GET', '/v1/nodes')).json()).toEqual({ nodes: [{ ...said, transportKey }] });
  });
});

describe('what a customer reads', () => {
  it('its account and profile', async () => {
    const patched = await acme('PATCH', '/v1/account', { profile: { mail: 'a@example.org' } });
    expect(patched.json()).toMatchObject({ id: 'acme', profile: { mail: 'a@example.org' }, visibleAt: VISIBLE });
    expect((await acme('PATCH', '/v1/account', { profile: { mail: null } })).json()).toMatchObject({ profile: {} });
    const account = (await acme('GET', '/v1/account')).json<{ keys: object[] }>();
    expect(account).toMatchObject({
      id: 'acme',
      name: 'acme',
      status: 'active',
      limits: { framesMax: 500 },
      profile: {},
      presets: {},
    });
    expect(account.keys[0]).toMatchObject({ scopes: ['resize', 'read'], revoked: false });
  });

  it('its account, which only a key with both scopes changes', async () => {
    const reader = test.as(await keyOf(test, 'scoped', {}, ['read']));
    const resizer = test.as(await keyOf(test, 'scoped', {}, ['resize']));
    const both = test.as(await keyOf(test, 'scoped', {}, ['resize', 'read']));
    for (const [method, path, body] of [
      ['PUT', '/v1/account/presets/thumb', { width: '9' }],
      ['PATCH', '/v1/account', { profile: { mail: 'a@example.org' } }],
      ['DELETE', '/v1/account/presets/thumb', undefined],
    ] as const) {
      for (const one of [reader, resizer])
        expect((await one(method, path, body)).json()).toMatchObject({ status: 403, code: 'ROLE_REQUIRED' });
      expect((await both(method, path, body)).statusCode).toBeLessThan(300);
    }
    expect((await reader('GET', '/v1/account')).statusCode).toBe(200);
  });

  it('its records, which an operator reads for all', async () => {
    const brick = await customerOf(test, 'bricks');
    for (const caller of [acme, brick])
      await caller('POST', '/v1/resize?width=2', PNG, { 'content-type': 'image/png' });
    const own = await acme('GET', '/v1/records?format=jsonl');
    expect(own.headers['content-type']).toBe('application/jsonl');
    const lines = own.body
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { customer: string });
    expect(lines.at(-1)).toEqual({
      time: TIME,
      requestId: expect.stringMatching(/^[0-9a-f]{32}$/) as string,
      customer: 'acme',
      key: expect.any(String) as string,
      operation: 'resize',
      epoch: 0,
      status: 200,
      code: null,
      params: { width: '2' },
      sku: 'resize.png',
      usage: expect.objectContaining({ requests: 1, bytesIn: PNG.length }) as object,
      queueMicros: expect.any(Number) as number,
      processMicros: expect.any(Number) as number,
    });
    expect(new Set(lines.map(({ customer }) => customer))).toEqual(new Set(['acme']));
    expect((await acme('GET', '/v1/records?customer=bricks')).json()).toMatchObject({ code: 'ROLE_REQUIRED' });
    expect((await test.operator('GET', '/v1/records?customer=bricks')).body.trim().split('\n')).toHaveLength(1);
    expect((await test.operator('GET', '/v1/records')).body.trim().split('\n')).toHaveLength(lines.length + 1);
    expect((await acme('GET', '/v1/records?to=2000-01-01T00:00:00Z')).body).toBe('');
    expect((await acme('GET', '/v1/records?from=yesterday')).json()).toMatchObject({ code: 'REQUEST_INVALID' });
  });

  it('usage in bounds', async () => {
    for (const query of ['from=2026-01-02&to=2026-01-01', 'from=1st', 'group=hour'])
      expect((await acme('GET', `/v1/usage?${query}`)).json()).toMatchObject({ status: 400, code: 'REQUEST_INVALID' });
    expect((await acme('GET', '/v1/usage?from=2000-01-01&to=2000-01-02')).json()).toMatchObject({
      totals: { requests: 0 },
      epochs: [],
    });
    const before = await test.operator('GET', '/v1/customers/acme/usage?group=day');
    expect(before.json()).toMatchObject({
      customer: 'acme',
      days: [{ day: expect.any(String) as string, usage: { requests: 1 }, late: { requests: 0 } }],
    });
  });
});

describe('health', () => {
  it('is alive, ready, and measured', async () => {
    expect((await nobody('GET', '/livez')).json()).toEqual({ status: 'alive' });
    expect((await nobody('GET', '/readyz')).json()).toEqual({ status: 'ready' });
    const metrics = await nobody('GET', '/metrics');
    for (const line of [
      /waggle_http_requests_total\{method="POST",route="\/v1\/resize",status="200",code=""\} [1-9]/,
      /waggle_http_request_seconds_bucket\{le="0.01",route="\/v1\/resize"\}/,
      /waggle_queue_seconds_count [1-9]/,
      /waggle_commit_seconds_count [1-9]/,
      /waggle_jobs_running 0/,
      /waggle_open_epoch 0/,
      /waggle_store_bytes\{file="database"\} [1-9]/,
      /waggle_build_info\{version="0.1.0",replica="[0-9a-f]{32}"/,
      /nodejs_eventloop_lag_p99_seconds/,
    ])
      expect(metrics.body).toMatch(line);
  });

  it('is not ready without a worker that works, says so in its documentation, and when to come again', async () => {
    const logger = pino({ level: 'silent' });
    const probe = vi
      .spyOn(test.node.pool, 'probe')
      .mockResolvedValue({ ok: false, error: new WaggleError('RESIZE_DEADLINE', 'too late') });
    const app = buildServer(test.node, { logger, metrics: new Metrics() });
    const { headers, body } = await app.inject('/readyz');
    expect(JSON.parse(body)).toMatchObject({ status: 503, code: 'NOT_READY' });
    expect(headers['retry-after']).toBe('5');
    probe.mockRestore();
    const { paths } = (await app.inject('/openapi.json')).json<{
      paths: Record<string, { get: { responses: Record<string, { description: string }> } }>;
    }>();
    const described = paths['/readyz']!.get.responses['503']!.description;
    for (const code of ['DRAINING', 'STORE_FULL', 'NOT_READY']) expect(described).toContain(`\`${code}\``);
    expect(described).not.toContain('QUEUE_FULL');
    await app.close();
  });

  it('shows metrics to a proxied client only with a token', async () => {
    const proxied = { 'x-forwarded-for': '203.0.113.1' };
    expect((await nobody('GET', '/metrics', undefined, proxied)).statusCode).toBe(401);
    const { token } = (await test.operator('POST', '/v1/tokens', { role: 'metrics', name: 'Prometheus' })).json<{
      token: string;
    }>();
    expect((await test.as(token)('GET', '/metrics', undefined, proxied)).statusCode).toBe(200);
    expect((await acme('GET', '/metrics', undefined, proxied)).statusCode).toBe(403);
  });

  it('logs one line for each request, without query or credentials', async () => {
    const before = test.logged.length;
    const response = await acme('POST', '/v1/resize?width=3&height=1', PNG, { 'content-type': 'image/png' });
    expect(test.logged.slice(before)).toEqual([
      expect.objectContaining({
        requestId: response.headers['waggle-request-id'],
        method: 'POST',
        route: '/v1/resize',
        status: 200,
        code: null,
        customer: 'acme',
        ms: expect.any(Number) as number,
      }),
    ]);
    const all = JSON.stringify(test.logged);
    for (const secret of ['width=3', 'Bearer', 'wgl_', OPERATOR_TOKEN]) expect(all).not.toContain(secret);
  });
});
