import { WaggleError, WireReader, WireWriter, type Run } from '../base/index.ts';
import {
  DATAGRAM_BYTES_MAX,
  EXCHANGE_BYTES_MAX,
  EXCHANGE_UPDATES_MAX,
  INCARNATION_MAX,
  MEMBERSHIP_VERSION,
} from './constants.ts';
import { MEMBER_ID_BYTES, MEMBER_STATES, memberIdBytes, toMemberId, type MemberId, type Update } from './member.ts';

/*
 * frame    = version ‖ cluster[32] ‖ kind ‖ sender[48] ‖ body ‖ count ‖ count × update
 * body     = run ‖ sequence ‖ incarnation ‖ number ‖ (ping, pingRequest: target[48])        of a datagram
 *          = nothing                                                                        of an exchange
 * update   = state ‖ member[48] ‖ incarnation ‖ (suspect: accuser[48])
 */

/** What a datagram is for (SWIM §3.1). `number` ties an answer to its question; it is the asker's. */
export type Message =
  /** "Are you there, and are you `target`?" */
  | { readonly type: 'ping'; readonly number: number; readonly target: MemberId }
  /** "I am", or from a helper "it is". */
  | { readonly type: 'ack'; readonly number: number }
  /** "Ping `target` for me." */
  | { readonly type: 'pingRequest'; readonly number: number; readonly target: MemberId }
  /** "I am here, but had no ack of it so far" (Lifeguard §IV-A). */
  | { readonly type: 'nack'; readonly number: number }
  /** Nothing but the updates that go with it: no answer to `number`, and none is awaited. */
  | { readonly type: 'gossip'; readonly number: number };

export interface Datagram {
  readonly sender: MemberId;
  /** Process start of the sender; with `sequence`, which grows by one with each of its datagrams, unique for ever. */
  readonly run: Run;
  readonly sequence: number;
  /** The sender's own: a datagram says that its sender is alive. */
  readonly incarnation: number;
  readonly message: Message;
  readonly updates: readonly Update[];
}

/** A part of what a member knows of all others and itself, for a push-pull over the reliable stream. */
export interface Exchange {
  readonly sender: MemberId;
  readonly updates: readonly Update[];
}

const MESSAGE_TYPES = ['ping', 'ack', 'pingRequest', 'nack', 'gossip'] as const satisfies readonly Message['type'][];
const EXCHANGE_KIND = MESSAGE_TYPES.length;
const CLUSTER_BYTES = 32;
/** Bytes of the longest varint: of a run, a sequence number, a number. */
const VARINT_BYTES_MAX = 8;
const INCARNATION_BYTES_MAX = 5;

/** Bytes of an update at most, for those who fill a datagram. */
export const updateBytesMax = (update: Update): number =>
  1 + MEMBER_ID_BYTES + INCARNATION_BYTES_MAX + (update.state === 'suspect' ? MEMBER_ID_BYTES : 0);

/** What a datagram has left for updates at least. */
export const DATAGRAM_UPDATE_BYTES =
  DATAGRAM_BYTES_MAX - (3 + CLUSTER_BYTES + 2 * MEMBER_ID_BYTES + 3 * VARINT_BYTES_MAX + INCARNATION_BYTES_MAX);
/** Updates in a datagram at most: the shortest take 50 bytes. */
const DATAGRAM_UPDATES_MAX = Math.floor(DATAGRAM_BYTES_MAX / (2 + MEMBER_ID_BYTES));

const writeId = (wire: WireWriter, id: MemberId): WireWriter => wire.raw(memberIdBytes(id));
const readId = (wire: WireReader): MemberId => toMemberId(wire.raw(MEMBER_ID_BYTES));

function writeUpdate(wire: WireWriter, update: Update): void {
  wire.varint(MEMBER_STATES.indexOf(update.state));
  writeId(wire, update.member).varint(update.incarnation);
  if (update.state === 'suspect') writeId(wire, update.accuser);
}

function writeUpdates(wire: WireWriter, updates: readonly Update[]): void {
  wire.varint(updates.length);
  for (const update of updates) writeUpdate(wire, update);
}

