import { once } from 'node:events';
import { get as httpGet, type IncomingMessage } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { base64, fromUtf8, hex, WaggleError } from '@waggle/protocol/base';
import { unpackBundle, verifyBundle, verifyStatement } from '@waggle/protocol/audit';
import { addUsage, ZERO_USAGE, type Usage } from '@waggle/protocol/lattice';
import { clusterOf, parseGenesis } from '@waggle/protocol/sealing';
import {
  decodeEntryBundle,
  leafHash,
  parseCheckpoint,
  parseNote,
  rootOf,
  statementLeaf,
} from '@waggle/protocol/transparency';
import { nodeCrypto } from '@waggle/runtime';
import { pageOfEpochs } from '../../src/http/epochs.ts';
import { customerOf, openTestNode, PNG, until, type Caller, type TestNode } from './support.ts';

const IMAGE = { 'content-type': 'image/png' };

interface EpochUsage {
  readonly epoch: number;
  readonly state: string;
  readonly usage: Usage;
}
interface UsageAnswer {
  readonly totals: Usage;
  readonly epochs: EpochUsage[];
}

let test: TestNode;
let acme: Caller;
let auditor: Caller;
let auditorToken: string;
/** The epoch in which acme has sealed usage. */
let billed: number;
/** Of acme: what was metered in that epoch, as the API said before it was sealed. */
let open: UsageAnswer;

beforeAll(async () => {
  test = await openTestNode({ epochMs: 1_000 });
  acme = await customerOf(test, 'acme');
  const brick = await customerOf(test, 'brick');
  const { token } = (await test.operator('POST', '/v1/tokens', { role: 'auditor', name: 'a' })).json<{
    token: string;
  }>();
  auditorToken = token;
  auditor = test.as(token);
  const { driver, clock } = test.node;
  await until(() => driver.openEpoch > 0);
  // The epoch does not end before all of it is done, however long that takes.
  const time = vi.spyOn(clock, 'nowMs').mockReturnValue(clock.nowMs());
  billed = driver.openEpoch;
  for (const caller of [acme, acme, brick])
    expect((await caller('POST', '/v1/resize?width=2', PNG, IMAGE)).statusCode).toBe(200);
  open = (await acme('GET', '/v1/usage')).json<UsageAnswer>();
  time.mockRestore();
  await until(
    async () => (await acme('GET', '/v1/epochs?limit=1')).json<{ sealedUpTo: number | null }>().sealedUpTo! > billed,
  );
});
afterAll(() => test.close());

const get = async (path: string, caller: Caller = auditor) => {
  const response = await caller('GET', path);
  expect([path, response.statusCode]).toEqual([path, 200]);
  return response;
};
const genesis = async () => clusterOf(parseGenesis((await get('/v1/genesis')).rawPayload), nodeCrypto);

describe('usage', () => {
  it('is there at once, and the same when it is sealed', async () => {
    expect(open.totals.requests).toBe(2);
    expect(open.epochs.map(({ usage }) => usage).reduce(addUsage, ZERO_USAGE)).toEqual(open.totals);
    const sealed = (await get('/v1/usage', acme)).json<UsageAnswer>();
    expect(sealed.totals).toEqual(open.totals);
    const states = new Map(sealed.epochs.map(({ epoch, state }) => [epoch, state]));
    expect(states.get(billed)).toBe('sealed');
    expect(sealed.epochs.at(-1)!.state).toBe('open');
    expect(sealed).toMatchObject({ customer: 'acme', coverage: { members: 1, of: 1 } });
    expect(open.epochs.at(-1)).toEqual({
      epoch: billed,
      start: expect.any(String) as string,
      end: expect.any(String) as string,
      state: 'open',
      usage: open.totals,
      late: ZERO_USAGE,
    });
  });

  it('of a range has whole epochs', async () => {
    const { epochs } = (await get('/v1/usage', acme)).json<{
      epochs: { epoch: number; start: string; end: string }[];
    }>();
    const { start, end } = epochs.find(({ epoch }) => epoch === billed)!;
    const middle = new Date((Date.parse(start) + Date.parse(end)) / 2).toISOString();
    expect((await get(`/v1/usage?from=${start}&to=${start}`, acme)).json()).toMatchObject({
      from: start,
      to: start,
      totals: ZERO_USAGE,
      epochs: [],
    });
    expect((await get(`/v1/usage?from=${middle}&to=${end}`, acme)).json()).toMatchObject({
      from: start,
      to: end,
      totals: open.totals,
    });
    const far = await acme('GET', '/v1/usage?from=1970-01-01');
    expect(far.statusCode).toBe(200);
  });
});

