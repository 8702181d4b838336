import {
  base64,
  base64url,
  concat,
  digestOf,
  equalBytes,
  hex,
  jcsBytes,
  parseDigest,
  parseWhole,
  utf8,
  WaggleError,
  WireReader,
  WireWriter,
  type ClusterId,
  type Crypto,
  type Digest,
  type Json,
  type Random,
  type Signer,
} from '../base/index.ts';
import { parseFields, TIME_MS_MAX, type Cluster } from '../sealing/index.ts';
import { demandSignature, KEY_BYTES, parseBase64, SIGNATURE_BYTES, signingBytes } from './proof.ts';

/** Where a joiner finds a member. */
export interface InviteAddress {
  /** The member's transport key, base64 of 32 bytes: the joiner dials nobody else there. */
  readonly transportKey: string;
  /** IPv4, dotted. */
  readonly host: string;
  /** UDP, 1 to 65 535. */
  readonly port: number;
}

/** The public part of an invite, which stands in every admit fact that uses it. It lets nobody in: the secret half of `key` does. */
export interface Grant {
  /** The invite's public key (Ed25519, base64). */
  readonly key: string;
  /** Unix ms until which one may join with it. */
  readonly expiresMs: number;
  /** How many replicas may vote by it, 1 to `INVITE_USES_MAX`. */
  readonly uses: number;
  /** Digest of the addresses that go with it. */
  readonly addresses: Digest;
  /** Of the operator over all that and the cluster id: Ed25519, base64. */
  readonly signature: string;
}

/** An invite, as its text says it. Whoever has the text can join: it is a secret, but holds none of the cluster. */
export interface Invite {
  readonly cluster: ClusterId;
  readonly grant: Grant;
  readonly addresses: readonly InviteAddress[];
  /** Signs with the invite's key. */
  readonly signer: Signer;
}

/** The key pair of a 32-byte seed (RFC 8032 §5.1.5), as the driver makes it. */
export type SignerFromSeed = (seed: Uint8Array) => Signer;

/** How every invite starts, so that people and secret scanners know one. */
export const INVITE_PREFIX = 'wgi_';
export const INVITE_ADDRESSES_MAX = 8;
export const INVITE_USES_MAX = 1_000;
/** How long an invite is good for, in ms: a second at least, an hour unless said, 30 days at most. */
export const INVITE_MS_MIN = 1_000;
export const INVITE_MS = 3_600_000;
export const INVITE_MS_MAX = 30 * 86_400_000;
/** Characters of an invite: with eight addresses it has some 610, with one 240. */
export const INVITE_LENGTH_MAX = 640;

const FORMAT = 1;
const CHECKSUM_BYTES = 4;
const GRANT_DOMAIN = 'waggle-invite/v1';

type Unsigned = Omit<Grant, 'signature'>;

const grantBytes = (cluster: ClusterId, { key, expiresMs, uses, addresses }: Unsigned): Uint8Array =>
  signingBytes(GRANT_DOMAIN, cluster, jcsBytes({ addresses, expiresMs, key, uses }));

/** The id of an invite: digest of what the operator signed. */
export const inviteId = (cluster: ClusterId, grant: Grant, crypto: Crypto): Digest =>
  digestOf(crypto, grantBytes(cluster, grant));

/** The JSON of a grant. */
export const grantJson = ({ key, expiresMs, uses, addresses, signature }: Grant): Json => ({
  key,
  expiresMs,
  uses,
  addresses,
  signature,
});

/** Throws `DECODE_FAILED` unless the value is a grant's. Says nothing of its signature. */
export function parseGrant(value: Json | undefined): Grant {
  const grant = parseFields(value, ['key', 'expiresMs', 'uses', 'addresses', 'signature'], 'a grant');
  return {
    key: parseBase64(grant['key'], KEY_BYTES, 'an invite key'),
    expiresMs: parseWhole(grant['expiresMs'], 'expiresMs', 0, TIME_MS_MAX),
    uses: parseWhole(grant['uses'], 'uses', 1, INVITE_USES_MAX),
    addresses: parseDigest(grant['addresses']),
    signature: parseBase64(grant['signature'], SIGNATURE_BYTES, 'the signature of a grant'),
  };
}

