import { vi } from 'vitest';
import { seededRandom, type ClusterId } from '@waggle/protocol/base';
import type { MemberKey } from '@waggle/protocol/membership';
import { signerFromSeed } from '../../src/index.ts';
import { memberKey, type Address, type Transport, type TransportHandlers } from '../../src/transport/index.ts';

export const CLUSTER = 'c1'.repeat(32) as ClusterId;
export const OTHER_CLUSTER = 'c2'.repeat(32) as ClusterId;
/** A key pair by number. */
export const seedOf = (n: number): Uint8Array => seededRandom(n).bytes(32);
export const keyOf = (n: number): MemberKey => memberKey(signerFromSeed(seedOf(n)).publicKey);

export interface OpenOptions {
  readonly cluster?: ClusterId;
  readonly joiner?: TransportHandlers['joiner'];
  readonly farewell?: TransportHandlers['farewell'];
}

/** A process of its own that sends every message back. */
export interface Echo {
  /** Ends it without a word to anybody. */
  kill(): Promise<void>;
}

/** Some network, on which numbered nodes listen at fixed addresses. */
export interface NetworkUnderTest {
  addressOf(n: number): Address;
  open(n: number, options?: OpenOptions): Promise<TestNode>;
  /** Node `n` as an echo that admits those, and dials nobody. */
  echo(n: number, members: readonly number[]): Promise<Echo>;
  /** Closes whatever is still open. */
  close(): Promise<void>;
}

/** A transport and what it has told. */
export interface TestNode {
  readonly transport: Transport;
  readonly log: EventLog;
}

/** Keeps what a transport tells. */
export class EventLog {
  readonly messages: { readonly from: MemberKey; readonly bytes: Uint8Array }[] = [];
  readonly datagrams: { readonly from: MemberKey; readonly bytes: Uint8Array }[] = [];
  /** `+` and `-` for each link that came and went, by member. */
  readonly links = new Map<MemberKey, string>();

  handlers({ joiner, farewell }: Pick<OpenOptions, 'joiner' | 'farewell'> = {}): TransportHandlers {
    return {
      connected: (key) => this.links.set(key, `${this.linksOf(key)}+`),
      disconnected: (key) => this.links.set(key, `${this.linksOf(key)}-`),
      message: (from, bytes) => this.messages.push({ from, bytes }),
      datagram: (from, bytes) => this.datagrams.push({ from, bytes }),
      ...(joiner === undefined ? {} : { joiner }),
      ...(farewell === undefined ? {} : { farewell }),
    };
  }

  linksOf(key: MemberKey): string {
    return this.links.get(key) ?? '';
  }
}

/** Looks again and again until it does not throw. */
export const until = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 30_000, interval: 5 });
