import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { utf8 } from '@waggle/protocol/base';
import { writePrivatePieces } from '../src/data-directory.ts';
import { openDataDirectory, writePrivateFile } from '../src/index.ts';
import { temporaryDirectories } from './support.ts';

const temporary = temporaryDirectories();
const mode = (path: string): number => statSync(path).mode & 0o777;
const isRoot = process.getuid?.() === 0;
const built = new URL('../dist/index.js', import.meta.url).href;

/** A process that opens the directory, says so or with which code it was refused, and stays. */
async function opener(path: string) {
  const code = `const { openDataDirectory } = await import(${JSON.stringify(built)});
    try { openDataDirectory(${JSON.stringify(path)}); console.log('open'); } catch (error) { console.log(error.code); }
    globalThis.gc?.(); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--expose-gc', '--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const [said] = (await once(child.stdout, 'data')) as [Buffer];
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  return { pid: child.pid, said: said.toString().trim(), kill };
}

describe('openDataDirectory', () => {
  it('creates the directory and its parents, for its owner only, and opens it again', () => {
    const path = join(temporary(), 'a', 'data');
    const directory = openDataDirectory(path);
    expect(directory.path).toBe(path);
    expect(mode(path)).toBe(0o700);
    for (const name of readdirSync(path)) expect(mode(join(path, name))).toBe(0o600);
    directory.close();
    openDataDirectory(path).close();
  });

  it('takes rights from group and others, but leaves what a link leads to', () => {
    const path = temporary();
    const outside = join(temporary(), 'operator.key');
    writeFileSync(outside, 'x', { mode: 0o644 });
    openDataDirectory(path).close();
    writeFileSync(join(path, 'operator.token'), 'x', { mode: 0o644 });
    symlinkSync(outside, join(path, 'operator.key'));
    mkdirSync(join(path, 'records'), { mode: 0o755 });
    chmodSync(path, 0o755);
    openDataDirectory(path).close();
    expect([path, join(path, 'records')].map(mode)).toEqual([0o700, 0o700]);
    expect(mode(join(path, 'operator.token'))).toBe(0o600);
    expect(mode(outside)).toBe(0o644);
  });

  it('refuses a second opener, here and in another process, and keeps the first one locked', async () => {
    const path = temporary();
    const first = openDataDirectory(path);
    const locked = expect.objectContaining({ code: 'DATA_LOCKED', message: expect.stringContaining(path) });
    expect(() => openDataDirectory(path)).toThrow(locked);
    const other = await opener(path);
    expect(other.said).toBe('DATA_LOCKED');
    await other.kill();
    first.close();
    openDataDirectory(path).close();
  });

  it('tells whoever has it who was refused, once, and nothing of what was before', async () => {
    const path = temporary();
    const first = openDataDirectory(path);
    expect(first.refused()).toBeNull();
    for (let i = 0; i < 2; i++) expect(() => openDataDirectory(path)).toThrow('free');
    expect(mode(join(path, 'refused'))).toBe(0o600);
    expect([first.refused(), first.refused()]).toEqual([{ pid: process.pid }, null]);
    const other = await opener(path);
    expect(first.refused()).toEqual({ pid: other.pid });
    await other.kill();
    writeFileSync(join(path, 'refused'), 'garbage');
    expect([first.refused(), first.refused()]).toEqual([{ pid: null }, null]);
    expect(() => openDataDirectory(path)).toThrow('free');
    first.close();
    const second = openDataDirectory(path);
    expect(second.refused()).toBeNull();
    second.close();
  });

  it('is free again when the process that had it was killed', async () => {
    const path = temporary();
    const other = await opener(path);
    expect(other.said).toBe('open');
    expect(() => openDataDirectory(path)).toThrow(expect.objectContaining({ code: 'DATA_LOCKED' }));
    await other.kill();
    openDataDirectory(path).close();
  });

  it('refuses a file, and a directory that holds something else, and touches neither', () => {
    const file = join(temporary(), 'file');
    writeFileSync(file, 'precious');
    const refused = expect.objectContaining({ code: 'CONFIG_INVALID' });
    expect(() => openDataDirectory(file)).toThrow(refused);
    expect(() => openDataDirectory(join(file, 'below'))).toThrow(refused);
    expect(readFileSync(file, 'utf8')).toBe('precious');
    const home = temporary();
    chmodSync(home, 0o755);
    writeFileSync(join(home, 'thesis.txt'), 'precious', { mode: 0o644 });
    expect(() => openDataDirectory(home)).toThrow(refused);
    expect(readdirSync(home)).toEqual(['thesis.txt']);
    expect([mode(home), mode(join(home, 'thesis.txt'))]).toEqual([0o755, 0o644]);
  });

  it('goes on with a first start that was interrupted, and with a fresh volume', () => {
    const path = temporary();
    writeFileSync(join(path, 'lock'), '');
    writeFileSync(join(path, 'waggle-data.tmp'), 'This direc');
    mkdirSync(join(path, 'lost+found'));
    openDataDirectory(path).close();
    expect(existsSync(join(path, 'waggle-data'))).toBe(true);
  });

  it.skipIf(isRoot)('refuses a directory that it cannot write', () => {
    const path = temporary();
    chmodSync(path, 0o500);
    expect(() => openDataDirectory(path)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    chmodSync(path, 0o700);
  });
});

it('writePrivateFile replaces a file as a whole, with mode 0600 whatever it was', () => {
  const path = join(temporary(), 'file');
  writeFileSync(path, 'a longer text than the next', { mode: 0o644 });
  writeFileSync(`${path}.tmp`, 'left behind by a crash', { mode: 0o644 });
  writePrivateFile(path, 'short');
  expect(readFileSync(path, 'utf8')).toBe('short');
  expect(mode(path)).toBe(0o600);
  expect(existsSync(`${path}.tmp`)).toBe(false);
  writePrivateFile(path, Uint8Array.of(1, 2, 3));
  expect([...readFileSync(path)]).toEqual([1, 2, 3]);
});

it('writePrivatePieces replaces a file when its last piece has come, and leaves it when one fails', async () => {
  const path = join(temporary(), 'file');
  async function* pieces(error?: Error): AsyncGenerator<Uint8Array> {
    yield utf8('one, ');
    if (error !== undefined) throw error;
    yield utf8('two');
  }
  writePrivateFile(path, 'as it was');
  await expect(writePrivatePieces(path, pieces(new Error('unreadable')))).rejects.toThrow('unreadable');
  expect(readFileSync(path, 'utf8')).toBe('as it was');
  await writePrivatePieces(path, pieces());
  expect(readFileSync(path, 'utf8')).toBe('one, two');
  expect(mode(path)).toBe(0o600);
  expect(existsSync(`${path}.tmp`)).toBe(false);
});
