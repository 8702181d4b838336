/**
 * What is used of Hyperswarm's stack, which ships no types: hyperswarm 4.17.2, hyperdht 6.34.0, @hyperswarm/secret-stream
 * 6.9.2, protomux 3.12.1. Nothing else of it may be relied upon.
 */
declare module 'hyperdht' {
  import type { EventEmitter } from 'node:events';

  export interface KeyPair {
    /** 32 bytes, Ed25519. */
    readonly publicKey: Buffer;
    /** 64 bytes: seed, then public key. */
    readonly secretKey: Buffer;
  }
  export interface HostPort {
    readonly host: string;
    readonly port: number;
  }
  /** @hyperswarm/secret-stream: a streamx duplex whose chunks are whole messages, decrypted and authenticated. */
  export interface SecretStream extends EventEmitter {
    readonly remotePublicKey: Buffer;
    /** The handshake is done as far as this side can tell. */
    readonly connected: boolean;
    readonly destroyed: boolean;
    /** Destroys the stream when nothing at all has come for so long, in ms. */
    setTimeout(ms: number): void;
    /** A buffer that `write` can encrypt in place. */
    alloc(length: number): Buffer;
    /** False when there is more waiting than it likes: 'drain' follows. */
    write(bytes: Uint8Array): boolean;
    /** An unreliable datagram, encrypted; 'message' at the other side. Nothing happens before the handshake. */
    trySend(bytes: Buffer): void;
    pause(): void;
    resume(): void;
    end(): void;
    destroy(error?: Error): void;
  }
  export interface Server extends EventEmitter {
    /** True refuses the handshake. `source` is where it came from, as far as that can be known. */
    firewall: (publicKey: Buffer, payload: unknown, source: HostPort | null) => boolean;
  }
  /** What a look-up finds at one node. */
  export interface LookupReply {
    readonly peers: readonly { readonly publicKey: Buffer; readonly relayAddresses: readonly HostPort[] }[];
  }
  export default class DHT extends EventEmitter {
    static keyPair(seed: Buffer): KeyPair;
    /** BLAKE2b, 32 bytes: what a key is announced under. */
    static hash(publicKey: Buffer): Buffer;
    static bootstrapper(
      port: number,
      address: string,
      options: {
        host: string;
        keyPair: KeyPair;
        bootstrap: readonly HostPort[];
        connectionKeepAlive: number;
        maxSize: number;
      },
    ): DHT;
    /** Private. Where keys announced themselves from, for up to 20 minutes. */
    readonly _router: { delete(target: Buffer): void };
    /** Binds the socket; rejects with the error of the operating system. */
    bind(): Promise<void>;
    connect(
      publicKey: Buffer,
      options: { keyPair: KeyPair; localConnection: boolean; relayAddresses: readonly HostPort[] },
    ): SecretStream;
    lookup(topic: Buffer): AsyncIterable<LookupReply>;
    destroy(options: { force: boolean }): Promise<void>;
  }
}

declare module 'hyperswarm' {
  import type { EventEmitter } from 'node:events';
  import type DHT from 'hyperdht';
  import type { KeyPair, Server } from 'hyperdht';

  export interface DiscoverySession {
    /** Announces again; resolves when that is done or has failed. */
    refresh(): Promise<boolean>;
  }
  export default class Hyperswarm extends EventEmitter {
    constructor(options: { dht: DHT; keyPair: KeyPair });
    readonly server: Server;
    /** Takes connections from now on; resolves when the key is announced. */
    listen(): Promise<unknown>;
    join(topic: Buffer, options: { server: boolean; client: boolean }): DiscoverySession;
    destroy(): Promise<void>;
  }
}

declare module 'protomux' {
  import type { EventEmitter } from 'node:events';

  /** The part of a stream that Protomux uses. */
  export interface MuxStream extends EventEmitter {
    userData: unknown;
    readonly destroyed: boolean;
    alloc(length: number): Buffer;
    write(bytes: Uint8Array): boolean;
    pause(): void;
    resume(): void;
    end(): void;
    destroy(error?: Error): void;
  }
  export interface ChannelName {
    readonly protocol: string;
    readonly id: Buffer;
  }
  export interface ChannelOptions extends ChannelName {
    /** Messages as raw bytes. */
    readonly messages: readonly { onmessage(bytes: Uint8Array): void }[];
    /** Both sides have opened it. */
    onopen(): void;
    onclose(): void;
    ondrain(): void;
  }
  export interface Channel {
    /** False when the stream has more waiting than it likes: `ondrain` follows. */
    readonly messages: readonly { send(bytes: Uint8Array): boolean }[];
    open(): void;
  }
  export default class Protomux {
    constructor(stream: MuxStream);
    /** Null on a stream that is destroyed, or when the channel is there already. */
    createChannel(options: ChannelOptions): Channel | null;
    /** Calls `notify` when the other side opens that channel. */
    pair(name: ChannelName, notify: () => void): void;
    unpair(name: ChannelName): void;
  }
}
