import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, jcs, type ClusterId, type Json, type ReplicaId, type Signer } from '../../src/base/index.ts';
import {
  createBan,
  createOwnRetire,
  createRetire,
  encodeFact,
  encodeFacts,
  factKey,
  isFactKey,
  parseFact,
  parseFacts,
  verifyAdmit,
  verifyBan,
  verifyFact,
  verifyRetire,
  type Admit,
  type RosterFact,
} from '../../src/authority/index.ts';
import { factBytes } from '../../src/authority/facts.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { byteMutations, codeOf, mutations, valueOr } from '../transparency/support.ts';
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

const codeOfFact = (fact: RosterFact, cluster = CLUSTER) => codeOf(() => verifyFact(fact, cluster, nodeCrypto));
const INVITE = invite({ uses: 3 });
const ADMIT = admit(INVITE, 'b');
const B = ADMIT.replica;
const FOUNDER = founder('a').replica;
const FACTS: readonly RosterFact[] = [
  ADMIT,
  createRetire(CLUSTER.id, B, OPERATOR),
  createOwnRetire(CLUSTER.id, B, keysOf('b').transport),
  createRetire(CLUSTER.id, FOUNDER, OPERATOR),
  createOwnRetire(CLUSTER.id, FOUNDER, keysOf('a').transport),
  createBan(CLUSTER.id, B, OPERATOR),
  createBan(CLUSTER.id, FOUNDER, OPERATOR),
];

/** The fact with other content, signed again by whoever signs for `keys` and the invite. */
function resigned(changes: Partial<Admit>, by = INVITE.signer, keys = keysOf('b')): Admit {
  const { signatures: _, ...unsigned } = { ...ADMIT, ...changes };
  const sign = (signer: Signer) => base64.encode(signer.sign(factBytes(unsigned)));
  return {
    ...unsigned,
    signatures: {
      invite: sign(by),
      transport: sign(keys.transport),
      log: sign(keys.log),
      cosigner: sign(keys.cosigner),
    },
  };
}

describe('facts', () => {
  it('prove themselves against the genesis alone', () => {
    for (const fact of FACTS) expect(codeOfFact(fact)).toBe('none');
    expect(codeOf(() => verifyAdmit(ADMIT, CLUSTER, nodeCrypto))).toBe('none');
  });

  it('are the same after a round trip, under a key that names replica and kind', () => {
    for (const fact of FACTS) {
      expect(parseFact(encodeFact(fact))).toEqual(fact);
      expect(factKey(fact)).toBe(`roster/${fact.replica}/${fact.kind}`);
      expect(isFactKey(factKey(fact))).toBe(true);
    }
    expect(isFactKey('rosters/x')).toBe(false);
  });

  it('say nothing in another cluster, not even with its id written in', () => {
    const other = testCluster('other');
    for (const fact of FACTS) {
      expect(codeOfFact(fact, other)).toBe('SIGNATURE_INVALID');
      expect(codeOfFact({ ...fact, cluster: other.id }, other)).toBe('SIGNATURE_INVALID');
      expect(codeOfFact({ ...fact, cluster: 'f'.repeat(64) as ClusterId })).toBe('SIGNATURE_INVALID');
    }
  });

  it('say nothing of another replica', () => {
    for (const fact of FACTS)
      for (const replica of [replicaOf('c'), founder('a').replica, B, '0'.repeat(32) as ReplicaId])
        if (replica !== fact.replica) expect(codeOfFact({ ...fact, replica })).toBe('SIGNATURE_INVALID');
  });

  it('are refused with any one bit of text changed', () => {
    for (const fact of FACTS) {
      const text = encodeFact(fact);
      for (let at = 0; at < text.length; at++) {
        const changed = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1);
        const read = valueOr(['DECODE_FAILED'], () => parseFact(changed));
        if (read !== undefined) expect(codeOfFact(read)).toBe('SIGNATURE_INVALID');
      }
    }
  });
});

