import { describe, expect, it } from 'vitest';
import type { CustomerId, ReplicaId } from '@waggle/protocol/base';
import { LIMIT_DEFAULTS } from '../src/index.ts';
import { codeOf, START_MS, TestNode } from './support.ts';

const exchange = (a: TestNode, b: TestNode): void => {
  a.take(b.written);
  b.take(a.written);
};

describe('customers', () => {
  it('are created, listed by id page by page, and shown as the API promises', () => {
    const node = new TestNode('a', { framesMax: 7 });
    for (const id of ['c', 'a', 'b'])
      node.do(node.identity.createCustomer(node.context, { id, name: `Customer ${id}` }));
    expect(node.identity.getCustomer('a')).toEqual({
      id: 'a',
      name: 'Customer a',
      status: 'active',
      limits: { ...LIMIT_DEFAULTS, framesMax: 7 },
      createdAt: '2026-01-01T00:00:00.000Z',
    });
    expect(node.identity.listCustomers({ limit: 2 }).map(({ id }) => id)).toEqual(['a', 'b']);
    node.do(node.identity.createCustomer(node.context, { id: 'bb', name: 'late' }));
    expect(node.identity.listCustomers({ limit: 2, after: 'b' }).map(({ id }) => id)).toEqual(['bb', 'c']);
    expect(codeOf(() => node.identity.listCustomers({ limit: 0 }))).toBe('REQUEST_INVALID');
    expect(codeOf(() => node.identity.getCustomer('nobody'))).toBe('CUSTOMER_UNKNOWN');
    expect(node.do(node.identity.createCustomer(node.context, { name: 'made' })).id).toMatch(/^cus_[0-9A-Za-z]{16}$/);
  });

  it('are created once: the same values again change nothing, other values are an error', () => {
    const a = new TestNode('a');
    const input = { id: 'acme', name: 'Acme', limits: { framesMax: 3 } };
    expect(a.do(a.identity.createCustomer(a.context, input)).writes).toHaveLength(2);
    expect(a.identity.createCustomer(a.context, input)).toEqual({ id: 'acme', writes: [] });
    expect(a.identity.createCustomer(a.context, { id: 'acme', name: 'Acme' }).writes).toEqual([]);
    expect(codeOf(() => a.identity.createCustomer(a.context, { ...input, name: 'Other' }))).toBe('CUSTOMER_EXISTS');
    expect(codeOf(() => a.identity.createCustomer(a.context, { ...input, limits: { framesMax: 4 } }))).toBe(
      'CUSTOMER_EXISTS',
    );
    a.do(a.identity.deleteCustomer(a.context, 'acme'));
    expect(codeOf(() => a.identity.createCustomer(a.context, input))).toBe('CUSTOMER_DELETED');
  });

  it('created at two nodes under one id are one, the earlier, at both', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    b.nowMs += 1;
    b.do(b.identity.createCustomer(b.context, { id: 'acme', name: 'at b' }));
    a.do(a.identity.createCustomer(a.context, { id: 'acme', name: 'at a' }));
    exchange(a, b);
    expect([a, b].map(({ identity }) => identity.getCustomer('acme').name)).toEqual(['at a', 'at a']);
  });

  it('created at two nodes in one millisecond are the one of the lower replica, limits and all, whichever came first', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    for (const [node, framesMax] of [
      [a, 1],
      [b, 2],
    ] as const)
      node.do(node.identity.createCustomer(node.context, { id: 'acme', name: node.replica, limits: { framesMax } }));
    const lower = a.replica < b.replica ? { name: a.replica, framesMax: 1 } : { name: b.replica, framesMax: 2 };
    const seen = ({ identity }: TestNode): unknown => {
      const { name, limits } = identity.getCustomer('acme');
      return { name, framesMax: limits.framesMax };
    };
    expect([seen(a), seen(b)]).not.toEqual([lower, lower]);
    exchange(a, b);
    expect([seen(a), seen(b)]).toEqual([lower, lower]);
  });

  it('refuse what is not valid', () => {
    const node = new TestNode('a');
    for (const input of [
      { id: '', name: 'x' },
      { id: 'a/b', name: 'x' },
      { id: 'x'.repeat(65), name: 'x' },
      { name: '' },
      { name: 'a\nb' },
      { name: '\ud800' },
      { name: 'x'.repeat(129) },
      { name: 'x', limits: { framesMax: 0 } },
      { name: 'x', limits: { framesMax: 1.5 } },
      { name: 'x', limits: { nonsense: 1 } },
      { name: 'x', limits: { constructor: 1 } },
    ])
      expect(codeOf(() => node.identity.createCustomer(node.context, input))).toBe('REQUEST_INVALID');
  });

  it('have limits that merge field by field, and go back to the default', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    a.do(a.identity.createCustomer(a.context, { id: 'acme', name: 'Acme', limits: { deadlineMs: 500 } }));
    exchange(a, b);
    const limits = (): unknown[] => [a, b].map(({ identity }) => identity.limits('acme' as CustomerId));
    a.do(a.identity.setLimits(a.context, 'acme', { framesMax: 5 }));
    b.do(b.identity.setLimits(b.context, 'acme', { requestsPerSecond: 9, concurrentRequestsMax: 7 }));
    exchange(a, b);
    const merged = {
      ...LIMIT_DEFAULTS,
      deadlineMs: 500,
      framesMax: 5,
      requestsPerSecond: 9,
      concurrentRequestsMax: 7,
    };
    expect(limits()).toEqual([merged, merged]);
    b.do(b.identity.setLimits(b.context, 'acme', { deadlineMs: null, framesMax: null }));
    exchange(a, b);
    const back = { ...LIMIT_DEFAULTS, requestsPerSecond: 9, concurrentRequestsMax: 7 };
    expect(limits()).toEqual([back, back]);
    expect(b.identity.setLimits(b.context, 'acme', { deadlineMs: null, requestsPerSecond: 9 })).toEqual([]);
  });

  it('keep the last name, whose reading is above every one seen', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    a.nowMs += 30_000;
    a.do(a.identity.createCustomer(a.context, { id: 'acme', name: 'first' }));
    a.do(a.identity.rename(a.context, 'acme', 'second'));
    // Without the audit entries, which may come later.
    b.take(a.written.filter(({ register }) => !register.key.startsWith('fact/audit/')));
    // The clock of b is behind, and its change is the later one all the same.
    b.do(b.identity.rename(b.context, 'acme', 'third'));
    exchange(a, b);
    expect([a, b].map(({ identity }) => identity.getCustomer('acme').name)).toEqual(['third', 'third']);
  });

  it('take a field from a clock far ahead only when the local clock gets there', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    a.customer('acme');
    b.take(a.written);
    a.nowMs += 3_600_000;
    a.do(a.identity.rename(a.context, 'acme', 'from the future'));
    a.do(a.identity.setLimits(a.context, 'acme', { framesMax: 3 }));
    b.take(a.written);
    expect([b.identity.getCustomer('acme').name, b.identity.quarantined]).toEqual(['acme', 2]);
    b.do(b.identity.rename(b.context, 'acme', 'today'));
    expect(b.identity.getCustomer('acme').limits).toEqual(LIMIT_DEFAULTS);
    expect(b.identity.getCustomer('acme').name).toBe('today');
    b.identity.tick(START_MS + 3_600_000);
    expect([b.identity.getCustomer('acme').name, b.identity.quarantined]).toEqual(['from the future', 0]);
    expect(b.identity.getCustomer('acme').limits).toEqual({ ...LIMIT_DEFAULTS, framesMax: 3 });
  });

  it('are suspended by generation: suspended wins within one, the next one resumes', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    a.customer('acme');
    exchange(a, b);
    const statuses = (): string[] => [a, b].map(({ identity }) => identity.getCustomer('acme').status);
    a.do(a.identity.suspend(a.context, 'acme'));
    expect(a.identity.suspend(a.context, 'acme')).toEqual([]);
    expect(b.identity.resume(b.context, 'acme')).toEqual([]);
    exchange(a, b);
    expect(statuses()).toEqual(['suspended', 'suspended']);
    // One resumes what the other, concurrently, would suspend again: it still is suspended there, so nothing is written.
    a.do(a.identity.resume(a.context, 'acme'));
    expect(b.identity.suspend(b.context, 'acme')).toEqual([]);
    exchange(a, b);
    expect(statuses()).toEqual(['active', 'active']);
    // Both suspend, one resumes and suspends once more: the greater generation wins.
    a.do(a.identity.suspend(a.context, 'acme'));
    b.do(b.identity.suspend(b.context, 'acme'));
    b.do(b.identity.resume(b.context, 'acme'));
    exchange(a, b);
    expect(statuses()).toEqual(['active', 'active']);
    b.do(b.identity.suspend(b.context, 'acme'));
    exchange(a, b);
    expect(statuses()).toEqual(['suspended', 'suspended']);
  });

  it('stay listed when deleted, and cannot be changed any more', () => {
    const node = new TestNode('a');
    const { identity } = node;
    node.customer('acme');
    node.do(identity.deleteCustomer(node.context, 'acme'));
    expect(identity.deleteCustomer(node.context, 'acme')).toEqual([]);
    expect(identity.listCustomers({ limit: 5 })).toMatchObject([{ id: 'acme', status: 'deleted' }]);
    const { context } = node;
    for (const change of [
      () => identity.rename(context, 'acme', 'x'),
      () => identity.setLimits(context, 'acme', {}),
      () => identity.suspend(context, 'acme'),
      () => identity.resume(context, 'acme'),
      () => identity.issueKey(context, 'acme'),
      () => identity.putPreset(context, 'acme', 'x', {}),
    ])
      expect(codeOf(change)).toBe('CUSTOMER_DELETED');
  });
});

