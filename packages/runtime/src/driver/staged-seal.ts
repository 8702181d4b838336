import type { Epoch } from '@waggle/protocol/base';
import type { ChainState, SealedEpoch } from '@waggle/protocol/sealing';
import type { Batch } from '../store/types.ts';
import { sealedRows, statementRows } from './epochs.ts';

/** Statements that one transaction takes: some ten ms of the disk's time. */
export const SEAL_ROWS_PER_COMMIT = 2_500;

/**
 * A large seal on its way to disk. It goes in parts, so that no request waits for all of it: the store shows statements and
 * their leaves only once the row of their epoch is there, which comes with the last transaction, and with it `rest`.
 */
export class StagedSeal {
  readonly #sealed: SealedEpoch;
  readonly #before: ChainState;

  constructor(sealed: SealedEpoch, before: ChainState) {
    this.#sealed = sealed;
    this.#before = before;
  }

  get epoch(): Epoch {
    return this.#sealed.epoch;
  }

  /** All statements, in parts, each made when it is its turn. */
  *parts(): Generator<Required<Pick<Batch, 'statements'>>> {
    const { count } = this.#sealed.outcome.statements;
    for (let from = 0; from < count; from += SEAL_ROWS_PER_COMMIT)
      yield { statements: statementRows(this.#sealed, from, from + SEAL_ROWS_PER_COMMIT) };
  }

  /** What makes them valid. */
  get rest(): ReturnType<typeof sealedRows> {
    return sealedRows(this.#sealed, this.#before.counted);
  }
}
