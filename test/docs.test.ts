import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseChainFile, verifyStatement } from '@waggle/protocol/audit';
import {
  base64,
  base64url,
  digestOf,
  ERRORS,
  hex,
  HybridClock,
  seededRandom,
  utf8,
  WaggleError,
} from '@waggle/protocol/base';
import {
  controlSigningBytes,
  decodeControlDelta,
  decodeUsageDelta,
  encodeControlDelta,
  encodeUsageDelta,
  verifyControl,
  type ControlRegister,
} from '@waggle/protocol/lattice';
import {
  clusterOf,
  headerHash,
  parseBallotState,
  parseClose,
  parseGenesis,
  parseHeader,
  parseReports,
  parseSlotList,
  rosterDigest,
} from '@waggle/protocol/sealing';
import {
  appendToFrontier,
  cosignerKey,
  EMPTY_FRONTIER,
  formatPolicy,
  formatVerifierKey,
  frontierRoot,
  leafHash,
  logKey,
  openCheckpoint,
  statementLeaf,
} from '@waggle/protocol/transparency';
import { encodeSlot, parseSlot } from '@waggle/protocol/usage';
import { Identity, LIMITS } from '@waggle/identity';
import { RESIZE_PARAMETERS, type Parameter } from '@waggle/images';
import { nodeCrypto, signerFromSeed } from '@waggle/runtime';
import { flagOf, loadConfig, SETTING_NAMES, SETTINGS, variableOf, type Setting } from '../apps/node/src/config.ts';
import { buildServer, type App, type ServerDeps } from '../apps/node/src/http/index.ts';
import { Metrics } from '../apps/node/src/metrics.ts';
import { Node } from '../apps/node/src/node.ts';

/* The documentation against the code: tables, routes, examples and the names of files. Links are held by tidy.test.ts. */

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const page = (name: string): string => readFileSync(join(root, 'docs', name), 'utf8');

/** The rows of all tables whose first cell is a name in backticks: cells without their padding. */
const rowsOf = (text: string): string[][] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .replaceAll('\\|', '\0')
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim().replaceAll('\0', '|')),
    );

/** The part of a page below a heading of the second level. */
function section(text: string, heading: string): string {
  const [, after] = text.split(`\n## ${heading}\n`);
  expect(after, heading).toBeDefined();
  return after!.split('\n## ', 1)[0]!;
}

const unquoted = (cell: string): string => cell.replace(/^`(.*)`$/, '$1');

describe('tables', () => {
  it('ERRORS.md has every code with its status, title and effect, and no others', () => {
    const documented = Object.fromEntries(
      rowsOf(page('ERRORS.md')).map(([code, status, title, effect]) => [
        unquoted(code!),
        { status: Number(status), title, effect },
      ]),
    );
    expect(documented).toEqual(ERRORS);
  });

  it('OPERATING.md has every setting with its flag, variable, key and default', () => {
    const expected = SETTING_NAMES.map((name) => {
      const { fallback, shown } = SETTINGS[name] as Setting<unknown>;
      return [`\`${flagOf(name)}\`, \`${variableOf(name)}\``, `\`${name}\``, shown ?? `\`${fallback}\``];
    });
    const rows = rowsOf(section(page('OPERATING.md'), 'Settings'));
    expect(rows.map((cells) => cells.slice(0, 3))).toEqual(expected);
  });

  it('API.md has every parameter of a resize with its values and default', () => {
    const valuesOf = (parameter: Parameter): string => {
      if (parameter.type === 'integer') return `${parameter.minimum} to ${parameter.maximum}`;
      if (parameter.type === 'choice') return parameter.choices.map((choice) => `\`${choice}\``).join(', ');
      return parameter.type === 'boolean' ? '`true`, `false`' : 'CSS colour';
    };
    const expected = Object.entries<Parameter>(RESIZE_PARAMETERS).map(([name, parameter]) => [
      `\`${name}\``,
      valuesOf(parameter),
      parameter.default === undefined ? '' : `\`${parameter.default}\``,
      parameter.description,
    ]);
    const names = new Set(expected.map(([name]) => name));
    const rows = rowsOf(section(page('API.md'), 'Pictures')).filter(([name]) => names.has(name));
    expect(rows).toEqual(expected);
  });

  it('API.md has every limit with its unit, range and default', () => {
    const expected = Object.entries(LIMITS).map(([name, limit]) => [
      `\`${name}\``,
      limit.unit,
      `${limit.min} to ${limit.max}`,
      String(limit.default),
    ]);
    expect(rowsOf(section(page('API.md'), 'Limits')).map((cells) => cells.slice(0, 4))).toEqual(expected);
  });
});