describe('keys', () => {
  it('are issued with scopes, listed, and revoked for ever', () => {
    const node = new TestNode('a');
    const { identity, context } = node;
    node.do(identity.createCustomer(context, { id: 'acme', name: 'Acme' }));
    node.do(identity.createCustomer(context, { id: 'other', name: 'Other' }));
    const { id, key, scopes } = node.do(identity.issueKey(context, 'acme', ['read']));
    expect([key.slice(4, 16), scopes]).toEqual([id, ['read']]);
    expect(identity.listKeys('acme')).toEqual([
      { id, scopes: ['read'], createdAt: '2026-01-01T00:00:00.000Z', revoked: false },
    ]);
    expect(codeOf(() => identity.revokeKey(context, 'other', id))).toBe('NOT_FOUND');
    expect(codeOf(() => identity.revokeKey(context, 'acme', '000000000000'))).toBe('NOT_FOUND');
    node.do(identity.revokeKey(context, 'acme', id));
    expect(identity.revokeKey(context, 'acme', id)).toEqual([]);
    expect(identity.listKeys('acme')).toMatchObject([{ id, revoked: true }]);
    for (const wrong of [[], ['write'], ['read', 'write']])
      expect(codeOf(() => identity.issueKey(context, 'acme', wrong))).toBe('REQUEST_INVALID');
  });

  it('leave no part of their secret in any register', () => {
    const node = new TestNode('a');
    const { identity } = node;
    const key = node.customer('acme');
    const { token } = node.do(
      identity.createToken(node.context, { role: 'operator', name: 'ops', text: 'a-token-of-my-own-choice' }),
    );
    const written = JSON.stringify(node.written);
    for (const secret of [key.slice(17), key.slice(17, 30), token]) expect(written).not.toContain(secret);
  });
});

