import type { Digest } from '../base/index.ts';
import type { TileEdge } from '../transparency/index.ts';
import { slotName } from '../usage/index.ts';
import type { Ground } from './compose.ts';
import type { Job, Results } from './compute.ts';
import type { SealedEpoch, SealingEffect } from './effects.ts';
import type { Jobs } from './jobs.ts';
import { encodeRoster } from './roster.ts';
import type { Value } from './value.ts';

/** What a value makes of the log. */
export type Extended = Omit<SealedEpoch, 'checkpoint' | 'release'>;

/** What the log is extended from, and by whom. */
export interface Log extends Pick<Ground, 'cluster' | 'chain' | 'contents'> {
  readonly edge: TileEdge;
  readonly jobs: Jobs;
}

/** The log with a value, out of the contents of its slots; undefined while it is being computed. Throws as `outcomeOf`. */
export function extend(log: Log, header: Digest, value: Value, effects: SealingEffect[]): Extended | undefined {
  const contents = new Map<Digest, Uint8Array>();
  for (const entry of value.slotList)
    for (const named of [entry.digest, log.chain.counted.get(slotName(entry)) ?? entry.digest])
      contents.set(named, log.contents.bytes(named));
  const bytes = [...contents.values()].reduce((sum, { length }) => sum + length, 0);
  const job = () => ({ kind: 'seal', ...partsOf(log, value), contents }) as const;
  const computed = log.jobs.result<'seal'>(`seal ${header}`, bytes, job, effects);
  return computed && extendedBy(log, computed, value, contents);
}

/** Likewise, out of its statements, which are asked for. Throws as `outlineOf`. */
export function extendWithoutSlots(
  log: Log,
  digest: Digest,
  value: Value,
  effects: SealingEffect[],
): Extended | undefined {
  if (!log.contents.have([digest], effects)) return undefined;
  const statements = log.contents.bytes(digest);
  const job = () => ({ kind: 'outline', ...partsOf(log, value), statements }) as const;
  const computed = log.jobs.result<'outline'>(`outline ${digest}`, statements.length, job, effects);
  return computed && extendedBy(log, computed, value, new Map());
}

const partsOf = (
  { cluster, chain, edge }: Log,
  value: Value,
): Omit<Extract<Job, { kind: 'seal' }>, 'kind' | 'contents'> => ({
  cluster,
  chain,
  edge,
  header: value.header,
  slotList: value.slotListBytes,
  facts: value.facts,
  nextRoster: encodeRoster(value.nextRoster),
});

const extendedBy = (
  { chain: { epoch, roster }, edge: before }: Log,
  { statements, next, edge, root, tiles }: Results['seal'],
  value: Value,
  contents: ReadonlyMap<Digest, Uint8Array>,
): Extended => ({
  epoch,
  roster,
  value,
  outcome: {
    statements,
    slots: value.slotList.map((id) => ({ id, content: contents.get(id.digest) ?? null })),
    next,
  },
  firstLeaf: before.size,
  treeSize: edge.size,
  root,
  tiles,
  edge,
});
