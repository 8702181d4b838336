import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, hex, utf8, type ReplicaId } from '../../src/base/index.ts';
import {
  Authority,
  createBan,
  createOwnRetire,
  createRetire,
  encodeFact,
  encodeFacts,
  factKey,
  FACTS_MAX,
  INVITE_MS,
  parseFacts,
  replicaIdOf,
  type Admit,
  type RosterFact,
} from '../../src/authority/index.ts';
import { SURPLUS_MAX } from '../../src/authority/fact-set.ts';
import { nodeCrypto } from '../support.ts';
import { codeOf, mutations } from '../transparency/support.ts';
import {
  admit,
  CLUSTER,
  founder,
  invite,
  keysOf,
  keyText,
  NOW_MS,
  OPERATOR,
  operatorOf,
  replicaOf,
  testCluster,
} from './support.ts';

const authority = (...facts: readonly RosterFact[]): Authority => {
  const made = new Authority({ cluster: CLUSTER, crypto: nodeCrypto });
  for (const fact of facts) made.fold(factKey(fact), encodeFact(fact));
  return made;
};
const hashOf = (fact: RosterFact): string => hex.encode(nodeCrypto.sha256(utf8(encodeFact(fact))));
const keyOfName = (name: string): string => keyText(keysOf(name).transport);
const NAMES = ['b', 'c', 'd', 'e'];
const FOUNDER = founder('a');
const everybody = ['a', ...NAMES];

/** All that a view says. */
const seenBy = (view: Authority) => ({
  content: view.facts().digest,
  admitted: view.admittedReplicas(),
  each: everybody.map((name) => {
    const replica = name === 'a' ? FOUNDER.replica : replicaOf(name);
    const key = view.keyOf(replica);
    return [
      view.statusOf(replica),
      view.mayConnect(keyOfName(name)),
      view.replicaOf(keyOfName(name)),
      key && base64.encode(key),
    ];
  }),
});

const single = invite();
const double = invite({ uses: 2 });
const POOL: RosterFact[] = [
  ...NAMES.map((name) => admit(single, name)),
  ...NAMES.slice(0, 3).map((name) => admit(double, name)),
  // The same replica again, with another time and another log key.
  admit(single, 'b', NOW_MS + 1),
  createRetire(CLUSTER.id, replicaOf('b'), OPERATOR),
  createOwnRetire(CLUSTER.id, replicaOf('b'), keysOf('b').transport),
  createOwnRetire(CLUSTER.id, replicaOf('c'), keysOf('c').transport),
  createOwnRetire(CLUSTER.id, FOUNDER.replica, keysOf('a').transport),
  createBan(CLUSTER.id, replicaOf('d'), OPERATOR),
  createBan(CLUSTER.id, replicaOf('b'), OPERATOR),
];
const other = testCluster('other');
const FORGED: readonly RosterFact[] = [
  admit(invite({ cluster: other, operator: operatorOf('other') }), 'e'),
  admit(single, 'a'),
  createBan(CLUSTER.id, replicaOf('e'), keysOf('e').transport),
  createRetire(CLUSTER.id, FOUNDER.replica, operatorOf('other')),
  createOwnRetire(CLUSTER.id, replicaOf('e'), keysOf('d').transport),
];