describe('rotation', () => {
  it('never runs out: what was revoked does not count against the keys that a customer may have', () => {
    const node = new TestNode('a');
    node.do(node.identity.createCustomer(node.context, { id: 'acme', name: 'Acme' }));
    const ids = Array.from({ length: 1_000 }, () => node.do(node.identity.issueKey(node.context, 'acme')).id);
    expect(codeOf(() => node.identity.issueKey(node.context, 'acme'))).toBe('REQUEST_INVALID');
    node.do(node.identity.revokeKey(node.context, 'acme', ids[0]!));
    expect(node.do(node.identity.issueKey(node.context, 'acme')).id).toMatch(/^[0-9A-Za-z]{12}$/);
    expect(codeOf(() => node.identity.issueKey(node.context, 'acme'))).toBe('REQUEST_INVALID');
  });
});

describe('tokens', () => {
  it('are made or brought, and listed', () => {
    const node = new TestNode('a');
    const { identity, context } = node;
    const made = node.do(identity.createToken(context, { role: 'metrics', name: 'Prometheus' }));
    const own = { role: 'operator', name: 'ops', text: 'a-token-of-my-own-choice' };
    const brought = node.do(identity.createToken(context, own));
    expect(brought.token).toBe(own.text);
    expect(identity.createToken(context, own)).toMatchObject({ id: brought.id, writes: [] });
    expect(identity.authenticate(own.text)).toEqual({ kind: 'token', id: brought.id, role: 'operator', name: 'ops' });
    expect(
      identity
        .listTokens()
        .map(({ id, role }) => `${id} ${role}`)
        .toSorted(),
    ).toEqual([`${made.id} metrics`, `${brought.id} operator`].toSorted());
    expect(codeOf(() => identity.createToken(context, { ...own, role: 'auditor' }))).toBe('REQUEST_INVALID');
    expect(codeOf(() => identity.createToken(context, { ...own, text: 'too short' }))).toBe('REQUEST_INVALID');
    expect(codeOf(() => identity.createToken(context, { role: 'king', name: 'x' }))).toBe('REQUEST_INVALID');
  });

  it('are revoked for ever, but not the last operator token', () => {
    const node = new TestNode('a');
    const { identity, context } = node;
    const own = { role: 'operator', name: 'ops', text: 'a-token-of-my-own-choice' };
    const first = node.do(identity.createToken(context, own)).id;
    node.do(identity.createToken(context, { role: 'auditor', name: 'auditor' }));
    expect(codeOf(() => identity.revokeToken(context, first))).toBe('REQUEST_INVALID');
    const second = node.do(identity.createToken(context, { role: 'operator', name: 'second' })).id;
    node.do(identity.revokeToken(context, first));
    expect(identity.revokeToken(context, first)).toEqual([]);
    expect(codeOf(() => identity.authenticate(own.text))).toBe('KEY_REVOKED');
    expect(codeOf(() => identity.createToken(context, own))).toBe('KEY_REVOKED');
    expect(codeOf(() => identity.revokeToken(context, second))).toBe('REQUEST_INVALID');
    expect(codeOf(() => identity.revokeToken(context, 'unknown'))).toBe('NOT_FOUND');
  });
});

