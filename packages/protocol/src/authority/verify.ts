import { base64, WaggleError, type ClusterId, type Crypto, type ReplicaId, type Signer } from '../base/index.ts';
import type { Cluster } from '../sealing/index.ts';
import { factBytes, type Admit, type Ban, type Retire, type RosterFact } from './facts.ts';
import { verifyGrant, type Invite } from './invite.ts';
import { demandSignature, replicaIdOf } from './proof.ts';

/** The three key pairs of a joiner. */
export interface JoinerKeys {
  readonly transport: Signer;
  readonly log: Signer;
  readonly cosigner: Signer;
}

const refuse = (message: string): never => {
  throw new WaggleError('SIGNATURE_INVALID', message);
};

/** The fact by which the holder of these keys joins: the invite signs them, and each signs that it is held. */
export function createAdmit(invite: Invite, keys: JoinerKeys, joinedMs: number, crypto: Crypto): Admit {
  const transportKey = base64.encode(keys.transport.publicKey);
  const unsigned = {
    kind: 'admit',
    cluster: invite.cluster,
    replica: replicaIdOf(transportKey, crypto),
    transportKey,
    logKey: base64.encode(keys.log.publicKey),
    cosignerKey: base64.encode(keys.cosigner.publicKey),
    grant: invite.grant,
    joinedMs,
  } as const;
  const message = factBytes(unsigned);
  const by = (signer: Signer): string => base64.encode(signer.sign(message));
  const signatures = {
    invite: by(invite.signer),
    transport: by(keys.transport),
    log: by(keys.log),
    cosigner: by(keys.cosigner),
  };
  return { ...unsigned, signatures };
}

/** The operator takes a replica's vote. */
export function createRetire(cluster: ClusterId, replica: ReplicaId, operator: Signer): Retire {
  const unsigned = { kind: 'retire', cluster, replica, transportKey: null } as const;
  return { ...unsigned, signature: base64.encode(operator.sign(factBytes(unsigned))) };
}

/** A replica gives its own vote up. */
export function createOwnRetire(cluster: ClusterId, replica: ReplicaId, transport: Signer): Retire {
  const unsigned = { kind: 'retire', cluster, replica, transportKey: base64.encode(transport.publicKey) } as const;
  return { ...unsigned, signature: base64.encode(transport.sign(factBytes(unsigned))) };
}

/** The operator shuts a replica out. */
export function createBan(cluster: ClusterId, replica: ReplicaId, operator: Signer): Ban {
  const unsigned = { kind: 'ban', cluster, replica } as const;
  return { ...unsigned, signature: base64.encode(operator.sign(factBytes(unsigned))) };
}

function demandCluster(fact: RosterFact, cluster: Cluster): void {
  if (fact.cluster !== cluster.id) refuse(`Expected a fact of cluster ${cluster.id}, received one of ${fact.cluster}`);
}

/**
 * Checks an admit fact against the genesis alone. That its invite is not used too often is for `Authority` and `nextRoster` to
 * say, and that it was not used too late for whoever accepts the joiner (`checkInvite`): here the joiner's word is all there is.
 * Throws `SIGNATURE_INVALID` unless the operator signed the invite, the invite's key the joiner's keys, and each of these the
 * whole; for a fact of another cluster; for keys that are not four different ones, or not those of the replica id.
 */
export function verifyAdmit(fact: Admit, cluster: Cluster, crypto: Crypto): void {
  demandCluster(fact, cluster);
  const { replica, transportKey, logKey, cosignerKey, grant, joinedMs, signatures } = fact;
  if (cluster.genesis.roster.some((entry) => entry.replica === replica || entry.transportKey === transportKey))
    refuse(`Expected a newcomer, received ${replica}, which the genesis names`);
  if (
    cluster.genesis.predecessor?.writers.some((past) => past.replica === replica || past.transportKey === transportKey)
  )
    refuse(`Expected a newcomer, received ${replica}, which was of an earlier cluster`);
  if (replicaIdOf(transportKey, crypto) !== replica)
    refuse(`Expected the transport key of ${replica}, received another`);
  if (new Set([transportKey, logKey, cosignerKey, grant.key, cluster.genesis.operatorKey]).size !== 5)
    refuse('Expected a key of its own for each purpose');
  if (joinedMs > grant.expiresMs)
    refuse(`Expected ${replica} to join before its invite expired, received ${joinedMs - grant.expiresMs} ms after`);
  verifyGrant(grant, cluster, crypto);
  const message = factBytes(fact);
  const demand = (key: string, signature: string, what: string): void =>
    demandSignature(crypto, key, message, signature, `the keys of ${replica} to be signed by ${what}`);
  demand(grant.key, signatures.invite, 'the invite');
  demand(transportKey, signatures.transport, 'its transport key');
  demand(logKey, signatures.log, 'its log key');
  demand(cosignerKey, signatures.cosigner, 'its cosigner key');
}

/** Throws `SIGNATURE_INVALID` unless the operator, or the replica itself, signed the retirement in this cluster. */
export function verifyRetire(fact: Retire, cluster: Cluster, crypto: Crypto): void {
  demandCluster(fact, cluster);
  const { replica, transportKey, signature } = fact;
  if (transportKey !== null) {
    const founder = cluster.genesis.roster.find((entry) => entry.replica === replica);
    const isOwn =
      founder === undefined ? replicaIdOf(transportKey, crypto) === replica : founder.transportKey === transportKey;
    if (!isOwn) refuse(`Expected the transport key of ${replica}, received another`);
  }
  const who = transportKey === null ? 'the operator' : 'itself';
  const key = transportKey ?? cluster.genesis.operatorKey;
  demandSignature(crypto, key, factBytes(fact), signature, `the retirement of ${replica} to be signed by ${who}`);
}

/** Throws `SIGNATURE_INVALID` unless the operator signed the ban in this cluster. */
export function verifyBan(fact: Ban, cluster: Cluster, crypto: Crypto): void {
  demandCluster(fact, cluster);
  const what = `the ban of ${fact.replica} to be signed by the operator`;
  demandSignature(crypto, cluster.genesis.operatorKey, factBytes(fact), fact.signature, what);
}

/** Checks a fact of any kind against the genesis alone. Throws `SIGNATURE_INVALID`. */
export function verifyFact(fact: RosterFact, cluster: Cluster, crypto: Crypto): void {
  if (fact.kind === 'admit') verifyAdmit(fact, cluster, crypto);
  else if (fact.kind === 'retire') verifyRetire(fact, cluster, crypto);
  else verifyBan(fact, cluster, crypto);
}
