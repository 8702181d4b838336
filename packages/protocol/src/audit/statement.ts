import { base64, fromUtf8, parseCustomerId, parseClusterId, parseJcs, parseWhole, WaggleError } from '../base/index.ts';
import type { Json } from '../base/index.ts';
import { DIMENSIONS, parseUsage, type Dimension, type Usage } from '../lattice/index.ts';
import { epochBounds, parseFields, TIME_MS_MAX, type Genesis } from '../sealing/index.ts';
import { encodeStatement, type Statement } from '../transparency/index.ts';
import { isSku } from '../usage/index.ts';

/** Sums over customers, each count from 0: without bound, unlike those of one statement. */
export type Totals = Readonly<Record<Dimension, bigint>>;

/** The sums of usages, or of sums. */
export function totalsOf(usages: Iterable<Usage | Totals>): Totals {
  const sums = Object.fromEntries(DIMENSIONS.map((dimension) => [dimension, 0n])) as Record<Dimension, bigint>;
  for (const usage of usages) for (const dimension of DIMENSIONS) sums[dimension] += BigInt(usage[dimension]);
  return sums;
}

const FIELDS = ['format', 'cluster', 'customer', 'sealedIn', 'epoch', 'start', 'end', 'usage', 'salt'];

/** Reads what `encodeStatement` wrote for a cluster with this genesis, to the byte. Throws `DECODE_FAILED`. */
export function parseStatement(bytes: Uint8Array, genesis: Genesis): Statement {
  const fields = parseFields(parseJcs(bytes, 'a statement'), FIELDS, 'a statement');
  const epoch = parseWhole(fields['epoch'], 'an epoch');
  const bounds = epochBounds(genesis, epoch);
  if (bounds.endMs > TIME_MS_MAX)
    throw new WaggleError('DECODE_FAILED', `Expected an epoch before the year 10 000, received ${epoch}`);
  const statement: Statement = {
    cluster: parseClusterId(fields['cluster']),
    customer: parseCustomerId(fields['customer']),
    sealedIn: parseWhole(fields['sealedIn'], 'an epoch', epoch),
    epoch,
    ...bounds,
    usage: parseSkus(fields['usage']),
    salt: base64.encode(base64.decode(parseText(fields['salt'], 'a salt'))),
  };
  // What is left are format, start, end: they follow from the rest.
  const expected = encodeStatement(statement);
  const received = fromUtf8(bytes);
  if (expected !== received)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected the statement ${expected.slice(0, 300)}, received ${received.slice(0, 300)}`,
    );
  return statement;
}

function parseText(value: Json | undefined, what: string): string {
  if (typeof value === 'string') return value;
  throw new WaggleError(
    'DECODE_FAILED',
    `Expected a text for ${what}, received ${JSON.stringify(value)?.slice(0, 60)}`,
  );
}

function parseSkus(value: Json | undefined): Readonly<Record<string, Usage>> {
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw new WaggleError('DECODE_FAILED', 'Expected an object of billing categories for the usage of a statement');
  return Object.fromEntries(
    Object.entries(value).map(([sku, usage]) => {
      if (!isSku(sku))
        throw new WaggleError('DECODE_FAILED', `Expected a billing category, received ${JSON.stringify(sku)}`);
      return [sku, parseUsage(usage)];
    }),
  );
}
