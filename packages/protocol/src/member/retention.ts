import { parseDigest, parseWhole, type Digest, type Epoch, type ReplicaId } from '../base/index.ts';
import type { ControlRegister, Registers } from '../lattice/index.ts';
import { REGISTERS_KEPT_EPOCHS } from '../sealing/index.ts';

const SEALING_KEY = /^(?:close|ballot|seal)\/([0-9]+)$/;

/** The epoch of a register that is sealing's; null for any other. */
export function sealingEpochOf(key: string): Epoch | null {
  const epoch = SEALING_KEY.exec(key)?.[1];
  return epoch === undefined ? null : Number(epoch);
}

/** Whether a register is one of an epoch sealed long ago, when `sealingEpoch` is to be sealed next: every node drops it. */
export function isExpired(key: string, sealingEpoch: Epoch): boolean {
  const epoch = sealingEpochOf(key);
  return epoch !== null && epoch < sealingEpoch - REGISTERS_KEPT_EPOCHS;
}

/** The registers that go with the seal of an epoch, of all replicas. Of `own` the last close stays: it says which epochs are closed. */
export function expiredWith(
  sealed: Epoch,
  control: Registers<ControlRegister, ReplicaId>,
  own: ReplicaId,
  unclosedEpoch: Epoch,
): { readonly replica: ReplicaId; readonly key: string }[] {
  const epoch = sealed - REGISTERS_KEPT_EPOCHS;
  const keys = ['close', 'ballot', 'seal'].map((kind) => `${kind}/${epoch}`);
  return control
    .writers()
    .filter((replica) => replica !== own || epoch < unclosedEpoch - 1)
    .flatMap((replica) =>
      keys.filter((key) => control.get(replica, key) !== undefined).map((key) => ({ replica, key })),
    );
}

/** The contents that each sealed epoch let go of, while members that are behind may still want them. */
export type Releases = ReadonlyMap<Epoch, readonly Digest[]>;

/** What becomes of the releases with a seal: with nobody else at once, else as long as the registers are shown. */
export function releaseWith(
  releases: Releases,
  sealed: Epoch,
  digests: readonly Digest[],
  isAlone: boolean,
): { readonly kept: Releases; readonly dropped: readonly Digest[] } {
  const all = [...releases, [sealed, digests] as const];
  const isKept = ([epoch]: readonly [Epoch, unknown]): boolean => !isAlone && epoch > sealed - REGISTERS_KEPT_EPOCHS;
  const kept = new Map(all.filter(isKept));
  const needed = new Set([...kept.values()].flat());
  const dropped = all.filter((entry) => !isKept(entry)).flatMap(([, each]) => each);
  return { kept, dropped: [...new Set(dropped)].filter((digest) => !needed.has(digest)) };
}

/** The releases without contents that are pinned again. */
export const withoutPinned = (releases: Releases, pinned: ReadonlySet<Digest>): Releases =>
  pinned.size === 0
    ? releases
    : new Map([...releases].map(([epoch, digests]) => [epoch, digests.filter((digest) => !pinned.has(digest))]));

/** The text that `parseReleases` reads. */
export const formatReleases = (releases: Releases): string => JSON.stringify([...releases]);

/** The releases of a text from our own disk; none for undefined. Throws `DECODE_FAILED`. */
export function parseReleases(text: string | undefined): Releases {
  const entries = text === undefined ? [] : (JSON.parse(text) as [unknown, unknown[]][]);
  return new Map(entries.map(([epoch, digests]) => [parseWhole(epoch, 'an epoch'), digests.map(parseDigest)]));
}
