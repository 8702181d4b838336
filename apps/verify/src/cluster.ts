import { WaggleError } from '@waggle/protocol/base';
import { clusterOf, parseGenesis, type Cluster } from '@waggle/protocol/sealing';
import { nodeCrypto } from './node-crypto.ts';

/** The cluster that an encoded genesis founds. Throws `GENESIS_MISMATCH`. */
export function parseCluster(bytes: Uint8Array): Cluster {
  try {
    return clusterOf(parseGenesis(bytes), nodeCrypto);
  } catch (cause) {
    throw new WaggleError('GENESIS_MISMATCH', `genesis: ${(cause as Error).message}`, { cause });
  }
}
