import { timingSafeEqual } from 'node:crypto';
import { WaggleError, type Crypto, type KeyId, type ReplicaId } from '@waggle/protocol/base';
import { credentialHash, CREDENTIAL_LENGTH_MAX, ownTokenId, parseCredential } from './credentials.ts';
import { isLower, type TokenFact } from './facts.ts';
import { KeyIndex, type KeyRow } from './key-index.ts';
import type { Principal } from './principals.ts';

/** Compared with when an id is not known, so that known and unknown ids take the same path. No text hashes to it. */
const NO_HASH = new Uint8Array(32);

type TokenRecord = TokenFact & { readonly replica: ReplicaId };

/**
 * Who may do what, in memory: keys, tokens and their revocations. A revocation that is present refuses, whether it came
 * before or after what it revokes, and nothing takes it back (invariant 10).
 */
export class Authentication {
  readonly keys = new KeyIndex();
  readonly #crypto: Crypto;
  readonly #tokens = new Map<KeyId, TokenRecord>();
  readonly #revoked = { key: new Set<KeyId>(), token: new Set<KeyId>() };

  constructor(crypto: Crypto) {
    this.#crypto = crypto;
  }

  foldToken(replica: ReplicaId, id: KeyId, fact: TokenFact): void {
    const known = this.#tokens.get(id);
    if (known !== undefined && !isLower(fact.createdMs, replica, known.createdMs, known.replica)) return;
    this.#tokens.set(id, { ...fact, replica });
  }

  foldRevocation(kind: 'key' | 'token', id: KeyId): void {
    this.#revoked[kind].add(id);
  }

  isRevoked(kind: 'key' | 'token', id: KeyId): boolean {
    return this.#revoked[kind].has(id);
  }

  /** The token of an id, revoked or not. */
  token(id: KeyId): TokenFact | undefined {
    return this.#tokens.get(id);
  }

  /** All tokens, revoked ones included, in no particular order. */
  get tokens(): Iterable<readonly [KeyId, TokenFact]> {
    return this.#tokens;
  }

  /**
   * Who presents this credential: one SHA-256, one look-up, one comparison in constant time. Throws `KEY_MISSING`,
   * `KEY_MALFORMED`, `KEY_UNKNOWN` (a wrong secret under a known id is the same as an unknown id), `KEY_REVOKED`,
   * `CUSTOMER_DELETED`, `CUSTOMER_SUSPENDED`.
   */
  authenticate(text: string | undefined): Principal {
    if (text === undefined || text === '')
      throw new WaggleError('KEY_MISSING', 'Expected an API key or token in the authorization header, received none');
    // A hash that is known vouches for form and checksum: they are looked at only to say what is wrong.
    if (text.startsWith('wgl_') && text.length <= CREDENTIAL_LENGTH_MAX) {
      const id = text.slice(4, 16) as KeyId;
      const row = this.keys.find(id);
      const same = timingSafeEqual(
        credentialHash(this.#crypto, text),
        row === undefined ? NO_HASH : this.keys.hash(row),
      );
      if (same && row !== undefined) return this.#admit(id, row);
      parseCredential(text);
      throw unknown('key');
    }
    const { id: ownId } = parseCredential(text);
    const hash = credentialHash(this.#crypto, text);
    const id = ownId ?? ownTokenId(hash);
    const token = this.#tokens.get(id);
    if (!timingSafeEqual(hash, token?.hash ?? NO_HASH) || token === undefined) throw unknown('token');
    if (this.#revoked.token.has(id)) throw revoked('token', id);
    return { kind: 'token', id, role: token.role, name: token.name };
  }

  /**
   * The principal and public key (32 bytes, Ed25519) behind URLs signed under a key id. Says nothing of who sent the URL:
   * the caller verifies the signature. Throws as `authenticate` does.
   */
  urlKey(id: string): { readonly principal: Principal & { kind: 'customer' }; readonly publicKey: Uint8Array } {
    const row = this.keys.find(id as KeyId);
    if (row === undefined) throw unknown('key');
    return { principal: this.#admit(id as KeyId, row), publicKey: this.keys.urlKey(row) };
  }

  #admit(id: KeyId, row: KeyRow): Principal & { kind: 'customer' } {
    const customer = this.keys.customer(row);
    if (this.#revoked.key.has(id)) throw revoked('key', id);
    if (customer.deleted) throw new WaggleError('CUSTOMER_DELETED', `Customer ${customer.id} was deleted`);
    // A key can overtake the record of its customer on the way here by a fraction of a second.
    if (!customer.created) throw unknown('key');
    if (customer.status === 'suspended')
      throw new WaggleError('CUSTOMER_SUSPENDED', `Customer ${customer.id} is suspended`);
    return { kind: 'customer', customer: customer.id, keyId: id, scopes: this.keys.scopes(row) };
  }
}

const unknown = (kind: 'key' | 'token'): WaggleError =>
  new WaggleError(
    'KEY_UNKNOWN',
    `Expected ${kind === 'key' ? 'an API key' : 'a token'} known at this node, received another`,
  );

const revoked = (kind: 'key' | 'token', id: KeyId): WaggleError =>
  new WaggleError('KEY_REVOKED', `Expected a credential in force, received the revoked ${kind} ${id}`);
