import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { present, seededRandom, WaggleError, type ReplicaId } from '@waggle/protocol/base';
import type { Write } from '../src/index.ts';
import { codeOf, START_MS, TestNode, type Folded } from './support.ts';

const IDS = ['acme', 'bees', 'cats'];
const LIMIT_FIELDS = ['framesMax', 'deadlineMs'];

interface History {
  readonly written: Folded[];
  readonly keys: string[];
}

/** What three nodes wrote that did all kinds of things, concurrently, now and then exchanging what they have. */
function history(seed: number, steps: number): History {
  const random = seededRandom(seed);
  const pick = <T>(from: readonly T[]): T | undefined => from[random.below(from.length || 1)];
  const one = <T>(from: readonly T[]): T => present(pick(from), 'one of some');
  const nodes = ['x', 'y', 'z'].map((name) => new TestNode(`${name}${seed}`));
  const keys: string[] = [];
  for (let i = 0; i < steps; i++) {
    const node = one(nodes);
    const { identity } = node;
    node.nowMs += random.below(100);
    const id = one(IDS);
    const commands: readonly (() => Write[] | { readonly writes: Write[]; readonly key?: string })[] = [
      () =>
        identity.createCustomer(node.context, {
          id,
          name: `${id} by ${node.replica}`,
          limits: { framesMax: 1 + random.below(9) },
        }),
      () => identity.issueKey(node.context, id),
      () => identity.issueKey(node.context, id, ['read']),
      () => identity.revokeKey(node.context, id, pick(identity.listKeys(id))?.id ?? 'none'),
      () => identity.rename(node.context, id, `name ${random.below(4)}`),
      () =>
        identity.setLimits(node.context, id, {
          [one(LIMIT_FIELDS)]: random.below(3) === 0 ? null : 100 + random.below(9),
        }),
      () => identity.suspend(node.context, id),
      () => identity.resume(node.context, id),
      () => (random.below(4) === 0 ? identity.deleteCustomer(node.context, id) : []),
      () => identity.putPreset(node.context, id, `p${random.below(3)}`, { width: `${1 + random.below(9)}` }),
      () => identity.deletePreset(node.context, id, `p${random.below(3)}`),
      () => identity.patchProfile(node.context, id, { note: `${random.below(9)}` }),
      () => identity.createToken(node.context, { role: one(['operator', 'auditor']), name: 'token' }),
      () => identity.revokeToken(node.context, pick(identity.listTokens())?.id ?? 'none'),
    ];
    try {
      const change = node.do(one(commands)());
      if (!Array.isArray(change) && 'key' in change) keys.push(change.key);
    } catch (error) {
      // Refused here and now: no customer yet, no key, the last token.
      if (!(error instanceof WaggleError)) throw error;
    }
    if (random.below(5) === 0) node.take(one(nodes).written);
  }
  return { written: nodes.flatMap((node) => node.written), keys };
}

/** Everything that can be seen of identity. */
function views({ identity }: TestNode, keys: readonly string[]): unknown {
  const customers = identity.listCustomers({ limit: 100 });
  return {
    customers,
    keys: customers.map(({ id }) => identity.listKeys(id)),
    accounts: customers.map(({ id }) => identity.getAccount(id)),
    tokens: identity.listTokens(),
    audit: identity.audit({ limit: 1_000 }),
    allowed: keys.map((key) => codeOf(() => identity.authenticate(key))),
    refused: identity.refused,
  };
}

/** The last register of each key of each replica: what a lattice holds. */
const coalesced = (written: readonly Folded[]): Folded[] => [
  ...new Map(written.map((folded) => [`${folded.replica}/${folded.register.key}`, folded])).values(),
];

