import {
  base64,
  framed,
  hex,
  parseReplicaId,
  parseRun,
  utf8,
  WaggleError,
  WireWriter,
  type ClusterId,
  type Crypto,
  type CustomerId,
  type Epoch,
  type ReplicaId,
  type Run,
  type Signer,
} from '../base/index.ts';
import { equalUsage, type Usage } from './counts.ts';

/** What one writer says under one key. Its writer gives every write the next version: 1, 2, 3 … */
export interface Register {
  readonly key: string;
  readonly version: number;
}

/** A register of the class `control`; its writer is a replica. */
export interface ControlRegister extends Register {
  /** JSON text. */
  readonly value: string;
  /** Of the replica over `controlSigningBytes`: Ed25519, base64. */
  readonly signature: string;
}

/** A register of the class `usage`: what one run of a replica did for a customer in an epoch, so far. Its key is `usageKey`. */
export interface UsageRow extends Register {
  readonly epoch: Epoch;
  readonly customer: CustomerId;
  readonly sku: string;
  readonly usage: Usage;
}

/** The key of a usage row: `<epoch>/<customer>/<sku>`. */
export const usageKey = (epoch: Epoch, customer: CustomerId, sku: string): string => `${epoch}/${customer}/${sku}`;

/** A writer of the class `usage`: `<replica>/<run>`. */
export type WriterId = string & { readonly __writerId: unique symbol };

export const usageWriter = (replica: ReplicaId, run: Run): WriterId => `${replica}/${run}` as WriterId;

/** Throws `DECODE_FAILED` unless the text is of the form of `usageWriter`. */
export function parseUsageWriter(text: string): { readonly replica: ReplicaId; readonly run: Run } {
  const run = /^[^/]+\/([1-9][0-9]{0,15})$/.exec(text)?.[1];
  if (run === undefined)
    throw new WaggleError('DECODE_FAILED', `Expected <replica>/<run>, received ${JSON.stringify(text.slice(0, 80))}`);
  return { replica: parseReplicaId(text.slice(0, text.indexOf('/'))), run: parseRun(Number(run)) };
}

/** Whether two registers of one writer and one version say the same. Anything else is a conflict. */
export const equalControl = (a: ControlRegister, b: ControlRegister): boolean => a.key === b.key && a.value === b.value;
export const equalUsageRow = (a: UsageRow, b: UsageRow): boolean => a.key === b.key && equalUsage(a.usage, b.usage);

type Unsigned = Omit<ControlRegister, 'signature'>;

/** What a replica signs of a control register. Bound to cluster and replica, so that it stands nowhere else. */
export const controlSigningBytes = (cluster: ClusterId, replica: ReplicaId, register: Unsigned): Uint8Array =>
  framed(
    'waggle-register/v1',
    hex.decode(cluster),
    hex.decode(replica),
    utf8(register.key),
    new WireWriter().varint(register.version).finish(),
    utf8(register.value),
  );

/** A register with the signature of its writer. */
export const signControl = (
  signer: Signer,
  cluster: ClusterId,
  replica: ReplicaId,
  register: Unsigned,
): ControlRegister => ({
  key: register.key,
  version: register.version,
  value: register.value,
  signature: base64.encode(signer.sign(controlSigningBytes(cluster, replica, register))),
});

/** Throws `SIGNATURE_INVALID` unless the register is signed by its writer; `publicKey` is the replica's, 32 bytes. */
export function verifyControl(
  crypto: Crypto,
  publicKey: Uint8Array,
  cluster: ClusterId,
  replica: ReplicaId,
  register: ControlRegister,
): void {
  let good = false;
  try {
    const message = controlSigningBytes(cluster, replica, register);
    good = crypto.ed25519Verify(publicKey, message, base64.decode(register.signature));
  } catch (error) {
    if (!(error instanceof WaggleError)) throw error;
  }
  if (!good) throw new WaggleError('SIGNATURE_INVALID', `Expected register ${register.key} to be signed by ${replica}`);
}
