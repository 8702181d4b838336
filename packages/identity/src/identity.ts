import {
  base64,
  compareText,
  CUSTOMER_ID_PATTERN,
  WaggleError,
  type Crypto,
  type CustomerId,
  type HybridClock,
  type Json,
  type KeyId,
  type Random,
  type ReplicaId,
  type Run,
  type Signer,
} from '@waggle/protocol/base';
import { lwwKey, lwwValue } from '@waggle/protocol/lattice';
import type { Authentication } from './authentication.ts';
import { audited, auditEntry, write, type Action, type Context } from './changes.ts';
import { credentialHash, isOwnToken, makeCredential, ownTokenId, randomDigits, urlKeySeed } from './credentials.ts';
import { CUSTOMER_MAP, rfc3339, type Customer, type CustomerRecord } from './customers.ts';
import type { Account, Preset } from './documents.ts';
import { isName, type AuditEntry, type Write } from './facts.ts';
import { LIMIT_DEFAULTS, parseLimitsPatch, type LimitName, type Limits } from './limits.ts';
import { SCOPES, TOKEN_ROLES, type Principal, type Scope, type TokenRole } from './principals.ts';
import { Views, type FoldedRegister } from './views.ts';

/** What identity needs of the world. */
export interface IdentityDeps {
  readonly crypto: Crypto;
  readonly random: Random;
  /** The Ed25519 pair of a 32-byte seed (RFC 8032). */
  readonly signerFromSeed: (seed: Uint8Array) => Signer;
  /** The node's clock: read for every change, and merged with what is folded, unless that is ahead. */
  readonly clock: HybridClock;
  readonly replica: ReplicaId;
  /** Unique to this process start. */
  readonly run: Run;
  /** Limits of customers without limits of their own. */
  readonly limits?: Partial<Limits>;
}

/** What keys and tokens have in common as lists show them. */
interface CredentialView {
  readonly id: KeyId;
  /** RFC 3339, UTC. */
  readonly createdAt: string;
  readonly revoked: boolean;
}
/** An API key as lists show it. */
export type KeyView = CredentialView & { readonly scopes: readonly Scope[] };
/** A token as lists show it. */
export type TokenView = CredentialView & { readonly role: TokenRole; readonly name: string };

/** Keys of one customer that are in force. Revoked ones stay, as all facts do. */
const KEYS_PER_CUSTOMER_MAX = 1_000;
/** Tokens of a cluster that are in force. */
const TOKENS_MAX = 10_000;
/** Entries of a page of customers or of the audit log. */
export const PAGE_MAX = 1_000;
const CUSTOMER_ID = new RegExp(CUSTOMER_ID_PATTERN);

const invalid = (expected: string, received: unknown): never => {
  throw new WaggleError('REQUEST_INVALID', `Expected ${expected}, received ${JSON.stringify(received)?.slice(0, 80)}`);
};

/**
 * Customers, keys, tokens and accounts: one view of the control registers of all replicas, and the changes to it.
 *
 * A change is asked for by a command, which alters nothing: it returns the registers to be written, the audit entry among
 * them, or none if things are so already. The driver makes them durable in one transaction and folds them, or drops them
 * all if that fails, *before it runs the next command*: commands decide by what is folded.
 */
export class Identity {
  readonly #deps: IdentityDeps;
  readonly #views: Views;

  constructor(deps: IdentityDeps) {
    this.#deps = deps;
    this.#views = new Views({ ...deps, limits: { ...LIMIT_DEFAULTS, ...deps.limits } });
  }

  /**
   * Takes in a control register, a node's own or another's; those of other kinds are ignored. Any order and repetition gives
   * the same views. Never throws for what a register holds: a malformed one is left out and counted by `refused`.
   */
  fold(replica: ReplicaId, register: FoldedRegister, nowMs: number): void {
    this.#views.fold(replica, register, nowMs);
  }

