import { join } from 'node:path';
import { encodeFact, factKey } from '@waggle/protocol/authority';
import { HybridClock, parseHlc, WaggleError, type Epoch, type ErrorCode, type ReplicaId } from '@waggle/protocol/base';
import type { MemberChange, MemberKey } from '@waggle/protocol/membership';
import { epochAt } from '@waggle/protocol/sealing';
import { Identity, type Context, type Write } from '@waggle/identity';
import { createPool, type Pool, type PoolEvent } from '@waggle/images';
import {
  Driver,
  entropy,
  META,
  nodeCrypto,
  openDataDirectory,
  openStore,
  readNodeKeys,
  signerFromSeed,
  sweepSlots,
  systemClock,
  takeStanding,
  writePrivateFile,
  type Cancel,
  type DataDirectory,
  Welcome,
  type NodeLoad,
  type Standing,
  type Store,
} from '@waggle/runtime';
import { openTransport, type Address, type Transport } from '@waggle/runtime/transport';
import type { Config } from './config.ts';
import { Accusations } from './accusations.ts';
import { StandingAlarms, type NodeAlarm } from './alarms.ts';
import { hasCaughtUp, isBanned } from './cluster.ts';
import { inviteOf } from './join.ts';
import { Keeping } from './keeping.ts';
import { Presence } from './presence.ts';
import { banned } from './probe.ts';
import { Relay } from './relay.ts';
import { Settling } from './settling.ts';
import { Work } from './work.ts';

/** What a node tells whoever watches it: metrics and logs. */
export interface Observer {
  /** A transaction is on disk: ms it took, meterings and writes in it. */
  readonly commit: (ms: number, entries: number) => void;
  readonly sealed: (epoch: Epoch) => void;
  /** A member got into another state for this node. */
  readonly member: (change: MemberChange) => void;
  /** A member sent what no correct node sends. It changed nothing. */
  readonly misbehaviour: (from: ReplicaId, code: ErrorCode) => void;
  /** Something that a person should hear of. */
  readonly alarm: (alarm: NodeAlarm) => void;
  /** A newcomer was let in, or sent away. */
  readonly joined: (replica: ReplicaId) => void;
  readonly joinRefused: (from: MemberKey, error: WaggleError) => void;
  /** Something happened to a worker process. */
  readonly worker: (event: PoolEvent) => void;
  /** Old request records could not be moved into Parquet files, or old slots not be dropped: tried again when the next epoch is old. */
  readonly keepingFailed: (error: unknown) => void;
  /** The node cannot go on; it stops itself. */
  readonly fatal: (error: WaggleError) => void;
}

/** A name in the data directory. */
const OPERATOR_TOKEN_FILE = 'operator.token';
export const OPERATOR_KEY_FILE = 'operator.key';
/** SQLite's page, in bytes. */
const PAGE_BYTES = 4_096;
const TICK_MS = 1_000;
/** Addresses at which the DHT is entered: it tells of more. */
const SEEDS_MAX = 16;
/** Name in the store's `meta`: the node has once known the cluster's customers. */
const INFORMED = 'informed';
/** How long an admission may take to reach another member before the newcomer is told of it all the same, in ms. */
const SPREAD_MS_MAX = 2_000;
/** How long a node that goes waits for others to hold its last usage, in ms. */
const LEAVE_MS_MAX = 10_000;

interface Parts {
  readonly config: Config;
  readonly standing: Standing;
  readonly store: Store;
  readonly identity: Identity;
  readonly driver: Driver;
  readonly transport: Transport;
  readonly pool: Pool;
  readonly data: DataDirectory;
  readonly observer: Observer;
  readonly alarms: StandingAlarms;
  readonly isInformed: boolean;
}

/** A running node, without its HTTP server: everything that the routes call. */
export class Node {
  readonly config: Config;
  readonly standing: Standing;
  readonly store: Store;
  readonly identity: Identity;
  readonly driver: Driver;
  readonly pool: Pool;
  readonly work: Work;
  /** What was found since the start and still holds. */
  readonly alarms: StandingAlarms;
  /** What others wrote about sealing that no correct node writes. */
  readonly accusations: Accusations;
  readonly clock = systemClock;
  /** Path of the file with the operator token, if this node made it. */
  readonly operatorTokenFile: string;
  readonly #transport: Transport;
  readonly #presence: Presence;
  readonly #data: DataDirectory;
  readonly #observer: Observer;
  #managing: Promise<unknown> = Promise.resolve();
  readonly #keeping: Keeping;
  #isInformed: boolean;
  /** Once it is informed, until the disk says so: whether all is there that it was informed of. */
  #isOnDisk: (() => boolean) | undefined;
  readonly #settling: Settling;
  /** Whether it is on disk that this replica was overtaken: the next start must know. */
  #isOvertakenKept = false;
  #stopTicking: Cancel | undefined;
  #isDraining = false;

