import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Epoch, ErrorCode, ReplicaId, WaggleError } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import type { PoolEvent } from '@waggle/images';
import type { NodeAlarm } from './alarms.ts';
import { countedEntries, lagOf, liveEntries } from './cluster.ts';
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

const STATES = ['alive', 'suspect', 'dead', 'left', 'unheard'] as const;
const CLASSES = ['control', 'usage'] as const;
const DIRECTIONS = ['in', 'out'] as const;

/** What is counted elsewhere, with its labels. */
type Counted = readonly (readonly [labels: Readonly<Record<string, string>>, count: number])[];

/** The Prometheus metrics of one node, in a registry of their own: an observer of it, and what the HTTP server counts. */
export class Metrics implements Pick<
  Observer,
  'commit' | 'sealed' | 'worker' | 'joined' | 'joinRefused' | 'misbehaviour' | 'alarm'
> {
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

  readonly #joins = this.#counter('joins_total', 'Newcomers that asked this node, by what became of it.', ['outcome']);
  readonly #misbehaviours = this.#counter(
    'misbehaviours_total',
    'Frames of members that no correct node sends. They changed nothing.',
    ['code'],
  );
  readonly #alarms = this.#counter('alarms_total', 'What a person should have heard of; the log says more.', ['what']);

  readonly #drops = this.#counter('connections_dropped_total', 'Connections over the bound, closed unanswered.', []);

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

  joined(_replica: ReplicaId): void {
    this.#joins.inc({ outcome: 'accepted' });
  }

  joinRefused(_from: MemberKey, { code }: WaggleError): void {
    this.#joins.inc({ outcome: code });
  }

  misbehaviour(_from: ReplicaId, code: ErrorCode): void {
    this.#misbehaviours.inc({ code });
  }

  alarm({ what }: NodeAlarm): void {
    this.#alarms.inc({ what });
  }

  connectionDropped(): void {
    this.#drops.inc();
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
    this.#gauge(
      'unsealed_epochs',
      'Epochs that have ended and are not sealed.',
      () => driver.openEpoch - driver.sealingEpoch,
    );
    this.#gauge('commits_waiting', 'Meterings and changes that wait for a transaction.', () => driver.waiting);
    this.#gauge('store_full', '1 while the disk has no room.', () => Number(driver.isFull));
    this.#gauge('customers', 'Customers, deleted ones included.', () => identity.customers);
    this.#gauge('quarantined_registers', 'Fields ahead of the local clock.', () => identity.quarantined);
    this.#gauge('refused_registers', 'Malformed registers that were left out.', () => identity.refused);
    this.#gauge(
      'sealing_evidence',
      'What others wrote about sealing that no correct node writes: the pieces in evidence.jsonl, and those that could not be written.',
      () => node.accusations.all.length,
    );
    this.#watchCluster(node);
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

  /** Reads what is known of the other members, and what goes between them and this node. */
  #watchCluster({ driver, clock }: Node): void {
    this.#gauges(
      'members',
      'Members of the cluster, this one too, by state as it sees them; without those that were retired and are gone.',
      ['state'],
      () => {
        const entries = countedEntries(driver);
        return STATES.map((state) => [{ state }, entries.filter((entry) => entry.state === state).length]);
      },
    );
    this.#gauges(
      'lag_seconds',
      'Since all that the live members had to show was held here, or since one is there that has shown nothing; of the worst.',
      ['class'],
      () => {
        const [live, steadyMs] = [liveEntries(driver), clock.monotonicMs()];
        return CLASSES.map((name) => [
          { class: name },
          Math.max(0, ...live.map((entry) => lagOf(entry, name, steadyMs))) / 1000,
        ]);
      },
    );
    this.#gauge('links', 'Members that this node is connected to.', () => driver.transportCounters?.links ?? 0);
    this.#counted('transport_messages_total', 'Messages among members.', ['direction'], () => {
      const counters = driver.transportCounters;
      return counters === null ? [] : inAndOut(counters.messagesIn, counters.messagesOut);
    });
    this.#counted('transport_datagrams_total', 'Datagrams among members.', ['direction'], () => {
      const counters = driver.transportCounters;
      return counters === null ? [] : inAndOut(counters.datagramsIn, counters.datagramsOut);
    });
    this.#counted('transport_bytes_total', 'Payload of messages and datagrams.', ['direction'], () => {
      const counters = driver.transportCounters;
      return counters === null ? [] : inAndOut(counters.bytesIn, counters.bytesOut);
    });
    this.#counted('transport_refused_total', 'What was not taken, by what it was.', ['what'], () => {
      const counters = driver.transportCounters;
      if (counters === null) return [];
      const { handshakesRefused, sendsRefused, malformed } = counters;
      return [
        [{ what: 'handshake' }, handshakesRefused],
        [{ what: 'send' }, sendsRefused],
        [{ what: 'frame' }, malformed],
      ];
    });
    this.#counted('replication_messages_total', 'Messages of the replication.', ['direction'], () =>
      inAndOut(driver.stats.messages.in, driver.stats.messages.out),
    );
    this.#counted('replication_bytes_total', 'Bytes of them.', ['direction'], () =>
      inAndOut(driver.stats.bytes.in, driver.stats.bytes.out),
    );
    this.#counted('replication_registers_total', 'Registers in them, whether new or not.', ['class', 'direction'], () =>
      CLASSES.flatMap((name) =>
        DIRECTIONS.map((direction) => [{ class: name, direction }, driver.stats.registers[name][direction]] as const),
      ),
    );
    this.#counted('replication_refused_total', 'Frames of them that were not understood.', ['reason'], () => [
      [{ reason: 'cluster' }, driver.stats.foreignCluster],
      [{ reason: 'version' }, driver.stats.foreignVersion],
      [{ reason: 'type' }, driver.stats.unknownType],
    ]);
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

  #gauges(name: string, help: string, labelNames: readonly string[], read: () => Counted): void {
    const gauge: Gauge = new Gauge({
      name: `waggle_${name}`,
      help,
      labelNames,
      registers: this.#registers,
      collect: () => {
        for (const [labels, value] of read()) gauge.set(labels, value);
      },
    });
  }

  /** A counter of what is counted elsewhere since the start. */
  #counted(name: string, help: string, labelNames: readonly string[], read: () => Counted): void {
    const counter: Counter = new Counter({
      name: `waggle_${name}`,
      help,
      labelNames,
      registers: this.#registers,
      collect: () => {
        counter.reset();
        for (const [labels, count] of read()) counter.inc(labels, count);
      },
    });
  }
}

const inAndOut = (into: number, out: number): Counted => [
  [{ direction: 'in' }, into],
  [{ direction: 'out' }, out],
];
