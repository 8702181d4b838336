import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { greeting } from '../../src/cli/greeting.ts';
import { loadConfig } from '../../src/config.ts';
import { ANYWHERE, BIN, PICTURE, ROOT, Running, startNode, temporary, waggle } from './support.ts';

/** The commands that a node prints, between "Try it" and the line about the log. */
const commandsOf = ({ stdout }: Running): string => /Try it.*\n\n([\s\S]*?)\n\n/.exec(stdout)?.[1] ?? '';

/** Runs what is pasted into a new shell in that folder, with the environment of nobody in particular. */
async function paste(commands: string, cwd: string): Promise<string> {
  const { PATH, HOME } = process.env;
  const { stdout } = await promisify(execFile)('sh', ['-euc', commands], { cwd, env: { PATH, HOME } });
  return stdout;
}

describe('the first start', () => {
  it('makes token and key, readable by the owner only, and says where', async () => {
    const data = join(temporary(), 'data');
    const node = await startNode(data);
    for (const name of ['operator.token', 'operator.key']) {
      expect(node.stdout).toContain(join(data, name));
      expect(statSync(join(data, name)).mode & 0o777).toBe(0o600);
    }
    expect(statSync(data).mode & 0o777).toBe(0o700);
    expect(node.stdout).not.toContain(readFileSync(join(data, 'operator.token'), 'utf8').trim());
  });

  it.each(['the folder of the repository', 'another folder'])('prints commands that work in %s', async (where) => {
    const cwd = where === 'another folder' ? temporary() : ROOT;
    const made = join(cwd, 'small.webp');
    const existed = existsSync(made);
    onTestFinished(() => {
      if (!existed) rmSync(made, { force: true });
    });
    // A space and a quote: paths are quoted for the shell.
    const node = await startNode(join(temporary(), "the node's data"), [], { cwd });
    const commands = commandsOf(node);
    expect(commands.split('\n')).toHaveLength(3);
    const printed = await paste(commands, cwd);
    expect(printed).toMatch(/^total +1 +0 +[\d,]+/m);
    expect(readFileSync(made).subarray(8, 12).toString()).toBe('WEBP');
  });

  it('takes an operator token that was brought, and writes it nowhere', async () => {
    const data = join(temporary(), 'data');
    const token = 'correct-horse-battery-staple';
    const cwd = temporary();
    const node = await startNode(data, [], { cwd, env: { WAGGLE_OPERATOR_TOKEN: token } });
    expect(node.stdout).toContain('the one that you brought');
    expect(node.stdout + node.stderr).not.toContain(token);
    expect(existsSync(join(data, 'operator.token'))).toBe(false);
    const commands = commandsOf(node).replace('<the operator token that you brought>', token);
    expect(await paste(commands, cwd)).toContain('Usage of demo');
  });
});

describe('a node that listens on all addresses', () => {
  it('tells clients one that can be asked, and says what to set', async () => {
    const node = await startNode(join(temporary(), 'data'), ['--http', '0.0.0.0:0']);
    const [, announced] = await node.find(/"announced":"([^"]+)".*Set --public-url/, 'stderr');
    expect(announced).toBe(node.url);
    const flags = ['--http', '0.0.0.0:0', '--public-url', 'http://a.example'];
    const told = await startNode(join(temporary(), 'data'), flags);
    expect(told.stderr).not.toContain('--public-url');
  });
});

it('a node that joined says that the operator token is the cluster’s', () => {
  const data = join(temporary(), 'data');
  const { config } = loadConfig({ flags: { data }, env: {}, directory: data });
  const files = { operatorTokenFile: join(data, 'operator.token'), operatorKeyFile: join(data, 'operator.key') };
  expect(greeting({ config, url: 'http://127.0.0.1:8080', founded: false, ...files })).toMatch(
    /^ {2}operator token {2}that of the cluster: .*--token.* waggle token create operator NAME$/m,
  );
});

describe('a later start', () => {
  it('keeps everything and prints no commands', async () => {
    const data = join(temporary(), 'data');
    const first = await startNode(data);
    expect((await waggle(['customer', 'create', 'kept', '--url', first.url, '--data', data])).code).toBe(0);
    first.child.kill('SIGINT');
    expect(await first.exit()).toBe(0);

    const second = await startNode(data);
    expect(commandsOf(second)).toBe('');
    const { stdout } = await waggle(['customer', 'list', '--quiet', '--url', second.url, '--data', data]);
    expect(stdout).toBe('kept\n');
  });
});

describe('stopping', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('ends with 0 at %s, even if it comes twice at once', async (signal) => {
    const node = await startNode(join(temporary(), 'data'), ['--drain-ms', '0']);
    node.child.kill(signal);
    node.child.kill(signal);
    expect(await node.exit()).toBe(0);
    expect(node.stderr).toContain('"msg":"stopped"');
  });

  it('is not ready during the pause after SIGTERM, and works on; a second signal ends it', async () => {
    const data = join(temporary(), 'data');
    const node = await startNode(data, ['--drain-ms', '600000']);
    const { stdout: key } = await waggle([
      'customer',
      'create',
      'demo',
      '--with-key',
      '-q',
      '--url',
      node.url,
      '--data',
      data,
    ]);
    node.child.kill('SIGTERM');
    await node.find(/"msg":"draining"/, 'stderr');
    const ready = await fetch(`${node.url}/readyz`);
    expect([ready.status, ((await ready.json()) as { code: string }).code]).toEqual([503, 'DRAINING']);
    expect((await fetch(`${node.url}/readyz?from=balancer`)).status).toBe(503);
    const headers = { authorization: `Bearer ${key.trim()}`, 'content-type': 'image/jpeg' };
    const resize = await fetch(`${node.url}/v1/resize?width=9`, {
      method: 'POST',
      headers,
      body: readFileSync(PICTURE),
    });
    expect(resize.status).toBe(200);
    // The same signal right after the first is taken for the same wish: insist.
    const insisting = setInterval(() => node.child.kill('SIGTERM'), 100);
    onTestFinished(() => clearInterval(insisting));
    expect(await node.exit()).toBe(143);
  });
});

