import { BUNDLE_FILES, countedFile, slotFile, totalsOf, type Bundle, type Totals } from '@waggle/protocol/audit';
import { compareText, fromUtf8, parseCustomerId, parseJcs, parseWhole, utf8, WaggleError } from '@waggle/protocol/base';
import type { CustomerId, Epoch } from '@waggle/protocol/base';
import { parseUsage } from '@waggle/protocol/lattice';
import { parseFields, parseSlotList } from '@waggle/protocol/sealing';
import { parseSlot, subtractSlots } from '@waggle/protocol/usage';

/** What a line of a bundle's statements says, as far as the verifier tells it. */
export interface StatementLine {
  readonly text: string;
  readonly customer: CustomerId;
  /** The epoch that the usage comes from. */
  readonly epoch: Epoch;
  readonly totals: Totals;
}

const FIELDS = ['format', 'cluster', 'customer', 'sealedIn', 'epoch', 'start', 'end', 'usage', 'salt'];

/** The statements of a bundle, in its order. Throws `STATEMENT_MISMATCH` for a line that is none. */
export function statementsIn(bundle: Bundle): StatementLine[] {
  try {
    const lines = fromUtf8(bundle.get(BUNDLE_FILES.statements) ?? new Uint8Array()).split('\n');
    if (lines.pop() !== '') throw new WaggleError('DECODE_FAILED', 'Expected a line feed after the last line');
    return lines.map((text) => {
      const fields = parseFields(parseJcs(utf8(text), 'a statement'), FIELDS, 'a statement');
      const usages = Object.values(fields['usage'] ?? {}).map(parseUsage);
      return {
        text,
        customer: parseCustomerId(fields['customer']),
        epoch: parseWhole(fields['epoch'], 'an epoch'),
        totals: totalsOf(usages),
      };
    });
  } catch (cause) {
    if (!(cause instanceof WaggleError)) throw cause;
    throw new WaggleError('STATEMENT_MISMATCH', `${BUNDLE_FILES.statements}: ${cause.message}`, { cause });
  }
}

/** Usage that a seal counts of an earlier epoch. */
export interface LateUsage {
  readonly epoch: Epoch;
  readonly statements: number;
  readonly totals: Totals;
}

/** The late usage among an epoch's statements, by the epoch that it comes from. */
export function lateUsageIn(statements: readonly StatementLine[], sealedIn: Epoch): LateUsage[] {
  const origins = new Map<Epoch, StatementLine[]>();
  for (const line of statements) {
    if (line.epoch === sealedIn) continue;
    const lines = origins.get(line.epoch);
    if (lines === undefined) origins.set(line.epoch, [line]);
    else lines.push(line);
  }
  return [...origins]
    .sort(([a], [b]) => a - b)
    .map(([epoch, lines]) => ({
      epoch,
      statements: lines.length,
      totals: totalsOf(lines.map(({ totals }) => totals)),
    }));
}

const keyOf = ({ customer, epoch }: Pick<StatementLine, 'customer' | 'epoch'>): string => `${customer} ${epoch}`;
const nameOf = ({ customer, epoch }: Pick<StatementLine, 'customer' | 'epoch'>): string =>
  `the statement of ${customer} for epoch ${epoch}`;

/**
 * In which way the statements of a bundle are not those of its slots, in words: one is there twice, two are in the wrong order, one
 * is missing or too many. Null if it is none of these: then a figure or another field is wrong. For bundles whose slots are good.
 */
export function explainStatements(bundle: Bundle): string | null {
  const lines = statementsIn(bundle);
  const seen = new Map<string, number>();
  for (const [i, line] of lines.entries()) {
    const before = seen.get(keyOf(line));
    if (before !== undefined) return `line ${i + 1} repeats ${nameOf(line)} in line ${before + 1}`;
    seen.set(keyOf(line), i);
  }
  const expected = expectedIn(bundle);
  const extra = lines.find((line) => !expected.has(keyOf(line)));
  if (extra !== undefined) return `${nameOf(extra)} is too many: no slot has it`;
  const missing = [...expected].find(([key]) => !seen.has(key));
  if (missing !== undefined) return `${missing[1]} is missing`;
  const swapped = lines.findIndex((line, i) => i > 0 && compareLines(lines[i - 1]!, line) > 0);
  return swapped < 0
    ? null
    : `line ${swapped + 1} has ${nameOf(lines[swapped]!)}, which stands before the line above it`;
}

const compareLines = (a: StatementLine, b: StatementLine): number =>
  compareText(a.customer, b.customer) || a.epoch - b.epoch;

/** The statements that the slots of a bundle call for, by key: names of what has to be there. */
function expectedIn(bundle: Bundle): Map<string, string> {
  const expected = new Map<string, string>();
  const slot = (name: string): ReturnType<typeof parseSlot> => parseSlot(bundle.get(name) ?? new Uint8Array());
  for (const entry of parseSlotList(bundle.get(BUNDLE_FILES.slotList) ?? new Uint8Array()))
    for (const { customer } of subtractSlots(slot(slotFile(entry)), slot(countedFile(entry)))) {
      const key = { customer, epoch: entry.epoch };
      expected.set(keyOf(key), nameOf(key));
    }
  return expected;
}
