import { WaggleError, type Digest, type Epoch, type ReplicaId } from '@waggle/protocol/base';
import type { Batch, MemberInput } from '@waggle/protocol/member';
import type { ChainState, SealedEpoch } from '@waggle/protocol/sealing';
import type { Clock } from '../clock.ts';
import type { IdempotencyRow, NewRecord, StatementRow, Store, Batch as StoreBatch } from '../store/types.ts';
import { sealedRows, statementRows } from './epochs.ts';
import { chainMeta } from './restart.ts';
import { Shown } from './shown.ts';
import { StagedSeal } from './staged-seal.ts';
import type { Timers } from './timers.ts';

/** What one finished request adds: its record and its usage, and what a retry of it would be answered with. */
export interface Metering {
  readonly record: Omit<NewRecord, 'epoch'>;
  readonly idempotency?: (epoch: Epoch) => readonly IdempotencyRow[];
}

export interface DiskOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly timers: Timers;
  readonly meteringOf: (ticket: number) => Metering | undefined;
  /** Hands the member what the disk has answered. */
  readonly step: (input: MemberInput) => void;
  /** After each transaction: how long it took in ms, and how many meterings it held. */
  readonly onCommit: ((ms: number, entries: number) => void) | undefined;
  /** Some statements of a large seal are on disk, in order; after a full disk they begin again. */
  readonly onPart: (statements: readonly StatementRow[]) => void;
  /** An epoch is sealed, on disk; the member is told right after. */
  readonly onSealed: (sealed: SealedEpoch) => void;
  /** The store cannot be used any more. May be called several times. */
  readonly onFatal: (error: unknown) => void;
}

/** How long to wait before asking again a reader that had too much to do, and a disk that was full, in ms. */
const BUSY_RETRY_MS = 50;
const FULL_RETRY_MS = 1_000;

/** Carries out what a member wants of its disk, and answers it. */
export class Disk {
  readonly #options: DiskOptions;
  readonly #shown: Shown;
  /** The seal that is being written in parts. */
  #staged: StagedSeal | undefined;
  #last: Promise<void> = Promise.resolve();
  #isStopped = false;

  constructor(options: DiskOptions) {
    this.#options = options;
    this.#shown = new Shown(options.store);
  }

  /** Resolves when all that was to be written by now is, or has failed. Another promise each time something is to be written. */
  get written(): Promise<void> {
    return this.#last;
  }

  /** Large seals go no further. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Answers with `persisted`, or with `full` when there was no room, or no getting at the database. */
  persist(batch: Batch): void {
    this.#write(async () => {
      const { store, clock, step, onCommit, onSealed } = this.#options;
      const startedMs = clock.monotonicMs();
      if (!(await this.#isCommitted(store.commit(this.#rows(batch)))))
        return step({ type: 'full', number: batch.number });
      if (batch.seal !== null) {
        this.#staged = undefined;
        onSealed(batch.seal.sealed);
      }
      onCommit?.(clock.monotonicMs() - startedMs, batch.metered.tickets.length);
      step({ type: 'persisted', number: batch.number });
    });
  }

  /** Writes in parts what of a large seal may be on disk before it. Answers with `staged`. */
  stage(sealed: SealedEpoch, before: ChainState): void {
    const seal = new StagedSeal(sealed, before);
    this.#staged = seal;
    this.#write(() => this.#stage(seal));
  }

  /** Answers with `content`. */
  loadContent(digest: Digest): void {
    this.#read(
      async () => this.#shown.content(digest) ?? this.#options.store.content(digest),
      (bytes) => this.#options.step({ type: 'content', digest, bytes }),
    );
  }

  /** Answers with `sealedRead`. */
  readSealed(from: Epoch, to: ReplicaId): void {
    this.#read(
      () => this.#shown.read(from),
      (epochs) => this.#options.step({ type: 'sealedRead', to, epochs }),
    );
  }

  #write(work: () => Promise<void>): void {
    this.#last = Promise.all([this.#last, work()]).then(
      () => undefined,
      (error: unknown) => this.#options.onFatal(error),
    );
  }

  /** Whether a commit went to disk: all of it, or nothing when there was no room or another process held the database locked. */
  async #isCommitted(commit: Promise<void>): Promise<boolean> {
    try {
      await commit;
      return true;
    } catch (error) {
      if (error instanceof WaggleError && ['STORE_FULL', 'STORE_BUSY'].includes(error.code)) return false;
      throw error;
    }
  }

  #rows(batch: Batch): StoreBatch {
    const { epoch, tickets } = batch.metered;
    const meterings = tickets.flatMap((ticket) => this.#options.meteringOf(ticket) ?? []);
    const { seal, meta, control, usage, vectors, contents, checkpoints } = batch;
    const chain = seal === null ? [] : chainMeta(seal.sealed.outcome.next);
    return {
      ...(seal === null ? {} : this.#sealRows(seal)),
      meta: [...meta, ...chain],
      control,
      usage,
      vectors,
      contents,
      checkpoints,
      records: meterings.map(({ record }) => ({ ...record, epoch })),
      idempotency: meterings.flatMap((metering) => metering.idempotency?.(epoch) ?? []),
      dropControl: batch.dropControl,
      dropUsage: batch.dropUsage,
      dropVectors: batch.dropVectors,
      dropContents: batch.dropContents,
      dropIdempotencyBeforeMs: this.#options.clock.nowMs(),
    };
  }

  /** Of a large seal what is left, of a small one all. */
  #sealRows({ sealed, before }: NonNullable<Batch['seal']>): Partial<StoreBatch> {
    if (this.#staged?.epoch === sealed.epoch) return this.#staged.rest;
    return { statements: statementRows(sealed), ...sealedRows(sealed, before.counted) };
  }

  async #stage(seal: StagedSeal): Promise<void> {
    for (const part of seal.parts()) {
      if (this.#isStopped) return;
      if (await this.#isCommitted(this.#options.store.commit(part))) {
        this.#options.onPart(part.statements);
        continue;
      }
      this.#options.timers.after(FULL_RETRY_MS, () => this.#write(() => this.#stage(seal)));
      return;
    }
    this.#options.step({ type: 'staged', epoch: seal.epoch });
  }

  /** Reads, and asks again when there were too many readers. */
  #read<T>(read: () => Promise<T>, then: (value: T) => void): void {
    read().then(then, (error: unknown) => {
      if (error instanceof WaggleError && error.code === 'STORE_BUSY')
        this.#options.timers.after(BUSY_RETRY_MS, () => this.#read(read, then));
      else this.#options.onFatal(error);
    });
  }
}
