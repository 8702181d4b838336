import * as Automerge from '@automerge/automerge';
import {
  assert,
  base64,
  compareText,
  hex,
  present,
  utf8,
  WaggleError,
  type CustomerId,
  type ReplicaId,
  type Run,
} from '@waggle/protocol/base';
import { parseValue, type Write } from './facts.ts';

/** What people edit of a customer: texts by name. Names match `ENTRY_NAME_PATTERN`. */
export interface Account {
  readonly profile: Readonly<Record<string, string>>;
  readonly presets: Readonly<Record<string, Preset>>;
}
/** Parameters of a resize request, as texts. */
export type Preset = Readonly<Record<string, string>>;

/** Form of the names of presets, their parameters and profile fields: 1 to 64 characters. */
export const ENTRY_NAME_PATTERN = '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$';
const NAME = new RegExp(ENTRY_NAME_PATTERN);

/** Presets of a customer, for a node that adds one: two that do so concurrently can go beyond. */
export const PRESETS_MAX = 100;
/** Parameters of a preset, and fields of a profile. */
const ENTRIES_MAX = 100;
/** Names and values of a preset's parameters together, in bytes of UTF-8. */
export const PRESET_BYTES_MAX = 2 * 1024;
/** Names and values of the profile's fields together, in bytes of UTF-8. */
export const PROFILE_BYTES_MAX = 16 * 1024;
/** Changes of one customer's document. Opening one takes up to 80 µs a change (measured with 100 presets), on the main thread. */
export const CHANGES_MAX = 2_000;
/** One change in base64, in characters: a whole profile with its names twice over, well within one message of 64 KiB. */
const CHANGE_LENGTH_MAX = 48 * 1024;
/** Projections kept, the least recently used first out. */
const OPEN_ACCOUNTS_MAX = 1_024;

/** The only generation so far: a compacted history will be the next one. */
const GENERATION = 0;

/**
 * The first change of every document: `profile` and `presets` as empty maps, by actor 0, at no time. It is a constant
 * and no register holds it. Without it two nodes that start a document would each make maps of their own, and
 * one node's would hide the other's.
 */
export const GENESIS_CHANGE = hex.decode(
  '856f4a83a2c7f234013a00100000000000000000000000000000000001010000000515' +
    '1134014202560270027e0770726f66696c65077072657365747302020002000200',
);

type Doc = { profile: Record<string, unknown>; presets: Record<string, Record<string, unknown>> };

/** Registers of one document by `<replica>/<generation>/<seq>`: the values as the lattice holds them. */
type Changes = Map<string, string>;

const EMPTY: Account = { profile: {}, presets: {} };

/**
 * The customers' documents (Automerge): one per customer, loaded only while it is read or changed. What is kept is the
 * changes, as the register values that the lattice holds anyhow, and the projections of the accounts used last.
 */
export class Documents {
  readonly #replica: ReplicaId;
  readonly #actor: string;
  readonly #changes = new Map<CustomerId, Changes>();
  readonly #accounts = new Map<CustomerId, Account>();
  #refused = 0;

  /** `run` is unique to this process, so no two processes ever count changes under one actor. */
  constructor(replica: ReplicaId, run: Run) {
    this.#replica = replica;
    this.#actor = replica + run.toString(16).padStart(14, '0');
  }

  /** Changes that were left out because they cannot be read or are not their writer's own. */
  get refused(): number {
    return this.#refused;
  }

  /** A register of a document. Throws `DECODE_FAILED`. Whether the change itself is sound shows when it is loaded. */
  fold(replica: ReplicaId, customer: CustomerId, generation: string, seq: string, value: string): void {
    if (!/^(0|[1-9][0-9]{0,8})$/.test(generation) || !/^[1-9][0-9]{0,8}$/.test(seq))
      throw new WaggleError(
        'DECODE_FAILED',
        `Expected a generation and a number, received ${generation.slice(0, 20)}/${seq.slice(0, 20)}`,
      );
    if (value.length > CHANGE_LENGTH_MAX || !/^"[A-Za-z0-9+/]+={0,2}"$/.test(value))
      throw new WaggleError(
        'DECODE_FAILED',
        `Expected a change in base64, at most ${CHANGE_LENGTH_MAX} characters, received ${value.length}`,
      );
    let changes = this.#changes.get(customer);
    if (changes === undefined) this.#changes.set(customer, (changes = new Map()));
    changes.set(`${replica}/${generation}/${seq}`, value);
    this.#accounts.delete(customer);
  }

