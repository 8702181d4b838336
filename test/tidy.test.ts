import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

/*
 * Rules that matter are tests. Each rule is a function from the files to the sentences that break it, so that the tests can
 * also show that it bites.
 */

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Files that git knows or would take, by path from the root. */
const files: ReadonlyMap<string, string> = new Map(
  execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], { cwd: root, encoding: 'utf8' })
    .split('\0')
    .filter((path) => /\.(ts|js|json|md)$/.test(path) && existsSync(join(root, path)))
    .map((path) => [path, readFileSync(join(root, path), 'utf8')]),
);

/** Who may import whom: only downwards. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  'packages/protocol': [],
  'packages/identity': ['protocol'],
  'packages/images': ['protocol'],
  'packages/runtime': ['protocol'],
  // Customers take it into their programs, browsers included: it stands alone.
  'packages/client': [],
  'apps/verify': ['protocol'],
  'apps/node': ['protocol', 'identity', 'images', 'runtime'],
};
/** The folders of the core, lowest first: each imports only from those before it, and only through their `index.ts`. */
const CORE = [
  'base',
  'lattice',
  'membership',
  'replication',
  'usage',
  'transparency',
  'sealing',
  'authority',
  'member',
  'audit',
];
/** The only npm packages that the core may use: pure functions of their arguments. */
const CORE_PACKAGES = new Set(['@scure/base', 'canonicalize']);
/** Packages that one package alone imports. */
const SOLE_IMPORTERS: Readonly<Record<string, string>> = {
  sharp: 'packages/images',
  'better-sqlite3': 'packages/runtime',
  'hyparquet-writer': 'packages/runtime',
  '@automerge/automerge': 'packages/identity',
  hyperswarm: 'packages/runtime',
  hyperdht: 'packages/runtime',
  protomux: 'packages/runtime',
  fastify: 'apps/node',
};
const BANNED_IN_CORE: readonly (readonly [RegExp, string])[] = [
  [/\bDate\.now\b|new Date\(\)/, 'a clock'],
  [/\bMath\.random\b|\bcrypto\.(getRandomValues|randomUUID)\b/, 'chance'],
  [/\b(setTimeout|setInterval|setImmediate|queueMicrotask|fetch|require)\(/, 'IO or a timer'],
  [/\b(process|console|globalThis|performance)\./, 'the outside'],
];
const LINES_MAX = 550;

type Files = ReadonlyMap<string, string>;
const isSource = (path: string): boolean => /^(packages|apps)\/[a-z]+\/src\/.*\.ts$/.test(path);
const withoutComments = (text: string): string =>
  text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(^|\s)\/\/.*$/gm, '');
