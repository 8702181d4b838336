import * as Automerge from '@automerge/automerge';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, present, seededRandom } from '@waggle/protocol/base';
import { CHANGES_MAX, GENESIS_CHANGE, PRESETS_MAX } from '../src/documents.ts';
import { codeOf, TestNode, type Folded } from './support.ts';

const exchange = (a: TestNode, b: TestNode): void => {
  a.take(b.written);
  b.take(a.written);
};
const pair = (): [TestNode, TestNode] => {
  const [a, b] = [new TestNode('a'), new TestNode('b')];
  a.customer('acme');
  exchange(a, b);
  return [a, b];
};
const accounts = (...nodes: TestNode[]): unknown[] => nodes.map(({ identity }) => identity.getAccount('acme'));

describe('customer documents', () => {
  it('begin with a change that is the same everywhere, for ever', () => {
    type Doc = { profile: object; presets: object };
    const made = Automerge.change(Automerge.init<Doc>({ actor: '00'.repeat(16) }), { time: 0 }, (doc) => {
      doc.profile = {};
      doc.presets = {};
    });
    expect(Automerge.getLastLocalChange(made)).toEqual(GENESIS_CHANGE);
  });

  it('hold presets and a profile', () => {
    const [a] = pair();
    const { identity, context } = a;
    expect(identity.getAccount('acme')).toEqual({ profile: {}, presets: {} });
    a.do(identity.putPreset(context, 'acme', 'thumb', { width: '100', format: 'webp' }));
    a.do(identity.putPreset(context, 'acme', 'constructor', { width: '1' }));
    a.do(identity.patchProfile(context, 'acme', { company: 'Acme', note: 'ünïcode 🐝' }));
    expect(identity.getAccount('acme')).toEqual({
      profile: { company: 'Acme', note: 'ünïcode 🐝' },
      presets: { constructor: { width: '1' }, thumb: { format: 'webp', width: '100' } },
    });
    expect(identity.preset('acme' as never, 'thumb')).toEqual({ format: 'webp', width: '100' });
    expect(identity.preset('acme' as never, 'toString')).toBeUndefined();
    expect(identity.putPreset(context, 'acme', 'thumb', { format: 'webp', width: '100' })).toEqual([]);
    a.do(identity.putPreset(context, 'acme', 'thumb', { height: '5' }));
    a.do(identity.patchProfile(context, 'acme', { note: null, absent: null }));
    a.do(identity.deletePreset(context, 'acme', 'constructor'));
    expect(identity.deletePreset(context, 'acme', 'constructor')).toEqual([]);
    expect(identity.getAccount('acme')).toEqual({ profile: { company: 'Acme' }, presets: { thumb: { height: '5' } } });
    expect(codeOf(() => identity.getAccount('nobody'))).toBe('CUSTOMER_UNKNOWN');
  });

  it('merge what two nodes that start them did concurrently', () => {
    const [a, b] = pair();
    a.do(a.identity.putPreset(a.context, 'acme', 'small', { width: '10' }));
    a.do(a.identity.patchProfile(a.context, 'acme', { company: 'Acme' }));
    b.do(b.identity.putPreset(b.context, 'acme', 'large', { width: '1000' }));
    b.do(b.identity.patchProfile(b.context, 'acme', { city: 'Bern' }));
    exchange(a, b);
    const merged = {
      profile: { city: 'Bern', company: 'Acme' },
      presets: { large: { width: '1000' }, small: { width: '10' } },
    };
    expect(accounts(a, b)).toEqual([merged, merged]);
    // One preset under one name stands as a whole, the same at both.
    a.do(a.identity.putPreset(a.context, 'acme', 'small', { width: '11' }));
    b.do(b.identity.putPreset(b.context, 'acme', 'small', { height: '12', format: 'avif' }));
    exchange(a, b);
    const [atA, atB] = accounts(a, b) as [{ presets: Record<string, unknown> }, unknown];
    expect(atA).toEqual(atB);
    expect([{ width: '11' }, { height: '12', format: 'avif' }]).toContainEqual(atA.presets['small']);
  });

  it('are the same whatever the order and number of arrivals', () => {
    const [a, b] = pair();
    for (let i = 0; i < 12; i++) {
      const node = i % 3 === 0 ? b : a;
      node.do(node.identity.putPreset(node.context, 'acme', `p${i % 5}`, { width: `${i + 1}` }));
      if (i % 4 === 0) exchange(a, b);
      if (i % 5 === 0) node.do(node.identity.deletePreset(node.context, 'acme', `p${(i + 3) % 5}`));
    }
    exchange(a, b);
    const written = [...a.written, ...b.written];
    const shuffled = fc.shuffledSubarray([...written, ...written], { minLength: written.length * 2 });
    fc.assert(
      fc.property(shuffled, (order: Folded[]) => {
        const c = new TestNode('c').take(order);
        expect(accounts(c)).toEqual(accounts(a));
        expect(c.identity.refused).toBe(0);
      }),
      { numRuns: 25 },
    );
  });

  it('go on after a restart, as another actor', () => {
    const a = new TestNode('a');
    a.customer('acme');
    a.do(a.identity.putPreset(a.context, 'acme', 'one', { width: '1' }));
    const again = new TestNode('a', {}, 2).take(a.written);
    again.written.push(...a.written);
    again.do(again.identity.putPreset(again.context, 'acme', 'two', { width: '2' }));
    expect(Object.keys(again.identity.getAccount('acme').presets)).toEqual(['one', 'two']);
    expect(again.written.map(({ register }) => register.key).filter((key) => key.startsWith('doc/'))).toEqual([
      'doc/acme/0/1',
      'doc/acme/0/2',
    ]);
  });

  it('lose nothing if a write fails: the change has not happened', () => {
    const [a, b] = pair();
    a.identity.putPreset(a.context, 'acme', 'lost', { width: '1' });
    expect(accounts(a)).toEqual([{ profile: {}, presets: {} }]);
    a.do(a.identity.putPreset(a.context, 'acme', 'kept', { width: '2' }));
    exchange(a, b);
    expect(accounts(a, b).map((account) => (account as { presets: object }).presets)).toEqual([
      { kept: { width: '2' } },
      { kept: { width: '2' } },
    ]);
  });

  it('leave out changes that are malformed or not their writer’s own', () => {
    const [a, b] = pair();
    a.do(a.identity.putPreset(a.context, 'acme', 'thumb', { width: '1' }));
    const change = a.written.find(({ register }) => register.key.startsWith('doc/'))!;
    const forged = [
      { replica: b.replica, register: { ...change.register, key: 'doc/acme/0/1' } },
      {
        replica: b.replica,
        register: { key: 'doc/acme/0/2', version: 9, value: JSON.stringify(base64.encode(new Uint8Array(50))) },
      },
      { replica: b.replica, register: { key: 'doc/acme/0/3', version: 10, value: JSON.stringify('AA') } },
    ];
    const c = new TestNode('c').take([...a.written, ...forged]);
    expect(accounts(c)).toEqual(accounts(a));
    expect(c.identity.refused).toBe(3);
    for (const [key, value] of [
      ['doc/acme/0/0', change.register.value],
      ['doc/acme/00/1', change.register.value],
      ['doc/acme/0/1/2', change.register.value],
      ['doc/acme/0', change.register.value],
      ['doc/a cme/0/1', change.register.value],
      ['doc/acme/0/7', '{}'],
      ['doc/acme/0/7', '"not base64!"'],
      ['doc/acme/0/7', `"${'A'.repeat(100_000)}"`],
    ] as const) {
      const before = c.identity.refused;
      c.identity.fold(b.replica, { key, version: 11, value }, c.nowMs);
      expect(c.identity.refused).toBe(before + 1);
    }
  });

  it('keep the same one of two changes that claim one place in their actor’s history, at every node', () => {
    const [a] = pair();
    const key = (n: number): string => `doc/acme/0/${n}`;
    // As a process would that lost its memory but not its run.
    const both = ['one', 'two'].map((name, i) => {
      const { value } = present(a.identity.putPreset(a.context, 'acme', name, { width: '1' })[0], 'the change');
      return { replica: a.replica, register: { key: key(i + 1), version: 100 + i, value } };
    });
    const readers = [both, both.toReversed()].map((order, i) =>
      new TestNode(`reader ${i}`).take([...a.written, ...order]),
    );
    const one = { profile: {}, presets: { one: { width: '1' } } };
    expect(accounts(...readers)).toEqual([one, one]);
    expect(readers.map(({ identity }) => identity.refused)).toEqual([1, 1]);
  });

  it('are bounded', () => {
    const [a] = pair();
    const { identity, context } = a;
    const codes = [
      () => identity.putPreset(context, 'acme', '', {}),
      () => identity.putPreset(context, 'acme', '__proto__', {}),
      () => identity.putPreset(context, 'acme', 'x'.repeat(65), {}),
      () => identity.putPreset(context, 'acme', 'x', { width: 'x'.repeat(3_000) }),
      () => identity.putPreset(context, 'acme', 'x', { width: 5 as never }),
      () => identity.putPreset(context, 'acme', 'x', { width: '\ud800' }),
      () => identity.patchProfile(context, 'acme', { note: 'x'.repeat(16 * 1024) }),
    ].map((change) => codeOf(change));
    expect(new Set(codes)).toEqual(new Set(['REQUEST_INVALID']));
    const many = (count: number): Record<string, string> =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`field-${i}`, '…'.repeat(50)]));
    expect(codeOf(() => identity.patchProfile(context, 'acme', many(101)))).toBe('REQUEST_INVALID');
    a.do(identity.patchProfile(context, 'acme', many(100)));
    expect(identity.getAccount('acme').profile).toEqual(many(100));
    // A whole profile at its bound, of text that does not compress, in one change.
    const nulls = Object.fromEntries(Object.keys(many(100)).map((name) => [name, null]));
    const random = seededRandom(1);
    const note = base64.encode(random.bytes(12_285));
    a.do(identity.patchProfile(context, 'acme', { ...nulls, note }));
    expect(identity.getAccount('acme').profile).toEqual({ note });
    for (let i = 0; i < PRESETS_MAX; i++) a.do(identity.putPreset(context, 'acme', `p${i}`, { width: '1' }));
    expect(codeOf(() => identity.putPreset(context, 'acme', 'more', {}))).toBe('REQUEST_INVALID');
    expect(codeOf(() => identity.putPreset(context, 'acme', 'p5', { width: '2' }))).toBe('none');
    const known = a.written.filter(({ register }) => register.key.startsWith('doc/'));
    for (let i = known.length + 1; i <= CHANGES_MAX; i++)
      identity.fold(
        a.replica,
        { key: `doc/acme/0/${i}`, version: 10_000 + i, value: known[1]!.register.value },
        a.nowMs,
      );
    expect(codeOf(() => identity.putPreset(context, 'acme', 'p5', { width: '2' }))).toBe('REQUEST_INVALID');
  });

  it('are read for any number of customers', () => {
    const node = new TestNode('a');
    const ids = Array.from({ length: 1_030 }, (_, i) => `c${i}`);
    for (const id of ids) {
      node.do(node.identity.createCustomer(node.context, { id, name: id }));
      node.do(node.identity.putPreset(node.context, id, 'p', { width: id }));
    }
    for (const id of [...ids, 'c0']) expect(node.identity.getAccount(id).presets).toEqual({ p: { width: id } });
  });
});
