import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { createPool, type Job, parsePlan, type Pool, type PoolEvent, type PoolOptions } from '../src/index.ts';
import { noise, plain } from './pictures.ts';

/*
 * Real processes. Nothing here sleeps: what is awaited is an outcome, an event or a state of the process table.
 */

const photo = await noise(400, 300).jpeg().toBuffer();
const dot = await plain(8, 8).png().toBuffer();
const thumbnail = parsePlan({ width: '50' });
/** Some two seconds of work. */
const slow = parsePlan({ width: '5000', format: 'avif', enlarge: 'true' });

const pools: Pool[] = [];
afterEach(async () => {
  await Promise.all(pools.splice(0).map((pool) => pool.close(0)));
});

interface Watched {
  pool: Pool;
  events: PoolEvent[];
  pids: () => number[];
}

/** A pool whose workers and spare are ready. */
async function start(options: Partial<PoolOptions> = {}): Promise<Watched> {
  const workers = options.workers ?? 1;
  const events: PoolEvent[] = [];
  const pids = (): number[] => events.filter((event) => event.type === 'ready').map((event) => event.pid);
  const pool = await new Promise<Pool>((resolve) => {
    const started: Pool = createPool({
      workers,
      ...options,
      onEvent: (event) => {
        events.push(event);
        if (pids().length === workers + 1) resolve(started);
      },
    });
    pools.push(started);
  });
  return { pool, events, pids };
}

const resize = (customer = 'c', more: Partial<Job> = {}): Job => ({
  op: 'resize',
  body: photo,
  plan: thumbnail,
  customer,
  ...more,
});
const slowly = (more: Partial<Job> = {}): Job => resize('c', { plan: slow, ...more });

/** Looks until it holds; the test's own timeout ends it. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

const alive = (pid: number): boolean => {
  const stat = `/proc/${pid}/stat`;
  return existsSync(stat) && !readFileSync(stat, 'utf8').includes(') Z ');
};

const cpuTicks = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return Number(fields[11]) + Number(fields[12]);
};

/** The worker that is at work, once it has used 50 ms of CPU for the job. */
async function busyWorker(pids: readonly number[]): Promise<number> {
  const before = pids.map(cpuTicks);
  let busy = -1;
  await until(() => {
    busy = pids.findIndex((pid, i) => cpuTicks(pid) > before[i]! + 5);
    return busy >= 0;
  });
  return pids[busy]!;
}

describe('a job', () => {
  it('is metered in CPU time, pixels and waiting', async () => {
    const { pool } = await start();
    const outcome = await pool.run(resize());
    expect(outcome).toMatchObject({ ok: true, pixelsIn: 120_000, pixelsOut: 1_900 });
    expect(outcome.cpuMicros).toBeGreaterThan(100);
    expect(outcome.queueMs).toBeGreaterThanOrEqual(0);
    expect(outcome.processMs).toBeGreaterThan(0);
  });

  it('may be given before any worker is ready', async () => {
    const pool = createPool({ workers: 1 });
    pools.push(pool);
    expect((await pool.run(resize())).ok).toBe(true);
  });

  it('is refused without a body or with too large a one', async () => {
    const { pool } = await start();
    expect(await pool.run(resize('c', { body: new Uint8Array(0) }))).toMatchObject({
      ok: false,
      error: { code: 'BODY_EMPTY' },
    });
    expect(await pool.run(resize('c', { limits: { bodyBytesMax: 100 } }))).toMatchObject({
      ok: false,
      error: { code: 'BODY_TOO_LARGE' },
    });
  });
});

describe('a deadline', () => {
  it('kills what overstays, meters it, and leaves the neighbour alone', async () => {
    const { pool, events } = await start({ workers: 2 });
    const overstaying = pool.run(slowly({ limits: { deadlineMs: 600 } }));
    let neighbours = 0;
    while (pool.stats.running > 0) {
      expect((await pool.run(resize('neighbour'))).ok).toBe(true);
      neighbours++;
    }
    const outcome = await overstaying;
    expect(outcome).toMatchObject({ ok: false, error: { code: 'RESIZE_DEADLINE' } });
    expect(outcome.cpuMicros).toBeGreaterThanOrEqual(20_000);
    expect(outcome.cpuMicros).toBeLessThan(1000 * (outcome.processMs + 100));
    expect(neighbours).toBeGreaterThan(1);
    expect(events).toContainEqual(expect.objectContaining({ type: 'replaced', reason: 'deadline' }));
    expect((await pool.run(resize())).ok).toBe(true);
    expect(pool.stats.replaced).toBe(1);
  });

  it('counts the time in the queue', async () => {
    const { pool } = await start();
    const first = pool.run(slowly({ limits: { deadlineMs: 1_000 } }));
    const second = await pool.run(resize('other', { limits: { deadlineMs: 20 } }));
    expect(second).toMatchObject({ ok: false, cpuMicros: 0, processMs: 0, error: { code: 'RESIZE_DEADLINE' } });
    expect(second.queueMs).toBeGreaterThanOrEqual(15);
    expect(pool.stats).toMatchObject({ queued: 0, queuedBytes: 0, running: 1, replaced: 0 });
    await first;
  });
});

