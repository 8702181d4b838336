import { assert, present, type Epoch, type ReplicaId } from '../base/index.ts';
import { signControl, type ControlRegister, type Register, type Registers, type UsageRow } from '../lattice/index.ts';
import type { ClassName } from '../replication/index.ts';
import type { SlotId } from '../usage/index.ts';
import type { Entry } from './entries.ts';
import { expiredWith, formatReleases, parseReleases, releaseWith, withoutPinned, type Releases } from './retention.ts';
import type { ToSeal } from './seals.ts';
import type { Batch, MemberOptions, VectorRow, Write } from './types.ts';
import { NO_ROWS, usageRow, type LazyRows, type Unsaved } from './unsaved.ts';
import type { UsageBook } from './usage-book.ts';

/** Names in the store's `meta`. */
const META = { hlc: 'hlc', releases: 'releases' } as const;

/** A batch on its way to the disk, and what becomes true once it is there. */
export interface Flight {
  readonly batch: Batch;
  readonly entries: readonly Entry[];
  readonly effects: readonly ToSeal[];
  /** This replica's registers in it, to be applied. */
  readonly control: readonly ControlRegister[];
  readonly usage: readonly UsageRow[];
  readonly lazy: LazyRows;
  /** Slots that the seal covers. */
  readonly covered: readonly SlotId[];
  readonly releases: Releases;
}

/** What one batch is made of. */
interface Parts {
  readonly entries: readonly Entry[];
  /** At most one seal among them. */
  readonly effects: readonly ToSeal[];
  /** Whether what others wrote goes with it. */
  readonly isLazy: boolean;
  readonly openEpoch: Epoch;
  /** The first whose slot of this run is not closed. */
  readonly unclosedEpoch: Epoch;
  /** Whether nobody else was ever admitted: then contents go with the seal that lets go of them. */
  readonly isAlone: boolean;
}

interface BatchesOptions {
  readonly member: MemberOptions;
  readonly control: Registers<ControlRegister, ReplicaId>;
  readonly book: UsageBook;
  readonly unsaved: Unsaved;
  /** What the disk holds. */
  readonly meta: ReadonlyMap<string, string>;
}

/** Makes the batches that go to disk, one at a time; nothing of one is applied before it is there. */
export class Batches {
  readonly #options: BatchesOptions;
  #releases: Releases;
  #inFlight: Flight | undefined;
  #numbers = 0;

  constructor(options: BatchesOptions) {
    this.#options = options;
    this.#releases = parseReleases(options.meta.get(META.releases));
  }

  get isInFlight(): boolean {
    return this.#inFlight !== undefined;
  }

  /** The next batch, on its way from now on. */
  begin(parts: Parts): Batch {
    assert(this.#inFlight === undefined, 'one batch is in flight at a time');
    this.#inFlight = this.#build(parts);
    return this.#inFlight.batch;
  }

  /** It is on disk. */
  persisted(number: number): Flight {
    const flight = this.#landed(number);
    this.#releases = flight.releases;
    this.#options.unsaved.saved(flight.lazy);
    return flight;
  }

  /** Nothing of it is: what others wrote waits for another. */
  refused(number: number): Flight {
    const flight = this.#landed(number);
    this.#options.unsaved.putBack(flight.lazy);
    return flight;
  }

  #landed(number: number): Flight {
    const flight = present(this.#inFlight, 'a batch in flight');
    assert(flight.batch.number === number, `the answer to batch ${flight.batch.number}, not ${number}`);
    this.#inFlight = undefined;
    return flight;
  }

  #build({ entries, effects, isLazy, openEpoch, unclosedEpoch, isAlone }: Parts): Flight {
    const { member, control: registers, book, unsaved } = this.#options;
    const { replica, run, hlc } = member;
    const metered = entries.filter((entry) => entry.type === 'meter');
    const control = this.#sign([
      ...effects.filter((effect) => effect.type === 'write'),
      ...entries.flatMap((entry) => (entry.type === 'write' ? entry.writes : [])),
    ]);
    const usage = book.rows(metered, openEpoch);
    const contents = effects.filter((effect) => effect.type === 'content');
    const sealed = effects.find((effect) => effect.type === 'sealed')?.sealed ?? null;
    const covered = sealed === null ? [] : book.coveredBy(sealed, unclosedEpoch);
    const pinned = withoutPinned(this.#releases, new Set(contents.map(({ digest }) => digest)));
    const released =
      sealed === null ? { kept: pinned, dropped: [] } : releaseWith(pinned, sealed.epoch, sealed.release, isAlone);
    const lazy = isLazy ? unsaved.take(covered) : NO_ROWS;
    const own = (name: ClassName, writer: string, rows: readonly Register[]): VectorRow[] =>
      rows.length === 0 ? [] : [{ class: name, writer, upTo: rows.at(-1)!.version }];
    const batch: Batch = {
      number: ++this.#numbers,
      metered: { epoch: openEpoch, tickets: metered.map(({ ticket }) => ticket) },
      meta: [
        [META.hlc, hlc.last],
        ...(sealed === null && contents.length === 0 ? [] : [[META.releases, formatReleases(released.kept)] as const]),
      ],
      control: [...control.map((register) => ({ replica, ...register })), ...lazy.control],
      usage: [...usage.map((row) => usageRow({ replica, run, epoch: row.epoch }, row)), ...lazy.usage],
      vectors: [...own('control', replica, control), ...own('usage', book.own, usage), ...lazy.vectors],
      contents: contents.map(({ digest, epoch: since, bytes }) => ({ digest, epoch: since, bytes })),
      seal: sealed === null ? null : { sealed, before: book.chain },
      checkpoints: effects.flatMap((effect) =>
        effect.type === 'improved' ? [{ epoch: effect.epoch, checkpoint: effect.checkpoint }] : [],
      ),
      dropControl: sealed === null ? [] : expiredWith(sealed.epoch, registers, replica, unclosedEpoch),
      dropUsage: [...covered, ...lazy.gone],
      dropVectors: lazy.forgotten.map((writer) => ({ class: 'usage', writer })),
      dropContents: released.dropped,
    };
    return { batch, entries, effects, control, usage, lazy, covered, releases: released.kept };
  }

  /** Gives writes the next versions of this replica. */
  #sign(writes: readonly Write[]): ControlRegister[] {
    const { member, control } = this.#options;
    const { transport, cluster, replica } = member;
    const version = control.upTo(replica) + 1;
    return writes.map(({ key, value }, i) =>
      signControl(transport, cluster.id, replica, { key, value, version: version + i }),
    );
  }
}
