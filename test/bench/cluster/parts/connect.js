import { Cluster, until } from '../nodes.js';
import { demand } from '../check.js';
import { figure } from '../report.js';

const NODES = 5;

/** How long it takes until all nodes see and are linked to all, newcomers and after a restart of all at once. */
export async function connect({ isQuick }) {
  const cluster = await Cluster.start(1);
  const founder = cluster.nodes[0];
  for (let i = 1; i < NODES; i++) await cluster.add();
  const invite = await cluster.invite(NODES - 1);
  await startAll(cluster, cluster.nodes.slice(1), 'join', invite);
  demand(founder.isRunning, 'the founder runs');
  for (let round = 1; round <= (isQuick ? 1 : 3); round++) {
    await cluster.stop();
    await startAll(cluster, cluster.nodes, `cold start ${round}`);
  }
}

async function startAll(cluster, nodes, what, invite) {
  const startedMs = performance.now();
  await Promise.all(nodes.map((node) => node.start(invite)));
  const readyMs = Math.max(...nodes.map((node) => node.readyMs));
  await cluster.connected();
  const aliveMs = performance.now();
  await Promise.all(
    cluster.nodes.map((node) =>
      until(`links of ${node.name}`, async () =>
        (await node.metric('waggle_links')) === NODES - 1 ? true : undefined,
      ),
    ),
  );
  figure(`${what}: processes started until the last is ready`, readyMs - startedMs, 'ms');
  figure(
    `${what}: last ready until all see all alive and have compared with all`,
    Math.max(0, aliveMs - readyMs),
    'ms',
  );
  figure(`${what}: last ready until all pairs are linked`, Math.max(0, performance.now() - readyMs), 'ms');
}
