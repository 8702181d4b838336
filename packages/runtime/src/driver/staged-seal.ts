import type { Epoch } from '@waggle/protocol/base';
import type { ChainState, SealedEpoch } from '@waggle/protocol/sealing';
import type { Batch } from '../store/types.ts';
import { sealedRows } from './epochs.ts';

/** Statements and leaves that one transaction takes, each: some ten ms of the disk's time. */
export const SEAL_ROWS_PER_COMMIT = 5_000;

type Rows = ReturnType<typeof sealedRows>;

/**
 * A large seal on its way to disk. It goes in parts, so that no request waits for all of it: the store shows statements and
 * leaves only once the row of their epoch is there, which comes with the last transaction, and with it `rest`.
 */
export class StagedSeal {
  readonly epoch: Epoch;
  readonly #rows: Rows;

  constructor(sealed: SealedEpoch, before: ChainState) {
    this.epoch = sealed.epoch;
    this.#rows = sealedRows(sealed, before.counted);
  }

  /** All statements and leaves, in parts. */
  *parts(): Generator<Pick<Batch, 'statements' | 'leaves'>> {
    const { statements, leaves } = this.#rows;
    for (let from = 0; from < leaves.length; from += SEAL_ROWS_PER_COMMIT) {
      const to = from + SEAL_ROWS_PER_COMMIT;
      yield { statements: statements.slice(from, to), leaves: leaves.slice(from, to) };
    }
  }

  /** What makes them valid. */
  get rest(): Pick<Rows, 'sealed' | 'tiles'> {
    const { sealed, tiles } = this.#rows;
    return { sealed, tiles };
  }
}
