import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { base64, type ReplicaId } from '@waggle/protocol/base';
import { createAdmit, createBan, createRetire, encodeFact, factKey, parseInvite } from '@waggle/protocol/authority';
import { createOperatorKey, entropy, nodeCrypto, readOperatorKey, signerFromSeed } from '@waggle/runtime';
import { keyOf, openTestNode, type TestNode } from './support.ts';
import { temporary } from '../cli/support.ts';

/* The routes of a cluster, at a node that is alone; test/e2e/cluster.test.ts has several. */

let test: TestNode;
let data: string;
const codeOf = (answer: { json: () => { code: string } }): string => answer.json().code;

beforeAll(async () => {
  test = await openTestNode({ zone: 'rack-7' });
  data = test.node.config.data;
  await test.node.announce('http://127.0.0.1:8080', '0.1.0');
}, 60_000);
afterAll(() => test.close(), 60_000);

const operatorKey = () => readOperatorKey(data)!;

interface Invited {
  readonly invite: string;
  readonly expiresAt: string;
  readonly uses: number;
  readonly warnings: string[];
  readonly visibleAt: object;
}
const invite = async (body?: object): Promise<Invited> => {
  const answer = await test.operator('POST', '/v1/cluster/invites', body);
  expect(answer.statusCode).toBe(201);
  return answer.json<Invited>();
};

/** A replica that was admitted, of which nothing was heard since. */
async function admitted(): Promise<ReplicaId> {
  const signer = () => signerFromSeed(entropy.bytes(32));
  const keys = { transport: signer(), log: signer(), cosigner: signer() };
  const parsed = parseInvite((await invite()).invite, nodeCrypto, signerFromSeed);
  const fact = createAdmit(parsed, keys, Date.now(), nodeCrypto);
  await test.node.driver.write([{ key: factKey(fact), value: encodeFact(fact) }]);
  return fact.replica;
}

describe('a change', () => {
  it('says how far it has got, in the answer and in a header, waited for or not', async () => {
    for (const query of ['', '?wait=all', '?wait=majority&timeoutMs=0']) {
      const answer = await test.operator('PUT', `/v1/customers/seen${query}`, { name: 'seen' });
      expect(answer.json()).toMatchObject({ visibleAt: { members: 1, of: 1 } });
      expect(answer.headers['waggle-visible']).toBe('members=1, of=1');
    }
    await keyOf(test, 'seen');
    const [key] = (await test.operator('GET', '/v1/customers/seen/keys')).json<{ keys: [{ id: string }] }>().keys;
    const revoked = await test.operator('DELETE', `/v1/customers/seen/keys/${key.id}?wait=all`);
    expect([revoked.statusCode, revoked.headers['waggle-visible']]).toEqual([204, 'members=1, of=1']);
  });

  it.each(['wait=some', 'timeoutMs=-1', 'timeoutMs=60001', 'wait=all&patience=1'])('refuses ?%s', async (query) => {
    const answer = await test.operator('PUT', `/v1/customers/seen?${query}`, { name: 'seen' });
    expect([answer.statusCode, codeOf(answer)]).toEqual([400, 'REQUEST_INVALID']);
  });
});

describe('an invite', () => {
  it('is for this cluster, once, for an hour, with the address of this node', async () => {
    const before = Date.now();
    const { invite: text, expiresAt, uses, warnings, visibleAt } = await invite();
    const { cluster, grant, addresses } = parseInvite(text, nodeCrypto, signerFromSeed);
    expect([cluster, uses, grant.uses]).toEqual([test.node.standing.cluster.id, 1, 1]);
    expect(Date.parse(expiresAt)).toBe(grant.expiresMs);
    expect(grant.expiresMs - before).toBeGreaterThanOrEqual(3_600_000);
    expect(addresses).toMatchObject([
      { transportKey: base64.encode(test.node.standing.keys.transport.publicKey), host: '127.0.0.1' },
    ]);
    expect(warnings).toEqual([expect.stringContaining('this machine only')]);
    expect(visibleAt).toEqual({ members: 1, of: 1 });
  });

  it('is as asked, and on record without its secret', async () => {
    const { invite: text, uses } = await invite({ uses: 7, expiresInMs: 60_000 });
    expect(uses).toBe(7);
    const audit = (await test.operator('GET', '/v1/audit?limit=1')).body;
    expect(JSON.parse(audit)).toMatchObject({
      action: 'invite.create',
      actor: { role: 'operator' },
      node: test.node.standing.replica,
      details: { uses: 7, expiresMs: parseInvite(text, nodeCrypto, signerFromSeed).grant.expiresMs },
    });
    expect(audit).not.toContain(text.slice(4, 40));
  });

  it.each([{ uses: 0 }, { uses: 1_001 }, { expiresInMs: 999 }, { expiresInMs: 2_592_000_001 }, { use: 1 }])(
    'with %j is refused',
    async (body) => {
      const answer = await test.operator('POST', '/v1/cluster/invites', body);
      expect([answer.statusCode, codeOf(answer)]).toEqual([400, 'REQUEST_INVALID']);
    },
  );

  it('takes the operator key, and the answer says what to do without', async () => {
    const file = join(data, 'operator.key');
    renameSync(file, `${file}.away`);
    const missing = await test.operator('POST', '/v1/cluster/invites');
    const other = temporary();
    createOperatorKey(other);
    writeFileSync(file, readFileSync(join(other, 'operator.key')), { mode: 0o600 });
    const wrong = await test.operator('POST', '/v1/cluster/invites');
    renameSync(`${file}.away`, file);
    for (const answer of [missing, wrong]) {
      expect([answer.statusCode, codeOf(answer)]).toEqual([409, 'OPERATOR_KEY_MISSING']);
      expect(answer.json<{ detail: string }>().detail).toContain('waggle invite --operator-key FILE');
    }
  });

  it('is for operators', async () => {
    const customer = test.as(await keyOf(test, 'curious'));
    for (const path of ['/v1/cluster/invites', `/v1/cluster/members/${test.node.standing.replica}/ban`])
      expect(codeOf(await customer('POST', path))).toBe('ROLE_REQUIRED');
  });
});

