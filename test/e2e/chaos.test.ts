import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { unpackBundle, verifyBundle, type Verified } from '@waggle/protocol/audit';
import { seededRandom } from '@waggle/protocol/base';
import { addUsage, DIMENSIONS, parseUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { nodeCrypto } from '@waggle/runtime';
import {
  customerFetch,
  resize,
  root,
  scratch,
  sealed,
  startCluster,
  until,
  usageOf,
  type ClusterNode,
  type ClusterView,
  type RunningCluster,
} from './harness.ts';
import { makePictures } from './pictures.ts';

/* Nodes are killed while they work, and are away while the others seal. What was acknowledged is counted, and counted once. */

const EPOCH_MS = 5_000;
const GRACE_MS = 2_000;
const KILLS = 6;
const CLIENTS = 4;
/** Answers that clients have had of the nodes that stay, between a kill and the start after it. */
const ANSWERS_BETWEEN = 10;

let cluster: RunningCluster;
let picture: Uint8Array;
beforeAll(async () => {
  picture = (await makePictures())[0]!.bytes;
  cluster = await startCluster(3, ['--epoch-ms', String(EPOCH_MS), '--seal-grace-ms', String(GRACE_MS)]);
  await until('three voters', async () => {
    const { roster } = await cluster.nodes[0]!.operator.json<ClusterView>('/v1/cluster');
    return roster.length === 3 ? true : undefined;
  });
});
afterAll(() => cluster.remove());

/** A customer with a key that all nodes know. */
async function customer(id: string): Promise<string> {
  const [{ operator }] = cluster.nodes as [ClusterNode];
  await operator.json(`/v1/customers/${id}`, 'PUT', { name: id });
  const path = `/v1/customers/${id}/keys?wait=all&timeoutMs=60000`;
  const { key } = await operator.json<{ key: string }>(path, 'POST', {});
  for (const { url } of cluster.nodes)
    await until('the key', async () => ((await customerFetch(url, key, '/v1/nodes')).ok ? true : undefined));
  return key;
}

const running = (): ClusterNode[] => cluster.nodes.filter(({ isRunning }) => isRunning);
const sum = (usages: Iterable<Usage>): Usage => [...usages].reduce(addUsage, ZERO_USAGE);
const isSame = (a: Usage, b: Usage): boolean => DIMENSIONS.every((name) => a[name] === b[name]);

interface RequestRecord {
  readonly requestId: string;
  readonly usage: Usage;
}

/** What all nodes have recorded of a customer's requests: each node has those that it answered. */
async function records(id: string): Promise<RequestRecord[]> {
  const texts = await Promise.all(
    cluster.nodes.map(async ({ operator }) => (await operator.fetch(`/v1/records?customer=${id}`)).text()),
  );
  return texts.flatMap((text) =>
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as RequestRecord),
  );
}

interface Statement {
  readonly customer: string;
  /** In which it happened. */
  readonly epoch: number;
  readonly sealedIn: number;
  readonly usage: Record<string, unknown>;
}

/** A customer's statements of the epochs up to one, as a node has them, out of bundles that the verifier is content with. */
async function statements({ operator }: ClusterNode, id: string, upTo: number): Promise<Statement[]> {
  let verified: Verified | null = null;
  const found: Statement[] = [];
  for (let epoch = 0; epoch <= upTo; epoch++) {
    const bundle = unpackBundle(new Uint8Array(await (await operator.fetch(`/v1/epochs/${epoch}.tar`)).arrayBuffer()));
    const result: ReturnType<typeof verifyBundle> = verifyBundle(bundle, verified, null, nodeCrypto);
    ({ verified } = result);
    const text = await (await operator.fetch(`/v1/epochs/${epoch}/statements.jsonl`)).text();
    found.push(
      ...text
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Statement),
    );
  }
  return found.filter(({ customer: each }) => each === id);
}

const stated = (all: readonly Statement[]): Usage =>
  sum(all.flatMap(({ usage }) => Object.values(usage).map((counts) => parseUsage(counts))));

const openEpoch = async ({ operator }: ClusterNode): Promise<number> =>
  (await operator.json<{ openEpoch: number }>('/v1/cluster')).openEpoch;

