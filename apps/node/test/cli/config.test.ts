import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { WaggleError } from '@waggle/protocol/base';
import {
  addressText,
  flagOf,
  loadConfig,
  SETTING_NAMES,
  SETTINGS,
  settingsMarkdown,
  showSetting,
  variableOf,
  type Sources,
} from '../../src/config.ts';
import { inviteOf } from '../../src/join.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'waggle-config-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

const load = (sources: Partial<Sources> = {}): ReturnType<typeof loadConfig> =>
  loadConfig({ flags: {}, env: {}, directory, ...sources });
const file = (content: unknown, name = 'waggle.json'): void =>
  writeFileSync(join(directory, name), typeof content === 'string' ? content : JSON.stringify(content));

/** The message that a configuration is refused with. */
function refusal(sources: Partial<Sources>): string {
  try {
    load(sources);
  } catch (error) {
    expect(error).toBeInstanceOf(WaggleError);
    expect((error as WaggleError).code).toBe('CONFIG_INVALID');
    return (error as WaggleError).message;
  }
  throw new Error('the configuration was taken');
}

describe('the order of sources', () => {
  it('has safe defaults', () => {
    const { config, origins } = load();
    expect(config).toMatchObject({
      http: { host: '127.0.0.1', port: 8080 },
      publicUrl: null,
      data: join(directory, 'data'),
      origin: 'waggle.local',
      epochMs: 3_600_000,
      sealGraceMs: 900_000,
      operatorToken: null,
      logLevel: 'info',
      publicLog: true,
      databaseBytesMax: null,
    });
    expect(config.workers).toBeGreaterThanOrEqual(1);
    expect(new Set(Object.values(origins))).toEqual(new Set(['default']));
  });

  it('takes flags over variables over waggle.json over defaults', () => {
    file({ epochMs: 1_001, workers: 3, logLevel: 'warn' });
    const { config, origins } = load({
      flags: { epochMs: '3003' },
      env: { WAGGLE_EPOCH_MS: '2002', WAGGLE_WORKERS: '2' },
    });
    expect(config).toMatchObject({ epochMs: 3_003, workers: 2, logLevel: 'warn', queueMax: 256 });
    expect(origins).toMatchObject({
      epochMs: 'flag --epoch-ms',
      workers: 'variable WAGGLE_WORKERS',
      logLevel: `file ${join(directory, 'waggle.json')}`,
      queueMax: 'default',
    });
  });

  it('takes an empty variable for none', () => {
    expect(load({ env: { WAGGLE_WORKERS: '', WAGGLE_DATA: '' } }).config.data).toBe(join(directory, 'data'));
  });

  it('finds another file by flag or variable, and its paths from there', () => {
    const elsewhere = join(directory, 'elsewhere');
    mkdirSync(elsewhere);
    file({ data: 'kept', publicLog: false, databaseBytesMax: 2 ** 30 }, 'elsewhere/node.json');
    const expected = { data: join(elsewhere, 'kept'), publicLog: false, databaseBytesMax: 2 ** 30 };
    expect(load({ flags: { config: 'elsewhere/node.json' } }).config).toMatchObject(expected);
    expect(load({ env: { WAGGLE_CONFIG: join(elsewhere, 'node.json') } }).config).toMatchObject(expected);
  });
});

describe('an invite', () => {
  it('is kept as it was given, and read when it is needed', () => {
    const path = join(directory, 'invite');
    expect(load({ flags: { join: '-' } }).config.join).toBe('-');
    expect(load({ env: { WAGGLE_JOIN: '@invite' } }).config.join).toBe(`@${path}`);
    expect(load({ env: { WAGGLE_JOIN: 'wgi_cut' } }).config.join).toBe('wgi_cut');
    const invite = inviteOf(`@${path}`)!;
    expect(invite.atHand()).toBeNull();
    expect(invite.needed).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringMatching(/the invite from .*: ENOENT/) }),
    );
    file('wgi_text\n', 'invite');
    expect([invite.atHand(), invite.needed()]).toEqual(['wgi_text', 'wgi_text']);
    expect([inviteOf('-')!.atHand(), inviteOf(null)]).toEqual([null, null]);
  });
});

