import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { call } from '../http.js';
import { Cluster } from '../nodes.js';
import { demand } from '../check.js';
import { figure } from '../report.js';

const run = promisify(execFile);
const FILL = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fill.js');
const GRACE_MS = 2_000;
const EPOCH_MS = 600_000;

/** A node joins a cluster with many customers, a key each. */
export async function joiner({ isQuick, count = isQuick ? 10_000 : 100_000 }) {
  const cluster = new Cluster({ epochMs: EPOCH_MS, graceMs: GRACE_MS });
  const founder = await cluster.add();
  const filling = performance.now();
  const options = { data: founder.data, customers: count, epochMs: EPOCH_MS, graceMs: GRACE_MS };
  await run(process.execPath, [FILL, JSON.stringify(options)], { cwd: cluster.directory });
  figure(`${count} customers with a key each, written in bulk beforehand`, (performance.now() - filling) / 1000, 's');
  figure('the founder starts with them, until ready', await founder.start(), 'ms');
  const founderBytes = founder.residentBytes();
  const invite = await cluster.invite();
  const node = await cluster.add();
  const readyMs = await node.start(invite);
  figure('the newcomer, from its start until ready', readyMs / 1000, 's');
  demand((await node.metric('waggle_customers')) === count, 'a newcomer that is ready has all customers');
  const { key } = await founder.ask('/v1/customers/customer-0/keys?wait=all&timeoutMs=20000', {
    method: 'POST',
    body: {},
  });
  demand((await call(node.url, key, '/v1/nodes')).nodes.length > 0, 'the newcomer knows a new key');
  await cluster.connected();
  figure(
    'bytes received by the newcomer',
    (await node.metric('waggle_transport_bytes_total', 'direction="in"')) / 1e6,
    'MB',
  );
  figure('registers received', await node.metric('waggle_replication_registers_total', 'direction="in"'), '');
  figure('memory of the newcomer’s main process, most', node.mostBytes() / 1e6, 'MB');
  figure('memory of the newcomer’s main process, then', node.residentBytes() / 1e6, 'MB');
  figure('memory of the founder’s main process before', founderBytes / 1e6, 'MB');
  figure('memory of the founder’s main process after', founder.residentBytes() / 1e6, 'MB');
  await node.stop();
  figure('the newcomer starts again, until ready', await node.start(), 'ms');
  await cluster.connected();
}
