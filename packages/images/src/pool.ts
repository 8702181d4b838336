import { WaggleError } from '@waggle/protocol/base';
import { Child } from './child.ts';
import { guessCpuMicros } from './estimate.ts';
import { crashOf } from './failures.ts';
import type { SourceHeader } from './geometry.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import type { JobReport, Operation, ResultHeader, WorkerMessage } from './messages.ts';
import { parsePlan, type ResizePlan } from './plan.ts';
import { FairQueue, type Queued } from './queue.ts';

export interface PoolOptions {
  /** Pictures at work at the same time; as many as cores. One more process waits as a spare. */
  readonly workers: number;
  /** Jobs that may wait, default 256. */
  readonly queueMax?: number;
  /** Bytes that waiting jobs may hold, default 256 MiB. */
  readonly queueBytesMax?: number;
  /** Data-size limit of a worker process, default 1 GiB. Below 256 MiB many pictures fail with `RESIZE_MEMORY`. */
  readonly memoryBytesMax?: number;
  /** Limits of jobs that bring none of their own. */
  readonly limits?: Partial<Limits>;
  /** What happens to processes, for logs and metrics. Must not throw. */
  readonly onEvent?: (event: PoolEvent) => void;
}

export type PoolEvent =
  | { readonly type: 'ready'; readonly pid: number }
  /** A process ended or was ended; another takes its place. */
  | {
      readonly type: 'replaced';
      readonly pid: number;
      readonly reason: 'deadline' | 'cancelled' | 'crashed' | 'memory' | 'drained';
      readonly detail: string;
    }
  /** A process ended without a job, most likely while it started; the next attempt is `retryMs` away. */
  | {
      readonly type: 'startFailed';
      readonly pid: number;
      readonly detail: string;
      readonly failures: number;
      readonly retryMs: number;
    };

export interface Job {
  readonly op: Exclude<Operation, 'probe'>;
  /** The picture as received. Not copied: must not change before the outcome. */
  readonly body: Uint8Array;
  /** Default: `parsePlan({})`, which encodes anew. */
  readonly plan?: ResizePlan;
  /** Whose turn it is and whose time it costs. */
  readonly customer: string;
  /** In place of the pool's, field by field. */
  readonly limits?: Partial<Limits>;
  readonly signal?: AbortSignal;
}

/** What a job took, done or failed. */
export interface JobFigures {
  /** CPU time of the worker in µs: exact, and to 10 ms for a process that had to be killed. */
  readonly cpuMicros: number;
  readonly queueMs: number;
  readonly processMs: number;
  /** Pixels that were given to the decoder and pixels that were written, over all frames. */
  readonly pixelsIn: number;
  readonly pixelsOut: number;
}

/** Never an exception: a failed job is metered as well. */
export type JobOutcome =
  | (JobFigures & {
      readonly ok: true;
      /** Empty for `inspect`. */
      readonly picture: Buffer;
      readonly input: SourceHeader;
      /** Of `inspect`: what the plan would make, with 0 bytes. */
      readonly output: ResultHeader;
      readonly estimateMicros: number;
    })
  | (JobFigures & { readonly ok: false; readonly error: WaggleError; readonly input?: SourceHeader });

export interface PoolStats {
  /** Jobs waiting and the bytes they hold. */
  readonly queued: number;
  readonly queuedBytes: number;
  /** Jobs at work. */
  readonly running: number;
  /** Processes that are ready for a job. */
  readonly idle: number;
  /** Processes replaced and processes that did not start, since the pool was created. */
  readonly replaced: number;
  readonly startFailures: number;
}

/** How long a cancelled job may go on, in ms, before its process is killed: a new process costs 150 ms of CPU. */
const CANCEL_GRACE_MS = 250;
/** How long a process may take to be ready, in ms: 150 on an idle machine. */
const START_MS_MAX = 30_000;
const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 30_000;
/** A process that keeps more than this part of its limit between jobs makes room for a fresh one. */
const MEMORY_KEPT_MAX = 1 / 3;

/** A job on its way through the pool. */
interface Ticket extends Queued {
  readonly op: Operation;
  readonly body: Uint8Array;
  readonly plan: ResizePlan;
  readonly limits: Limits;
  readonly submittedMs: number;
  readonly settle: (outcome: Settled) => void;
  startedMs?: number;
  guessMicros: number;
  /** The deadline; after a cancellation, the grace. */
  timer?: NodeJS.Timeout;
  cancelled: boolean;
}

interface Settled {
  readonly error?: WaggleError;
  readonly report: Partial<JobReport>;
  readonly picture?: Buffer;
}