  /** Folds fields that were ahead of the local clock and no longer are. To be called now and then, as every second. */
  tick(nowMs: number): void {
    this.#views.tick(nowMs);
  }

  /** Registers and changes of documents that were left out because they are malformed. For a metric. */
  get refused(): number {
    return this.#views.refused;
  }

  /** Fields that wait for the local clock to reach them. For a metric. */
  get quarantined(): number {
    return this.#views.customers.quarantined;
  }

  // Who is asking

  /** Who presents this credential. In memory; errors as at `Authentication.authenticate`. */
  authenticate(text: string | undefined): Principal {
    return this.#views.authentication.authenticate(text);
  }

  /** The principal and public key behind URLs signed under a key id; errors as at `Authentication.urlKey`. */
  urlKey(keyId: string): ReturnType<Authentication['urlKey']> {
    return this.#views.authentication.urlKey(keyId);
  }

  // Customers

  /** Customers, deleted ones included. */
  get customers(): number {
    return this.#views.customers.size;
  }

  /** Throws `CUSTOMER_UNKNOWN`. */
  getCustomer(id: string): Customer {
    return this.#views.customers.view(id);
  }

  /** The limits in force for a customer. Throws `CUSTOMER_UNKNOWN`. */
  limits(id: CustomerId): Limits {
    return this.#views.customers.limits(id);
  }

  /** Up to `limit` (1 to `PAGE_MAX`) customers with ids above `after`, by id. Throws `REQUEST_INVALID`. */
  listCustomers(page: { readonly after?: string | undefined; readonly limit: number }): Customer[] {
    return this.#views.customers.list(page.after, pageLimit(page.limit));
  }

