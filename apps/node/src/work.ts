import { createHash } from 'node:crypto';
import {
  base64url,
  ERRORS,
  jcs,
  utf8,
  WaggleError,
  type CustomerId,
  type Epoch,
  type Json,
} from '@waggle/protocol/base';
import { ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { isSku } from '@waggle/protocol/usage';
import { parsePlan, type JobFigures, type JobOutcome, type ResizePlan } from '@waggle/images';
import type { IdempotencyRow } from '@waggle/runtime';
import { Admission } from './admission.ts';
import type { Node } from './node.ts';

/** One request for work on a picture, as a route hands it in. */
export interface Order {
  readonly operation: 'resize' | 'inspect';
  readonly customer: CustomerId;
  readonly keyId: string;
  readonly requestId: string;
  /** Parameters as they came: texts. */
  readonly params: Readonly<Record<string, unknown>>;
  /** The `Accept` header, for `format=auto`. */
  readonly accept: string | undefined;
  readonly body: Buffer;
  readonly idempotencyKey?: string | undefined;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
}

/** What a job that was done gave. */
export type Result = Extract<JobOutcome, { ok: true }>;

/** How it ended. What was metered is on disk. */
export interface Outcome {
  readonly error?: WaggleError;
  /** The picture and what is known of it and of its source, if it was done. */
  readonly result?: Result;
  /** What was metered; zero for a repeat. */
  readonly usage: Usage;
  readonly epoch: Epoch | null;
  /** JWS (RFC 7515, EdDSA by the node's transport key) of what was metered. */
  readonly receipt: string | null;
  /** Whether this repeats a request that was metered before under the same idempotency key. */
  readonly isRepeat: boolean;
  readonly queueMs: number;
  readonly processMs: number;
  readonly commitMs: number;
}

/** How long an idempotency key is kept, in ms. */
const IDEMPOTENCY_MS = 86_400_000;
/** Repeats that are answered under one key: each is work that nobody pays for. */
const REPEATS_MAX = 16;
/** UTF-16 units of the parameters that a record keeps. */
const PARAMS_LENGTH_MAX = 4_096;
/** Of an order that was refused before any work. */
const NO_WORK: JobFigures = { cpuMicros: 0, pixelsIn: 0, pixelsOut: 0, queueMs: 0, processMs: 0 };

/** An order's work, done or not. */
interface Job extends JobFigures {
  readonly error?: WaggleError;
  readonly result?: Result;
  /** Format of the result, as far as it is known. */
  readonly format?: string;
}

/** Admits, resizes, meters and commits: the path of a request (docs/ARCHITECTURE.md, "The life of a request"). */
export class Work {
  readonly #node: Node;
  readonly #admission = new Admission();
  /** Orders under an idempotency key that are in flight at this node. */
  readonly #keyed = new Map<string, Promise<unknown>>();
  readonly #running = new Set<Promise<unknown>>();

  constructor(node: Node) {
    this.#node = node;
  }

  /** Resolves when no order is in flight. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running);
  }

  /**
   * Takes a place among the customer's requests in flight, and gives what gives it back: before its body is read, until its
   * answer is written. Throws `LIMIT_EXCEEDED`.
   */
  admits(customer: CustomerId): () => void {
    const { identity, clock } = this.#node;
    return this.#admission.enter(customer, identity.limits(customer), clock.monotonicMs());
  }

  /**
   * Carries out an order that has a place, and meters it. Failures of the work are in the outcome, metered as well; thrown is
   * only what leaves nothing metered: `DRAINING`, `STORE_FULL`, `STORE_FAILED`, `STORE_BUSY`.
   */
  carryOut(order: Order): Promise<Outcome> {
    return this.#track(this.#carryOut(order));
  }

  /** Meters an order that was refused before it came to work, such as one whose body is too large. Throws likewise. */
  refuse(order: Omit<Order, 'body' | 'signal' | 'accept'>, bytesIn: number, error: WaggleError): Promise<Outcome> {
    return this.#track(this.#meter({ ...order, body: Buffer.alloc(0) }, bytesIn, { ...NO_WORK, error }, null));
  }

  #track(outcome: Promise<Outcome>): Promise<Outcome> {
    this.#running.add(outcome);
    const done = (): boolean => this.#running.delete(outcome);
    outcome.then(done, done);
    return outcome;
  }

  async #carryOut(order: Order): Promise<Outcome> {
    const { driver } = this.#node;
    if (this.#node.isDraining) throw new WaggleError('DRAINING');
    if (driver.isFull) throw new WaggleError('STORE_FULL');
    let plan: ResizePlan;
    try {
      plan = this.plan(order);
      if (order.body.length === 0)
        throw new WaggleError('BODY_EMPTY', 'Expected a picture as the body of the request, received nothing');
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      return this.#meter(order, order.body.length, { ...NO_WORK, error }, null);
    }
    if (order.idempotencyKey !== undefined) return this.#carryOutOnce(order, plan, order.idempotencyKey);
    return this.#meter(order, order.body.length, await this.#run(order, plan), null);
  }

  /** One after the other under one key: the first is metered, the others are repeats of it. Waiting counts for the deadline. */
  #carryOutOnce(order: Order, plan: ResizePlan, idempotencyKey: string): Promise<Outcome> {
    const { identity, clock, store } = this.#node;
    const key = digest(order.customer, idempotencyKey);
    const before = this.#keyed.get(key);
    const arrivedMs = clock.monotonicMs();
    const outcome = (async () => {
      const { deadlineMs } = identity.limits(order.customer);
      if (before !== undefined && !(await this.#within(before, deadlineMs))) {
        const error = new WaggleError(
          'RESIZE_DEADLINE',
          `Expected a result within ${deadlineMs} ms, still waiting for another request under the idempotency key`,
        );
        return this.#meter(order, order.body.length, { ...NO_WORK, error }, null);
      }
      const waitedMs = clock.monotonicMs() - arrivedMs;
      const request = digest(order.operation, jcs(plan as unknown as Json), order.body);
      const kept = await store.idempotency(order.customer, key, clock.nowMs());
      if (kept !== null) return this.#repeat(order, plan, kept, request, waitedMs);
      const expiresMs = clock.nowMs() + IDEMPOTENCY_MS;
      const row = { customer: order.customer, key, requestHash: request, result: '', expiresMs, repeats: 0 };
      return this.#meter(order, order.body.length, await this.#run(order, plan, waitedMs), row);
    })();
    // Whoever comes next waits for all before it, also for one that this order gave up waiting for.
    const all = Promise.allSettled([before, outcome]);
    this.#keyed.set(key, all);
    void all.then(() => {
      if (this.#keyed.get(key) === all) this.#keyed.delete(key);
    });
    return outcome;
  }

  /** Whether it settles, one way or the other, within that many ms. */
  async #within(promise: Promise<unknown>, ms: number): Promise<boolean> {
    let cancel: (() => void) | undefined;
    const late = new Promise<boolean>((resolve) => (cancel = this.#node.clock.after(ms, () => resolve(false))));
    const settled = promise.then(
      () => true,
      () => true,
    );
    const inTime = await Promise.race([settled, late]);
    cancel?.();
    return inTime;
  }

  async #repeat(
    order: Order,
    plan: ResizePlan,
    kept: IdempotencyRow,
    request: string,
    waitedMs: number,
  ): Promise<Outcome> {
    const refused =
      kept.requestHash !== request
        ? new WaggleError(
            'IDEMPOTENCY_MISMATCH',
            'Expected the same operation, parameters and body as before under this idempotency key',
          )
        : kept.repeats >= REPEATS_MAX
          ? new WaggleError(
              'IDEMPOTENCY_EXHAUSTED',
              `Expected at most ${REPEATS_MAX} repeats under one idempotency key`,
            )
          : undefined;
    if (refused !== undefined) return this.#meter(order, order.body.length, { ...NO_WORK, error: refused }, null);
    const job = await this.#run(order, plan, waitedMs);
    if (job.error !== undefined) return this.#meter(order, order.body.length, job, null);
    const { usage, epoch, receipt } = JSON.parse(kept.result) as Pick<Outcome, 'usage' | 'epoch' | 'receipt'>;
    const again = await this.#commit(order, job, ZERO_USAGE, { ...kept, repeats: kept.repeats + 1 });
    return { ...again, usage, epoch, receipt, isRepeat: true };
  }

  /** The work itself. Failures are values: they are metered like the rest. */
  async #run(order: Order, plan: ResizePlan, waitedMs = 0): Promise<Job> {
    const { identity, pool } = this.#node;
    const limits = identity.limits(order.customer);
    const deadlineMs = Math.max(1, limits.deadlineMs - waitedMs);
    const { operation: op, body, customer, signal } = order;
    return jobOf(plan, await pool.run({ op, body, plan, limits: { ...limits, deadlineMs }, customer, signal }));
  }

  /** The plan of an order's parameters, over those of the preset that they name. Throws `REQUEST_INVALID`. */
  plan({
    operation,
    customer,
    params: given,
    accept,
  }: Pick<Order, 'operation' | 'customer' | 'params' | 'accept'>): ResizePlan {
    const { preset: name, ...params } = given;
    if (operation === 'inspect' && Object.keys(given).length > 0)
      throw new WaggleError('REQUEST_INVALID', `Expected no parameters, received ${Object.keys(given)[0]}`);
    if (name === undefined) return parsePlan(params, accept);
    const preset = typeof name === 'string' ? this.#node.identity.preset(customer, name) : undefined;
    if (preset === undefined)
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected the name of a preset, received ${JSON.stringify(name)?.slice(0, 80)}`,
      );
    return parsePlan({ ...preset, ...params }, accept);
  }

  /** What a finished or failed job costs, committed. */
  #meter(
    order: Omit<Order, 'signal' | 'accept'>,
    bytesIn: number,
    job: Job,
    idempotency: IdempotencyRow | null,
  ): Promise<Outcome> {
    const failed = job.error !== undefined;
    const usage: Usage = {
      requests: failed ? 0 : 1,
      requestsFailed: failed ? 1 : 0,
      bytesIn,
      bytesOut: failed ? 0 : (job.result?.picture.length ?? 0),
      pixelsIn: job.pixelsIn,
      pixelsOut: failed ? 0 : job.pixelsOut,
      cpuMicros: job.cpuMicros,
    };
    return this.#commit(order, job, usage, failed ? null : idempotency);
  }

  async #commit(
    order: Omit<Order, 'signal' | 'accept'>,
    job: Job,
    usage: Usage,
    idempotency: IdempotencyRow | null,
  ): Promise<Outcome> {
    const { driver, clock } = this.#node;
    const { error, queueMs, processMs } = job;
    const sku = skuOf(order.operation, job.format);
    const timeMs = clock.nowMs();
    const startedMs = clock.monotonicMs();
    const receiptOf = (epoch: Epoch): string => this.#receipt(order, sku, usage, epoch, timeMs);
    const isFirst = idempotency !== null && idempotency.result === '';
    const keep = (epoch: Epoch): IdempotencyRow[] => {
      if (idempotency === null) return [];
      return [
        isFirst ? { ...idempotency, result: JSON.stringify({ usage, epoch, receipt: receiptOf(epoch) }) } : idempotency,
      ];
    };
    const epoch = await driver.meter({
      record: {
        timeMs,
        customer: order.customer,
        keyId: order.keyId,
        requestId: order.requestId,
        operation: order.operation,
        status: error === undefined ? 200 : ERRORS[error.code].status,
        code: error?.code ?? null,
        params: paramsText(order.params),
        sku,
        usage,
        queueMicros: Math.round(queueMs * 1000),
        processMicros: Math.round(processMs * 1000),
      },
      idempotency: keep,
    });
    return {
      ...(error === undefined ? {} : { error }),
      ...(job.result === undefined ? {} : { result: job.result }),
      usage,
      epoch,
      receipt: receiptOf(epoch),
      isRepeat: false,
      queueMs,
      processMs,
      commitMs: clock.monotonicMs() - startedMs,
    };
  }

  /** What was metered, signed by this node: it can be shown to anyone who has the genesis. */
  #receipt(
    order: Pick<Order, 'customer' | 'keyId' | 'requestId'>,
    sku: string,
    usage: Usage,
    epoch: Epoch,
    timeMs: number,
  ): string {
    const { cluster, replica, keys } = this.#node.standing;
    const { customer, keyId: key, requestId: request } = order;
    const payload = {
      cluster: cluster.id,
      replica,
      customer,
      key,
      request,
      epoch,
      sku,
      usage: { ...usage },
      time: new Date(timeMs).toISOString(),
    };
    const signed = `${base64url.encode(utf8(jcs({ alg: 'EdDSA', kid: replica })))}.${base64url.encode(utf8(jcs(payload)))}`;
    return `${signed}.${base64url.encode(keys.transport.sign(utf8(signed)))}`;
  }
}

function jobOf(plan: ResizePlan, outcome: JobOutcome): Job {
  const { cpuMicros, pixelsIn, pixelsOut, queueMs, processMs } = outcome;
  const figures = { cpuMicros, pixelsIn, pixelsOut, queueMs, processMs };
  if (outcome.ok) return { ...figures, result: outcome, format: outcome.output.format };
  const format = plan.format === 'source' || plan.format === 'auto' ? outcome.input?.format : plan.format;
  return { ...figures, error: outcome.error, ...(format === undefined ? {} : { format }) };
}

/** The billing category: of a failed resize too, if its format was known by then. */
function skuOf(operation: Order['operation'], format: string | undefined): string {
  if (operation === 'inspect') return 'inspect';
  const sku = `resize.${format ?? 'other'}`;
  return isSku(sku) ? sku : 'resize.other';
}

/** The parameters as a record keeps them; none if somebody sent a novel. */
function paramsText(params: Order['params']): string {
  const text = JSON.stringify(params);
  return text.length <= PARAMS_LENGTH_MAX ? text : '{}';
}

/** 16 bytes of SHA-256 over the parts, each with its length, in hexadecimal. */
function digest(...parts: readonly (string | Buffer)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(`${Buffer.byteLength(part)}:`).update(part);
  return hash.digest('hex').slice(0, 32);
}
