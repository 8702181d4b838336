import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { assert, base64, equalBytes, WaggleError, type Random, type Signer } from '@waggle/protocol/base';
import { writePrivateFile } from './data-directory.ts';
import { signerFromKeyObject, signerFromSeed } from './node-crypto.ts';

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

/** The node's keys, or null if it has none yet. Throws `DATA_DAMAGED`. */
export function readNodeKeys(directory: string): NodeKeys | null {
  const path = join(directory, KEYS_FILE);
  const text = readKeyFile(path);
  if (text === null) return null;
  let format: unknown;
  try {
    const file = JSON.parse(text) as Record<string, unknown>;
    format = file['format'];
    if (format === FORMAT) {
      const [transport, log, cosigner] = NAMES.map((name) => parsePair(file[name]));
      return {
        transport: transport!.signer,
        transportSeed: transport!.seed,
        log: log!.signer,
        cosigner: cosigner!.signer,
      };
    }
  } catch (cause) {
    // The parser's own message would quote the file, secrets and all: it is not passed on.
    throw damaged(path, cause instanceof SyntaxError ? 'it is not JSON' : 'a key in it is malformed');
  }
  if (Number.isSafeInteger(format) && (format as number) > FORMAT)
    throw new WaggleError('DATA_NEWER', `Expected format ${FORMAT} in ${path}, received ${String(format)}`);
  throw damaged(path, 'it is of no known format');
}

/** Makes the node's keys and writes them, mode 0600. Throws `DATA_DAMAGED` rather than replace keys that are there. */
export function createNodeKeys(directory: string, random: Random): NodeKeys {
  const path = join(directory, KEYS_FILE);
  if (existsSync(path)) throw damaged(path, 'it exists already');
  const pairs = NAMES.map((name) => {
    const seed = random.bytes(32);
    const publicKey = base64.encode(signerFromSeed(seed).publicKey);
    return [name, { seed: base64.encode(seed), publicKey }] as const;
  });
  writePrivateFile(path, `${JSON.stringify({ format: FORMAT, ...Object.fromEntries(pairs) }, null, 2)}\n`);
  const keys = readNodeKeys(directory);
  assert(keys !== null, 'keys that were written can be read');
  return keys;
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
