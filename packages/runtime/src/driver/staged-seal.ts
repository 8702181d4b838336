import type { Digest } from '@waggle/protocol/base';
import type { HeldSlot, SealedEpoch } from '@waggle/protocol/sealing';
import type { Batch } from '../store/types.ts';
import { sealedRows } from './epochs.ts';

/** Statements and leaves that one transaction takes, each: some ten ms of the disk's time. */
const ROWS_PER_COMMIT = 5_000;

type Rows = Pick<Batch, 'statements' | 'leaves'>;

/**
 * A seal on its way to disk. A large one goes in parts, so that no request waits for all of it: the store shows statements and
 * leaves only once the row of their epoch is there, which comes with the last part.
 */
export class StagedSeal {
  readonly sealed: SealedEpoch;
  /** The slots whose rows can go when the seal is on disk. */
  readonly covered: readonly HeldSlot[];
  readonly #rows: ReturnType<typeof sealedRows>;
  #written = 0;

  constructor(sealed: SealedEpoch, covered: readonly HeldSlot[], before: ReadonlyMap<string, Digest>) {
    this.sealed = sealed;
    this.covered = covered;
    this.#rows = sealedRows(sealed, before);
  }

  /** Whether what is left fits into one transaction. */
  get isLast(): boolean {
    return this.#rows.leaves.length - this.#written <= ROWS_PER_COMMIT;
  }

  /** The next part. */
  part(): Rows {
    const [from, to] = [this.#written, this.isLast ? undefined : this.#written + ROWS_PER_COMMIT];
    return { statements: this.#rows.statements.slice(from, to), leaves: this.#rows.leaves.slice(from, to) };
  }

  /** Takes note that the part is on disk. */
  advance(): void {
    this.#written += ROWS_PER_COMMIT;
  }

  /** What comes with the last part. */
  get rest(): Omit<ReturnType<typeof sealedRows>, keyof Rows> {
    const { sealed, tiles } = this.#rows;
    return { sealed, tiles };
  }
}
