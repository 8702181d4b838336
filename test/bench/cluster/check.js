/* What has to hold when a cluster has healed: nothing acknowledged is lost, nothing is counted twice, all nodes say the same. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { add, isSame, NOTHING, shown } from './load.js';
import { call, send } from './http.js';
import { root, until } from './nodes.js';

const run = promisify(execFile);
const VERIFY = join(root, 'apps', 'verify', 'bin', 'waggle-verify.js');
const OUTPUT_BYTES_MAX = 2 ** 28;
/** Epochs of one page of the API. */
const PAGE = 1_000;

/** Throws unless it holds. */
export function demand(holds, what) {
  if (!holds) throw new Error(`violated: ${what}`);
}

/** A customer's usage over all time, as a node sees it. */
async function totalsAt(node, { id }) {
  const { totals } = await node.ask(`/v1/customers/${id}/usage`, { timeoutMs: 30_000 });
  return totals;
}

/** The records at a node of a customer's requests that were metered: repeats have records of no usage. */
async function recordsAt(node, { id }) {
  const headers = { authorization: `Bearer ${node.cluster.token}` };
  const { status, body } = await send(node.url, `/v1/records?customer=${id}`, { headers, timeoutMs: 60_000 });
  demand(status === 200 && body !== null, `${node.name} gives its records, received ${status}`);
  const lines = body.toString().split('\n').filter(Boolean);
  const records = lines.map((line) => JSON.parse(line));
  return records
    .filter(({ usage }) => usage.requests + usage.requestsFailed > 0)
    .map(({ requestId, usage }) => [requestId, usage]);
}

/**
 * The usage that was metered for one side of a load, by the request records of all nodes. Throws if a request was metered twice, if
 * one that was acknowledged is missing, or if there are more than the indeterminate ones beyond.
 */
async function recorded(nodes, { customer, tally }) {
  const records = (await Promise.all(nodes.map((node) => recordsAt(node, customer)))).flat();
  const byId = new Map(records);
  demand(byId.size === records.length, `no request of ${customer.id} has two records`);
  for (const [id, usage] of tally.metered) {
    const kept = byId.get(id);
    demand(kept !== undefined, `request ${id} of ${customer.id} was acknowledged and has a record`);
    demand(isSame(kept, usage), `the record of ${id} says ${shown(usage)}, received ${shown(kept)}`);
  }
  const [lowest, highest] = tally.range;
  demand(
    records.length >= lowest && records.length <= highest,
    `${customer.id}: from ${lowest} to ${highest} records, received ${records.length}`,
  );
  return [...byId.values()].reduce(add, NOTHING);
}

/**
 * Waits until all running nodes say of both sides of a load what their records say. Gives the ms it took, and the sums. What a node
 * has metered it has on its own disk, so the sum of the records is known before the nodes have told each other.
 */
export async function converged(cluster, load, timeoutMs = 120_000) {
  const startedMs = performance.now();
  const totals = new Map();
  for (const side of load.sides) {
    const expected = await recorded(
      cluster.nodes.filter(({ isRunning }) => isRunning),
      side,
    );
    totals.set(side.customer.id, expected);
    for (const node of cluster.running) {
      let last = NOTHING;
      await until(
        `usage of ${side.customer.id} at ${node.name}`,
        async () => {
          last = await totalsAt(node, side.customer);
          return isSame(last, expected) ? true : undefined;
        },
        timeoutMs,
      ).catch((error) => {
        throw new Error(
          `violated: ${node.name} sums ${side.customer.id} up to what was metered: expected ${shown(expected)}, received ${shown(last)}`,
          { cause: error },
        );
      });
    }
  }
  const { customer, tally } = load.once;
  if (tally.unanswered === 0)
    demand(isSame(totals.get(customer.id), tally.total), `${customer.id} pays each idempotency key once`);
  return { ms: performance.now() - startedMs, totals };
}

/** Waits until all running nodes list the same customers, keys' worth of audit entries and tokens. */
export async function sameChanges(cluster, timeoutMs = 120_000) {
  await until(
    'the same customers and changes at all nodes',
    async () => {
      const answers = await Promise.all(
        cluster.running.map(async (node) => {
          const customers = await node.ask('/v1/customers?limit=1000');
          const headers = { authorization: `Bearer ${cluster.token}` };
          const audit = await send(node.url, '/v1/audit', { headers });
          return `${JSON.stringify(customers)}\n${audit.body}`;
        }),
      );
      return new Set(answers).size === 1 ? true : undefined;
    },
    timeoutMs,
  );
}

/** How many epochs are sealed at a node: from 0 up to that, exclusive. */
export async function sealedAt(node) {
  const { sealedUpTo } = await node.ask('/v1/epochs?limit=1', { timeoutMs: 10_000 });
  return sealedUpTo === null ? 0 : sealedUpTo + 1;
}

