import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { BIN, here, Running, startNode, temporary, waggle } from './support.ts';

/* What commands make of answers that have more than one page, or other epochs than a young node. */

/** What a node could answer to a GET: an object, or lines as they stand. */
type Answers = (url: URL) => object | string;

/** Something that answers like a node. Returns its URL, and all that it was asked, in order. */
async function standIn(answers: Answers): Promise<{ readonly url: string; readonly asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    const path = request.url!;
    asked.push(path);
    const answer = answers(new URL(path, 'http://node'));
    response.setHeader('waggle-node', 'stand-in');
    response.end(typeof answer === 'string' ? answer : JSON.stringify(answer));
  }).listen(0, '127.0.0.1');
  onTestFinished(() => server.close().closeAllConnections());
  await once(server, 'listening');
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

/** What a command prints that is run here, with a token. */
const run = (url: string, ...args: string[]) => here(args, { WAGGLE_URL: url, WAGGLE_TOKEN: 'some-token' });

const numberOf = (url: URL, name: string, fallback: number): number => Number(url.searchParams.get(name) ?? fallback);

describe('epochs', () => {
  const at = (epoch: number): string => new Date(Date.UTC(2026, 10, 20) + epoch * 10_000).toISOString();
  const lost = ['a'.repeat(32), 'b'.repeat(32)];

  /** Epochs as a node lists them: sealed before `sealing`, none after `open`, none before `first`. */
  const listed =
    (first: number, sealing: () => number, open: number): Answers =>
    (url) => {
      const one = (epoch: number) => ({
        epoch,
        start: at(epoch),
        end: at(epoch + 1),
        state: epoch < sealing() ? 'sealed' : epoch === open ? 'open' : epoch === sealing() ? 'sealing' : 'closing',
        treeSize: epoch < sealing() ? epoch + 1 : null,
        root: epoch < sealing() ? `root${epoch}` : null,
        ...(epoch < sealing() ? {} : { waitingFor: epoch === sealing() ? lost : [], deadline: at(epoch + 2) }),
      });
      const number = /^\/v1\/epochs\/(\d+)$/.exec(url.pathname)?.[1];
      if (number !== undefined) return { ...one(Number(number)), roster: [], writtenOff: [], late: [] };
      const limit = numberOf(url, 'limit', 100);
      const from = Math.max(first, numberOf(url, 'from', open - limit + 1));
      const count = Math.max(0, Math.min(limit, open - from + 1));
      const epochs = Array.from({ length: count }, (_, i) => one(from + i));
      return { sealedUpTo: sealing() > first ? sealing() - 1 : null, epochs };
    };

  /** A node with these epochs and no members to speak of. */
  const withEpochs = (sealing: number, open: number): Promise<{ readonly url: string }> => {
    const epochs = listed(0, () => sealing, open);
    return standIn((url) =>
      url.pathname === '/v1/cluster'
        ? { cluster: 'c', origin: 'o', members: [], roster: [], alarms: [], openEpoch: open, sealingEpoch: sealing }
        : url.pathname === '/v1/epochs'
          ? epochs(url)
          : {},
    );
  };

  it.each([2, 28, 5000])('status names the first of %i that wait, and for whom', async (waiting) => {
    const { url } = await withEpochs(7, 7 + waiting);
    const { stdout } = await run(url, 'status');
    const end = at(8 + waiting);
    expect(stdout).toMatch(new RegExp(`^open epoch +${7 + waiting}, ends ${end}$`, 'm'));
    expect(stdout).toMatch(
      new RegExp(
        `^sealing +epoch 7 is sealing, waits for ${lost.join(', ')}, until ${at(9)}, ${waiting - 1} after it$`,
        'm',
      ),
    );
    const json = JSON.parse((await run(url, 'status', '--json')).stdout) as { epochs: { epochs: { epoch: number }[] } };
    expect(json.epochs.epochs.map(({ epoch }) => epoch)).toEqual([...new Set(json.epochs.epochs.map((e) => e.epoch))]);
    expect(json.epochs.epochs.at(-1)!.epoch).toBe(7 + waiting);
  });

  it('status says that nothing waits', async () => {
    const { url } = await withEpochs(7, 7);
    expect((await run(url, 'status')).stdout).toMatch(/^sealed up to +6\nsealing +nothing waits$/m);
  });

  it('--watch shows the first seals of a successor, which goes on with the numbers of its predecessor', async () => {
    let sealing = 17;
    const { url } = await standIn(listed(17, () => sealing, 20));
    const watching = new Running(process.execPath, [BIN, 'epochs', '--watch', '--url', url]);
    onTestFinished(() => void watching.child.kill());
    await watching.find(/^epoch 20 open until \S+$/m);
    for (; sealing < 20; sealing++) await watching.find(new RegExp(`^epoch ${sealing} sealing: waiting for a+`, 'm'));
    await watching.find(/^epoch 19 sealed: 20 leaves, root root19$/m);
    expect(watching.stdout.match(/^epoch \d+ sealed/gm)).toEqual([17, 18, 19].map((epoch) => `epoch ${epoch} sealed`));
  });

  it('--watch says what an epoch waits for, and until when if that is still to come', async () => {
    let next = { state: 'closing', waitingFor: lost, deadline: at(9) as string | null };
    const { url } = await standIn(() => {
      const row = { start: at(7), end: at(8), treeSize: null, root: null };
      const later = { ...row, epoch: 8, state: 'closing', waitingFor: [], deadline: at(10) };
      return { sealedUpTo: 6, epochs: [{ ...row, ...next, epoch: 7 }, later] };
    });
    const watching = new Running(process.execPath, [BIN, 'epochs', '--watch', '--url', url]);
    onTestFinished(() => void watching.child.kill());
    await watching.find(/^epoch 8 /m);
    next = { state: 'closing', waitingFor: lost.slice(1), deadline: null };
    await watching.find(/closing: waiting for b+$/m);
    next = { state: 'sealing', waitingFor: [], deadline: null };
    await watching.find(/sealing$/m);
    expect(watching.stdout.trimEnd().split('\n')).toEqual([
      `epoch 7 closing: waiting for aaaaaaaa bbbbbbbb, until ${at(9)}`,
      'epoch 8 closing: waiting for epoch 7',
      'epoch 7 closing: waiting for bbbbbbbb',
      'epoch 7 sealing',
    ]);
  });

  it('a slot that was not closed is written off where its writer votes, and else counted as reported', async () => {
    const [voter, retired] = lost as [string, string];
    const { url } = await standIn(({ pathname }) => {
      const row = { epoch: 6, start: at(6), end: at(7), state: 'sealed', treeSize: 7, root: 'root6' };
      if (pathname === '/v1/epochs') return { sealedUpTo: 6, epochs: [row] };
      const slot = (replica: string, requests?: number) => ({
        slot: `${replica}-1-6`,
        replica,
        origin: 6,
        ...(requests === undefined ? {} : { requests }),
      });
      return {
        ...row,
        roster: [{ replica: voter }],
        writtenOff: [slot(voter, 12), slot(retired, 1)],
        late: [{ ...slot(voter), slot: `${voter}-1-3`, origin: 3, closed: true }],
      };
    });
    const watching = new Running(process.execPath, [BIN, 'epochs', '--watch', '--from', '6', '--url', url]);
    onTestFinished(() => void watching.child.kill());
    await watching.find(/late usage.*\n/);
    expect(watching.stdout.trimEnd().split('\n')).toEqual([
      'epoch 6 sealed: 7 leaves, root root6',
      `epoch 6 writes off slot ${voter}-1-6, as far as it is known: 12 requests`,
      `epoch 6 counts slot ${retired}-1-6 as reported, by a replica without a vote: 1 request`,
      `epoch 6 counts late usage of epoch 3 in slot ${voter}-1-3`,
    ]);
    const { stdout } = await run(url, 'epoch', '6');
    expect(stdout).toMatch(new RegExp(`^writtenOff +\\[\\{"slot":"${voter}-1-6",[^}]*"requests":12\\}\\]$`, 'm'));
    expect(stdout).toMatch(new RegExp(`^asReported +\\[\\{"slot":"${retired}-1-6",[^}]*\\}\\]$`, 'm'));
    const json = JSON.parse((await run(url, 'epoch', '6', '--json')).stdout) as { writtenOff: object[] };
    expect(json.writtenOff).toHaveLength(2);
  });

  it('--watch goes on where a node is stopped and started again, and says so once', async () => {
    const data = join(temporary(), 'data');
    const flags = ['--epoch-ms', '1000', '--seal-grace-ms', '0'];
    const node = await startNode(data, flags);
    const watching = new Running(process.execPath, [BIN, 'epochs', '--watch', '--url', node.url]);
    onTestFinished(() => void watching.child.kill());
    await watching.find(/^epoch \d+ sealed/m);
    node.child.kill('SIGTERM');
    await node.exit();
    await watching.find(/Going on when it answers\.\n/, 'stderr');
    await startNode(data, ['--http', new URL(node.url).host]);
    await watching.find(/answers again\n/, 'stderr');
    const told = watching.stdout.length;
    await watching.find(new RegExp(`^[^]{${told}}[^]*^epoch \\d+ sealed`, 'm'));
    expect(watching.stderr).toMatch(/^waggle: [^\n]+ Going on when it answers\.\nwaggle: the node answers again\n$/);
    const seals = [...watching.stdout.matchAll(/^epoch (\d+) sealed/gm)].map(([, epoch]) => Number(epoch));
    expect(seals).toEqual(seals.map((_, i) => seals[0]! + i));
    // Whom it never reached it does not wait for.
    const nobody = await waggle(['epochs', '--watch', '--url', 'http://127.0.0.1:2']);
    expect([nobody.code, nobody.stderr]).toEqual([1, expect.stringContaining('ECONNREFUSED')]);
  });

  it('--watch --from begins there, and takes no --limit', async () => {
    const { url } = await standIn(listed(0, () => 20, 20));
    const watching = new Running(process.execPath, [BIN, 'epochs', '--watch', '--from', '17', '--url', url]);
    onTestFinished(() => void watching.child.kill());
    await watching.find(/^epoch 20 open until \S+$/m);
    expect(watching.stdout.match(/^epoch \d+ sealed/gm)).toEqual([17, 18, 19].map((epoch) => `epoch ${epoch} sealed`));
    const refused = await waggle(['epochs', '--watch', '--limit', '3', '--url', url]);
    expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining('cannot be used with')]);
  });
});

