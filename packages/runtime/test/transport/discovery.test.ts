import type DHT from 'hyperdht';
import type Hyperswarm from 'hyperswarm';
import { seededRandom } from '@waggle/protocol/base';
import { describe, expect, it } from 'vitest';
import { nodeCrypto, type Clock } from '../../src/index.ts';
import { Discovery } from '../../src/transport/discovery.ts';
import { CLUSTER } from './network.ts';

describe('discovery of a node that is alone', () => {
  it('goes on when nobody answers', async () => {
    let lookups = 0;
    let turn = (): void => undefined;
    let armed = (): void => undefined;
    const next = (): Promise<void> => new Promise((resolve) => (armed = resolve));
    const clock: Clock = {
      nowMs: () => 0,
      monotonicMs: () => 0,
      after: (_, fn) => {
        turn = fn;
        armed();
        return () => undefined;
      },
    };
    const nobody = async (): Promise<never> => {
      throw new Error('Too few nodes responded');
    };
    const discovery = new Discovery({
      swarm: { join: () => ({ refresh: nobody }) } as unknown as Hyperswarm,
      dht: {
        lookup: () => {
          lookups++;
          return [];
        },
      } as unknown as DHT,
      cluster: CLUSTER,
      crypto: nodeCrypto,
      clock,
      random: seededRandom(1),
      isAlone: () => true,
      found: () => undefined,
    });
    for (let i = 0; i < 2; i++) {
      const again = next();
      turn();
      await again;
    }
    expect(lookups).toBe(2);
    discovery.stop();
  });
});