/** Throws `SIGNATURE_INVALID` unless the operator of the cluster signed the grant. */
export function verifyGrant(grant: Grant, cluster: Cluster, crypto: Crypto): void {
  const message = grantBytes(cluster.id, grant);
  demandSignature(crypto, cluster.genesis.operatorKey, message, grant.signature, 'an invite by the operator');
}

function isGranted(grant: Grant, cluster: Cluster, crypto: Crypto): boolean {
  try {
    verifyGrant(grant, cluster, crypto);
    return true;
  } catch (error) {
    if (error instanceof WaggleError && error.code === 'SIGNATURE_INVALID') return false;
    throw error;
  }
}

/**
 * Whether an invite, or the one in an admit fact, is good for the cluster now. Whoever is asked to accept a joiner does this
 * with its own clock: nobody else's word is taken for the time.
 * Throws `INVITE_INVALID` for one of another cluster or operator, and `INVITE_EXPIRED`.
 */
export function checkInvite(
  { cluster: id, grant }: { readonly cluster: ClusterId; readonly grant: Grant },
  cluster: Cluster,
  nowMs: number,
  crypto: Crypto,
): void {
  if (id !== cluster.id)
    throw new WaggleError('INVITE_INVALID', `Expected an invite of cluster ${cluster.id}, received one of ${id}`);
  if (!isGranted(grant, cluster, crypto))
    throw new WaggleError('INVITE_INVALID', 'Expected an invite that the operator of the cluster signed');
  if (nowMs > grant.expiresMs)
    throw new WaggleError(
      'INVITE_EXPIRED',
      `Expected an invite that has not expired; this one did ${nowMs - grant.expiresMs} ms ago`,
    );
}

const HOST = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;

/** `count ‖ (transportKey[32] ‖ host[4] ‖ port)*`, numbers as varints. */
function encodeAddresses(addresses: readonly InviteAddress[]): Uint8Array<ArrayBuffer> {
  parseWhole(addresses.length, 'the number of addresses', 1, INVITE_ADDRESSES_MAX);
  const wire = new WireWriter().varint(addresses.length);
  for (const { transportKey, host, port } of addresses) {
    parseBase64(transportKey, KEY_BYTES, 'a transport key');
    if (!HOST.test(host))
      throw new WaggleError('DECODE_FAILED', `Expected an IPv4 address, received ${JSON.stringify(host.slice(0, 60))}`);
    parseWhole(port, 'a port', 1, 65_535);
    wire
      .raw(base64.decode(transportKey))
      .raw(Uint8Array.from(host.split('.'), Number))
      .varint(port);
  }
  return wire.finish();
}

function readAddresses(wire: WireReader): InviteAddress[] {
  const count = parseWhole(wire.varint(), 'the number of addresses', 1, INVITE_ADDRESSES_MAX);
  return Array.from({ length: count }, () => ({
    transportKey: base64.encode(wire.raw(KEY_BYTES)),
    host: wire.raw(4).join('.'),
    port: parseWhole(wire.varint(), 'a port', 1, 65_535),
  }));
}

const checksum = (body: Uint8Array, crypto: Crypto): Uint8Array =>
  crypto.sha256(utf8(INVITE_PREFIX), body).subarray(0, CHECKSUM_BYTES);

export interface InviteOptions {
  readonly cluster: Cluster;
  readonly operator: Signer;
  /** 1 to `INVITE_ADDRESSES_MAX`. */
  readonly addresses: readonly InviteAddress[];
  /** 1 unless said. */
  readonly uses?: number;
  /** `INVITE_MS` unless said. */
  readonly expiresInMs?: number;
  readonly nowMs: number;
  readonly crypto: Crypto;
  readonly random: Random;
  readonly signerFromSeed: SignerFromSeed;
}

/** An invite that was made, to be given to whoever starts the new nodes. */
export interface CreatedInvite {
  /** `wgi_` and base64url: one line, safe in URLs and shells, `INVITE_LENGTH_MAX` characters at most. A secret. */
  readonly invite: string;
  readonly id: Digest;
  readonly expiresMs: number;
  readonly uses: number;
}