const deadlinePassed = (ticket: Ticket): WaggleError =>
  new WaggleError(
    'RESIZE_DEADLINE',
    `Expected a result within ${ticket.limits.deadlineMs} ms, ${ticket.startedMs === undefined ? 'still waiting' : 'still at work'}`,
  );

const cancelled = (): WaggleError => new WaggleError('RESIZE_CANCELLED');
const draining = (): WaggleError => new WaggleError('DRAINING');

/**
 * A pool of processes, one picture at a time each. A job that overstays is killed with its process, a spare takes over at
 * once, and nobody else notices.
 */
export class Pool {
  readonly #workers: number;
  readonly #memoryBytesMax: number;
  readonly #limits: Limits;
  readonly #onEvent: (event: PoolEvent) => void;
  readonly #queue: FairQueue<Ticket>;
  /** Every process that is not yet gone; those that were killed stay until they are reaped. */
  readonly #children = new Set<Child>();
  readonly #starting = new Map<Child, NodeJS.Timeout>();
  readonly #idle: Child[] = [];
  readonly #running = new Map<Child, Ticket>();
  #state: 'open' | 'draining' | 'closed' = 'open';
  #probe: Promise<{ ok: true } | { ok: false; error: WaggleError }> | undefined;
  /** Waiting probe: before every customer's job. */
  #probeTicket: Ticket | undefined;
  #failures = 0;
  #retry: NodeJS.Timeout | undefined;
  #replaced = 0;
  #startFailures = 0;
  #changed: (() => void)[] = [];

  constructor(options: PoolOptions) {
    this.#workers = options.workers;
    this.#memoryBytesMax = options.memoryBytesMax ?? 2 ** 30;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#onEvent = options.onEvent ?? (() => {});
    this.#queue = new FairQueue(options.queueMax ?? 256, options.queueBytesMax ?? 256 * 2 ** 20);
    this.#fill();
  }

  get stats(): PoolStats {
    return {
      queued: this.#queue.length,
      queuedBytes: this.#queue.bytes,
      running: this.#running.size,
      idle: this.#idle.length,
      replaced: this.#replaced,
      startFailures: this.#startFailures,
    };
  }

