import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { Keeping } from '../src/keeping.ts';
import { customerOf, openTestNode, PNG, until } from './http/support.ts';

/** A house whose epochs are as old as a test says. Sweeps take two epochs at once. */
function house() {
  const done: string[] = [];
  const failures: unknown[] = [];
  const broken = new Set<'roll' | 'sweep'>();
  let aged = { records: 0, slots: 0 };
  const begin = (what: 'roll' | 'sweep', text: string): void => {
    done.push(`${what} ${text}`);
    if (broken.has(what)) throw new Error(`no ${what}`);
  };
  const keeping = new Keeping({
    rollRecords: async (before) => begin('roll', `${before}`),
    sweepSlots: async (from) => {
      const to = Math.max(from, Math.min(aged.slots, from + 2));
      begin('sweep', `${from}-${to}`);
      return to;
    },
    failed: (error) => failures.push((error as Error).message),
  });
  /** What is done in so many seconds with these epochs of age. */
  const after = async (ticks: number, records: number, slots: number): Promise<string[]> => {
    done.length = 0;
    aged = { records, slots };
    for (let i = 0; i < ticks; i++) {
      keeping.tick({ ...aged, nowMs: 0 });
      await keeping.idle;
    }
    return [...done];
  };
  return { after, broken, failures };
}

describe('old records and slots', () => {
  it('go once for each epoch', async () => {
    const { after } = house();
    expect(await after(5, 0, 0)).toEqual([]);
    expect(await after(5, 2, 1)).toEqual(['roll 2', 'sweep 0-1']);
    expect(await after(5, 2, 1)).toEqual([]);
    expect(await after(5, 3, 2)).toEqual(['roll 3', 'sweep 1-2']);
  });

  it('go in several sweeps where there are many, and records are not looked at again for each', async () => {
    const { after } = house();
    expect(await after(9, 1, 5)).toEqual(['roll 1', 'sweep 0-2', 'sweep 2-4', 'sweep 4-5']);
  });

  it('are not asked for by a clock that was put back', async () => {
    const { after } = house();
    await after(1, 3, 2);
    expect(await after(3, 1, 1)).toEqual([]);
  });
});

describe('while records cannot be moved', () => {
  it('slots are dropped, and it is said once for each epoch', async () => {
    const { after, broken, failures } = house();
    broken.add('roll');
    expect(await after(20, 2, 2)).toEqual(['roll 2', 'sweep 0-2']);
    expect(failures).toEqual(['no roll']);
    expect(await after(20, 3, 3)).toEqual(['roll 3', 'sweep 2-3']);
    expect(failures).toHaveLength(2);
    broken.clear();
    expect(await after(2, 4, 4)).toEqual(['roll 4', 'sweep 3-4']);
  });
});

it('while slots cannot be dropped, records are moved, and it begins where it stopped with the next epoch', async () => {
  const { after, broken, failures } = house();
  await after(1, 1, 1);
  broken.add('sweep');
  expect(await after(20, 2, 2)).toEqual(['roll 2', 'sweep 1-2']);
  expect(failures).toEqual(['no sweep']);
  broken.clear();
  expect(await after(20, 3, 3)).toEqual(['roll 3', 'sweep 1-3']);
});

it('a node whose records cannot be moved drops its slots, and does not say so each second', async () => {
  const failures: unknown[] = [];
  const quick = { epochMs: 1_000, sealGraceMs: 0, recordRetentionMs: 0, slotRetentionMs: 0 };
  const test = await openTestNode(quick, {}, { keepingFailed: (error) => failures.push(error) });
  onTestFinished(() => test.close());
  const records = join(test.node.config.data, 'records');
  // The node may just be making the directory.
  await until(async () => {
    try {
      rmSync(records, { recursive: true, force: true });
      writeFileSync(records, '');
      return true;
    } catch {
      return false;
    }
  });
  const acme = await customerOf(test, 'acme');
  const resized = await acme('POST', '/v1/resize?width=2', PNG, { 'content-type': 'image/png' });
  expect(resized.statusCode).toBe(200);
  const statementsOf = async () =>
    (await acme('GET', '/v1/statements')).json<{ statements: { epoch: number; origin: number }[] }>().statements;
  await until(async () => (await statementsOf()).length > 0);
  const [{ epoch, origin }] = (await statementsOf()) as [{ epoch: number; origin: number }];
  const { replica, run } = test.node.standing;
  const slot = `/v1/epochs/${epoch}/slots/${replica}-${run}-${origin}.jsonl`;
  await until(async () => (await test.operator('GET', slot)).statusCode === 410);
  // A sweep takes what is sealed by the time it runs, and so may be an epoch ahead of the records, which the next tick tries to move.
  await until(() => failures.length > 0);
  expect(failures.length).toBeLessThanOrEqual(test.node.driver.sealingEpoch);
});