describe('statements', () => {
  it('are listed, and each verifies against the roster with its proof', async () => {
    const { statements, next } = (await get('/v1/statements', acme)).json<{
      statements: { epoch: number; statement: string; proof: string; usage: Usage }[];
      next: null;
    }>();
    expect(next).toBeNull();
    expect(statements).toMatchObject([
      { epoch: billed, origin: billed, usage: open.totals, statement: `/v1/statements/${billed}` },
    ]);
    const [listed] = statements;
    const statement = await get(listed!.statement, acme);
    const proof = await get(listed!.proof, acme);
    expect(statement.headers).toMatchObject({
      'content-type': 'application/json',
      vary: 'authorization',
      'cache-control': expect.stringContaining('private') as string,
    });
    expect(proof.headers['content-type']).toBe('text/plain; charset=utf-8');
    const cluster = await genesis();
    const verified = verifyStatement(
      statement.rawPayload,
      proof.rawPayload,
      cluster,
      cluster.genesis.roster,
      nodeCrypto,
    );
    expect(verified).toMatchObject({ customer: 'acme', epoch: billed });
    const changed = Buffer.from(statement.body.replace('acme', 'acne'));
    expect(() => verifyStatement(changed, proof.rawPayload, cluster, cluster.genesis.roster, nodeCrypto)).toThrow(
      /proof|root|leaf/i,
    );
    const again = await acme('GET', listed!.statement, undefined, {
      'if-none-match': String(statement.headers['etag']),
    });
    expect([again.statusCode, again.body]).toEqual([304, '']);
  });

  it('of late usage are found by the links of the list, which say of which epoch it is', async () => {
    const { store } = test.node;
    const real = store.statementsOf.bind(store);
    const spy = vi
      .spyOn(store, 'statementsOf')
      .mockImplementation(async (...args) => (await real(...args)).map((row) => ({ ...row, origin: row.epoch - 1 })));
    const { statements } = (await get('/v1/statements', acme)).json<{
      statements: { statement: string; proof: string }[];
    }>();
    const query = `?origin=${billed - 1}`;
    expect(statements).toMatchObject([
      {
        epoch: billed,
        origin: billed - 1,
        statement: `/v1/statements/${billed}${query}`,
        proof: `/v1/statements/${billed}.tlog-proof${query}`,
      },
    ]);
    for (const path of [statements[0]!.statement, statements[0]!.proof]) await get(path, acme);
    expect((await acme('GET', `/v1/statements/${billed}`)).json()).toMatchObject({ code: 'STATEMENT_UNKNOWN' });
    spy.mockRestore();
  });

  it('of epochs without any are missing, each for its reason', async () => {
    for (const [path, status, code] of [
      [`/v1/statements/${test.node.driver.openEpoch}.tlog-proof`, 409, 'EPOCH_NOT_SEALED'],
      [`/v1/statements/${billed + 1}`, 404, 'STATEMENT_UNKNOWN'],
      [`/v1/statements/${billed}?origin=0`, 404, 'STATEMENT_UNKNOWN'],
      ['/v1/statements/99999999', 404, 'EPOCH_UNKNOWN'],
      ['/v1/statements/x.tlog-proof', 400, 'REQUEST_INVALID'],
    ] as const) {
      const response = await acme('GET', path);
      expect([path, response.statusCode, response.json<{ code: string }>().code]).toEqual([path, status, code]);
    }
  });
});

