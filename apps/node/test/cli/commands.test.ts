import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { BIN, here, PICTURE, Running, startNode, temporary, waggle } from './support.ts';

const data = join(temporary(afterAll), 'data');
let url: string;
let end = async (): Promise<void> => {};
beforeAll(async () => {
  ({ url } = await startNode(data, ['--epoch-ms', '1000'], {}, (step) => (end = step)));
});
afterAll(() => end());

/** IPv4 addresses of this machine. */
const addresses = (): string[] =>
  Object.values(networkInterfaces()).flatMap((all) =>
    all!.filter(({ family }) => family === 'IPv4').map(({ address }) => address),
  );

/** What a command prints; it must succeed. Settings are in the environment, as somebody might have them. */
async function ask(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await here(args, { WAGGLE_URL: url, WAGGLE_DATA: data });
  // Of a node that was starved for a while, status has alarms to tell.
  expect({ code, stderr: args[0] === 'status' ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  return stdout;
}
const json = async <T>(...args: string[]): Promise<T> => JSON.parse(await ask(...args, '--json')) as T;

/** The exit code and standard error of a command that fails. */
async function fail(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await here(args, { WAGGLE_URL: url, WAGGLE_DATA: data });
  expect(stdout).toBe('');
  return `${code} ${stderr.trim()}`;
}

describe('for operators', () => {
  it('customers live their life', async () => {
    expect(await ask('customer', 'create', 'acme', '--name', 'Acme Ltd', '--quiet')).toBe('acme\n');
    expect(await ask('customer', 'create', 'acme', '--name', 'Acme Ltd', '--quiet')).toBe('acme\n');
    expect(await ask('customer', 'create', '--name', 'No id')).toMatch(/^id +cus_/);
    expect(await fail('customer', 'create', 'acme', '--name', 'Other')).toMatch(/^1 waggle: CUSTOMER_EXISTS: /);
    expect(await ask('customer', 'rename', 'acme', 'Acme SE')).toMatch(/^name +Acme SE$/m);
    expect(await ask('customer', 'limits', 'acme', 'requestsPerSecond=7', 'framesMax=default')).toMatch(
      /^requestsPerSecond +7$/m,
    );
    expect(await ask('customer', 'limits', 'acme')).toMatch(/^requestsPerSecond +7$/m);
    expect(await fail('customer', 'limits', 'acme', 'requestsPerSecond=-1')).toMatch(/^2 waggle: Expected limit=/);
    expect(await fail('customer', 'limits', 'acme', 'speed=1')).toMatch(/^1 waggle: REQUEST_INVALID: /);
    expect(await json('customer', 'suspend', 'acme')).toMatchObject({ id: 'acme', status: 'suspended' });
    expect(await json('customer', 'resume', 'acme')).toMatchObject({ id: 'acme', status: 'active' });
    expect(await ask('customer', 'list')).toMatch(/^acme +Acme SE +active/m);
    expect(await ask('customer', 'delete', 'acme')).toBe('Deleted customer acme.\n');
    expect(await ask('customer', 'show', 'acme')).toMatch(/^status +deleted$/m);
    expect(await fail('customer', 'show', 'nobody')).toMatch(/^1 waggle: CUSTOMER_UNKNOWN: /);
  });

  it('keys and tokens are issued, listed and revoked', async () => {
    await ask('customer', 'create', 'keyed');
    const key = (await ask('key', 'issue', 'keyed', '--scope', 'read', '--quiet')).trim();
    expect(key).toMatch(/^wgl_/);
    const id = key.split('_')[1]!;
    expect(await ask('key', 'list', 'keyed')).toMatch(new RegExp(`^${id} +read .* valid$`, 'm'));
    expect(await ask('key', 'revoke', 'keyed', id)).toBe(`Revoked key ${id}.\n`);
    expect(await ask('key', 'list', 'keyed')).toMatch(new RegExp(`^${id} +read .* revoked$`, 'm'));

    const { id: tokenId, token } = await json<{ id: string; token: string }>('token', 'create', 'auditor', 'Ada');
    expect(await ask('token', 'list')).toMatch(new RegExp(`^${tokenId} +auditor +Ada .* valid$`, 'm'));
    expect(await fail('customer', 'list', '--token', token)).toMatch(/^1 waggle: ROLE_REQUIRED: /);
    await ask('token', 'revoke', tokenId);
    expect(await fail('customer', 'list', '--token', token)).toMatch(/^1 waggle: KEY_REVOKED: /);
  });

  it('audit says who did what', async () => {
    await ask('customer', 'create', 'audited');
    const entries = (await ask('audit'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(entries).toContainEqual(expect.objectContaining({ action: 'customer.create', target: 'audited' }));
  });

  it('status shows a node that is ready', async () => {
    const status = await ask('status');
    expect(status).toMatch(/^ready +yes$/m);
    expect(status).toContain('0 of 1 running, 0 waiting');
    expect(await json('status')).toMatchObject({
      ready: true,
      cluster: { origin: expect.stringContaining('waggle.local') },
    });
  });
});

describe('for operators of a cluster', () => {
  const run = (...args: string[]) => here(args, { WAGGLE_URL: url, WAGGLE_DATA: data });
  const keyFile = join(data, 'operator.key');

  it('status shows members, voters, lags and what each node sees', async () => {
    const status = await ask('status', '--all');
    expect(status).toMatch(/^members +1 of 1 reachable, 1 may vote$/m);
    expect(status).toMatch(/^[0-9a-f]{32} +alive +yes +http:\S+ .* 0\.0 s \/ 0\.0 s$/m);
    expect(status).toMatch(new RegExp(`^${url} +alive, 0\\.0 s$`, 'm'));
    expect(await json('status', '--all')).toMatchObject({ views: [{ url, problem: null }] });
  });

  it('status shows no token to nodes that only a member named, and what --urls lists the one that was given', async () => {
    const { self, members } = await json<{ cluster: { self: string; members: object[] } }>('status').then(
      ({ cluster }) => cluster,
    );
    const elsewhere = ['http://a.example', 'http://b.example/'].map((at, i) => ({
      ...members[0],
      replica: String(i).repeat(32),
      url: at,
    }));
    const real = globalThis.fetch;
    const urlOf = (at: Parameters<typeof fetch>[0]): string => (at instanceof Request ? at.url : String(at));
    const shown = new Map<string, string | undefined>();
    const asked = vi.spyOn(globalThis, 'fetch').mockImplementation(async (at, init) => {
      const { hostname } = new URL(urlOf(at));
      shown.set(hostname, (init?.headers as Record<string, string> | undefined)?.['authorization']);
      if (hostname.endsWith('.example')) throw new Error('nobody there');
      const response = await real(at, init);
      if (!urlOf(at).endsWith('/v1/cluster')) return response;
      const cluster = (await response.json()) as { members: object[] };
      return Response.json({ ...cluster, members: [...cluster.members, ...elsewhere] }, { headers: response.headers });
    });
    onTestFinished(() => asked.mockRestore());
    const token = readFileSync(join(data, 'operator.token'), 'utf8').trim();
    const viewsOf = async (...args: string[]) => {
      shown.clear();
      const { stdout } = await run('status', '--json', ...args);
      return (JSON.parse(stdout) as { views: { url: string; problem: string | null }[] }).views;
    };
    expect(self).toMatch(/^[0-9a-f]{32}$/);
    for (const args of [['--all'], ['--all', '--token', token]]) {
      const views = await viewsOf(...args);
      expect(views.map(({ problem }) => problem)).toEqual([
        null,
        expect.stringContaining('--urls'),
        expect.stringContaining('--urls'),
      ]);
      expect([...shown.keys()]).toEqual(['127.0.0.1']);
    }
    const listed = await viewsOf('--urls', 'http://b.example', '--token', token);
    expect(listed.map(({ url: at }) => at)).toEqual([url, 'http://a.example', 'http://b.example']);
    expect([shown.has('a.example'), shown.get('b.example')]).toEqual([false, `Bearer ${token}`]);
    const own = await run('status', '--urls', 'http://b.example');
    expect([own.code, own.stderr]).toEqual([2, expect.stringContaining('takes a token in --token')]);
  });

  it('status does not wait long for a member that hangs, and counts none that is gone and retired', async () => {
    const hanging = createServer(() => undefined).listen(0, '127.0.0.1');
    onTestFinished(() => hanging.close().closeAllConnections());
    await once(hanging, 'listening');
    const hung = `http://127.0.0.1:${(hanging.address() as AddressInfo).port}`;
    const others = [
      { replica: '0'.repeat(32), url: hung },
      { replica: '1'.repeat(32), state: 'dead', status: 'retired' },
      { replica: '2'.repeat(32), state: 'dead' },
    ];
    const real = globalThis.fetch;
    const asked = vi.spyOn(globalThis, 'fetch').mockImplementation(async (at, init) => {
      const response = await real(at, init);
      if (at !== `${url}/v1/cluster`) return response;
      const cluster = (await response.json()) as { members: [object] };
      const members = [...cluster.members, ...others.map((other) => ({ ...cluster.members[0], ...other }))];
      return Response.json({ ...cluster, members }, { headers: response.headers });
    });
    onTestFinished(() => asked.mockRestore());
    const status = await ask('status', '--all');
    expect(status).toMatch(/^members +2 of 3 reachable, 1 may vote$/m);
    expect(status).toMatch(/^1{32} +dead +retired /m);
    expect(status).toMatch(new RegExp(`^${hung} +Expected a node at ${hung}, received no answer within 5 s\\.`, 'm'));
    expect(status).toMatch(new RegExp(`^${url} +alive, `, 'm'));
  });

  it('status names the open epoch when it is overdue, and what waits before it', async () => {
    const real = globalThis.fetch;
    const endsAt = '2026-11-20T10:00:00.000Z';
    const states = ['sealed', 'closing', 'closing', 'closing'];
    const asked = vi.spyOn(globalThis, 'fetch').mockImplementation(async (at, init) => {
      const response = await real(at, init);
      const { headers } = response;
      const { pathname } = new URL(at instanceof Request ? at.url : at);
      if (pathname === '/v1/cluster')
        return Response.json({ ...((await response.json()) as object), openEpoch: 9 }, { headers });
      if (pathname !== '/v1/epochs') return response;
      const epochs = states.map((state, i) => ({ epoch: 6 + i, end: endsAt, state, deadline: endsAt }));
      return Response.json({ sealedUpTo: 6, epochs }, { headers });
    });
    onTestFinished(() => asked.mockRestore());
    const status = await ask('status');
    expect(status).toMatch(new RegExp(`^open epoch +9, should have ended ${endsAt}$`, 'm'));
    expect(status).toMatch(new RegExp(`^sealing +epoch 7 is closing, until ${endsAt}, 1 after it$`, 'm'));
  });

  it('an invite is made by the node, or here with the key, and warns of loopback addresses', async () => {
    for (const args of [[], ['--operator-key', keyFile], ['--uses', '3', '--expires', '30m', '--quiet']]) {
      const { code, stdout, stderr } = await run('invite', ...args);
      expect([code, stderr]).toEqual([0, expect.stringContaining('works on this machine only')]);
      expect(stdout).toMatch(args.includes('--quiet') ? /^wgi_\S+\n$/ : /^npm start -- --join -\n[^]*^wgi_\S+\n$/m);
    }
    const before = Date.now();
    const { stdout } = await run('invite', '--operator-key', keyFile, '--uses', '3', '--expires', '2h', '--json');
    const { uses, expiresAt } = JSON.parse(stdout) as { uses: number; expiresAt: string };
    expect(uses).toBe(3);
    expect(Date.parse(expiresAt) - before).toBeGreaterThanOrEqual(7_200_000);
  });

  it('a setting for joining keeps no command waiting, wherever it leads', async () => {
    for (const WAGGLE_JOIN of ['-', '@gone'])
      expect((await here(['customer', 'list'], { WAGGLE_URL: url, WAGGLE_DATA: data, WAGGLE_JOIN })).code).toBe(0);
  });

  it('what was asked wrongly is said before anything is done', async () => {
    expect(await fail('invite', '--expires', 'soon')).toMatch(/^2 waggle: Expected a time such as/);
    expect(await fail('invite', '--uses', 'many')).toMatch(/^2 waggle: Expected a whole number for uses/);
    expect(await fail('invite', '--uses', '0')).toMatch(/^1 waggle: REQUEST_INVALID: /);
    expect(await fail('invite', '--operator-key', join(data, 'none'))).toMatch(
      /^2 waggle: Expected to read the operator/,
    );
    expect(await fail('invite', '--operator-key', PICTURE)).toMatch(/^2 waggle: Expected an Ed25519 private key/);
    expect(await fail('retire', 'node-2')).toMatch(/^2 waggle: Expected the id of a replica/);
    expect(await fail('ban', '0'.repeat(32))).toMatch(/^1 waggle: MEMBER_UNKNOWN: /);
    expect(await fail('retire', '0'.repeat(32), '--operator-key', keyFile)).toMatch(/^1 waggle: MEMBER_UNKNOWN: /);
  });
});

describe('for customers', () => {
  it('a picture is resized, metered and on record', async () => {
    const key = (await ask('customer', 'create', 'painter', '--with-key', '--quiet')).trim();
    const out = join(temporary(), 'small.png');
    expect(await ask('resize', PICTURE, '-o', out, '--width', '80', '--format', 'png', '--key', key)).toMatch(
      /small\.png: image\/png, [\d,]+ bytes\nmetered: requests=1, bytes-in=\d+/,
    );
    // The header of a PNG: signature, length, IHDR, width.
    expect(readFileSync(out).readUInt32BE(16)).toBe(80);
    const usage = await json<{ totals: { requests: number; bytesIn: number } }>('usage', '--key', key);
    expect(usage.totals).toMatchObject({ requests: 1, bytesIn: readFileSync(PICTURE).length });
    expect(await ask('usage', 'painter')).toMatch(/^total +1 /m);
    // Its epoch of a second may be sealed by now: the one or the other line counts the request.
    expect(await ask('usage', 'painter', '--month')).toMatch(
      /^sealed +(1 .*\nunsealed +0|0 .*\nunsealed +1) .*\ntotal +1 /m,
    );
    const record = expect.objectContaining({ operation: 'resize' });
    for (const args of [['--key', key], ['painter']]) expect(JSON.parse(await ask('records', ...args))).toEqual(record);
  });

  it('what goes wrong has its code', async () => {
    const key = (await ask('customer', 'create', 'clumsy', '--with-key', '--quiet')).trim();
    const out = join(temporary(), 'out');
    expect(await fail('resize', BIN, '-o', out, '--key', key)).toMatch(/^1 waggle: IMAGE_UNSUPPORTED: /);
    expect(await fail('resize', PICTURE, '-o', out, '--width', '0', '--key', key)).toMatch(
      /^1 waggle: REQUEST_INVALID: .*width/,
    );
    expect(await fail('resize', PICTURE, '-o', out, '--key', 'wgl_nonsense')).toMatch(/^1 waggle: KEY_MALFORMED: /);
    expect(await fail('resize', join(data, 'none.jpg'), '-o', out, '--key', key)).toMatch(
      /^1 waggle: Expected to use the file/,
    );
    expect(await fail('resize', PICTURE, '-o', out)).toMatch(/^2 waggle: Expected the API key/);
  });
});

describe('epochs', () => {
  it('are watched as they are sealed, listed and shown', async () => {
    const watching = new Running(process.execPath, [BIN, 'epochs', '--watch', '--url', url]);
    onTestFinished(() => void watching.child.kill());
    const [, epoch] = await watching.find(/^epoch (\d+) sealed: \d+ leaves, root \S+$/m);
    expect(await ask('epochs')).toMatch(new RegExp(`^${epoch} .* sealed `, 'm'));
    expect(await ask('epoch', epoch!)).toMatch(new RegExp(`^epoch +${epoch}$`, 'm'));
    expect(await fail('epoch', '999999999')).toMatch(/^1 waggle: EPOCH_UNKNOWN: /);
  });
});

describe('without a node', () => {
  it('says whom it asked', async () => {
    // Port 2 (compressnet) is nobody's, and fetch may ask it.
    expect(await fail('epochs', '--url', 'http://127.0.0.1:2')).toMatch(
      /^1 waggle: Expected a node at http:\/\/127\.0\.0\.1:2, received ECONNREFUSED/,
    );
    expect(await fail('epochs', '--url', 'somewhere')).toMatch(/^2 waggle: Expected an http or https URL/);
  });

  it('does not take the answers of others for those of a node', async () => {
    const server = createServer((_, response) => response.end('{"customers":"none"}')).listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    expect(await fail('customer', 'list', '--url', `http://127.0.0.1:${port}`)).toBe(
      `1 waggle: Expected an answer of a Waggle node at http://127.0.0.1:${port}/v1/customers?limit=1000, received status 200 from something else`,
    );
  });

  it.each([
    'http://waggle.example',
    'https://203.0.113.7:8080',
    'http://127.0.0.1.waggle.example',
    'http://localhost.example',
  ])("does not show %s the operator's own token", async (elsewhere) => {
    const asked = vi.spyOn(globalThis, 'fetch').mockRejectedValue(new Error('nobody there'));
    onTestFinished(() => asked.mockRestore());
    for (const token of [{}, { WAGGLE_OPERATOR_TOKEN: 'correct-horse-battery' }] as const) {
      const { code, stderr } = await here(['customer', 'list', '--url', elsewhere], { WAGGLE_DATA: data, ...token });
      expect([code, stderr.trim()]).toEqual([
        2,
        `waggle: Expected a token in --token or WAGGLE_TOKEN for ${elsewhere}: the one in ${data} is sent to a node on this machine only`,
      ]);
    }
    expect(asked).not.toHaveBeenCalled();
    await here(['customer', 'list', '--url', elsewhere, '--token', 'given-for-this'], { WAGGLE_DATA: data });
    const [, init] = asked.mock.calls[0]!;
    expect(init?.headers).toMatchObject({ authorization: 'Bearer given-for-this' });
  });

  it.each(['localhost', '127.0.0.1', '[::1]', ...addresses()])('shows it to %s', async (host) => {
    const asked = vi.spyOn(globalThis, 'fetch').mockRejectedValue(new Error('nobody there'));
    onTestFinished(() => asked.mockRestore());
    await here(['customer', 'list', '--url', `http://${host}:8080`], { WAGGLE_DATA: data });
    const [, init] = asked.mock.calls[0]!;
    const token = readFileSync(join(data, 'operator.token'), 'utf8').trim();
    expect(init?.headers).toMatchObject({ authorization: `Bearer ${token}` });
  });

  it('shows the settings, secrets masked', async () => {
    const { stdout } = await here(['config', '--json'], {
      WAGGLE_OPERATOR_TOKEN: 'correct-horse-battery',
      WAGGLE_WORKERS: '3',
    });
    expect(JSON.parse(stdout)).toMatchObject({
      operatorToken: { value: '********', source: 'variable WAGGLE_OPERATOR_TOKEN' },
      workers: { value: 3, source: 'variable WAGGLE_WORKERS' },
      epochMs: { value: 3_600_000, source: 'default' },
    });
  });

  it.each([[[]], [['nonsense']], [['start', '--nonsense']], [['resize', PICTURE]]])(
    'refuses the arguments %j with 2',
    async (args) => {
      const { code, stdout, stderr } = await waggle(args);
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
      expect(stderr).toMatch(/Usage: waggle|error: /);
    },
  );
});
