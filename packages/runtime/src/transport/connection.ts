import { assert } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import type { SecretStream } from 'hyperdht';
import Protomux, { type Channel } from 'protomux';
import type { Cancel, Clock } from '../clock.ts';
import type { Counts } from './counters.ts';
import { guarded } from './guard.ts';
import {
  DATAGRAM_BYTES_MAX,
  IDLE_MS_MAX,
  memberKey,
  MESSAGE_BYTES_MAX,
  QUEUE_BYTES_MAX,
  QUEUE_MESSAGES_MAX,
} from './transport.ts';

/** What a connection is for: each has a channel of its own, named by protocol version and cluster. */
export const CHANNELS = { member: 'waggle/1', join: 'waggle-join/1' } as const;
export type ChannelKind = keyof typeof CHANNELS;

/** How long a connection that was ended may take to deliver what was sent on it, in ms. */
const FINISH_MS = 1_000;

export interface ConnectionEvents {
  /** Both sides have opened the channel: from here on the other side is proved to be there, and no replay. */
  opened(connection: Connection): void;
  message(connection: Connection, bytes: Uint8Array): void;
  datagram(connection: Connection, bytes: Uint8Array): void;
  /** Once. Nothing comes after. */
  closed(connection: Connection): void;
}

export interface ConnectionOptions {
  readonly clock: Clock;
  /** The cluster id's 32 bytes. */
  readonly cluster: Buffer;
  readonly counts: Counts;
  readonly events: ConnectionEvents;
}

