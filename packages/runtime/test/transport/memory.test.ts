import { seededRandom } from '@waggle/protocol/base';
import { systemClock } from '../../src/index.ts';
import type { Transport } from '../../src/transport/index.ts';
import { describeTransport } from './compliance.ts';
import { MemoryNetwork } from './memory.ts';
import { CLUSTER, EventLog, keyOf, seedOf, type NetworkUnderTest } from './network.ts';

function memoryNetwork(): NetworkUnderTest {
  const network = new MemoryNetwork({ clock: systemClock, random: seededRandom(1), lossPercent: 20, latencyMsMax: 3 });
  const opened: Transport[] = [];
  const addressOf = (n: number) => ({ host: '10.0.0.1', port: n });
  return {
    addressOf,
    open: async (n, { cluster = CLUSTER, ...handled } = {}) => {
      const log = new EventLog();
      const handlers = log.handlers(handled);
      const transport = network.open({ seed: seedOf(n), cluster, address: addressOf(n), handlers });
      opened.push(transport);
      return Promise.resolve({ transport, log });
    },
    echo: async (n, members) => {
      const log = new EventLog();
      const transport = network.open({
        seed: seedOf(n),
        cluster: CLUSTER,
        address: addressOf(n),
        handlers: { ...log.handlers(), message: (key, bytes) => void transport.send(key, bytes) },
      });
      opened.push(transport);
      transport.setAdmitted(new Map(members.map((m) => [keyOf(m), []])));
      return Promise.resolve({ kill: () => Promise.resolve(network.kill(transport)) });
    },
    close: async () => {
      for (const transport of opened) await transport.close();
    },
  };
}

describeTransport('the simulated network', memoryNetwork);
