import { randomFillSync, randomInt } from 'node:crypto';
import { assert, type Random } from '@waggle/protocol/base';

/** Chance from the operating system: fit for secrets and ids. */
export const entropy: Random = {
  below(n) {
    assert(Number.isInteger(n) && n >= 1 && n <= 2 ** 32, `a bound from 1 to 2^32, not ${n}`);
    return randomInt(n);
  },
  bytes: (length) => randomFillSync(new Uint8Array(length)),
};