describe('a crash', () => {
  it('costs one job its result, is metered, and the next is served', async () => {
    const { pool, pids, events } = await start();
    const doomed = pool.run(slowly());
    process.kill(await busyWorker(pids()), 'SIGKILL');
    const outcome = await doomed;
    expect(outcome).toMatchObject({ ok: false, error: { code: 'RESIZE_CRASHED' } });
    expect(outcome.cpuMicros).toBeGreaterThanOrEqual(20_000);
    expect(events).toContainEqual(expect.objectContaining({ type: 'replaced', reason: 'crashed', detail: 'SIGKILL' }));
    expect((await pool.run(resize())).ok).toBe(true);
  });

  it('of every idle worker is mended, after a pause', async () => {
    const { pool, pids, events } = await start();
    for (const pid of pids()) process.kill(pid, 'SIGKILL');
    await until(() => pool.stats.idle === 0);
    expect((await pool.run(resize())).ok).toBe(true);
    expect(events).toContainEqual(expect.objectContaining({ type: 'startFailed', retryMs: 100 }));
    expect(pool.stats.startFailures).toBe(2);
  });

  it('for want of memory is said to be that, and workers that cannot start are tried ever more rarely', async () => {
    const retries: number[] = [];
    await new Promise<void>((resolve) => {
      pools.push(
        createPool({
          workers: 1,
          memoryBytesMax: 2 ** 20,
          onEvent: (event) => {
            if (event.type === 'startFailed' && retries.push(event.retryMs) === 3) resolve();
          },
        }),
      );
    });
    expect(retries).toEqual([100, 200, 400]);
  });

  it('for want of descriptors ends nobody but the worker: it is tried again', () => {
    const built = new URL('../dist/index.js', import.meta.url).href;
    const code = `const { openSync } = await import('node:fs');
      const { createPool } = await import(${JSON.stringify(built)});
      const stop = (event) => { console.log(event.type); process.exit(0); };
      try { for (;;) openSync('/dev/null'); } catch { createPool({ workers: 1, onEvent: stop }); }`;
    const limited = 'ulimit -n 64; exec "$0" --input-type=module -e "$1"';
    const { status, stdout, stderr } = spawnSync('/bin/sh', ['-c', limited, process.execPath, code], {
      encoding: 'utf8',
    });
    expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: 'startFailed\n' });
  });
});

describe('memory', () => {
  it('is limited: the job fails and the worker lives', async () => {
    const { pool } = await start({ memoryBytesMax: 256 * 2 ** 20 });
    const large = await plain(9_000, 9_000).png({ progressive: true, compressionLevel: 1 }).toBuffer();
    expect(await pool.run(resize('c', { body: large }))).toMatchObject({
      ok: false,
      error: { code: 'RESIZE_MEMORY' },
      input: { width: 9_000 },
    });
    expect((await pool.run(resize())).ok).toBe(true);
    expect(pool.stats).toMatchObject({ replaced: 0, startFailures: 0 });
  });

  it('comes back: a worker that keeps much is replaced', async () => {
    const { pool, events } = await start({ memoryBytesMax: 180 * 2 ** 20 });
    // A third of the limit is less than a worker needs.
    expect((await pool.run(resize())).ok).toBe(true);
    await until(() => pool.stats.idle === 2);
    expect(events).toContainEqual(expect.objectContaining({ type: 'replaced', reason: 'memory' }));
  });
});

describe('the queue', () => {
  it('does not let one customer starve another', async () => {
    const { pool } = await start();
    const order: string[] = [];
    const note = (customer: string) => pool.run(resize(customer)).then(() => void order.push(customer));
    const all = Array.from({ length: 20 }, () => note('many'));
    all.push(note('one'));
    await Promise.all(all);
    expect(order.indexOf('one')).toBeLessThanOrEqual(2);
  });

  it('is bounded, at once, and the customer that fills it gives way', async () => {
    const { pool } = await start({ queueMax: 2 });
    const signal = new AbortController();
    const running = pool.run(slowly({ signal: signal.signal }));
    const waiting = [pool.run(resize('many')), pool.run(resize('many'))];
    expect(await pool.run(resize('many'))).toMatchObject({ ok: false, cpuMicros: 0, error: { code: 'QUEUE_FULL' } });
    const other = pool.run(resize('other'));
    expect(await waiting[1]).toMatchObject({ ok: false, error: { code: 'QUEUE_FULL' } });
    expect(pool.stats.queued).toBe(2);
    signal.abort();
    expect((await running).ok).toBe(false);
    expect((await other).ok).toBe(true);
    expect((await waiting[0])!.ok).toBe(true);
  });

  it('is bounded in bytes too', async () => {
    const { pool } = await start({ queueBytesMax: photo.length });
    const signal = new AbortController();
    const running = pool.run(slowly({ signal: signal.signal, body: dot }));
    const waiting = pool.run(resize('a'));
    expect(await pool.run(resize('a'))).toMatchObject({ ok: false, error: { code: 'QUEUE_FULL' } });
    signal.abort();
    await running;
    expect((await waiting).ok).toBe(true);
  });
});

