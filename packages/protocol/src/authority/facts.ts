import {
  compareText,
  jcs,
  jcsBytes,
  parseClusterId,
  parseJcs,
  parseReplicaId,
  parseWhole,
  utf8,
  WaggleError,
  type ClusterId,
  type Json,
  type ReplicaId,
} from '../base/index.ts';
import { parseFields, TIME_MS_MAX, type RosterEntry } from '../sealing/index.ts';
import { assertAscending, parseLines } from '../usage/index.ts';
import { grantJson, parseGrant, type Grant } from './invite.ts';
import { KEY_BYTES, parseBase64, SIGNATURE_BYTES, signingBytes } from './proof.ts';

/** A replica may connect, and may vote once a seal has taken it up. Made by the joiner, out of an invite. */
export interface Admit extends RosterEntry {
  readonly kind: 'admit';
  readonly cluster: ClusterId;
  readonly grant: Grant;
  /** When it joined, in Unix ms by its own clock. */
  readonly joinedMs: number;
  /** Ed25519, base64, all over the same bytes: of the invite, that these keys may join; of each key, that it is held. */
  readonly signatures: {
    readonly invite: string;
    readonly transport: string;
    readonly log: string;
    readonly cosigner: string;
  };
}

/** A replica does not vote any more, ever. It may still connect, so that its late usage arrives. */
export interface Retire {
  readonly kind: 'retire';
  readonly cluster: ClusterId;
  readonly replica: ReplicaId;
  /** The replica's own, base64, if it retires itself; null if the operator does it. */
  readonly transportKey: string | null;
  readonly signature: string;
}

/** A replica neither votes nor connects, ever. Only the operator bans. */
export interface Ban {
  readonly kind: 'ban';
  readonly cluster: ClusterId;
  readonly replica: ReplicaId;
  readonly signature: string;
}

/** What is said for good about who belongs to the cluster. It proves itself: any replica may write it into its registers. */
export type RosterFact = Admit | Retire | Ban;

type Kind = RosterFact['kind'];
type Fields = { readonly [key: string]: Json };

/** Characters of a fact's text at most; the longest, an admit, has some 1 300. */
const FACT_LENGTH_MAX = 2_048;
const FORMAT = 1;
const PREFIX = 'roster/';

/** Whether a register is to hold a roster fact. */
export const isFactKey = (key: string): boolean => key.startsWith(PREFIX);

/** `roster/<replica>/<admit, retire or ban>`: the register's key of a fact. */
export const factKey = ({ kind, replica }: RosterFact): string => `${PREFIX}${replica}/${kind}`;

/** What is signed of each kind: the fact without its signatures. */
const statements = {
  admit: ({
    kind,
    cluster,
    replica,
    transportKey,
    logKey,
    cosignerKey,
    grant,
    joinedMs,
  }: Omit<Admit, 'signatures'>) => ({
    format: FORMAT,
    kind,
    cluster,
    replica,
    transportKey,
    logKey,
    cosignerKey,
    grant: grantJson(grant),
    joinedMs,
  }),
  retire: ({ kind, cluster, replica, transportKey }: Omit<Retire, 'signature'>) => ({
    format: FORMAT,
    kind,
    cluster,
    replica,
    transportKey,
  }),
  ban: ({ kind, cluster, replica }: Omit<Ban, 'signature'>) => ({ format: FORMAT, kind, cluster, replica }),
};

type Unsigned = Omit<Admit, 'signatures'> | Omit<Retire, 'signature'> | Omit<Ban, 'signature'>;

function statement(fact: Unsigned): Fields {
  if (fact.kind === 'admit') return statements.admit(fact);
  return fact.kind === 'retire' ? statements.retire(fact) : statements.ban(fact);
}

/** What the signatures of a fact are made over. */
export const factBytes = (fact: Unsigned): Uint8Array =>
  signingBytes(`waggle-${fact.kind}/v1`, fact.cluster, jcsBytes(statement(fact)));

/** The JCS text of a fact: the value of its register, and its line in a content. */
export const encodeFact = (fact: RosterFact): string =>
  jcs({
    ...statement(fact),
    ...(fact.kind === 'admit' ? { signatures: { ...fact.signatures } } : { signature: fact.signature }),
  });

