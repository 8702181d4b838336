import { send } from '../http.js';
import { Cluster } from '../nodes.js';
import { demand } from '../check.js';
import { figure, times } from '../report.js';

const NODES = 5;
const VISIBLE_MS_MAX = 30_000;

/** How long after the answer a new key works, and a revoked one is refused, at every node. */
export async function identity({ isQuick, count = isQuick ? 40 : 200 }) {
  const cluster = await Cluster.start(NODES);
  const seen = { issued: [], revoked: [] };
  const answers = [];
  const looks = [];
  let number = 0;
  const issue = async (wait = '') => {
    const node = anyOf(cluster.nodes);
    const id = `customer-${number++}`;
    await node.ask(`/v1/customers/${id}`, { method: 'PUT', body: { name: id } });
    const startedMs = performance.now();
    const issued = await node.ask(`/v1/customers/${id}/keys${wait}`, { method: 'POST', body: {} });
    return { ...issued, node, id, startedMs, answeredMs: performance.now() };
  };
  const revoke = async ({ id, key }, wait = '') => {
    const node = anyOf(cluster.nodes);
    const startedMs = performance.now();
    await node.ask(`/v1/customers/${id}/keys/${key.split('_')[1]}${wait}`, { method: 'DELETE' });
    return { node, key, startedMs, answeredMs: performance.now() };
  };
  for (let i = 0; i < count / 2; i++) {
    const issued = await issue();
    answers.push(issued.answeredMs - issued.startedMs);
    seen.issued.push(...(await watch(cluster, issued, 200, looks)));
    const revoked = await revoke(issued);
    answers.push(revoked.answeredMs - revoked.startedMs);
    seen.revoked.push(...(await watch(cluster, revoked, 401, looks)));
  }
  times('a change, its answer', answers);
  times('key usable at another node, after the answer', seen.issued);
  times('key refused at another node, after the answer', seen.revoked);
  times('resolution: time between two looks at a node', looks);

  const waits = [];
  const shortfalls = [];
  const timeout = 20_000;
  const wait = `?wait=all&timeoutMs=${timeout}`;
  for (let i = 0; i < count / 5; i++) {
    const issued = await issue(wait);
    waits.push(issued.answeredMs - issued.startedMs);
    if (issued.visibleAt.members !== NODES) shortfalls.push(issued.visibleAt);
    await expectAll(cluster, issued.key, 200, 'a key that was issued with wait=all works at every node');
    const revoked = await revoke(issued, wait);
    waits.push(revoked.answeredMs - revoked.startedMs);
    await expectAll(cluster, issued.key, 401, 'a key that was revoked with wait=all is refused at every node');
  }
  demand(shortfalls.length === 0, `wait=all reaches all nodes, received ${JSON.stringify(shortfalls)}`);
  times('a change with wait=all, its answer', waits);
  figure('changes', count + 2 * Math.ceil(count / 5), '');
}

const anyOf = (nodes) => nodes[Math.floor(Math.random() * nodes.length)];
const statusAt = async (node, key) =>
  (await send(node.url, '/v1/nodes', { headers: { authorization: `Bearer ${key}` } })).status;

/** At each other node: ms from the answer until it answers a key with a status. Asked again as soon as it has answered. */
async function watch(cluster, { node: at, key, answeredMs }, status, looks) {
  const others = cluster.nodes.filter((node) => node !== at);
  demand((await statusAt(at, key)) === status, `the node that was asked answers ${status} at once`);
  return Promise.all(
    others.map(async (node) => {
      for (let before = performance.now(); ;) {
        const isThere = (await statusAt(node, key)) === status;
        const nowMs = performance.now();
        if (isThere) return nowMs - answeredMs;
        looks.push(nowMs - before);
        demand(nowMs - answeredMs < VISIBLE_MS_MAX, `${node.name} knows of a change within ${VISIBLE_MS_MAX} ms`);
        before = nowMs;
      }
    }),
  );
}

async function expectAll(cluster, key, status, what) {
  const statuses = await Promise.all(cluster.nodes.map((node) => statusAt(node, key)));
  demand(
    statuses.every((each) => each === status),
    `${what}, received ${statuses.join(' ')}`,
  );
}