describe('the view', () => {
  it('knows the genesis, and nobody else, before any fact', () => {
    const view = authority();
    expect(view.admittedReplicas()).toEqual([FOUNDER]);
    expect(view.mayConnect(FOUNDER.transportKey)).toBe(true);
    expect(view.replicaOf(FOUNDER.transportKey)).toBe(FOUNDER.replica);
    expect(view.keyOf(FOUNDER.replica)).toEqual(keysOf('a').transport.publicKey);
    expect(view.statusOf(FOUNDER.replica)).toBe('admitted');
    expect(view.mayConnect(keyOfName('b'))).toBe(false);
    expect(view.keyOf(replicaOf('b'))).toBeUndefined();
    expect(view.statusOf(replicaOf('b'))).toBe('unknown');
    expect(view.facts().bytes).toEqual(new Uint8Array());
  });

  it('admits whoever has a fact', () => {
    const fact = admit(single, 'b');
    const view = authority(fact);
    expect(view.mayConnect(fact.transportKey)).toBe(true);
    expect(view.replicaOf(fact.transportKey)).toBe(fact.replica);
    expect(view.keyOf(fact.replica)).toEqual(keysOf('b').transport.publicKey);
    expect(view.admittedReplicas().map(({ replica }) => replica)).toEqual([FOUNDER.replica, fact.replica].sort());
    expect(parseFacts(view.facts().bytes)).toEqual([fact]);
  });

  it('is the same in any order and with any repetition, whatever forgeries come between', () => {
    const expected = seenBy(authority(...POOL));
    const all = [...POOL, ...POOL, ...FORGED];
    fc.assert(
      fc.property(fc.shuffledSubarray(all, { minLength: all.length }), (facts) => {
        const view = authority(...facts);
        expect(seenBy(view)).toEqual(expected);
        expect(view.refused).toBe(FORGED.length);
      }),
      { numRuns: 60 },
    );
  });

  it('of a union is the union of views: a content handed on says as much as the registers', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray(POOL), fc.shuffledSubarray(POOL), (one, two) => {
        const united = authority(...one, ...parseFacts(authority(...two).facts().bytes));
        expect(seenBy(united)).toEqual(seenBy(authority(...one, ...two)));
      }),
      { numRuns: 40 },
    );
  });

  it('only ever goes up: nobody is forgotten, and no ban or retirement is undone', () => {
    const RANK = ['unknown', 'admitted', 'retired', 'banned'];
    fc.assert(
      fc.property(fc.shuffledSubarray(POOL, { minLength: POOL.length }), (facts) => {
        const view = authority();
        for (const fact of facts) {
          const before = everybody.map((name) => view.statusOf(replicaOf(name)));
          const keys = everybody.map((name) => view.keyOf(replicaOf(name)));
          view.fold(factKey(fact), encodeFact(fact));
          everybody.forEach((name, i) => {
            expect(RANK.indexOf(view.statusOf(replicaOf(name)))).toBeGreaterThanOrEqual(RANK.indexOf(before[i]!));
            if (keys[i] !== undefined) expect(view.keyOf(replicaOf(name))).toEqual(keys[i]);
          });
        }
      }),
      { numRuns: 40 },
    );
  });

  it('says whether it changed', () => {
    const view = authority();
    const fact = admit(single, 'b');
    expect(view.fold(factKey(fact), encodeFact(fact))).toBe(true);
    const { digest } = view.facts();
    expect(view.admittedReplicas()).toHaveLength(2);
    expect(view.fold(factKey(fact), encodeFact(fact))).toBe(false);
    expect(view.facts().digest).toBe(digest);
    expect(view.fold(factKey(POOL.at(-1)!), encodeFact(POOL.at(-1)!))).toBe(true);
    expect(view.facts().digest).not.toBe(digest);
    expect(view.facts().bytes).toEqual(encodeFacts([fact, POOL.at(-1)!]));
    expect(view.admittedReplicas()).toEqual([FOUNDER]);
  });

  it('checks a fact once, however many replicas hold it', () => {
    let verified = 0;
    const ed25519Verify: typeof nodeCrypto.ed25519Verify = (...args) => {
      verified++;
      return nodeCrypto.ed25519Verify(...args);
    };
    const view = new Authority({ cluster: CLUSTER, crypto: { ...nodeCrypto, ed25519Verify } });
    const fact = admit(single, 'b');
    for (let i = 0; i < 100; i++) view.fold(factKey(fact), encodeFact(fact));
    expect(verified).toBe(5);
  });
});

