import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv4 } from 'node:net';
import { assert, hex, WaggleError, type ClusterId, type Random } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import DHT, { type HostPort, type KeyPair, type SecretStream } from 'hyperdht';
import Hyperswarm from 'hyperswarm';
import type { Cancel, Clock } from '../clock.ts';
import { nodeCrypto } from '../node-crypto.ts';
import { Connection, type ConnectionEvents, type ConnectionOptions } from './connection.ts';
import { newCounts } from './counters.ts';
import { Dialler } from './dialler.ts';
import { Discovery } from './discovery.ts';
import { JoinGate } from './gate.ts';
import { Links, type LinkEvents } from './links.ts';
import {
  ADMITTED_MAX,
  memberKey,
  publicKeyOf,
  type Address,
  type JoinHandlers,
  type JoinLink,
  type Transport,
  type TransportCounters,
  type TransportHandlers,
} from './transport.ts';

/** In ms, what Hyperswarm takes by itself. Three in a row may be lost before a link is given up. */
const KEEP_ALIVE_MS = 5_000;
/** How long a dialled member may take until the channel is open, in ms. */
const DIAL_MS_MAX = 1_500;
/** The same for whoever dials this node; a stranger has shown something valid by then. */
const OPENING_MS_MAX = 2_000;
/** How long a newcomer waits for the member that it asks, in ms. It has only one, and that may just have started. */
const JOIN_DIAL_MS_MAX = 5_000;
/** The most that `JoinLink.allow` gives, in ms. */
const ALLOWED_MS_MAX = 60_000;
/** Connections of strangers at one time. */
const JOINERS_MAX = 16;
/** Records of the DHT that this node keeps for others: anyone can store some. */
const DHT_RECORDS_MAX = 4_096;
/** How long an orderly leave may take, in ms: to withdraw what was announced at nodes that may be gone as well. */
const LEAVE_MS_MAX = 1_000;
/** Ports that a node may listen on: above, the system gives them to anybody's outgoing traffic (net.ipv4.ip_local_port_range). */
const PORT_MIN = 1;
const PORT_MAX = 32_767;
/** Where a free port is looked for, and how often. */
const FREE_PORT_MIN = 10_000;
const FREE_PORT_TRIES = 100;

export interface TransportOptions {
  /** 32 bytes: the private half of the node's transport key (RFC 8032). */
  readonly seed: Uint8Array;
  readonly cluster: ClusterId;
  /** Where members reach this node; the port, from 1 to 32 767, is also the one it listens on. 0 takes a free one. */
  readonly address: Address;
  /** IPv4 address of the interface to listen on, `0.0.0.0` for all. */
  readonly host: string;
  /** Addresses at which the DHT is entered: members or not, live or not, or none. */
  readonly seeds: readonly Address[];
  readonly handlers: TransportHandlers;
  readonly clock: Clock;
  readonly random: Random;
}

/**
 * Listens, and returns a transport on Hyperswarm's stack that admits nobody yet. Throws `CONFIG_INVALID` for addresses that
 * cannot be, `PORT_IN_USE` when it cannot listen.
 */
export async function openTransport(given: TransportOptions): Promise<Transport> {
  const { host, seeds } = given;
  assert(given.seed.length === 32, `a seed of 32 bytes, not ${given.seed.length}`);
  if (!isIPv4(host)) throw new WaggleError('CONFIG_INVALID', `Expected an IPv4 address to listen on, received ${host}`);
  const port = given.address.port === 0 ? await freePort(host, given.random) : given.address.port;
  const options = { ...given, address: { host: given.address.host, port } };
  const { address } = options;
  for (const seed of [address, ...seeds]) checkAddress(seed);
  if (address.port > PORT_MAX)
    throw new WaggleError(
      'CONFIG_INVALID',
      `Expected a port from ${PORT_MIN} to ${PORT_MAX}, received ${address.port}`,
    );
  await checkPort(address.port, host);
  const keyPair = DHT.keyPair(Buffer.from(options.seed));
  const dht = DHT.bootstrapper(address.port, address.host, {
    host,
    keyPair,
    // Always given, even when empty: the default is the public network.
    bootstrap: seeds,
    connectionKeepAlive: KEEP_ALIVE_MS,
    maxSize: DHT_RECORDS_MAX,
  });
  await dht.bind();
  return new SwarmTransport(options, keyPair, dht);
}

