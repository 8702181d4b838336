import type { SlotEntry } from '@waggle/protocol/sealing';
import { parseSlot, slotName, subtractSlots } from '@waggle/protocol/usage';
import { parseDetails, type SealedEpoch, type Store } from '@waggle/runtime';

/** Contents of slots that are read for one answer at most, in bytes: some twenty thousand rows. */
const CONTENT_BYTES_MAX = 4_194_304;

/**
 * How many requests a sealed epoch counts in slots of its slot list that no earlier one had counted, by the names of the slots: those
 * whose contents are kept, the first of them, as many as may be read.
 */
export async function requestsIn(
  store: Pick<Store, 'content' | 'contentSizes'>,
  row: SealedEpoch,
  entries: readonly SlotEntry[],
): Promise<ReadonlyMap<string, number>> {
  const before = new Map(parseDetails(row).counted);
  const all = entries.map((entry) => {
    const counted = before.get(slotName(entry));
    return { name: slotName(entry), digests: counted === undefined ? [entry.digest] : [entry.digest, counted] };
  });
  const digests = all.flatMap((slot) => slot.digests);
  const sizes = await store.contentSizes(digests);
  const sizeOf = new Map(digests.map((digest, i) => [digest, sizes[i] ?? Infinity]));
  const requests = new Map<string, number>();
  let bytes = 0;
  for (const slot of all) {
    const size = slot.digests.reduce((sum, digest) => sum + sizeOf.get(digest)!, 0);
    if (bytes + size > CONTENT_BYTES_MAX) continue;
    bytes += size;
    const [content, counted] = await Promise.all(slot.digests.map((digest) => store.content(digest)));
    // Let go of since its size was asked for.
    if (content === null || content === undefined || counted === null) continue;
    const rows = subtractSlots(parseSlot(content), counted === undefined ? [] : parseSlot(counted));
    requests.set(
      slot.name,
      rows.reduce((sum, { usage }) => sum + usage.requests, 0),
    );
  }
  return requests;
}
