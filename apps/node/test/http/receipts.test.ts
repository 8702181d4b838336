import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keyOf, openTestNode, PNG, until, type TestNode } from './support.ts';

/* Receipts as docs/API.md says they are verified: by its own example, at two nodes of which the second is in no genesis. */

interface Keys {
  readonly replica: string;
  readonly transportKey: string;
}
type IsGenuine = (receipt: string, nodes: readonly Keys[]) => boolean;

let first: TestNode;
let second: TestNode;
let key: string;
let isGenuine: IsGenuine;

/** The function of the page's section. */
async function documented(): Promise<IsGenuine> {
  const page = readFileSync(fileURLToPath(new URL('../../../../docs/API.md', import.meta.url)), 'utf8');
  const [, code] = /\n## Receipts\n[^]*?\n```js\n([^]*?)\n```\n/.exec(page)!;
  const source = Buffer.from(`${code}\nexport { isGenuine };`).toString('base64');
  return ((await import(`data:text/javascript;base64,${source}`)) as { isGenuine: IsGenuine }).isGenuine;
}

beforeAll(async () => {
  isGenuine = await documented();
  first = await openTestNode({ epochMs: 1_000, sealGraceMs: 0 });
  await first.node.announce('http://127.0.0.1:8081', '0.1.0');
  key = await keyOf(first, 'acme');
  const { invite } = (await first.operator('POST', '/v1/cluster/invites')).json<{ invite: string }>();
  second = await openTestNode({ join: invite });
  await second.node.announce('http://127.0.0.1:8082', '0.1.0');
  await until(async () => (await second.as(key)('GET', '/v1/account')).statusCode === 200);
});
afterAll(async () => {
  await second.close();
  await first.close();
});

async function receiptOf(test: TestNode): Promise<string> {
  const answer = await test.as(key)('POST', '/v1/resize?width=2', PNG, { 'content-type': 'image/png' });
  expect(answer.statusCode).toBe(200);
  return answer.headers['waggle-receipt'] as string;
}

async function nodesAt(test: TestNode): Promise<Keys[]> {
  const listed = async () => (await test.as(key)('GET', '/v1/nodes')).json<{ nodes: Keys[] }>().nodes;
  await until(async () => (await listed()).length === 2);
  return listed();
}

/** The same receipt with another figure in it. */
function forged(receipt: string): string {
  const [head, payload, signature] = receipt.split('.') as [string, string, string];
  const text = Buffer.from(payload, 'base64url').toString().replace('"requests":1', '"requests":0');
  return [head, Buffer.from(text).toString('base64url'), signature].join('.');
}

describe('a receipt', () => {
  it('of each node is verified with what any node says of the nodes', async () => {
    const receipts = [await receiptOf(first), await receiptOf(second)];
    for (const at of [first, second]) {
      const nodes = await nodesAt(at);
      for (const receipt of receipts) {
        expect(isGenuine(receipt, nodes)).toBe(true);
        expect(isGenuine(forged(receipt), nodes)).toBe(false);
      }
    }
  });

  it('of a founder is verified with the genesis, that of a newcomer is not, in words that say why', async () => {
    const { roster } = (await second.operator('GET', '/v1/genesis')).json<{ roster: Keys[] }>();
    expect(isGenuine(await receiptOf(first), roster)).toBe(true);
    const { replica } = second.node.standing;
    const receipt = await receiptOf(second);
    expect(() => isGenuine(receipt, roster)).toThrow(replica);
  });
});
