import { base64, parseReplicaId, utf8, WaggleError, type Random, type ReplicaId } from '@waggle/protocol/base';
import { parseInvite, replicaIdOf, type Invite } from '@waggle/protocol/authority';
import { clusterOf, parseGenesis, type Cluster } from '@waggle/protocol/sealing';
import {
  adoptJoiningKeys,
  createJoiningKeys,
  dropJoiningKeys,
  readJoiningKeys,
  readNodeKeys,
  readOperatorKey,
  type JoiningKeys,
  type NodeKeys,
} from '../keys.ts';
import { nodeCrypto, signerFromSeed } from '../node-crypto.ts';
import { differences, placeOf, readPlace, writePlace, type Place } from '../place.ts';

/** Names in the store's `meta`. */
export const META = {
  genesis: 'genesis',
  replica: 'replica',
  run: 'run',
  hlc: 'hlc',
  counted: 'counted',
  closed: 'closed',
  /** What a node that joined was told: `encodeFacts`, and base64 of `encodeAddresses`. */
  joinFacts: 'joinFacts',
  joinAddresses: 'joinAddresses',
  firstEpoch: 'firstEpoch',
  /** The replica whose registers members were seen to hold that this directory does not: it must not go on under that id. */
  overtaken: 'overtaken',
  /** The replica of the cluster before, where this directory follows a successor since: it is `overtaken` as well. */
  follows: 'follows',
} as const;

export type Meta = ReadonlyMap<string, string>;

/** Who a directory says that it is. */
export interface Stood {
  readonly cluster: Cluster;
  readonly replica: ReplicaId;
  readonly keys: NodeKeys;
}

/** How a start comes to a standing. */
export type Way =
  /** The directory holds one. */
  | { readonly type: 'stay'; readonly stood: Stood }
  | { readonly type: 'found' }
  /** It asks to be admitted, with these keys. */
  | { readonly type: 'join'; readonly invite: Invite; readonly keys: NodeKeys };

/** The invite of a start, read no sooner than it is needed: by the next start, where it stood may be gone. */
export interface InviteSource {
  /** Its text, which is needed now. Throws what keeps it from being read. */
  readonly needed: () => string;
  /** Its text for a start that goes on without it; null where it is not at hand. */
  readonly atHand: () => string | null;
}

export interface WayOptions {
  /** Used by a first start, and by a copy: a directory with a standing in its place goes on with that. */
  readonly invite: InviteSource | null;
  /** The operator says that the directory was moved, and is the only copy. */
  readonly isMoved: boolean;
}

/**
 * Decides how this start comes to a standing, first of all. May be asked again after a crash at any point: the same invite
 * goes on with the same keys. It remembers where the directory lies, or finds that it lies elsewhere now.
 * Throws `DATA_COPIED` for a directory that lies elsewhere with neither an invite nor `isMoved`, and for one that was found to be
 * older than what members hold of it without an invite; `CONFIG_INVALID` for an invite of another cluster, where something
 * else was begun, and for one that follows a successor without an invite; `INVITE_INVALID` and what `InviteSource.needed` throws for one that is needed; `DATA_DAMAGED` when the store and the
 * key files do not belong together.
 */
export function chooseWay(directory: string, meta: Meta, options: WayOptions, random: Random): Way {
  const joining = readJoiningKeys(directory);
  const place = placeOf(directory);
  const standing = readStood(directory, meta, joining);
  if (standing === null) return firstWay(directory, joining, place, options.invite, random);
  const { invite, isMoved } = options;
  const { cluster, replica, keys, isAdopted } = standing;
  // Joined, but stopped before the place was remembered: what was drawn here counts.
  const before = !isAdopted && joining !== null ? joining.place : readPlace(directory);
  const moves = before === null ? [] : differences(before, place);
  const isOvertaken = meta.get(META.overtaken) === replica;
  if (isOvertaken || (moves.length > 0 && !isMoved)) {
    if (invite === null && meta.get(META.follows) === replica) throw following(directory, cluster);
    if (invite === null) throw isOvertaken ? overtaken(directory, replica) : copied(directory, replica, moves);
    const needed = readInvite(invite);
    demandOwn(directory, cluster, needed);
    const joinKeys = joiningKeys(directory, isAdopted ? joining : null, place, needed, random);
    return { type: 'join', invite: needed, keys: joinKeys };
  }
  const unused = glimpse(invite);
  if (unused !== null) demandOwn(directory, cluster, unused);
  writePlace(directory, place);
  if (!isAdopted) adoptJoiningKeys(directory);
  else if (joining !== null) dropJoiningKeys(directory);
  return { type: 'stay', stood: { cluster, replica, keys } };
}

/** Throws `INVITE_INVALID` for a text that is none, and what keeps it from being read. */
function readInvite(source: InviteSource): Invite {
  const text = source.needed();
  try {
    return parseInvite(text, nodeCrypto, signerFromSeed);
  } catch (cause) {
    throw new WaggleError('INVITE_INVALID', (cause as Error).message, { cause });
  }
}

