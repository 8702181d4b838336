import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { base64, WaggleError, type ReplicaId } from '@waggle/protocol/base';
import { createAdmit, createBan, createRetire, encodeFact, factKey, parseInvite } from '@waggle/protocol/authority';
import { createOperatorKey, entropy, nodeCrypto, readOperatorKey, signerFromSeed } from '@waggle/runtime';
import { keyOf, openTestNode, PNG, until, type TestNode } from './support.ts';
import { temporary } from '../cli/support.ts';

/* The routes of a cluster, at a node that is alone; test/e2e/cluster.test.ts has several. */

let test: TestNode;
let data: string;
const codeOf = (answer: { json: () => { code: string } }): string => answer.json().code;

beforeAll(async () => {
  test = await openTestNode({ zone: 'rack-7' });
  data = test.node.config.data;
  await test.node.announce('http://127.0.0.1:8080', '0.1.0');
});
afterAll(() => test.close());

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
async function admitted(at = test): Promise<ReplicaId> {
  const signer = () => signerFromSeed(entropy.bytes(32));
  const keys = { transport: signer(), log: signer(), cosigner: signer() };
  const made = await at.operator('POST', '/v1/cluster/invites');
  const parsed = parseInvite(made.json<Invited>().invite, nodeCrypto, signerFromSeed);
  const fact = createAdmit(parsed, keys, Date.now(), nodeCrypto);
  await at.node.driver.write([{ key: factKey(fact), value: encodeFact(fact) }]);
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

  it('that only others vote without is banned by force', async () => {
    const replica = await admitted();
    const { driver } = test.node;
    const voters = driver.roster;
    // As if it had been sealed in, and were unheard.
    const roster = vi.spyOn(driver, 'roster', 'get').mockReturnValue([...voters, { ...voters[0]!, replica }]);
    onTestFinished(() => roster.mockRestore());
    const ban = (body?: object) => test.operator('POST', `/v1/cluster/members/${replica}/ban`, body);
    const refused = await ban();
    expect([refused.statusCode, codeOf(refused)]).toEqual([409, 'BAN_REFUSED']);
    expect(driver.authority.statusOf(replica)).toBe('admitted');
    const forced = await ban({ force: true });
    expect(forced.json()).toMatchObject({ status: 'banned', warnings: [expect.stringContaining('takes effect once')] });
    const { alarms } = (await test.operator('GET', '/v1/cluster')).json<{ alarms: string[] }>();
    expect(alarms).toEqual(
      expect.arrayContaining([expect.stringContaining('was banned'), expect.stringContaining('no epoch is sealed')]),
    );
    expect(codeOf(await test.operator('POST', `/v1/cluster/members/${replica}/retire`, { force: true }))).toBe(
      'REQUEST_INVALID',
    );
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

it('a member is shown with the time since when it is as it is', async () => {
  const { members } = (await test.operator('GET', '/v1/cluster')).json<{
    members: { replica: string; since: string }[];
  }>();
  const own = members.find(({ replica }) => replica === test.node.standing.replica)!;
  expect(Date.parse(own.since)).toBeGreaterThan(performance.timeOrigin - 60_000);
  expect(Date.parse(own.since)).toBeLessThanOrEqual(Date.now());
});

it('a member that is gone and was retired is missed by no metric', async () => {
  const own = await openTestNode();
  onTestFinished(() => own.close());
  await own.node.announce('http://127.0.0.1:8080', '0.1.0');
  const unheard = async () =>
    /^waggle_members\{state="unheard"\} (\d)$/m.exec((await own.operator('GET', '/metrics')).payload)?.[1];
  const replica = await admitted(own);
  expect(await unheard()).toBe('1');
  await own.operator('POST', `/v1/cluster/members/${replica}/retire`);
  expect(await unheard()).toBe('0');
  const { members } = (await own.operator('GET', '/v1/cluster')).json<{ members: object[] }>();
  expect(members).toContainEqual(expect.objectContaining({ replica, state: 'unheard', status: 'retired' }));
});

it('metrics show the members and what goes between them', async () => {
  const { payload } = await test.operator('GET', '/metrics');
  expect(payload).toMatch(/^waggle_members\{state="alive"\} 1$/m);
  expect(payload).toMatch(/^waggle_members\{state="dead"\} 0$/m);
  expect(payload).toMatch(/^waggle_links 0$/m);
  expect(payload).toMatch(/^waggle_lag_seconds\{class="control"\} 0$/m);
  expect(payload).toMatch(/^waggle_replication_bytes_total\{direction="out"\} 0$/m);
});

it('a live member that has shown nothing since the start is told of, and no sum is as of now', async () => {
  const { driver, clock } = test.node;
  const replica = await admitted();
  const own = driver.members;
  const silent = { ...own[0]!, replica, state: 'alive' as const, sinceMs: clock.monotonicMs() - 60_000 };
  const members = vi.spyOn(driver, 'members', 'get').mockReturnValue([...own, silent]);
  onTestFinished(() => members.mockRestore());
  const { payload } = await test.operator('GET', '/metrics');
  for (const name of ['control', 'usage'])
    expect(
      Number(new RegExp(`^waggle_lag_seconds\\{class="${name}"\\} (.+)$`, 'm').exec(payload)?.[1]),
    ).toBeGreaterThan(59);
  const { alarms } = (await test.operator('GET', '/v1/cluster')).json<{ alarms: string[] }>();
  expect(alarms).toContainEqual(expect.stringMatching(new RegExp(`^Replica ${replica} answers, but`)));
  const customer = test.as(await keyOf(test, 'patient'));
  for (const path of ['/v1/usage', '/v1/usage/month']) {
    const { asOf, coverage } = (await customer('GET', path)).json<{
      asOf: unknown;
      coverage: { replicas: object[] };
    }>();
    expect(asOf).toBeNull();
    expect(coverage.replicas).toContainEqual(expect.objectContaining({ replica, state: 'alive', asOf: null }));
  }
});

describe('a node that goes', () => {
  it('says whether a member that is reachable holds what it counted', async () => {
    for (const isAlone of [true, false]) {
      const going = await openTestNode();
      await going.node.announce('http://127.0.0.1:8080', '0.1.0');
      if (!isAlone) await admitted(going);
      expect(await going.node.close()).toBe(isAlone);
      await going.app.close();
    }
  });
});

it('a node gives its own vote up without the operator key', async () => {
  const own = await openTestNode();
  onTestFinished(() => own.close());
  await own.node.announce('http://127.0.0.1:8080', '0.1.0');
  const { replica } = own.node.standing;
  const { driver } = own.node;
  const other = await admitted(own);
  vi.spyOn(driver, 'roster', 'get').mockReturnValue([...driver.roster, { ...driver.roster[0]!, replica: other }]);
  rmSync(join(own.node.config.data, 'operator.key'));
  const path = '/v1/cluster/members';
  expect(codeOf(await own.operator('POST', `${path}/${other}/retire`))).toBe('OPERATOR_KEY_MISSING');
  expect((await own.operator('POST', `${path}/${replica}/retire`)).json()).toMatchObject({
    replica,
    status: 'retired',
  });
});

it('a member that starts again says nothing of credentials before it has heard another, or waited for one', async () => {
  const before = await openTestNode();
  await before.node.announce('http://127.0.0.1:8080', '0.1.0');
  await admitted(before);
  await before.app.close();
  await before.node.close();
  const again = await openTestNode({ data: before.node.config.data });
  onTestFinished(() => again.close());
  const refused = await again.operator('GET', '/v1/cluster');
  expect([refused.statusCode, codeOf(refused)]).toEqual([503, 'NOT_READY']);
  const ready = await again.as('')('GET', '/readyz');
  expect([ready.statusCode, codeOf(ready)]).toEqual([503, 'NOT_READY']);
  await until(() => !again.node.isSettling);
  expect((await again.operator('GET', '/v1/cluster')).statusCode).toBe(200);
});

describe('a node that was banned', () => {
  it('sends customers and newcomers elsewhere and changes nothing, and tells operators why', async () => {
    const own = await openTestNode();
    onTestFinished(() => own.close());
    await own.node.announce('http://127.0.0.1:8080', '0.1.0');
    const key = await keyOf(own, 'acme');
    const customer = own.as(key);
    const { invite: before } = (await own.operator('POST', '/v1/cluster/invites')).json<Invited>();
    const { replica, cluster } = own.node.standing;
    const fact = createBan(cluster.id, replica, readOperatorKey(own.node.config.data)!);
    await own.node.driver.write([{ key: factKey(fact), value: encodeFact(fact) }]);
    const usage = async () => (await own.operator('GET', '/v1/customers/acme/usage')).json<{ totals: object }>().totals;
    const counted = await usage();
    for (const answer of [
      await customer('POST', '/v1/resize?width=2', PNG, { 'content-type': 'image/png' }),
      await customer('PUT', '/v1/account/presets/small', { width: '2' }),
      await customer('GET', '/v1/usage'),
      await customer('GET', '/v1/nodes'),
      await own.operator('PUT', '/v1/customers/new?wait=all', { name: 'new' }),
      await own.operator('DELETE', `/v1/customers/acme/keys/${key.split('_')[1]}`),
      await own.operator('POST', '/v1/cluster/invites'),
    ]) {
      expect([answer.statusCode, codeOf(answer)]).toEqual([503, 'NOT_READY']);
      expect(answer.json<{ detail: string }>().detail).toContain('banned');
    }
    expect(await usage()).toEqual(counted);
    await expect(openTestNode({ join: before })).rejects.toThrow(/banned this node/);
    const { statusCode, ...answer } = await own.operator('GET', '/v1/cluster');
    expect([statusCode, answer.json<{ alarms: string[] }>().alarms]).toEqual([
      200,
      expect.arrayContaining(['This node was banned.']),
    ]);
    // The others may know it.
    const unknown = await own.as(await keyOf(test, 'elsewhere'))('GET', '/v1/usage');
    expect(unknown.json<{ detail: string }>().detail).toContain('banned');
    expect(codeOf(await own.as('')('GET', '/v1/usage'))).toBe('KEY_MISSING');
  });
});

describe('a replica that was overtaken', () => {
  it('changes nothing, says so in words of its own, and remembers it once the disk has room', async () => {
    const old = await openTestNode();
    onTestFinished(() => old.close());
    const commit = vi.spyOn(old.node.store, 'commit').mockRejectedValue(new WaggleError('STORE_FULL'));
    old.node.alarms.raise({ what: 'overtaken', version: 7 });
    await until(() => commit.mock.calls.length > 1);
    commit.mockRestore();
    await until(async () => (await old.node.store.load()).meta.has('overtaken'));
    const refused = await old.operator('PUT', '/v1/customers/late', { name: 'late' });
    expect([refused.statusCode, codeOf(refused)]).toEqual([503, 'NOT_READY']);
    expect(refused.json<{ detail: string }>().detail).toContain('older copy');
    expect((await old.operator('GET', '/v1/cluster')).json<{ alarms: string[] }>().alarms).toEqual([
      expect.stringContaining('put back from an older copy'),
    ]);
  });
});
