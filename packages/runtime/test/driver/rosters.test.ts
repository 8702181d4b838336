import { expect, it, vi } from 'vitest';
import { encodeRosterChange, verifyRosters } from '@waggle/protocol/audit';
import { utf8 } from '@waggle/protocol/base';
import { grown, rosterLines } from '../../../protocol/test/audit/grown.ts';
import { cheapCrypto } from '../../../protocol/test/member/harness.ts';
import { sealedRows } from '../../src/driver/epochs.ts';
import { openStore, Rosters } from '../../src/index.ts';
import { temporaryDirectories } from '../support.ts';

const temporary = temporaryDirectories();
const { cluster, disk } = grown().founder;
const lines = await rosterLines(disk.seals);

const read = async (rosters: Rosters): Promise<{ readonly tag: string; readonly text: string }> => {
  const { tag, lines: found } = await rosters.read();
  let text = '';
  for await (const line of found) text += line;
  return { tag, text };
};

it('shows every change of the roster that a store has, and looks at each sealed epoch once', async () => {
  const store = await openStore({ directory: temporary() });
  const looked = vi.spyOn(store, 'sealedRange');
  const rosters = new Rosters(store);
  expect((await read(rosters)).text).toBe('');
  const seen = new Set<string>();
  for (const { sealed, chain } of disk.seals) {
    await store.commit(sealedRows(sealed, chain.counted));
    looked.mockClear();
    // Several at once find each change once.
    const [one, other] = await Promise.all([read(rosters), read(rosters)]);
    expect(other).toEqual(one);
    expect(looked.mock.calls.map(([from]) => from)).toEqual([sealed.epoch, sealed.epoch + 1]);
    const upTo = lines.filter((line) => (JSON.parse(line) as { epoch: number }).epoch <= sealed.epoch);
    expect(one.text).toBe(upTo.map((line) => `${line}\n`).join(''));
    seen.add(one.tag);
  }
  expect(seen.size).toBe(1 + lines.length);
  const { text, tag } = await read(new Rosters(store));
  expect(verifyRosters(cluster, utf8(text), cheapCrypto)).toHaveLength(1 + lines.length);
  // Another signature under a checkpoint is another chain, for caches.
  const { epoch } = JSON.parse(lines.at(-1)!) as Parameters<typeof encodeRosterChange>[0];
  const checkpoint = disk.seals[0]!.sealed.checkpoint;
  await store.commit({ checkpoints: [{ epoch, checkpoint }] });
  expect((await read(rosters)).tag).not.toBe(tag);
  await store.close();
});