/** An invite that a start does not need: whatever is wrong with it keeps no node from starting. */
function glimpse(source: InviteSource | null): Invite | null {
  const text = source?.atHand() ?? null;
  try {
    return text === null ? null : parseInvite(text, nodeCrypto, signerFromSeed);
  } catch {
    return null;
  }
}

/** Whoever brings an invite of another cluster has taken the wrong directory. */
function demandOwn(directory: string, { id }: Cluster, invite: Invite): void {
  if (invite.cluster !== id)
    throw new WaggleError(
      'CONFIG_INVALID',
      `Expected an invite of cluster ${id}, to which ${directory} belongs, received one of ${invite.cluster}; to join that one, use another directory`,
    );
}

/** The way of a directory that holds no standing. */
function firstWay(
  directory: string,
  joining: JoiningKeys | null,
  place: Place,
  invite: InviteSource | null,
  random: Random,
): Way {
  if (invite === null && joining !== null)
    throw new WaggleError(
      'CONFIG_INVALID',
      `Expected an invite of cluster ${joining.cluster}, which ${directory} began to join: that of then or a new one; to found a cluster, use another directory`,
    );
  if (invite !== null && readOperatorKey(directory) !== null)
    throw new WaggleError(
      'CONFIG_INVALID',
      `Expected no invite, as ${directory} began to found a cluster; to join one, use another directory`,
    );
  // Before anything is written: a text that is none leaves nothing behind.
  const needed = invite === null ? null : readInvite(invite);
  writePlace(directory, place);
  if (needed === null) return { type: 'found' };
  return { type: 'join', invite: needed, keys: joiningKeys(directory, joining, place, needed, random) };
}

/** Those that were drawn here for this cluster, if there are any: who crashed after it was admitted asks as the same replica. */
function joiningKeys(
  directory: string,
  joining: JoiningKeys | null,
  place: Place,
  { cluster }: Invite,
  random: Random,
): NodeKeys {
  if (joining?.cluster === cluster && differences(joining.place, place).length === 0) return joining.keys;
  return createJoiningKeys(directory, cluster, place, random);
}

const copied = (directory: string, replica: ReplicaId, moves: readonly string[]): WaggleError =>
  new WaggleError(
    'DATA_COPIED',
    `Expected ${directory} where replica ${replica} left it, but ${moves.join('; ')}. ` +
      'If it was moved and this is the only copy, start once with --data-moved true. If it is a copy, or was put back from a ' +
      'backup, start with --join and a new invite: it becomes a new replica and reports what it holds of the old one',
  );

const overtaken = (directory: string, replica: ReplicaId): WaggleError =>
  new WaggleError(
    'DATA_COPIED',
    `Expected ${directory} as replica ${replica} left it, but members hold registers of it that are not here: it was put back ` +
      'from an older copy. Start with --join and a new invite: it becomes a new replica and reports what it holds of the old one',
  );

const following = (directory: string, { id }: Cluster): WaggleError =>
  new WaggleError(
    'CONFIG_INVALID',
    `Expected --join and an invite of cluster ${id}, which ${directory} follows since it was recovered: it becomes a new ` +
      'replica there and reports what it holds of the old one',
  );

/** Throws `DATA_DAMAGED` when the store and the key files do not belong together; `isAdopted`: the keys stand where they belong. */
function readStood(
  directory: string,
  meta: Meta,
  joining: JoiningKeys | null,
): (Stood & { readonly isAdopted: boolean }) | null {
  const genesisText = meta.get(META.genesis);
  if (genesisText === undefined) return null;
  const cluster = clusterOf(parseGenesis(utf8(genesisText)), nodeCrypto);
  const replica = parseReplicaId(meta.get(META.replica));
  const keys = readNodeKeys(directory);
  if (keys !== null && isKeyOf(keys, replica, cluster)) return { cluster, replica, keys, isAdopted: true };
  if (joining !== null && isKeyOf(joining.keys, replica, cluster))
    return { cluster, replica, keys: joining.keys, isAdopted: false };
  throw new WaggleError(
    'DATA_DAMAGED',
    `Expected the keys of replica ${replica} in ${directory}/keys.json, ${keys === null ? 'which is missing' : 'found others'}`,
  );
}

/** Founders, and replicas of a predecessor, are bound to their keys by the genesis, all others by their id. */
function isKeyOf({ transport }: NodeKeys, replica: ReplicaId, { genesis }: Cluster): boolean {
  const key = base64.encode(transport.publicKey);
  const isOf = (entry: { readonly replica: ReplicaId }): boolean => entry.replica === replica;
  const founder = genesis.roster.find(isOf) ?? genesis.predecessor?.writers.find(isOf);
  return founder === undefined ? replicaIdOf(key, nodeCrypto) === replica : founder.transportKey === key;
}
