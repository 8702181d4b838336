import { Load } from '../load.js';
import { Network } from '../network.js';
import { Cluster, pause, until } from '../nodes.js';
import { converged, demand, sameArchives, sameChanges, sealedAt, sealedEverywhere } from '../check.js';
import { call } from '../http.js';
import { figure } from '../report.js';
import { sayOthers } from './kill.js';

const NODES = 5;
const EPOCH_MS = 5_000;
const GRACE_MS = 2_000;

/** Five nodes are cut into two and three under load; both sides serve and change; then all is one again. */
export async function partition({ isQuick, seconds = isQuick ? 15 : 30 }) {
  const network = new Network();
  try {
    const cluster = await Cluster.start(NODES, {
      placeOf: (i) => network.place(i),
      epochMs: EPOCH_MS,
      graceMs: GRACE_MS,
    });
    await cut(cluster, network, seconds);
    await cluster.stop();
  } finally {
    network.close();
  }
}

async function cut(cluster, network, seconds) {
  const [once, plain] = [await cluster.customer('once'), await cluster.customer('plain')];
  await until('five voters', async () => ((await cluster.founder.view()).roster.length === NODES ? true : undefined));
  const load = new Load({ once, plain, nodes: () => cluster.nodes, clients: 6, pauseMs: 20 });
  await pause(2_000);
  const few = cluster.nodes.slice(3);
  const most = cluster.nodes.slice(0, 3);
  network.split([4, 5]);
  const cutMs = performance.now();
  const sealed = [await sealedAt(most[0]), await sealedAt(few[0])];
  await Promise.all([cluster.connected(few), cluster.connected(most)]);
  figure('each side sees only itself after', performance.now() - cutMs, 'ms');
  const keys = await Promise.all([few, most].map((side, i) => changesOn(side, `side-${i}`)));
  await pause(Math.max(0, seconds * 1_000 - (performance.now() - cutMs)));
  const after = [await sealedAt(most[0]), await sealedAt(few[0])];
  figure('epochs sealed during the cut by the three of five', after[0] - sealed[0], '');
  // One that all had voted on may still become known there.
  demand(after[1] - sealed[1] <= 1, `two of five seal nothing by themselves, received ${after[1] - sealed[1]} epochs`);
  if (seconds > 4 * (EPOCH_MS / 1_000)) demand(after[0] > sealed[0] + 1, 'three of five seal during the cut');
  network.heal();
  const healMs = performance.now();
  await cluster.connected();
  figure('all see all after the healing', performance.now() - healMs, 'ms');
  await Promise.all(
    cluster.nodes.flatMap((node) =>
      keys.map((key) => until(`a key at ${node.name}`, () => call(node.url, key, '/v1/nodes'))),
    ),
  );
  await sameChanges(cluster);
  figure('changes of both sides are at all nodes, after the healing', performance.now() - healMs, 'ms');
  await load.stop();
  const { ms } = await converged(cluster, load);
  figure('all nodes sum up to the records, after the load', ms, 'ms');
  const { openEpoch } = await most[0].view();
  await sealedEverywhere(cluster.nodes, openEpoch);
  await sameArchives(cluster.nodes, openEpoch + 1);
  figure('epochs sealed and byte-equal', openEpoch + 1, '');
  figure('answered', load.answered, 'requests');
  sayOthers(load);
}

/** Makes changes at each node of a side, which the side then has; a key that only this side knows of. */
async function changesOn(side, name) {
  let key;
  for (const [i, node] of side.entries()) {
    const id = `${name}-${i}`;
    await node.ask(`/v1/customers/${id}`, { method: 'PUT', body: { name: id } });
    const issued = await node.ask(`/v1/customers/${id}/keys?wait=all&timeoutMs=20000`, { method: 'POST', body: {} });
    demand(
      issued.visibleAt.members === side.length,
      `${name} has ${side.length} nodes, received ${JSON.stringify(issued.visibleAt)}`,
    );
    key = issued.key;
    for (const other of side) await call(other.url, key, '/v1/nodes');
  }
  return key;
}
