import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { seededRandom, utf8, type ClusterId } from '@waggle/protocol/base';
import { createNodeKeys, createOperatorKey, entropy, nodeCrypto, readNodeKeys, readOperatorKey } from '../src/index.ts';
import { adoptJoiningKeys, createJoiningKeys, readJoiningKeys } from '../src/keys.ts';
import { temporaryDirectories } from './support.ts';

const temporary = temporaryDirectories();
const damaged = expect.objectContaining({
  code: 'DATA_DAMAGED',
  message: expect.stringContaining('Nothing was overwritten'),
});

describe('node keys', () => {
  it('are made once, for their owner only, and read back', () => {
    const directory = temporary();
    expect(readNodeKeys(directory)).toBeNull();
    const made = createNodeKeys(directory, entropy);
    const read = readNodeKeys(directory)!;
    expect(statSync(join(directory, 'keys.json')).mode & 0o777).toBe(0o600);
    const publics = [made.transport, made.log, made.cosigner].map(({ publicKey }) =>
      Buffer.from(publicKey).toString('hex'),
    );
    expect(new Set(publics).size).toBe(3);
    for (const name of ['transport', 'log', 'cosigner'] as const) {
      expect(read[name].publicKey).toEqual(made[name].publicKey);
      expect(read[name].sign(utf8('x'))).toEqual(made[name].sign(utf8('x')));
      expect(nodeCrypto.ed25519Verify(made[name].publicKey, utf8('x'), read[name].sign(utf8('x')))).toBe(true);
    }
  });

  it('are never made over others', () => {
    const directory = temporary();
    createNodeKeys(directory, entropy);
    const bytes = readFileSync(join(directory, 'keys.json'));
    expect(() => createNodeKeys(directory, entropy)).toThrow(damaged);
    expect(readFileSync(join(directory, 'keys.json'))).toEqual(bytes);
  });

  it('are refused when a digit of them was changed, cut or is of another form, and stay as they are', () => {
    const directory = temporary();
    const path = join(directory, 'keys.json');
    createNodeKeys(directory, seededRandom(1));
    const text = readFileSync(path, 'utf8');
    const seed = /"seed": "(.)/.exec(text)![1]!;
    const texts = [
      '',
      'null',
      '[]',
      text.slice(0, 100),
      text.replace(`"seed": "${seed}`, `"seed": "${seed === 'A' ? 'B' : 'A'}`),
      text.replace('"log"', '"lag"'),
      text.replace('"format": 1', '"format": "one"'),
      `${text}${' '.repeat(20_000)}`,
    ];
    for (const wrong of texts) {
      writeFileSync(path, wrong);
      expect(() => readNodeKeys(directory), JSON.stringify(wrong.slice(0, 80))).toThrow(damaged);
      expect(readFileSync(path, 'utf8')).toBe(wrong);
    }
    writeFileSync(path, text.replace('"format": 1', '"format": 2'));
    expect(() => readNodeKeys(directory)).toThrow(expect.objectContaining({ code: 'DATA_NEWER' }));
  });

  it('do not leak into the message of the error', () => {
    const directory = temporary();
    writeFileSync(join(directory, 'keys.json'), '"SECRETSECRET');
    let error: unknown;
    try {
      readNodeKeys(directory);
    } catch (caught) {
      error = caught;
    }
    expect(String(error)).not.toContain('SECRET');
    expect((error as Error).cause).toBeUndefined();
  });
});

describe('the operator key', () => {
  it('is a PEM file that reads back, until it is moved away', () => {
    const directory = temporary();
    const path = join(directory, 'operator.key');
    expect(readOperatorKey(directory)).toBeNull();
    const made = createOperatorKey(directory);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readFileSync(path, 'utf8')).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect(readOperatorKey(directory)!.publicKey).toEqual(made.publicKey);
    expect(() => createOperatorKey(directory)).toThrow(damaged);
    rmSync(path);
    expect(readOperatorKey(directory)).toBeNull();
  });

  it('is refused when it is malformed or of another kind', () => {
    const directory = temporary();
    const rsa = execFileSync(process.execPath, [
      '-e',
      "const { generateKeyPairSync } = require('crypto'); process.stdout.write(generateKeyPairSync('x25519').privateKey.export({ format: 'pem', type: 'pkcs8' }))",
    ]);
    for (const wrong of ['', 'x', rsa]) {
      writeFileSync(join(directory, 'operator.key'), wrong);
      expect(() => readOperatorKey(directory)).toThrow(damaged);
    }
  });
});

describe('keys to join with', () => {
  const cluster = 'c1'.repeat(32) as ClusterId;
  const place = { machine: null, boot: null, device: '1', inode: '2' };

  it('are kept apart until they are adopted, and replace those of an earlier attempt', () => {
    const directory = temporary();
    const own = createNodeKeys(directory, entropy);
    createJoiningKeys(directory, cluster, place, entropy);
    const made = createJoiningKeys(directory, cluster, place, entropy);
    expect(statSync(join(directory, 'joining.json')).mode & 0o777).toBe(0o600);
    expect(readJoiningKeys(directory)).toMatchObject({ cluster, place, keys: { transportSeed: made.transportSeed } });
    expect(readNodeKeys(directory)!.transportSeed).toEqual(own.transportSeed);
    adoptJoiningKeys(directory);
    expect(readJoiningKeys(directory)).toBeNull();
    const adopted = readNodeKeys(directory)!;
    for (const name of ['transport', 'log', 'cosigner'] as const)
      expect(adopted[name].publicKey).toEqual(made[name].publicKey);
    expect(Object.keys(JSON.parse(readFileSync(join(directory, 'keys.json'), 'utf8')) as object).sort()).toEqual([
      'cosigner',
      'format',
      'log',
      'transport',
    ]);
  });

  it('are refused when they are damaged or of a newer format', () => {
    const directory = temporary();
    createJoiningKeys(directory, cluster, place, entropy);
    const path = join(directory, 'joining.json');
    const text = readFileSync(path, 'utf8');
    for (const broken of [
      text.replace(cluster, 'c1'),
      text.replace('"inode": "2"', '"inode": 2'),
      text.slice(0, -3),
      '',
    ]) {
      writeFileSync(path, broken);
      expect(() => readJoiningKeys(directory)).toThrow(damaged);
    }
    writeFileSync(path, text.replace('"format": 1', '"format": 2'));
    expect(() => readJoiningKeys(directory)).toThrow(expect.objectContaining({ code: 'DATA_NEWER' }));
  });
});
