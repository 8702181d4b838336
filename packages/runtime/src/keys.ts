import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import {
  assert,
  base64,
  equalBytes,
  parseClusterId,
  WaggleError,
  type ClusterId,
  type Random,
  type Signer,
} from '@waggle/protocol/base';
import { syncPath, writePrivateFile } from './data-directory.ts';
import { signerFromKeyObject, signerFromSeed } from './node-crypto.ts';
import { parsePlace, type Place } from './place.ts';

/** The three Ed25519 pairs of a replica; one purpose each, so that no signature can be mistaken for another. */
export interface NodeKeys {
  /** Who it is among the members. */
  readonly transport: Signer;
  /** The private half of it, 32 bytes (RFC 8032): Hyperswarm makes its own pair of it. Never shown, never logged. */
  readonly transportSeed: Uint8Array;
  /** Signs checkpoints of the log (signed-note type 0x01). */
  readonly log: Signer;
  /** Cosigns them (signed-note type 0x04). */
  readonly cosigner: Signer;
}

const NAMES = ['transport', 'log', 'cosigner'] as const satisfies readonly (keyof NodeKeys)[];

/** One pair, as it stands in the file. */
interface Pair {
  readonly seed: Uint8Array;
  readonly signer: Signer;
}

const FORMAT = 1;
const KEYS_FILE = 'keys.json';
const JOINING_FILE = 'joining.json';
const OPERATOR_FILE = 'operator.key';
/** Bytes; a key file has a few hundred. */
const FILE_BYTES_MAX = 16_384;

/** The file's text, or null if there is no such file. */
function readKeyFile(path: string): string | null {
  if (!existsSync(path)) return null;
  try {
    const bytes = readFileSync(path);
    if (bytes.length <= FILE_BYTES_MAX) return bytes.toString('utf8');
  } catch (cause) {
    throw damaged(path, (cause as Error).message, cause);
  }
  throw damaged(path, `it is longer than ${FILE_BYTES_MAX} bytes`);
}

const damaged = (path: string, why: string, cause?: unknown): WaggleError =>
  new WaggleError('DATA_DAMAGED', `Expected keys in ${path}: ${why}. Nothing was overwritten.`, { cause });

/** One pair of the file. The public half is there to find a damaged secret half. */
function parsePair(value: unknown): Pair {
  const { seed: text, publicKey } = value as Record<string, string>;
  const seed = base64.decode(text!);
  assert(seed.length === 32, 'a seed has 32 bytes');
  const signer = signerFromSeed(seed);
  assert(equalBytes(signer.publicKey, base64.decode(publicKey!)), 'the public key is that of the seed');
  return { seed, signer };
}

/** The JSON of a file of keys, and what `parse` makes of it. Throws `DATA_DAMAGED`, `DATA_NEWER`. */
function parseKeysFile<T>(path: string, text: string, parse: (file: Record<string, unknown>) => T): T {
  let format: unknown;
  try {
    const file = JSON.parse(text) as Record<string, unknown>;
    format = file['format'];
    if (format === FORMAT) return parse(file);
  } catch (cause) {
    // The parser's own message would quote the file, secrets and all: it is not passed on.
    throw damaged(path, cause instanceof SyntaxError ? 'it is not JSON' : 'a key in it is malformed');
  }
  if (Number.isSafeInteger(format) && (format as number) > FORMAT)
    throw new WaggleError('DATA_NEWER', `Expected format ${FORMAT} in ${path}, received ${String(format)}`);
  throw damaged(path, 'it is of no known format');
}

function parseKeys(file: Record<string, unknown>): NodeKeys {
  const [transport, log, cosigner] = NAMES.map((name) => parsePair(file[name]));
  return {
    transport: transport!.signer,
    transportSeed: transport!.seed,
    log: log!.signer,
    cosigner: cosigner!.signer,
  };
}

/** New pairs, as they stand in a file. */
function drawPairs(random: Random): Record<string, unknown> {
  const pairs = NAMES.map((name) => {
    const seed = random.bytes(32);
    const publicKey = base64.encode(signerFromSeed(seed).publicKey);
    return [name, { seed: base64.encode(seed), publicKey }] as const;
  });
  return Object.fromEntries(pairs);
}

