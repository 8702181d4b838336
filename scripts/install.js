import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of this repository. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));
const at = (path) => join(root, path);

/** Says what was last installed: npm's own mark keeps its date when there was nothing to change. */
const STAMP = at('node_modules/.cache/waggle-installed');
const NPM_MARK = at('node_modules/.package-lock.json');
/** The oldest Node.js that runs this (package.json, engines). */
const NODE_FLOOR = [20, 19];

/** Writes a line to standard output. */
export const say = (line) => process.stdout.write(`${line}\n`);

/** Ends the process with one line about what is wrong. */
export function fail(message) {
  process.stderr.write(`waggle: ${message}\n`);
  process.exit(1);
}

/** Refuses a Node.js that is too old, before anything else can fail for it in a stranger way. */
export function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < NODE_FLOOR[0] || (major === NODE_FLOOR[0] && minor < NODE_FLOOR[1]))
    fail(`Expected Node.js ${NODE_FLOOR.join('.')} or newer, received ${process.versions.node} (${process.execPath})`);
}

/** Installs the dependencies that package-lock.json names, if they are missing or others. */
export function install() {
  const lock = createHash('sha256')
    .update(readFileSync(at('package-lock.json')))
    .digest('hex');
  const reason = staleness(lock);
  if (reason === undefined) return;
  say(`Installing dependencies (npm install): ${reason} …`);
  // What the lock file says, without changing it. `npm ci` would do, but refuses a lock file that was made where the registry
  // has not every optional package for other platforms. The compiler is a development dependency, and the node is built
  // here: NODE_ENV=production must not leave it out.
  if (!npm('install', '--no-save', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'))
    fail('The dependencies could not be installed: npm install failed; its messages are above.');
  mkdirSync(dirname(STAMP), { recursive: true });
  writeFileSync(STAMP, lock);
}

/** Why an installation is needed, or undefined. */
function staleness(lock) {
  if (!existsSync(NPM_MARK)) return 'node_modules is missing or incomplete';
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lock) return undefined;
  if (statSync(NPM_MARK).mtimeMs >= statSync(at('package-lock.json')).mtimeMs) return undefined;
  return 'package-lock.json is newer than node_modules';
}

/** Runs npm, under `npm start` the very one that is running; true when it succeeds. */
export function npm(...args) {
  const path = process.env.npm_execpath;
  const [program, first] = path?.endsWith('.js') ? [process.execPath, [path]] : ['npm', []];
  const { status } = spawnSync(program, [...first, ...args], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  return status === 0;
}

/** Compiles what has changed of a project and of what it needs; true when it compiles. */
export function build(...projects) {
  const tsc = at('node_modules/typescript/bin/tsc');
  if (!existsSync(tsc)) fail(`Expected the compiler at ${tsc}, found none. Remove node_modules and run this again.`);
  const { status } = spawnSync(process.execPath, [tsc, '-b', ...projects], { cwd: root, stdio: 'inherit' });
  return status === 0;
}
