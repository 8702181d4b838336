import { afterAll, afterEach } from 'vitest';
import { base64, type Epoch } from '@waggle/protocol/base';
import {
  Authority,
  createInvite,
  encodeFact,
  factKey,
  type Admit,
  type InviteAddress,
  type InviteOptions,
} from '@waggle/protocol/authority';
import type { Cluster } from '@waggle/protocol/sealing';
import { takeStanding, type Standing } from '../../src/driver/founding.ts';
import {
  entropy,
  nodeCrypto,
  openDataDirectory,
  openStore,
  readOperatorKey,
  signerFromSeed,
  systemClock,
  type DataDirectory,
  type NodeKeys,
  type Store,
} from '../../src/index.ts';
import { Welcome, type WelcomeOptions } from '../../src/joining/index.ts';
import { openTransport, type Address, type JoinHandlers, type Transport } from '../../src/transport/index.ts';
import { temporaryDirectories } from '../support.ts';
import { freePort } from '../transport/real.ts';

const HOST = '127.0.0.1';
/** The epoch that every member of these tests meters in. */
export const OPEN_EPOCH: Epoch = 1;

export interface StartOptions {
  readonly directory: string;
  readonly invite?: string | null;
  readonly isMoved?: boolean;
  /** Where it listens; a free port unless said. */
  readonly address?: Address;
  /** What stands between the node and its disk. */
  readonly wrap?: (store: Store) => Pick<Store, 'commit'>;
  /** As `WelcomeOptions.admit`, before the fact is written. */
  readonly beforeAdmit?: (node: TestMember, fact: Admit) => unknown;
  /** The same, after it is. */
  readonly afterAdmit?: (node: TestMember, fact: Admit) => unknown;
  readonly nowMs?: () => number;
}

/** A node as far as joining goes: directory, store, standing, transport, and the view of the roster facts. */
export interface TestMember {
  readonly standing: Standing;
  readonly store: Store;
  readonly transport: Transport;
  readonly address: Address;
  readonly authority: Authority;
  readonly joined: string[];
  readonly refused: string[];
  stop(): Promise<void>;
}

export interface Nodes {
  readonly temporary: () => string;
  /** Throws what `takeStanding` throws; then nothing of it keeps running. */
  start(options: StartOptions): Promise<TestMember>;
}

/** Nodes on the loopback interface with real directories, stores and transports, which go away after each test. */
export function testNodes(): Nodes {
  const temporary = temporaryDirectories();
  const running = new Set<() => Promise<void>>();
  const stopAll = async (): Promise<void> => {
    await Promise.all([...running].map((stop) => stop()));
  };
  afterEach(stopAll);
  afterAll(stopAll);

  async function start(options: StartOptions): Promise<TestMember> {
    const data: DataDirectory = openDataDirectory(options.directory);
    const store = await openStore({ directory: data.path });
    let opened: Transport | undefined;
    const stop = async (): Promise<void> => {
      running.delete(stop);
      await opened?.close();
      await store.close();
      data.close();
    };
    running.add(stop);
    const address = options.address ?? { host: HOST, port: await freePort() };
    let welcome: Welcome | undefined;
    const handlers = {
      connected: () => undefined,
      disconnected: () => undefined,
      message: () => undefined,
      datagram: () => undefined,
      joiner: (link: Parameters<Welcome['joiner']>[0]): JoinHandlers => {
        if (welcome !== undefined) return welcome.joiner(link);
        link.close();
        return { message: () => undefined, closed: () => undefined };
      },
    };
    const { invite } = options;
    try {
      const { meta } = await store.load();
      const { standing, transport } = await takeStanding({
        directory: data.path,
        store: options.wrap?.(store) ?? store,
        meta,
        founding: { name: 'test.example', epochMs: 60_000, sealGraceMs: 0 },
        invite: invite === undefined || invite === null ? null : { needed: () => invite, atHand: () => invite },
        isMoved: options.isMoved ?? false,
        random: entropy,
        clock: systemClock,
        openTransport: async (cluster, keys, seeds) => {
          opened = await openTransport({
            seed: keys.transportSeed,
            cluster,
            address,
            host: HOST,
            seeds,
            handlers,
            clock: systemClock,
            random: entropy,
          });
          return opened;
        },
      });
      const authority = new Authority({ cluster: standing.cluster, crypto: nodeCrypto });
      for (const { key, value } of standing.facts) authority.fold(key, value);
      await store.loadControl((rows) => rows.forEach(({ key, value }) => authority.fold(key, value)));
      const member: TestMember = { standing, store, transport, address, authority, joined: [], refused: [], stop };
      welcome = new Welcome(welcomeOptions(member, options));
      return member;
    } catch (error) {
      await stop();
      throw error;
    }
  }
  return { temporary, start };
}

function welcomeOptions(member: TestMember, options: StartOptions): WelcomeOptions {
  const { standing, store, authority, joined, refused } = member;
  let version = 0;
  return {
    cluster: standing.cluster,
    authority,
    clock: { nowMs: () => options.nowMs?.() ?? systemClock.nowMs() },
    addresses: () => [addressOf(member)],
    openEpoch: () => OPEN_EPOCH,
    admit: async (fact) => {
      await options.beforeAdmit?.(member, fact);
      const register = { key: factKey(fact), value: encodeFact(fact) };
      const row = {
        ...register,
        replica: standing.replica,
        version: ++version,
        signature: base64.encode(new Uint8Array(64)),
      };
      await store.commit({ control: [row] });
      authority.fold(register.key, register.value);
      await options.afterAdmit?.(member, fact);
    },
    joined: (replica) => joined.push(replica),
    refused: (_, { code }) => refused.push(code),
  };
}

/** As an invite names it. */
export const addressOf = ({ standing, address }: Pick<TestMember, 'standing' | 'address'>): InviteAddress => ({
  transportKey: keyText(standing.keys),
  ...address,
});
export const keyText = ({ transport }: Pick<NodeKeys, 'transport'>): string => base64.encode(transport.publicKey);

/** The text of an invite to the cluster that a directory founded. */
export function inviteFrom(
  founderDirectory: string,
  cluster: Cluster,
  addresses: readonly InviteAddress[],
  options: Partial<Pick<InviteOptions, 'uses' | 'expiresInMs' | 'nowMs'>> = {},
): string {
  return createInvite({
    cluster,
    operator: readOperatorKey(founderDirectory)!,
    addresses,
    nowMs: systemClock.nowMs(),
    crypto: nodeCrypto,
    random: entropy,
    signerFromSeed,
    ...options,
  }).invite;
}
