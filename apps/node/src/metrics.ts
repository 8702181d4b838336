import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Epoch } from '@waggle/protocol/base';
import type { PoolEvent } from '@waggle/images';
import type { Node, Observer } from './node.ts';
import type { Outcome } from './work.ts';

/** Upper bounds in seconds: a durable write takes about 1 ms, a usual picture 10, the deadline is 30 s. */
const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** One answered request, as metrics count it. */
export interface Answered {
  readonly method: string;
  /** Pattern of the route, never the path itself. */
  readonly route: string;
  readonly status: number;
  /** Code of the problem; empty if there was none. */
  readonly code: string;
  readonly ms: number;
}

/** The Prometheus metrics of one node, in a registry of their own: an observer of it, and what the HTTP server counts. */
export class Metrics implements Pick<Observer, 'commit' | 'sealed' | 'worker'> {
  readonly registry = new Registry();
  readonly #registers = [this.registry];
  readonly #requests = this.#counter('http_requests_total', 'Requests answered.', [
    'method',
    'route',
    'status',
    'code',
  ]);
  readonly #request = this.#histogram(
    'http_request_seconds',
    'From the first byte of a request to the last of its answer.',
    ['route'],
  );
  readonly #queue = this.#histogram('queue_seconds', 'How long work waited for a worker.', []);
  readonly #process = this.#histogram('process_seconds', 'How long a worker had the work.', []);
  readonly #meter = this.#histogram('meter_seconds', 'How long finished work waited until it was durably metered.', []);
  readonly #commit = this.#histogram('commit_seconds', 'How long a transaction took.', []);
  readonly #entries = this.#counter(
    'commit_entries_total',
    'Meterings and changes written, over all transactions.',
    [],
  );
  readonly #seals = this.#counter('seals_total', 'Epochs sealed since the start.', []);
  readonly #restarts = this.#counter('worker_restarts_total', 'Worker processes that ended and were replaced.', [
    'reason',
  ]);

  constructor() {
    collectDefaultMetrics({ register: this.registry });
  }

  commit(ms: number, entries: number): void {
    this.#commit.observe(ms / 1000);
    this.#entries.inc(entries);
  }

  sealed(_epoch: Epoch): void {
    this.#seals.inc();
  }

  worker(event: PoolEvent): void {
    if (event.type !== 'ready') this.#restarts.inc({ reason: event.type === 'replaced' ? event.reason : 'start' });
  }

  /** A request was answered. */
  answered({ method, route, status, code, ms }: Answered): void {
    this.#requests.inc({ method, route, status, code });
    this.#request.observe({ route }, ms / 1000);
  }

  /** Work was metered, done or not. */
  work({ queueMs, processMs, commitMs }: Outcome): void {
    this.#queue.observe(queueMs / 1000);
    this.#process.observe(processMs / 1000);
    this.#meter.observe(commitMs / 1000);
  }

  /** Reads the figures of a node whenever they are asked for. Once. */
  watch(node: Node, version: string): void {
    const { pool, driver, identity, store, standing, config } = node;
    this.#gauge('jobs_queued', 'Jobs that wait for a worker.', () => pool.stats.queued);
    this.#gauge('jobs_queued_bytes', 'Bytes of the pictures of jobs that wait.', () => pool.stats.queuedBytes);
    this.#gauge('jobs_running', 'Jobs at work.', () => pool.stats.running);
    this.#gauge('workers_idle', 'Workers ready for a job, the spare included.', () => pool.stats.idle);
    this.#gauge('workers', 'Jobs that may be at work at the same time.', () => config.workers);
    this.#gauge('open_epoch', 'The epoch that requests are metered in.', () => driver.openEpoch);
    this.#gauge('sealed_epochs', 'Epochs that are sealed, from the first one on.', () => driver.sealingEpoch);
    this.#gauge('commits_waiting', 'Meterings and changes that wait for a transaction.', () => driver.waiting);
    this.#gauge('store_full', '1 while the disk has no room.', () => Number(driver.isFull));
    this.#gauge('customers', 'Customers, deleted ones included.', () => identity.customers);
    this.#gauge('quarantined_registers', 'Fields ahead of the local clock.', () => identity.quarantined);
    this.#gauge('refused_registers', 'Malformed registers that were left out.', () => identity.refused);
    const sizes = new Gauge({
      name: 'waggle_store_bytes',
      help: 'Bytes on disk.',
      labelNames: ['file'],
      registers: this.#registers,
      async collect() {
        const { databaseBytes, walBytes } = await store.sizes();
        sizes.set({ file: 'database' }, databaseBytes);
        sizes.set({ file: 'wal' }, walBytes);
      },
    });
    new Gauge({
      name: 'waggle_build_info',
      help: 'Always 1; what runs here is in the labels.',
      labelNames: ['version', 'replica', 'cluster', 'node'],
      registers: this.#registers,
    }).set({ version, replica: standing.replica, cluster: standing.cluster.id, node: process.version }, 1);
  }

  /** Reads how much memory bodies take. Once. */
  watchBodies(memory: { readonly bytes: number }): void {
    this.#gauge(
      'body_bytes',
      'Memory of bodies, from their first byte until their work is done, of answers not taken yet, and kept for the next bodies.',
      () => memory.bytes,
    );
  }

  #counter<L extends string>(name: string, help: string, labelNames: readonly L[]): Counter<L> {
    return new Counter({ name: `waggle_${name}`, help, labelNames, registers: this.#registers });
  }

  #histogram<L extends string>(name: string, help: string, labelNames: readonly L[]): Histogram<L> {
    return new Histogram({ name: `waggle_${name}`, help, labelNames, buckets: SECONDS, registers: this.#registers });
  }

  #gauge(name: string, help: string, read: () => number): void {
    const gauge: Gauge = new Gauge({
      name: `waggle_${name}`,
      help,
      registers: this.#registers,
      collect: () => gauge.set(read()),
    });
  }
}
