import { base64, hex, seededRandom, type Random, type ReplicaId, type Signer } from '../../src/base/index.ts';
import {
  createAdmit,
  createInvite,
  parseInvite,
  replicaIdOf,
  type Admit,
  type Invite,
  type InviteOptions,
  type JoinerKeys,
} from '../../src/authority/index.ts';
import { clusterOf, type Cluster, type RosterEntry } from '../../src/sealing/index.ts';
import { nodeCrypto, testSigner } from '../support.ts';

export const NOW_MS = 1_700_000_000_000;
export const signerFromSeed = (seed: Uint8Array): Signer => testSigner(hex.encode(seed));
export const operatorOf = (name: string): Signer => testSigner(`operator of ${name}`);

/** The same for the same name, worked out once. */
function remembered<T>(make: (name: string) => T): (name: string) => T {
  const made = new Map<string, T>();
  return (name) => {
    const value = made.get(name) ?? make(name);
    made.set(name, value);
    return value;
  };
}

export const keysOf = remembered((name): JoinerKeys => ({
  transport: testSigner(`${name} transport`),
  log: testSigner(`${name} log`),
  cosigner: testSigner(`${name} cosigner`),
}));
export const keyText = (signer: Signer): string => base64.encode(signer.publicKey);

/** A member of a genesis, whose id has nothing to do with its keys. */
export const founder = remembered((name): RosterEntry => {
  const { transport, log, cosigner } = keysOf(name);
  return {
    replica: hex.encode(nodeCrypto.sha256(transport.publicKey).subarray(0, 16)) as ReplicaId,
    transportKey: keyText(transport),
    logKey: keyText(log),
    cosignerKey: keyText(cosigner),
  };
});

/** A cluster with an operator and founders of its own. */
export const testCluster = (name = 'waggle', founders: readonly string[] = ['a']): Cluster =>
  clusterOf(
    {
      format: 1,
      name,
      operatorKey: keyText(operatorOf(name)),
      startMs: 0,
      epochMs: 60_000,
      sealGraceMs: 1_000,
      roster: founders.map(founder).sort((a, b) => (a.replica < b.replica ? -1 : 1)),
    },
    nodeCrypto,
  );

export const CLUSTER = testCluster();
export const OPERATOR = operatorOf('waggle');
export const ADDRESSES = [{ transportKey: founder('a').transportKey, host: '127.0.0.1', port: 20_000 }] as const;

export const inviteOptions = (changes: Partial<InviteOptions> = {}): InviteOptions => ({
  cluster: CLUSTER,
  operator: OPERATOR,
  addresses: ADDRESSES,
  nowMs: NOW_MS,
  crypto: nodeCrypto,
  random: seededRandom(1),
  signerFromSeed,
  ...changes,
});

const RANDOM: Random = seededRandom(7);

/** A fresh invite, as the joiner reads it. */
export const invite = (changes: Partial<InviteOptions> = {}): Invite =>
  parseInvite(createInvite(inviteOptions({ random: RANDOM, ...changes })).invite, nodeCrypto, signerFromSeed);

/** The fact by which the holder of a name's keys joins. */
export const admit = (by: Invite, name: string, joinedMs = NOW_MS): Admit =>
  createAdmit(by, keysOf(name), joinedMs, nodeCrypto);

export const replicaOf = remembered((name) => replicaIdOf(keyText(keysOf(name).transport), nodeCrypto));
