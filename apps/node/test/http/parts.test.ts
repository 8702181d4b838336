import { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WaggleError } from '@waggle/protocol/base';
import type { Clock } from '@waggle/runtime';
import { Upload } from '../../src/http/bodies.ts';
import { BufferPool } from '../../src/http/buffers.ts';
import { fileOf } from '../../src/http/multipart.ts';
import { Room } from '../../src/http/room.ts';
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

describe('a form of many lines that look like delimiters', () => {
  const typed = 'multipart/form-data; boundary=x';
  const part = (content: string): string => `--x\r\nContent-Disposition: form-data; filename="f"\r\n\r\n${content}`;
  /** The file, or the code of the error, and how often the body was searched and read a byte at a time. */
  function parsed(text: string): { readonly result: string; readonly looks: number } {
    let looks = 0;
    const body = new Proxy(Buffer.from(text, 'latin1'), {
      get(target, name) {
        looks++;
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === 'function' ? (value.bind(target) as unknown) : value;
      },
    });
    let result = '';
    const code = codeOf(() => (result = fileOf(typed, body).toString('latin1')));
    return { result: code === 'none' ? result : code, looks };
  }

  it.each([
    ['within lines, in a preamble', (n: number) => `a${'--x'.repeat(n)}`, 'REQUEST_INVALID'],
    ['within lines, in a file', (n: number) => part('a--x'.repeat(n)), 'REQUEST_INVALID'],
    ['at the start of lines', (n: number) => part('\r\n--xa'.repeat(n)), 'REQUEST_INVALID'],
    [
      'at the start of lines of a preamble',
      (n: number) => `${'\r\n--xa'.repeat(n)}\r\n${part('a')}`,
      'REQUEST_INVALID',
    ],
    ['of a bare line feed', (n: number) => part('\n--x'.repeat(n)), 'REQUEST_INVALID'],
  ])('%s: looks at no more of it than of a short one', (_, make, expected) => {
    const [short, long] = [parsed(make(4)), parsed(make(20_000))];
    expect([short.result, long.result]).toEqual([expected, expected]);
    expect(long.looks).toBe(short.looks);
    expect(long.looks).toBeLessThan(20);
  });

  it('is read where they are within lines only', () => {
    const content = `a${'--x'.repeat(1_000)}\n--x--`;
    expect(parsed(`${part(content)}\r\n--x--\r\n`).result).toBe(content);
  });

  it('is refused where one begins with the delimiter: that is not to be in a part (RFC 2046 §5.1.1)', () => {
    expect(parsed(`${part('a\r\n--xy\r\nb')}\r\n--x--\r\n`).result).toBe('REQUEST_INVALID');
  });
});

describe('a form as it is sent', () => {
  // Bodies of curl 7.88.1 and Chromium 156, as a server got them.
  const headers = 'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png';
  it.each([
    ['curl', '------------------------bc21d2de46adeddd'],
    ['Chromium', '----WebKitFormBoundaryzjTY8VDCglmq8ZFZ'],
  ])('%s', (_, boundary) => {
    const picture = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x2d, 0x2d]);
    const body = Buffer.concat([
      Buffer.from(`--${boundary}\r\n${headers}\r\n\r\n`),
      picture,
      Buffer.from(`\r\n--${boundary}--\r\n`),
    ]);
    expect(fileOf(`multipart/form-data; boundary=${boundary}`, body).equals(picture)).toBe(true);
  });

  it('fetch of Node.js', async () => {
    const form = new FormData();
    form.append('file', new Blob([Buffer.from('picture')], { type: 'image/png' }), 'a.png');
    const request = new Request('http://localhost/', { method: 'POST', body: form });
    const body = Buffer.from(await request.arrayBuffer());
    expect(fileOf(request.headers.get('content-type')!, body).toString()).toBe('picture');
  });
});

describe('room', () => {
  it('is never more than it may be, and never more than half of it for one customer', () => {
    const step = fc.record({ customer: fc.constantFrom('a', 'b', 'c'), bytes: fc.nat(60) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const room = new Room(100, 'bytes');
        const held = new Map<string, number>();
        for (const { customer, bytes } of steps) {
          const own = held.get(customer) ?? 0;
          const all = [...held.values()].reduce((a, b) => a + b, 0);
          const fits = all + bytes <= 100 && own + bytes <= 50;
          expect(room.has(customer, bytes)).toBe(fits);
          expect(codeOf(() => room.take(customer, bytes))).toBe(fits ? 'none' : 'QUEUE_FULL');
          if (fits) held.set(customer, own + bytes);
          else {
            room.give(customer, own);
            held.delete(customer);
          }
          expect(room.taken).toBe([...held.values()].reduce((a, b) => a + b, 0));
        }
      }),
    );
  });
});

