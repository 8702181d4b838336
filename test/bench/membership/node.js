/*
 * One node of the bench in a process of its own: the member core on the real transport, and a disk that answers at once.
 * Arguments: its number, the cluster's size, the cluster's start in Unix ms. It prints a line for whatever it finds of another
 * (`member <number> <state>`), and takes lines: `meter <requests/s> <customers>`, `report`.
 */
import { createInterface } from 'node:readline';
import { base64, HybridClock } from '@waggle/protocol/base';
import { DIMENSIONS } from '@waggle/protocol/lattice';
import { Member } from '@waggle/protocol/member';
import { chainStart } from '@waggle/protocol/sealing';
import { EMPTY_EDGE } from '@waggle/protocol/transparency';
import { entropy, nodeCrypto, systemClock } from '@waggle/runtime';
import { openTransport } from '@waggle/runtime/transport';
import { clusterOfSize, identityOf } from './fixture.js';

const LAG_MS = 1_000;
/** How often a batch of requests is metered, in ms. */
const METER_MS = 50;
/** Changes of a row within so long count as one: the interval of exchanges, in ms. */
const CHANGED_MS = 1_000;

const [self, nodes, startMs] = process.argv.slice(2).map(Number);
const cluster = clusterOfSize(nodes, startMs);
const me = identityOf(self);
const identities = Array.from({ length: nodes }, (_, i) => identityOf(i));
const keyOf = ({ transport }) => base64.encode(transport.publicKey);
const numberOf = new Map(identities.map((identity, i) => [keyOf(identity), i]));
const print = (line) => process.stdout.write(`${line}\n`);
const now = () => ({ wallMs: Date.now(), steadyMs: Math.floor(performance.now()) });

const member = Member.restore(
  {
    cluster,
    replica: me.replica,
    run: Date.now() * 256,
    crypto: nodeCrypto,
    random: entropy,
    transport: me.transport,
    log: me.log,
    cosigner: me.cosigner,
    hlc: new HybridClock(),
    inlineBytes: Number.MAX_SAFE_INTEGER,
  },
  {
    control: [],
    usage: [],
    vectors: [],
    meta: new Map(),
    chain: chainStart(cluster),
    edge: EMPTY_EDGE,
    past: [],
    pinned: [],
  },
);

let changedRows = 0;
const changed = new Set();
let tickets = 0;
let done = 0;

function carry(effect) {
  switch (effect.type) {
    case 'persist':
      for (const { replica, customer, sku } of effect.batch.usage)
        if (replica === me.replica) changed.add(`${customer}/${sku}`);
      return handle({ type: 'persisted', number: effect.batch.number });
    case 'send':
      return void transport.send(effect.to, effect.bytes);
    case 'datagram':
      return void transport.sendDatagram(effect.to, effect.bytes);
    case 'timer':
      // After the datagrams that have come by then, so that a process that was stopped reads its answers before it judges.
      return void setTimeout(
        () => setImmediate(() => handle({ type: 'timer', timer: effect.timer })),
        Math.max(0, effect.afterMs),
      );
    case 'load':
      return handle({ type: 'content', digest: effect.digest, bytes: null });
    case 'done':
      done++;
      return;
    case 'member':
      return print(`member ${numberOf.get(effect.change.member.key)} ${effect.change.to}`);
    case 'alarm':
    case 'misbehaviour':
    case 'refused':
      return print(`unexpected ${JSON.stringify(effect)}`);
    default:
  }
}

function handle(input) {
  for (const effect of member.handle(input, now())) carry(effect);
}

const transport = await openTransport({
  seed: me.seed,
  cluster: cluster.id,
  address: me.address,
  host: me.address.host,
  seeds: identities.filter((_, i) => i !== self).map(({ address }) => address),
  clock: systemClock,
  random: entropy,
  handlers: {
    connected: (key) => handle({ type: 'linkUp', member: key }),
    disconnected: (key) => handle({ type: 'linkDown', member: key }),
    message: (from, bytes) => handle({ type: 'message', from, bytes }),
    datagram: (from, bytes) => handle({ type: 'datagram', from, bytes }),
  },
});
handle({ type: 'start' });
transport.setAdmitted(new Map(identities.map((identity) => [keyOf(identity), [identity.address]])));

let lookedMs = performance.now();
setInterval(() => {
  const nowMs = performance.now();
  handle({ type: 'loopLag', lagMs: Math.max(0, Math.floor(nowMs - lookedMs - LAG_MS)) });
  lookedMs = nowMs;
}, LAG_MS);
setInterval(() => {
  changedRows += changed.size;
  changed.clear();
}, CHANGED_MS);

/** A request of a picture of 1600 x 1200 or so, each a bit different. */
const usage = () =>
  Object.fromEntries(
    DIMENSIONS.map((dimension) => [
      dimension,
      { requests: 1, requestsFailed: 0 }[dimension] ?? 1_000 + entropy.below(1_000_000),
    ]),
  );

function meter(perSecond, customers) {
  const startedMs = performance.now();
  let requests = 0;
  setInterval(() => {
    for (; requests < (perSecond * (performance.now() - startedMs)) / 1_000; requests++)
      handle({
        type: 'meter',
        ticket: ++tickets,
        customer: `customer-${entropy.below(customers)}`,
        sku: 'resize.jpeg',
        usage: usage(),
      });
  }, METER_MS);
}

function report() {
  const { registers, changes, exchangesOpened } = member.stats;
  const rows = { rowsIn: registers.usage.in, rowsOut: registers.usage.out, rowsNew: changes.usage };
  return { changedRows, done, exchangesOpened, ...rows, ...transport.counters() };
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const [verb, ...numbers] = line.split(' ');
    if (verb === 'meter') meter(...numbers.map(Number));
    else print(`report ${JSON.stringify(report())}`);
  })
  // Nobody outlives the bench.
  .on('close', () => process.exit());