describe('the audit log', () => {
  it('says who changed what where and when, newest first, page by page', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    a.customer('acme');
    b.nowMs += 10;
    b.take(a.written);
    b.do(
      b.identity.setLimits({ ...b.context, actor: { credential: 'tok', role: 'operator' } }, 'acme', { framesMax: 2 }),
    );
    a.take(b.written);
    const entries = a.identity.audit({ limit: 10 });
    expect(entries.map(({ action }) => action)).toEqual(['customer.limits', 'key.issue', 'customer.create']);
    expect(entries[0]).toMatchObject({
      atMs: START_MS + 10,
      actor: { credential: 'tok', role: 'operator' },
      node: b.replica,
      target: 'acme',
      details: { 'limit.framesMax': 2 },
    });
    expect(b.identity.audit({ limit: 10 })).toEqual(entries);
    expect(a.identity.audit({ limit: 1 })).toEqual(entries.slice(0, 1));
    expect(a.identity.audit({ limit: 5, after: entries[0]!.id })).toEqual(entries.slice(1));
    expect(codeOf(() => a.identity.audit({ limit: 1_001 }))).toBe('REQUEST_INVALID');
  });

  it('leaves out what is not an entry', () => {
    const node = new TestNode('a');
    const replica = 'f'.repeat(32) as ReplicaId;
    const ids = Array.from({ length: 5 }, (_, i) => `0000000000000${i}00-01234567`);
    for (const [i, id] of ids.entries()) {
      const entry = {
        atMs: i,
        actor: { credential: 'x', role: 'operator' },
        node: replica,
        action: 'x',
        target: 'x',
        details: i,
      };
      const value = i === 0 || i === 4 ? JSON.stringify(entry) : ['{}', 'not JSON', '[1]'][i - 1]!;
      node.identity.fold(replica, { key: `fact/audit/${id}`, version: i + 1, value }, node.nowMs);
    }
    expect(node.identity.audit({ limit: 2 }).map(({ details }) => details)).toEqual([4, 0]);
    expect(node.identity.audit({ limit: 1, after: ids[4]! }).map(({ details }) => details)).toEqual([0]);
  });

  it('has one entry for every change that is not none', () => {
    const node = new TestNode('a');
    const { identity, context } = node;
    node.customer('acme');
    const changes = [
      identity.rename(context, 'acme', 'New'),
      identity.setLimits(context, 'acme', { framesMax: 2, deadlineMs: 100 }),
      identity.suspend(context, 'acme'),
      identity.deleteCustomer(context, 'acme'),
      identity.putPreset(context, 'acme', 'thumb', { width: '10' }),
      identity.patchProfile(context, 'acme', { site: 'https://acme.test' }),
      identity.createToken(context, { role: 'operator', name: 'ops' }).writes,
    ];
    for (const writes of changes) expect(writes.filter(({ key }) => key.startsWith('fact/audit/'))).toHaveLength(1);
    expect(identity.rename(context, 'acme', 'acme')).toEqual([]);
  });
});
