import { expect, it } from 'vitest';
import { digestOf, type Digest, type ReplicaId } from '@waggle/protocol/base';
import { ZERO_USAGE } from '@waggle/protocol/lattice';
import type { SlotEntry } from '@waggle/protocol/sealing';
import { encodeSlot, slotName } from '@waggle/protocol/usage';
import { nodeCrypto, type SealedEpoch } from '@waggle/runtime';
import { requestsIn } from '../../src/http/figures.ts';

const contents = new Map<Digest, Uint8Array>();
const slotOf = (requests: number): Digest => {
  const usage = { ...ZERO_USAGE, requests };
  const bytes = encodeSlot([{ customer: 'acme' as never, sku: 'resize.png', usage }]);
  const digest = digestOf(nodeCrypto, bytes);
  contents.set(digest, bytes);
  return digest;
};
const entry = (run: number, digest: Digest): SlotEntry =>
  ({ replica: 'a'.repeat(32) as ReplicaId, run, epoch: 3, digest, closed: false }) as SlotEntry;

it('requests are those that no earlier seal had counted, of slots that are kept, as many as may be read', async () => {
  const [fresh, gone, late, large] = [
    entry(1, slotOf(12)),
    entry(2, 'f'.repeat(64) as Digest),
    entry(3, slotOf(7)),
    entry(4, slotOf(5)),
  ];
  const details = JSON.stringify({ counted: [[slotName(late), slotOf(4)]] });
  const read: Digest[] = [];
  const store = {
    content: async (digest: Digest) => {
      read.push(digest);
      return contents.get(digest) ?? null;
    },
    contentSizes: async (digests: readonly Digest[]) =>
      digests.map((digest) => (digest === large.digest ? 4_194_304 : (contents.get(digest)?.length ?? null))),
  };
  const requests = await requestsIn(store, { details } as SealedEpoch, [fresh, gone, large, late]);
  expect([...requests]).toEqual([
    [slotName(fresh), 12],
    [slotName(late), 3],
  ]);
  expect(read).not.toContain(large.digest);
});
