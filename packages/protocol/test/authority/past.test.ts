import { describe, expect, it } from 'vitest';
import { base64, seededRandom, type ClusterId, type ReplicaId } from '../../src/base/index.ts';
import {
  Authority,
  createAdmit,
  createInvite,
  parseInvite,
  replicaIdOf,
  verifyAdmit,
} from '../../src/authority/index.ts';
import { clusterOf, signSuccessor, type Cluster } from '../../src/sealing/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';
import { codeOf } from '../transparency/support.ts';

const operator = testSigner('operator');
const keyOf = (name: string): string => base64.encode(testSigner(name).publicKey);
const entry = (name: string) => ({
  replica: replicaIdOf(keyOf(name), nodeCrypto),
  transportKey: keyOf(name),
  logKey: keyOf(`${name} log`),
  cosignerKey: keyOf(`${name} cosigner`),
});
const past = entry('past');
const before = 'ab'.repeat(32) as ClusterId;

const successor: Cluster = clusterOf(
  signSuccessor(
    {
      format: 1,
      name: 'test.example',
      operatorKey: base64.encode(operator.publicKey),
      startMs: 0,
      epochMs: 1_000,
      sealGraceMs: 0,
      roster: [entry('founder')],
    },
    {
      cluster: before,
      epoch: 0,
      previous: null,
      format: 1,
      checkpoint: null,
      roster: [past],
      counted: [],
      closed: [],
      writers: [{ replica: past.replica, cluster: before, transportKey: past.transportKey }],
      reason: '',
    },
    operator,
  ),
  nodeCrypto,
);

describe('replicas of a predecessor', () => {
  const authority = new Authority({ cluster: successor, crypto: nodeCrypto });

  it('are read, under their own key and bound to their own cluster', () => {
    expect(authority.keyOf(past.replica)).toEqual(testSigner('past').publicKey);
    expect(authority.boundTo(past.replica)).toBe(before);
    for (const replica of [entry('founder').replica, '0'.repeat(32) as ReplicaId])
      expect(authority.boundTo(replica)).toBe(successor.id);
  });

  it('neither connect nor count as members', () => {
    expect(authority.mayConnect(past.transportKey)).toBe(false);
    expect(authority.statusOf(past.replica)).toBe('unknown');
    expect(authority.admittedReplicas().map(({ replica }) => replica)).toEqual([entry('founder').replica]);
  });

  it('are never admitted again under their old keys', () => {
    const invite = (name: string): (() => void) => {
      const { invite: text } = createInvite({
        cluster: successor,
        operator,
        addresses: [{ transportKey: keyOf('founder'), host: '10.0.0.1', port: 7070 }],
        nowMs: 0,
        crypto: nodeCrypto,
        random: seededRandom(1),
        signerFromSeed: (seed) => testSigner(base64.encode(seed)),
      });
      const keys = { transport: testSigner(name), log: testSigner('l'), cosigner: testSigner('c') };
      const parsed = parseInvite(text, nodeCrypto, (seed) => testSigner(base64.encode(seed)));
      return () => verifyAdmit(createAdmit(parsed, keys, 0, nodeCrypto), successor, nodeCrypto);
    };
    expect(codeOf(invite('past'))).toBe('SIGNATURE_INVALID');
    expect(invite('somebody new')).not.toThrow();
  });
});
