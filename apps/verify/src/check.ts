import {
  bundleEpoch,
  totalsOf,
  verifyBundle,
  type EpochReport,
  type Totals,
  type Verified,
} from '@waggle/protocol/audit';
import { AssertionError, base64, equalBytes, WaggleError, type ClusterId, type Epoch } from '@waggle/protocol/base';
import { clusterOf, parseGenesis, type Cluster } from '@waggle/protocol/sealing';
import { frontierRoot } from '@waggle/protocol/transparency';
import { nodeCrypto } from './node-crypto.ts';
import { UnusableError, type Item, type Source } from './source.ts';

/** A good epoch, as it is told while the check goes on. */
export interface CheckedEpoch extends EpochReport {
  readonly where: string;
  /** Whether everything from the genesis up to this epoch was verified, now or in an earlier run. */
  readonly anchored: boolean;
}

/** What is wrong, and where. */
export interface Finding {
  readonly error: WaggleError;
  /** Null if it is nothing about one epoch. */
  readonly epoch: Epoch | null;
  readonly where: string;
}

/** What came of a check: all that was good up to the end, or to the first thing that was not. */
export interface Outcome {
  readonly cluster: Cluster | null;
  readonly epochs: number;
  readonly first: Epoch | null;
  readonly last: Epoch | null;
  readonly statements: number;
  readonly totals: Totals;
  /** Epochs that followed nothing that was verified: each begins a stretch that stands for itself. */
  readonly unanchored: readonly Epoch[];
  /** What is to be gone on from next time; null if nothing was verified from the genesis on. */
  readonly state: Verified | null;
  readonly finding: Finding | null;
}

/** Goes through the bundles of a source, one in memory at a time. Throws `UnusableError`; what is wrong is in the outcome. */
export async function checkSource(
  source: Source,
  name: string,
  pinned: ClusterId | null,
  state: Verified | null,
  tell: (epoch: CheckedEpoch) => void,
): Promise<Outcome> {
  let item: Item | null = null;
  let last: Verified | null = null;
  const outcome = {
    cluster: state?.cluster ?? null,
    epochs: 0,
    first: null as Epoch | null,
    last: null as Epoch | null,
    statements: 0,
    totals: totalsOf([]),
    unanchored: [] as Epoch[],
    state,
    finding: null as Finding | null,
  };
  try {
    if (source.genesis !== null) outcome.cluster = readGenesis(source.genesis, pinned);
    for await (item of source.items(state)) {
      const expected: ClusterId | null = pinned ?? outcome.cluster?.id ?? null;
      const { verified, report } = await checkItem(item, [last, state], expected);
      checkState(verified, state);
      last = verified;
      if (!verified.fromGenesis && report.epoch !== (outcome.last ?? -2) + 1) outcome.unanchored.push(report.epoch);
      outcome.cluster = verified.cluster;
      outcome.epochs++;
      outcome.first ??= report.epoch;
      outcome.last = report.epoch;
      outcome.statements += report.statements;
      outcome.totals = totalsOf([outcome.totals, report.totals]);
      if (verified.fromGenesis && verified.chain.epoch > (outcome.state?.chain.epoch ?? 0)) outcome.state = verified;
      tell({ ...report, where: item.where, anchored: verified.fromGenesis });
    }
  } catch (error) {
    outcome.finding = { error: explain(error), epoch: item?.epoch ?? null, where: item?.where ?? name };
  }
  return outcome;
}

function readGenesis(bytes: Uint8Array, pinned: ClusterId | null): Cluster {
  const cluster = parseCluster(bytes);
  if (pinned !== null && cluster.id !== pinned)
    throw new WaggleError(
      'GENESIS_MISMATCH',
      `Expected the genesis of cluster ${pinned}, received that of ${cluster.id}`,
    );
  return cluster;
}

/** The cluster that an encoded genesis founds. Throws `GENESIS_MISMATCH`. */
export function parseCluster(bytes: Uint8Array): Cluster {
  try {
    return clusterOf(parseGenesis(bytes), nodeCrypto);
  } catch (cause) {
    throw new WaggleError('GENESIS_MISMATCH', `genesis: ${(cause as Error).message}`, { cause });
  }
}

/** Verifies one bundle after the first of what was verified before that it follows, or alone. */
async function checkItem(
  item: Item,
  before: readonly (Verified | null)[],
  pinned: ClusterId | null,
): Promise<ReturnType<typeof verifyBundle>> {
  const bundle = await item.load();
  const epoch = bundleEpoch(bundle);
  if (epoch !== item.epoch)
    throw new WaggleError(
      'BUNDLE_MALFORMED',
      `Expected the bundle of epoch ${item.epoch}, received that of epoch ${epoch}`,
    );
  const after = before.find((verified) => verified?.chain.epoch === epoch) ?? null;
  const found = verifyBundle(bundle, after, pinned, nodeCrypto);
  const { listed } = item;
  const { treeSize, root } = found.report;
  if (listed !== null && (listed.treeSize !== treeSize || !equalBytes(listed.root, root)))
    throw new WaggleError(
      'ROOT_MISMATCH',
      `Expected tree size ${treeSize} and root ${base64.encode(root)} in the list of epochs, as in the bundle, received ${listed.treeSize} and ${base64.encode(listed.root)}`,
    );
  return found;
}

/** A bundle of the epoch that was verified last in an earlier run must lead to the very same log. */
function checkState(verified: Verified, state: Verified | null): void {
  if (state === null || verified.chain.epoch !== state.chain.epoch) return;
  const [root, expected] = [verified, state].map(({ frontier }) => frontierRoot(nodeCrypto, frontier)) as [
    Uint8Array,
    Uint8Array,
  ];
  const isSame =
    verified.chain.previous === state.chain.previous &&
    verified.frontier.size === state.frontier.size &&
    equalBytes(root, expected);
  if (!isSame)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected tree size ${state.frontier.size} and root ${base64.encode(expected)} after epoch ${state.chain.epoch - 1}, as verified before, received ${verified.frontier.size} and ${base64.encode(root)}`,
    );
}

/** What the table of errors calls it. What cannot be read is no bundle; a broken assumption is a bug of ours. Throws `UnusableError` on. */
export function explain(error: unknown): WaggleError {
  if (error instanceof UnusableError) throw error;
  if (error instanceof WaggleError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new WaggleError(error instanceof AssertionError ? 'INTERNAL' : 'BUNDLE_MALFORMED', message, { cause: error });
}
