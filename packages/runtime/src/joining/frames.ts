import { isIPv4 } from 'node:net';
import {
  base64,
  hex,
  parseWhole,
  WaggleError,
  WireReader,
  WireWriter,
  type ClusterId,
  type Epoch,
} from '@waggle/protocol/base';
import { FACTS_MAX, type InviteAddress } from '@waggle/protocol/authority';
import { GENESIS_BYTES_MAX } from '@waggle/protocol/sealing';

/** Bytes of a frame's part that may be long: a page, and what is said of it, fit into one message. */
export const PAGE_BYTES_MAX = 60 * 1024;
/** Members of whom a newcomer is told at most; the rest come with the node directory. */
export const TOLD_MAX = 1_000;
/** Bytes of a fact's text, and of a refusal's words. */
const FACT_BYTES_MAX = 2_048;
const CODE_BYTES_MAX = 64;
const REASON_BYTES_MAX = 1_024;
/** Sorts of facts, each bounded by `FACTS_MAX`; a line end each. */
const FACTS_BYTES_MAX = 3 * FACTS_MAX * (FACT_BYTES_MAX + 1);
const KEY_BYTES = 32;
const HOST_BYTES = 4;
const ADDRESSES_BYTES_MAX = 4 + TOLD_MAX * (KEY_BYTES + HOST_BYTES + 3);
/** Bytes of all that a newcomer is told. */
export const TOLD_BYTES_MAX = GENESIS_BYTES_MAX + FACTS_BYTES_MAX + ADDRESSES_BYTES_MAX + 24;

/** What goes over a link to a newcomer. It asks; it is refused, or told all in pages, of which it calls for the next. */
export type JoinFrame =
  /** The text of an admit fact. */
  | { readonly type: 'ask'; readonly fact: string }
  /** A code of the error table, and words for people. */
  | { readonly type: 'refused'; readonly code: string; readonly reason: string }
  /** The bytes from `offset` on, of `total`. */
  | { readonly type: 'page'; readonly total: number; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly type: 'next'; readonly offset: number };

const FORMAT = 1;
const TYPES = ['ask', 'refused', 'page', 'next'] as const satisfies readonly JoinFrame['type'][];

const writers = {
  ask: (wire, { fact }) => wire.text(fact),
  refused: (wire, { code, reason }) => wire.text(code).text(reason),
  page: (wire, { total, offset, bytes }) => wire.varint(total).varint(offset).bytes(bytes),
  next: (wire, { offset }) => wire.varint(offset),
} satisfies {
  readonly [T in JoinFrame['type']]: (wire: WireWriter, frame: Extract<JoinFrame, { type: T }>) => unknown;
};

const readers = {
  ask: (wire) => ({ type: 'ask', fact: wire.text(FACT_BYTES_MAX) }),
  refused: (wire) => ({ type: 'refused', code: wire.text(CODE_BYTES_MAX), reason: wire.text(REASON_BYTES_MAX) }),
  page: (wire) => ({
    type: 'page',
    total: wire.varint(TOLD_BYTES_MAX),
    offset: wire.varint(TOLD_BYTES_MAX),
    bytes: wire.bytes(PAGE_BYTES_MAX),
  }),
  next: (wire) => ({ type: 'next', offset: wire.varint(TOLD_BYTES_MAX) }),
} satisfies { readonly [T in JoinFrame['type']]: (wire: WireReader) => Extract<JoinFrame, { type: T }> };

/** `format ‖ type ‖ cluster[32] ‖ fields`, numbers as varints, texts and bytes with their length. */
export function encodeJoinFrame(cluster: ClusterId, frame: JoinFrame): Uint8Array<ArrayBuffer> {
  const wire = new WireWriter().varint(FORMAT).varint(TYPES.indexOf(frame.type)).raw(hex.decode(cluster));
  (writers[frame.type] as (wire: WireWriter, frame: JoinFrame) => unknown)(wire, frame);
  return wire.finish();
}

/** Throws `DECODE_FAILED` unless the bytes are a frame of that cluster, to the last. */
export function decodeJoinFrame(cluster: ClusterId, bytes: Uint8Array): JoinFrame {
  const wire = new WireReader(bytes);
  parseWhole(wire.varint(), 'the format of a frame about joining', FORMAT, FORMAT);
  const type = TYPES[wire.varint(TYPES.length - 1)]!;
  const of = hex.encode(wire.raw(32));
  if (of !== cluster)
    throw new WaggleError('DECODE_FAILED', `Expected a frame of cluster ${cluster}, received one of ${of}`);
  const frame = readers[type](wire);
  wire.end();
  return frame;
}

/** Longest words that a refusal can carry, in characters. */
const REASON_LENGTH_MAX = REASON_BYTES_MAX / 4;

/** A text from elsewhere as it may be shown on a terminal and sent in a frame. */
export const plainText = (text: string): string => text.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, REASON_LENGTH_MAX);

/** All that a newcomer is told. */
export interface Told {
  /** As `encodeGenesis`. */
  readonly genesis: Uint8Array;
  /** As `encodeFacts`. */
  readonly facts: Uint8Array;
  readonly addresses: readonly InviteAddress[];
  /** The epoch that the member meters in. */
  readonly openEpoch: Epoch;
}

/** `genesis ‖ facts ‖ addresses ‖ openEpoch`, each but the last with its length. At most `TOLD_MAX` addresses: the first. */
export const encodeTold = ({ genesis, facts, addresses, openEpoch }: Told): Uint8Array<ArrayBuffer> =>
  new WireWriter().bytes(genesis).bytes(facts).bytes(encodeAddresses(addresses)).varint(openEpoch).finish();

/** Throws `DECODE_FAILED`. The genesis and the facts are not looked into. */
export function decodeTold(bytes: Uint8Array): Told {
  const wire = new WireReader(bytes);
  const genesis = wire.bytes(GENESIS_BYTES_MAX);
  const facts = wire.bytes(FACTS_BYTES_MAX);
  const addresses = decodeAddresses(wire.bytes(ADDRESSES_BYTES_MAX));
  const openEpoch = wire.varint();
  wire.end();
  return { genesis, facts, addresses, openEpoch };
}

/** `count ‖ (transportKey[32] ‖ host[4] ‖ port)*`, numbers as varints; of more than `TOLD_MAX` the first. */
export function encodeAddresses(addresses: readonly InviteAddress[]): Uint8Array<ArrayBuffer> {
  const told = addresses.slice(0, TOLD_MAX);
  const wire = new WireWriter().varint(told.length);
  for (const { transportKey, host, port } of told)
    wire
      .raw(base64.decode(transportKey))
      .raw(Uint8Array.from(host.split('.'), Number))
      .varint(port);
  return wire.finish();
}

/** Throws `DECODE_FAILED` unless the bytes are addresses that can be dialled. */
export function decodeAddresses(bytes: Uint8Array): InviteAddress[] {
  const wire = new WireReader(bytes);
  const addresses = Array.from({ length: wire.varint(TOLD_MAX) }, () => ({
    transportKey: base64.encode(wire.raw(KEY_BYTES)),
    host: wire.raw(HOST_BYTES).join('.'),
    port: parseWhole(wire.varint(), 'a port', 1, 65_535),
  }));
  wire.end();
  for (const { host } of addresses)
    if (!isIPv4(host) || host === '0.0.0.0')
      throw new WaggleError('DECODE_FAILED', `Expected an address that can be dialled, received ${host}`);
  return addresses;
}
