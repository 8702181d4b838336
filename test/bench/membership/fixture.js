/* A cluster of numbered nodes, the same in every process: all of them founders, so that nobody has to be admitted. */
import { createHash } from 'node:crypto';
import { base64, hex } from '@waggle/protocol/base';
import { clusterOf } from '@waggle/protocol/sealing';
import { nodeCrypto, signerFromSeed } from '@waggle/runtime';

/** Longer than any run: nothing is sealed while it is measured. */
const EPOCH_MS = 366 * 86_400_000;
const PORT = 7946;

const bytesOf = (name) => new Uint8Array(createHash('sha256').update(`waggle bench ${name}`).digest());

/** Where node `i` listens. Each has an address of its own, as on machines of its own. */
export const hostOf = (i) => `127.0.1.${i + 1}`;

/** Who node `i` is. */
export function identityOf(i) {
  const seed = bytesOf(`transport ${i}`);
  return {
    seed,
    replica: hex.encode(bytesOf(`replica ${i}`).subarray(0, 16)),
    address: { host: hostOf(i), port: PORT },
    transport: signerFromSeed(seed),
    log: signerFromSeed(bytesOf(`log ${i}`)),
    cosigner: signerFromSeed(bytesOf(`cosigner ${i}`)),
  };
}

/** A cluster of `nodes` that all know each other. */
export function clusterOfSize(nodes, startMs) {
  const roster = Array.from({ length: nodes }, (_, i) => {
    const { replica, transport, log, cosigner } = identityOf(i);
    return {
      replica,
      transportKey: base64.encode(transport.publicKey),
      logKey: base64.encode(log.publicKey),
      cosignerKey: base64.encode(cosigner.publicKey),
    };
  }).sort((a, b) => (a.replica < b.replica ? -1 : 1));
  const operatorKey = base64.encode(signerFromSeed(bytesOf('operator')).publicKey);
  return clusterOf(
    { format: 1, name: 'waggle.bench', operatorKey, startMs, epochMs: EPOCH_MS, sealGraceMs: 0, roster },
    nodeCrypto,
  );
}