describe('a page of epochs', () => {
  it('begins where it is told, or so that it ends with the open one, and never before the log does', () => {
    expect(pageOfEpochs(undefined, 100, 0, 4)).toEqual({ first: 0, count: 5 });
    expect(pageOfEpochs(undefined, 3, 0, 4)).toEqual({ first: 2, count: 3 });
    expect(pageOfEpochs(1, 2, 0, 4)).toEqual({ first: 1, count: 2 });
    expect(pageOfEpochs(9, 2, 0, 4)).toEqual({ first: 9, count: 0 });
    expect(pageOfEpochs(undefined, 100, 17, 19)).toEqual({ first: 17, count: 3 });
    expect(pageOfEpochs(0, 2, 17, 19)).toEqual({ first: 17, count: 2 });
  });
});

describe('epochs', () => {
  it('that wait for an earlier one are not said to be sealed already', async () => {
    const { driver } = test.node;
    const sealing = driver.openEpoch + 10;
    const spies = [
      vi.spyOn(driver, 'openEpoch', 'get').mockReturnValue(sealing + 2),
      vi
        .spyOn(driver, 'sealingStatus', 'get')
        .mockReturnValue({ ...driver.sealingStatus, epoch: sealing, phase: 'sealing' }),
    ];
    const { epochs } = (await get(`/v1/epochs?from=${sealing}`)).json<{ epochs: { state: string }[] }>();
    for (const spy of spies) spy.mockRestore();
    expect(epochs.map(({ state }) => state)).toEqual(['sealing', 'closing', 'open']);
  });

  it('say until when others are waited for, but where that has passed or nobody waits for it', async () => {
    const { driver, clock } = test.node;
    const { startMs, epochMs, sealGraceMs } = test.node.standing.cluster.genesis;
    const epoch = driver.openEpoch + 10;
    const deadlineMs = startMs + (epoch + 1) * epochMs + sealGraceMs;
    const status = { ...driver.sealingStatus, epoch, waitingFor: ['a'.repeat(32) as never] };
    const spy = vi.spyOn(driver, 'openEpoch', 'get').mockReturnValue(epoch + 1);
    for (const [phase, atMs, deadline] of [
      ['closing', deadlineMs - 1, new Date(deadlineMs).toISOString()],
      ['closing', deadlineMs, null],
      ['sealing', deadlineMs - 1, null],
    ] as const) {
      const spies = [
        vi.spyOn(driver, 'sealingStatus', 'get').mockReturnValue({ ...status, phase }),
        vi.spyOn(clock, 'nowMs').mockReturnValue(atMs),
      ];
      const { epochs } = (await get(`/v1/epochs?from=${epoch}&limit=1`)).json<{ epochs: object[] }>();
      for (const each of spies) each.mockRestore();
      expect(epochs).toMatchObject([{ epoch, state: phase, waitingFor: status.waitingFor, deadline }]);
    }
    spy.mockRestore();
  });

  it('tell auditors, and nobody else, how much came of slots that their writers have not closed', async () => {
    const { store } = test.node;
    const real = store.content.bind(store);
    // As if nothing had been closed.
    const spy = vi.spyOn(store, 'content').mockImplementation(async (digest) => {
      const bytes = await real(digest);
      const text = bytes === null ? '' : fromUtf8(bytes);
      return text.includes('"closed":true') ? Buffer.from(text.replaceAll('"closed":true', '"closed":false')) : bytes;
    });
    const asked = async (caller: Caller) =>
      (await get(`/v1/epochs/${billed}`, caller)).json<{ writtenOff: { slot: string; requests?: number }[] }>();
    const { writtenOff } = await asked(auditor);
    const others = await Promise.all([asked(acme), asked(test.as(''))]);
    spy.mockRestore();
    // Two of acme, one of brick.
    expect(writtenOff).toMatchObject([{ slot: expect.any(String) as string, requests: 3 }]);
    for (const { writtenOff: shown } of others)
      expect(shown).toEqual(writtenOff.map((each) => ({ ...each, requests: undefined })));
  });

  it('are listed up to the open one', async () => {
    const { epochs, sealedUpTo } = (await get('/v1/epochs?limit=3')).json<{
      sealedUpTo: number;
      epochs: { epoch: number; state: string; treeSize: number | null }[];
    }>();
    expect(epochs).toHaveLength(3);
    for (const { epoch, state, treeSize } of epochs) {
      expect(state === 'sealed').toBe(epoch <= sealedUpTo);
      expect(treeSize !== null).toBe(state === 'sealed');
    }
    expect(['open', 'closing']).toContain(epochs.at(-1)!.state);
    expect((await get('/v1/epochs?from=0&limit=1')).json()).toMatchObject({ epochs: [{ epoch: 0, state: 'sealed' }] });
    // Whole rows are read: no more of them than the page has.
    const { store } = test.node;
    const ranges = vi.spyOn(store, 'sealedRange');
    const ones = vi.spyOn(store, 'sealedEpoch');
    const all = (await get('/v1/epochs?from=0&limit=1000')).json<{ sealedUpTo: number; epochs: { state: string }[] }>();
    expect(all.sealedUpTo).toBe(all.epochs.filter(({ state }) => state === 'sealed').length - 1);
    expect(ranges.mock.calls.map(([from]) => from)).toEqual([0]);
    expect(ones).not.toHaveBeenCalled();
    const none = (await get(`/v1/epochs?from=${test.node.driver.openEpoch + 1_000}`)).json<{ sealedUpTo: number }>();
    expect(none).toMatchObject({ sealedUpTo: expect.any(Number) as number, epochs: [] });
    expect(ranges).toHaveBeenCalledTimes(1);
    vi.restoreAllMocks();
    const unsealed = (await get(`/v1/epochs/${test.node.driver.openEpoch}`)).json<object>();
    expect(unsealed).toMatchObject({ treeSize: null, root: null });
    const { sealGraceMs } = test.node.standing.cluster.genesis;
    const { end, deadline, waitingFor } = unsealed as { end: string; deadline: string | null; waitingFor: string[] };
    // It may be over by now.
    if (deadline !== null) expect(Date.parse(deadline) - Date.parse(end)).toBe(sealGraceMs);
    expect([[], [test.node.standing.replica]]).toContainEqual(waitingFor);
    expect(unsealed).not.toHaveProperty('header');
  });

  it('have header, roster, cosigners and files, which are what the archive verifies', async () => {
    const view = (await get(`/v1/epochs/${billed}`)).json<{
      header: object;
      files: string[];
      root: string;
      treeSize: number;
    }>();
    expect(view).toMatchObject({
      epoch: billed,
      state: 'sealed',
      header: { epoch: billed },
      writtenOff: [],
      late: [],
      roster: [{ replica: test.node.standing.replica }],
    });
    expect(view).toMatchObject({
      cosigners: [`${test.node.standing.cluster.origin}/${test.node.standing.replica.slice(0, 8)}`],
    });
    const files = new Map<string, Awaited<ReturnType<typeof get>>>();
    for (const path of view.files) files.set(path, await get(path));
    const of = (name: string) => files.get(`/v1/epochs/${billed}${name}`)!;
    const bundle = unpackBundle(of('.tar').rawPayload);
    const cluster = await genesis();
    // The chain before it comes with the archive of every epoch; from 0 on each continues the one before.
    let verified: ReturnType<typeof verifyBundle>['verified'] | null = null;
    for (let epoch = 0; epoch < billed; epoch++)
      ({ verified } = verifyBundle(
        unpackBundle((await get(`/v1/epochs/${epoch}.tar`)).rawPayload),
        verified,
        cluster.id,
        nodeCrypto,
      ));
    const { report } = verifyBundle(bundle, verified, cluster.id, nodeCrypto);
    expect(report).toMatchObject({ epoch: billed, statements: 2, treeSize: view.treeSize });
    expect(base64.encode(report.root)).toBe(view.root);
    for (const name of ['header.json', 'checkpoint', 'roster.json', 'statements.jsonl', 'slots.jsonl'])
      expect(of(`/${name}`).rawPayload.equals(bundle.get(name)!), name).toBe(true);
    const slot = view.files.find((path) => path.includes('/slots/'))!;
    const list = JSON.parse(of('/slots.jsonl').body) as { digest: string };
    expect(hex.encode(nodeCrypto.sha256(files.get(slot)!.rawPayload))).toBe(list.digest);
    const csv = of('/statements.csv').body.split('\r\n');
    expect(csv[0]).toBe(
      'epoch,origin,start,end,customer,sku,requests,requestsFailed,bytesIn,bytesOut,pixelsIn,pixelsOut,cpuMicros',
    );
    expect(csv[1]).toMatch(new RegExp(`^${billed},${billed},[^,]+,[^,]+,acme,resize.png,2,0,${2 * PNG.length},`));
    expect(csv).toHaveLength(4);
  });

  it('are public up to the statements, which are for auditors', async () => {
    const nobody = test.as('');
    for (const name of ['', '/header.json', '/checkpoint', '/roster.json'])
      await get(`/v1/epochs/${billed}${name}`, nobody);
    expect((await get(`/v1/epochs/${billed}/header.json`, nobody)).headers).toMatchObject({
      'cache-control': 'public, max-age=31536000, immutable',
    });
    for (const name of [
      '.tar',
      '/statements.jsonl',
      '/statements.csv',
      '/slots.jsonl',
      `/slots/${'0'.repeat(32)}-1-1.jsonl`,
    ]) {
      expect((await nobody('GET', `/v1/epochs/${billed}${name}`)).statusCode).toBe(401);
      expect((await acme('GET', `/v1/epochs/${billed}${name}`)).statusCode).toBe(403);
    }
    await get(`/v1/epochs/${billed}.tar`, test.operator);
    expect((await auditor('GET', `/v1/epochs/${billed}/slots/${'0'.repeat(32)}-1-1.jsonl`)).json()).toMatchObject({
      code: 'NOT_FOUND',
    });
    expect((await auditor('GET', `/v1/epochs/${test.node.driver.openEpoch}.tar`)).json()).toMatchObject({
      code: 'EPOCH_NOT_SEALED',
    });
  });
});

