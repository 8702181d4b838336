import { afterAll, describe, expect, it } from 'vitest';
import { addUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { seededRandom } from '@waggle/protocol/base';
import { customerFetch, Operator, resize, scratch, startNode, usageOf, type RunningNode } from './harness.ts';
import { makePictures } from './pictures.ts';

const KILLS = 20;
const CLIENTS = 6;

interface Received {
  readonly id: string;
  readonly usage: Usage;
}

/** Clients that ask until the node is gone. `onResponse` is called after each response that was received whole. */
async function load(
  node: RunningNode,
  key: string,
  body: Uint8Array,
  onResponse: (received: Received) => void,
): Promise<void> {
  const client = async (): Promise<void> => {
    for (;;) {
      try {
        const response = await resize(node.url, key, 'width=40', body);
        const id = response.headers.get('waggle-request-id')!;
        const usage = usageOf(response);
        await response.arrayBuffer();
        if (response.status === 200) onResponse({ id, usage });
      } catch {
        return; // The node was killed under this request.
      }
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
}

async function records(
  node: RunningNode,
  key: string,
): Promise<{ readonly requestId: string; readonly usage: Usage }[]> {
  const response = await customerFetch(
    node.url,
    key,
    `/v1/records?from=${encodeURIComponent(new Date(Date.now() - 3_600_000).toISOString())}`,
  );
  const lines = (await response.text()).split('\n').filter((line) => line !== '');
  return lines.map((line) => JSON.parse(line) as { requestId: string; usage: Usage });
}

describe('kill -9 under load', () => {
  const data = scratch();
  let node: RunningNode | undefined;
  afterAll(async () => {
    await node?.stop();
    data.remove();
  });

  it(`${KILLS} times: what a client received is counted once, and at most what was in flight beside it`, async () => {
    const random = seededRandom(20);
    const [picture] = await makePictures();
    const received = new Map<string, Usage>();
    let key = '';
    for (let kill = 0; kill <= KILLS; kill++) {
      node = await startNode(data.path, ['--epoch-ms', '3000']);
      const operator = new Operator(node.url, data.path);
      if (kill === 0) ({ key } = await operator.customer('acme'));

      const kept = await records(node, key);
      const byId = new Map(kept.map((record) => [record.requestId, record.usage]));
      expect(byId.size, 'no record twice').toBe(kept.length);
      for (const [id, usage] of received) expect(byId.get(id), `request ${id} after kill ${kill}`).toEqual(usage);
      expect(byId.size - received.size).toBeLessThanOrEqual(kill * CLIENTS);
      const { totals } = (await (await customerFetch(node.url, key, '/v1/usage')).json()) as { totals: Usage };
      expect(totals, `usage after kill ${kill}`).toEqual([...byId.values()].reduce(addUsage, ZERO_USAGE));
      if (kill === KILLS) break;

      const goal = received.size + 5 + random.below(25);
      const victim = node;
      await load(victim, key, picture!.bytes, ({ id, usage }) => {
        received.set(id, usage);
        if (received.size === goal) victim.process.kill('SIGKILL');
      });
      expect(await victim.stop('SIGKILL')).toBe('SIGKILL');
    }
    expect(received.size).toBeGreaterThan(KILLS * 5);
  });
});
