import fc from 'fast-check';
import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { createClient, type Attempt, type WaggleClientError } from '../src/index.ts';
import { failure, json, KEY, listOf, NODE_HEADERS, problem, scripted } from './support.ts';

const A = 'http://a.example';
const B = 'http://b.example';
const picture = new Uint8Array([1, 2, 3]);
const inspection = { format: 'png', width: 1, height: 1 };

describe('the deadline', () => {
  it('ends a call whose nodes never answer, at that very moment, and lets go of everything', async () => {
    const { client, clock, asked } = scripted(() => 'hang', { deadlineMs: 5_000, attemptMs: 10_000 });
    const error: WaggleClientError = await clock.error(client.usage());
    expect([error.code, error.status, error.node, error.isRetryable]).toEqual(['DEADLINE_EXCEEDED', null, A, true]);
    expect([clock.nowMs(), clock.pending, asked.length]).toEqual([5_000, 0, 1]);
    expect(asked[0]!.signal.aborted).toBe(true);
  });

  it('is over all attempts: each has its own time, the last what is left', async () => {
    const retries = { attemptsMax: 16, baseMs: 0, capMs: 0 };
    const { client, clock, asked } = scripted(() => 'hang', { deadlineMs: 2_500, attemptMs: 1_000, retries });
    const error: WaggleClientError = await clock.error(client.inspect(picture));
    expect(asked.map(({ atMs }) => atMs)).toEqual([0, 1_000, 2_000]);
    expect([error.code, error.attempts, clock.nowMs()]).toEqual(['DEADLINE_EXCEEDED', 3, 2_500]);
    expect((error.cause as WaggleClientError).code).toBe('ANSWER_TIMEOUT');
  });

  it('is not waited for when the next attempt would be too late', async () => {
    const { client, clock, asked } = scripted(() => problem(503, 'STORE_FULL', { 'retry-after': '30' }));
    const error: WaggleClientError = await clock.error(client.usage({}, { deadlineMs: 30_000 }));
    expect([error.code, error.retryAfterMs, asked.length, clock.nowMs()]).toEqual(['STORE_FULL', 30_000, 1, 0]);
  });

  it('holds whatever the nodes do, and no attempt begins after it', async () => {
    const behaviour = fc.constantFrom('hang' as const, 'reset', 'busy', 'crash');
    await fc.assert(
      fc.asyncProperty(
        fc.array(behaviour, { minLength: 16, maxLength: 16 }),
        fc.integer({ min: 1, max: 20_000 }),
        fc.integer({ min: 1, max: 5_000 }),
        async (behaviours, deadlineMs, attemptMs) => {
          const { client, clock, asked } = scripted(
            (_, number) =>
              ({
                hang: 'hang' as const,
                reset: failure('ECONNRESET'),
                busy: problem(503, 'QUEUE_FULL', { 'retry-after': '1' }),
                crash: problem(502, 'RESIZE_CRASHED'),
              })[behaviours[number - 1]!],
            { nodes: [A, B], deadlineMs, attemptMs, retries: { attemptsMax: 16 } },
          );
          await clock.error(client.resize(picture));
          expect(clock.nowMs()).toBeLessThanOrEqual(deadlineMs);
          expect(asked.every(({ atMs }) => atMs < deadlineMs)).toBe(true);
          expect(clock.pending).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('a streamed answer', () => {
  it('is not held to the time of the attempt once it has begun, and no timer runs while nobody reads', async () => {
    const { client, clock } = scripted(() => new Response('bytes', { headers: NODE_HEADERS }), { attemptMs: 1_000 });
    const { body } = await clock.value(client.resizeStream(picture));
    expect(clock.pending).toBe(0);
    clock.pass(100_000);
    expect(await clock.value(new Response(body).text())).toBe('bytes');
    expect(clock.pending).toBe(0);
  });
});

describe('retries', () => {
  it('of a resize have one idempotency key, those of another call another; all headers are the same', async () => {
    const { client, clock, asked } = scripted((_, n) => (n % 2 === 1 ? failure('ECONNRESET') : json(inspection)));
    await clock.value(client.inspect(picture));
    await clock.value(client.inspect(picture));
    const keys = asked.map(({ headers }) => headers['idempotency-key']);
    expect(keys[0]).toMatch(/^[0-9a-f]{32}$/);
    expect([keys[1], keys[3]]).toEqual([keys[0], keys[2]]);
    expect(keys[2]).not.toBe(keys[0]);
    expect(asked[1]!.headers).toEqual(asked[0]!.headers);
  });

  it('take the key that the caller gives', async () => {
    const { client, clock, asked } = scripted(() => json(inspection));
    await clock.value(client.inspect(picture, { idempotencyKey: 'order 7' }));
    expect(asked[0]!.headers['idempotency-key']).toBe('order 7');
  });

  it('go elsewhere when a node refuses, and wait for none that is not busy', async () => {
    const { client, clock, asked } = scripted(
      ({ url }) => (url.startsWith(A) ? problem(503, 'DRAINING', { 'retry-after': '5' }) : json({})),
      { nodes: [A, B], random: () => 0 },
    );
    await clock.value(client.usage());
    expect(asked.map(({ url }) => url.slice(0, A.length))).toEqual([A, B]);
    expect(clock.nowMs()).toBeLessThan(5_000);
  });

  it('honour retry-after where there is only one node', async () => {
    const { client, clock, asked } = scripted((_, n) =>
      n === 1 ? problem(503, 'QUEUE_FULL', { 'retry-after': '3' }) : json({}),
    );
    await clock.value(client.usage());
    expect(asked[1]!.atMs).toBe(3_025);
  });

  it('honour retry-after of a limit whichever node is next', async () => {
    const { client, clock, asked } = scripted(
      (_, n) => (n === 1 ? problem(429, 'LIMIT_EXCEEDED', { 'retry-after': '2' }) : json({})),
      { nodes: [A, B] },
    );
    await clock.value(client.usage());
    expect(asked[1]!.atMs).toBe(2_025);
  });

  it('of work whose answer was lost go to the same node once, which knows the key, then elsewhere', async () => {
    const run = async (code: string, work: boolean): Promise<string[]> => {
      const { client, clock, asked } = scripted(({ url }) => (url.startsWith(A) ? failure(code) : json(inspection)), {
        nodes: [A, B],
        random: () => 0,
      });
      await clock.value<unknown>(work ? client.inspect(picture) : client.usage());
      return asked.map(({ url }) => url.slice(0, A.length));
    };
    expect(await run('ECONNRESET', true)).toEqual([A, A, B]);
    expect(await run('ECONNREFUSED', true)).toEqual([A, B]);
    expect(await run('ECONNRESET', false)).toEqual([A, B]);
  });

  it('are bounded in number', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 16 }), async (attemptsMax) => {
        const { client, clock, asked } = scripted(() => failure('ECONNREFUSED'), { retries: { attemptsMax } });
        const error: WaggleClientError = await clock.error(client.usage());
        expect([asked.length, error.attempts, error.code]).toEqual([attemptsMax, attemptsMax, 'CONNECTION_FAILED']);
      }),
      { numRuns: 16 },
    );
  });

  it('are reported one by one, with what each was metered', async () => {
    const attempts: Attempt[] = [];
    const { client, clock } = scripted(
      (_, n) =>
        n === 1
          ? failure('ECONNRESET')
          : n === 2
            ? problem(502, 'RESIZE_CRASHED', { 'waggle-usage': 'requests-failed=1' })
            : json(inspection, { 'waggle-usage': 'requests=1' }),
      { onAttempt: (attempt) => attempts.push(attempt) },
    );
    await clock.value(client.inspect(picture));
    expect(attempts.map(({ number, error, answer }) => [number, error?.code, answer?.usage?.requestsFailed])).toEqual([
      [1, 'CONNECTION_LOST', undefined],
      [2, 'RESIZE_CRASHED', 1],
      [3, undefined, 0],
    ]);
  });
});

describe('nodes that fail', () => {
  it('are left alone and tried again later, by one call at first', async () => {
    let isDown = true;
    const { client, clock, asked } = scripted(
      ({ url }) => (url.startsWith(A) && isDown ? failure('ECONNREFUSED') : json({})),
      { nodes: [A, B], random: () => 0 },
    );
    const hosts = async (calls: number): Promise<string[]> => {
      asked.length = 0;
      await clock.value(Promise.all(Array.from({ length: calls }, () => client.usage())));
      return asked.map(({ url }) => (url.startsWith(A) ? 'a' : 'b'));
    };
    expect(await hosts(1)).toEqual(['a', 'b']);
    expect(await hosts(3)).toEqual(['b', 'b', 'b']);
    clock.pass(60_000);
    isDown = false;
    expect(await hosts(3)).toEqual(['a', 'b', 'b']);
    expect((await hosts(3)).filter((host) => host === 'a').length).toBeGreaterThan(1);
  });

  it('are asked all the same if there are no others', async () => {
    const { client, clock, asked } = scripted((_, n) => (n <= 3 ? failure('ECONNREFUSED') : json({})), {
      retries: { attemptsMax: 1 },
    });
    for (let i = 0; i < 3; i++) await clock.error(client.usage());
    await clock.value(client.usage());
    expect(asked).toHaveLength(4);
  });
});

describe('a signal', () => {
  it.each(['at once', 'while a node works', 'after it failed', 'while the client waits'])(
    'cancels %s, with its own reason',
    async (when) => {
      const reason = new Error('no longer wanted');
      const controller = new AbortController();
      const abort = (): void => controller.abort(reason);
      const { client, clock, asked } = scripted(
        () => {
          if (when === 'while a node works') queueMicrotask(abort);
          if (when === 'while the client waits') setImmediate(abort);
          return when === 'while a node works' ? 'hang' : problem(503, 'QUEUE_FULL', { 'retry-after': '9' });
        },
        { onAttempt: when === 'after it failed' ? abort : () => {} },
      );
      if (when === 'at once') abort();
      const call = client.resize(picture, {}, { signal: controller.signal });
      await expect(call).rejects.toBe(reason);
      expect(asked).toHaveLength(when === 'at once' ? 0 : 1);
      expect([clock.nowMs(), clock.pending]).toEqual([0, 0]);
    },
  );

  it('that outlives many calls is let go of by each', async () => {
    const { signal } = new AbortController();
    const { client, clock } = scripted((_, n) => (n % 2 === 1 ? problem(503, 'QUEUE_FULL') : json(inspection)));
    for (let i = 0; i < 3; i++) await clock.value(client.inspect(picture, { signal }));
    await clock.value(client.resizeStream(picture, {}, { signal }).then(({ body }) => new Response(body).text()));
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});

describe('what is not an answer of a node', () => {
  const html = (status: number): Response => new Response('<h1>Bad gateway</h1>', { status });
  it.each([
    [502, 3],
    [404, 1],
    [301, 1],
  ])('a page with status %i is ANSWER_INVALID, sent %i times', async (status, times) => {
    const { client, clock, asked } = scripted(() => html(status), { retries: { attemptsMax: 3 } });
    const error: WaggleClientError = await clock.error(client.usage());
    expect([error.code, error.status, error.requestId, asked.length]).toEqual(['ANSWER_INVALID', status, null, times]);
  });

  it.each(['', '[', 'null', '"text"'])('JSON that is none: %j', async (text) => {
    const { client, clock } = scripted(() => new Response(text, { headers: NODE_HEADERS }));
    const error: WaggleClientError = await clock.error(client.usage());
    expect([error.code, error.status]).toEqual(['ANSWER_INVALID', 200]);
  });

  it('a problem of megabytes is not read', async () => {
    const { client, clock } = scripted(() => new Response('x'.repeat(1_000_000), { status: 400 }));
    expect(((await clock.error(client.usage())) as WaggleClientError).code).toBe('ANSWER_INVALID');
  });
});

describe('arguments', () => {
  it.each([
    { nodes: [] },
    { nodes: 'ftp://a.example' },
    { nodes: 'http://user:secret@a.example' },
    { nodes: 'http://a.example/?x=1' },
    { key: '' },
    { key: 'two words' },
    { key: 'line\nbreak' },
    { deadlineMs: 0 },
    { deadlineMs: 1.5 },
    { attemptMs: Number.NaN },
    { retries: { attemptsMax: 17 } },
    { retries: { baseMs: -1 } },
    { newKeyMs: Number.POSITIVE_INFINITY },
  ])('%j are refused when the client is made', (options) => {
    const make = (): unknown => createClient({ nodes: A, key: KEY, ...options });
    expect(make).toThrow(/^ARGUMENT_INVALID: Expected .*, received/);
    expect(make).not.toThrow(/secret|two words|wgl_k/);
  });

  it('of a call are refused before anything is sent', async () => {
    const { client, asked } = scripted(() => json({}));
    const refused = [
      client.resize('text' as never),
      client.resize(null as never),
      client.resize(picture, {}, { idempotencyKey: '' }),
      client.resize(picture, {}, { idempotencyKey: 'ünicode' }),
      client.resize(picture, {}, { contentType: 'multipart/form-data' }),
      client.usage({ from: new Date(Number.NaN) }),
      client.usage({}, { deadlineMs: 0 }),
      client.statement(-1),
      client.proof(1.5),
      client.statements({ from: 0.5 }).next(),
    ];
    for (const call of refused) await expect(call).rejects.toMatchObject({ code: 'ARGUMENT_INVALID' });
    expect(asked).toHaveLength(0);
  });

  it('never show the key', async () => {
    const { client, clock } = scripted(() => failure('ECONNREFUSED'));
    const error: WaggleClientError = await clock.error(client.usage());
    expect(JSON.stringify([client, error, error.message, error.stack])).not.toContain(KEY);
  });
});

describe('pages of statements', () => {
  it('come one after the other', async () => {
    const { client, clock, asked } = scripted((_, n) =>
      json({ statements: [{ epoch: n }], next: n < 3 ? n * 10 : null }),
    );
    const epochs = await clock.value(listOf(client.statements({ to: 99 })));
    expect(epochs.map(({ epoch }) => epoch)).toEqual([1, 2, 3]);
    expect(asked.map(({ url }) => new URL(url).search)).toEqual(['?to=99', '?from=10&to=99', '?from=20&to=99']);
  });

  it('that do not go on are an error, not a loop', async () => {
    const { client, clock } = scripted(() => json({ statements: [], next: 5 }));
    const error: WaggleClientError = await clock.error(listOf(client.statements({ from: 5 })));
    expect(error.code).toBe('ANSWER_INVALID');
  });
});