function readUpdates(wire: WireReader, max: number): Update[] {
  const updates: Update[] = [];
  for (let count = wire.varint(max); count > 0; count--) {
    const state = MEMBER_STATES[wire.varint(MEMBER_STATES.length - 1)]!;
    const member = readId(wire);
    const incarnation = wire.varint(INCARNATION_MAX);
    updates.push(
      state === 'suspect' ? { state, member, incarnation, accuser: readId(wire) } : { state, member, incarnation },
    );
  }
  wire.end();
  return updates;
}

const writeEnvelope = (cluster: Uint8Array, kind: number, sender: MemberId): WireWriter =>
  writeId(new WireWriter().varint(MEMBERSHIP_VERSION).raw(cluster).varint(kind), sender);

function readEnvelope(bytes: Uint8Array, bytesMax: number): { kind: number; wire: WireReader } {
  if (bytes.length > bytesMax)
    throw new WaggleError('DECODE_FAILED', `Expected at most ${bytesMax} bytes, received ${bytes.length}`);
  const wire = new WireReader(bytes);
  const version = wire.varint();
  if (version !== MEMBERSHIP_VERSION)
    throw new WaggleError('DECODE_FAILED', `Expected version ${MEMBERSHIP_VERSION}, received ${version}`);
  wire.raw(CLUSTER_BYTES);
  return { kind: wire.varint(EXCHANGE_KIND), wire };
}

/**
 * Whether a frame is of our protocol version and cluster (32 bytes): to be asked before it is decoded. Throws
 * `DECODE_FAILED` for what is too short to say.
 */
export function isOurs(bytes: Uint8Array, cluster: Uint8Array): boolean {
  const wire = new WireReader(bytes);
  const version = wire.varint();
  return wire.raw(CLUSTER_BYTES).every((byte, i) => byte === cluster[i]) && version === MEMBERSHIP_VERSION;
}

export function encodeDatagram(cluster: Uint8Array, datagram: Datagram): Uint8Array<ArrayBuffer> {
  const { sender, run, sequence, incarnation, message, updates } = datagram;
  const wire = writeEnvelope(cluster, MESSAGE_TYPES.indexOf(message.type), sender);
  wire.varint(run).varint(sequence).varint(incarnation).varint(message.number);
  if (message.type === 'ping' || message.type === 'pingRequest') writeId(wire, message.target);
  writeUpdates(wire, updates);
  return wire.finish();
}

/** Throws `DECODE_FAILED` unless the bytes are one whole datagram of our version, in its one encoding. */
export function decodeDatagram(bytes: Uint8Array): Datagram {
  const { kind, wire } = readEnvelope(bytes, DATAGRAM_BYTES_MAX);
  const type = MESSAGE_TYPES[kind];
  if (type === undefined) throw new WaggleError('DECODE_FAILED', 'Expected a datagram, received an exchange');
  const sender = readId(wire);
  const [run, sequence] = [wire.varint() as Run, wire.varint()];
  if (run === 0 || sequence === 0)
    throw new WaggleError('DECODE_FAILED', `Expected a run and a sequence from 1, received ${run} and ${sequence}`);
  const incarnation = wire.varint(INCARNATION_MAX);
  const number = wire.varint();
  const message: Message =
    type === 'ping' || type === 'pingRequest' ? { type, number, target: readId(wire) } : { type, number };
  return { sender, run, sequence, incarnation, message, updates: readUpdates(wire, DATAGRAM_UPDATES_MAX) };
}

/** At most `EXCHANGE_UPDATES_MAX` updates to a frame. */
export function encodeExchange(cluster: Uint8Array, { sender, updates }: Exchange): Uint8Array<ArrayBuffer> {
  const wire = writeEnvelope(cluster, EXCHANGE_KIND, sender);
  writeUpdates(wire, updates);
  return wire.finish();
}

/** Throws `DECODE_FAILED` unless the bytes are one whole exchange frame of our version, in its one encoding. */
export function decodeExchange(bytes: Uint8Array): Exchange {
  const { kind, wire } = readEnvelope(bytes, EXCHANGE_BYTES_MAX);
  if (kind !== EXCHANGE_KIND) throw new WaggleError('DECODE_FAILED', 'Expected an exchange, received a datagram');
  return { sender: readId(wire), updates: readUpdates(wire, EXCHANGE_UPDATES_MAX) };
}
