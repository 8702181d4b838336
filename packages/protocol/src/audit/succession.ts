import { base64, equalBytes, utf8, WaggleError, type Crypto, type Epoch } from '../base/index.ts';
import { chainStart, originOf, rosterDigest, successorBytes, type ChainState, type Cluster } from '../sealing/index.ts';
import { frontierRoot, type Checkpoint } from '../transparency/index.ts';
import { readCheckpoint } from './checkpoint.ts';
import type { Verified } from './verify.ts';

/** Where a cluster's log goes on from its predecessor's, by the word of the operator. */
export interface Succession {
  readonly cluster: Cluster;
  /** The first epoch of the successor. */
  readonly epoch: Epoch;
  /** The predecessor's last checkpoint, opened; null if it sealed nothing itself. */
  readonly checkpoint: Checkpoint | null;
  /** Whose cosignatures it carries, first 8 digits of the replicas. */
  readonly cosigners: readonly string[];
  readonly reason: string;
}

/**
 * Checks what the genesis of a successor says by itself: that the operator signed it, and that a majority of the roster in it
 * signed the last checkpoint of the predecessor's log. Null for a cluster that succeeds none. Throws `GENESIS_MISMATCH`.
 */
export function verifySuccessor(cluster: Cluster, crypto: Crypto): Succession | null {
  const { genesis } = cluster;
  const { predecessor } = genesis;
  if (predecessor === undefined) return null;
  const isSigned = crypto.ed25519Verify(
    base64.decode(genesis.operatorKey),
    successorBytes(genesis),
    base64.decode(predecessor.signature),
  );
  if (!isSigned) refuse(`Expected the operator to have signed that ${cluster.id} succeeds ${predecessor.cluster}`);
  const { epoch, roster, reason } = predecessor;
  if (predecessor.checkpoint === null) return { cluster, epoch, checkpoint: null, cosigners: [], reason };
  try {
    const origin = originOf(genesis.name, predecessor.cluster);
    return { cluster, epoch, ...readCheckpoint(utf8(predecessor.checkpoint), origin, roster, crypto), reason };
  } catch (cause) {
    if (!(cause instanceof WaggleError)) throw cause;
    throw new WaggleError('GENESIS_MISMATCH', `The checkpoint of the predecessor: ${cause.message}`, { cause });
  }
}

/**
 * Checks a successor against what was verified of its predecessor up to the end: the same operator, name and epochs; that log ends
 * with the checkpoint and the header that the genesis names; and the genesis says of every slot what the seals had counted, neither
 * more nor less. So what the predecessor counted is not counted again, and nothing that it did not count is lost by the break.
 * `predecessor` has to be verified from its own genesis on, else nobody knows all that was counted; null if it sealed nothing.
 * Throws `GENESIS_MISMATCH`, `HISTORY_CHANGED` if the predecessor's log ends elsewhere, and `CONSERVATION_BROKEN`.
 */
export function verifyBreak(
  succession: Succession,
  predecessor: { readonly cluster: Cluster; readonly verified: Verified | null },
  crypto: Crypto,
): void {
  const { cluster, epoch, checkpoint } = succession;
  const start = chainStart(cluster);
  demandSame(cluster, predecessor.cluster);
  const chain = predecessor.verified?.chain ?? chainStart(predecessor.cluster);
  if (chain.epoch !== epoch)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected the predecessor's log to end before epoch ${epoch}, as the successor says, received one that ends before epoch ${chain.epoch}`,
    );
  if (predecessor.verified !== null && !predecessor.verified.fromGenesis)
    refuse('Expected the predecessor to be verified from its genesis on');
  const frontier = predecessor.verified?.frontier;
  const isSameTree =
    frontier === undefined
      ? checkpoint === null
      : checkpoint?.size === frontier.size && equalBytes(checkpoint.root, frontierRoot(crypto, frontier));
  if (!isSameTree || chain.previous !== start.previous || chain.format !== start.format)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected the predecessor's log to end as the successor says, with header ${start.previous} and ${checkpoint?.size ?? 0} leaves, received header ${chain.previous} and ${frontier?.size ?? 0} leaves, or another root`,
    );
  if (countedText(chain) !== countedText(start))
    throw new WaggleError(
      'CONSERVATION_BROKEN',
      `Expected the successor to begin with what ${predecessor.cluster.id} had counted, slot by slot`,
    );
  demandPastWriters(cluster, predecessor.cluster, crypto);
}

/** What must not change from a cluster to its successor. */
function demandSame({ genesis }: Cluster, before: Cluster): void {
  if (genesis.predecessor?.cluster !== before.id)
    refuse(`Expected the predecessor ${genesis.predecessor?.cluster ?? '(none)'}, received ${before.id}`);
  for (const field of ['operatorKey', 'name', 'startMs', 'epochMs'] as const)
    if (genesis[field] !== before.genesis[field])
      refuse(`Expected ${field} ${before.genesis[field]} as the predecessor has it, received ${genesis[field]}`);
}

/** The founders of the predecessor go on to be read under the keys that its genesis gives them, or not at all. */
function demandPastWriters({ genesis }: Cluster, before: Cluster, crypto: Crypto): void {
  const founders = new Map(before.genesis.roster.map((entry) => [entry.replica, entry.transportKey]));
  for (const { replica, transportKey, cluster } of genesis.predecessor?.writers ?? []) {
    const expected = cluster === before.id ? founders.get(replica) : undefined;
    if (expected !== undefined && expected !== transportKey) refuse(`Expected the transport key of ${replica}`);
  }
  // The first header follows from a roster of the new cluster: none of the old one votes again under its id.
  const old = genesis.predecessor?.roster ?? [];
  if (
    rosterDigest(old, crypto) === rosterDigest(genesis.roster, crypto) ||
    old.some(({ replica }) => isIn(genesis, replica))
  )
    refuse('Expected new replicas in the roster of the successor');
}

const isIn = ({ roster }: Cluster['genesis'], replica: string): boolean =>
  roster.some((entry) => entry.replica === replica);

/** The same text for the same figures, whatever order they were counted in. */
const countedText = ({ counted, closed }: ChainState): string =>
  JSON.stringify([[...counted].sort(byName), [...closed].sort(byName)]);

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

function refuse(message: string): never {
  throw new WaggleError('GENESIS_MISMATCH', message);
}
