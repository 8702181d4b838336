import { join } from 'node:path';
import { HybridClock, parseHlc, WaggleError, type Epoch } from '@waggle/protocol/base';
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
  systemClock,
  takeStanding,
  writePrivateFile,
  type Cancel,
  type DataDirectory,
  type Standing,
  type Store,
} from '@waggle/runtime';
import type { Config } from './config.ts';
import { Work } from './work.ts';

/** What a node tells whoever watches it: metrics and logs. */
export interface Observer {
  /** A transaction is on disk: ms it took, meterings and writes in it. */
  readonly commit: (ms: number, entries: number) => void;
  readonly sealed: (epoch: Epoch) => void;
  /** Something happened to a worker process. */
  readonly worker: (event: PoolEvent) => void;
  /** Old request records could not be moved into Parquet files; they stay where they are until the next epoch ends. */
  readonly rollFailed: (error: unknown) => void;
  /** The node cannot go on; it stops itself. */
  readonly fatal: (error: WaggleError) => void;
}

/** A name in the data directory. */
const OPERATOR_TOKEN_FILE = 'operator.token';
export const OPERATOR_KEY_FILE = 'operator.key';
/** SQLite's page, in bytes. */
const PAGE_BYTES = 4_096;
const TICK_MS = 1_000;

/** A running node, without its HTTP server: everything that the routes call. */
export class Node {
  readonly config: Config;
  readonly standing: Standing;
  readonly store: Store;
  readonly identity: Identity;
  readonly driver: Driver;
  readonly pool: Pool;
  readonly work: Work;
  readonly clock = systemClock;
  /** Path of the file with the operator token, if this node made it. */
  readonly operatorTokenFile: string;
  readonly #data: DataDirectory;
  readonly #observer: Observer;
  #managing: Promise<unknown> = Promise.resolve();
  #rolling: Promise<unknown> = Promise.resolve();
  #rolledBefore: Epoch = 0;
  #stopTicking: Cancel | undefined;
  #isDraining = false;

  private constructor(
    parts: Pick<Node, 'config' | 'standing' | 'store' | 'identity' | 'driver' | 'pool'> & {
      readonly data: DataDirectory;
      readonly observer: Observer;
    },
  ) {
    this.config = parts.config;
    this.standing = parts.standing;
    this.store = parts.store;
    this.identity = parts.identity;
    this.driver = parts.driver;
    this.pool = parts.pool;
    this.#data = parts.data;
    this.#observer = parts.observer;
    this.operatorTokenFile = join(parts.data.path, OPERATOR_TOKEN_FILE);
    this.work = new Work(this);
  }

  /**
   * Opens the data directory, founds a cluster if there is none, loads everything and starts the workers. Throws
   * `CONFIG_INVALID`, `DATA_LOCKED`, `DATA_DAMAGED`, `DATA_NEWER` or `STORE_FULL`; then nothing keeps running.
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
      const hlc = loaded.meta.get(META.hlc);
      const clock = new HybridClock(hlc === undefined ? undefined : parseHlc(hlc));
      const founding = { name: config.origin, epochMs: config.epochMs, sealGraceMs: config.sealGraceMs };
      const standing = await takeStanding(data.path, store, loaded.meta, founding, entropy, systemClock.nowMs());
      const { replica, run } = standing;
      const identity = new Identity({ crypto: nodeCrypto, random: entropy, signerFromSeed, clock, replica, run });
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
        onFatal: observer.fatal,
      });
      undo.push(() => driver.close());
      const pool = createPool({
        workers: config.workers,
        queueMax: config.queueMax,
        memoryBytesMax: config.workerMemoryBytes,
        onEvent: observer.worker,
      });
      undo.push(() => pool.close());
      const node = new Node({ config, standing, store, identity, driver, pool, data, observer });
      await node.#ensureOperatorToken();
      node.#tick();
      return node;
    } catch (error) {
      for (const step of undo.reverse()) await step();
      throw error;
    }
  }

  /** Whether the node takes no more requests. */
  get isDraining(): boolean {
    return this.#isDraining;
  }

  /**
   * Runs a management command: what it decides is on disk and folded when this resolves. One at a time, because commands decide
   * by what is folded. Throws what the command throws, and `STORE_FULL`, `STORE_FAILED`, `STORE_BUSY` or `DRAINING`.
   */
  manage<T extends { readonly writes: readonly Write[] }>(
    actor: Context['actor'],
    command: (context: Context) => T,
  ): Promise<T> {
    const result = this.#managing.then(async () => {
      const done = command({ actor, nowMs: this.clock.nowMs() });
      await this.driver.write(done.writes);
      return done;
    });
    this.#managing = result.catch(() => undefined);
    return result;
  }

  /** From now on nothing is taken in; what is running goes on. */
  drain(): void {
    this.#isDraining = true;
  }

  /** Ends the work in flight, writes everything and gives the data directory up. */
  async close(): Promise<void> {
    this.drain();
    await this.pool.close();
    await this.work.idle();
    this.#stopTicking?.();
    await this.#managing;
    await this.#rolling;
    await this.driver.close();
    await this.store.close();
    this.#data.close();
  }

  /** Once a second: lets what was quarantined in when its time has come, and moves old records out. */
  #tick(): void {
    const nowMs = this.clock.nowMs();
    this.identity.tick(nowMs);
    const epochBefore = Math.min(
      epochAt(this.standing.cluster.genesis, nowMs - this.config.recordRetentionMs),
      this.driver.sealingEpoch,
    );
    if (epochBefore > this.#rolledBefore) {
      this.#rolledBefore = epochBefore;
      this.#rolling = this.#rolling
        .then(() => this.store.rollRecords(epochBefore))
        .catch((error: unknown) => this.#observer.rollFailed(error));
    }
    this.#stopTicking = this.clock.after(TICK_MS, () => this.#tick());
  }

  /** A cluster without operator tokens gets its first: the configured one, or one that is made and kept in a file of mode 0600. */
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
