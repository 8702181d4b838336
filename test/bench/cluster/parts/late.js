import { add, isSame, NOTHING, resize, shown, usageOf } from '../load.js';
import { Network } from '../network.js';
import { Cluster, until } from '../nodes.js';
import {
  archivesAt,
  demand,
  sameArchives,
  sealedAt,
  sealedEverywhere,
  sealedUsage,
  statementsAt,
  verifyArchives,
} from '../check.js';
import { figure } from '../report.js';

const NODES = 3;
const EPOCH_MS = 5_000;
const GRACE_MS = 2_000;
const REQUESTS = 20;

/** A node that is cut off over a deadline is written off. When it is back, what it counted meanwhile is sealed once, as late usage. */
export async function late() {
  const network = new Network();
  try {
    const cluster = await Cluster.start(NODES, {
      placeOf: (i) => network.place(i),
      epochMs: EPOCH_MS,
      graceMs: GRACE_MS,
    });
    await cutOver(cluster, network);
    await cluster.stop();
  } finally {
    network.close();
  }
}

async function cutOver(cluster, network) {
  const [first, , cutOff] = cluster.nodes;
  const customer = await cluster.customer('acme');
  await until('three voters', async () => ((await first.view()).roster.length === NODES ? true : undefined));
  let received = NOTHING;
  const work = async (node) => {
    const { status, headers } = await resize(node, customer);
    demand(status === 200, `a node that is cut off serves, received ${status}`);
    received = add(received, usageOf(headers));
  };
  for (let i = 0; i < REQUESTS; i++) await work(cluster.nodes[i % NODES]);
  network.split([3]);
  const { openEpoch: cutIn } = await cutOff.view();
  for (let i = 0; i < REQUESTS; i++) await work(cutOff);
  const { openEpoch: workedIn } = await cutOff.view();
  await sealedEverywhere([cluster.nodes[0], cluster.nodes[1]], workedIn);
  demand((await sealedAt(cutOff)) <= workedIn, 'a node that is cut off seals nothing by itself');
  const before = sealedUsage(await statementsAt(first, workedIn + 1), customer);
  demand(before.requests < received.requests, `the others sealed without it, received ${shown(before)}`);
  network.heal();
  const healMs = performance.now();
  await cluster.connected();
  figure('all see all after the healing', performance.now() - healMs, 'ms');
  const statements = await until('the late usage is sealed', async () => {
    const all = await statementsAt(first, await sealedAt(first));
    return sealedUsage(all, customer).requests >= received.requests ? all : undefined;
  });
  figure('its usage is sealed after the healing', performance.now() - healMs, 'ms');
  const lates = statements.filter(({ epoch, origin }) => origin !== epoch);
  demand(lates.length > 0, 'it is sealed as late usage of the epochs it happened in');
  demand(
    lates.every(({ epoch, origin }) => origin >= cutIn - 1 && origin <= workedIn + 1 && epoch > workedIn),
    `late usage names its epoch, received ${JSON.stringify(lates.map(({ epoch, origin }) => [epoch, origin]))}`,
  );
  const { openEpoch } = await first.view();
  await sealedEverywhere(cluster.nodes, openEpoch);
  const sum = sealedUsage(await statementsAt(cutOff, openEpoch + 1), customer);
  demand(isSame(sum, received), `all of it is sealed once: expected ${shown(received)}, received ${shown(sum)}`);
  await verifyArchives(cluster, await archivesAt(cutOff, openEpoch + 1));
  await sameArchives(cluster.nodes, openEpoch + 1);
  figure('late statements', lates.length, '');
  figure('requests, each sealed once', received.requests, '');
}
