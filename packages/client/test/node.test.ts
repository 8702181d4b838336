import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import sharp from 'sharp';
import { createHash } from 'node:crypto';
import { addUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { Operator, scratch, sealed, startNode, type RunningNode } from '../../../test/e2e/harness.ts';
import { createClient, type Attempt, type Client, type ClientOptions } from '../src/index.ts';
import { listOf } from './support.ts';

/* Against a real node: a process of its own, as its operator runs it. */

const EPOCH_MS = 2_000;

describe('a customer of a real node', () => {
  const data = scratch();
  let node: RunningNode;
  let operator: Operator;
  let key: string;
  let photograph: Buffer<ArrayBuffer>;
  const clientOf = (options: Partial<ClientOptions> = {}): Client => createClient({ nodes: node.url, key, ...options });

  beforeAll(async () => {
    node = await startNode(data.path, ['--epoch-ms', String(EPOCH_MS), '--workers', '1']);
    operator = new Operator(node.url, data.path);
    ({ key } = await operator.customer('acme'));
    const noise = {
      width: 320,
      height: 240,
      channels: 3 as const,
      background: 'teal',
      noise: { type: 'gaussian' as const, mean: 99, sigma: 30 },
    };
    photograph = Buffer.from(await sharp({ create: noise }).jpeg().toBuffer());
  }, 120_000);
  afterAll(async () => {
    await node.stop();
    data.remove();
  });

  it('gets pictures, what they are, what they would cost, and what they cost', async () => {
    const attempts: Attempt[] = [];
    const client = clientOf({ onAttempt: (attempt) => attempts.push(attempt) });
    const picture = await client.resize(photograph, { width: 64, height: 64, fit: 'cover', format: 'webp' });
    expect(await sharp(picture.bytes).metadata()).toMatchObject({ width: 64, height: 64, format: 'webp' });
    expect(picture).toMatchObject({ type: 'image/webp', width: 64, height: 64 });
    expect(picture.etag).toBe(`"${createHash('sha256').update(picture.bytes).digest('base64url')}"`);
    const { answer } = picture;
    expect(answer).toMatchObject({
      node: node.url,
      isRepeat: false,
      usage: { requests: 1, bytesIn: photograph.length },
    });
    expect(answer.receipt?.claims).toMatchObject({
      customer: 'acme',
      request: answer.requestId,
      replica: answer.replica,
      sku: 'resize.webp',
      usage: answer.usage,
    });
    expect(Object.keys(answer.timing)).toEqual(['queue', 'process', 'commit', 'total']);

    const inspection = await client.inspect(new Blob([photograph], { type: 'image/jpeg' }));
    expect(inspection).toMatchObject({ format: 'jpeg', width: 320, height: 240, bytes: photograph.length });
    const estimate = await client.estimate(photograph, { width: 10, rotate: 90 });
    expect(estimate.output).toMatchObject({ format: 'jpeg', width: 10 });
    expect(estimate.estimateMicros).toBeGreaterThan(0);

    const { body } = await client.resizeStream(
      new Blob([photograph]).stream(),
      { width: 32, format: 'auto' },
      { accept: 'image/webp' },
    );
    expect(await sharp(await new Response(body).arrayBuffer()).metadata()).toMatchObject({ width: 32, format: 'webp' });
    await expect(client.resize(photograph, { width: 0 })).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      status: 400,
      isRetryable: false,
      answer: { usage: { requestsFailed: 1 }, receipt: { claims: { customer: 'acme' } } },
    });
    await expect(client.resize(photograph.subarray(0, 900))).rejects.toMatchObject({ code: 'IMAGE_CORRUPT' });

    // What the attempts say adds up to what the node counted.
    const answers = attempts.map(({ answer: each }) => each!);
    const expected = answers.map(({ usage }) => usage as Usage).reduce(addUsage, ZERO_USAGE);
    const { totals, customer } = await client.usage();
    expect([customer, totals]).toEqual(['acme', expected]);
    expect((await client.usage({ group: 'sku' })).skus?.map(({ sku }) => sku)).toContain('resize.webp');
    const from = new Date(Date.now() - 3_600_000);
    const records = await listOf(client.records({ from }));
    expect(records.map(({ requestId }) => requestId)).toEqual(answers.map(({ requestId }) => requestId));
    expect(records.map(({ usage }) => usage).reduce(addUsage, ZERO_USAGE)).toEqual(expected);
  });

  it('is billed once for a call whose answers were lost on the way', async () => {
    const client = clientOf();
    const before = (await client.usage()).totals;
    let lost = 0;
    const lossy = clientOf({
      retries: { baseMs: 1 },
      fetch: async (url, init) => {
        const response = await fetch(url, init);
        if (!url.includes('/v1/resize') || lost === 2) return response;
        lost++;
        await response.arrayBuffer();
        throw new TypeError('fetch failed', { cause: { code: 'ECONNRESET' } });
      },
    });
    const { answer, width } = await lossy.resize(photograph, { width: 50 });
    expect([lost, width, answer.isRepeat]).toEqual([2, 50, true]);
    const after = (await client.usage()).totals;
    expect([after.requests - before.requests, after.requestsFailed - before.requestsFailed]).toEqual([1, 0]);
    expect(after.pixelsOut - before.pixelsOut).toBe(answer.usage?.pixelsOut);
  });

  it('gets its statements with their proofs, byte for byte', async () => {
    const client = clientOf();
    await client.resize(photograph, { width: 20 });
    const { epochs } = await client.usage();
    const { epoch } = epochs!.findLast(({ usage }) => usage.requests > 0)!;
    await sealed(operator, epoch);
    const entries = await listOf(client.statements());
    const entry = entries.find(({ origin }) => origin === epoch)!;
    const bytes = await client.statement(entry.epoch, { origin: entry.origin });
    expect(JSON.parse(new TextDecoder().decode(bytes))).toMatchObject({
      customer: 'acme',
      epoch,
      sealedIn: entry.epoch,
    });
    expect(await client.proof(entry.epoch, { origin: entry.origin })).toMatch(/^c2sp\.org\/tlog-proof@v1\n/);
    await expect(client.statement(1e9)).rejects.toMatchObject({ code: 'EPOCH_UNKNOWN', status: 404 });
  });

  it('finds the nodes by any of their names, and goes around one that is dead', async () => {
    const attempts: Attempt[] = [];
    const { port } = new URL(node.url);
    const client = clientOf({
      nodes: [`http://localhost:${port}`, 'http://127.0.0.1:9'],
      retries: { baseMs: 1 },
      onAttempt: (attempt) => attempts.push(attempt),
    });
    // What it learns comes in beside the calls.
    while (attempts.at(-1)?.node !== node.url) await client.inspect(photograph);
    attempts.length = 0;
    for (let i = 0; i < 20; i++) await client.inspect(photograph);
    const failed = attempts.filter(({ error }) => error !== null);
    expect(attempts).toHaveLength(20 + failed.length);
    expect(new Set(attempts.map(({ node: url }) => url)).has(`http://localhost:${port}`)).toBe(false);
    for (const { node: url, error } of failed)
      expect([url, error?.code]).toEqual(['http://127.0.0.1:9', 'CONNECTION_FAILED']);
  });

  it('with a key that is revoked, or none, is told so', async () => {
    await expect(clientOf({ key: 'wgl_nonsense' }).usage()).rejects.toMatchObject({
      code: 'KEY_MALFORMED',
      status: 401,
    });
  });

  it('survives the restart of the node in the middle of its work', async () => {
    const client = clientOf({ retries: { attemptsMax: 16, capMs: 3_000 }, deadlineMs: 120_000 });
    const { port } = new URL(node.url);
    const before = (await client.usage()).totals;
    const calls = Array.from({ length: 12 }, (_, i) => client.resize(photograph, { width: 30 + i, format: 'png' }));
    await Promise.race(calls);
    await node.stop('SIGKILL');
    node = await startNode(data.path, ['--http', `127.0.0.1:${port}`, '--workers', '1']);
    const pictures = await Promise.all(calls);
    expect(pictures.map(({ width }) => width)).toEqual(Array.from({ length: 12 }, (_, i) => 30 + i));
    const after = (await client.usage()).totals;
    expect(after.requests - before.requests).toBe(12);
  });
});
