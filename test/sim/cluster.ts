import { base64, compareText, type Random, type ReplicaId } from '../../packages/protocol/src/base/index.ts';
import {
  createAdmit,
  createBan,
  createInvite,
  createOwnRetire,
  createRetire,
  encodeFact,
  factKey,
  INVITE_MS_MAX,
  parseInvite,
  type RosterFact,
} from '../../packages/protocol/src/authority/index.ts';
import type { Write } from '../../packages/protocol/src/member/index.ts';
import { clusterOf, type Cluster } from '../../packages/protocol/src/sealing/index.ts';
import {
  cheapCrypto,
  cheapSigner,
  FOUNDER,
  keysOf,
  operator,
  replicaOf,
} from '../../packages/protocol/test/member/harness.ts';
import { EPOCH_MS, SEAL_GRACE_MS, START_MS } from './options.ts';

/** The name that a machine starts with. */
export const nameOf = (index: number): string => (index === 0 ? FOUNDER : `n${index}`);

/** A cluster whose first roster are the first so many machines. */
export function foundCluster(voters: number): Cluster {
  const roster = Array.from({ length: voters }, (_, index) => {
    const name = nameOf(index);
    const { transport, log, cosigner } = keysOf(name);
    return {
      replica: replicaOf(name),
      transportKey: base64.encode(transport.publicKey),
      logKey: base64.encode(log.publicKey),
      cosignerKey: base64.encode(cosigner.publicKey),
    };
  }).sort((a, b) => compareText(a.replica, b.replica));
  return clusterOf(
    {
      format: 1,
      name: 'waggle.example',
      operatorKey: base64.encode(operator.publicKey),
      startMs: START_MS,
      epochMs: EPOCH_MS,
      sealGraceMs: SEAL_GRACE_MS,
      roster,
    },
    cheapCrypto,
  );
}

const writeOf = (fact: RosterFact): Write => ({ key: factKey(fact), value: encodeFact(fact) });

/** What the operator signs, as registers for any member to write. */
export const facts = {
  /** Of a newcomer with an invite of its own. */
  admit(cluster: Cluster, name: string, random: Random): Write {
    const { invite } = createInvite({
      cluster,
      operator,
      addresses: [{ transportKey: base64.encode(keysOf(FOUNDER).transport.publicKey), host: '10.0.0.1', port: 7000 }],
      expiresInMs: INVITE_MS_MAX,
      nowMs: START_MS,
      crypto: cheapCrypto,
      random,
      signerFromSeed: cheapSigner,
    });
    return writeOf(createAdmit(parseInvite(invite, cheapCrypto, cheapSigner), keysOf(name), START_MS, cheapCrypto));
  },
  retire: (cluster: Cluster, replica: ReplicaId): Write => writeOf(createRetire(cluster.id, replica, operator)),
  ban: (cluster: Cluster, replica: ReplicaId): Write => writeOf(createBan(cluster.id, replica, operator)),
  /** By the replica itself. */
  leave: (cluster: Cluster, replica: ReplicaId, name: string): Write =>
    writeOf(createOwnRetire(cluster.id, replica, keysOf(name).transport)),
};
