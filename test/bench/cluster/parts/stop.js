import { Load } from '../load.js';
import { Cluster, pause } from '../nodes.js';
import { converged, demand, openAt, sealedEverywhere } from '../check.js';
import { figure } from '../report.js';
import { sayOthers } from './kill.js';

const NODES = 5;

/** One node stands still for a while: the others go on, and afterwards it is one of them again. */
export async function stop({ isQuick, seconds = isQuick ? 15 : 30 }) {
  const cluster = await Cluster.start(NODES);
  const [once, plain] = [await cluster.customer('once'), await cluster.customer('plain')];
  const frozen = cluster.nodes[Math.floor(Math.random() * NODES)];
  const others = cluster.nodes.filter((node) => node !== frozen);
  const { self } = await frozen.view();
  // Clients ask those that move; a few requests of the frozen one are in flight when it freezes.
  let isFrozen = false;
  const load = new Load({ once, plain, nodes: () => (isFrozen ? others : cluster.nodes), clients: 6, pauseMs: 20 });
  await pause(2_000);
  const before = load.answered;
  isFrozen = true;
  frozen.signal('SIGSTOP');
  const stoppedMs = performance.now();
  await cluster.connected(others);
  figure('the others see it dead after', performance.now() - stoppedMs, 'ms');
  const changed = performance.now();
  await others[0].ask('/v1/customers/meanwhile?wait=all', { method: 'PUT', body: { name: 'meanwhile' } });
  figure('a change with wait=all meanwhile', performance.now() - changed, 'ms');
  await pause(Math.max(0, seconds * 1_000 - (performance.now() - stoppedMs)));
  const during = load.answered - before;
  demand(during > seconds, `the others answer meanwhile, received ${during} answers in ${seconds} s`);
  frozen.signal('SIGCONT');
  const backMs = performance.now();
  isFrozen = false;
  await cluster.connected();
  figure('all see all alive after it goes on', performance.now() - backMs, 'ms');
  await load.stop();
  const { ms } = await converged(cluster, load);
  figure('all nodes sum up to the records, after the load', ms, 'ms');
  const epoch = await openAt(others[0]);
  await sealedEverywhere(cluster.nodes, epoch);
  const views = await Promise.all(cluster.nodes.map((node) => node.view()));
  demand(
    views.every(({ members }) => members.find(({ replica }) => replica === self).state === 'alive'),
    'no wrong verdict is left',
  );
  figure(`answered by the others within ${seconds} s`, during, 'requests');
  sayOthers(load);
}
