import { Load } from '../load.js';
import { Cluster, pause } from '../nodes.js';
import { converged, demand, sameChanges } from '../check.js';
import { figure, say, times } from '../report.js';

const NODES = 5;
const CLIENTS = 10;
/** A node that is back works for so long before the next is killed, in ms. */
const CALM_MS = 300;

/** Nodes are killed and started again, one after the other, while all of them take requests. */
export async function kill({ isQuick, count = isQuick ? 10 : 100 }) {
  const cluster = await Cluster.start(NODES);
  const [once, plain] = [await cluster.customer('once'), await cluster.customer('plain')];
  const load = new Load({ once, plain, nodes: () => cluster.nodes, clients: CLIENTS });
  const startedMs = performance.now();
  const starts = [];
  const changes = [];
  for (let cycle = 0; cycle < count; cycle++) {
    const node = cluster.nodes[Math.floor(Math.random() * NODES)];
    demand((await node.stop('SIGKILL')) === 'SIGKILL', `${node.name} ran until it was killed`);
    const other = cluster.running[cycle % cluster.running.length];
    changes.push(other.ask(`/v1/customers/change-${cycle}`, { method: 'PUT', body: { name: `change ${cycle}` } }));
    starts.push(await node.start());
    await Promise.all(changes);
    await pause(CALM_MS * (0.5 + Math.random()));
    if ((cycle + 1) % 20 === 0) say(`${cycle + 1} kills, ${load.answered} answers`);
  }
  await load.stop();
  const seconds = (performance.now() - startedMs) / 1000;
  const healedMs = performance.now();
  await cluster.connected();
  figure('all see all again after the last start', performance.now() - healedMs, 'ms');
  const { ms } = await converged(cluster, load);
  await sameChanges(cluster);
  figure('then all nodes sum up to the records', ms, 'ms');
  figure('kills', count, '');
  figure('answered', load.answered, `requests in ${seconds.toFixed(0)} s`);
  figure('of which under an idempotency key, each counted once', load.once.tally.metered.size, 'requests');
  figure('without an answer, and not repeated', load.plain.tally.indeterminate, 'requests');
  times('start until ready after a kill', starts);
  sayOthers(load);
}

/** Says which answers other than 200 a load got. */
export function sayOthers(load) {
  for (const { customer, tally } of load.sides)
    if (tally.others.size > 0)
      say(
        `${customer.id}: other answers: ${[...tally.others].map(([name, count]) => `${count} × ${name}`).join(', ')}`,
      );
}