  private constructor({
    config,
    standing,
    store,
    identity,
    driver,
    transport,
    pool,
    data,
    observer,
    alarms,
    isInformed,
  }: Parts) {
    this.config = config;
    this.standing = standing;
    this.store = store;
    this.identity = identity;
    this.driver = driver;
    this.pool = pool;
    this.#transport = transport;
    this.#presence = new Presence({
      driver,
      clock: this.clock,
      load: () => this.load,
      isInformed: () => this.#isOnceInformed,
    });
    this.alarms = alarms;
    this.accusations = new Accusations({
      directory: data.path,
      cluster: standing.cluster.id,
      clock: this.clock,
      found: () => driver.evidence,
      alarm: observer.alarm,
    });
    this.#data = data;
    this.#observer = observer;
    this.#isInformed = isInformed;
    const { replica } = standing;
    // A newcomer is not informed before it has heard somebody anyway.
    const hasOthers = isInformed && driver.authority.admittedReplicas().some((other) => other.replica !== replica);
    this.#settling = new Settling({ clock: this.clock, hasOthers, hasCaughtUp: () => hasCaughtUp(driver) });
    this.#keeping = new Keeping({
      rollRecords: (before) => store.rollRecords(before, () => !this.#isDraining),
      sweepSlots: async (from, nowMs) => (await this.#sweep(from, nowMs)).from,
      failed: observer.keepingFailed,
    });
    this.operatorTokenFile = join(data.path, OPERATOR_TOKEN_FILE);
    this.work = new Work(this);
  }

  /**
   * Opens the data directory; founds a cluster or joins one if it is new; loads everything and starts the workers. Throws
   * `CONFIG_INVALID`, `DATA_LOCKED`, `DATA_DAMAGED`, `DATA_NEWER`, `DATA_COPIED`, `PORT_IN_USE` or `STORE_FULL`, and for an
   * invite `INVITE_INVALID`, `INVITE_EXPIRED`, `INVITE_USED`, `FACT_REFUSED` or `PEER_UNREACHABLE`; then nothing keeps running.
   */
  static async open(config: Config, observer: Observer): Promise<Node> {
    const data = openDataDirectory(config.data);
    const undo: (() => unknown)[] = [() => data.close()];
    try {
      const pageCountMax =
        config.databaseBytesMax === null ? {} : { pageCountMax: Math.ceil(config.databaseBytesMax / PAGE_BYTES) };
      // Keys without a store are a store that was lost, not a first start.
      const store = await openStore({
        directory: data.path,
        mayCreate: readNodeKeys(data.path) === null,
        ...pageCountMax,
      });
      undo.push(() => store.close());
      const loaded = await store.load();
      const relay = new Relay();
      const { standing, transport } = await takeStanding({
        directory: data.path,
        store,
        meta: loaded.meta,
        founding: { name: config.origin, epochMs: config.epochMs, sealGraceMs: config.sealGraceMs },
        invite: inviteOf(config.join),
        isMoved: config.dataMoved,
        random: entropy,
        clock: systemClock,
        openTransport: async (cluster, keys, seeds) => {
          const opened = await openTransport({
            seed: keys.transportSeed,
            cluster,
            address: { host: (config.swarmAdvertise ?? config.swarm).host, port: config.swarm.port },
            host: config.swarm.host,
            seeds: seeds.slice(0, SEEDS_MAX),
            handlers: relay,
            clock: systemClock,
            random: entropy,
          });
          undo.push(() => opened.close());
          return opened;
        },
      });
      const hlc = loaded.meta.get(META.hlc);
      const clock = new HybridClock(hlc === undefined ? undefined : parseHlc(hlc));
      const { replica, run } = standing;
      const identity = new Identity({ crypto: nodeCrypto, random: entropy, signerFromSeed, clock, replica, run });
      const alarms = new StandingAlarms(systemClock);
      const driver = await Driver.start({
        store,
        loaded,
        standing,
        clock: systemClock,
        hlc: clock,
        random: entropy,
        onControl: (writer, register) => identity.fold(writer, register, systemClock.nowMs()),
        onSealed: observer.sealed,
        onCommit: observer.commit,
        onMember: observer.member,
        onMisbehaviour: (from, code) => {
          alarms.misbehaved(from, code);
          observer.misbehaviour(from, code);
        },
        onAlarm: (alarm) => {
          alarms.raise(alarm);
          observer.alarm(alarm);
        },
        onFatal: observer.fatal,
      });
      undo.push(() => driver.close());
      const welcome = new Welcome({
        cluster: standing.cluster,
        authority: driver.authority,
        clock: systemClock,
        addresses: () =>
          [...driver.addresses()].flatMap(([transportKey, each]) =>
            each.map(({ host, port }) => ({ transportKey, host, port })),
          ),
        openEpoch: () => driver.openEpoch,
        admit: async (fact) => {
          if (isBanned(driver)) throw banned();
          const version = await driver.write([{ key: factKey(fact), value: encodeFact(fact) }]);
          // A newcomer whose admission was known here alone would belong to nobody if this disk were lost.
          if (driver.hasOthers) await driver.follow(version, (held) => held.length > 0, SPREAD_MS_MAX);
        },
        joined: observer.joined,
        refused: observer.joinRefused,
      });
      relay.connect(driver.transportHandlers, welcome);
      const pool = createPool({
        workers: config.workers,
        queueMax: config.queueMax,
        memoryBytesMax: config.workerMemoryBytes,
        onEvent: observer.worker,
      });
      undo.push(() => pool.close());
      const isFounder = standing.cluster.genesis.roster.some((entry) => entry.replica === standing.replica);
      const isInformed = isFounder || loaded.meta.has(INFORMED);
      const node = new Node({
        config,
        standing,
        store,
        identity,
        driver,
        transport,
        pool,
        data,
        observer,
        alarms,
        isInformed,
      });
      if (isFounder) await node.#ensureOperatorToken();
      driver.attach(transport);
      node.#tick();
      return node;
    } catch (error) {
      for (const step of undo.reverse())
        try {
          await step();
        } catch {
          // What has failed already is not undone; what comes before it still is, and the first error is the one to be told.
        }
      throw error;
    }
  }

  /** Whether the node takes no more requests. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  /**
   * Whether it knows the cluster's customers: a newcomer does once it has had all that a member had which does, and from then on,
   * cut off or not, but for the first moments of a start.
   */
  get isInformed(): boolean {
    return this.#isOnceInformed && !this.isSettling;
  }

  /** Whether it was put out of the cluster: nobody takes what it counts or changes. */
  get isBanned(): boolean {
    return isBanned(this.driver);
  }

  /** Whether it has just started again and may not have heard yet which keys were made and revoked last. */
  get isSettling(): boolean {
    return !this.#settling.isOver;
  }

  get #isOnceInformed(): boolean {
    if (!this.#isInformed && hasCaughtUp(this.driver)) {
      this.#isInformed = true;
      this.#isOnDisk = this.driver.mark();
    }
    return this.#isInformed;
  }

  /** What it was informed of is on disk by now: a restart does not forget it. */
  #rememberInformed(): void {
    if (this.#isOnDisk?.() !== true) return;
    const isOnDisk = this.#isOnDisk;
    this.#isOnDisk = undefined;
    this.store.commit({ meta: [[INFORMED, '1']] }).catch(() => {
      this.#isOnDisk = isOnDisk;
    });
  }

  /** How busy it is. */
  get load(): NodeLoad {
    const { running, queued } = this.pool.stats;
    return { workers: this.config.workers, running, queued };
  }

  /** Where the others dial it. */
  get address(): Address {
    return this.config.swarmAdvertise ?? this.#transport.address;
  }

  /** Tells the others what clients call this node, and the version of its program. */
  announce(url: string, version: string): Promise<void> {
    return this.#presence.announce({ address: this.address, url, zone: this.config.zone, version });
  }

  /**
   * Runs a management command: what it decides is on disk and folded when this resolves, with the version of this replica's
   * registers that others must hold to have it. One at a time, because commands decide by what is folded. Throws what the command
   * throws, and `STORE_FULL`, `STORE_FAILED`, `STORE_BUSY` or `DRAINING`; `NOT_READY` where this replica was overtaken or banned.
   */
  manage<T extends { readonly writes: readonly Write[] }>(
    actor: Context['actor'],
    command: (context: Context) => T,
  ): Promise<T & { readonly version: number }> {
    const result = this.#managing.then(async () => {
      if (this.isBanned) throw banned();
      if (this.alarms.isOvertaken) throw overtaken();
      const done = command({ actor, nowMs: this.clock.nowMs() });
      const version = await this.driver.write(done.writes);
      return { ...done, version };
    });
    this.#managing = result.catch(() => undefined);
    return result;
  }

  /** From now on nothing is taken in; what is running goes on. */
  drain(): void {
    this.#isDraining = true;
  }

  /**
   * Ends the work in flight, writes everything, hands the last usage to another member, leaves and gives the data directory up.
   * Gives whether a member that is reachable holds it all; true if nobody else belongs to the cluster.
   */
  async close(): Promise<boolean> {
    this.drain();
    await this.pool.close();
    await this.work.idle();
    this.#stopTicking?.();
    await this.#managing;
    await this.#keeping.idle;
    await this.#keepOvertaken();
    const isHeld = await this.driver.leave(LEAVE_MS_MAX);
    await this.driver.close();
    await this.#transport.close();
    await this.store.close();
    this.#data.close();
    return isHeld;
  }

  /** Once a second: lets what was quarantined in when its time has come, says how busy it is, moves old records out, and notices a second start and new evidence. */
  #tick(): void {
    const nowMs = this.clock.nowMs();
    this.identity.tick(nowMs);
    void this.isInformed;
    this.#rememberInformed();
    void this.#keepOvertaken();
    this.#watchDirectory();
    this.accusations.look();
    // A node that cannot write has said so; the next tick tries again.
    this.#presence.tick().catch(() => undefined);
    this.#keepHouse(nowMs);
    this.#stopTicking = this.clock.after(TICK_MS, () => this.#tick());
  }

  /** Whoever wanted the data directory was told that it is in use; whoever runs this node is told here. */
  #watchDirectory(): void {
    const refused = this.#data.refused();
    if (refused === null) return;
    const alarm = { what: 'secondStart', ...refused } as const;
    this.alarms.raise(alarm);
    this.#observer.alarm(alarm);
  }

  /** Writes down that this replica was overtaken. On a full or locked disk the next tick tries again. */
  async #keepOvertaken(): Promise<void> {
    if (!this.alarms.isOvertaken || this.#isOvertakenKept) return;
    this.#isOvertakenKept = true;
    try {
      await this.store.commit({ meta: [[META.overtaken, this.standing.replica]] });
    } catch (error) {
      this.#isOvertakenKept = false;
      const isTransient = error instanceof WaggleError && ['STORE_FULL', 'STORE_BUSY'].includes(error.code);
      if (!isTransient) this.#observer.fatal(error as WaggleError);
    }
  }

  /** Moves old records out and drops old slots, when an epoch has become old enough. */
  #keepHouse(nowMs: number): void {
    const { driver, config } = this;
    const { genesis } = this.standing.cluster;
    const before = (retentionMs: number): Epoch => Math.min(epochAt(genesis, nowMs - retentionMs), driver.sealingEpoch);
    this.#keeping.tick({ records: before(config.recordRetentionMs), slots: before(config.slotRetentionMs), nowMs });
  }

  #sweep(from: Epoch, nowMs: number): ReturnType<typeof sweepSlots> {
    const { driver, store, config, standing } = this;
    return sweepSlots(from, nowMs, {
      store,
      genesis: standing.cluster.genesis,
      slotRetentionMs: config.slotRetentionMs,
      sealingEpoch: () => driver.sealingEpoch,
      counted: () => driver.counted,
      drop: (digests, limit) => store.commit({ expireContents: digests.map((digest) => ({ digest, before: limit })) }),
    });
  }

  /** A new cluster gets its first operator token: the configured one, or one that is made and kept in a file of mode 0600. */
  async #ensureOperatorToken(): Promise<void> {
    if (this.identity.listTokens().some(({ role, revoked }) => role === 'operator' && !revoked)) return;
    const actor = { credential: 'founding', role: 'node' } as const;
    const text = this.config.operatorToken ?? undefined;
    await this.manage(actor, (context) => {
      const created = this.identity.createToken(context, { role: 'operator', name: 'founder', text });
      // Before the commit: a token that is in force but written nowhere would lock the operator out.
      if (text === undefined) writePrivateFile(this.operatorTokenFile, `${created.token}\n`);
      return created;
    });
  }
}

const overtaken = (): WaggleError =>
  new WaggleError(
    'NOT_READY',
    'Expected a node that may change things; this one was put back from an older copy of its data and serves only: ask another ' +
      'node, and start this one again with --join and a new invite',
  );
