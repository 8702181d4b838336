import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, type ClusterId, type Run } from '../../src/base/index.ts';
import { parseUsageWriter, signControl, usageWriter, verifyControl } from '../../src/lattice/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { decodes, replicaId } from './support.ts';

const cluster = 'c'.repeat(64) as ClusterId;
const replica = replicaId(7);
const signer = testSigner('writer');

describe('the signature of a control register', () => {
  const register = signControl(signer, cluster, replica, { key: 'node/self', version: 3, value: '{"a":1}' });
  const verify = (changed: Partial<typeof register>, at = { cluster, replica, publicKey: signer.publicKey }) =>
    verifyControl(nodeCrypto, at.publicKey, at.cluster, at.replica, { ...register, ...changed });

  it('verifies for its writer, cluster, key, version and value, and for nothing else', () => {
    expect(() => verify({})).not.toThrow();
    const others = [
      () => verify({ key: 'node/sel' }),
      () => verify({ version: 4 }),
      () => verify({ value: '{"a":2}' }),
      () => verify({ key: 'node/self\u0001', value: '"a":1}' }),
      () => verify({ signature: base64.encode(new Uint8Array(64)) }),
      () => verify({ signature: 'not base64' }),
      () => verify({ signature: '' }),
      () => verify({ version: -1 }),
      () => verify({}, { cluster: 'd'.repeat(64) as ClusterId, replica, publicKey: signer.publicKey }),
      () => verify({}, { cluster, replica: replicaId(8), publicKey: signer.publicKey }),
      () => verify({}, { cluster, replica, publicKey: testSigner('other').publicKey }),
      () => verify({}, { cluster, replica, publicKey: new Uint8Array(3) }),
    ];
    for (const other of others) expect(other).toThrow(expect.objectContaining({ code: 'SIGNATURE_INVALID' }));
  });
});

describe('the writer of usage', () => {
  it('is parsed as it was written, and nothing else is', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (n, run) => {
        expect(parseUsageWriter(usageWriter(replicaId(n), run as Run))).toEqual({ replica: replicaId(n), run });
      }),
    );
    for (const bad of [
      '',
      '/',
      replica,
      `${replica}/`,
      `${replica}/0`,
      `${replica}/01`,
      `${replica}/1/2`,
      `x/1`,
      `${replica}/9007199254740992`,
      `${replica}/-1`,
    ])
      expect(decodes(() => parseUsageWriter(bad))).toBeNull();
    fc.assert(fc.property(fc.string(), (text) => void decodes(() => parseUsageWriter(text))));
  });
});
