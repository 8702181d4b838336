/* Benchmarks of identity: a data directory with many customers, and authentication among them. */
import { createHash } from 'node:crypto';
import { HybridClock, seededRandom } from '@waggle/protocol/base';
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
import { alternate } from './measure.js';

const BATCH = 500;
const actor = { credential: 'bench', role: 'node' };

const identityOf = (replica, run, clock) =>
  new Identity({ crypto: nodeCrypto, random: entropy, signerFromSeed, clock, replica, run });

/** Founds a cluster with that many customers, a key each, written as the node writes them. */
export async function fillDirectory(path, customers, { epochMs = 3_600_000, sealGraceMs = 900_000 } = {}) {
  const data = openDataDirectory(path);
  const store = await openStore({ directory: data.path });
  const loaded = await store.load();
  const { standing } = await takeStanding({
    directory: data.path,
    store,
    meta: loaded.meta,
    founding: { name: 'bench.example', epochMs, sealGraceMs },
    invite: null,
    isMoved: false,
    random: entropy,
    clock: systemClock,
    // Nobody is there yet.
    openTransport: async () => ({}),
  });
  const hlc = new HybridClock();
  const identity = identityOf(standing.replica, standing.run, hlc);
  const driver = await Driver.start({
    store,
    loaded,
    standing,
    clock: systemClock,
    hlc,
    random: entropy,
    onControl: (replica, register) => identity.fold(replica, register, Date.now()),
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
}

/** µs to authenticate one of that many customers, against a look-up in a Map and one SHA-256 of the same text. */
export async function authentication(customers, rounds) {
  const clock = new HybridClock();
  const replica = '0'.repeat(32);
  const identity = identityOf(replica, 1, clock);
  const context = { actor, nowMs: Date.now() };
  const keys = [];
  let version = 0;
  const fold = (writes) => {
    for (const { key, value } of writes) identity.fold(replica, { key, value, version: ++version }, context.nowMs);
  };
  for (let i = 0; i < customers; i++) {
    fold(identity.createCustomer(context, { id: `customer-${i}`, name: `customer-${i}` }).writes);
    const { key, writes } = identity.issueKey(context, `customer-${i}`);
    fold(writes);
    keys.push(key);
  }
  const random = seededRandom(1);
  const order = Array.from({ length: 50_000 }, () => keys[random.below(keys.length)]);
  const map = new Map(keys.map((key) => [key.slice(4, 16), createHash('sha256').update(key).digest()]));
  const time = (each) => {
    const startedAt = performance.now();
    for (const key of order) each(key);
    return (1000 * (performance.now() - startedAt)) / order.length;
  };
  let found = 0;
  const yardstick = () =>
    time((key) => {
      const known = map.get(key.slice(4, 16));
      if (createHash('sha256').update(key).digest()[0] === known[0]) found++;
    });
  const subject = () => time((key) => identity.authenticate(key));
  yardstick();
  subject();
  const result = await alternate(
    rounds,
    async () => yardstick(),
    async () => subject(),
  );
  if (found === 0) throw new Error('the yardstick found no key');
  return result;
}
