import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { digestOf, fromUtf8, utf8, type CustomerId } from '../../src/base/index.ts';
import { DIMENSIONS, type Usage } from '../../src/lattice/index.ts';
import { compute, packStatements, unpackStatements, type SealingEffect } from '../../src/sealing/index.ts';
import { Jobs } from '../../src/sealing/jobs.ts';
import { packRows, unpackRows } from '../../src/sealing/packed.ts';
import { encodeSlot, joinSlots, sortRows, type SlotRow } from '../../src/usage/index.ts';
import { nodeCrypto } from '../support.ts';
import { codeOf } from '../transparency/support.ts';

const usages = fc
  .array(fc.nat(), { minLength: DIMENSIONS.length, maxLength: DIMENSIONS.length })
  .map((counts) => Object.fromEntries(DIMENSIONS.map((name, i) => [name, counts[i]!])) as unknown as Usage);
const rows = fc.uniqueArray(
  fc.record({
    customer: fc.stringMatching(/^[a-z][a-z0-9.-]{0,8}$/).map((name) => name as CustomerId),
    sku: fc.constantFrom('inspect', 'resize.jpeg', 'resize.webp'),
    usage: usages,
  }),
  { selector: ({ customer, sku }) => `${customer} ${sku}`, maxLength: 20 },
);

describe('what goes to another thread', () => {
  it('comes back as it went: rows', () => {
    fc.assert(
      fc.property(rows, (given) => {
        expect(unpackRows(structuredClone(packRows(given)))).toEqual(given);
      }),
    );
  });

  it('comes back as it went: statements, and any part of them', () => {
    const statements = fc.array(
      fc.record({
        customer: rows.map((of) => of[0]?.customer ?? ('c' as CustomerId)),
        epoch: fc.nat(),
        text: fc.string({ unit: 'grapheme' }),
      }),
      { maxLength: 10 },
    );
    fc.assert(
      fc.property(statements, fc.nat(11), fc.nat(11), (given, from, to) => {
        const unpacked = unpackStatements(structuredClone(packStatements(given)), from, to);
        expect(unpacked.map(({ bytes, ...rest }) => ({ ...rest, text: fromUtf8(bytes) }))).toEqual(
          given.slice(from, to),
        );
      }),
    );
  });
});

describe('the job of a slot', () => {
  it('is the join of its rows and contents, in whatever order', () => {
    fc.assert(
      fc.property(rows, rows, (a, b) => {
        const expected = encodeSlot(joinSlots(sortRows(a), sortRows(b)));
        const job = { kind: 'slot', rows: packRows(a), contents: [encodeSlot(sortRows(b))] } as const;
        const result = compute(structuredClone(job), nodeCrypto);
        expect(result).toEqual({ kind: 'slot', digest: digestOf(nodeCrypto, expected), bytes: expected });
      }),
    );
  });

  it('fails with what is wrong with a content', () => {
    const job = { kind: 'slot', rows: packRows([]), contents: [utf8('{}\n')] } as const;
    expect(compute(job, nodeCrypto)).toMatchObject({ kind: 'failed', code: 'DECODE_FAILED' });
  });
});

describe('jobs', () => {
  const one: SlotRow = {
    customer: 'c' as CustomerId,
    sku: 'inspect',
    usage: Object.fromEntries(DIMENSIONS.map((name) => [name, 1])) as unknown as Usage,
  };
  const job = (contents: readonly Uint8Array[] = []) => ({ kind: 'slot', rows: packRows([one]), contents }) as const;
  const encoded = encodeSlot([one]);
  const ask = (jobs: Jobs, name: string, effects: SealingEffect[], make = job) =>
    jobs.result<'slot'>(name, 100, make, effects);
  const answer = (jobs: Jobs, effects: SealingEffect[]): void => {
    for (const effect of effects.splice(0))
      if (effect.type === 'compute') jobs.done(effect.name, compute(effect.job, nodeCrypto));
  };

  it('are done at once when they are small', () => {
    const effects: SealingEffect[] = [];
    expect(ask(new Jobs(nodeCrypto, 100), 'a', effects)?.bytes).toEqual(encoded);
    expect(effects).toEqual([]);
  });

  it('are done elsewhere when they are not, once each, one at a time', () => {
    const jobs = new Jobs(nodeCrypto, 99);
    const effects: SealingEffect[] = [];
    for (const name of ['a', 'a', 'b']) expect(ask(jobs, name, effects)).toBeUndefined();
    expect(effects).toMatchObject([{ type: 'compute', name: 'a' }]);
    answer(jobs, effects);
    for (const name of ['a', 'b']) ask(jobs, name, effects);
    expect(effects).toMatchObject([{ type: 'compute', name: 'b' }]);
    answer(jobs, effects);
    for (const name of ['a', 'b']) expect(ask(jobs, name, effects)?.bytes).toEqual(encoded);
    expect(effects).toEqual([]);
  });

  it('are forgotten with their results, one that is under way, too', () => {
    const jobs = new Jobs(nodeCrypto, 99);
    const effects: SealingEffect[] = [];
    ask(jobs, 'a', effects);
    answer(jobs, effects);
    ask(jobs, 'b', effects);
    jobs.forget(() => true);
    answer(jobs, effects);
    for (const name of ['b', 'a']) expect(ask(jobs, name, effects)).toBeUndefined();
    expect(effects).toMatchObject([{ type: 'compute', name: 'b' }]);
  });

  it('throw what was wrong, each time that they are asked for', () => {
    const effects: SealingEffect[] = [];
    for (const inlineBytes of [100, 99]) {
      const jobs = new Jobs(nodeCrypto, inlineBytes);
      const asking = () => ask(jobs, 'a', effects, () => job([utf8('{}\n')]));
      if (inlineBytes === 99) asking();
      answer(jobs, effects);
      expect([codeOf(asking), codeOf(asking)]).toEqual(['DECODE_FAILED', 'DECODE_FAILED']);
    }
  });
});