const COMMON = ['format', 'kind', 'cluster', 'replica'];

const parsers = {
  admit(value: Json): Admit {
    const names = [...COMMON, 'transportKey', 'logKey', 'cosignerKey', 'grant', 'joinedMs', 'signatures'];
    const fact = parseFields(value, names, 'an admit fact');
    const signatures = parseFields(
      fact['signatures'],
      ['invite', 'transport', 'log', 'cosigner'],
      'the signatures of an admit fact',
    );
    return {
      kind: 'admit',
      ...parseCommon(fact),
      transportKey: parseBase64(fact['transportKey'], KEY_BYTES, 'a transport key'),
      logKey: parseBase64(fact['logKey'], KEY_BYTES, 'a log key'),
      cosignerKey: parseBase64(fact['cosignerKey'], KEY_BYTES, 'a cosigner key'),
      grant: parseGrant(fact['grant']),
      joinedMs: parseWhole(fact['joinedMs'], 'joinedMs', 0, TIME_MS_MAX),
      signatures: {
        invite: parseSignature(signatures['invite']),
        transport: parseSignature(signatures['transport']),
        log: parseSignature(signatures['log']),
        cosigner: parseSignature(signatures['cosigner']),
      },
    };
  },
  retire(value: Json): Retire {
    const fact = parseFields(value, [...COMMON, 'transportKey', 'signature'], 'a retire fact');
    const key = fact['transportKey'];
    return {
      kind: 'retire',
      ...parseCommon(fact),
      transportKey: key === null ? null : parseBase64(key, KEY_BYTES, 'a transport key'),
      signature: parseSignature(fact['signature']),
    };
  },
  ban(value: Json): Ban {
    const fact = parseFields(value, [...COMMON, 'signature'], 'a ban');
    return { kind: 'ban', ...parseCommon(fact), signature: parseSignature(fact['signature']) };
  },
} satisfies { readonly [K in Kind]: (value: Json) => Extract<RosterFact, { readonly kind: K }> };

function parseCommon(fact: Fields): { readonly cluster: ClusterId; readonly replica: ReplicaId } {
  parseWhole(fact['format'], 'the format of a roster fact', FORMAT, FORMAT);
  return { cluster: parseClusterId(fact['cluster']), replica: parseReplicaId(fact['replica']) };
}

const parseSignature = (value: Json | undefined): string => parseBase64(value, SIGNATURE_BYTES, 'a signature');

function parseFactJson(value: Json): RosterFact {
  const kind = (value as Fields | null)?.['kind'];
  if (typeof kind === 'string' && Object.hasOwn(parsers, kind)) return parsers[kind as Kind](value);
  throw new WaggleError(
    'DECODE_FAILED',
    `Expected admit, retire or ban, received ${JSON.stringify(kind)?.slice(0, 60)}`,
  );
}

/** The fact of a text of `encodeFact`. Throws `DECODE_FAILED`. Says nothing of its signatures: `verifyFact` does. */
export function parseFact(text: string): RosterFact {
  if (text.length > FACT_LENGTH_MAX)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected at most ${FACT_LENGTH_MAX} characters for a roster fact, received ${text.length}`,
    );
  return parseFactJson(parseJcs(utf8(text), 'a roster fact'));
}

/**
 * The content by which a close and a header name facts: their texts, one per line, in ascending order (bytewise), each once.
 * The same facts give the same bytes, in whatever order they come.
 */
export const encodeFacts = (facts: Iterable<RosterFact>): Uint8Array<ArrayBuffer> =>
  factLines(Array.from(facts, encodeFact));

/** The content of the texts of facts. */
export const factLines = (texts: Iterable<string>): Uint8Array<ArrayBuffer> =>
  utf8(
    [...new Set(texts)]
      .sort(compareText)
      .map((text) => `${text}\n`)
      .join(''),
  );

/** Throws `DECODE_FAILED` unless the bytes are those of `encodeFacts`. */
export function parseFacts(bytes: Uint8Array): RosterFact[] {
  const facts = parseLines(bytes, 'a roster fact', parseFactJson);
  assertAscending(facts.map(encodeFact), compareText, 'roster facts');
  return facts;
}
