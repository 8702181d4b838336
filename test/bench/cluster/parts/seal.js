import { add, isSame, Load, NOTHING, shown } from '../load.js';
import { Cluster, pause, until } from '../nodes.js';
import {
  archivesAt,
  converged,
  demand,
  endsAt,
  rostersAt,
  sameArchives,
  sealedAt,
  sealedEverywhere,
  sealedUsage,
  statementsAt,
  verifyArchives,
} from '../check.js';
import { figure, say, times } from '../report.js';
import { sayOthers } from './kill.js';

const NODES = 5;
const EPOCH_MS = 5_000;
const GRACE_MS = 3_000;
const KILL_EVERY_MS = 15_000;
const AWAY_MS = 60_000;
const LOOK_MS = 100;

/** Epochs are sealed by five voters while nodes are killed and one is away; then every bundle is checked. */
export async function seal({ isQuick, seconds = isQuick ? 60 : 600 }) {
  const cluster = await Cluster.start(NODES, { epochMs: EPOCH_MS, graceMs: GRACE_MS });
  const [once, plain] = [await cluster.customer('once'), await cluster.customer('plain')];
  await grown(cluster);
  const load = new Load({ once, plain, nodes: () => cluster.nodes, clients: 6, pauseMs: 100 });
  const watched = watchSeals(cluster);
  const { kills, outages } = await faults(cluster, seconds);
  await load.stop();
  await cluster.connected();
  const { totals } = await converged(cluster, load);
  const last = (await cluster.founder.view()).openEpoch;
  const overMs = performance.now();
  await sealedEverywhere(cluster.nodes, last, 180_000);
  figure('the last epoch is sealed at all nodes, after the load', performance.now() - overMs, 'ms');
  const seen = await watched.end();

  const epochs = await sealedAt(cluster.founder);
  const statements = await statementsAt(cluster.founder, last + 1);
  for (const { customer, tally } of load.sides) {
    const sum = sealedUsage(statements, customer);
    const recorded = totals.get(customer.id);
    demand(isSame(sum, recorded), `sealed for ${customer.id}: expected ${shown(recorded)}, received ${shown(sum)}`);
    for (const [epoch, received] of tally.epochs) {
      const own = statements.filter((one) => one.customer === customer.id && one.origin === epoch);
      const counted = own.map(({ usage }) => usage).reduce(add, NOTHING);
      demand(
        counted.requests >= received.requests,
        `receipts of epoch ${epoch} say ${received.requests}, sealed are ${counted.requests}`,
      );
    }
  }
  await verifyArchives(cluster, await archivesAt(cluster.founder, last + 1));
  const rosters = await rostersAt(cluster.founder, last + 1);
  figure('kills', kills, '');
  figure('epochs sealed at all nodes and verified', last + 1, `of ${epochs}`);
  figure('of them by five voters', rosters.filter((size) => size === NODES).length, '');
  figure('answered', load.answered, 'requests');
  figure('statements of late usage', statements.filter(({ epoch, origin }) => epoch !== origin).length, '');
  await latencies(cluster, seen, outages, last + 1);
  sayOthers(load);
  await sameArchives(cluster.nodes, last + 1);
  figure('of them byte-equal at all nodes', last + 1, '');
}

/** Waits until all nodes vote. */
async function grown(cluster) {
  const startedMs = performance.now();
  await until(`${NODES} voters`, async () => {
    const { roster } = await cluster.founder.view();
    return roster.length === NODES ? true : undefined;
  });
  figure('all vote after', performance.now() - startedMs, 'ms');
}

/** Kills a node every while, and lets another one stay away for a while. Gives how many it killed, and when some were down, in Unix ms. */
async function faults(cluster, seconds) {
  const end = performance.now() + seconds * 1_000;
  const awayFrom = performance.now() + 0.2 * seconds * 1_000;
  const awayMs = Math.min(AWAY_MS, 0.4 * seconds * 1_000);
  const away = cluster.nodes.at(-1);
  let isAway = false;
  let back = Promise.resolve();
  let kills = 0;
  const outages = [];
  const outage = async (node, ms) => {
    const one = { fromMs: Date.now(), toMs: Infinity };
    outages.push(one);
    await node.stop('SIGKILL');
    kills++;
    await pause(ms);
    await node.start();
    one.toMs = Date.now();
  };
  for (let next = performance.now() + KILL_EVERY_MS / 3; performance.now() < end; next += KILL_EVERY_MS) {
    await pause(Math.max(0, Math.min(next, end) - performance.now()));
    if (!isAway && performance.now() > awayFrom) {
      isAway = true;
      back = outage(away, awayMs);
      back.catch(() => undefined);
      say(`${away.name} is away for ${(awayMs / 1000).toFixed(0)} s`);
    }
    const victims = cluster.running.filter((node) => node !== away);
    const victim = victims[Math.floor(Math.random() * victims.length)];
    await outage(victim, 0);
  }
  await back;
  return { kills, outages };
}

/** Looks all the while how far each node has sealed: by node, when each epoch was first seen, in Unix ms. */
function watchSeals(cluster) {
  const seen = new Map(cluster.nodes.map((node) => [node, new Map()]));
  const state = { isOver: false };
  const watching = cluster.nodes.map(async (node) => {
    while (!state.isOver) {
      try {
        const sealed = await sealedAt(node);
        const known = seen.get(node);
        for (let epoch = sealed - 1; epoch >= 0 && !known.has(epoch); epoch--) known.set(epoch, Date.now());
      } catch {
        // It is being started.
      }
      await pause(LOOK_MS);
    }
  });
  return {
    end: async () => {
      state.isOver = true;
      await Promise.all(watching);
      return seen;
    },
  };
}

/** From an epoch's end until a majority, and until every node, has its checkpoint; told apart by whether any node was down meanwhile. */
async function latencies(cluster, seen, outages, epochs) {
  const ends = await endsAt(cluster.founder, epochs);
  const whens = ends.map((_, epoch) =>
    [...seen.values()].map((known) => known.get(epoch) ?? Infinity).sort((a, b) => a - b),
  );
  const at = (share, isCalm) =>
    ends.flatMap((end, epoch) => {
      const when = whens[epoch];
      // Those that were sealed before anyone looked are left out.
      if (when[0] - end < LOOK_MS / 2 || when[share] === Infinity) return [];
      const isHit = outages.some(({ fromMs, toMs }) => fromMs < end + GRACE_MS && toMs > end - EPOCH_MS);
      return isHit === isCalm ? [] : [when[share] - end];
    });
  for (const [isCalm, name] of [
    [true, 'all nodes there: '],
    [false, 'a node down: '],
  ]) {
    const [majority, all] = [at(2, isCalm), at(NODES - 1, isCalm)];
    if (majority.length > 0) times(`${name}end of an epoch until its checkpoint is at three nodes`, majority);
    if (all.length > 0) times(`${name}end of an epoch until its checkpoint is at every node`, all);
  }
}
