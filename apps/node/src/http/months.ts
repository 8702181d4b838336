import { Type } from 'typebox';
import type { CustomerId } from '@waggle/protocol/base';
import { coverageOf } from '../cluster.ts';
import type { App, Deps } from './app.ts';
import { customerOf, type Guards } from './authenticate.ts';
import { freshness } from './customer.ts';
import { AUTHENTICATION_CODES, closed, CUSTOMER_CODES, customerId, responses, time, usageRef } from './schemas.ts';
import { rfc3339 } from './time.ts';
import { freshnessView } from './usage.ts';

const part = (description: string) => Type.Unsafe({ allOf: [{ $ref: 'Usage#' }], description });

const answer = Type.Object(
  {
    customer: customerId,
    from: time('Start of the calendar month (UTC).'),
    to: time('Its end. Epochs count in the month in which they start.'),
    ...freshness,
    usage: usageRef,
    sealed: part('What of it seals have counted.'),
    unsealed: part('What none has counted yet.'),
    isComplete: Type.Boolean({
      description: 'Whether all that is sealed at this node is in it: not in the first moments after a start.',
    }),
  },
  { description: 'The usage.' },
);

/** Usage of the current month: what quotas are compared with. It is kept at hand, so that asking costs nothing. */
export function monthRoutes(app: App, { node }: Deps, guards: Guards): void {
  const { driver, clock, identity } = node;

  function view(customer: CustomerId): object {
    const nowMs = clock.nowMs();
    const { fromMs, toMs, ...usage } = driver.months.usage(customer, nowMs);
    return {
      customer,
      from: rfc3339(fromMs),
      to: rfc3339(toMs),
      ...freshnessView(coverageOf(driver, nowMs)),
      ...usage,
    };
  }

  app.get(
    '/v1/usage/month',
    {
      onRequest: [guards.customer('read')],
      schema: {
        tags: ['Customer'],
        security: [{ apiKey: [] }],
        operationId: 'getMonthUsage',
        summary: 'Usage of the current month',
        description: 'Of the calendar month (UTC), sealed and not sealed, cheap to ask for at any time.',
        querystring: closed({}),
        response: responses({ 200: answer }, ...CUSTOMER_CODES, 'REQUEST_INVALID'),
      },
    },
    async (request, reply) => {
      reply.header('cache-control', 'private, no-store');
      return view(customerOf(request).customer);
    },
  );

  app.get(
    '/v1/customers/:id/usage/month',
    {
      onRequest: [guards.role('operator')],
      schema: {
        tags: ['Operator'],
        security: [{ token: [] }],
        operationId: 'getCustomerMonthUsage',
        summary: 'Usage of a customer in the current month',
        description: 'As GET /v1/usage/month.',
        params: closed({ id: customerId }),
        querystring: closed({}),
        response: responses({ 200: answer }, ...AUTHENTICATION_CODES, 'REQUEST_INVALID', 'CUSTOMER_UNKNOWN'),
      },
    },
    async (request) => view(identity.getCustomer(request.params.id).id),
  );
}