// Of util-linux: runs a command on a terminal of its own.
describe.skipIf(process.platform !== 'linux' || !existsSync('/usr/bin/script'))('on a terminal', () => {
  it('SIGTERM makes the same pause, as for `docker run -t`', async () => {
    const data = join(temporary(), 'data');
    const args = [BIN, 'start', ...ANYWHERE, '--data', data, '--workers', '1', '--drain-ms', '600000'];
    const terminal = new Running('/usr/bin/script', ['-qfec', [process.execPath, ...args].join(' '), '/dev/null']);
    const [, pid] = await terminal.find(/"pid":(\d+).*"msg":"ready"/);
    onTestFinished(() => {
      process.kill(Number(pid), 'SIGKILL');
    });
    process.kill(Number(pid), 'SIGTERM');
    const [, pauseMs] = await terminal.find(/"signal":"SIGTERM","pauseMs":(\d+),"msg":"draining"/);
    expect(pauseMs).toBe('600000');
  });
});

describe('what a node writes on standard error', () => {
  it('is JSON, each line', async () => {
    const node = await startNode(join(temporary(), 'data'));
    await fetch(`${node.url}/nowhere`);
    node.child.kill('SIGINT');
    expect(await node.exit()).toBe(0);
    const lines = node.stderr.trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual(
      expect.arrayContaining(['ready', 'request', 'stopped']),
    );
  });
});

describe('what keeps a node from starting is one line', () => {
  /** Standard error and exit code of a start that fails. */
  async function refused(data: string, flags: readonly string[] = []): Promise<string> {
    const { code, stdout, stderr } = await waggle(['start', ...ANYWHERE, '--data', data, ...flags]);
    expect(stdout).toBe('');
    expect(stderr.trim().split('\n')).toHaveLength(1);
    return `${code} ${stderr.trim()}`;
  }

  it('another node on the data directory', async () => {
    const data = join(temporary(), 'data');
    const node = await startNode(data);
    expect(await refused(data)).toMatch(`1 waggle: DATA_LOCKED: Expected ${data} to be free`);
    expect((await fetch(`${node.url}/livez`)).status).toBe(200);
    // The one that runs says so as well.
    await node.find(/"what":"secondStart","pid":\d+.*DATA_LOCKED/, 'stderr');
    const { stderr } = await waggle(['status', '--url', node.url, '--data', data]);
    expect(stderr).toMatch(/\(pid \d+\) wanted this data directory .*DATA_LOCKED/);
  });

  it('an address in use', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void server.close());
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    const data = join(temporary(), 'data');
    expect(await refused(data, ['--http', `127.0.0.1:${port}`])).toMatch(
      `1 waggle: PORT_IN_USE: Expected to listen on 127.0.0.1:${port}`,
    );
    // Nothing was founded there.
    expect(existsSync(data)).toBe(false);
  });

  it('keys that are damaged, which are not overwritten', async () => {
    const data = join(temporary(), 'data');
    const node = await startNode(data);
    node.child.kill('SIGINT');
    await node.exit();
    writeFileSync(join(data, 'keys.json'), '{');
    expect(await refused(data)).toMatch(/^1 waggle: DATA_DAMAGED: .*keys\.json/);
    expect(readFileSync(join(data, 'keys.json'), 'utf8')).toBe('{');
  });

  it("a directory that is somebody else's, which is left alone", async () => {
    const data = join(temporary(), 'photos');
    mkdirSync(data);
    writeFileSync(join(data, 'wedding.jpg'), '');
    expect(await refused(data)).toMatch(/^2 waggle: CONFIG_INVALID: .*wedding\.jpg/);
  });

  it('an invite that is none, or that cannot be read, and founds nothing', async () => {
    const data = join(temporary(), 'data');
    const flags = ['--log-level', 'warn', '--join'];
    expect(await refused(data, [...flags, 'wgi_garbled'])).toMatch(/^2 waggle: INVITE_INVALID: /);
    expect(await refused(data, [...flags, '@gone'])).toMatch(
      /^2 waggle: CONFIG_INVALID: Expected to read the invite from \/\S+gone \(setting join\): ENOENT/,
    );
    expect(existsSync(join(data, 'operator.key'))).toBe(false);
  });

  it('a setting', async () => {
    const data = join(temporary(), 'data');
    expect(await refused(data, ['--swarm', '0.0.0.0:7070'])).toMatch(
      /^2 waggle: CONFIG_INVALID: Expected swarmAdvertise \(--swarm-advertise, WAGGLE_SWARM_ADVERTISE\).*0\.0\.0\.0:7070/,
    );
    expect(await refused(data, ['--workers', '0'])).toBe(
      '2 waggle: CONFIG_INVALID: Expected a whole number from 1 to 256 for workers (flag --workers), received "0"',
    );
    expect(existsSync(data)).toBe(false);
  });
});
