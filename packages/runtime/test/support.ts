import { closeSync, fstatSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { WaggleError, type CustomerId } from '@waggle/protocol/base';
import type { Usage } from '@waggle/protocol/lattice';
import {
  entropy,
  takeStanding,
  type Cancel,
  type Clock,
  type Metering,
  type Standing,
  type Store,
} from '../src/index.ts';

export const START_MS = 1_700_000_000_000;

/** A request that was served, with the record of it. */
export const metering = (usage: Usage, customer = 'acme' as CustomerId): Metering => ({
  record: {
    timeMs: START_MS,
    customer,
    keyId: 'k',
    requestId: 'r',
    operation: 'resize',
    status: 200,
    code: null,
    params: '{}',
    sku: 'resize.jpeg',
    usage,
    queueMicros: 1,
    processMicros: 2,
  },
});

const PAGE_BYTES = 4_096;

/** Overwrites each page of a database but the first, as a failing disk may while the database is open. */
export function damagePages(path: string): void {
  const fd = openSync(path, 'r+');
  const { size } = fstatSync(fd);
  for (let at = PAGE_BYTES; at < size; at += PAGE_BYTES)
    writeSync(fd, Buffer.alloc(PAGE_BYTES, 0xa5), 0, PAGE_BYTES, at);
  closeSync(fd);
}

/** A clock that stands still until it is moved. */
export class ManualClock implements Clock {
  #now = START_MS;
  readonly #timers = new Set<{ readonly atMs: number; readonly fn: () => void }>();
  nowMs(): number {
    return this.#now;
  }
  monotonicMs(): number {
    return this.#now;
  }
  after(ms: number, fn: () => void): Cancel {
    const timer = { atMs: this.#now + ms, fn };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
  /** Jumps; then what is due by that time comes, in order. */
  advance(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers].sort((a, b) => a.atMs - b.atMs))
      if (timer.atMs <= this.#now && this.#timers.delete(timer)) timer.fn();
  }
  /** Goes on, and what falls due comes at its time. */
  walk(ms: number): void {
    for (; ms > 0; ms--) this.advance(1);
  }
}

/** The standing of a node over a data directory: of a new one, as the founder of a cluster in which nobody else is. */
export async function standingAlone(
  directory: string,
  store: Store,
  meta: ReadonlyMap<string, string>,
  clock: Clock,
  epochMs: number,
): Promise<Standing> {
  const { standing } = await takeStanding({
    directory,
    store,
    meta,
    founding: { name: 'test.example', epochMs, sealGraceMs: 0 },
    invite: null,
    isMoved: false,
    random: entropy,
    clock,
    openTransport: async () => ({ join: () => Promise.reject(new WaggleError('NOT_READY')) }),
  });
  return standing;
}

/** Makes directories that go away after the tests of the file. */
export function temporaryDirectories(): () => string {
  const made: string[] = [];
  afterAll(() => {
    for (const path of made) rmSync(path, { recursive: true, force: true });
  });
  return () => {
    const path = mkdtempSync(join(tmpdir(), 'waggle-runtime-'));
    made.push(path);
    return path;
  };
}