describe('an admit fact is refused', () => {
  it('if it was taken over by other keys', () => {
    const thief = keysOf('thief');
    const stolen = {
      transportKey: keyText(thief.transport),
      logKey: keyText(thief.log),
      cosignerKey: keyText(thief.cosigner),
    };
    // With an invite of their own, but under the id of another.
    expect(codeOfFact(resigned(stolen, INVITE.signer, thief))).toBe('SIGNATURE_INVALID');
    // Without the secret of the invite.
    const own = { ...stolen, replica: replicaOf('thief') };
    expect(codeOfFact(resigned(own, thief.transport, thief))).toBe('SIGNATURE_INVALID');
    expect(codeOfFact(resigned(own, INVITE.signer, thief))).toBe('none');
  });

  it.each(['transport', 'log', 'cosigner'] as const)('if the %s key is not held by the joiner', (name) => {
    const keys = { ...keysOf('b'), [name]: testSigner('somebody') };
    expect(codeOfFact(resigned({}, INVITE.signer, keys))).toBe('SIGNATURE_INVALID');
  });

  it.each(['invite', 'transport', 'log', 'cosigner'] as const)('without the signature of the %s', (name) => {
    for (const signature of [base64.encode(new Uint8Array(64)), ADMIT.signatures[name === 'log' ? 'cosigner' : 'log']])
      expect(codeOfFact({ ...ADMIT, signatures: { ...ADMIT.signatures, [name]: signature } })).toBe(
        'SIGNATURE_INVALID',
      );
  });

  it('if keys are used for two purposes', () => {
    const keys = keysOf('b');
    const twice = { ...keys, cosigner: keys.log };
    expect(codeOfFact(resigned({ cosignerKey: ADMIT.logKey }, INVITE.signer, twice))).toBe('SIGNATURE_INVALID');
    const withInvite = { ...keys, log: INVITE.signer };
    expect(codeOfFact(resigned({ logKey: INVITE.grant.key }, INVITE.signer, withInvite))).toBe('SIGNATURE_INVALID');
    const withOperator = { ...keys, log: OPERATOR };
    expect(codeOfFact(resigned({ logKey: keyText(OPERATOR) }, INVITE.signer, withOperator))).toBe('SIGNATURE_INVALID');
  });

  it('if it gives a replica of the genesis, or its key, a second time', () => {
    const keys = keysOf('a');
    expect(codeOfFact(admit(INVITE, 'a'))).toBe('SIGNATURE_INVALID');
    const changes = { replica: FOUNDER, transportKey: keyText(keys.transport) };
    expect(codeOfFact(resigned(changes, INVITE.signer, { ...keysOf('b'), transport: keys.transport }))).toBe(
      'SIGNATURE_INVALID',
    );
  });

  it('if its invite was not signed by the operator, or says something else', () => {
    const { grant } = INVITE;
    const forged = base64.encode(operatorOf('other').sign(new Uint8Array()));
    for (const changes of [
      { uses: 1_000 },
      { expiresMs: grant.expiresMs + 1 },
      { addresses: 'a'.repeat(64) as typeof grant.addresses },
      { signature: forged },
      { key: keyText(testSigner('my own invite')) },
    ])
      expect(codeOfFact(resigned({ grant: { ...grant, ...changes } }))).toBe('SIGNATURE_INVALID');
    const mine = { ...grant, key: keyText(testSigner('my own invite')) };
    expect(codeOfFact(resigned({ grant: mine }, testSigner('my own invite')))).toBe('SIGNATURE_INVALID');
    const other = invite({ cluster: testCluster('other'), operator: operatorOf('other') });
    expect(codeOfFact(resigned({ grant: other.grant }, other.signer))).toBe('SIGNATURE_INVALID');
  });

  it('if it was made after the invite expired, as it says itself', () => {
    const { expiresMs } = INVITE.grant;
    expect(codeOfFact(admit(INVITE, 'b', expiresMs))).toBe('none');
    expect(codeOfFact(admit(INVITE, 'b', expiresMs + 1))).toBe('SIGNATURE_INVALID');
  });
});

describe('a retirement or ban is refused', () => {
  const strangers = [operatorOf('other'), keysOf('c').transport, keysOf('a').transport, INVITE.signer];

  it('if someone else than the operator signs for the operator', () => {
    for (const signer of [...strangers, keysOf('b').transport, keysOf('b').log]) {
      expect(codeOf(() => verifyRetire(createRetire(CLUSTER.id, B, signer), CLUSTER, nodeCrypto))).toBe(
        'SIGNATURE_INVALID',
      );
      expect(codeOf(() => verifyBan(createBan(CLUSTER.id, B, signer), CLUSTER, nodeCrypto))).toBe('SIGNATURE_INVALID');
    }
  });

  it('if someone else than the replica signs for the replica', () => {
    for (const signer of [...strangers, keysOf('b').log, keysOf('b').cosigner])
      expect(codeOfFact(createOwnRetire(CLUSTER.id, B, signer))).toBe('SIGNATURE_INVALID');
    for (const signer of [keysOf('b').transport, keysOf('a').log])
      expect(codeOfFact(createOwnRetire(CLUSTER.id, FOUNDER, signer))).toBe('SIGNATURE_INVALID');
    const own = createOwnRetire(CLUSTER.id, B, keysOf('c').transport);
    expect(codeOfFact({ ...own, transportKey: keyText(keysOf('b').transport) })).toBe('SIGNATURE_INVALID');
  });

  it('if a signature of one kind is put under another', () => {
    const retire = createRetire(CLUSTER.id, B, OPERATOR);
    const ban = createBan(CLUSTER.id, B, OPERATOR);
    expect(codeOfFact({ ...ban, signature: retire.signature })).toBe('SIGNATURE_INVALID');
    expect(codeOfFact({ ...retire, signature: ban.signature })).toBe('SIGNATURE_INVALID');
  });
});