describe('cancellation', () => {
  it('drops what waits', async () => {
    const { pool } = await start();
    const [first, second] = [new AbortController(), new AbortController()];
    const running = pool.run(slowly({ signal: first.signal }));
    const waiting = pool.run(resize('c', { signal: second.signal }));
    second.abort();
    expect(await waiting).toMatchObject({ ok: false, cpuMicros: 0, error: { code: 'RESIZE_CANCELLED' } });
    expect(pool.stats).toMatchObject({ queued: 0, running: 1 });
    first.abort();
    await running;
  });

  it('kills what is at work after a grace, and meters it', async () => {
    const { pool, pids } = await start();
    const controller = new AbortController();
    const running = pool.run(slowly({ signal: controller.signal }));
    await busyWorker(pids());
    controller.abort();
    const outcome = await running;
    expect(outcome).toMatchObject({ ok: false, error: { code: 'RESIZE_CANCELLED' } });
    expect(outcome.cpuMicros).toBeGreaterThanOrEqual(20_000);
    expect(pool.stats.replaced).toBe(1);
  });

  it('lets what is nearly done finish, and keeps the worker', async () => {
    const { pool } = await start();
    // The first of its kind takes a worker much longer.
    expect((await pool.run(resize('c', { body: dot }))).ok).toBe(true);
    const controller = new AbortController();
    const running = pool.run(resize('c', { body: dot, signal: controller.signal }));
    controller.abort();
    expect(await running).toMatchObject({ ok: false, error: { code: 'RESIZE_CANCELLED' } });
    expect(pool.stats.replaced).toBe(0);
  });

  it('before the start starts nothing', async () => {
    const { pool } = await start();
    expect(await pool.run(resize('c', { signal: AbortSignal.abort() }))).toMatchObject({
      ok: false,
      error: { code: 'RESIZE_CANCELLED' },
    });
  });
});

describe('the probe', () => {
  it('exercises a worker, before those who wait', async () => {
    const { pool } = await start();
    const first = pool.probe();
    expect(pool.probe()).toBe(first);
    expect(await first).toEqual({ ok: true });
    const order: string[] = [];
    const jobs = Array.from({ length: 5 }, () => pool.run(resize()).then(() => void order.push('job')));
    await Promise.all([...jobs, pool.probe().then(({ ok }) => void order.push(`probe ${ok}`))]);
    expect(order.indexOf('probe true')).toBeLessThanOrEqual(1);
  });

  it('fails if no worker answers', async () => {
    const { pool, pids } = await start();
    for (const pid of pids()) process.kill(pid, 'SIGSTOP');
    expect(await pool.probe(300)).toMatchObject({ ok: false, error: { code: 'RESIZE_DEADLINE' } });
  });
});

describe('the end', () => {
  it('finishes what was taken, refuses the rest, and leaves no process', async () => {
    const { pool, pids } = await start();
    const jobs = Array.from({ length: 5 }, () => pool.run(resize()));
    const closed = pool.close();
    expect(await pool.run(resize())).toMatchObject({ ok: false, error: { code: 'DRAINING' } });
    expect(await pool.probe()).toMatchObject({ ok: false, error: { code: 'DRAINING' } });
    expect((await Promise.all(jobs)).every((outcome) => outcome.ok)).toBe(true);
    await closed;
    expect(pids().filter(alive)).toEqual([]);
  });

  it('does not wait for what does not end', async () => {
    const { pool, pids } = await start();
    const [running, waiting] = [pool.run(slowly()), pool.run(resize())];
    await pool.close(0);
    expect(await running).toMatchObject({ ok: false, error: { code: 'DRAINING' } });
    expect(await waiting).toMatchObject({ ok: false, error: { code: 'DRAINING' } });
    expect(pids().filter(alive)).toEqual([]);
  });

  it('of the parent is the end of its workers, even by kill -9 and in the middle of a job', async () => {
    const index = fileURLToPath(new URL('../dist/index.js', import.meta.url));
    const script = `
      import { createPool, parsePlan } from ${JSON.stringify(index)};
      const pids = [];
      const pool = createPool({ workers: 1, onEvent: (event) => {
        if (pids.push(event.pid) < 2) return;
        pool.run({ op: 'resize', customer: 'c', body: Buffer.from('${dot.toString('base64')}', 'base64'),
          plan: parsePlan({ width: '5000', format: 'avif', enlarge: 'true' }) });
        console.log(JSON.stringify(pids));
      } });`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    const pids = JSON.parse(line.toString()) as number[];
    await busyWorker(pids);
    parent.kill('SIGKILL');
    await until(() => !pids.some(alive));
  });
});