describe('a pool of buffers', () => {
  it('gives memory that nobody has, of the length asked for, and keeps no more than its bound', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 200_000 }), fc.boolean()), { maxLength: 60 }),
        (steps) => {
          const pool = new BufferPool();
          const held = new Set<Buffer>();
          for (const [length, gives] of steps) {
            const buffer = pool.take(length);
            expect(buffer.length).toBe(length);
            for (const other of held) expect(other.buffer).not.toBe(buffer.buffer);
            held.add(buffer);
            if (!gives) continue;
            const [oldest] = held;
            held.delete(oldest!);
            pool.give(oldest!);
          }
          expect(pool.keptBytes).toBeLessThanOrEqual(64 * 1024 * 1024);
        },
      ),
    );
    const pool = new BufferPool();
    for (let i = 0; i < 100; i++) pool.give(Buffer.allocUnsafeSlow(2 ** 20));
    expect(pool.keptBytes).toBe(64 * 2 ** 20);
    pool.give(Buffer.allocUnsafeSlow(2 ** 24));
    expect(pool.keptBytes).toBe(64 * 2 ** 20);
  });
});

describe('an upload', () => {
  /** A clock that stands still until it is told to go, and a body that comes when it is told to. */
  function upload(headers: Record<string, string> = {}) {
    let nowMs = 0;
    const timers = new Map<object, { readonly atMs: number; readonly fn: () => void }>();
    const clock: Clock = {
      nowMs: () => nowMs,
      monotonicMs: () => nowMs,
      after(ms, fn) {
        const timer = {};
        timers.set(timer, { atMs: nowMs + ms, fn });
        return () => timers.delete(timer);
      },
    };
    const source = Object.assign(new EventEmitter(), { headers, pause: () => {} });
    const room = new Room(1_000_000, 'bytes');
    const reading = new Upload(
      source as unknown as IncomingMessage,
      {} as ServerResponse,
      { room, party: 'acme', buffers: new BufferPool() },
      clock,
    );
    return {
      source,
      room,
      timers,
      reading,
      wait: (ms: number): void => {
        nowMs += ms;
        for (const [timer, { atMs, fn }] of timers) {
          if (atMs > nowMs) continue;
          timers.delete(timer);
          fn();
        }
      },
    };
  }

  it('takes memory for what has come, not for what was announced, and gives all of it back', async () => {
    const { source, room, reading, timers } = upload({ 'content-length': '300000' });
    const body = reading.read(300_000);
    expect(room.taken).toBe(0);
    for (const taken of [100_000, 200_000, 300_000]) {
      source.emit('data', Buffer.alloc(100_000, taken / 100_000));
      expect(room.taken).toBe(taken);
    }
    source.emit('end');
    const bytes = await body;
    expect([bytes.length, bytes[0], bytes.at(-1), timers.size]).toEqual([300_000, 1, 3, 0]);
    reading.release();
    expect(room.taken).toBe(0);
  });

  it('that is announced too large is refused before any of it, one that lies when it is there', async () => {
    await expect(upload({ 'content-length': '11' }).reading.read(10)).rejects.toMatchObject({ code: 'BODY_TOO_LARGE' });
    const { source, reading } = upload({ 'content-length': '9' });
    const body = reading.read(10);
    source.emit('data', Buffer.alloc(7));
    source.emit('end');
    await expect(body).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  it('that brings nothing ends after the grace', async () => {
    const { reading, wait } = upload({ 'content-length': '10' });
    const body = reading.read(10);
    wait(10_000);
    await expect(body).rejects.toMatchObject({
      code: 'REQUEST_TIMEOUT',
      message: 'Expected at least 8192 bytes a second, received 0 in 10 s',
    });
  });

  it('goes on as long as it brings 8 KiB a second, and not longer', async () => {
    const { source, reading, timers, wait } = upload();
    const body = reading.read(1_000_000);
    for (let second = 0; second < 60; second++) {
      source.emit('data', Buffer.alloc(8_192));
      wait(1_000);
    }
    expect(timers.size).toBe(1);
    for (let second = 0; second < 10; second++) wait(1_000);
    await expect(body).rejects.toMatchObject({ code: 'REQUEST_TIMEOUT' });
    expect([reading.received, timers.size, source.listenerCount('data')]).toEqual([60 * 8_192, 0, 0]);
  });

  it('ends with its client', async () => {
    const { source, reading, timers } = upload();
    const body = reading.read(10);
    source.emit('close');
    await expect(body).rejects.toMatchObject({ code: 'RESIZE_CANCELLED' });
    expect(timers.size).toBe(0);
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
    let isBanned = false;
    const node: Probed = {
      isDraining: false,
      isInformed: true,
      get isBanned() {
        return isBanned;
      },
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

    isBanned = true;
    expect((await readiness.check())?.message).toContain('banned');
    isBanned = false;
    expect(await readiness.check()).toBeNull();

    readiness.leave();
    expect((await readiness.check())?.code).toBe('DRAINING');
  });
});
