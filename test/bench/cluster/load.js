/*
 * Load with receipts: clients that ask for small pictures at random nodes and keep what each answer says was metered. One half of
 * them sends each request once: when its connection breaks, it may or may not have been metered. The other half sends it under an
 * idempotency key, again to the same node until it is answered: it is metered exactly once.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { send } from './http.js';
import { pause, root } from './nodes.js';

export const DIMENSIONS = ['requests', 'requestsFailed', 'bytesIn', 'bytesOut', 'pixelsIn', 'pixelsOut', 'cpuMicros'];
export const NOTHING = Object.fromEntries(DIMENSIONS.map((name) => [name, 0]));
export const add = (a, b) => Object.fromEntries(DIMENSIONS.map((name) => [name, a[name] + b[name]]));
export const isSame = (a, b) => DIMENSIONS.every((name) => a[name] === b[name]);
export const shown = (usage) => DIMENSIONS.map((name) => `${name}=${usage[name]}`).join(' ');

/** 1 600 × 1 200, JPEG: decoded at an eighth, since the results are small. */
const picture = readFileSync(join(root, 'docs', 'assets', 'meadow.jpg'));
/** How long a client waits before it tries a node again that is not there, in ms. */
const RETRY_MS = 50;
/** How long an answer may take before a client gives it up, in ms. */
const ANSWER_MS_MAX = 10_000;
/** How long after the end of the load repeats may go on, in ms. */
const REPEAT_MS_MAX = 120_000;

/** The usage of a `waggle-usage` header (RFC 9651); undefined if nothing was metered. */
export function usageOf(headers) {
  const text = headers['waggle-usage'];
  if (text === undefined) return undefined;
  const counts = Object.fromEntries(
    text.split(', ').map((member) => {
      const [name, value] = member.split('=');
      return [name.replaceAll(/-([a-z])/g, (_, letter) => letter.toUpperCase()), Number(value)];
    }),
  );
  return { ...NOTHING, ...counts };
}

/** The payload of a receipt. */
const receiptOf = (headers) => JSON.parse(Buffer.from(headers['waggle-receipt'].split('.')[1], 'base64url').toString());

/** Sends a picture to be resized; the answer as `send` gives it. */
export const resize = (node, { key }, { width = 40, timeoutMs = ANSWER_MS_MAX, headers = {} } = {}) =>
  send(node.url, `/v1/resize?width=${width}`, {
    method: 'POST',
    body: picture,
    timeoutMs,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'image/jpeg', ...headers },
  });

/** What a customer's clients received. */
class Tally {
  /** Usage by request id, of each answer that said what was metered. */
  metered = new Map();
  /** By epoch of the receipts. */
  epochs = new Map();
  total = NOTHING;
  /** Requests whose connection broke before an answer, and that were not repeated. */
  indeterminate = 0;
  /** Requests under an idempotency key without an answer at the end. */
  unanswered = 0;
  /** Answers other than 200, by status and code. */
  others = new Map();

  /** An answer; a repeat brings the usage of the first one. */
  take({ status, headers, body }) {
    const usage = usageOf(headers);
    if (usage !== undefined) {
      // Of a repeat, the receipt is the first one: it names the request that was metered.
      const { request, epoch } = receiptOf(headers);
      this.metered.set(request, usage);
      this.total = add(this.total, usage);
      this.epochs.set(epoch, add(this.epochs.get(epoch) ?? NOTHING, usage));
    }
    if (status === 200) return;
    const code = /"code":"([A-Z_]+)"/.exec(body?.toString() ?? '')?.[1];
    const name = `${status} ${code}`;
    this.others.set(name, (this.others.get(name) ?? 0) + 1);
  }

  /** The lowest and the highest that any sum of its requests may be. */
  get range() {
    const lowest = this.total.requests + this.total.requestsFailed;
    return [lowest, lowest + this.indeterminate + this.unanswered];
  }
}

/** Load of two customers, `once` and `plain`, over nodes of a cluster, until it is stopped. */
export class Load {
  /** `pauseMs` is between a client's requests. `nodes` is asked for each request. */
  constructor({ once, plain, nodes, clients = 8, pauseMs = 0 }) {
    this.once = { customer: once, tally: new Tally() };
    this.plain = { customer: plain, tally: new Tally() };
    this.nodes = nodes;
    this.pauseMs = pauseMs;
    this.isOver = false;
    const run = Array.from({ length: clients }, (_, i) => this.#client(i % 2 === 0 ? 'once' : 'plain'));
    this.ended = Promise.all(run);
    // Whoever stops the load hears of it.
    this.ended.catch(() => undefined);
  }

  get answered() {
    return this.once.tally.metered.size + this.plain.tally.metered.size;
  }

  get sides() {
    return [this.once, this.plain];
  }

  /** Ends it, and waits until what was begun is answered. */
  async stop() {
    this.isOver = true;
    this.overMs = performance.now();
    await this.ended;
  }

  async #client(kind) {
    while (!this.isOver) {
      const nodes = this.nodes();
      const node = nodes[Math.floor(Math.random() * nodes.length)];
      if (node !== undefined) await (kind === 'once' ? this.#askUntilAnswered(node) : this.#ask(node));
      if (this.pauseMs > 0 || node === undefined)
        await pause(Math.max(this.pauseMs, node === undefined ? RETRY_MS : 0));
    }
  }

  async #ask(node) {
    const { customer, tally } = this.plain;
    try {
      tally.take(await resize(node, customer));
    } catch (error) {
      if (error.wasSent) tally.indeterminate++;
      await pause(RETRY_MS);
    }
  }

  async #askUntilAnswered(node) {
    const { customer, tally } = this.once;
    const headers = { 'idempotency-key': randomUUID() };
    let wasSent = false;
    for (;;) {
      try {
        const answer = await resize(node, customer, { headers });
        // Refused before it was metered: the key is free, and another try is needed.
        const isRefused = [429, 503].includes(answer.status) && usageOf(answer.headers) === undefined;
        if (!isRefused) return tally.take(answer);
      } catch (error) {
        wasSent ||= error.wasSent;
      }
      if (this.isOver && performance.now() - this.overMs > REPEAT_MS_MAX) break;
      if (this.isOver && !wasSent) return;
      await pause(RETRY_MS);
    }
    if (wasSent) tally.unanswered++;
  }
}