/**
 * Makes an invite: `wgi_ ‖ base64url(format ‖ cluster[32] ‖ seed[32] ‖ expiresMs ‖ uses ‖ addresses ‖ signature[64] ‖ checksum[4])`,
 * numbers as varints, the checksum the beginning of SHA-256 over the prefix and the bytes before.
 * Throws `SIGNATURE_INVALID` unless `operator` is the cluster's, `DECODE_FAILED` for options out of range.
 */
export function createInvite(options: InviteOptions): CreatedInvite {
  const { cluster, operator, crypto, nowMs } = options;
  if (base64.encode(operator.publicKey) !== cluster.genesis.operatorKey)
    throw new WaggleError('SIGNATURE_INVALID', `Expected the operator key of cluster ${cluster.id}, received another`);
  const addresses = encodeAddresses(options.addresses);
  const seed = options.random.bytes(32);
  const forMs = parseWhole(options.expiresInMs ?? INVITE_MS, 'expiresInMs', INVITE_MS_MIN, INVITE_MS_MAX);
  const unsigned = {
    key: base64.encode(options.signerFromSeed(seed).publicKey),
    expiresMs: parseWhole(nowMs + forMs, 'expiresMs', 0, TIME_MS_MAX),
    uses: parseWhole(options.uses ?? 1, 'uses', 1, INVITE_USES_MAX),
    addresses: digestOf(crypto, addresses),
  };
  const signed = grantBytes(cluster.id, unsigned);
  const body = new WireWriter()
    .varint(FORMAT)
    .raw(hex.decode(cluster.id))
    .raw(seed)
    .varint(unsigned.expiresMs)
    .varint(unsigned.uses)
    .raw(addresses)
    .raw(operator.sign(signed))
    .finish();
  return {
    invite: INVITE_PREFIX + base64url.encode(concat(body, checksum(body, crypto))),
    id: digestOf(crypto, signed),
    expiresMs: unsigned.expiresMs,
    uses: unsigned.uses,
  };
}

/** The text is a secret: no error quotes it. */
const malformed = (why: string, cause?: unknown): WaggleError =>
  new WaggleError('DECODE_FAILED', `Expected a whole invite, starting with ${INVITE_PREFIX}: ${why}`, { cause });

/** The bytes of an invite's text, less the checksum. */
function inviteBody(text: string, crypto: Crypto): Uint8Array {
  if (!text.startsWith(INVITE_PREFIX)) throw malformed('this is none');
  if (text.length > INVITE_LENGTH_MAX) throw malformed(`it is longer than ${INVITE_LENGTH_MAX} characters`);
  let bytes: Uint8Array;
  try {
    bytes = base64url.decode(text.slice(INVITE_PREFIX.length));
  } catch {
    throw malformed('it has characters that no invite has, or was cut');
  }
  const body = bytes.subarray(0, -CHECKSUM_BYTES);
  if (!equalBytes(bytes.subarray(body.length), checksum(body, crypto))) throw malformed('it was changed or cut');
  return body;
}

/**
 * Reads an invite's text. Throws `DECODE_FAILED` unless it is one to the last character; `checkInvite` says whether it is good.
 */
export function parseInvite(text: string, crypto: Crypto, signerFromSeed: SignerFromSeed): Invite {
  const wire = new WireReader(inviteBody(text, crypto));
  if (wire.varint() !== FORMAT) throw malformed('it was made by a newer version');
  const cluster = hex.encode(wire.raw(32)) as ClusterId;
  const signer = signerFromSeed(wire.raw(32).slice());
  const expiresMs = wire.varint();
  const uses = wire.varint();
  const addresses = readAddresses(wire);
  const signature = base64.encode(wire.raw(SIGNATURE_BYTES));
  wire.end();
  const grant = parseGrant({
    key: base64.encode(signer.publicKey),
    expiresMs,
    uses,
    addresses: digestOf(crypto, encodeAddresses(addresses)),
    signature,
  });
  return { cluster, grant, addresses, signer };
}