  /**
   * Does one job. Never rejects; the outcome's error has one of the codes `BODY_EMPTY`, `BODY_TOO_LARGE`, `IMAGE_*`,
   * `OUTPUT_TOO_LARGE`, `REQUEST_INVALID`, `RESIZE_*`, `QUEUE_FULL`, `DRAINING`.
   */
  run(job: Job): Promise<JobOutcome> {
    const { signal } = job;
    return new Promise((resolve) => {
      const onAbort = (): void => this.#cancel(ticket);
      const ticket = this.#ticket(job.op, job, (settled) => {
        signal?.removeEventListener('abort', onAbort);
        resolve(this.#outcome(ticket, settled));
      });
      const refusal = this.#refusal(ticket, signal);
      if (refusal !== undefined) return ticket.settle({ error: refusal, report: {} });
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#submit(ticket);
    });
  }

  /** Whether a worker can make a picture within `deadlineMs`. Goes before the queue; concurrent calls share one try. */
  probe(deadlineMs = 5_000): Promise<{ ok: true } | { ok: false; error: WaggleError }> {
    if (this.#state !== 'open') return Promise.resolve({ ok: false, error: draining() });
    this.#probe ??= new Promise<{ ok: true } | { ok: false; error: WaggleError }>((resolve) => {
      const ticket = this.#ticket(
        'probe',
        { body: new Uint8Array(0), customer: '', limits: { deadlineMs } },
        ({ error }) => {
          this.#probe = undefined;
          resolve(error === undefined ? { ok: true } : { ok: false, error });
        },
      );
      this.#probeTicket = ticket;
      this.#startDeadline(ticket);
      this.#dispatch();
    });
    return this.#probe;
  }

  /**
   * Takes no more jobs, finishes those it has for at most `drainMs`, refuses or kills the rest with `DRAINING`, and ends
   * every process. Resolves when all are gone.
   */
  async close(drainMs = 10_000): Promise<void> {
    if (this.#state === 'open') this.#state = 'draining';
    let overdue = false;
    const timer = setTimeout(() => {
      overdue = true;
      this.#notify();
    }, drainMs);
    const busy = (): boolean => this.#queue.length + this.#running.size > 0 || this.#probeTicket !== undefined;
    await this.#until(() => overdue || !busy());
    clearTimeout(timer);
    this.#state = 'closed';
    clearTimeout(this.#retry);
    for (let ticket = this.#take(); ticket !== undefined; ticket = this.#take())
      this.#finish(ticket, { error: draining(), report: {} });
    for (const child of this.#running.keys()) this.#killRunning(child, draining(), 'drained');
    for (const startTimer of this.#starting.values()) clearTimeout(startTimer);
    for (const child of this.#children) child.kill();
    await this.#until(() => this.#children.size === 0);
  }

  // Jobs

  #ticket(op: Operation, job: Pick<Job, 'body' | 'customer' | 'plan' | 'limits'>, settle: Ticket['settle']): Ticket {
    return {
      op,
      body: job.body,
      bytes: job.body.length,
      plan: job.plan ?? parsePlan({}),
      limits: { ...this.#limits, ...job.limits },
      customer: job.customer,
      submittedMs: performance.now(),
      settle,
      guessMicros: 0,
      cancelled: false,
    };
  }

  #refusal(ticket: Ticket, signal: AbortSignal | undefined): WaggleError | undefined {
    if (this.#state !== 'open') return draining();
    if (signal?.aborted === true) return cancelled();
    if (ticket.bytes === 0) return new WaggleError('BODY_EMPTY', 'Expected a picture, received 0 bytes');
    const { bodyBytesMax } = ticket.limits;
    if (ticket.bytes > bodyBytesMax)
      return new WaggleError('BODY_TOO_LARGE', `Expected at most ${bodyBytesMax} bytes, received ${ticket.bytes}`);
    return undefined;
  }

  #submit(ticket: Ticket): void {
    const { accepted, dropped } = this.#queue.push(ticket);
    const full = (): WaggleError =>
      new WaggleError('QUEUE_FULL', `Expected room for the job, ${this.#queue.length} are waiting`);
    for (const other of dropped) this.#settle(other, { error: full(), report: {} });
    if (!accepted) return this.#settle(ticket, { error: full(), report: {} });
    this.#startDeadline(ticket);
    this.#dispatch();
  }

  #startDeadline(ticket: Ticket): void {
    ticket.timer = setTimeout(() => this.#stop(ticket, deadlinePassed(ticket), 'deadline'), ticket.limits.deadlineMs);
  }

  #take(): Ticket | undefined {
    const probe = this.#probeTicket;
    this.#probeTicket = undefined;
    return probe ?? this.#queue.take();
  }

  #dispatch(): void {
    while (this.#running.size < this.#workers && this.#idle.length > 0) {
      const ticket = this.#take();
      if (ticket === undefined) return;
      const child = this.#idle.pop()!;
      ticket.startedMs = performance.now();
      ticket.guessMicros = ticket.op === 'resize' ? guessCpuMicros(ticket.plan, ticket.bytes) : 0;
      this.#queue.charge(ticket.customer, ticket.guessMicros);
      this.#running.set(child, ticket);
      const budgetMs = Math.max(0, ticket.limits.deadlineMs - (ticket.startedMs - ticket.submittedMs));
      child.send({ op: ticket.op, plan: ticket.plan, limits: ticket.limits, budgetMs }, ticket.body);
    }
  }

  #cancel(ticket: Ticket): void {
    if (ticket.startedMs === undefined) return this.#stop(ticket, cancelled(), 'cancelled');
    ticket.cancelled = true;
    clearTimeout(ticket.timer);
    ticket.timer = setTimeout(() => this.#stop(ticket, cancelled(), 'cancelled'), CANCEL_GRACE_MS);
  }

  /** Ends a job wherever it is. */
  #stop(ticket: Ticket, error: WaggleError, reason: 'deadline' | 'cancelled'): void {
    for (const [child, running] of this.#running)
      if (running === ticket) return this.#killRunning(child, error, reason);
    if (this.#probeTicket === ticket) this.#probeTicket = undefined;
    else if (!this.#queue.remove(ticket)) return;
    this.#settle(ticket, { error, report: {} });
  }

  #killRunning(child: Child, error: WaggleError, reason: 'deadline' | 'cancelled' | 'drained'): void {
    const ticket = this.#running.get(child)!;
    this.#running.delete(child);
    const cpuMicros = child.cpuSinceReportMicros();
    child.kill();
    this.#replace(child, reason, error.message);
    this.#finish(ticket, { error, report: { cpuMicros } });
    this.#dispatch();
  }

  /** A job that was taken is over: the customer is charged what it really cost. */
  #finish(ticket: Ticket, settled: Settled): void {
    if (ticket.op !== 'probe') {
      this.#queue.charge(ticket.customer, (settled.report.cpuMicros ?? 0) - ticket.guessMicros);
      this.#queue.finish(ticket.customer);
    }
    this.#settle(ticket, settled);
  }

  #settle(ticket: Ticket, settled: Settled): void {
    clearTimeout(ticket.timer);
    ticket.settle(settled);
    this.#notify();
  }

  #outcome(ticket: Ticket, { error, report, picture }: Settled): JobOutcome {
    const nowMs = performance.now();
    const startedMs = ticket.startedMs ?? nowMs;
    const figures: JobFigures = {
      cpuMicros: report.cpuMicros ?? 0,
      queueMs: startedMs - ticket.submittedMs,
      processMs: nowMs - startedMs,
      pixelsIn: report.pixelsIn ?? 0,
      pixelsOut: report.pixelsOut ?? 0,
    };
    const { input, output, estimateMicros } = report;
    if (error === undefined && input !== undefined && output !== undefined && estimateMicros !== undefined)
      return { ok: true, ...figures, picture: picture ?? Buffer.alloc(0), input, output, estimateMicros };
    return {
      ok: false,
      ...figures,
      error: error ?? new WaggleError('INTERNAL'),
      ...(input === undefined ? {} : { input }),
    };
  }

  // Processes

  /** Starts what is missing: the workers and one spare. */
  #fill(): void {
    if (this.#state === 'closed' || this.#retry !== undefined) return;
    const inService = (): number => this.#starting.size + this.#idle.length + this.#running.size;
    while (inService() <= this.#workers) this.#start();
  }

  #start(): void {
    const child: Child = new Child(this.#memoryBytesMax, {
      onMessage: (message, body) => this.#onMessage(child, message, body),
      onExit: (how, stderr) => this.#onExit(child, how, stderr),
    });
    this.#children.add(child);
    this.#starting.set(
      child,
      setTimeout(() => child.kill(), START_MS_MAX),
    );
  }

  #onMessage(child: Child, message: WorkerMessage, body: Buffer): void {
    if (message.type === 'ready') {
      if (!this.#starting.has(child)) return child.kill();
      clearTimeout(this.#starting.get(child));
      this.#starting.delete(child);
      this.#idle.push(child);
      this.#onEvent({ type: 'ready', pid: child.pid });
    } else {
      const ticket = this.#running.get(child);
      if (ticket === undefined) return;
      this.#failures = 0;
      this.#running.delete(child);
      const { error } = message;
      const failure = ticket.cancelled ? cancelled() : error && new WaggleError(error.code, error.message);
      this.#finish(ticket, { ...(failure === undefined ? {} : { error: failure }), report: message, picture: body });
      this.#release(child, message.rssBytes);
    }
    this.#dispatch();
  }

  /** Back to work, unless it is bloated: memory comes back to the machine, and the limit stays the next picture's own. */
  #release(child: Child, rssBytes: number): void {
    if (rssBytes <= this.#memoryBytesMax * MEMORY_KEPT_MAX) {
      this.#idle.push(child);
      return;
    }
    child.kill();
    this.#replace(child, 'memory', `${rssBytes} bytes kept after a job`);
  }

  #replace(child: Child, reason: (PoolEvent & { type: 'replaced' })['reason'], detail: string): void {
    this.#replaced++;
    this.#onEvent({ type: 'replaced', pid: child.pid, reason, detail });
    this.#fill();
  }

  #onExit(child: Child, how: string, stderr: string): void {
    this.#children.delete(child);
    const detail = stderr === '' ? how : `${how}: ${stderr}`;
    const ticket = this.#running.get(child);
    const index = this.#idle.indexOf(child);
    if (ticket !== undefined) {
      this.#running.delete(child);
      this.#replace(child, 'crashed', detail);
      const error = ticket.cancelled ? cancelled() : crashOf(stderr, how);
      this.#finish(ticket, { error, report: { cpuMicros: child.cpuSinceReportMicros() } });
    } else if (this.#starting.has(child) || index >= 0) {
      clearTimeout(this.#starting.get(child));
      this.#starting.delete(child);
      if (index >= 0) this.#idle.splice(index, 1);
      this.#retryLater(child, detail);
    }
    this.#dispatch();
    this.#notify();
  }

  /** A process that ends without a job's fault would end again: wait, twice as long each time. */
  #retryLater(child: Child, detail: string): void {
    if (this.#state === 'closed') return;
    this.#startFailures++;
    if (this.#retry === undefined) {
      const retryMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.#failures);
      this.#failures = Math.min(this.#failures + 1, 20);
      this.#retry = setTimeout(() => {
        this.#retry = undefined;
        this.#fill();
      }, retryMs);
      this.#onEvent({ type: 'startFailed', pid: child.pid, detail, failures: this.#startFailures, retryMs });
    }
  }

  // Waiting for a state of the pool

  #notify(): void {
    for (const changed of this.#changed.splice(0)) changed();
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#changed.push(resolve));
  }
}

/** Starts a pool; its processes are ready some 150 ms later, and jobs may be given at once. */
export const createPool = (options: PoolOptions): Pool => new Pool(options);