describe('an archive on its way', () => {
  let origin: string;
  beforeAll(async () => {
    origin = await test.app.listen({ host: '127.0.0.1', port: 0 });
  });
  afterEach(() => vi.restoreAllMocks());
  const options = () => ({ headers: { authorization: `Bearer ${auditorToken}` } });
  const request = (epoch = billed) => fetch(`${origin}/v1/epochs/${epoch}.tar`, options());
  /** On a connection of its own, of which nothing is taken but the head. */
  const begin = async () => {
    const sent = httpGet(`${origin}/v1/epochs/${billed}.tar`, { ...options(), agent: false });
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    return response;
  };

  it('says how long it is, and is that', async () => {
    for (const name of ['.tar', '/outline.tar']) {
      const { headers, rawPayload } = await get(`/v1/epochs/${billed}${name}`);
      expect(headers['content-length']).toBe(String(rawPayload.length));
      unpackBundle(rawPayload);
    }
  });

  it('is not begun when something is known to be missing: that is said instead', async () => {
    vi.spyOn(test.node.store, 'contentSizes').mockResolvedValue([null]);
    const response = await request();
    expect([response.status, await response.json()]).toEqual([410, expect.objectContaining({ code: 'SLOTS_EXPIRED' })]);
  });

  it('breaks off when something fails later, and does not end as if it were whole', async () => {
    let fail!: (error: WaggleError) => void;
    const failing = new Promise<never>((_, reject) => (fail = reject));
    const asked = vi.spyOn(test.node.store, 'statements').mockReturnValue(failing);
    const response = await request();
    expect(response.status).toBe(200);
    // The head may be here before the first page is asked for.
    await until(() => asked.mock.calls.length > 0);
    fail(new WaggleError('DATA_DAMAGED', 'Expected other bytes'));
    await expect(response.arrayBuffer()).rejects.toThrow('terminated');
    vi.restoreAllMocks();
    unpackBundle(new Uint8Array(await (await request()).arrayBuffer()));
  });

  it('is read as it is taken, and no further when its client goes away', async () => {
    // As if there were a gigabyte of statements in one epoch; in the others there is what there is.
    const { store } = test.node;
    const [statement] = await store.statements(billed, null, 1);
    const page = Array.from({ length: 1_000 }, () => statement!);
    const pages = 2_000;
    const statements = store.statements.bind(store);
    const statementBytes = store.statementBytes.bind(store);
    vi.spyOn(store, 'statementBytes').mockImplementation(async (epoch) =>
      epoch === billed ? pages * 1_000 * statement!.bytes.length : statementBytes(epoch),
    );
    const reads = vi
      .spyOn(store, 'statements')
      .mockImplementation(async (epoch, after, limit) => (epoch === billed ? page : statements(epoch, after, limit)));
    const answers = await Promise.all([begin(), begin()]);
    expect(answers.map(({ statusCode }) => statusCode)).toEqual([200, 200]);
    expect(await (await request(0)).json()).toMatchObject({ code: 'QUEUE_FULL' });
    for (const answer of answers) answer.destroy();
    // The room for an archive is given back when nothing is read for it any more.
    await until(async () => {
      const response = await request(0);
      await response.arrayBuffer();
      return response.status === 200;
    });
    expect(reads.mock.calls.filter(([epoch]) => epoch === billed).length).toBeLessThan(pages / 10);
  });
});

