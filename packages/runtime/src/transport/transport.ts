import { base64, WaggleError } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';

/** Bytes of a reliable message: 1 to this. */
export const MESSAGE_BYTES_MAX = 64 * 1024;
/** Bytes of a datagram: 1 to this. Beyond the path's MTU less the headers of UDX and the encryption they vanish silently. */
export const DATAGRAM_BYTES_MAX = 1_200;
/** What may wait for one member that reads slowly: bytes and messages. Two rounds of an exchange fit in. */
export const QUEUE_BYTES_MAX = 2 * 1024 * 1024;
export const QUEUE_MESSAGES_MAX = 4_096;
/** Members that can be admitted. */
export const ADMITTED_MAX = 10_000;
/** Addresses of one member that are tried; further ones are ignored. */
export const ADDRESSES_MAX = 4;
/**
 * A link on which nothing at all came for so long is closed, in ms: three keep-alives. More than it takes membership to find a
 * process dead: one that stands still again and again must have links by which it can say that it lives.
 */
export const IDLE_MS_MAX = 15_000;

/** Where a node can be reached by UDP. */
export interface Address {
  /** IPv4, dotted. */
  readonly host: string;
  readonly port: number;
}

/**
 * One end of a link to a node that is not admitted (or, at the newcomer, to the member that it asks): reliable, ordered,
 * encrypted, bound to the other's key. It ends by itself unless `allow` is called in time.
 */
export interface JoinLink {
  /** The other side's transport key, verified. */
  readonly key: MemberKey;
  /** As `Transport.send`. */
  send(bytes: Uint8Array): boolean;
  /** Something valid was shown: the link may go on for so long from now, in ms; 60 000 at most. */
  allow(ms: number): void;
  /** Ends the link. What was sent is delivered before, if that takes no longer than a second. */
  close(): void;
}

/** What becomes of a `JoinLink`. */
export interface JoinHandlers {
  /** At most `MESSAGE_BYTES_MAX` bytes, the handler's to keep. */
  message(bytes: Uint8Array): void;
  /** It has ended, whoever ended it. Nothing comes after. */
  closed(): void;
}

/**
 * What a transport tells. Handlers are also called from within `setAdmitted` and `close`. An error thrown by one surfaces as an
 * uncaught exception: it is never taken for the peer's.
 */
export interface TransportHandlers {
  /** There is a link to that member. */
  connected(key: MemberKey): void;
  /** The link is gone: what was sent on it and not answered may be lost. `connected` may follow at once, for a newer one. */
  disconnected(key: MemberKey): void;
  /** On the link, in the order in which it was sent; at most `MESSAGE_BYTES_MAX` bytes, the handler's to keep. */
  message(key: MemberKey, bytes: Uint8Array): void;
  /** Unreliable: it may be lost, doubled, late or out of order, but is whole and of that member. 1 to `DATAGRAM_BYTES_MAX` bytes. */
  datagram(key: MemberKey, bytes: Uint8Array): void;
  /**
   * What a key that is not admitted is to be told before its link is closed, and whenever it dials as a member: a message, or
   * null. Without this handler nothing is said.
   */
  farewell?(key: MemberKey): Uint8Array | null;
  /** A node that is not admitted, or is and does not know it yet, asks. Without this handler strangers are refused. */
  joiner?(link: JoinLink): JoinHandlers;
}

/** What a transport did since it was opened. */
export interface TransportCounters {
  readonly links: number;
  readonly messagesIn: number;
  readonly messagesOut: number;
  readonly datagramsIn: number;
  readonly datagramsOut: number;
  /** Payload of messages and datagrams. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly dials: number;
  readonly dialsFailed: number;
  /** Messages not taken because too much was waiting for their member. */
  readonly sendsRefused: number;
  /** Handshakes of keys that are not admitted, or of too many strangers. */
  readonly handshakesRefused: number;
  /** Frames that no correct node sends. */
  readonly malformed: number;
}

/** Links among members, one for each pair: reliable ordered messages, and datagrams. Whoever is not admitted has none. */
export interface Transport {
  /** This node's own. */
  readonly key: MemberKey;
  /** Where members reach this node. */
  readonly address: Address;
  /**
   * Who may connect from now on, and where each is dialled; with no address it is only waited for, or found by the cluster's
   * topic. Links to those left out are closed, after a `farewell`. Its own key is ignored. At most `ADMITTED_MAX`.
   */
  setAdmitted(members: ReadonlyMap<MemberKey, readonly Address[]>): void;
  /** The members to which there is a link. */
  links(): MemberKey[];
  /**
   * Sends 1 to `MESSAGE_BYTES_MAX` bytes, which must not be changed afterwards. False when there is no link or too much is
   * waiting for this member: then nothing was sent, and what follows a refused message is refused until all before it is sent:
   * of messages sent in one go a first part arrives, and no later one without it. What was taken arrives in order, or the link
   * goes.
   */
  send(to: MemberKey, bytes: Uint8Array): boolean;
  /** Sends 1 to `DATAGRAM_BYTES_MAX` bytes, if it can. False when there is no link. */
  sendDatagram(to: MemberKey, bytes: Uint8Array): boolean;
  /** Asks a member to be admitted. Rejects with `NOT_READY` when it does not answer or takes no strangers. */
  join(member: MemberKey, address: Address, handlers: JoinHandlers): Promise<JoinLink>;
  counters(): TransportCounters;
  /** Closes every link and leaves the network, within seconds. May be called again. */
  close(): Promise<void>;
}

/** The key of 32 bytes. */
export const memberKey = (publicKey: Uint8Array): MemberKey => base64.encode(publicKey) as MemberKey;

/** The 32 bytes of a key. Throws `DECODE_FAILED`. */
export function publicKeyOf(key: MemberKey): Uint8Array {
  const bytes = base64.decode(key);
  if (bytes.length === 32) return bytes;
  throw new WaggleError('DECODE_FAILED', `Expected 32 bytes for a member key, received ${bytes.length}`);
}
