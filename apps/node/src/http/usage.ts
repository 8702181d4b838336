import { fromUtf8, WaggleError, type CustomerId, type Epoch } from '@waggle/protocol/base';
import { addUsage, parseUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { epochAt, epochBounds, type Genesis } from '@waggle/protocol/sealing';
import { STATEMENTS_PAGE_MAX, type StatementRow } from '@waggle/runtime';
import { coverageOf, type Coverage } from '../cluster.ts';
import type { Node } from '../node.ts';
import { rfc3339 } from './time.ts';

/** Epochs of one answer, and how many epochs after them are searched for their late usage. */
const EPOCHS_MAX = 10_000;

export const GROUPS = ['epoch', 'day', 'sku'] as const;
export type Group = (typeof GROUPS)[number];

export interface UsageQuery {
  /** Unix ms; `null`: the 24 hours before `toMs`, or the last `EPOCHS_MAX` epochs of them. */
  readonly fromMs: number | null;
  readonly toMs: number;
  readonly group: Group;
}

/** Usage of one customer in one billing category, from one place: a statement, or what no seal has counted yet. */
interface Part {
  /** In which it happened. */
  readonly epoch: Epoch;
  readonly sku: string;
  readonly usage: Usage;
  /** Whether it was not in the seal of that epoch, but is in a later one, or will be. */
  readonly isLate: boolean;
}

interface Sums {
  usage: Usage;
  late: Usage;
}

/**
 * A customer's usage by epoch, day or billing category: sealed, sealing and open told apart. Times are widened to whole epochs.
 * Throws `REQUEST_INVALID` for more than `EPOCHS_MAX` epochs.
 */
export async function readUsage(
  node: Node,
  customer: CustomerId,
  { fromMs, toMs, group }: UsageQuery,
): Promise<object> {
  const { genesis } = node.standing.cluster;
  // One moment: what no seal has counted by now, and then the statements of exactly the seals until now. An epoch that is
  // sealed while they are read is in the former.
  const { openEpoch, sealingEpoch } = node.driver;
  const coverage = coverageOf(node.driver, node.clock.nowMs());
  const unsealed = unsealedParts(node, customer);
  const latest = unsealed.reduce((max, { epoch }) => Math.max(max, epoch), openEpoch);
  const { first, last } = epochsOf(node, fromMs, toMs, latest);
  const statements = await readStatements(node, customer, first, Math.min(last + EPOCHS_MAX, sealingEpoch - 1));
  const parts = [...sealedParts(statements), ...unsealed].filter(({ epoch }) => epoch >= first && epoch <= last);
  const totals = parts.map(({ usage }) => usage).reduce(addUsage, ZERO_USAGE);
  const hasOpen = first <= openEpoch && openEpoch <= last;
  return {
    customer,
    from: rfc3339(epochBounds(genesis, first).startMs),
    to: rfc3339(genesis.startMs + (last + 1) * genesis.epochMs),
    ...freshnessView(coverage),
    totals,
    ...grouped(genesis, group, parts, { openEpoch, sealingEpoch, hasOpen }),
  };
}

const orNull = (ms: number | null): string | null => (ms === null ? null : rfc3339(ms));

/** A coverage as the API shows it. */
export const freshnessView = ({ asOfMs: allMs, members, of, oldestMs, replicas }: Coverage): object => ({
  asOf: orNull(allMs),
  coverage: {
    members,
    of,
    oldest: rfc3339(oldestMs),
    replicas: replicas.map(({ asOfMs, ...one }) => ({ ...one, asOf: orNull(asOfMs) })),
  },
});

/**
 * The epochs that a time range touches: first and last, where last may be first − 1. A range that reaches the present goes on to the
 * latest epoch with usage: a node whose clock was ahead meters into that.
 */
function epochsOf(
  { standing, clock }: Node,
  fromMs: number | null,
  toMs: number,
  latest: Epoch,
): { first: Epoch; last: Epoch } {
  const { genesis } = standing.cluster;
  const { startMs, epochMs } = genesis;
  const touched = Math.ceil((toMs - startMs) / epochMs) - 1;
  const last = Math.max(-1, Math.min(latest, touched));
  const end = touched < epochAt(genesis, clock.nowMs()) ? last : latest;
  const epochOf = (ms: number): Epoch => Math.max(0, Math.floor((ms - startMs) / epochMs));
  if (fromMs === null) return { first: Math.max(epochOf(toMs - 86_400_000), last - EPOCHS_MAX + 1), last: end };
  const first = Math.min(epochOf(fromMs), last + 1);
  if (last - first >= EPOCHS_MAX)
    throw new WaggleError(
      'REQUEST_INVALID',
      `Expected at most ${EPOCHS_MAX} epochs from from to to, received ${last - first + 1}`,
    );
  return { first, last: end };
}

/** The statements of a customer that were sealed in the epochs from first to last. */
async function readStatements(
  { store }: Node,
  customer: CustomerId,
  first: Epoch,
  last: Epoch,
): Promise<StatementRow[]> {
  const statements: StatementRow[] = [];
  for (let from = first; ;) {
    const page = await store.statementsOf(customer, from, last, STATEMENTS_PAGE_MAX);
    if (page.length < STATEMENTS_PAGE_MAX) return [...statements, ...page];
    // The last epoch of a full page may go on: it is read again.
    from = page.at(-1)!.epoch;
    statements.push(...page.filter(({ epoch }) => epoch < from));
  }
}

/** The billing categories of a statement. */
export function statementUsage(bytes: Uint8Array): [sku: string, usage: Usage][] {
  const { usage } = JSON.parse(fromUtf8(bytes)) as { usage: Record<string, unknown> };
  return Object.entries(usage).map(([sku, counts]) => [sku, parseUsage(counts)]);
}

const sealedParts = (statements: readonly StatementRow[]): Part[] =>
  statements.flatMap(({ epoch, origin, bytes }) =>
    statementUsage(bytes).map(([sku, usage]) => ({
      epoch: origin,
      sku,
      usage,
      isLate: epoch !== origin,
    })),
  );

function unsealedParts({ driver }: Node, customer: CustomerId): Part[] {
  return driver.unsealed.epochs().flatMap((epoch) =>
    [...driver.unsealed.skus(epoch, customer)].map((sku) => ({
      epoch,
      sku,
      usage: driver.unsealed.usage(epoch, customer, sku),
      isLate: epoch < driver.sealingEpoch,
    })),
  );
}

/** Where the epochs stood at the moment of an answer. */
interface Moment {
  readonly openEpoch: Epoch;
  readonly sealingEpoch: Epoch;
  /** Whether the open epoch is listed, with usage or without. */
  readonly hasOpen: boolean;
}

function grouped(genesis: Genesis, group: Group, parts: readonly Part[], moment: Moment): object {
  if (group === 'sku')
    return { skus: [...sumBy(parts, ({ sku }) => sku)].sort(byKey).map(([sku, sums]) => ({ sku, ...sums })) };
  if (group === 'day') {
    const dayOf = ({ epoch }: Part): string => rfc3339(epochBounds(genesis, epoch).startMs).slice(0, 10);
    return { days: [...sumBy(parts, dayOf)].sort(byKey).map(([day, sums]) => ({ day, ...sums })) };
  }
  const { openEpoch, sealingEpoch, hasOpen } = moment;
  const sums = sumBy(parts, ({ epoch }) => epoch);
  if (hasOpen && !sums.has(openEpoch)) sums.set(openEpoch, { usage: ZERO_USAGE, late: ZERO_USAGE });
  const epochs = [...sums]
    .sort(([a], [b]) => a - b)
    .map(([epoch, { usage, late }]) => {
      const { startMs, endMs } = epochBounds(genesis, epoch);
      const state = epoch >= openEpoch ? 'open' : epoch < sealingEpoch ? 'sealed' : 'sealing';
      return { epoch, start: rfc3339(startMs), end: rfc3339(endMs), state, usage, late };
    });
  return { epochs };
}

const byKey = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

function sumBy<K>(parts: readonly Part[], keyOf: (part: Part) => K): Map<K, Sums> {
  const sums = new Map<K, Sums>();
  for (const part of parts) {
    const key = keyOf(part);
    let sum = sums.get(key);
    if (sum === undefined) sums.set(key, (sum = { usage: ZERO_USAGE, late: ZERO_USAGE }));
    if (part.isLate) sum.late = addUsage(sum.late, part.usage);
    else sum.usage = addUsage(sum.usage, part.usage);
  }
  return sums;
}