/** A port that nothing listens on right now. Throws `PORT_IN_USE` when none of many is free. */
async function freePort(host: string, random: Random): Promise<number> {
  for (let tries = 1; ; tries++) {
    const port = FREE_PORT_MIN + random.below(PORT_MAX + 1 - FREE_PORT_MIN);
    try {
      await checkPort(port, host);
      return port;
    } catch (error) {
      if (tries === FREE_PORT_TRIES) throw error;
    }
  }
}

/** Throws `PORT_IN_USE`. Asked before the DHT binds, as one that could not would keep the process alive for ever. */
async function checkPort(port: number, host: string): Promise<void> {
  const socket = createSocket('udp4');
  try {
    socket.bind(port, host);
    await once(socket, 'listening');
  } catch (cause) {
    throw new WaggleError('PORT_IN_USE', `Expected to listen on UDP ${host}:${port}: ${String(cause)}`, { cause });
  } finally {
    socket.close();
  }
}

const isAddress = ({ host, port }: Address): boolean =>
  isIPv4(host) && host !== '0.0.0.0' && Number.isInteger(port) && port >= PORT_MIN && port <= 65_535;

function checkAddress(address: Address): void {
  if (isAddress(address)) return;
  const { host, port } = address;
  throw new WaggleError('CONFIG_INVALID', `Expected an IPv4 address and a UDP port, received ${host}:${port}`);
}

/** A request to be admitted that is not answered yet. */
interface Asked {
  readonly handlers: JoinHandlers;
  resolve(link: JoinLink): void;
  reject(error: Error): void;
}

class SwarmTransport implements Transport {
  readonly key: MemberKey;
  readonly address: Address;
  readonly #options: TransportOptions;
  readonly #keyPair: KeyPair;
  readonly #dht: DHT;
  readonly #swarm: Hyperswarm;
  readonly #links: Links<Connection>;
  readonly #dialler: Dialler;
  readonly #discovery: Discovery;
  readonly #gate = new JoinGate();
  readonly #counts = newCounts();
  readonly #connectionOptions: ConnectionOptions;
  #admitted: ReadonlySet<MemberKey> = new Set();
  readonly #connections = new Set<Connection>();
  /** Those among them that were taken from keys that are not admitted. */
  readonly #strangers = new Set<Connection>();
  /** Says that a dial has come to something. */
  readonly #dials = new Map<Connection, () => void>();
  readonly #asked = new Map<Connection, Asked>();
  readonly #joins = new Map<Connection, JoinHandlers>();
  #closing: Promise<void> | null = null;