describe('lists', () => {
  const COUNT = 2_345;
  const audit: Answers = (url) => {
    const after = url.searchParams.get('after');
    const begin = after === null ? 0 : COUNT - Number(after);
    const length = Math.min(numberOf(url, 'limit', 1_000), COUNT - begin);
    return Array.from({ length }, (_, i) => `{"id":"${COUNT - 1 - begin - i}"}\n`).join('');
  };
  const idOf = (i: number): string => `c${String(i).padStart(5, '0')}`;
  const customers =
    (total: number): Answers =>
    (url) => {
      const after = url.searchParams.get('after');
      const begin = after === null ? 0 : Number(after.slice(1)) + 1;
      const limit = numberOf(url, 'limit', 100);
      const page = Array.from({ length: Math.min(limit, total - begin) }, (_, i) => ({
        id: idOf(begin + i),
        name: 'N'.repeat(1 + ((begin + i) % 7)),
        status: 'active',
        createdAt: at(0),
        limits: {},
      }));
      return { customers: page, next: page.length === limit ? page.at(-1)!.id : null };
    };
  const at = (ms: number): string => new Date(ms).toISOString();
  const all = (count: number): string[] => Array.from({ length: count }, (_, i) => idOf(i));

  it('audit prints every entry, page by page', async () => {
    const { url, asked } = await standIn(audit);
    const { stdout } = await run(url, 'audit');
    const ids = stdout
      .trim()
      .split('\n')
      .map((line) => Number((JSON.parse(line) as { id: string }).id));
    expect(ids).toEqual(Array.from({ length: COUNT }, (_, i) => COUNT - 1 - i));
    expect(asked).toHaveLength(3);
  });

  it('audit says when there is nothing', async () => {
    const { url } = await standIn(() => '');
    expect(await run(url, 'audit')).toEqual({ code: 0, stdout: '', stderr: 'Nothing.\n' });
  });

  it.each([0, 7, 1_000, 2_345])('customer list prints all of %i, page by page', async (total) => {
    const { url, asked } = await standIn(customers(total));
    const { stdout, stderr } = await run(url, 'customer', 'list');
    const rows = [...stdout.matchAll(/^(c\d{5})  N+ +active  \S+$/gm)].map((match) => match[1]);
    expect([rows, stderr]).toEqual([all(total), '']);
    expect(stdout.split('\n')).toHaveLength(total + 2);
    expect(stdout).toMatch(total === 0 ? /^No customers\.\n$/ : /^ID +NAME +STATUS +CREATED\n/);
    expect(asked).toHaveLength(Math.floor(total / 1_000) + 1);
    const quiet = await run(url, 'customer', 'list', '--quiet');
    expect(quiet.stdout).toBe(
      all(total)
        .map((id) => `${id}\n`)
        .join(''),
    );
    const json = JSON.parse((await run(url, 'customer', 'list', '--json')).stdout) as { customers: { id: string }[] };
    expect(json).toEqual({ customers: json.customers, next: null });
    expect(json.customers.map(({ id }) => id)).toEqual(all(total));
  });

  it('customer list --limit is for more than a page, too, and says where it was cut', async () => {
    const { url } = await standIn(customers(2_345));
    const cut = await run(url, 'customer', 'list', '--limit', '1500', '--after', idOf(99));
    expect(cut.stdout.trim().split('\n')).toHaveLength(1_501);
    expect(cut.stderr).toBe(`waggle: cut at --limit 1500; what follows: --after ${idOf(1_599)}\n`);
    const json = JSON.parse((await run(url, 'customer', 'list', '--limit', '2', '--json')).stdout) as object;
    expect(json).toMatchObject({ customers: [{ id: idOf(0) }, { id: idOf(1) }], next: idOf(1) });
    for (const limit of ['0', 'many', '-1'])
      expect(await run(url, 'customer', 'list', `--limit=${limit}`)).toEqual({
        code: 2,
        stdout: '',
        stderr: `waggle: Expected a whole number from 1 on for --limit, received "${limit}"\n`,
      });
  });
});

