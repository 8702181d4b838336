import { DIMENSIONS, type Dimension } from '@waggle/protocol/lattice';
import { epochBounds, type Cluster } from '@waggle/protocol/sealing';
import type { ParquetCell, ParquetColumn, StatementRow } from '@waggle/runtime';
import { rfc3339 } from './time.ts';
import { statementUsage } from './usage.ts';

/** Statements as a table: its columns, and the rows that one statement gives, cells in the order of the columns. */
export interface Table {
  readonly columns: readonly ParquetColumn[];
  readonly rowsOf: (statement: StatementRow) => ParquetCell[][];
  /** A time, in Unix ms, as its CSV writes it. */
  readonly timeText: (ms: number) => string;
}

/** The sets of columns that exports come in. */
export const COLUMN_SETS = ['waggle', 'focus'] as const;
export type ColumnSet = (typeof COLUMN_SETS)[number];

const text = (name: string, nullable = false): ParquetColumn => ({ name, type: 'STRING', nullable });
const whole = (name: string): ParquetColumn => ({ name, type: 'INT64' });
const moment = (name: string): ParquetColumn => ({ name, type: 'TIMESTAMP' });

/** One row for each customer, epoch of origin and SKU, with all that is counted. */
function waggleTable({ genesis }: Cluster): Table {
  return {
    columns: [
      ...['epoch', 'origin'].map(whole),
      ...['start', 'end'].map(moment),
      ...['customer', 'sku'].map((name) => text(name)),
      ...DIMENSIONS.map(whole),
    ],
    rowsOf({ epoch, origin, customer, bytes }) {
      const { startMs, endMs } = epochBounds(genesis, origin);
      return statementUsage(bytes).map(([sku, usage]) => [
        epoch,
        origin,
        startMs,
        endMs,
        customer,
        sku,
        ...DIMENSIONS.map((name) => usage[name]),
      ]);
    },
    timeText: rfc3339,
  };
}

/** What each count is measured in, in the words of FOCUS' Unit Format. */
const UNITS: Record<Dimension, string> = {
  requests: 'Requests',
  requestsFailed: 'Requests',
  bytesIn: 'B',
  bytesOut: 'B',
  pixelsIn: 'Pixels',
  pixelsOut: 'Pixels',
  cpuMicros: 'Microseconds',
};

/** The names and types of FOCUS 1.2 (focus.finops.org/focus-specification/v1-2), as far as they are about usage; `x_` are our own. */
const FOCUS_COLUMNS: readonly ParquetColumn[] = [
  ...['ProviderName', 'PublisherName', 'InvoiceIssuerName', 'BillingAccountId', 'SubAccountId'].map((name) =>
    text(name),
  ),
  ...['BillingPeriodStart', 'BillingPeriodEnd', 'ChargePeriodStart', 'ChargePeriodEnd'].map(moment),
  text('ChargeCategory'),
  text('ChargeClass', true),
  ...['ChargeDescription', 'ChargeFrequency', 'ServiceCategory', 'ServiceName', 'SkuId', 'SkuMeter'].map((name) =>
    text(name),
  ),
  { name: 'ConsumedQuantity', type: 'DOUBLE' },
  text('ConsumedUnit'),
  text('x_Sku'),
  ...['x_SealedIn', 'x_Epoch'].map(whole),
];

/**
 * One row for each customer, epoch of origin, SKU and count that is not zero (FOCUS wants positive quantities). The billing period
 * is the epoch that sealed it, the charge period the one in which it happened: late usage is a correction.
 */
function focusTable({ id, genesis }: Cluster): Table {
  const names = [genesis.name, genesis.name, genesis.name, id];
  return {
    columns: FOCUS_COLUMNS,
    rowsOf({ epoch, origin, customer, bytes }) {
      const billing = epochBounds(genesis, epoch);
      const charge = epochBounds(genesis, origin);
      const periods = [billing.startMs, billing.endMs, charge.startMs, charge.endMs];
      const chargeClass = epoch === origin ? null : 'Correction';
      return statementUsage(bytes).flatMap(([sku, usage]) =>
        DIMENSIONS.filter((name) => usage[name] > 0).map((name) => [
          ...names,
          customer,
          ...periods,
          'Usage',
          chargeClass,
          `${sku} ${name}`,
          'Usage-Based',
          'Media',
          'Image Resizing',
          `${sku}/${name}`,
          name,
          usage[name],
          UNITS[name],
          sku,
          epoch,
          origin,
        ]),
      );
    },
    // YYYY-MM-DDTHH:mm:ssZ; epochs that do not start on a second keep their fraction.
    timeText: (ms) => rfc3339(ms).replace('.000Z', 'Z'),
  };
}

/** The table that a set of columns makes of the statements of a cluster. */
export const tableOf = (set: ColumnSet, cluster: Cluster): Table =>
  set === 'focus' ? focusTable(cluster) : waggleTable(cluster);