  constructor(options: TransportOptions, keyPair: KeyPair, dht: DHT) {
    const { clock, cluster, random } = options;
    this.key = memberKey(keyPair.publicKey);
    this.address = options.address;
    this.#options = options;
    this.#keyPair = keyPair;
    this.#dht = dht;
    const events = this.#connectionEvents();
    this.#connectionOptions = { clock, cluster: Buffer.from(hex.decode(cluster)), counts: this.#counts, events };
    this.#links = new Links(this.key, this.#linkEvents());
    this.#dialler = new Dialler({
      self: this.key,
      clock,
      random,
      isLinked: (key) => this.#links.get(key) !== undefined,
      dial: (key, address, done) => this.#dial(key, address, done),
    });
    // It never dials by itself (see Discovery), so its bounds on dials and peers do not matter.
    this.#swarm = new Hyperswarm({ dht, keyPair });
    // Instead of Hyperswarm's own check, which bans a refused key for ever and forgets none: strangers would fill the memory.
    this.#swarm.server.firewall = (publicKey, _payload, source) => this.#refuses(memberKey(publicKey), source);
    this.#swarm.on('connection', (stream: SecretStream) => this.#accepted(stream));
    // Takes handshakes at once; resolves when the key is announced, which nothing waits for.
    this.#swarm.listen().catch(() => undefined);
    this.#discovery = new Discovery({
      swarm: this.#swarm,
      dht,
      cluster,
      crypto: nodeCrypto,
      clock,
      random,
      isAlone: () => this.#admitted.size > 0 && this.#links.size === 0,
      found: (key, addresses) => this.#dialler.found(key, addresses.filter(isAddress)),
    });
  }

  setAdmitted(members: ReadonlyMap<MemberKey, readonly Address[]>): void {
    assert(members.size <= ADMITTED_MAX, `at most ${ADMITTED_MAX} members`);
    const others = new Map([...members].filter(([key]) => key !== this.key));
    for (const [key, addresses] of others) {
      publicKeyOf(key);
      for (const address of addresses) checkAddress(address);
    }
    this.#admitted = new Set(others.keys());
    for (const connection of this.#connections) {
      const isJoin = connection.kind === 'join' || this.#strangers.has(connection);
      if (!isJoin && !this.#admitted.has(connection.key)) this.#part(connection);
    }
    this.#dialler.setTargets(others);
  }

  /** Closes a connection of a key that is not admitted, with a last word if there is one. */
  #part(connection: Connection): void {
    const last = this.#options.handlers.farewell?.(connection.key) ?? null;
    if (last === null || !connection.send(last)) return connection.close();
    connection.finish();
    this.#links.closed(connection);
  }

  links(): MemberKey[] {
    return this.#links.keys();
  }

  send(to: MemberKey, bytes: Uint8Array): boolean {
    return this.#links.get(to)?.send(bytes) ?? false;
  }

  sendDatagram(to: MemberKey, bytes: Uint8Array): boolean {
    return this.#links.get(to)?.sendDatagram(bytes) ?? false;
  }

  async join(member: MemberKey, address: Address, handlers: JoinHandlers): Promise<JoinLink> {
    checkAddress(address);
    if (this.#closing !== null) throw new WaggleError('NOT_READY', 'Expected an open transport, received a closed one');
    return new Promise((resolve, reject) => {
      const connection = this.#connect(member, address, JOIN_DIAL_MS_MAX);
      this.#asked.set(connection, { handlers, resolve, reject });
      connection.open('join');
    });
  }

  counters(): TransportCounters {
    return { links: this.#links.size, ...this.#counts };
  }

  close(): Promise<void> {
    this.#closing ??= this.#leave();
    return this.#closing;
  }

  async #leave(): Promise<void> {
    this.#discovery.stop();
    this.#dialler.stop();
    for (const connection of this.#connections) connection.close();
    const left = this.#swarm.destroy().then(() => true);
    let cancel: Cancel = () => undefined;
    const late = new Promise<boolean>((resolve) => {
      cancel = this.#options.clock.after(LEAVE_MS_MAX, () => resolve(false));
    });
    const isInTime = await Promise.race([left, late]);
    cancel();
    // What it waits for are answers of nodes that are gone: they fail with the socket.
    if (!isInTime) await this.#dht.destroy({ force: true });
    await left;
  }

  #refuses(key: MemberKey, source: HostPort | null): boolean {
    if (this.#closing === null && this.#admitted.has(key)) return false;
    const { clock } = this.#options;
    if (key !== this.key && this.#hasRoom() && source !== null && this.#gate.admits(source.host, clock.monotonicMs()))
      return false;
    this.#counts.handshakesRefused++;
    return true;
  }

  get #takesJoiners(): boolean {
    return this.#options.handlers.joiner !== undefined;
  }

  /** Whether one more stranger may ask. */
  #hasRoom(): boolean {
    return this.#closing === null && this.#takesJoiners && this.#strangers.size < JOINERS_MAX;
  }

  #accepted(stream: SecretStream): void {
    const connection = this.#register(stream, false, OPENING_MS_MAX);
    if (this.#closing === null && this.#admitted.has(connection.key)) {
      this.#links.opening(connection);
      // A member that was admitted while it was away may not know it yet.
      connection.accept(this.#takesJoiners ? ['member', 'join'] : ['member']);
    } else if (this.#hasRoom()) {
      this.#strangers.add(connection);
      const isTold = (this.#options.handlers.farewell?.(connection.key) ?? null) !== null;
      connection.accept(isTold ? ['join', 'member'] : ['join']);
    } else {
      this.#counts.handshakesRefused++;
      connection.close();
    }
  }

  #connect(key: MemberKey, { host, port }: Address, deadlineMs: number): Connection {
    const publicKey = Buffer.from(publicKeyOf(key));
    // It would go before the address: a member that has moved would not be found for as long as it is remembered.
    // oxlint-disable-next-line no-underscore-dangle -- the one private field there is no door to
    this.#dht._router.delete(DHT.hash(publicKey));
    const stream = this.#dht.connect(publicKey, {
      keyPair: this.#keyPair,
      // Skips what is for homes behind one router, half a second of it.
      localConnection: false,
      relayAddresses: [{ host, port }],
    });
    return this.#register(stream, true, deadlineMs);
  }

  #register(stream: SecretStream, isInitiator: boolean, deadlineMs: number): Connection {
    const connection = new Connection(stream, isInitiator, this.#connectionOptions);
    connection.setDeadline(deadlineMs);
    this.#connections.add(connection);
    return connection;
  }

  #dial(key: MemberKey, address: Address, done: () => void): void {
    this.#counts.dials++;
    const connection = this.#connect(key, address, DIAL_MS_MAX);
    this.#dials.set(connection, done);
    this.#links.opening(connection);
    connection.open('member');
  }

  #dialDone(connection: Connection): boolean {
    const done = this.#dials.get(connection);
    this.#dials.delete(connection);
    done?.();
    return done !== undefined;
  }

  #linkEvents(): LinkEvents {
    const { handlers } = this.#options;
    return {
      connected: (key) => {
        this.#dialler.connected(key);
        handlers.connected(key);
      },
      disconnected: (key) => {
        this.#dialler.disconnected(key);
        handlers.disconnected(key);
      },
    };
  }

  #connectionEvents(): ConnectionEvents {
    const { handlers } = this.#options;
    return {
      opened: (connection) => {
        if (connection.kind === 'join') return this.#joined(connection);
        if (this.#strangers.has(connection)) return this.#part(connection);
        connection.setDeadline(null);
        this.#links.opened(connection);
        this.#dialDone(connection);
      },
      message: (connection, bytes) => {
        if (connection.kind === 'join') this.#joins.get(connection)?.message(bytes);
        else if (this.#links.has(connection)) handlers.message(connection.key, bytes);
      },
      datagram: (connection, bytes) => {
        if (this.#links.has(connection)) handlers.datagram(connection.key, bytes);
      },
      closed: (connection) => this.#closed(connection),
    };
  }

  #joined(connection: Connection): void {
    const asked = this.#asked.get(connection);
    const link: JoinLink = {
      key: connection.key,
      send: (bytes) => connection.send(bytes),
      allow: (ms) => connection.setDeadline(Math.min(ms, ALLOWED_MS_MAX)),
      close: () => connection.finish(),
    };
    if (asked === undefined) {
      const handlers = this.#options.handlers.joiner?.(link);
      if (handlers === undefined) return;
      if (this.#connections.has(connection)) this.#joins.set(connection, handlers);
      else handlers.closed();
      return;
    }
    this.#asked.delete(connection);
    this.#joins.set(connection, asked.handlers);
    connection.setDeadline(ALLOWED_MS_MAX);
    asked.resolve(link);
  }

  #closed(connection: Connection): void {
    this.#connections.delete(connection);
    this.#strangers.delete(connection);
    if (this.#dialDone(connection)) this.#counts.dialsFailed++;
    this.#links.closed(connection);
    const asked = this.#asked.get(connection);
    this.#asked.delete(connection);
    asked?.reject(
      new WaggleError('NOT_READY', `Expected member ${connection.key} to take a request to join: no answer`),
    );
    const joined = this.#joins.get(connection);
    this.#joins.delete(connection);
    joined?.closed();
  }
}
