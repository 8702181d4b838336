import { timingSafeEqual } from 'node:crypto';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { base64, seededRandom, utf8, type CustomerId, type ReplicaId, type WaggleError } from '@waggle/protocol/base';
import { credentialHash, makeCredential } from '../src/credentials.ts';
import { actorOf, authorize, authorizeCustomer } from '../src/index.ts';
import { codeOf, nodeCrypto, START_MS, TestNode } from './support.ts';

vi.mock('node:crypto', async (original) => {
  const actual = await original<{ timingSafeEqual: typeof timingSafeEqual }>();
  return { ...actual, timingSafeEqual: vi.fn(actual.timingSafeEqual) };
});

/** A key with the id of another, its own secret and a right checksum. */
function withIdOf(key: string): string {
  const digits = Array.from(key.slice(4, 16), (digit) =>
    '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'.indexOf(digit),
  );
  const random = seededRandom(99);
  return makeCredential('wgl', { below: () => digits.shift()!, bytes: (length) => random.bytes(length) }).text;
}

describe('authentication', () => {
  beforeEach(() => {
    vi.mocked(timingSafeEqual).mockClear();
  });

  it('knows a customer by its key and a token by its role', () => {
    const node = new TestNode('a');
    const key = node.customer('acme');
    expect(node.identity.authenticate(key)).toEqual({
      kind: 'customer',
      customer: 'acme',
      keyId: key.slice(4, 16),
      scopes: ['resize', 'read'],
    });
    const { id, token } = node.do(node.identity.createToken(node.context, { role: 'auditor', name: 'KPMG' }));
    expect(node.identity.authenticate(token)).toEqual({ kind: 'token', id, role: 'auditor', name: 'KPMG' });
  });

  it('compares in constant time, for a known id with a wrong secret as for an unknown id, with one answer', () => {
    const node = new TestNode('a');
    const key = node.customer('acme');
    const answers = [withIdOf(key), makeCredential('wgl', seededRandom(5)).text].map((text) => {
      vi.mocked(timingSafeEqual).mockClear();
      let error: WaggleError | undefined;
      try {
        node.identity.authenticate(text);
      } catch (caught) {
        error = caught as WaggleError;
      }
      expect(timingSafeEqual).toHaveBeenCalledTimes(1);
      return [error?.code, error?.message];
    });
    expect(answers[0]![0]).toBe('KEY_UNKNOWN');
    expect(answers[0]).toEqual(answers[1]);
    node.identity.authenticate(key);
    expect(timingSafeEqual).toHaveBeenCalledTimes(2);
  });

  it('says by code why it refuses', () => {
    const node = new TestNode('a');
    const { identity, context } = node;
    const [revoked, suspended, deleted] = ['revoked', 'suspended', 'deleted'].map((id) => node.customer(id)) as [
      string,
      string,
      string,
    ];
    node.do(identity.revokeKey(context, 'revoked', revoked.slice(4, 16)));
    node.do(identity.suspend(context, 'suspended'));
    node.do(identity.deleteCustomer(context, 'deleted'));
    expect(codeOf(() => identity.authenticate(undefined))).toBe('KEY_MISSING');
    expect(codeOf(() => identity.authenticate(''))).toBe('KEY_MISSING');
    expect(codeOf(() => identity.authenticate('nonsense'))).toBe('KEY_MALFORMED');
    expect(codeOf(() => identity.authenticate('a token that is unknown'.replaceAll(' ', '-')))).toBe('KEY_UNKNOWN');
    expect(codeOf(() => identity.authenticate(revoked))).toBe('KEY_REVOKED');
    expect(codeOf(() => identity.authenticate(suspended))).toBe('CUSTOMER_SUSPENDED');
    expect(codeOf(() => identity.authenticate(deleted))).toBe('CUSTOMER_DELETED');
    expect(codeOf(() => identity.urlKey(revoked.slice(4, 16)))).toBe('KEY_REVOKED');
    // A wrong secret learns nothing of the key's fate.
    expect(codeOf(() => identity.authenticate(withIdOf(revoked)))).toBe('KEY_UNKNOWN');
  });

  it('has the public key of signed URLs, whose secret half the key text gives', async () => {
    const { urlKeySeed } = await import('../src/index.ts');
    const { signerFromSeed } = await import('./support.ts');
    const node = new TestNode('a');
    const key = node.customer('acme');
    const signer = signerFromSeed(urlKeySeed(nodeCrypto, key));
    const { principal, publicKey } = node.identity.urlKey(key.slice(4, 16));
    expect(principal).toMatchObject({ customer: 'acme', keyId: key.slice(4, 16) });
    expect(nodeCrypto.ed25519Verify(publicKey, utf8('a url'), signer.sign(utf8('a url')))).toBe(true);
    expect(codeOf(() => node.identity.urlKey('000000000000'))).toBe('KEY_UNKNOWN');
  });

  it('waits for the customer of a key that has overtaken it', () => {
    const [a, b] = [new TestNode('a'), new TestNode('b')];
    const key = a.customer('acme');
    const [late, early] = [a.written.slice(0, 1), a.written.slice(1)];
    b.take(early);
    expect(codeOf(() => b.identity.authenticate(key))).toBe('KEY_UNKNOWN');
    expect(b.identity.listCustomers({ limit: 10 })).toEqual([]);
    b.take(late);
    expect(b.identity.authenticate(key)).toMatchObject({ customer: 'acme' });
  });

  it('serves 100 000 customers', () => {
    const node = new TestNode('a');
    const replica = '0'.repeat(32) as ReplicaId;
    const random = seededRandom(3);
    const keys: string[] = [];
    let version = 0;
    for (let i = 0; i < 100_000; i++) {
      const id = `c${i}`;
      const { id: keyId, text } = makeCredential('wgl', random);
      const hash = base64.encode(credentialHash(nodeCrypto, text));
      const customer = JSON.stringify({ id, name: id, createdMs: START_MS });
      const key = JSON.stringify({ customer: id, hash, urlKey: hash, scopes: ['resize'], createdMs: START_MS });
      node.identity.fold(replica, { key: `fact/customer/${id}`, version: ++version, value: customer }, START_MS);
      node.identity.fold(replica, { key: `fact/key/${keyId}`, version: ++version, value: key }, START_MS);
      keys.push(text);
    }
    expect([node.identity.customers, node.identity.refused]).toEqual([100_000, 0]);
    for (let i = 0; i < 100_000; i += 97)
      expect(node.identity.authenticate(keys[i])).toMatchObject({ customer: `c${i}`, scopes: ['resize'] });
    node.do(node.identity.deleteCustomer(node.context, 'c500'));
    expect(codeOf(() => node.identity.authenticate(keys[500]))).toBe('CUSTOMER_DELETED');
    expect(node.identity.listKeys('c501').map(({ id }) => id)).toEqual([keys[501]!.slice(4, 16)]);
    expect(node.identity.limits('c99999' as CustomerId).framesMax).toBeGreaterThan(0);
  });
});

describe('authorization', () => {
  it('gives a token its own role, and an operator every role', () => {
    const token = (role: 'operator' | 'auditor' | 'metrics') => ({ kind: 'token', id: 'i', role, name: 'n' }) as never;
    const key = { kind: 'customer', customer: 'acme', keyId: 'k', scopes: ['read'] } as never;
    for (const role of ['operator', 'auditor', 'metrics'] as const)
      for (const asked of ['operator', 'auditor', 'metrics'] as const)
        expect(codeOf(() => authorize(token(role), asked))).toBe(
          role === asked || role === 'operator' ? 'none' : 'ROLE_REQUIRED',
        );
    expect(codeOf(() => authorize(key, 'metrics'))).toBe('ROLE_REQUIRED');
    expect(authorizeCustomer(key, 'read')).toBe('acme');
    expect(codeOf(() => authorizeCustomer(key, 'resize'))).toBe('ROLE_REQUIRED');
    expect(codeOf(() => authorizeCustomer(token('operator'), 'read'))).toBe('ROLE_REQUIRED');
    expect([actorOf(key), actorOf(token('auditor'))]).toEqual([
      { credential: 'k', role: 'customer' },
      { credential: 'i', role: 'auditor' },
    ]);
  });
});