describe('a log that is for auditors only', () => {
  it("is shown with the operator's own token, on the node's machine", async () => {
    const data = join(temporary(), 'data');
    const { url } = await startNode(data, ['--public-log', 'false']);
    for (const args of [['epochs'], ['epoch', '0']]) {
      expect(await here(args, { WAGGLE_URL: url, WAGGLE_DATA: data })).toMatchObject({ code: 0, stderr: '' });
      const stranger = await here(args, { WAGGLE_URL: url, WAGGLE_DATA: temporary() });
      expect([stranger.code, stranger.stderr]).toEqual([1, expect.stringContaining('KEY_MISSING')]);
    }
  });

  it('nobody else sees the token, and who may not read it goes without', async () => {
    const data = temporary();
    const asked = vi.spyOn(globalThis, 'fetch').mockRejectedValue(new Error('nobody there'));
    onTestFinished(() => asked.mockRestore());
    const shown = async (url: string, env: Readonly<Record<string, string>>): Promise<unknown> => {
      await here(['epochs', '--url', url], { WAGGLE_DATA: data, ...env });
      return (asked.mock.lastCall![1]!.headers as Record<string, string>)['authorization'];
    };
    const own = { WAGGLE_OPERATOR_TOKEN: 'correct-horse-battery' };
    expect(await shown('http://127.0.0.1:8080', own)).toBe('Bearer correct-horse-battery');
    expect(await shown('https://waggle.example', own)).toBeUndefined();
    expect(await shown('https://waggle.example', { ...own, WAGGLE_TOKEN: 'for-this' })).toBe('Bearer for-this');
    mkdirSync(join(data, 'operator.token'));
    expect(await shown('http://127.0.0.1:8080', {})).toBeUndefined();
  });
});

it('commands offer the options that they use', async () => {
  const help = async (...args: string[]): Promise<string> => (await waggle([...args, '--help'])).stdout;
  const resize = await help('resize');
  expect([resize.includes('--key <KEY>'), resize.includes('--data'), resize.includes('--token')]).toEqual([
    true,
    false,
    false,
  ]);
  expect(await help('epochs')).toContain('--data <DIRECTORY>');
});
