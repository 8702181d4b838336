import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WaggleError, type CustomerId } from '@waggle/protocol/base';
import { BodyMemory } from '../../src/http/bodies.ts';
import { fileOf } from '../../src/http/multipart.ts';
import { parseTime } from '../../src/http/time.ts';
import { Readiness, type Probed } from '../../src/probe.ts';

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof WaggleError) return error.code;
    throw error;
  }
  return 'none';
};

describe('a form of one file', () => {
  const boundary = fc.stringMatching(/^[A-Za-z0-9'()+_,./:=?-]{1,70}$/);
  const content = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.constantFrom('\r\n', '--', '\r\n--', '\r\n--b').map((text) => Buffer.from(text)),
  );
  const formOf = (mark: string, file: Uint8Array, preamble = ''): Buffer =>
    Buffer.concat([
      Buffer.from(`${preamble}--${mark} \r\nContent-Disposition: form-data; name="f"; filename="ü.jpg"\r\n\r\n`),
      file,
      Buffer.from(`\r\n--${mark}--\r\n`),
    ]);

  it('gives the file back, whatever is in it but the delimiter', () => {
    fc.assert(
      fc.property(boundary, content, fc.constantFrom('', 'a preamble\r\n'), (mark, file, preamble) => {
        fc.pre(!Buffer.from(file).includes(`\r\n--${mark}`) && !`\r\n--${mark}--`.startsWith(`\r\n--${mark}\r`));
        expect(
          fileOf(`multipart/form-data; boundary="${mark}"`, formOf(mark, file, preamble)).equals(Buffer.from(file)),
        ).toBe(true);
      }),
    );
  });

  it('is refused when it is cut off anywhere, or anything else', () => {
    const whole = formOf('b', Buffer.from('picture'));
    for (let length = 0; length < whole.length - 2; length++)
      expect([length, codeOf(() => fileOf('multipart/form-data; boundary=b', whole.subarray(0, length)))]).toEqual([
        length,
        length === whole.length - 2 ? 'none' : 'REQUEST_INVALID',
      ]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(codeOf(() => fileOf('multipart/form-data; boundary=b', Buffer.from(bytes)))).toBe('REQUEST_INVALID');
      }),
    );
  });
});

describe('the memory for bodies', () => {
  it('is never more than it may be, and never more than half of it for one customer', () => {
    const step = fc.record({ customer: fc.constantFrom('a', 'b', 'c'), bytes: fc.nat(60) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const memory = new BodyMemory(100);
        const held = new Map<string, number>();
        for (const { customer, bytes } of steps) {
          const own = held.get(customer) ?? 0;
          const all = [...held.values()].reduce((a, b) => a + b, 0);
          const fits = all + bytes <= 100 && own + bytes <= 50;
          expect(codeOf(() => memory.take(customer as CustomerId, bytes))).toBe(fits ? 'none' : 'QUEUE_FULL');
          if (fits) held.set(customer, own + bytes);
          else {
            memory.give(customer as CustomerId, own);
            held.delete(customer);
          }
          expect(memory.bytes).toBe([...held.values()].reduce((a, b) => a + b, 0));
        }
      }),
    );
  });
});

describe('times', () => {
  it('are RFC 3339, a plus sign that the query made a space included', () => {
    for (const [text, time] of [
      ['2026-01-31', '2026-01-31T00:00:00Z'],
      ['2026-01-31T12:00:00Z', '2026-01-31T12:00:00Z'],
      ['2026-01-31T12:00:00.250+02:00', '2026-01-31T10:00:00.250Z'],
      ['2026-01-31T12:00:00 02:00', '2026-01-31T10:00:00Z'],
    ] as const)
      expect(parseTime(text, 'from')).toBe(Date.parse(time));
  });

  it.each([
    '',
    'now',
    '2026-13-01',
    '2026-01-31T25:00:00Z',
    '2026-01-31T12:00:00',
    '1969-12-31',
    '1769817600000',
    'Jan 31 2026',
  ])('%j is none', (text) => {
    expect(codeOf(() => parseTime(text, 'from'))).toBe('REQUEST_INVALID');
  });
});

describe('readiness', () => {
  it('asks a worker now and then, and says what it said last meanwhile', async () => {
    let nowMs = 0;
    let probes = 0;
    let works = true;
    let finish: (() => void) | undefined;
    const node: Probed = {
      isDraining: false,
      driver: { isFull: false },
      clock: { nowMs: () => 0, monotonicMs: () => nowMs, after: () => () => {} },
      pool: {
        probe: async () => {
          probes++;
          await new Promise<void>((resolve) => (finish = resolve));
          return works ? { ok: true } : { ok: false, error: new WaggleError('RESIZE_DEADLINE', 'too late') };
        },
      },
    };
    const readiness = new Readiness(node);
    const first = Promise.all([readiness.check(), readiness.check()]);
    finish!();
    expect([await first, probes]).toEqual([[null, null], 1]);
    expect([await readiness.check(), probes]).toEqual([null, 1]);

    works = false;
    nowMs = 3_000;
    expect([await readiness.check(), probes]).toEqual([null, 2]);
    finish!();
    let error: WaggleError | null = null;
    while (error === null) error = await readiness.check();
    expect([error.code, error.message]).toEqual(['NOT_READY', 'Expected a worker that makes a picture: too late']);

    nowMs = 60_000;
    works = true;
    const late = readiness.check();
    finish!();
    expect(await late).toBeNull();
  });
});