/** A logger that says nothing. */
const silent = Object.fromEntries(
  ['fatal', 'error', 'warn', 'info', 'debug', 'trace'].map((level) => [level, () => {}]),
) as unknown as ServerDeps['logger'];
Object.assign(silent, { level: 'silent', child: () => silent });

describe('a node', () => {
  const directory = mkdtempSync(join(tmpdir(), 'waggle-docs-'));
  let node: Node;
  let server: App;

  beforeAll(async () => {
    const flags = { data: join(directory, 'data'), workers: '1', swarm: '127.0.0.1:0' };
    const { config } = loadConfig({ flags, env: {}, directory });
    const metrics = new Metrics();
    node = await Node.open(config, {
      commit: () => {},
      sealed: () => {},
      worker: () => {},
      member: () => {},
      misbehaviour: () => {},
      alarm: () => {},
      joined: () => {},
      joinRefused: () => {},
      keepingFailed: () => {},
      fatal: () => {},
    });
    server = buildServer(node, { logger: silent, metrics });
  }, 60_000);
  afterAll(async () => {
    await server.close();
    await node.close();
    rmSync(directory, { recursive: true });
  }, 60_000);

  it('has the routes that API.md has, and no others', async () => {
    const { paths } = (await server.inject('/openapi.json')).json<{ paths: Record<string, Record<string, unknown>> }>();
    const served = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const documented = [...page('API.md').matchAll(/^### `([A-Z]+ [^`]+)`$/gm)].map((match) => match[1]!);
    expect(documented.toSorted()).toEqual(served.toSorted());
  });

  it('has the metrics that OPERATING.md has, and no others', async () => {
    const { payload } = await server.inject('/metrics');
    const shown = [...payload.matchAll(/^# TYPE (waggle_\w+) /gm)].map((match) => match[1]!);
    const names = rowsOf(section(page('OPERATING.md'), 'Metrics')).flatMap(
      ([cell]) => cell!.match(/waggle_\w+/g) ?? [],
    );
    expect(names.toSorted()).toEqual(shown.toSorted());
  });
});

describe('files', () => {
  it('that pages name are there', () => {
    const pages = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' }).filter((name) =>
      name.endsWith('.md'),
    );
    const missing = pages.flatMap((name) =>
      [...page(name).matchAll(/`((?:packages|apps|test|docs|scripts|\.ci)\/[A-Za-z0-9_./-]+)`/g)]
        .map((match) => match[1]!)
        .filter((path) => /\.[a-z]+$/.test(path) && !existsSync(join(root, path)))
        .map((path) => `docs/${name} names ${path}, which is not there`),
    );
    expect(pages.length).toBeGreaterThan(10);
    expect(missing).toEqual([]);
  });
});

describe('the examples of FORMATS.md', () => {
  /** Blocks by the label after the language. */
  const blocks = new Map(
    [...page('FORMATS.md').matchAll(/^```text (\S+)\n([\s\S]*?)\n```$/gm)].map((match) => [match[1]!, match[2]!]),
  );
  const block = (name: string): string => {
    const text = blocks.get(name);
    if (text === undefined) throw new Error(`FORMATS.md has no block ${name}`);
    return text;
  };
  const bytes = (name: string): Uint8Array => utf8(block(name));
  const line = (name: string): Uint8Array => utf8(`${block(name)}\n`);
  const json = (name: string): never => JSON.parse(block(name)) as never;
  const cluster = clusterOf(parseGenesis(bytes('genesis.json')), nodeCrypto);
  const [member] = cluster.genesis.roster;
  const { replica } = member!;
  const transportKey = base64.decode(member!.transportKey);

  it('genesis, cluster id and origin belong together', () => {
    expect(page('FORMATS.md')).toContain(`hex(SHA-256(genesis))                     ${cluster.id}`);
    expect(page('FORMATS.md')).toContain(cluster.origin);
  });

  it('the register is signed, and its delta is that of the page', () => {
    const register: ControlRegister = json('register');
    expect(hex.encode(controlSigningBytes(cluster.id, replica, register))).toBe(block('register-signing-bytes'));
    verifyControl(nodeCrypto, transportKey, cluster.id, replica, register);
    const delta = { writer: replica, from: 6, to: 7, end: 9, registers: [register] };
    expect(hex.encode(encodeControlDelta(delta))).toBe(block('control-delta'));
    expect(decodeControlDelta(hex.decode(block('control-delta')))).toEqual(delta);
  });

  it('the usage delta is what the page takes apart', () => {
    const delta = decodeUsageDelta(hex.decode(block('usage-delta')));
    expect(delta).toMatchObject({ writer: `${replica}/459563228416092`, from: 0, to: 2, end: 2 });
    expect(delta.registers.map(({ key, usage }) => [key, usage.bytesOut])).toEqual([
      ['1/acme/resize.jpeg', 200],
      ['1/acme/resize.webp', 150],
    ]);
    expect(hex.encode(encodeUsageDelta(delta))).toBe(block('usage-delta'));
  });

  it('slot, slot list, header and chain hang together', () => {
    const [entry] = parseSlotList(line('slots.jsonl'));
    const slot = parseSlot(line('slot'));
    expect(digestOf(nodeCrypto, encodeSlot(slot))).toBe(entry!.digest);
    const header = parseHeader(bytes('header.json'));
    expect(header.slots).toEqual({ digest: digestOf(nodeCrypto, line('slots.jsonl')), count: 1 });
    expect([header.cluster, header.roster]).toEqual([cluster.id, rosterDigest(cluster.genesis.roster, nodeCrypto)]);
    expect(parseChainFile(bytes('chain.json')).previous).toBe(headerHash(bytes('header.json'), nodeCrypto));
  });

  it('close, reports and ballot are well-formed, and the close names the reports', () => {
    const close = parseClose(json('close'));
    expect(close.reports).toBe(digestOf(nodeCrypto, line('reports')));
    expect(parseReports(line('reports'))).toHaveLength(1);
    expect(parseBallotState(json('ballot')).accepted?.ballot.round).toBe(0);
  });

  it('checkpoint, keys, policy and tree fit', () => {
    const keys = [
      logKey(nodeCrypto, cluster.origin, base64.decode(member!.logKey)),
      cosignerKey(nodeCrypto, cluster.origin, replica, base64.decode(member!.cosignerKey)),
    ];
    expect(block('vkeys')).toBe(keys.map(formatVerifierKey).join('\n'));
    const { checkpoint, verified } = openCheckpoint(nodeCrypto, `${block('checkpoint')}\n`, keys);
    expect(verified).toHaveLength(2);
    const { frontier } = parseChainFile(bytes('chain.json'));
    expect([frontier.size, frontierRoot(nodeCrypto, frontier)]).toEqual([checkpoint.size, checkpoint.root]);
    const first = appendToFrontier(nodeCrypto, EMPTY_FRONTIER, [leafHash(nodeCrypto, bytes('header.json'))]);
    expect(hex.encode(frontierRoot(nodeCrypto, first))).toBe(headerHash(bytes('header.json'), nodeCrypto));
    const policy = formatPolicy(nodeCrypto, cluster.origin, [
      { replica, logKey: base64.decode(member!.logKey), cosignerKey: base64.decode(member!.cosignerKey) },
    ]);
    expect(policy).toBe(`${block('policy')}\n`);
  });

  it('the statement has its leaf and its proof', () => {
    expect(statementLeaf(block('statement'), 0, nodeCrypto)).toEqual(bytes('leaf'));
    const report = verifyStatement(bytes('statement'), line('tlog-proof'), cluster, cluster.genesis.roster, nodeCrypto);
    expect(report).toMatchObject({ customer: 'acme', epoch: 0, treeSize: 3 });
  });

  it('the receipt is signed by the node', () => {
    const [head, payload, signature] = block('receipt').split('.');
    const good = nodeCrypto.ed25519Verify(transportKey, utf8(`${head}.${payload}`), base64url.decode(signature!));
    expect(good).toBe(true);
  });

  it('the credential has the right form and checksum: it is only not known', () => {
    const identity = new Identity({
      crypto: nodeCrypto,
      random: seededRandom(1),
      signerFromSeed,
      clock: new HybridClock(),
      replica,
      run: 1 as never,
    });
    const codeOf = (text: string): unknown => {
      try {
        return identity.authenticate(text);
      } catch (error) {
        return error instanceof WaggleError ? error.code : error;
      }
    };
    const text = block('credential');
    expect(codeOf(text)).toBe('KEY_UNKNOWN');
    expect(codeOf(`${text.slice(0, -1)}0`)).toBe('KEY_MALFORMED');
  });
});