/** Clients of the nodes that run, until they are told to end; half of them send each request again until it is answered. */
class Clients {
  /** By the id of the request that was metered, which the receipt names, for a repeat too. */
  readonly received = new Map<string, Usage>();
  /** Requests whose connection broke, and that were not sent again: metered or not. */
  indeterminate = 0;
  /** Answers that know nothing of the key, which all nodes had. */
  unauthorized = 0;
  #isOver = false;
  readonly #ended: Promise<unknown>;

  constructor(once: string, plain: string) {
    const random = seededRandom(6);
    const pick = (): ClusterNode | undefined => running()[random.below(Math.max(1, running().length))];
    this.#ended = Promise.all(
      Array.from({ length: CLIENTS }, async (_, i) => {
        for (let request = 0; !this.#isOver; request++) {
          const node = pick();
          if (node === undefined) await new Promise(setImmediate);
          else if (i % 2 === 0) await this.#plain(node, plain);
          else await this.#once(node, once, `${i}-${request}`);
        }
      }),
    );
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await this.#ended;
  }

  #take(response: Response): void {
    if (response.status === 401) this.unauthorized++;
    const receipt = response.headers.get('waggle-receipt');
    if (receipt === null) return;
    const { request } = JSON.parse(Buffer.from(receipt.split('.')[1]!, 'base64url').toString()) as { request: string };
    this.received.set(request, usageOf(response));
  }

  async #plain(node: ClusterNode, key: string): Promise<void> {
    try {
      const response = await resize(node.url, key, 'width=40', picture);
      this.#take(response);
      await response.arrayBuffer();
    } catch {
      this.indeterminate++;
    }
  }

  /** To the same node, whichever port it has after its next start. */
  #once(node: ClusterNode, key: string, id: string): Promise<void> {
    return until(`the answer to ${id}`, async () => {
      if (!node.isRunning) return undefined;
      try {
        const response = await resize(node.url, key, 'width=40', picture, { 'idempotency-key': id });
        this.#take(response);
        await response.arrayBuffer();
        return response.status === 200 ? true : undefined;
      } catch {
        return undefined;
      }
    }).then(() => undefined);
  }
}

describe('nodes that are killed under load', () => {
  it(`${KILLS} times lose nothing that was acknowledged, and count nothing twice`, async () => {
    const [once, plain] = [await customer('once'), await customer('plain')];
    const random = seededRandom(60);
    const clients = new Clients(once, plain);
    const answers = async (more: number): Promise<void> => {
      const goal = clients.received.size + more;
      await until(`${more} more answers`, async () => (clients.received.size >= goal ? true : undefined));
    };
    for (let kill = 0; kill < KILLS; kill++) {
      await answers(1 + random.below(ANSWERS_BETWEEN));
      const victim = cluster.nodes[random.below(cluster.nodes.length)]!;
      expect(await victim.stop('SIGKILL')).toBe('SIGKILL');
      await answers(ANSWERS_BETWEEN);
      await victim.start();
    }
    await clients.end();
    expect(clients.unauthorized).toBe(0);
    await Promise.all(cluster.nodes.map((node) => node.sees(3)));

    const kept = { once: await records('once'), plain: await records('plain') };
    // A repeat has a record, too: of no usage.
    const metered = [...kept.once, ...kept.plain].filter(({ usage }) => usage.requests + usage.requestsFailed > 0);
    const byId = new Map(metered.map(({ requestId, usage }) => [requestId, usage]));
    expect(byId.size, 'no request has two records').toBe(metered.length);
    for (const [id, usage] of clients.received) expect(byId.get(id), `request ${id}`).toEqual(usage);
    expect(byId.size - clients.received.size).toBeLessThanOrEqual(clients.indeterminate);
    expect(
      kept.once.filter(({ requestId, usage }) => usage.requests > 0 && !clients.received.has(requestId)),
      'under an idempotency key all is known',
    ).toEqual([]);
    for (const id of ['once', 'plain'] as const)
      for (const node of cluster.nodes) {
        const expected = sum(kept[id].map(({ usage }) => usage));
        await until(`the usage of ${id} at ${node.data}`, async () => {
          const { totals } = await node.operator.json<{ totals: Usage }>(`/v1/customers/${id}/usage`);
          return isSame(totals, expected) ? true : undefined;
        });
      }
  });
});