describe('precedence', () => {
  const b = replicaOf('b');
  const admitted = admit(single, 'b');
  const retired = createRetire(CLUSTER.id, b, OPERATOR);
  const left = createOwnRetire(CLUSTER.id, b, keysOf('b').transport);
  const banned = createBan(CLUSTER.id, b, OPERATOR);
  it.each([
    ['admit', [admitted], 'admitted', true],
    ['retire, before any admit', [retired], 'retired', false],
    ['retire over admit', [admitted, retired], 'retired', true],
    ['its own retire over admit', [admitted, left], 'retired', true],
    ['ban over admit', [admitted, banned], 'banned', false],
    ['ban over retire', [admitted, retired, banned], 'banned', false],
    ['ban over both retires', [admitted, retired, left, banned], 'banned', false],
    ['ban, before any admit', [banned], 'banned', false],
  ] as const)('%s', (_, facts, status, mayConnect) => {
    for (const order of [facts, facts.toReversed()]) {
      const view = authority(...order);
      expect(view.statusOf(b)).toBe(status);
      expect(view.mayConnect(admitted.transportKey)).toBe(mayConnect);
      expect(view.admittedReplicas().some(({ replica }) => replica === b)).toBe(mayConnect);
    }
  });

  it('keeps the key of the banned, whose registers everybody holds', () => {
    const view = authority(admitted, banned);
    expect(view.keyOf(b)).toEqual(keysOf('b').transport.publicKey);
    expect(view.replicaOf(admitted.transportKey)).toBe(b);
  });

  it('can ban a founder', () => {
    const view = authority(createBan(CLUSTER.id, FOUNDER.replica, OPERATOR));
    expect(view.mayConnect(FOUNDER.transportKey)).toBe(false);
    expect(view.admittedReplicas()).toEqual([]);
  });
});

describe('registers that are no good', () => {
  const fact = admit(single, 'b');
  const text = encodeFact(fact);

  it('are counted and change nothing', () => {
    const view = authority(admit(single, 'c'));
    const before = seenBy(view);
    const keys = [
      'roster/',
      `roster/${fact.replica}`,
      `roster/${fact.replica}/ban`,
      `roster/${replicaOf('c')}/admit`,
      `${factKey(fact)}/`,
    ];
    for (const key of keys) expect(view.fold(key, text)).toBe(false);
    for (const value of ['', 'null', '{}', `${text} `, 'x'.repeat(100_000)])
      expect(view.fold(factKey(fact), value)).toBe(false);
    expect(view.refused).toBe(keys.length + 5);
    expect(seenBy(view)).toEqual(before);
  });

  it('are survived, whatever they are', () => {
    const view = authority();
    const before = seenBy(view);
    const key = fc.oneof(fc.constant(factKey(fact)), mutations(factKey(fact)), fc.string());
    fc.assert(
      fc.property(key, fc.oneof(mutations(text), fc.json()), (at, value) => {
        fc.pre(value !== text);
        expect(view.fold(at, value)).toBe(false);
      }),
      { numRuns: 500 },
    );
    expect(view.refused).toBeGreaterThan(0);
    expect(seenBy(view)).toEqual(before);
  });
});

describe('a joiner', () => {
  const fact = admit(single, 'b');
  const check = (view: Authority, asked: Admit, nowMs = NOW_MS) => codeOf(() => view.checkJoin(asked, nowMs));

  it('is accepted with a good invite, and again when it asks again', () => {
    expect(check(authority(), fact)).toBe('none');
    expect(check(authority(fact), fact)).toBe('none');
  });

  it('is refused when the invite has expired by the clock of the member it asks, whatever it says itself', () => {
    expect(check(authority(), fact, NOW_MS + INVITE_MS)).toBe('none');
    expect(check(authority(), fact, NOW_MS + INVITE_MS + 1)).toBe('INVITE_EXPIRED');
    expect(check(authority(), admit(single, 'b', 0), NOW_MS + INVITE_MS + 1)).toBe('INVITE_EXPIRED');
  });

  it('is refused when the uses of the invite are taken, by whomever', () => {
    const c = replicaOf('c');
    const ban = createBan(CLUSTER.id, c, OPERATOR);
    expect(check(authority(admit(single, 'c')), fact)).toBe('INVITE_USED');
    expect(check(authority(admit(single, 'c'), ban), fact)).toBe('INVITE_USED');
    const [one, two, three] = ['b', 'c', 'd'].map((name) => admit(double, name));
    expect(check(authority(one!), two!)).toBe('none');
    expect(check(authority(one!, two!), three!)).toBe('INVITE_USED');
    expect(check(authority(one!, two!), two!)).toBe('none');
    // Another invite is another matter.
    expect(check(authority(one!, two!), fact)).toBe('none');
  });

  it('is refused when it was retired or banned', () => {
    expect(check(authority(createRetire(CLUSTER.id, fact.replica, OPERATOR)), fact)).toBe('FACT_REFUSED');
    expect(check(authority(createBan(CLUSTER.id, fact.replica, OPERATOR)), fact)).toBe('FACT_REFUSED');
  });

  it('is refused with a forged fact', () => {
    for (const forged of FORGED)
      if (forged.kind === 'admit')
        expect(['SIGNATURE_INVALID', 'INVITE_INVALID']).toContain(check(authority(), forged));
  });

  it('that two members accepted with one invite connects, at both', () => {
    const facts = NAMES.map((name) => admit(single, name));
    const view = authority(...facts);
    for (const { transportKey } of facts) expect(view.mayConnect(transportKey)).toBe(true);
  });
});

