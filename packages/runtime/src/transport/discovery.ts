import { framed, hex, type ClusterId, type Crypto, type Random } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import type DHT from 'hyperdht';
import type Hyperswarm from 'hyperswarm';
import type { Cancel, Clock } from '../clock.ts';
import { memberKey, type Address } from './transport.ts';

/** Between two look-ups of a node that is alone, in ms; up to a quarter more by chance. */
const ALONE_MS = 3_000;

export interface DiscoveryOptions {
  readonly swarm: Hyperswarm;
  readonly dht: DHT;
  readonly cluster: ClusterId;
  readonly crypto: Crypto;
  readonly clock: Clock;
  readonly random: Random;
  /** Whether there are members, and a link to none. */
  isAlone(): boolean;
  /** Somebody announced this key at these addresses. The DHT is unauthenticated: that says nothing of membership. */
  found(key: MemberKey, addresses: readonly Address[]): void;
}

/**
 * The cluster's topic in the DHT, by which a node that knows no live address of a member finds one. Announced always, looked up
 * only while alone. Announced again while alone, too: of nodes that announce at once, none knows yet whom to tell.
 */
export class Discovery {
  readonly #options: DiscoveryOptions;
  readonly #topic: Buffer;
  readonly #session: ReturnType<Hyperswarm['join']>;
  #cancelTimer: Cancel = () => undefined;
  #isStopped = false;

  constructor(options: DiscoveryOptions) {
    this.#options = options;
    this.#topic = Buffer.from(options.crypto.sha256(framed('waggle-topic/v1', hex.decode(options.cluster))));
    // Not as a client: Hyperswarm would dial whoever announces, and keep every key that it must not dial for ever.
    this.#session = options.swarm.join(this.#topic, { server: true, client: false });
    this.#later();
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelTimer();
  }

  #later(): void {
    const { clock, random } = this.#options;
    this.#cancelTimer = clock.after(ALONE_MS + random.below(ALONE_MS / 4), () => void this.#turn());
  }

  async #turn(): Promise<void> {
    if (this.#options.isAlone()) {
      // It fails when nobody answers one that is under way already: the next turn tries again.
      await this.#session.refresh().catch(() => undefined);
      await this.#lookUp();
    }
    if (!this.#isStopped) this.#later();
  }

  async #lookUp(): Promise<void> {
    if (this.#isStopped) return;
    try {
      for await (const { peers } of this.#options.dht.lookup(this.#topic)) {
        if (this.#isStopped) return;
        for (const { publicKey, relayAddresses } of peers) this.#options.found(memberKey(publicKey), relayAddresses);
      }
    } catch {
      // No node answers, or the transport is being closed: the next turn, if there is one, tries again.
    }
  }
}