/** A customer's late statement, as the list leads to it, verified from files alone. */
async function verifiesByItsLinks({ url }: ClusterNode, key: string): Promise<void> {
  const { path, remove } = scratch();
  onTestFinished(remove);
  mkdirSync(path);
  const fetched = async (from: string): Promise<string> => {
    const response = await customerFetch(url, key, from);
    const text = await response.text();
    expect(response.status, `${from}: ${text}`).toBe(200);
    return text;
  };
  const { statements: listed } = JSON.parse(await fetched('/v1/statements')) as {
    statements: { epoch: number; origin: number; statement: string; proof: string }[];
  };
  const late = listed.find(({ epoch, origin }) => origin < epoch)!;
  expect((await customerFetch(url, key, `/v1/statements/${late.epoch}`)).status).toBe(404);
  const links = { statement: late.statement, proof: late.proof, genesis: '/v1/genesis', rosters: '/v1/rosters.jsonl' };
  const args: string[] = [];
  for (const [name, link] of Object.entries(links)) {
    const file = join(path, name);
    writeFileSync(file, await fetched(link));
    args.push(`--${name}`, file);
  }
  const verify = join(root, 'apps', 'verify', 'bin', 'waggle-verify.js');
  const { stdout } = await promisify(execFile)(process.execPath, [verify, ...args]);
  expect(stdout).toContain(`statement of late for epoch ${late.origin}, sealed in ${late.epoch}`);
}

describe('a node that is away over a deadline', () => {
  it('is written off, and what only it had counted is sealed once, as late usage', async () => {
    const key = await customer('late');
    const [a, b, c] = cluster.nodes as [ClusterNode, ClusterNode, ClusterNode];
    await Promise.all([a.stop('SIGKILL'), c.stop('SIGKILL')]);
    const usages: Usage[] = [];
    const from = await openEpoch(b);
    for (let i = 0; i < 5; i++) {
      const response = await resize(b.url, key, 'width=40', picture);
      expect(response.status).toBe(200);
      await response.arrayBuffer();
      usages.push(usageOf(response));
    }
    const workedIn = await openEpoch(b);
    await b.stop('SIGKILL');
    await Promise.all([a.start(), c.start()]);
    await Promise.all([a, c].map(({ operator }) => sealed(operator, workedIn)));
    expect(stated(await statements(a, 'late', workedIn)), 'nobody else has it').toEqual(ZERO_USAGE);
    await b.start();
    await Promise.all(cluster.nodes.map((node) => node.sees(3)));
    const expected = sum(usages);
    const upTo = await until('the late usage in a seal', async () => {
      const { sealedUpTo } = await a.operator.json<{ sealedUpTo: number }>('/v1/epochs?limit=1');
      return isSame(stated(await statements(a, 'late', sealedUpTo)), expected) ? sealedUpTo : undefined;
    });
    // Two more seals: it is in none of them again.
    await Promise.all(cluster.nodes.map(({ operator }) => sealed(operator, upTo + 2)));
    for (const node of cluster.nodes) {
      const all = await statements(node, 'late', upTo + 2);
      expect(stated(all)).toEqual(expected);
      for (const { epoch, sealedIn } of all) {
        expect(epoch).toBeGreaterThanOrEqual(from);
        expect(epoch).toBeLessThanOrEqual(workedIn);
        expect(sealedIn).toBeGreaterThan(workedIn);
      }
    }
    await verifiesByItsLinks(a, key);
  });

  it('ends with the same archives as the others, byte by byte', async () => {
    const upTo = (await openEpoch(cluster.nodes[0]!)) - 1;
    await Promise.all(cluster.nodes.map(({ operator }) => sealed(operator, upTo)));
    const areEqual = (path: string): Promise<true> =>
      until(`${path} equal at all nodes`, async () => {
        const all = await Promise.all(
          cluster.nodes.map(async ({ operator }) =>
            Buffer.from(await (await operator.fetch(path)).arrayBuffer()).toString('base64'),
          ),
        );
        return new Set(all).size === 1 ? true : undefined;
      });
    // The signatures, too: those that came after the first majority come to all, in time or after a start.
    for (let epoch = 0; epoch <= upTo; epoch++) await areEqual(`/v1/epochs/${epoch}.tar`);
  });
});