const writeKeysFile = (path: string, fields: Record<string, unknown>): void =>
  writePrivateFile(path, `${JSON.stringify({ format: FORMAT, ...fields }, null, 2)}\n`);

/** The node's keys, or null if it has none yet. Throws `DATA_DAMAGED`, `DATA_NEWER`. */
export function readNodeKeys(directory: string): NodeKeys | null {
  const path = join(directory, KEYS_FILE);
  const text = readKeyFile(path);
  return text === null ? null : parseKeysFile(path, text, parseKeys);
}

/** Makes the node's keys and writes them, mode 0600. Throws `DATA_DAMAGED` rather than replace keys that are there. */
export function createNodeKeys(directory: string, random: Random): NodeKeys {
  const path = join(directory, KEYS_FILE);
  if (existsSync(path)) throw damaged(path, 'it exists already');
  writeKeysFile(path, drawPairs(random));
  const keys = readNodeKeys(directory);
  assert(keys !== null, 'keys that were written can be read');
  return keys;
}

/** The keys with which a node asks to be admitted, until it is. They are not its own before: a copy made meanwhile draws others. */
export interface JoiningKeys {
  readonly keys: NodeKeys;
  /** The one that it asks. */
  readonly cluster: ClusterId;
  /** Where the directory lay when they were drawn. */
  readonly place: Place;
}

/** The keys of a joining that was begun, or null if none was. Throws `DATA_DAMAGED`, `DATA_NEWER`. */
export function readJoiningKeys(directory: string): JoiningKeys | null {
  const path = join(directory, JOINING_FILE);
  const text = readKeyFile(path);
  if (text === null) return null;
  return parseKeysFile(path, text, (file) => ({
    keys: parseKeys(file),
    cluster: parseClusterId(file['cluster']),
    place: parsePlace(file['place']),
  }));
}

/** Makes keys to join with and writes them, mode 0600, in the place of those of an earlier attempt. */
export function createJoiningKeys(directory: string, cluster: ClusterId, place: Place, random: Random): NodeKeys {
  writeKeysFile(join(directory, JOINING_FILE), { cluster, place, ...drawPairs(random) });
  const joining = readJoiningKeys(directory);
  assert(joining !== null, 'keys that were written can be read');
  return joining.keys;
}

/** Makes the keys of a joining the node's own, which replace those of the replica that the directory was before. */
export function adoptJoiningKeys(directory: string): void {
  const path = join(directory, JOINING_FILE);
  const text = readKeyFile(path);
  assert(text !== null, 'a joining to adopt the keys of');
  const pairs = parseKeysFile(path, text, (file) => Object.fromEntries(NAMES.map((name) => [name, file[name]])));
  writeKeysFile(join(directory, KEYS_FILE), pairs);
  dropJoiningKeys(directory);
}

/** Gives a joining up. */
export function dropJoiningKeys(directory: string): void {
  rmSync(join(directory, JOINING_FILE), { force: true });
  syncPath(directory);
}

/** The operator key, or null when it is not on this node (any more). Throws `DATA_DAMAGED`. */
export function readOperatorKey(directory: string): Signer | null {
  const path = join(directory, OPERATOR_FILE);
  const pem = readKeyFile(path);
  if (pem === null) return null;
  try {
    return signerFromKeyObject(createPrivateKey({ key: pem, format: 'pem' }));
  } catch {
    throw damaged(path, 'it is not an Ed25519 private key in PEM (PKCS #8)');
  }
}

/**
 * Makes the operator key and writes it as PEM (PKCS #8), mode 0600, so that openssl reads it too. Throws `DATA_DAMAGED`
 * rather than replace one that is there.
 */
export function createOperatorKey(directory: string): Signer {
  const path = join(directory, OPERATOR_FILE);
  if (existsSync(path)) throw damaged(path, 'it exists already');
  const { privateKey } = generateKeyPairSync('ed25519');
  writePrivateFile(path, privateKey.export({ format: 'pem', type: 'pkcs8' }));
  return signerFromKeyObject(privateKey);
}