const importsOf = (text: string): string[] =>
  [...withoutComments(text).matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
const packageOf = (path: string): string => path.split('/').slice(0, 2).join('/');
const npmName = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');

function* sources(all: Files): Generator<[path: string, text: string, imports: string[]]> {
  for (const [path, text] of all) if (isSource(path)) yield [path, text, importsOf(text)];
}

function importDirections(all: Files): string[] {
  const broken: string[] = [];
  for (const [path, , imports] of sources(all)) {
    const own = packageOf(path);
    for (const specifier of imports) {
      const ours = /^@waggle\/([a-z]+)/.exec(specifier)?.[1];
      if (ours !== undefined && !PACKAGES[own]?.includes(ours))
        broken.push(`${path} imports ${specifier}, which is not below it`);
      if (specifier.startsWith('.') && !normalize(join(dirname(path), specifier)).startsWith(`${own}/`))
        broken.push(`${path} imports ${specifier} from outside its package`);
      const sole = SOLE_IMPORTERS[npmName(specifier)];
      if (sole !== undefined && sole !== own) broken.push(`${path} imports ${specifier}, which only ${sole} may`);
    }
  }
  return broken;
}

function coreDirections(all: Files): string[] {
  const broken: string[] = [];
  for (const [path, , imports] of sources(all)) {
    const folder = /^packages\/protocol\/src\/([a-z]+)\//.exec(path)?.[1];
    if (folder === undefined) continue;
    if (!CORE.includes(folder)) broken.push(`${path} is in no known folder of the core`);
    for (const specifier of imports) {
      if (!specifier.startsWith('.')) {
        if (!CORE_PACKAGES.has(specifier)) broken.push(`${path} imports ${specifier}`);
        continue;
      }
      const [, target, ...rest] = relative('packages/protocol', normalize(join(dirname(path), specifier))).split('/');
      if (target === folder) continue;
      if (CORE.indexOf(target!) >= CORE.indexOf(folder)) broken.push(`${path} imports upwards from ${target}`);
      if (rest.join('/') !== 'index.ts') broken.push(`${path} imports ${specifier} past the door of ${target}`);
    }
  }
  return broken;
}

function coreIsPure(all: Files): string[] {
  const broken: string[] = [];
  for (const [path, text] of sources(all)) {
    if (!path.startsWith('packages/protocol/')) continue;
    const code = withoutComments(text);
    for (const [pattern, what] of BANNED_IN_CORE) {
      const found = pattern.exec(code);
      if (found !== null) broken.push(`${path} uses ${what}: ${found[0]}`);
    }
  }
  return broken;
}

function pinned(all: Files): string[] {
  const broken: string[] = [];
  for (const [path, text] of all) {
    if (!/(^|\/)package\.json$/.test(path)) continue;
    const { dependencies, devDependencies } = JSON.parse(text) as Record<string, Record<string, string> | undefined>;
    for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies }))
      if (!/^\d+\.\d+\.\d+$/.test(version)) broken.push(`${path} takes ${name} as ${version}, not an exact version`);
  }
  return broken;
}

const long = (all: Files): string[] =>
  [...sources(all)]
    .filter(([, text]) => text.split('\n').length > LINES_MAX)
    .map(([path]) => `${path} has more than ${LINES_MAX} lines`);

/** Links in the docs lead somewhere, and every page stands in the reading order. */
function docs(all: Files): string[] {
  const broken: string[] = [];
  const order = all.get('docs/README.md') ?? '';
  for (const [path, text] of all) {
    if (!path.endsWith('.md')) continue;
    for (const [, target] of text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue;
      if (!existsSync(join(root, dirname(path), target!)))
        broken.push(`${path} links to ${target}, which is not there`);
    }
    const page = /^docs\/(.+\.md)$/.exec(path)?.[1];
    if (page !== undefined && page !== 'README.md' && !order.includes(`(${page})`))
      broken.push(`docs/README.md does not name ${page}`);
  }
  return broken;
}

const RULES = { importDirections, coreDirections, coreIsPure, pinned, long, docs };

describe('the house', () => {
  it.each(Object.keys(RULES) as (keyof typeof RULES)[])('%s', (name) => expect(RULES[name](files)).toEqual([]));
});

describe('its rules bite', () => {
  const broken: Readonly<Record<keyof typeof RULES, readonly [path: string, text: string]>> = {
    importDirections: ['packages/images/src/x.ts', "import { Driver } from '@waggle/runtime';"],
    coreDirections: ['packages/protocol/src/base/x.ts', "import { Registers } from '../lattice/registers.ts';"],
    coreIsPure: ['packages/protocol/src/base/x.ts', 'export const now = () => Date.now();'],
    pinned: ['package.json', '{"dependencies": {"left-pad": "^1.0.0"}}'],
    long: ['packages/images/src/x.ts', '\n'.repeat(LINES_MAX + 1)],
    docs: ['docs/X.md', '[nowhere](nowhere.md)'],
  };
  it.each(Object.keys(broken) as (keyof typeof RULES)[])('%s', (name) =>
    expect(RULES[name](new Map([broken[name]]))).not.toEqual([]),
  );
});
