import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ERRORS, type ErrorCode } from '@waggle/protocol/base';
import { WaggleClientError } from '../src/index.ts';
import { again, backoffMs, retryAfterMsOf, type Again } from '../src/retry.ts';
import { problem, scripted } from './support.ts';

const options = fc.record({ baseMs: fc.integer({ min: 1, max: 10_000 }), capMs: fc.integer({ min: 1, max: 100_000 }) });
const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const retry = fc.nat({ max: 2_000 });

describe('the waits', () => {
  it('are within a bound that doubles up to the cap, and chance is spread over all of it', () => {
    fc.assert(
      fc.property(options, retry, chance, (backoff, n, random) => {
        const bound = Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(n, 60));
        const ms = backoffMs(backoff, n, random);
        expect(ms).toBeGreaterThanOrEqual(0);
        expect(ms).toBeLessThanOrEqual(bound);
        expect(ms).toBeCloseTo(random * bound, 3);
      }),
    );
  });

  it('have a bound that never shrinks from one retry to the next, nor with more chance', () => {
    fc.assert(
      fc.property(options, retry, chance, chance, (backoff, n, a, b) => {
        expect(backoffMs(backoff, n + 1, a)).toBeGreaterThanOrEqual(backoffMs(backoff, n, a));
        expect(backoffMs(backoff, n, Math.max(a, b))).toBeGreaterThanOrEqual(backoffMs(backoff, n, Math.min(a, b)));
      }),
    );
  });

  it('of a call are those of the schedule, one after the other', async () => {
    const retries = { attemptsMax: 6, baseMs: 100, capMs: 1_000 };
    const { client, clock, asked } = scripted(() => problem(502, 'SOMETHING_NEW'), { retries });
    await clock.error(client.usage());
    const waits = asked.slice(1).map(({ atMs }, i) => atMs - asked[i]!.atMs);
    expect(waits).toEqual([50, 100, 200, 400, 500]);
  });
});

describe('retry-after', () => {
  const of = (headers: Record<string, string>): number | null => retryAfterMsOf(new Headers(headers));
  it('is seconds, or a date against the date of the answer', () => {
    expect(of({ 'retry-after': '7' })).toBe(7_000);
    const date = 'Fri, 20 Nov 2026 10:00:00 GMT';
    expect(of({ 'retry-after': 'Fri, 20 Nov 2026 10:00:30 GMT', date })).toBe(30_000);
    expect(of({ 'retry-after': 'Fri, 20 Nov 2026 09:00:00 GMT', date })).toBe(0);
  });
  it.each(['', 'soon', '-1', '1.5', '99999999999', 'Fri, 20 Nov 2026 10:00:30 GMT'])('%j says nothing', (text) => {
    expect(of({ 'retry-after': text })).toBeNull();
  });
  it('is none without the header', () => expect(of({})).toBeNull());
});

/** Every code of the documentation that is worth another attempt; all others are not. */
const RETRIED: Partial<Record<ErrorCode, Again>> = {
  LIMIT_EXCEEDED: 'always',
  RESIZE_CRASHED: 'once',
  QUEUE_FULL: 'always',
  NOT_READY: 'always',
  DRAINING: 'always',
  STORE_FULL: 'always',
  STORE_FAILED: 'always',
  STORE_BUSY: 'always',
  PEER_UNREACHABLE: 'always',
  INTERNAL: 'once',
  // Never over HTTP: these go by their status.
  CONFIG_INVALID: 'once',
  DATA_LOCKED: 'once',
  DATA_DAMAGED: 'once',
  DATA_COPIED: 'once',
  DATA_NEWER: 'once',
  PORT_IN_USE: 'once',
  CLOCK_OUT_OF_RANGE: 'once',
};

describe('every code of docs/ERRORS.md', () => {
  const page = readFileSync(new URL('../../../docs/ERRORS.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` +\| (\d{3}) /gm)].map(([, code, status]) => ({
    code: code as ErrorCode,
    status: Number(status),
  }));

  it('is tried here', () => expect(rows.map(({ code }) => code).toSorted()).toEqual(Object.keys(ERRORS).toSorted()));

  it.each(rows)('$code ($status)', async ({ code, status }) => {
    const isBusy = status === 429 || status === 503;
    const usage = { 'waggle-usage': 'requests=0, requests-failed=1, bytes-in=3, cpu-micros=9' };
    const { client, clock, asked } = scripted(
      () => problem(status, code, isBusy ? { ...usage, 'retry-after': '1' } : usage),
      { retries: { attemptsMax: 4 } },
    );
    const error: WaggleClientError = await clock.error(client.resize(new Uint8Array(3)));
    expect(error).toBeInstanceOf(WaggleClientError);
    const expected = RETRIED[code] ?? 'never';
    const attempts = { never: 1, once: 2, always: 4 }[expected];
    expect(asked).toHaveLength(attempts);
    expect(error).toMatchObject({
      code,
      status,
      detail: `Detail of ${code}`,
      message: `${code}: Detail of ${code}`,
      requestId: 'f'.repeat(32),
      node: 'http://a.example',
      isRetryable: expected !== 'never',
      retryAfterMs: isBusy ? 1_000 : null,
      attempts,
      answer: { replica: 'e'.repeat(32), usage: { requestsFailed: 1, bytesIn: 3, bytesOut: 0, cpuMicros: 9 } },
    });
  });

  it.each([
    [400, 'never'],
    [404, 'never'],
    [409, 'never'],
    [418, 'never'],
    [429, 'always'],
    [500, 'once'],
    [501, 'never'],
    [502, 'always'],
    [503, 'always'],
    [504, 'always'],
  ] as const)('one that is not known goes by its status: %i', (status, expected) => {
    const retryAfterMs = status === 429 ? 1_000 : null;
    expect(again({ code: 'SOMETHING_NEW', status, retryAfterMs, isKeyNew: false })).toBe(expected);
    expect(again({ code: 'toString', status, retryAfterMs, isKeyNew: false })).toBe(expected);
  });

  it('429 without retry-after is final', () => {
    expect(again({ code: 'LIMIT_EXCEEDED', status: 429, retryAfterMs: null, isKeyNew: true })).toBe('never');
  });
});

describe('a key that is not known', () => {
  it('is tried again as long as the client is new, if it was told so', async () => {
    const retries = { attemptsMax: 16, baseMs: 400, capMs: 400 };
    const { client, clock, asked } = scripted(() => problem(401, 'KEY_UNKNOWN'), { retries, newKeyMs: 1_000 });
    const error: WaggleClientError = await clock.error(client.usage());
    expect([error.code, error.isRetryable]).toEqual(['KEY_UNKNOWN', false]);
    expect(asked.map(({ atMs }) => atMs)).toEqual([0, 200, 400, 600, 800, 1_000]);
  });
  it('of any other 401 it is not', async () => {
    const { client, clock, asked } = scripted(() => problem(401, 'KEY_REVOKED'), { newKeyMs: 1_000 });
    await clock.error(client.usage());
    expect(asked).toHaveLength(1);
  });
});