describe('the fold', () => {
  it('gives the same views in any order, with repetitions, and of what the lattice still holds', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), fc.integer(), (seed, shuffle) => {
        const { written, keys } = history(seed, 80);
        const random = seededRandom(shuffle);
        const order = [...written, ...written.filter(() => random.below(2) === 0)]
          .map((folded) => ({ folded, at: random.below(2 ** 32) }))
          .toSorted((a, b) => a.at - b.at)
          .map(({ folded }) => folded);
        const late = START_MS + 3_600_000;
        const nodes = [written, order, coalesced(written)].map((registers) => {
          const node = new TestNode('reader');
          node.nowMs = late;
          return node.take(registers);
        });
        const [plain, shuffled, held] = nodes.map((node) => views(node, keys));
        expect(shuffled).toEqual(plain);
        expect(held).toEqual(plain);
        expect(plain).toMatchObject({ refused: 0 });
      }),
      { numRuns: 60 },
    );
  });

  it('never lets a revoked key or a key of a deleted customer in, at any moment of any order (invariant 10)', () => {
    let met = 0;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), (seed) => {
        const { written, keys } = history(seed, 60);
        const random = seededRandom(seed);
        const node = new TestNode('reader');
        const gone = new Set<string>();
        const order = written.map((folded) => ({ folded, at: random.below(2 ** 32) })).toSorted((a, b) => a.at - b.at);
        const customerOf = new Map(
          written.flatMap(({ register: { key, value } }) =>
            key.startsWith('fact/key/')
              ? [[key.slice(9), (JSON.parse(value) as { customer: string }).customer] as const]
              : [],
          ),
        );
        for (const { folded } of order) {
          node.take([folded]);
          const { key } = folded.register;
          if (/^fact\/(key-revoked|customer-deleted)\//.test(key)) gone.add(key.slice(key.lastIndexOf('/') + 1));
          for (const text of keys) {
            const id = text.slice(4, 16);
            if (!gone.has(id) && !gone.has(customerOf.get(id)!)) continue;
            met++;
            expect(['KEY_REVOKED', 'CUSTOMER_DELETED', 'KEY_UNKNOWN']).toContain(
              codeOf(() => node.identity.authenticate(text)),
            );
          }
        }
      }),
      { numRuns: 40 },
    );
    expect(met).toBeGreaterThan(100);
  });

  const KINDS = [
    'fact/customer/acme',
    'fact/customer-deleted/acme',
    'fact/key/0123456789AB',
    'fact/key-revoked/0123456789AB',
    'fact/token/0123456789AB',
    'fact/token-revoked/0123456789AB',
    'fact/audit/0123456789abcdef-01234567',
    'status/acme',
    'lww/customer/acme/name',
    'lww/customer/acme/limit.framesMax',
    'doc/acme/0/1',
  ];
  const fields = fc.constantFrom(
    'id',
    'name',
    'customer',
    'createdMs',
    'scopes',
    'hash',
    'urlKey',
    'role',
    'generation',
    'status',
    'hlc',
    'value',
    'atMs',
    'actor',
    'limits',
    '__proto__',
  );
  const values = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .dictionary(
        fields,
        fc.oneof(fc.jsonValue(), fc.constantFrom('acme', 'active', 'operator', '0123456789abcdef', -1, 2 ** 60)),
      )
      .map((value) => JSON.stringify(value)),
  );

  it('never throws for what a register holds, and goes on', () => {
    const node = new TestNode('reader');
    const key = node.customer('real');
    const replica = 'f'.repeat(32) as ReplicaId;
    const keys = fc.oneof(
      fc.constantFrom(...KINDS),
      fc.string(),
      fc.tuple(fc.constantFrom(...KINDS), fc.string()).map(([kind, more]) => kind + more),
    );
    fc.assert(
      fc.property(keys, values, fc.nat(), (registerKey, value, version) => {
        node.identity.fold(replica, { key: registerKey, version: version + 1, value }, node.nowMs);
      }),
      { numRuns: 5_000 },
    );
    expect(node.identity.refused).toBeGreaterThan(1_000);
    expect(node.identity.authenticate(key)).toMatchObject({ customer: 'real' });
    for (const { id } of node.identity.listCustomers({ limit: 1_000 })) {
      node.identity.listKeys(id);
      node.identity.getAccount(id);
    }
    node.identity.audit({ limit: 1_000 });
    node.identity.listTokens();
    node.identity.tick(node.nowMs + 1);
  });

  it('survives mutations of good registers', () => {
    const { written } = history(7, 80);
    fc.assert(
      fc.property(
        fc.nat(),
        fc.nat(),
        fc.nat({ max: 3 }),
        fc.string({ minLength: 1, maxLength: 1 }),
        (which, where, cut, other) => {
          const { replica, register } = written[which % written.length]!;
          const at = where % register.value.length;
          const value = register.value.slice(0, at) + other + register.value.slice(at + cut);
          const node = new TestNode('reader').take(written.slice(0, 40));
          node.identity.fold(replica, { ...register, value }, node.nowMs);
          views(node, []);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('leaves registers of other kinds alone', () => {
    const node = new TestNode('reader');
    for (const key of [
      'node/self',
      'roster/x/admit',
      'close/7',
      'lww/settings/x',
      'fact/other/x',
      'fact',
      'constructor',
      '',
    ])
      node.identity.fold('f'.repeat(32) as ReplicaId, { key, version: 1, value: 'not even JSON' }, node.nowMs);
    expect([node.identity.refused, node.identity.customers]).toEqual([0, 0]);
  });
});
