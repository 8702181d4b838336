import { expect, it } from 'vitest';
import { utf8, type CustomerId } from '@waggle/protocol/base';
import { ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import type { Node } from '../../src/node.ts';
import { readUsage } from '../../src/http/usage.ts';

const acme = 'acme' as CustomerId;
const usage: Usage = { ...ZERO_USAGE, requests: 3, cpuMicros: 7 };

it('a seal in the middle of the answer is counted once: its epoch is still unsealed in it', async () => {
  let sealingEpoch = 4;
  const unsealed = new Map([[4, usage]]);
  const node = {
    standing: { cluster: { genesis: { startMs: 0, epochMs: 1_000 } } },
    clock: { nowMs: () => 5_500 },
    driver: {
      standing: { replica: 'self' },
      members: [],
      authority: { admittedReplicas: () => [] },
      directory: new Map(),
      roster: [],
      openEpoch: 5,
      get sealingEpoch() {
        return sealingEpoch;
      },
      unsealed: {
        epochs: () => [...unsealed.keys()],
        skus: () => ['resize.jpeg'],
        usage: (epoch: number) => unsealed.get(epoch),
      },
    },
    store: {
      // The epoch is sealed just before, or just after, its statements are looked up.
      statementsOf: async (_: unknown, from: number, to: number) => {
        sealingEpoch = 5;
        unsealed.clear();
        await Promise.resolve();
        const bytes = utf8(JSON.stringify({ usage: { 'resize.jpeg': usage } }));
        return [{ customer: acme, epoch: 4, origin: 4, leafIndex: 0, bytes }].filter(
          ({ epoch }) => epoch >= from && epoch <= to,
        );
      },
    },
  } as unknown as Node;
  const query = { fromMs: 0, toMs: 6_000, group: 'epoch' } as const;
  const during = (await readUsage(node, acme, query)) as { totals: Usage; epochs: { epoch: number; state: string }[] };
  expect(during.totals).toEqual(usage);
  expect(during.epochs.map(({ epoch, state }) => [epoch, state])).toEqual([
    [4, 'sealing'],
    [5, 'open'],
  ]);
  const after = (await readUsage(node, acme, query)) as typeof during;
  expect(after.totals).toEqual(usage);
  expect(after.epochs[0]).toMatchObject({ epoch: 4, state: 'sealed' });
});

it('what a member with a clock ahead meters is in what reaches the present, and not in what ends before', async () => {
  const unsealed = new Map([
    [5, usage],
    [60_000, usage],
  ]);
  const node = {
    standing: { cluster: { genesis: { startMs: 0, epochMs: 1_000 } } },
    clock: { nowMs: () => 5_500 },
    driver: {
      standing: { replica: 'self' },
      members: [],
      authority: { admittedReplicas: () => [] },
      directory: new Map(),
      roster: [],
      openEpoch: 5,
      sealingEpoch: 5,
      unsealed: {
        epochs: () => [...unsealed.keys()],
        skus: () => ['resize.jpeg'],
        usage: (epoch: number) => unsealed.get(epoch),
      },
    },
    store: { statementsOf: async () => [] },
  } as unknown as Node;
  const read = async (fromMs: number | null, toMs: number): Promise<[epoch: number, state: string][]> => {
    const { epochs } = (await readUsage(node, acme, { fromMs, toMs, group: 'epoch' })) as {
      epochs: { epoch: number; state: string }[];
    };
    return epochs.map(({ epoch, state }) => [epoch, state]);
  };
  const both = [
    [5, 'open'],
    [60_000, 'open'],
  ];
  expect(await read(null, 5_501)).toEqual(both);
  expect(await read(0, 5_501)).toEqual(both);
  expect(await read(0, 5_000)).toEqual([]);
});
