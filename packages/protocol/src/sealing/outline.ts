import { digestOf, jcs, parseCustomerId, parseWhole, type Crypto, type CustomerId, type Epoch } from '../base/index.ts';
import { ZERO_USAGE } from '../lattice/index.ts';
import { statementLeaf } from '../transparency/index.ts';
import { parseLines, SKUS, type Slot } from '../usage/index.ts';
import type { Cluster } from './roster.ts';
import { outcomeOf, type ChainState, type SlotEntry } from './value.ts';

/** What is left of a sealed epoch when its slots are not kept any more. */
export interface Outline {
  readonly header: Uint8Array;
  readonly slotList: readonly SlotEntry[];
  readonly facts: Uint8Array;
  readonly nextRoster: Uint8Array;
  /** One line each, in the order of their leaves. */
  readonly statements: Uint8Array;
}

/**
 * Checks all of a sealed epoch but that its statements are the sums of its slots: that they are what was sealed, the root of the
 * tree with these leaves says, which a majority of the roster signed. Throws as `outcomeOf`, and `DECODE_FAILED`.
 */
export function outlineOf(
  cluster: Cluster,
  chain: ChainState,
  outline: Outline,
  crypto: Crypto,
): {
  readonly statements: readonly { readonly customer: CustomerId; readonly epoch: Epoch; readonly text: string }[];
  readonly leaves: readonly Uint8Array[];
  readonly next: ChainState;
} {
  const empty = digestOf(crypto, new Uint8Array(0));
  // The chain only asks of the contents which of them are empty.
  const { next } = outcomeOf(cluster, chain, outline, (digest) => (digest === empty ? [] : SOME_ROWS), crypto);
  const statements = parseLines(outline.statements, 'a statement', (statement) => ({
    customer: parseCustomerId(statement['customer']),
    epoch: parseWhole(statement['epoch'], 'an epoch'),
    text: jcs(statement),
  }));
  const leaves = [outline.header, ...statements.map(({ text }) => statementLeaf(text, chain.epoch, crypto))];
  return { statements, leaves, next };
}

const SOME_ROWS: Slot = [{ customer: parseCustomerId('nobody'), sku: SKUS[0], usage: ZERO_USAGE }];
