import type { Epoch } from '../base/index.ts';
import type { SealedEpoch, SealingEffect } from '../sealing/index.ts';

/** What sealing wants done on the disk. */
export type ToSeal = Exclude<SealingEffect, { type: 'want' | 'unwant' | 'compute' }>;

/** Seals that may wait for the disk, beside the one that is being written. */
const SEALS_WAITING_MAX = 2;

/**
 * What sealing wants done, in order and never dropped: one seal to a batch, as the last in it, and a large one only when its
 * parts are on disk.
 */
export class Seals {
  readonly #stageAbove: number;
  #waiting: ToSeal[] = [];
  /** The seal that is being staged, and the one that is. */
  #staging: Epoch = -1;
  #staged: Epoch = -1;

  /** A seal of more leaves than `stageAbove` is staged. */
  constructor(stageAbove: number) {
    this.#stageAbove = stageAbove;
  }

  /** Whether more seals wait than are on their way: each holds all contents of its epoch. */
  get isLong(): boolean {
    return this.#waiting.filter(({ type }) => type === 'sealed').length >= SEALS_WAITING_MAX;
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  add(effect: ToSeal): void {
    this.#waiting.push(effect);
  }

  /** Nothing of it is on disk: it comes first again. */
  putBack(effects: readonly ToSeal[]): void {
    this.#waiting.unshift(...effects);
  }

  /** The parts of a large seal are on disk. */
  staged(epoch: Epoch): void {
    this.#staged = epoch;
  }

  /** What is to be done up to the next seal, and that one too, unless it is to be staged first: then it is given, once. */
  take(): { readonly effects: readonly ToSeal[]; readonly stage: SealedEpoch | null } {
    const end = this.#waiting.findIndex(({ type }) => type === 'sealed');
    if (end < 0) return { effects: this.#waiting.splice(0), stage: null };
    const { sealed } = this.#waiting[end] as { readonly sealed: SealedEpoch };
    if (sealed.treeSize - sealed.firstLeaf <= this.#stageAbove || this.#staged === sealed.epoch)
      return { effects: this.#waiting.splice(0, end + 1), stage: null };
    const isNew = this.#staging !== sealed.epoch;
    this.#staging = sealed.epoch;
    return { effects: this.#waiting.splice(0, end), stage: isNew ? sealed : null };
  }
}