describe('the texts and contents of facts', () => {
  const texts = FACTS.map(encodeFact);

  it('are refused when anything is missing, more, or of another type', () => {
    const values: readonly Json[] = [null, true, 7, 'x', [], {}, [1]];
    for (const text of texts) {
      const value = JSON.parse(text) as Record<string, Json>;
      const refused = (changed: Json) => expect(codeOf(() => parseFact(jcs(changed)))).toBe('DECODE_FAILED');
      refused({ ...value, more: 1 });
      for (const name of Object.keys(value)) {
        const { [name]: _, ...rest } = value;
        refused(rest);
        for (const other of values)
          if (!(name === 'transportKey' && other === null) && !(name === 'joinedMs' && other === 7))
            refused({ ...value, [name]: other });
      }
      refused({ ...value, format: 2 });
      refused({ ...value, kind: 'constructor' });
      expect(codeOf(() => parseFact(` ${text}`))).toBe('DECODE_FAILED');
      expect(codeOf(() => parseFact(JSON.stringify(value, null, 1)))).toBe('DECODE_FAILED');
    }
    for (const value of values) expect(codeOf(() => parseFact(jcs(value)))).toBe('DECODE_FAILED');
    expect(() => parseFact(`"${'x'.repeat(100_000)}"`)).toThrow('at most 2048 characters');
  });

  it('are canonical: any order and repetition of facts gives the same bytes, and these give the facts', () => {
    const content = encodeFacts(FACTS);
    fc.assert(
      fc.property(fc.shuffledSubarray([...FACTS, ...FACTS], { minLength: FACTS.length * 2 }), (facts) => {
        expect(encodeFacts(facts)).toEqual(content);
      }),
      { numRuns: 20 },
    );
    expect(new Set(parseFacts(content).map(encodeFact))).toEqual(new Set(texts));
    expect(encodeFacts([])).toEqual(new Uint8Array());
    expect(parseFacts(new Uint8Array())).toEqual([]);
    const lines = new TextDecoder().decode(content).split('\n').slice(0, -1);
    for (const wrong of [[...lines].reverse(), [...lines, lines.at(-1)!]])
      expect(codeOf(() => parseFacts(new TextEncoder().encode(wrong.map((line) => `${line}\n`).join(''))))).toBe(
        'DECODE_FAILED',
      );
  });

  it('are refused or canonical, whatever the bytes', () => {
    const content = encodeFacts(FACTS);
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.json(), ...texts.map(mutations));
    fc.assert(
      fc.property(text, (candidate) => {
        const read = valueOr(['DECODE_FAILED'], () => parseFact(candidate));
        if (read !== undefined) expect(encodeFact(read)).toBe(candidate);
      }),
      { numRuns: 2_000 },
    );
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 500 }), byteMutations(content)), (bytes) => {
        const read = valueOr(['DECODE_FAILED'], () => parseFacts(bytes));
        if (read !== undefined) expect(encodeFacts(read)).toEqual(Uint8Array.from(bytes));
      }),
      { numRuns: 1_000 },
    );
  });

  it('have the form that is written down', () => {
    const names = (value: object) => Object.keys(value).sort();
    const value = JSON.parse(encodeFact(ADMIT)) as Record<string, object>;
    expect(names(value)).toEqual([
      'cluster',
      'cosignerKey',
      'format',
      'grant',
      'joinedMs',
      'kind',
      'logKey',
      'replica',
      'signatures',
      'transportKey',
    ]);
    expect(names(value['grant']!)).toEqual(['addresses', 'expiresMs', 'key', 'signature', 'uses']);
    expect(encodeFact(createBan(CLUSTER.id, B, OPERATOR))).toMatch(
      /^\{"cluster":"[0-9a-f]{64}","format":1,"kind":"ban","replica":"[0-9a-f]{32}","signature":"[^"]{88}"\}$/,
    );
    expect(ADMIT.joinedMs).toBe(NOW_MS);
  });
});
