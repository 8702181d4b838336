import { BUNDLE_FILES, verifyRosters, type Bundle, type RosterFrom } from '@waggle/protocol/audit';
import { fromUtf8, WaggleError, type ClusterId, type Epoch } from '@waggle/protocol/base';
import { chainStart, parseRoster, rosterDigest, type Cluster, type Roster } from '@waggle/protocol/sealing';
import { parseLogProof, parseNote } from '@waggle/protocol/transparency';
import { nodeCrypto } from './node-crypto.ts';
import { keysOf } from './signed.ts';
import { UnusableError } from './source.ts';
import type { State } from './state.ts';

/** Rosters of a cluster, as somebody verified them: ascending, the first from its first epoch on. */
export interface Known {
  readonly cluster: ClusterId;
  readonly rosters: readonly RosterFrom[];
  /** The last epoch whose roster is certain: later ones may have changed it. */
  readonly upTo: Epoch;
}

/** What a genesis alone says. */
export function rostersOfGenesis(cluster: Cluster): Known {
  const { epoch, roster } = chainStart(cluster);
  return { cluster: cluster.id, rosters: [{ from: epoch, roster }], upTo: epoch };
}

/** What was verified of the epochs up to one. */
export const rostersOfState = ({ verified: { cluster, chain }, rosters }: State): Known => ({
  cluster: cluster.id,
  rosters,
  upTo: chain.epoch,
});

/** What a chain of rosters proves. Throws as `verifyRosters`. */
export function rostersOfChain(cluster: Cluster, lines: Uint8Array): Known {
  const rosters = verifyRosters(cluster, lines, nodeCrypto);
  return { cluster: cluster.id, rosters, upTo: rosters.at(-1)!.from };
}

/** The roster of an epoch as far as any of these know it, of one cluster and at least one: by whoever has seen most. */
export function rosterAt(
  known: readonly Known[],
  epoch: Epoch,
): { readonly roster: Roster; readonly isCertain: boolean } {
  const { rosters, upTo } = known.reduce((best, each) => (each.upTo > best.upTo ? each : best));
  const { roster } = rosters.findLast(({ from }) => from <= epoch) ?? rosters[0]!;
  return { roster, isCertain: epoch <= upTo };
}

/** What to do where the roster of an epoch is not known. */
export const unknownRoster = (epoch: Epoch, what: string): UnusableError =>
  new UnusableError(
    `Expected to know who had to sign epoch ${epoch}: ${what}. The roster has changed since the last one that is known (that of the genesis, if there is nothing else): ` +
      'give --genesis with --rosters, a file of GET /v1/rosters.jsonl as any node shows it now, or --state of a run that verified up to there',
  );

/** The roster that a bundle says its epoch has; null if it says none. */
export function rosterIn(bundle: Bundle): Roster | null {
  try {
    return parseRoster(bundle.get(BUNDLE_FILES.roster) ?? new Uint8Array());
  } catch (error) {
    if (error instanceof WaggleError) return null;
    throw error;
  }
}

export const isSameRoster = (a: Roster, b: Roster): boolean =>
  rosterDigest(a, nodeCrypto) === rosterDigest(b, nodeCrypto);

/** Whether a proof that does not hold against a roster may hold against another one: others signed, or too few of these. */
export function mayBeOfOthers(error: unknown, proof: Uint8Array, cluster: Cluster, roster: Roster): boolean {
  if (!(error instanceof WaggleError)) return false;
  if (error.code === 'QUORUM_MISSING') return true;
  if (error.code !== 'CHECKPOINT_INVALID') return false;
  const keys = keysOf(cluster, roster);
  const { signatures } = parseNote(parseLogProof(fromUtf8(proof)).checkpoint);
  return signatures.some((line) => !keys.some(({ name, keyId }) => name === line.name && keyId === line.keyId));
}
