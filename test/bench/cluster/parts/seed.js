import { Load } from '../load.js';
import { Cluster, pause } from '../nodes.js';
import { demand, converged } from '../check.js';
import { call } from '../http.js';
import { figure } from '../report.js';
import { sayOthers } from './kill.js';

const NODES = 5;

/** The founder is killed for good: the others serve, change, and let newcomers in by an invite that was made before. */
export async function seed() {
  const cluster = await Cluster.start(NODES);
  const [once, plain] = [await cluster.customer('once'), await cluster.customer('plain')];
  const invite = await cluster.invite(1);
  const { founder } = cluster;
  const others = cluster.nodes.filter((node) => node !== founder);
  demand(cluster.token !== '', 'the operator has its token');
  await founder.stop('SIGKILL');
  const killedMs = performance.now();
  const load = new Load({ once, plain, nodes: () => cluster.running, clients: 4, pauseMs: 50 });
  await cluster.connected(others);
  figure('the others see it dead after', performance.now() - killedMs, 'ms');
  const key = (await cluster.customer('orphan', others[0])).key;
  const newcomer = await cluster.add();
  figure('a newcomer, from its start until ready', await newcomer.start(invite), 'ms');
  demand((await call(newcomer.url, key, '/v1/nodes')).nodes.length > 0, 'the newcomer knows a key when it is ready');
  await cluster.connected();
  await pause(2_000);
  await load.stop();
  await converged(cluster, load);
  const [, ...changed] = cluster.nodes;
  await Promise.all(
    changed.map((node, i) =>
      node.ask(`/v1/customers/by-${i}?wait=all&timeoutMs=20000`, { method: 'PUT', body: { name: 'x' } }),
    ),
  );
  figure('answered without the founder', load.answered, 'requests');
  sayOthers(load);
}
