import { assert, WaggleError, type ClusterId, type Random } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import type { Cancel, Clock } from '../../src/clock.ts';
import { signerFromSeed } from '../../src/node-crypto.ts';
import { newCounts } from '../../src/transport/counters.ts';
import {
  ADMITTED_MAX,
  DATAGRAM_BYTES_MAX,
  memberKey,
  MESSAGE_BYTES_MAX,
  publicKeyOf,
  QUEUE_BYTES_MAX,
  QUEUE_MESSAGES_MAX,
  type Address,
  type JoinHandlers,
  type JoinLink,
  type Transport,
  type TransportCounters,
  type TransportHandlers,
} from '../../src/transport/index.ts';

export interface MemoryNetworkOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** A message takes from 0 to this, in ms. */
  readonly latencyMsMax?: number;
  /** Datagrams lost, out of a hundred. */
  readonly lossPercent?: number;
  /** How long a link to a node that was killed or cut off lasts, in ms. */
  readonly idleMs?: number;
  /** Between two rounds of dials, in ms. */
  readonly retryMs?: number;
}

export interface MemoryTransportOptions {
  /** 32 bytes. */
  readonly seed: Uint8Array;
  readonly cluster: ClusterId;
  readonly address: Address;
  readonly handlers: TransportHandlers;
}

/** A network in one process, for tests: every chance and every delay is the caller's. */
export class MemoryNetwork {
  readonly clock: Clock;
  readonly random: Random;
  readonly latencyMsMax: number;
  readonly lossPercent: number;
  readonly idleMs: number;
  readonly retryMs: number;
  readonly #nodes = new Map<string, MemoryTransport>();
  readonly #cuts = new Set<string>();

  constructor({ clock, random, latencyMsMax = 1, lossPercent = 0, idleMs = 50, retryMs = 10 }: MemoryNetworkOptions) {
    this.clock = clock;
    this.random = random;
    this.latencyMsMax = latencyMsMax;
    this.lossPercent = lossPercent;
    this.idleMs = idleMs;
    this.retryMs = retryMs;
  }