describe('what is refused', () => {
  it.each([
    [
      'a value out of range',
      { env: { WAGGLE_EPOCH_MS: '999' } },
      /whole number from 1000 to .* for epochMs \(variable WAGGLE_EPOCH_MS\), received "999"/,
    ],
    ['no number', { flags: { workers: 'many' } }, /for workers \(flag --workers\), received "many"/],
    [
      'an address without a port',
      { flags: { http: '127.0.0.1' } },
      /such as 127\.0\.0\.1:8080 or .* for http \(flag --http\), received "127\.0\.0\.1"/,
    ],
    ['a port too high', { flags: { http: '127.0.0.1:65536' } }, /for http/],
    ['a URL of another scheme', { flags: { publicUrl: 'ftp://a.example' } }, /an http or https URL .* for publicUrl/],
    ['a URL with a password', { flags: { publicUrl: 'https://u:p@a.example' } }, /for publicUrl/],
    ['an unknown level', { flags: { logLevel: 'loud' } }, /one of trace, .* for logLevel/],
    ['an origin with spaces', { env: { WAGGLE_ORIGIN: 'my log' } }, /for origin/],
    [
      'an unknown variable',
      { env: { WAGGLE_EPOC_MS: '1000' } },
      /received WAGGLE_EPOC_MS; did you mean WAGGLE_EPOCH_MS\?/,
    ],
    ['a setting of a later version', { env: { WAGGLE_REGION: 'x' } }, /received WAGGLE_REGION/],
    ['a file that is not there', { flags: { config: 'none.json' } }, /a file of settings at .*none\.json/],
  ] as const)('%s', (_, sources, message) => {
    expect(refusal(sources)).toMatch(message);
  });

  it.each([
    ['an unknown key', { epochMS: 1 }, /a known key in .*waggle\.json, received "epochMS"; did you mean epochMs\?/],
    ['a value of another kind', { workers: [2] }, /for workers \(file .*waggle\.json\)/],
    ['a value out of range', { workers: 0 }, /from 1 to 256 for workers \(file .*\), received "0"/],
    ['no JSON', '{"operatorToken": "secret-of-the-operator"', /Expected JSON in .*waggle\.json/],
    ['no object', '[]', /an object of settings/],
  ])('in waggle.json: %s', (_, content, message) => {
    file(content);
    const refused = refusal({});
    expect(refused).toMatch(message);
    expect(refused).not.toContain('secret-of-the-operator');
  });

  it('a token that is too short, without repeating it', () => {
    expect(refusal({ env: { WAGGLE_OPERATOR_TOKEN: 'hunter2' } })).not.toContain('hunter2');
  });

  it('anything, with the key in the message and never another error', () => {
    fc.assert(
      fc.property(fc.constantFrom(...SETTING_NAMES), fc.string(), (name, text) => {
        try {
          load({ flags: { [name]: text } });
        } catch (error) {
          expect(error).toBeInstanceOf(WaggleError);
          expect((error as WaggleError).message).toContain(`for ${name} (flag ${flagOf(name)})`);
        }
      }),
    );
  });
});

describe('the table of settings', () => {
  it('has a default for each that is taken', () => {
    for (const name of SETTING_NAMES)
      expect(SETTINGS[name].parse(SETTINGS[name].fallback, '/'), name).not.toBeUndefined();
  });

  it('names flags and variables alike', () => {
    expect([flagOf('sealGraceMs'), variableOf('sealGraceMs')]).toEqual(['--seal-grace-ms', 'WAGGLE_SEAL_GRACE_MS']);
  });

  it('shows values as they can be given again, and no secrets', () => {
    const { config } = load({ flags: { operatorToken: 'correct-horse-battery', http: '[::1]:0' } });
    expect(showSetting(config, 'operatorToken')).toBe('********');
    expect(showSetting(config, 'http')).toBe('[::1]:0');
    for (const name of SETTING_NAMES) {
      const value = config[name];
      if (value === null || name === 'operatorToken') continue;
      expect(load({ flags: { [name]: showSetting(config, name) } }).config[name]).toEqual(value);
    }
  });

  it('reads back every address it writes', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()), fc.integer({ min: 0, max: 65_535 }), (host, port) => {
        expect(load({ flags: { http: addressText({ host, port }) } }).config.http).toEqual({ host, port });
      }),
    );
  });

  it('is a Markdown table with one row for each', () => {
    const rows = settingsMarkdown().split('\n');
    expect(rows).toHaveLength(SETTING_NAMES.length + 2);
    expect(rows.every((row) => row.split('|').length === 6)).toBe(true);
  });
});
