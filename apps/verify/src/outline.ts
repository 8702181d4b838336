import {
  BUNDLE_FILES,
  parseChainFile,
  totalsOf,
  verifySuccessor,
  type Bundle,
  type EpochReport,
  type Verified,
} from '@waggle/protocol/audit';
import { parseFacts, verifyFact } from '@waggle/protocol/authority';
import { base64, digestOf, equalBytes, parseCustomerId, WaggleError } from '@waggle/protocol/base';
import type { ClusterId, ReplicaId } from '@waggle/protocol/base';
import { ZERO_USAGE } from '@waggle/protocol/lattice';
import {
  chainStart,
  outcomeOf,
  parseRoster,
  parseSlotList,
  rosterDigest,
  type ChainState,
  type Cluster,
  type Roster,
  type RosterEntry,
} from '@waggle/protocol/sealing';
import {
  appendToFrontier,
  EMPTY_FRONTIER,
  frontierRoot,
  leafHash,
  statementLeaf,
  type Frontier,
} from '@waggle/protocol/transparency';
import { SKUS } from '@waggle/protocol/usage';
import { parseCluster } from './cluster.ts';
import { nodeCrypto } from './node-crypto.ts';
import { openSealed } from './signed.ts';
import { statementsIn } from './statements.ts';

const EMPTY = digestOf(nodeCrypto, new Uint8Array());
const NOBODY = parseCustomerId('nobody');

