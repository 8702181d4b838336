import { afterEach, expect, it } from 'vitest';
import { openTestNode, until, type TestNode } from './support.ts';

/* How the chain of rosters is asked for. What is in it is held by the tests of runtime and protocol, and by voters.test.ts. */

let test: TestNode | undefined;
afterEach(() => test?.close());

it('is for everyone, to be asked for again, and empty as long as the voters are the founders', async () => {
  test = await openTestNode({ epochMs: 1_000 });
  const { driver } = test.node;
  await until(() => driver.sealingEpoch > 1);
  const answer = await test.as('')('GET', '/v1/rosters.jsonl');
  expect([answer.statusCode, answer.body]).toEqual([200, '']);
  expect(answer.headers).toMatchObject({ 'content-type': 'application/jsonl', 'cache-control': 'public, no-cache' });
  const again = await test.as('')('GET', '/v1/rosters.jsonl', undefined, {
    'if-none-match': String(answer.headers['etag']),
  });
  expect([again.statusCode, again.body]).toEqual([304, '']);
});

it('is for auditors only, if the log is not public', async () => {
  test = await openTestNode({ publicLog: false });
  expect((await test.as('')('GET', '/v1/rosters.jsonl')).statusCode).toBe(401);
  const token = (await test.operator('POST', '/v1/tokens', { role: 'auditor', name: 'a' })).json<{ token: string }>();
  const answer = await test.as(token.token)('GET', '/v1/rosters.jsonl');
  expect(answer.statusCode).toBe(200);
  expect(answer.headers).toMatchObject({ 'cache-control': 'private, no-cache', vary: 'authorization' });
});
