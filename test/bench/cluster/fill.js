/* A data directory with many customers: `node fill.js <json>` with {data, customers, epochMs, graceMs}; written as a founder writes them. */
import { HybridClock } from '@waggle/protocol/base';
import { Identity } from '@waggle/identity';
import {
  Driver,
  entropy,
  nodeCrypto,
  openDataDirectory,
  openStore,
  signerFromSeed,
  systemClock,
  takeStanding,
} from '@waggle/runtime';

/** Customers of one transaction. */
const BATCH = 250;
const actor = { credential: 'bench', role: 'node' };
const { data: path, customers, epochMs, graceMs } = JSON.parse(process.argv[2]);

const data = openDataDirectory(path);
const store = await openStore({ directory: data.path, mayCreate: true });
const loaded = await store.load();
const { standing } = await takeStanding({
  directory: data.path,
  store,
  meta: loaded.meta,
  founding: { name: 'bench.example', epochMs, sealGraceMs: graceMs },
  invite: null,
  isMoved: false,
  random: entropy,
  clock: systemClock,
  // Nobody is there yet.
  openTransport: async () => ({}),
});
const hlc = new HybridClock();
const { replica, run } = standing;
const identity = new Identity({ crypto: nodeCrypto, random: entropy, signerFromSeed, clock: hlc, replica, run });
const driver = await Driver.start({
  store,
  loaded,
  standing,
  clock: systemClock,
  hlc,
  random: entropy,
  onControl: (writer, register) => identity.fold(writer, register, Date.now()),
  onFatal: (error) => {
    throw error;
  },
});
for (let first = 0; first < customers; first += BATCH) {
  const context = { actor, nowMs: Date.now() };
  const ids = Array.from({ length: Math.min(BATCH, customers - first) }, (_, i) => `customer-${first + i}`);
  await driver.write(ids.flatMap((id) => identity.createCustomer(context, { id, name: id }).writes));
  await driver.write(ids.flatMap((id) => identity.issueKey(context, id).writes));
}
await driver.close();
await store.close();
data.close();