describe('the log', () => {
  it('has tiles that give the root of its checkpoint', async () => {
    const note = parseNote((await get('/checkpoint')).body);
    const { size, root, origin } = parseCheckpoint(note.text);
    expect(origin).toBe(test.node.standing.cluster.origin);
    expect(size).toBeLessThan(256);
    const entries = decodeEntryBundle((await get(`/tile/entries/000.p/${size}`)).rawPayload);
    const tile = await get(`/tile/0/000.p/${size}`);
    expect(tile.headers).toMatchObject({
      'content-type': 'application/octet-stream',
      'cache-control': 'public, max-age=31536000, immutable',
    });
    const hashes = entries.map((entry) => leafHash(nodeCrypto, entry));
    expect(tile.rawPayload.equals(Buffer.concat(hashes))).toBe(true);
    expect(base64.encode(rootOf(nodeCrypto, hashes))).toBe(base64.encode(root));
    expect((await get(`/tile/0/000.p/1`)).rawPayload.equals(hashes[0]!)).toBe(true);
    const statement = await get(`/v1/statements/${billed}`, acme);
    const leaf = statementLeaf(fromUtf8(statement.rawPayload), billed, nodeCrypto);
    expect(entries.some((entry) => Buffer.from(entry).equals(leaf))).toBe(true);
  });

  it('has no tiles beyond its checkpoint, and none under other names', async () => {
    const { size } = parseCheckpoint(parseNote((await get('/checkpoint')).body).text);
    for (const path of [
      `0/000.p/${size + 100}`,
      '0/000',
      '0/001',
      '1/000.p/1',
      'entries/000',
      '0/000.p/0',
      '0/0',
      '../0/000',
      'x/000.p/1',
    ])
      expect((await auditor('GET', `/tile/${path}`)).json()).toMatchObject({ code: 'NOT_FOUND' });
  });

  it('has the keys to check it by', async () => {
    const { origin } = test.node.standing.cluster;
    const vkey = (await get('/v1/log.vkey')).body;
    expect(vkey).toMatch(new RegExp(`^${origin.replaceAll('.', '\\.')}\\+[0-9a-f]{8}\\+[A-Za-z0-9+/=]+\n$`));
    const policy = (await get('/v1/policy')).body;
    expect(policy).toContain(`log ${vkey}`);
    expect(policy).toContain('quorum roster');
  });

  it('is for auditors where it is not public', async () => {
    const hidden = await openTestNode({ publicLog: false });
    const nobody = hidden.as('');
    for (const path of [
      '/checkpoint',
      '/tile/0/000',
      '/v1/genesis',
      '/v1/epochs',
      '/v1/epochs/0',
      '/v1/epochs/0/header.json',
      '/v1/policy',
      '/v1/log.vkey',
    ])
      expect((await nobody('GET', path)).json()).toMatchObject({ code: 'KEY_MISSING' });
    expect((await hidden.operator('GET', '/v1/genesis')).headers['cache-control']).toContain('private');
    expect((await hidden.operator('GET', '/checkpoint')).json()).toMatchObject({ status: 404, code: 'NOT_FOUND' });
    expect((await hidden.operator('GET', '/v1/log.vkey')).statusCode).toBe(200);
    expect((await hidden.operator('GET', '/v1/epochs')).json()).toMatchObject({
      sealedUpTo: null,
      epochs: [{ epoch: 0, state: 'open' }],
    });
    await hidden.close();
  });
});