/** Whether a bundle comes without the contents of the slots that its slot list names: they are not kept for ever. */
export const isOutline = (bundle: Bundle): boolean =>
  (bundle.get(BUNDLE_FILES.slotList)?.length ?? 0) > 0 &&
  ![...bundle.keys()].some((name) => /^(slots|counted)\//.test(name));

function file(bundle: Bundle, name: string): Uint8Array {
  const bytes = bundle.get(name);
  if (bytes === undefined) throw new WaggleError('BUNDLE_MALFORMED', `Expected the file ${name}, which is missing`);
  return bytes;
}

/**
 * Checks all of a sealed epoch but that its statements are the sums of its slots: the header continues the chain and names these
 * lists, a majority of the roster signed the tree, and the header and these statements, in this order, are what the tree grew by.
 * Only in sequence: `after` is what was verified before, null before epoch 0. Throws as `verifyBundle`.
 */
export function verifyOutline(
  bundle: Bundle,
  after: Verified | null,
  pinned: ClusterId | null,
): { readonly verified: Verified; readonly report: EpochReport } {
  try {
    return verifyParts(bundle, after, pinned);
  } catch (error) {
    if (!(error instanceof WaggleError) || error.code !== 'DECODE_FAILED') throw error;
    throw new WaggleError('BUNDLE_MALFORMED', error.message, { cause: error });
  }
}

function verifyParts(
  bundle: Bundle,
  after: Verified | null,
  pinned: ClusterId | null,
): { readonly verified: Verified; readonly report: EpochReport } {
  const names = new Set<string>(Object.values(BUNDLE_FILES));
  for (const name of names) file(bundle, name);
  for (const name of bundle.keys())
    if (!names.has(name)) throw new WaggleError('BUNDLE_MALFORMED', `Expected no file ${name}`);
  const cluster = parseCluster(file(bundle, BUNDLE_FILES.genesis));
  const expected = after?.cluster.id ?? pinned;
  if (expected !== null && cluster.id !== expected)
    throw new WaggleError(
      'GENESIS_MISMATCH',
      `Expected the genesis of cluster ${expected}, received that of ${cluster.id}`,
    );
  if (after === null) verifySuccessor(cluster, nodeCrypto);
  const { chain, frontier: before } = checkChain(bundle, after, cluster);
  const slotList = parseSlotList(file(bundle, BUNDLE_FILES.slotList));
  const value = {
    header: file(bundle, BUNDLE_FILES.header),
    slotList,
    facts: file(bundle, BUNDLE_FILES.facts),
    nextRoster: file(bundle, BUNDLE_FILES.nextRoster),
  };
  // The contents are what is not there; what follows without them is checked. The chain only asks which of them are empty.
  const { next } = outcomeOf(
    cluster,
    chain,
    value,
    (digest) => (digest === EMPTY ? [] : [{ customer: NOBODY, sku: SKUS[0], usage: ZERO_USAGE }]),
    nodeCrypto,
  );
  checkFacts(value.facts, chain.roster, next.roster, cluster);
  const statements = statementsIn(bundle);
  const leaves = [value.header, ...statements.map(({ text }) => statementLeaf(text, chain.epoch, nodeCrypto))];
  const frontier = appendToFrontier(
    nodeCrypto,
    before,
    leaves.map((leaf) => leafHash(nodeCrypto, leaf)),
  );
  const { checkpoint, cosigners } = openSealed(file(bundle, BUNDLE_FILES.checkpoint), cluster, chain.roster);
  const root = frontierRoot(nodeCrypto, frontier);
  if (checkpoint.size !== frontier.size || !equalBytes(checkpoint.root, root))
    throw new WaggleError(
      'ROOT_MISMATCH',
      `Expected tree size ${frontier.size} and root ${base64.encode(root)} after epoch ${chain.epoch}, received ${checkpoint.size} and ${base64.encode(checkpoint.root)}`,
    );
  return {
    verified: { cluster, chain: next, frontier, fromGenesis: after?.fromGenesis ?? true },
    report: {
      epoch: chain.epoch,
      treeSize: frontier.size,
      root,
      slots: slotList.length,
      statements: statements.length,
      late: statements.filter(({ epoch }) => epoch !== chain.epoch).length,
      totals: totalsOf(statements.map(({ totals }) => totals)),
      roster: chain.roster.length,
      cosigners,
    },
  };
}

/** Whoever comes or goes does so by a fact that is signed as it has to be, and comes with the keys in it. */
function checkFacts(bytes: Uint8Array, before: Roster, after: Roster, cluster: Cluster): void {
  const facts = parseFacts(bytes);
  try {
    for (const fact of facts) verifyFact(fact, cluster, nodeCrypto);
  } catch (cause) {
    if (!(cause instanceof WaggleError)) throw cause;
    throw new WaggleError('ROSTER_MISMATCH', `${BUNDLE_FILES.facts}: ${cause.message}`, { cause });
  }
  const isIn = (roster: Roster, replica: ReplicaId): boolean => roster.some((entry) => entry.replica === replica);
  const hasCome = (entry: RosterEntry): boolean =>
    facts.some(
      (fact) =>
        fact.kind === 'admit' &&
        fact.replica === entry.replica &&
        fact.transportKey === entry.transportKey &&
        fact.logKey === entry.logKey &&
        fact.cosignerKey === entry.cosignerKey,
    );
  const hasGone = ({ replica }: RosterEntry): boolean =>
    facts.some((fact) => fact.kind !== 'admit' && fact.replica === replica);
  const wrong =
    after.find((entry) => !isIn(before, entry.replica) && !hasCome(entry)) ??
    before.find((entry) => !isIn(after, entry.replica) && !hasGone(entry));
  if (wrong !== undefined)
    throw new WaggleError('ROSTER_MISMATCH', `Expected a fact by which ${wrong.replica} comes or goes, found none`);
}

/** The chain before this epoch, which the bundle has to say as it was verified. */
function checkChain(
  bundle: Bundle,
  after: Verified | null,
  cluster: Cluster,
): { readonly chain: ChainState; readonly frontier: Frontier } {
  const said = parseChainFile(file(bundle, BUNDLE_FILES.chain));
  const chain = after?.chain ?? chainStart(cluster);
  const frontier = after?.frontier ?? EMPTY_FRONTIER;
  const isSame =
    said.epoch === chain.epoch &&
    said.previous === chain.previous &&
    said.format === chain.format &&
    said.frontier.size === frontier.size &&
    said.frontier.hashes.every((hash, i) => equalBytes(hash, frontier.hashes[i]!));
  if (!isSame)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected epoch ${chain.epoch} after header ${chain.previous} and a tree of ${frontier.size} leaves, received epoch ${said.epoch} after header ${said.previous} and ${said.frontier.size} leaves`,
    );
  const roster = parseRoster(file(bundle, BUNDLE_FILES.roster));
  if (rosterDigest(roster, nodeCrypto) !== rosterDigest(chain.roster, nodeCrypto))
    throw new WaggleError(
      'ROSTER_MISMATCH',
      `Expected the roster that the epoch before decided in epoch ${said.epoch}`,
    );
  return { chain, frontier };
}