  /** The account as it stands here. Empty for a customer without a document. */
  account(customer: CustomerId): Account {
    const changes = this.#changes.get(customer);
    if (changes === undefined) return EMPTY;
    let account = this.#accounts.get(customer);
    this.#accounts.delete(customer);
    if (account === undefined) {
      const doc = this.#load(changes);
      account = project(doc);
      Automerge.free(doc);
    }
    this.#accounts.set(customer, account);
    if (this.#accounts.size > OPEN_ACCOUNTS_MAX) this.#accounts.delete(this.#accounts.keys().next().value!);
    return account;
  }

  /** The preset, or undefined. */
  preset(customer: CustomerId, name: string): Preset | undefined {
    const { presets } = this.account(customer);
    return Object.hasOwn(presets, name) ? presets[name] : undefined;
  }

  /** Sets a preset, as a whole: of two concurrent ones under a name one stands. Throws `REQUEST_INVALID`. */
  putPreset(customer: CustomerId, name: string, preset: Preset): Write[] {
    checkName('a preset', name);
    checkTexts(`preset ${name}`, preset, PRESET_BYTES_MAX);
    const { presets } = this.account(customer);
    if (!Object.hasOwn(presets, name) && Object.keys(presets).length >= PRESETS_MAX)
      throw new WaggleError('REQUEST_INVALID', `Expected at most ${PRESETS_MAX} presets, received one more`);
    if (Object.hasOwn(presets, name) && sameTexts(presets[name]!, preset)) return [];
    return this.#change(customer, (doc) => {
      doc.presets[name] = Object.fromEntries(
        Object.entries(preset).map(([key, text]) => [key, new Automerge.ImmutableString(text)]),
      );
    });
  }

  /** Removes a preset, if there is one. */
  deletePreset(customer: CustomerId, name: string): Write[] {
    if (this.preset(customer, name) === undefined) return [];
    return this.#change(customer, (doc) => {
      delete doc.presets[name];
    });
  }

  /** Sets fields of the profile, field by field; `null` removes one. Throws `REQUEST_INVALID`. */
  patchProfile(customer: CustomerId, patch: Readonly<Record<string, string | null>>): Write[] {
    const { profile } = this.account(customer);
    const changed = Object.entries(patch).filter(
      ([name, text]) => text !== (Object.hasOwn(profile, name) ? profile[name] : null),
    );
    const next = Object.entries({ ...profile, ...patch }).filter(([, text]) => text !== null);
    checkTexts('the profile', Object.fromEntries(next) as Record<string, string>, PROFILE_BYTES_MAX);
    if (changed.length === 0) return [];
    return this.#change(customer, (doc) => {
      for (const [name, text] of changed)
        if (text === null) delete doc.profile[name];
        else doc.profile[name] = new Automerge.ImmutableString(text);
    });
  }

  /**
   * The register of one change. The document is loaded anew and dropped, so a change whose write fails has
   * not happened. It must be folded, or have failed, before the next change of this customer is asked for.
   */
  #change(customer: CustomerId, edit: (doc: Doc) => void): Write[] {
    const changes = this.#changes.get(customer) ?? new Map<string, string>();
    if (changes.size >= CHANGES_MAX)
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected at most ${CHANGES_MAX} changes of one account, received one more`,
      );
    const own = `${this.#replica}/${GENERATION}/`;
    let seq = 1;
    for (const key of changes.keys()) if (key.startsWith(own)) seq = Math.max(seq, Number(key.slice(own.length)) + 1);
    // `time` given, or Automerge takes the clock's.
    const doc = Automerge.change(this.#load(changes), { time: 0 }, edit);
    const change = Automerge.getLastLocalChange(doc);
    Automerge.free(doc);
    const value = JSON.stringify(base64.encode(present(change, 'the change of an edit')));
    assert(value.length <= CHANGE_LENGTH_MAX, `a change within its bound, not of ${value.length} characters`);
    return [{ key: `doc/${customer}/${GENERATION}/${seq}`, value }];
  }

  /** The document of all changes that can be read: the same one whatever their order, as they are sorted first. */
  #load(changes: Changes): Automerge.Doc<Doc> {
    const sorted = [...changes]
      .sort(([a], [b]) => compareText(a, b))
      .flatMap(([key, value]) => this.#decode(key, value));
    try {
      return Automerge.applyChanges(this.#init(), [GENESIS_CHANGE, ...sorted])[0];
    } catch {
      // One that cannot be applied must not take the others with it.
    }
    let [doc] = Automerge.applyChanges(this.#init(), [GENESIS_CHANGE]);
    for (const change of sorted) {
      try {
        [doc] = Automerge.applyChanges(doc, [change]);
      } catch {
        this.#refused++;
      }
    }
    return doc;
  }

  #init(): Automerge.Doc<Doc> {
    return Automerge.init<Doc>({ actor: this.#actor });
  }

  /** The change of a register as a list of one, or of none if it is malformed or not by an actor of the register's writer. */
  #decode(key: string, value: string): Uint8Array[] {
    try {
      const change = base64.decode(parseValue(value) as string);
      if (Automerge.decodeChange(change).actor.startsWith(key.slice(0, key.indexOf('/')))) return [change];
    } catch {
      // Counted with the others.
    }
    this.#refused++;
    return [];
  }
}

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The entries of an Automerge map that are texts, sorted by name; anything else in it is of a later version. */
function texts(map: unknown): Record<string, string> {
  const entries: [string, string][] = [];
  for (const [name, value] of isMap(map) ? Object.entries(map) : [])
    if (value instanceof Automerge.ImmutableString) entries.push([name, value.val]);
  return Object.fromEntries(entries.sort(([a], [b]) => compareText(a, b)));
}

function project(doc: Automerge.Doc<Doc>): Account {
  const presets = isMap(doc.presets) ? Object.entries(doc.presets).filter(([, preset]) => isMap(preset)) : [];
  presets.sort(([a], [b]) => compareText(a, b));
  return {
    profile: texts(doc.profile),
    presets: Object.fromEntries(presets.map(([name, preset]) => [name, texts(preset)])),
  };
}

const sameTexts = (a: Readonly<Record<string, string>>, b: Readonly<Record<string, string>>): boolean =>
  Object.keys(a).length === Object.keys(b).length &&
  Object.entries(a).every(([name, text]) => Object.hasOwn(b, name) && b[name] === text);

function checkName(what: string, name: string): void {
  if (!NAME.test(name))
    throw new WaggleError(
      'REQUEST_INVALID',
      `Expected 1 to 64 letters, digits, ".", "_" or "-" for the name of ${what}, received ${JSON.stringify(name.slice(0, 80))}`,
    );
}

/** Names of the right form, well-formed texts, not too many, and together at most `bytesMax`. */
function checkTexts(what: string, entries: Readonly<Record<string, string>>, bytesMax: number): void {
  let bytes = 0;
  for (const [name, text] of Object.entries(entries)) {
    checkName(`an entry of ${what}`, name);
    if (typeof text !== 'string' || /\p{Cs}/u.test(text))
      throw new WaggleError(
        'REQUEST_INVALID',
        `Expected a text for ${name} in ${what}, received ${JSON.stringify(text)?.slice(0, 80)}`,
      );
    bytes += utf8(name).length + utf8(text).length;
  }
  const count = Object.keys(entries).length;
  if (count > ENTRIES_MAX)
    throw new WaggleError('REQUEST_INVALID', `Expected at most ${ENTRIES_MAX} entries of ${what}, received ${count}`);
  if (bytes > bytesMax)
    throw new WaggleError('REQUEST_INVALID', `Expected at most ${bytesMax} bytes for ${what}, received ${bytes}`);
}
