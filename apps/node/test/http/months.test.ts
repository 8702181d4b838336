import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { customerOf, openTestNode, PNG, until, type Caller, type TestNode } from './support.ts';

interface MonthAnswer {
  readonly from: string;
  readonly to: string;
  readonly usage: { readonly requests: number };
  readonly sealed: { readonly requests: number };
  readonly unsealed: { readonly requests: number };
  readonly isComplete: boolean;
}

describe('usage of the current month', () => {
  let test: TestNode;
  let acme: Caller;
  beforeAll(async () => {
    test = await openTestNode({ epochMs: 1_000, sealGraceMs: 100 });
    acme = await customerOf(test, 'acme');
  });
  afterAll(() => test.close());

  it('is what was metered, before and after it is sealed, to the customer and the operator alike', async () => {
    const read = async (): Promise<MonthAnswer> => (await acme('GET', '/v1/usage/month')).json<MonthAnswer>();
    const resized = await acme('POST', '/v1/resize?width=2', PNG, { 'content-type': 'image/png' });
    expect(resized.statusCode).toBe(200);
    const metered = await read();
    expect(metered.usage.requests).toBe(1);
    await until(async () => {
      const { usage, sealed, unsealed } = await read();
      expect(usage.requests).toBe(1);
      expect(sealed.requests + unsealed.requests).toBe(1);
      return sealed.requests === 1;
    });
    const own = await acme('GET', '/v1/usage/month');
    const { from, to } = own.json<MonthAnswer>();
    expect(Date.parse(from)).toBe(Date.parse(`${from.slice(0, 7)}-01`));
    expect(Date.parse(to)).toBe(Date.parse(`${to.slice(0, 7)}-01`));
    expect(own.headers['cache-control']).toBe('private, no-store');
    expect(own.json()).toMatchObject({
      customer: 'acme',
      coverage: { members: 1, of: 1 },
      isComplete: true,
      unsealed: { requests: 0, cpuMicros: 0 },
    });
    const { usage, ...seen } = (await test.operator('GET', '/v1/customers/acme/usage/month')).json<MonthAnswer>();
    expect(usage).toEqual(own.json<MonthAnswer>().usage);
    expect(Object.keys(seen).toSorted()).toEqual(
      ['asOf', 'coverage', 'customer', 'from', 'isComplete', 'sealed', 'to', 'unsealed'].toSorted(),
    );
  });

  it('is refused to others, and for customers that are not', async () => {
    expect((await test.as('')('GET', '/v1/usage/month')).statusCode).toBe(401);
    expect((await acme('GET', '/v1/customers/acme/usage/month')).statusCode).toBe(403);
    const unknown = await test.operator('GET', '/v1/customers/nobody/usage/month');
    expect(unknown.json()).toMatchObject({ code: 'CUSTOMER_UNKNOWN' });
    const misspelt = await acme('GET', '/v1/usage/month?form=2026-11-01');
    expect(misspelt.json()).toMatchObject({ code: 'REQUEST_INVALID' });
  });
});
