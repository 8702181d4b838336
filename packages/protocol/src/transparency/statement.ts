import {
  base64,
  compareText,
  jcsOrdered,
  utf8,
  type ClusterId,
  type Crypto,
  type CustomerId,
  type Epoch,
} from '../base/index.ts';
import type { Usage } from '../lattice/index.ts';
import type { Slot } from '../usage/index.ts';

/** One customer's usage of one epoch, as sealed. */
export interface Statement {
  readonly cluster: ClusterId;
  readonly customer: CustomerId;
  /** The epoch whose seal counts this usage. */
  readonly sealedIn: Epoch;
  /** The epoch in which the usage happened: the same unless it is late. */
  readonly epoch: Epoch;
  /** Bounds of `epoch`, in Unix ms, end exclusive. */
  readonly startMs: number;
  readonly endMs: number;
  readonly usage: Readonly<Record<string, Usage>>;
  /** 32 bytes that keep the commitment from being guessed, base64. */
  readonly salt: string;
}

/** The JCS text of a statement: what its customer gets, and what the leaf commits to. */
export const encodeStatement = ({
  cluster,
  customer,
  sealedIn,
  epoch,
  startMs,
  endMs,
  usage,
  salt,
}: Statement): string =>
  jcsOrdered({
    cluster,
    customer,
    end: new Date(endMs).toISOString(),
    epoch,
    format: 1,
    salt,
    sealedIn,
    start: new Date(startMs).toISOString(),
    usage: Object.fromEntries(
      Object.keys(usage)
        .sort(compareText)
        .map((sku) => [sku, ordered(usage[sku]!)]),
    ),
  });

const ordered = ({ bytesIn, bytesOut, cpuMicros, pixelsIn, pixelsOut, requests, requestsFailed }: Usage): Usage => ({
  bytesIn,
  bytesOut,
  cpuMicros,
  pixelsIn,
  pixelsOut,
  requests,
  requestsFailed,
});

/**
 * The leaf of a statement: a commitment to its text, so that the log can be public without telling anyone's figures.
 * `{commitment: base64(SHA-256(statement)), epoch, format}` in JCS.
 */
export const statementLeaf = (text: string, sealedIn: Epoch, crypto: Crypto): Uint8Array<ArrayBuffer> =>
  utf8(jcsOrdered({ commitment: base64.encode(crypto.sha256(utf8(text))), epoch: sealedIn, format: 1 }));

/** The key that the salts of one seal are derived with: SHA-256 of the salt shares of its closes, in roster order. */
export const saltKey = (shares: readonly Uint8Array[], crypto: Crypto): Uint8Array => crypto.sha256(...shares);

/** HMAC-SHA-256(K, customer LF origin epoch), base64: the same at every node, guessable by none outside. */
export const statementSalt = (key: Uint8Array, customer: CustomerId, epoch: Epoch, crypto: Crypto): string =>
  base64.encode(crypto.hmacSha256(key, utf8(`${customer}\n${epoch}`)));

/** Usage that one seal counts for one origin epoch. */
export interface Counted {
  readonly epoch: Epoch;
  readonly startMs: number;
  readonly endMs: number;
  readonly usage: Slot;
}

/** The statements of a seal, sorted bytewise by (customer, origin epoch), as JCS texts. */
export function statementsOf(
  cluster: ClusterId,
  sealedIn: Epoch,
  counted: readonly Counted[],
  key: Uint8Array,
  crypto: Crypto,
): { readonly customer: CustomerId; readonly epoch: Epoch; readonly text: string }[] {
  return counted
    .flatMap(({ epoch, startMs, endMs, usage }) => {
      const byCustomer = new Map<CustomerId, Record<string, Usage>>();
      for (const row of usage) {
        let bySku = byCustomer.get(row.customer);
        if (bySku === undefined) byCustomer.set(row.customer, (bySku = {}));
        bySku[row.sku] = row.usage;
      }
      return [...byCustomer].map(([customer, bySku]) => {
        const salt = statementSalt(key, customer, epoch, crypto);
        const statement = { cluster, customer, sealedIn, epoch, startMs, endMs, usage: bySku, salt };
        return { customer, epoch, text: encodeStatement(statement) };
      });
    })
    .sort((a, b) => compareText(a.customer, b.customer) || a.epoch - b.epoch);
}

/** The statement texts as a file: one line each. */
export const encodeStatements = (texts: readonly string[]): Uint8Array<ArrayBuffer> =>
  utf8(texts.map((text) => `${text}\n`).join(''));