/** Protomux takes an error thrown in a callback for one of the peer's and hides it. Ours are thrown where they are seen. */
function ours(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** One encrypted connection and the one channel on it, with a bounded queue. */
export class Connection {
  /** The other side's, verified once the channel is open. */
  readonly key: MemberKey;
  readonly isInitiator: boolean;
  readonly #stream: SecretStream;
  readonly #mux: Protomux;
  readonly #options: ConnectionOptions;
  #kind: ChannelKind | null = null;
  #channel: Channel | null = null;
  #isOpen = false;
  #isClosed = false;
  #isDrained = true;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  /** A message was refused: so is what follows, until all before it is sent. */
  #isRefusing = false;
  #cancelDeadline: Cancel = () => undefined;

  constructor(stream: SecretStream, isInitiator: boolean, options: ConnectionOptions) {
    // First of all: without a listener an error of the network ends the process. What it means, 'close' says as well.
    stream.on('error', () => undefined);
    stream.on('close', () => this.close());
    stream.setTimeout(IDLE_MS_MAX);
    this.key = memberKey(stream.remotePublicKey);
    this.isInitiator = isInitiator;
    this.#stream = stream;
    this.#options = options;
    this.#mux = new Protomux(guarded(stream, () => this.#malformed()));
    stream.on('message', (bytes: Uint8Array) => this.#datagram(bytes));
  }

  /** What it is for; null until the other side has said so. */
  get kind(): ChannelKind | null {
    return this.#kind;
  }

  /** Whether nothing has left this side yet: the other has not been told of this connection. */
  get isUnsaid(): boolean {
    return this.isInitiator && !this.#stream.connected;
  }

  /** As initiator: asks for the channel. */
  open(kind: ChannelKind): void {
    this.#open(kind);
  }

  /** As the one who was dialled: takes the first of these that the other side asks for. */
  accept(kinds: readonly ChannelKind[]): void {
    for (const kind of kinds)
      this.#mux.pair(this.#name(kind), () => {
        for (const other of kinds) this.#mux.unpair(this.#name(other));
        this.#open(kind);
      });
  }

  /** Closes it so many ms from now, instead of any time set before; null: never. */
  setDeadline(ms: number | null): void {
    this.#cancelDeadline();
    if (ms !== null && !this.#isClosed) this.#cancelDeadline = this.#options.clock.after(ms, () => this.close());
  }

  /** As `Transport.send`. */
  send(bytes: Uint8Array): boolean {
    assert(bytes.length > 0 && bytes.length <= MESSAGE_BYTES_MAX, `a message of 1 to ${MESSAGE_BYTES_MAX} bytes`);
    if (!this.#isOpen) return false;
    if (this.#isDrained && this.#queue.length === 0) {
      this.#write(bytes);
      return true;
    }
    this.#isRefusing ||= this.#queue.length >= QUEUE_MESSAGES_MAX || this.#queuedBytes + bytes.length > QUEUE_BYTES_MAX;
    if (this.#isRefusing) {
      this.#options.counts.sendsRefused++;
      return false;
    }
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    return true;
  }

  /** As `Transport.sendDatagram`. */
  sendDatagram(bytes: Uint8Array): boolean {
    assert(bytes.length > 0 && bytes.length <= DATAGRAM_BYTES_MAX, `a datagram of 1 to ${DATAGRAM_BYTES_MAX} bytes`);
    if (!this.#isOpen) return false;
    this.#stream.trySend(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    this.#options.counts.datagramsOut++;
    this.#options.counts.bytesOut += bytes.length;
    return true;
  }

  /** Ends it once what was sent is delivered, or after a second. Nothing is sent or taken from now on. */
  finish(): void {
    if (this.#isClosed) return;
    this.#isOpen = false;
    for (const bytes of this.#queue.splice(0)) this.#write(bytes);
    this.#stream.end();
    this.setDeadline(FINISH_MS);
  }

  /** Ends it now. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#isOpen = false;
    this.#queue = [];
    this.#cancelDeadline();
    this.#stream.destroy();
    this.#options.events.closed(this);
  }

  readonly #name = (kind: ChannelKind): { protocol: string; id: Buffer } => ({
    protocol: CHANNELS[kind],
    id: this.#options.cluster,
  });

  #open(kind: ChannelKind): void {
    this.#kind = kind;
    this.#channel = this.#mux.createChannel({
      ...this.#name(kind),
      messages: [{ onmessage: (bytes) => ours(() => this.#message(bytes)) }],
      onopen: () => ours(() => this.#opened()),
      onclose: () => ours(() => this.close()),
      ondrain: () => ours(() => this.#drain()),
    });
    this.#channel?.open();
  }

  #opened(): void {
    if (this.#isClosed) return;
    this.#isOpen = true;
    this.#options.events.opened(this);
  }

  #message(bytes: Uint8Array): void {
    if (!this.#isOpen) return;
    if (bytes.length === 0 || bytes.length > MESSAGE_BYTES_MAX) return this.#malformed();
    this.#options.counts.messagesIn++;
    this.#options.counts.bytesIn += bytes.length;
    // A copy: what came is a part of a buffer of 64 KiB, which whoever keeps a few bytes of would keep whole.
    this.#options.events.message(this, new Uint8Array(bytes));
  }

  #datagram(bytes: Uint8Array): void {
    if (!this.#isOpen) return;
    if (bytes.length === 0 || bytes.length > DATAGRAM_BYTES_MAX) {
      this.#options.counts.malformed++;
      return;
    }
    this.#options.counts.datagramsIn++;
    this.#options.counts.bytesIn += bytes.length;
    this.#options.events.datagram(this, new Uint8Array(bytes));
  }

  #malformed(): void {
    this.#options.counts.malformed++;
    this.close();
  }

  #write(bytes: Uint8Array): void {
    this.#isDrained = this.#channel!.messages[0]!.send(bytes);
    this.#options.counts.messagesOut++;
    this.#options.counts.bytesOut += bytes.length;
  }

  #drain(): void {
    this.#isDrained = true;
    let sent = 0;
    while (this.#isOpen && this.#isDrained && sent < this.#queue.length) {
      const bytes = this.#queue[sent++]!;
      this.#queuedBytes -= bytes.length;
      this.#write(bytes);
    }
    this.#queue.splice(0, sent);
    if (this.#queue.length === 0) this.#isRefusing = false;
  }
}
