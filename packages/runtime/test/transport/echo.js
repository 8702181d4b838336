// A member in a process of its own: sends every message back, and prints a line once it listens.
import { entropy, systemClock } from '../../dist/index.js';
import { openTransport } from '../../dist/transport/index.js';

const { seed, cluster, address, members } = JSON.parse(process.argv[2]);
const transport = await openTransport({
  seed: Buffer.from(seed, 'hex'),
  cluster,
  address,
  host: address.host,
  seeds: [],
  clock: systemClock,
  random: entropy,
  handlers: {
    connected() {},
    disconnected() {},
    message(key, bytes) {
      transport.send(key, bytes);
    },
    datagram() {},
  },
});
transport.setAdmitted(new Map(members));
process.stdout.write('listening\n');