describe('a member', () => {
  it('that was admitted is shown, retired, and retired only once', async () => {
    const replica = await admitted();
    const { members } = (await test.operator('GET', '/v1/cluster')).json<{ members: Record<string, unknown>[] }>();
    expect(members.find((member) => member['replica'] === replica)).toMatchObject({
      state: 'unheard',
      since: null,
      status: 'admitted',
      url: null,
      load: null,
      zone: null,
      lag: { controlMs: null, usageMs: null },
    });
    expect(members.find((member) => member['replica'] !== replica)).toMatchObject({ zone: 'rack-7' });
    for (let i = 0; i < 2; i++)
      expect((await test.operator('POST', `/v1/cluster/members/${replica}/retire?wait=all`)).json()).toMatchObject({
        replica,
        status: 'retired',
        visibleAt: { members: 1, of: 1 },
      });
    const audit = (await test.operator('GET', '/v1/audit')).body;
    expect(audit.split('\n').filter((line) => line.includes('member.retire') && line.includes(replica))).toHaveLength(
      1,
    );
    expect((await test.operator('POST', `/v1/cluster/members/${replica}/ban`)).json()).toMatchObject({
      status: 'banned',
    });
    const after = (await test.operator('GET', '/v1/cluster')).json<{ members: { replica: string }[] }>();
    expect(after.members.map((member) => member.replica)).not.toContain(replica);
  });

  it('is put out by a signature alone, where the key is elsewhere', async () => {
    const replica = await admitted();
    const { id } = test.node.standing.cluster;
    const { signature } = createRetire(id, replica, operatorKey());
    const path = `/v1/cluster/members/${replica}`;
    const file = join(data, 'operator.key');
    const operator = operatorKey();
    renameSync(file, `${file}.away`);
    try {
      expect(codeOf(await test.operator('POST', `${path}/retire`))).toBe('OPERATOR_KEY_MISSING');
      expect(codeOf(await test.operator('POST', `${path}/ban`, { signature }))).toBe('SIGNATURE_INVALID');
      const forged = createRetire(id, replica, signerFromSeed(entropy.bytes(32))).signature;
      expect(codeOf(await test.operator('POST', `${path}/retire`, { signature: forged }))).toBe('SIGNATURE_INVALID');
      expect(test.node.driver.authority.statusOf(replica)).toBe('admitted');
      expect((await test.operator('POST', `${path}/retire`, { signature })).json()).toMatchObject({
        status: 'retired',
      });
      const ban = createBan(id, replica, operator).signature;
      expect((await test.operator('POST', `${path}/ban`, { signature: ban })).json()).toMatchObject({
        status: 'banned',
      });
    } finally {
      renameSync(`${file}.away`, file);
    }
  });

  it('has to be one, and somebody has to be left', async () => {
    const { replica } = test.node.standing;
    const ask = async (path: string) => codeOf(await test.operator('POST', `/v1/cluster/members/${path}`));
    expect(await ask(`${'0'.repeat(32)}/retire`)).toBe('MEMBER_UNKNOWN');
    expect(await ask('nonsense/retire')).toBe('REQUEST_INVALID');
    expect(await ask(`${replica}/retire`)).toBe('REQUEST_INVALID');
    expect(await ask(`${replica}/ban`)).toBe('REQUEST_INVALID');
    expect(test.node.driver.authority.statusOf(replica)).toBe('admitted');
  });
});

it('metrics show the members and what goes between them', async () => {
  const { payload } = await test.operator('GET', '/metrics');
  expect(payload).toMatch(/^waggle_members\{state="alive"\} 1$/m);
  expect(payload).toMatch(/^waggle_members\{state="dead"\} 0$/m);
  expect(payload).toMatch(/^waggle_links 0$/m);
  expect(payload).toMatch(/^waggle_lag_seconds\{class="control"\} 0$/m);
  expect(payload).toMatch(/^waggle_replication_bytes_total\{direction="out"\} 0$/m);
});