  /** A node on this network. Throws `PORT_IN_USE`. */
  open(options: MemoryTransportOptions): MemoryTransport {
    const place = placeOf(options.address);
    if (this.#nodes.has(place)) throw new WaggleError('PORT_IN_USE', `Expected ${place} to be free`);
    const node = new MemoryTransport(this, options);
    this.#nodes.set(place, node);
    return node;
  }

  /** As if the process were killed: nobody is told, and the others find out. */
  kill(node: Transport): void {
    for (const [place, other] of this.#nodes) if (other === node) this.#nodes.delete(place);
    (node as MemoryTransport).die();
  }

  /** Nothing gets through between the two, until `mend`. */
  cut(a: Transport, b: Transport): void {
    this.#cuts.add([a.key, b.key].sort().join());
    (a as MemoryTransport).checkLinks();
  }

  mend(a: Transport, b: Transport): void {
    this.#cuts.delete([a.key, b.key].sort().join());
  }

  isCut(a: MemberKey, b: MemberKey): boolean {
    return this.#cuts.has([a, b].sort().join());
  }

  /** Who listens at that address, if it can be reached from there. */
  find(from: MemoryTransport, key: MemberKey, address: Address): MemoryTransport | undefined {
    const node = this.#nodes.get(placeOf(address));
    return node?.key === key && !this.isCut(from.key, key) ? node : undefined;
  }

  remove(node: MemoryTransport): void {
    for (const [place, other] of this.#nodes) if (other === node) this.#nodes.delete(place);
  }
}

const placeOf = ({ host, port }: Address): string => `${host}:${port}`;

/** One end of a pair: what is sent at one comes out at the other, in order, until it is closed. */
class End {
  other!: End;
  isOpen = true;
  onMessage: (bytes: Uint8Array) => void = () => undefined;
  onDatagram: (bytes: Uint8Array) => void = () => undefined;
  onClosed: () => void = () => undefined;
  readonly owner: MemoryTransport;
  readonly #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #isRefusing = false;
  #isDoomed = false;

  constructor(owner: MemoryTransport) {
    this.owner = owner;
  }

  get #isCut(): boolean {
    return (
      this.owner.isDead || this.other.owner.isDead || this.owner.network.isCut(this.owner.key, this.other.owner.key)
    );
  }

  send(bytes: Uint8Array): boolean {
    assert(bytes.length > 0 && bytes.length <= MESSAGE_BYTES_MAX, `a message of 1 to ${MESSAGE_BYTES_MAX} bytes`);
    if (!this.isOpen) return false;
    this.#isRefusing ||= this.#queue.length >= QUEUE_MESSAGES_MAX || this.#queuedBytes + bytes.length > QUEUE_BYTES_MAX;
    if (this.#isRefusing) {
      this.owner.counts.sendsRefused++;
      return false;
    }
    this.#queue.push(new Uint8Array(bytes));
    this.#queuedBytes += bytes.length;
    this.owner.later(() => this.#deliver());
    return true;
  }

  /** Each call takes the head of the queue, so that delays change no order. */
  #deliver(): void {
    if (this.checkCut()) return;
    const bytes = this.#queue.shift();
    if (bytes === undefined) return;
    this.#queuedBytes -= bytes.length;
    if (this.#queue.length === 0) this.#isRefusing = false;
    this.owner.counts.messagesOut++;
    this.owner.counts.bytesOut += bytes.length;
    if (!this.other.isOpen) return;
    this.other.owner.counts.messagesIn++;
    this.other.owner.counts.bytesIn += bytes.length;
    this.other.onMessage(bytes);
  }

  sendDatagram(bytes: Uint8Array): boolean {
    assert(bytes.length > 0 && bytes.length <= DATAGRAM_BYTES_MAX, `a datagram of 1 to ${DATAGRAM_BYTES_MAX} bytes`);
    if (!this.isOpen) return false;
    const { network, counts } = this.owner;
    counts.datagramsOut++;
    counts.bytesOut += bytes.length;
    const copy = new Uint8Array(bytes);
    if (network.random.below(100) >= network.lossPercent)
      this.owner.later(() => {
        if (!this.isOpen || !this.other.isOpen || this.checkCut()) return;
        this.other.owner.counts.datagramsIn++;
        this.other.owner.counts.bytesIn += copy.length;
        this.other.onDatagram(copy);
      });
    return true;
  }

  /** Whether nothing gets through any more: then the link ends after the idle time, mended or not, as something was lost. */
  checkCut(): boolean {
    if (!this.#isDoomed && this.#isCut)
      for (const end of [this, this.other]) {
        end.#isDoomed = true;
        end.owner.network.clock.after(end.owner.network.idleMs, () => end.close());
      }
    return this.#isDoomed;
  }

  closeBoth(): void {
    this.close();
    this.other.close();
  }

  close(): void {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.onClosed();
  }

  /** Ends both once what was sent has come. */
  finish(): void {
    if (this.#queue.length === 0) this.closeBoth();
    else this.owner.later(() => this.finish());
  }
}

class MemoryTransport implements Transport {
  readonly key: MemberKey;
  readonly address: Address;
  readonly network: MemoryNetwork;
  readonly counts = newCounts();
  isDead = false;
  readonly #cluster: ClusterId;
  readonly #handlers: TransportHandlers;
  readonly #links = new Map<MemberKey, End>();
  readonly #joins = new Set<End>();
  #admitted = new Map<MemberKey, readonly Address[]>();
  #cancelRound: Cancel | null = null;

  constructor(network: MemoryNetwork, { seed, cluster, address, handlers }: MemoryTransportOptions) {
    this.key = memberKey(signerFromSeed(seed).publicKey);
    this.address = address;
    this.network = network;
    this.#cluster = cluster;
    this.#handlers = handlers;
  }

  /** After the latency of one message, unless this node is dead by then. */
  later(fn: () => void): void {
    const { clock, random, latencyMsMax } = this.network;
    clock.after(random.below(latencyMsMax + 1), () => {
      if (!this.isDead) fn();
    });
  }

  setAdmitted(members: ReadonlyMap<MemberKey, readonly Address[]>): void {
    assert(members.size <= ADMITTED_MAX, `at most ${ADMITTED_MAX} members`);
    for (const key of members.keys()) publicKeyOf(key);
    this.#admitted = new Map(members);
    this.#admitted.delete(this.key);
    for (const [key, end] of this.#links) if (!this.#admitted.has(key)) this.#part(end);
    this.#round();
  }

  links(): MemberKey[] {
    return [...this.#links.keys()];
  }

  send(to: MemberKey, bytes: Uint8Array): boolean {
    return this.#links.get(to)?.send(bytes) ?? false;
  }

  sendDatagram(to: MemberKey, bytes: Uint8Array): boolean {
    return this.#links.get(to)?.sendDatagram(bytes) ?? false;
  }

  join(member: MemberKey, address: Address, handlers: JoinHandlers): Promise<JoinLink> {
    return new Promise((resolve, reject) => {
      this.later(() => {
        const node = this.network.find(this, member, address);
        const joiner = node?.takes(this.#cluster);
        if (node === undefined || joiner === undefined)
          return reject(new WaggleError('NOT_READY', `Expected member ${member} to take a request to join: no answer`));
        const [near, far] = pair(this, node);
        node.addJoin(far, joiner);
        resolve(this.#joinLink(near, handlers));
      });
    });
  }

  counters(): TransportCounters {
    return { links: this.#links.size, ...this.counts };
  }

  async close(): Promise<void> {
    this.network.remove(this);
    this.#cancelRound?.();
    for (const end of [...this.#links.values(), ...this.#joins]) end.closeBoth();
    this.isDead = true;
    await Promise.resolve();
  }

  die(): void {
    this.isDead = true;
    this.#cancelRound?.();
    this.checkLinks();
  }

  checkLinks(): void {
    for (const end of [...this.#links.values(), ...this.#joins]) end.checkCut();
  }

  /** How this node takes strangers of that cluster; undefined if it does not. */
  takes(cluster: ClusterId): TransportHandlers['joiner'] {
    return cluster === this.#cluster ? this.#handlers.joiner?.bind(this.#handlers) : undefined;
  }

  addJoin(end: End, joiner: (link: JoinLink) => JoinHandlers): void {
    // As on the real network: whoever shows nothing valid is gone after a while.
    let cancel: Cancel = this.network.clock.after(this.network.idleMs, () => end.closeBoth());
    const allow = (ms: number): void => {
      cancel();
      cancel = this.network.clock.after(ms, () => end.closeBoth());
    };
    const handlers = joiner({ ...this.#joinLink(end, null), allow });
    end.onMessage = (bytes) => handlers.message(bytes);
    end.onClosed = () => {
      cancel();
      this.#joins.delete(end);
      handlers.closed();
    };
    this.#joins.add(end);
  }

  #joinLink(end: End, handlers: JoinHandlers | null): JoinLink {
    if (handlers !== null) {
      end.onMessage = (bytes) => handlers.message(bytes);
      end.onClosed = () => handlers.closed();
    }
    return {
      key: end.other.owner.key,
      send: (bytes) => end.send(bytes),
      allow: () => undefined,
      close: () => end.finish(),
    };
  }

  #round(): void {
    this.#cancelRound?.();
    this.#cancelRound = null;
    if (this.isDead) return;
    const missing = [...this.#admitted].filter(([key]) => !this.#links.has(key));
    for (const [key, [address]] of missing) if (address !== undefined) this.later(() => this.#dial(key, address));
    if (missing.length > 0) this.#cancelRound = this.network.clock.after(this.network.retryMs, () => this.#round());
  }

  #dial(key: MemberKey, address: Address): void {
    if (this.#links.has(key) || !this.#admitted.has(key)) return;
    this.counts.dials++;
    const node = this.network.find(this, key, address);
    const isAdmitted = node !== undefined && node.#admits(this);
    const isTold = node !== undefined && !isAdmitted && (node.#handlers.farewell?.(this.key) ?? null) !== null;
    if (node === undefined || !(isAdmitted || isTold)) {
      this.counts.dialsFailed++;
      return;
    }
    const [near, far] = pair(this, node);
    this.#link(near);
    if (isAdmitted) node.#link(far);
    else node.#part(far);
  }

  /** Closes a link to a key that is not admitted, with a last word if there is one. */
  #part(end: End): void {
    const { key } = end.other.owner;
    const last = this.#handlers.farewell?.(key) ?? null;
    const isLinked = this.#links.get(key) === end;
    if (isLinked) this.#links.delete(key);
    end.onMessage = () => undefined;
    end.onDatagram = () => undefined;
    end.onClosed = () => undefined;
    if (last !== null) end.send(last);
    end.finish();
    if (isLinked) this.#handlers.disconnected(key);
  }

  #admits(node: MemoryTransport): boolean {
    if (this.#admitted.has(node.key) && node.#cluster === this.#cluster) return true;
    this.counts.handshakesRefused++;
    return false;
  }

  /** The newest link of a key wins. */
  #link(end: End): void {
    const { key } = end.other.owner;
    const older = this.#links.get(key);
    this.#links.set(key, end);
    if (older !== undefined) {
      older.onClosed = () => undefined;
      older.close();
      this.#handlers.disconnected(key);
    }
    end.onMessage = (bytes) => this.#handlers.message(key, bytes);
    end.onDatagram = (bytes) => this.#handlers.datagram(key, bytes);
    end.onClosed = () => {
      if (this.#links.get(key) !== end) return;
      this.#links.delete(key);
      if (this.isDead) return;
      this.#handlers.disconnected(key);
      this.#round();
    };
    this.#handlers.connected(key);
  }
}

function pair(a: MemoryTransport, b: MemoryTransport): [near: End, far: End] {
  const near = new End(a);
  const far = new End(b);
  near.other = far;
  far.other = near;
  return [near, far];
}