describe('bounds', () => {
  /** A view that takes every signature for good, as ten thousand real ones take long. */
  const trusting = () => new Authority({ cluster: CLUSTER, crypto: { ...nodeCrypto, ed25519Verify: () => true } });
  const template = admit(invite({ uses: 2 }), 'b');
  const joiner = (i: number): Admit => {
    const transportKey = base64.encode(nodeCrypto.sha256(utf8(`joiner ${i}`)));
    return { ...template, transportKey, replica: replicaIdOf(transportKey, nodeCrypto) };
  };
  const fold = (view: Authority, fact: RosterFact) => view.fold(factKey(fact), encodeFact(fact));
  const linesOf = (view: Authority) => parseFacts(view.facts().bytes);

  it('keeps the lowest hashes of what misuses an invite, in any order', () => {
    const facts = Array.from({ length: 200 }, (_, i) => joiner(i));
    const lowest = facts
      .map(hashOf)
      .sort()
      .slice(0, 2 + SURPLUS_MAX);
    const [one, two] = [trusting(), trusting()];
    for (const fact of facts) fold(one, fact);
    for (const fact of facts.toReversed()) fold(two, fact);
    expect(linesOf(one).map(hashOf).sort()).toEqual(lowest);
    expect(two.facts()).toEqual(one.facts());
    expect(two.admittedReplicas()).toEqual(one.admittedReplicas());
    expect(one.admittedReplicas()).toHaveLength(1 + 2 + SURPLUS_MAX);
    for (const fact of facts) {
      const isKept = lowest.includes(hashOf(fact));
      for (const view of [one, two]) {
        expect(view.statusOf(fact.replica)).toBe(isKept ? 'admitted' : 'unknown');
        expect(view.mayConnect(fact.transportKey)).toBe(isKept);
      }
    }
  });

  it('keeps one fact of a replica that signs many', () => {
    const facts = Array.from({ length: 200 }, (_, i) => ({ ...joiner(0), joinedMs: i }));
    const view = trusting();
    for (const fact of facts) fold(view, fact);
    expect(linesOf(view).map(hashOf)).toEqual(facts.map(hashOf).sort().slice(0, 1));
    expect(view.refused).toBe(0);
  });

  it('takes the word of the operator when replicas have said too much, and has a bound for that too', () => {
    const view = trusting();
    const leave = (i: number, signature: string): RosterFact => {
      const { replica, transportKey } = joiner(i);
      return { kind: 'retire', cluster: CLUSTER.id, replica, transportKey, signature };
    };
    // Of many about one replica, one counts.
    for (let i = 0; i < 100; i++) fold(view, leave(0, base64.encode(new Uint8Array(64).fill(i))));
    for (let i = 1; i < FACTS_MAX + 5; i++) fold(view, leave(i, template.signatures.log));
    expect(view.refused).toBe(5);
    const replica = replicaOf('b');
    expect(fold(view, template)).toBe(true);
    expect(fold(view, createRetire(CLUSTER.id, replica, OPERATOR))).toBe(true);
    expect(fold(view, createBan(CLUSTER.id, replica, OPERATOR))).toBe(true);
    expect(view.statusOf(replica)).toBe('banned');
    expect(linesOf(view)).toHaveLength(FACTS_MAX + 3);
    for (let i = 2; i < FACTS_MAX + 5; i++) {
      const id = i.toString(16).padStart(32, '0') as ReplicaId;
      fold(view, { kind: 'ban', cluster: CLUSTER.id, replica: id, signature: template.signatures.log });
    }
    expect(view.refused).toBe(10);
  });
});
