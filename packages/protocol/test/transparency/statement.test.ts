import fc from 'fast-check';
import { expect, it } from 'vitest';
import { base64, fromUtf8, jcs, type ClusterId, type CustomerId, type Json } from '../../src/base/index.ts';
import { mapUsage } from '../../src/lattice/counts.ts';
import { encodeStatement, statementLeaf } from '../../src/transparency/index.ts';
import { SKUS } from '../../src/usage/index.ts';
import { nodeCrypto } from '../support.ts';

const usage = fc.array(fc.nat(2 ** 40), { minLength: 7, maxLength: 7 }).map((figures) => {
  const left = [...figures];
  return mapUsage(() => left.pop()!);
});
const statement = fc.record({
  cluster: fc.constant('ab'.repeat(32) as ClusterId),
  customer: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$/).map((id) => id as CustomerId),
  sealedIn: fc.nat(),
  epoch: fc.nat(),
  startMs: fc.nat(2 ** 40),
  endMs: fc.nat(2 ** 40),
  usage: fc.dictionary(fc.constantFrom(...SKUS), usage),
  salt: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(base64.encode),
});

it('statements and their leaves are canonical (RFC 8785), whatever order their parts came in', () => {
  fc.assert(
    fc.property(statement, (one) => {
      const text = encodeStatement(one);
      expect(jcs(JSON.parse(text) as Json)).toBe(text);
      const leaf = fromUtf8(statementLeaf(text, one.sealedIn, nodeCrypto));
      expect(jcs(JSON.parse(leaf) as Json)).toBe(leaf);
    }),
  );
});
