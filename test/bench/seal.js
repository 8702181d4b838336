/*
 * What a large seal costs the event loop, and an auditor: a cluster of one node, in this process, with that many customers in one
 * epoch. `node test/bench/seal.js [customers]` prints how long it took from the end of the epoch to its seal on disk, the longest
 * time for which nothing else could be done meanwhile (requests wait that long, and so do the other members for an answer), and
 * what `waggle-verify` takes for the archive.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { packBundle } from '@waggle/protocol/audit';
import { HybridClock, seededRandom, WaggleError } from '@waggle/protocol/base';
import { Driver, entropy, openDataDirectory, openStore, readBundle, systemClock, takeStanding } from '@waggle/runtime';

const EPOCH_MS = 3_600_000;
/** Meterings that are under way at once. */
const AT_ONCE = 1_000;

const metering = (customer) => ({
  record: {
    timeMs: Date.now(),
    customer,
    keyId: 'k',
    requestId: 'r',
    operation: 'resize',
    status: 200,
    code: null,
    params: '{}',
    sku: 'resize.jpeg',
    usage: {
      requests: 1,
      requestsFailed: 0,
      bytesIn: 123_456,
      bytesOut: 23_456,
      pixelsIn: 4_000_000,
      pixelsOut: 480_000,
      cpuMicros: 34_567,
    },
    queueMicros: 1,
    processMicros: 2,
  },
});

/** Processor time of this thread, in ms: a machine that is shared makes a turn of the event loop long, but not busy (Linux). */
const cpuMs = () => Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e6;

/** Watches the event loop; `stop` gives the processor time of its longest turn, in ms. */
function watchTurns() {
  let last = cpuMs();
  let most = 0;
  const timer = setInterval(() => {
    const now = cpuMs();
    most = Math.max(most, now - last);
    last = now;
  }, 1);
  return {
    stop() {
      clearInterval(timer);
      return most;
    },
  };
}

/**
 * Gives, in ms, how long the seal of an epoch with so many customers takes, and of the event loop meanwhile its longest block, and
 * the turn that took most processor time. Writes the archive of the epoch to that file.
 */
export async function measureSeal(customers, archive) {
  const directory = mkdtempSync(join(tmpdir(), 'waggle-seal-'));
  const data = openDataDirectory(directory);
  const store = await openStore({ directory });
  let aheadMs = 0;
  // Stands still but for the end of the epoch: all are in one.
  const startMs = systemClock.nowMs();
  const clock = { ...systemClock, nowMs: () => startMs + aheadMs };
  let onSealed;
  const sealed = new Promise((resolve) => (onSealed = resolve));
  const loaded = await store.load();
  const { standing } = await takeStanding({
    directory,
    store,
    meta: loaded.meta,
    founding: { name: 'bench.example', epochMs: EPOCH_MS, sealGraceMs: 900_000 },
    invite: null,
    isMoved: false,
    random: entropy,
    clock,
    openTransport: async () => ({ join: () => Promise.reject(new WaggleError('NOT_READY')) }),
  });
  const driver = await Driver.start({
    store,
    loaded,
    standing,
    clock,
    hlc: new HybridClock(),
    random: seededRandom(1),
    onControl: () => undefined,
    onSealed: (epoch) => onSealed(epoch),
    onFatal: (error) => {
      throw error;
    },
  });
  for (let from = 0; from < customers; from += AT_ONCE)
    await Promise.all(
      Array.from({ length: Math.min(AT_ONCE, customers - from) }, (_, i) =>
        driver.meter(metering(`customer-${from + i}`)),
      ),
    );
  const delay = monitorEventLoopDelay({ resolution: 1 });
  const turns = watchTurns();
  delay.enable();
  const startedMs = performance.now();
  aheadMs = EPOCH_MS;
  await driver.meter(metering('customer-0'));
  await sealed;
  const sealMs = performance.now() - startedMs;
  // What follows the seal: sums of the month, and whatever has to be cleaned up.
  await new Promise((resolve) => setTimeout(resolve, 500));
  delay.disable();
  const turnMs = turns.stop();
  writeFileSync(archive, packBundle(0, await readBundle(store, standing.cluster, 0, driver.openEpoch)));
  await driver.close();
  await store.close();
  data.close();
  rmSync(directory, { recursive: true, force: true });
  return { sealMs, blockMs: delay.max / 1e6, turnMs };
}

const VERIFY = fileURLToPath(new URL('../../apps/verify/bin/waggle-verify.js', import.meta.url));
/** How often a process is looked at for its memory. */
const LOOK_MS = 20;

/** Gives what `waggle-verify` takes for an archive: time in ms, and the most memory that it held, in bytes (Linux). */
export async function measureVerify(archive) {
  const startedMs = performance.now();
  const child = spawn(process.execPath, [VERIFY, archive], { stdio: ['ignore', 'ignore', 'inherit'] });
  let mostBytes = 0;
  const looking = setInterval(() => {
    const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
    mostBytes = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? mostBytes / 1_024) * 1_024;
  }, LOOK_MS);
  const [code] = await once(child, 'exit');
  clearInterval(looking);
  if (code !== 0) throw new Error(`waggle-verify ended with ${code}`);
  return { verifyMs: performance.now() - startedMs, mostBytes };
}

/** The yardstick: to read the archive and hash its bytes once, in ms. */
export function measureHash(archive) {
  const startedMs = performance.now();
  createHash('sha256').update(readFileSync(archive)).digest();
  return performance.now() - startedMs;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const customers = Number(process.argv[2] ?? 100_000);
  const scratch = mkdtempSync(join(tmpdir(), 'waggle-archive-'));
  try {
    const archive = join(scratch, 'epoch-0.tar');
    const { sealMs, blockMs, turnMs } = await measureSeal(customers, archive);
    process.stdout.write(
      `${customers} customers: sealed ${Math.round(sealMs)} ms after the end of the epoch, longest block ${Math.round(blockMs)} ms (${Math.round(turnMs)} ms of its own)\n`,
    );
    const { verifyMs, mostBytes } = await measureVerify(archive);
    process.stdout.write(
      `verified in ${Math.round(verifyMs)} ms, with ${Math.round(mostBytes / 1e6)} MB of memory at most\n`,
    );
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
