import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CustomerId } from '../../src/base/index.ts';
import {
  addUsage,
  equalUsageRow,
  GCounter,
  joinUsage,
  Registers,
  ZERO_USAGE,
  type Usage,
  type UsageRow,
  type WriterId,
} from '../../src/lattice/index.ts';
import { smallUsage, usageRow, writerId } from './support.ts';

const EPOCHS = [3, 4];
const CUSTOMERS = ['acme', 'beta'] as CustomerId[];
const SKUS = ['inspect', 'resize.png'];

const write = fc.record({
  writer: fc.nat(2),
  epoch: fc.constantFrom(...EPOCHS),
  customer: fc.constantFrom(...CUSTOMERS),
  sku: fc.constantFrom(...SKUS),
  usage: smallUsage,
});
const sum = (rows: readonly UsageRow[]): Usage => rows.map((row) => row.usage).reduce(addUsage, ZERO_USAGE);

describe('the G-counter', () => {
  it('is the sum over all writers of what the registers hold, in whatever order they come', () => {
    fc.assert(
      fc.property(fc.array(write, { maxLength: 40 }), fc.infiniteStream(fc.nat()), (writes, chance) => {
        const options = { keysMax: 100, equal: equalUsageRow };
        const own = new Registers<UsageRow, WriterId>(options);
        const joined = new Registers<UsageRow, WriterId>(options);
        const [ownView, joinedView] = [new GCounter(), new GCounter()];
        const wire: { writer: WriterId; row: UsageRow }[] = [];
        for (const each of writes) {
          const writer = writerId(each.writer);
          const { key } = usageRow(1, each.epoch, each.customer, each.sku, ZERO_USAGE);
          const grown = joinUsage(own.get(writer, key)?.usage ?? ZERO_USAGE, each.usage);
          const row = usageRow(own.upTo(writer) + 1, each.epoch, each.customer, each.sku, grown);
          own.apply(writer, [row]).forEach((change) => ownView.fold(change));
          wire.splice(
            chance.next().value % (wire.length + 1),
            0,
            { writer, row },
            ...(row.version % 3 === 0 ? [{ writer, row }] : []),
          );
        }
        for (const { writer, row } of wire) {
          const { version } = row;
          joined
            .join({ writer, from: version - 1, to: version, end: version, registers: [row] })
            .changed.forEach((change) => joinedView.fold(change));
        }
        const rows = own.writers().flatMap((writer) => [...own.of(writer)]);
        const restored = new GCounter();
        for (const register of rows) restored.fold({ register, previous: undefined });
        for (const view of [ownView, joinedView, restored]) {
          expect(view.epochs()).toEqual(EPOCHS.filter((epoch) => rows.some((row) => row.epoch === epoch)));
          for (const epoch of EPOCHS) {
            const inEpoch = rows.filter((row) => row.epoch === epoch);
            expect(view.usage(epoch)).toEqual(sum(inEpoch));
            expect([...view.customers(epoch)].sort()).toEqual(
              [...new Set(inEpoch.map(({ customer }) => customer))].sort(),
            );
            for (const customer of CUSTOMERS) {
              const ofCustomer = inEpoch.filter((row) => row.customer === customer);
              expect(view.usage(epoch, customer)).toEqual(sum(ofCustomer));
              expect([...view.skus(epoch, customer)].sort()).toEqual(
                [...new Set(ofCustomer.map(({ sku }) => sku))].sort(),
              );
              for (const sku of SKUS)
                expect(view.usage(epoch, customer, sku)).toEqual(sum(ofCustomer.filter((row) => row.sku === sku)));
            }
          }
        }
      }),
    );
  });

  it('forgets an epoch and nothing else', () => {
    const view = new GCounter();
    const one = { ...ZERO_USAGE, requests: 1 };
    for (const epoch of EPOCHS)
      view.fold({ register: usageRow(epoch, epoch, 'acme', 'inspect', one), previous: undefined });
    view.dropEpoch(3);
    expect([view.epochs(), view.usage(3), view.usage(4)]).toEqual([[4], ZERO_USAGE, one]);
  });

  it('survives figures that do not add up to a count', () => {
    const view = new GCounter();
    const huge = { ...ZERO_USAGE, bytesIn: Number.MAX_SAFE_INTEGER };
    for (const sku of SKUS) view.fold({ register: usageRow(1, 3, 'acme', sku, huge), previous: undefined });
    expect(view.usage(3)).toEqual(huge);
    expect(view.usage(3, 'acme' as CustomerId)).toEqual(huge);
  });
});