/** The epoch that a node meters in. */
export const openAt = async (node) => (await node.view()).openEpoch;

/** Waits until an epoch is sealed at these nodes. */
export const sealedEverywhere = (nodes, epoch, timeoutMs = 120_000) =>
  Promise.all(
    nodes.map((node) =>
      until(
        `epoch ${epoch} sealed at ${node.name}`,
        async () => ((await sealedAt(node)) > epoch ? true : undefined),
        timeoutMs,
      ),
    ),
  );

/** The statements of all epochs before one, as a node has them: `origin` is the epoch it happened in, `epoch` the one that sealed it. */
export async function statementsAt(node, before) {
  const statements = [];
  for (let epoch = 0; epoch < before; epoch++) {
    const headers = { authorization: `Bearer ${node.cluster.token}` };
    const { status, body } = await send(node.url, `/v1/epochs/${epoch}/statements.jsonl`, { headers });
    demand(status === 200 && body !== null, `${node.name} has the statements of epoch ${epoch}, received ${status}`);
    for (const line of body.toString().split('\n').filter(Boolean)) {
      const { customer, epoch: origin, sealedIn, usage } = JSON.parse(line);
      demand(sealedIn === epoch, `the statements of epoch ${epoch} are sealed in it, received ${sealedIn}`);
      statements.push({ epoch, origin, customer, usage: Object.values(usage).reduce(add, NOTHING) });
    }
  }
  return statements;
}

/** The sum of a customer's statements. */
export const sealedUsage = (statements, { id }) =>
  statements.filter(({ customer }) => customer === id).reduce((sum, { usage }) => add(sum, usage), NOTHING);

/** The bundles of all epochs before one, as a node has them. */
export async function archivesAt(node, before) {
  const bundles = [];
  for (let epoch = 0; epoch < before; epoch++) bundles.push(await bundleAt(node, epoch));
  return bundles;
}

/**
 * Throws unless all nodes give equal bytes for each epoch before one. Signatures that came after the first majority are still being
 * added at some: in the end all have the same, within `timeoutMs` in all.
 */
export async function sameArchives(nodes, before, timeoutMs = 60_000) {
  const unequal = async () => {
    const found = [];
    for (let epoch = 0; epoch < before; epoch++) {
      const digests = (await Promise.all(nodes.map((node) => bundleAt(node, epoch)))).map(digest);
      if (new Set(digests).size > 1) found.push(`${epoch}: ${digests.join(' ')}`);
    }
    return found;
  };
  await until('equal archives', async () => ((await unequal()).length === 0 ? true : undefined), timeoutMs).catch(
    async (error) => {
      const found = await unequal();
      demand(found.length === 0, `all nodes have equal archives, but for\n     ${found.join('\n     ')}\n   ${error}`);
    },
  );
}

const digest = (bytes) => createHash('sha256').update(bytes).digest('hex').slice(0, 12);

async function bundleAt(node, epoch) {
  const headers = { authorization: `Bearer ${node.cluster.token}` };
  const { status, body } = await send(node.url, `/v1/epochs/${epoch}.tar`, { headers, timeoutMs: 60_000 });
  if (status !== 200 || body === null)
    throw new Error(`the archive of epoch ${epoch} at ${node.name}: ${status} ${body}`);
  return body;
}

/** Throws unless `waggle-verify` is content with these bundles, with nothing trusted but the genesis of a node. */
export async function verifyArchives(cluster, bundles) {
  const folder = join(cluster.directory, 'bundles');
  mkdirSync(folder, { recursive: true });
  const genesis = join(cluster.directory, 'genesis.json');
  const [node] = cluster.running;
  writeFileSync(genesis, (await send(node.url, '/v1/genesis')).body);
  for (const [epoch, bundle] of bundles.entries()) writeFileSync(join(folder, `${epoch}.tar`), bundle);
  await run(process.execPath, [VERIFY, folder, '--genesis', genesis], { maxBuffer: OUTPUT_BYTES_MAX }).catch(
    (error) => {
      throw new Error(`violated: waggle-verify passes: ${error.stdout}${error.stderr}`, { cause: error });
    },
  );
}

/** The members of each roster of the epochs before one, as a node has them. */
export async function rostersAt(node, before) {
  const sizes = [];
  for (let from = 0; from < before; from++)
    sizes.push((await call(node.url, node.cluster.token, `/v1/epochs/${from}/roster.json`)).length);
  return sizes;
}

/** When each epoch before one ended, in Unix ms. */
export async function endsAt(node, before) {
  const ends = [];
  while (ends.length < before) {
    const { epochs } = await node.ask(`/v1/epochs?from=${ends.length}&limit=${PAGE}`);
    demand(epochs.length > 0, `${node.name} lists epoch ${ends.length}`);
    ends.push(...epochs.slice(0, before - ends.length).map(({ end }) => Date.parse(end)));
  }
  return ends;
}