  /**
   * A new customer, under a made id if none is given. With the id of a customer that has the same name, and the same values
   * of the limits that are given: no writes. Throws `REQUEST_INVALID`, `CUSTOMER_EXISTS`, `CUSTOMER_DELETED`.
   */
  createCustomer(
    context: Context,
    input: {
      readonly id?: string | undefined;
      readonly name: string;
      readonly limits?: Readonly<Record<string, unknown>> | undefined;
    },
  ): { readonly id: CustomerId; readonly writes: Write[] } {
    const { name } = input;
    const id = (input.id ?? `cus_${randomDigits(this.#deps.random, 16)}`) as CustomerId;
    if (!CUSTOMER_ID.test(id))
      invalid('1 to 64 letters, digits, ".", "_" or "-", the first a letter or digit, for a customer id', id);
    if (!isName(name)) invalid('1 to 128 characters, none of them a control character, for a name', name);
    const given = Object.entries(parseLimitsPatch(input.limits ?? {})) as [LimitName, number | null][];
    if (this.#views.customers.find(id) !== undefined) {
      this.#inForce(id);
      const same =
        this.getCustomer(id).name === name &&
        given.every(([limit, value]) => this.#views.customers.ownLimit(id, limit) === value);
      if (!same)
        throw new WaggleError(
          'CUSTOMER_EXISTS',
          `Expected the name and limits that customer ${id} has, received others`,
        );
      return { id, writes: [] };
    }
    const limits = Object.fromEntries(given.filter(([, value]) => value !== null)) as Record<string, number>;
    const { actor, nowMs } = context;
    const fact = { id, name, limits, createdMs: nowMs, actor: { ...actor } };
    return {
      id,
      writes: this.#audited(context, 'customer.create', id, { name, limits }, [write(`fact/customer/${id}`, fact)]),
    };
  }

  /** Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`, `REQUEST_INVALID`. */
  rename(context: Context, id: string, name: string): Write[] {
    const { id: customer } = this.#inForce(id);
    if (!isName(name)) invalid('1 to 128 characters, none of them a control character, for a name', name);
    if (this.getCustomer(id).name === name) return [];
    return this.#setFields(context, 'customer.rename', customer, [['name', name]]);
  }

  /**
   * Sets limits, field by field: a number is the customer's own limit, `null` the node's default again.
   * Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`, `REQUEST_INVALID`.
   */
  setLimits(context: Context, id: string, patch: Readonly<Record<string, unknown>>): Write[] {
    const { id: customer } = this.#inForce(id);
    const changed = (Object.entries(parseLimitsPatch(patch)) as [LimitName, number | null][]).filter(
      ([limit, value]) => this.#views.customers.ownLimit(customer, limit) !== value,
    );
    const fields = changed.map(([limit, value]): [string, Json] => [`limit.${limit}`, value]);
    return this.#setFields(context, 'customer.limits', customer, fields);
  }

  /** From now on its keys are refused, until `resume`. Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`. */
  suspend(context: Context, id: string): Write[] {
    const { id: customer, generation, status } = this.#inForce(id);
    if (status === 'suspended') return [];
    return this.#audited(context, 'customer.suspend', customer, null, [
      write(`status/${customer}`, { generation, status: 'suspended' }),
    ]);
  }

  /** Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`. */
  resume(context: Context, id: string): Write[] {
    const { id: customer, generation, status } = this.#inForce(id);
    if (status === 'active') return [];
    const register = { generation: generation + 1, status: 'active' };
    return this.#audited(context, 'customer.resume', customer, null, [write(`status/${customer}`, register)]);
  }

  /** For ever: its keys are refused and its id is never used again. Throws `CUSTOMER_UNKNOWN`. */
  deleteCustomer(context: Context, id: string): Write[] {
    const { id: customer, deleted } = this.#views.customers.created(id);
    if (deleted) return [];
    return this.#audited(context, 'customer.delete', customer, null, [
      write(`fact/customer-deleted/${customer}`, { atMs: context.nowMs }),
    ]);
  }

  // Keys

  /** By creation. Throws `CUSTOMER_UNKNOWN`. */
  listKeys(customer: string): KeyView[] {
    const { keys } = this.#views.authentication;
    const found = keys.of(this.#views.customers.created(customer));
    return inOrder(found.map(([id, row]) => ({ id, createdMs: keys.createdMs(row), scopes: keys.scopes(row) }))).map(
      ({ createdMs, ...key }) => ({
        ...key,
        createdAt: rfc3339(createdMs),
        revoked: this.#views.authentication.isRevoked('key', key.id),
      }),
    );
  }

  /**
   * A new API key; its text is in the result and nowhere else. Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`,
   * `REQUEST_INVALID` for scopes that are none or not known, and beyond 1 000 keys of a customer.
   */
  issueKey(
    context: Context,
    customer: string,
    scopes: readonly string[] = SCOPES,
  ): {
    readonly id: KeyId;
    readonly key: string;
    readonly scopes: readonly Scope[];
    readonly createdAt: string;
    readonly writes: Write[];
  } {
    const { crypto, random, signerFromSeed } = this.#deps;
    const record = this.#inForce(customer);
    const known = SCOPES.filter((scope) => scopes.includes(scope));
    if (known.length === 0 || known.length !== new Set(scopes).size)
      invalid(`one or more of ${SCOPES.join(', ')} for scopes`, scopes);
    const inForce = this.listKeys(customer).filter(({ revoked }) => !revoked);
    if (inForce.length >= KEYS_PER_CUSTOMER_MAX)
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected at most ${KEYS_PER_CUSTOMER_MAX} keys of a customer in force, received one more`,
      );
    const { id, text } = makeCredential('wgl', random);
    const fact = {
      customer: record.id,
      hash: base64.encode(credentialHash(crypto, text)),
      urlKey: base64.encode(signerFromSeed(urlKeySeed(crypto, text)).publicKey),
      scopes: known,
      createdMs: context.nowMs,
    };
    const writes = this.#audited(context, 'key.issue', id, { customer: record.id, scopes: known }, [
      write(`fact/key/${id}`, fact),
    ]);
    return { id, key: text, scopes: known, createdAt: rfc3339(context.nowMs), writes };
  }

  /** Throws `CUSTOMER_UNKNOWN`, and `NOT_FOUND` for a key that the customer does not have. */
  revokeKey(context: Context, customer: string, keyId: string): Write[] {
    const record = this.#views.customers.created(customer);
    const id = keyId as KeyId;
    const { keys } = this.#views.authentication;
    const row = keys.find(id);
    if (row === undefined || keys.customer(row) !== record)
      throw new WaggleError(
        'NOT_FOUND',
        `Expected a key of customer ${record.id}, received ${JSON.stringify(keyId.slice(0, 80))}`,
      );
    if (this.#views.authentication.isRevoked('key', id)) return [];
    return this.#audited(context, 'key.revoke', id, { customer: record.id }, [
      write(`fact/key-revoked/${id}`, { atMs: context.nowMs }),
    ]);
  }

  // Tokens

  /** By creation. */
  listTokens(): TokenView[] {
    const tokens = [...this.#views.authentication.tokens].map(([id, { role, name, createdMs }]) => ({
      id,
      role,
      name,
      createdMs,
    }));
    return inOrder(tokens).map(({ createdMs, ...token }) => ({
      ...token,
      createdAt: rfc3339(createdMs),
      revoked: this.#views.authentication.isRevoked('token', token.id),
    }));
  }

  /**
   * A new token; its text is in the result and nowhere else. With `text` it is one that the operator brought (`isOwnToken`); if
   * it is known in that role: no writes. Throws `REQUEST_INVALID`, and `KEY_REVOKED` for a text that was revoked.
   */
  createToken(
    context: Context,
    input: { readonly role: string; readonly name: string; readonly text?: string | undefined },
  ): { readonly id: KeyId; readonly token: string; readonly createdAt: string; readonly writes: Write[] } {
    const { crypto, random } = this.#deps;
    const { name } = input;
    const role =
      TOKEN_ROLES.find((known) => known === input.role) ??
      invalid(`one of ${TOKEN_ROLES.join(', ')} for a role`, input.role);
    if (!isName(name)) invalid('1 to 128 characters, none of them a control character, for a name', name);
    if (input.text !== undefined && !isOwnToken(input.text))
      throw new WaggleError(
        'REQUEST_INVALID',
        'Expected 16 to 256 printable ASCII characters, no spaces, for a token, received another text',
      );
    const { id: madeId, text } =
      input.text === undefined ? makeCredential('wgt', random) : { id: undefined, text: input.text };
    const hash = credentialHash(crypto, text);
    const id = madeId ?? ownTokenId(hash);
    if (this.#views.authentication.isRevoked('token', id))
      throw new WaggleError('KEY_REVOKED', `Expected a new token, received the revoked one ${id}`);
    const known = this.#views.authentication.token(id);
    if (known !== undefined) {
      if (known.role !== role) invalid(`the role ${known.role} that token ${id} has`, role);
      return { id, token: text, createdAt: rfc3339(known.createdMs), writes: [] };
    }
    if (this.listTokens().filter(({ revoked }) => !revoked).length >= TOKENS_MAX)
      throw new WaggleError('REQUEST_INVALID', `Expected at most ${TOKENS_MAX} tokens in force, received one more`);
    const fact = { role, name, hash: base64.encode(hash), createdMs: context.nowMs };
    const writes = this.#audited(context, 'token.create', id, { role, name }, [write(`fact/token/${id}`, fact)]);
    return { id, token: text, createdAt: rfc3339(context.nowMs), writes };
  }

  /** Throws `NOT_FOUND`, and `REQUEST_INVALID` for the last operator token that is left. */
  revokeToken(context: Context, tokenId: string): Write[] {
    const id = tokenId as KeyId;
    const token = this.#views.authentication.token(id);
    if (token === undefined)
      throw new WaggleError(
        'NOT_FOUND',
        `Expected the id of a token, received ${JSON.stringify(tokenId.slice(0, 80))}`,
      );
    if (this.#views.authentication.isRevoked('token', id)) return [];
    if (
      token.role === 'operator' &&
      this.listTokens().filter(({ role, revoked }) => role === 'operator' && !revoked).length === 1
    )
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected another operator token to be left, received the last one, ${id}`,
      );
    return this.#audited(context, 'token.revoke', id, null, [
      write(`fact/token-revoked/${id}`, { atMs: context.nowMs }),
    ]);
  }

  // Accounts

  /** Profile and presets of a customer. Throws `CUSTOMER_UNKNOWN`. */
  getAccount(customer: string): Account {
    return this.#views.documents.account(this.#views.customers.created(customer).id);
  }

  /** For requests with `preset=<name>`: its parameters, or undefined. */
  preset(customer: CustomerId, name: string): Preset | undefined {
    return this.#views.documents.preset(customer, name);
  }

  /** Sets a preset as a whole. Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`, `REQUEST_INVALID`. */
  putPreset(context: Context, customer: string, name: string, preset: Preset): Write[] {
    const { id } = this.#inForce(customer);
    return this.#audited(
      context,
      'preset.put',
      id,
      { name, preset },
      this.#views.documents.putPreset(id, name, preset),
    );
  }

  /** Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`; a preset that is not there is no error. */
  deletePreset(context: Context, customer: string, name: string): Write[] {
    const { id } = this.#inForce(customer);
    return this.#audited(context, 'preset.delete', id, { name }, this.#views.documents.deletePreset(id, name));
  }

  /** Sets fields of the profile; `null` removes one. Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`, `REQUEST_INVALID`. */
  patchProfile(context: Context, customer: string, patch: Readonly<Record<string, string | null>>): Write[] {
    const { id } = this.#inForce(customer);
    return this.#audited(
      context,
      'profile.patch',
      id,
      { fields: Object.keys(patch) },
      this.#views.documents.patchProfile(id, patch),
    );
  }

  // Audit

  /** The audit entry of a change that is not identity's own, to be written with it. */
  auditEntry(context: Context, change: Action): Write {
    return auditEntry(this.#deps, context, change);
  }

  /** Up to `limit` (1 to `PAGE_MAX`) entries older than the entry `after`, newest first. Throws `REQUEST_INVALID`. */
  audit(page: { readonly after?: string | undefined; readonly limit: number }): AuditEntry[] {
    return this.#views.audit.list(page.after, pageLimit(page.limit));
  }

  /** A customer that can be changed. Throws `CUSTOMER_UNKNOWN`, `CUSTOMER_DELETED`. */
  #inForce(id: string): CustomerRecord {
    const record = this.#views.customers.created(id);
    if (record.deleted)
      throw new WaggleError('CUSTOMER_DELETED', `Expected a customer that is not deleted, received ${record.id}`);
    return record;
  }

  #setFields(context: Context, action: string, id: CustomerId, fields: readonly (readonly [string, Json])[]): Write[] {
    if (fields.length === 0) return [];
    const hlc = this.#deps.clock.now(context.nowMs);
    const writes = fields.map(([field, value]) => ({
      key: lwwKey(CUSTOMER_MAP, `${id}/${field}`),
      value: lwwValue(hlc, value),
    }));
    return this.#audited(context, action, id, Object.fromEntries(fields), writes);
  }

  #audited(context: Context, action: string, target: string, details: Json, writes: readonly Write[]): Write[] {
    return audited(this.#deps, context, { action, target, details }, writes);
  }
}

function pageLimit(limit: number): number {
  if (!Number.isInteger(limit) || limit < 1 || limit > PAGE_MAX)
    invalid(`a whole number from 1 to ${PAGE_MAX} for a limit`, limit);
  return limit;
}

const inOrder = <T extends { readonly id: KeyId; readonly createdMs: number }>(list: readonly T[]): T[] =>
  [...list].sort((a, b) => a.createdMs - b.createdMs || compareText(a.id, b.id));
