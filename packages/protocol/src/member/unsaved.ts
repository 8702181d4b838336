import { compareText, type ReplicaId } from '../base/index.ts';
import {
  parseUsageWriter,
  type ControlRegister,
  type Register,
  type Registers,
  type UsageRow,
  type WriterId,
} from '../lattice/index.ts';
import type { ClassName, JoinedEffect } from '../replication/index.ts';
import { slotName, type SlotId } from '../usage/index.ts';
import type { ControlRow, UsageRegisterRow, VectorRow } from './types.ts';

/** Registers that may wait to be written, about. */
const REGISTERS_MAX = 4_096;
/** Registers of others in one batch, of each class: more would make requests wait for it, and take memory several times. */
const PIECE_MAX = 8_192;

/** What of the others' registers goes into a batch. */
export interface LazyRows {
  readonly control: readonly ControlRow[];
  readonly usage: readonly UsageRegisterRow[];
  readonly vectors: readonly VectorRow[];
  /** How far of what is new of a writer is in the batch, without its vector: the rest comes with the next. */
  readonly pieces: readonly VectorRow[];
  /** Slots whose rows are off memory, and go from the disk with it. */
  readonly gone: readonly SlotId[];
  /** Runs of usage that are forgotten. */
  readonly forgotten: readonly WriterId[];
}

export const NO_ROWS: LazyRows = { control: [], usage: [], vectors: [], pieces: [], gone: [], forgotten: [] };

/** One class: up to where each writer is on disk, and those of whom more is held. */
class Writers<R extends Register, W extends string> {
  readonly #name: ClassName;
  readonly #registers: Registers<R, W>;
  readonly #saved: Map<W, number>;
  /** Up to where those are on disk that the vector there does not reach yet. */
  readonly #pieces = new Map<W, number>();
  readonly #waiting = new Set<W>();

  constructor(name: ClassName, registers: Registers<R, W>) {
    this.#name = name;
    this.#registers = registers;
    this.#saved = registers.vector();
  }

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  add(writer: W): void {
    this.#waiting.add(writer);
  }

  forget(writer: W): void {
    this.#waiting.delete(writer);
    this.#saved.delete(writer);
    this.#pieces.delete(writer);
  }

  saved(writer: W, upTo: number): void {
    this.#saved.set(writer, upTo);
    this.#pieces.delete(writer);
  }

  savedPiece(writer: W, upTo: number): void {
    this.#pieces.set(writer, upTo);
  }

  /**
   * Of each writer what came since, up to its vector, which goes with the last of it: what is pending waits until its
   * predecessors are here. So the disk has registers beyond a vector only after a crash between two pieces of a long
   * catch-up; then everything of that writer is pending again (`Part.restored`), and is fetched anew.
   */
  take(vectors: VectorRow[], pieces: VectorRow[]): { readonly writer: W; readonly register: R }[] {
    const taken: { readonly writer: W; readonly register: R }[] = [];
    for (const writer of [...this.#waiting].sort(compareText)) {
      const room = PIECE_MAX - taken.length;
      if (room <= 0) break;
      const from = this.#pieces.get(writer) ?? this.#saved.get(writer) ?? 0;
      const delta = this.#registers.delta(writer, from, room, () => 1);
      const isWhole = delta === null || delta.to === delta.end;
      if (isWhole) this.#waiting.delete(writer);
      if (delta === null) continue;
      (isWhole ? vectors : pieces).push({ class: this.#name, writer, upTo: delta.to });
      for (const register of delta.registers) taken.push({ writer, register });
    }
    return taken;
  }
}

/** What others wrote and is not on disk yet: what a crash loses of it is fetched again. Made when the registers are restored. */
export class Unsaved {
  readonly #control: Writers<ControlRegister, ReplicaId>;
  readonly #usage: Writers<UsageRow, WriterId>;
  #registers = 0;
  /** Whether the last batch left something for the next. */
  #isCut = false;
  #isFlying = false;
  /** How many batches are on disk that left nothing for the next. */
  #wholes = 0;
  #gone: SlotId[] = [];
  #forgotten: WriterId[] = [];

  constructor(control: Registers<ControlRegister, ReplicaId>, usage: Registers<UsageRow, WriterId>) {
    this.#control = new Writers('control', control);
    this.#usage = new Writers('usage', usage);
  }

  get isEmpty(): boolean {
    return this.#control.isEmpty && this.#usage.isEmpty && this.#gone.length === 0 && this.#forgotten.length === 0;
  }

  /** Whether so much waits that it should not wait any longer. */
  get isFull(): boolean {
    return this.#isCut || this.#registers > REGISTERS_MAX;
  }

  /** Says from now on whether all that has come by now is on disk. */
  mark(): () => boolean {
    const wholes = this.#wholes + (this.#isFlying ? 2 : 1);
    return () => this.#wholes >= wholes || (this.isEmpty && !this.#isFlying);
  }

  joined({ class: name, writer, changes }: JoinedEffect): void {
    if (name === 'control') this.#control.add(writer);
    else this.#usage.add(writer);
    this.#registers += changes.length;
  }

  /** Rows of these slots may be on disk, and need not be any more. */
  gone(slots: readonly SlotId[]): void {
    this.#gone.push(...slots);
  }

  /** These runs are forgotten; what of them comes back is written after it. */
  forget(writers: readonly WriterId[]): void {
    for (const writer of writers) this.#usage.forget(writer);
    this.#forgotten.push(...writers);
  }

  /**
   * All of it, or a piece, for a batch with a seal that covers these slots: their rows are left out. (What there is of a slot that is gone
   * came after it went: drops come before writes.)
   */
  take(covered: readonly SlotId[]): LazyRows {
    const isCovered = new Set(covered.map(slotName));
    const [vectors, pieces]: [VectorRow[], VectorRow[]] = [[], []];
    const control = this.#control.take(vectors, pieces);
    const usage = this.#usage.take(vectors, pieces);
    this.#registers = 0;
    this.#isCut = !this.#control.isEmpty || !this.#usage.isEmpty;
    this.#isFlying = true;
    return {
      control: control.map(({ writer, register }) => ({ replica: writer, ...register })),
      usage: usage
        .map(({ writer, register }) => usageRow({ ...parseUsageWriter(writer), epoch: register.epoch }, register))
        .filter((row) => !isCovered.has(slotName(row))),
      vectors,
      pieces,
      gone: this.#gone.splice(0),
      forgotten: this.#forgotten.splice(0),
    };
  }

  /** They are on disk. */
  saved({ vectors, pieces }: LazyRows): void {
    if (this.#isFlying && !this.#isCut) this.#wholes++;
    this.#isFlying = false;
    for (const { class: name, writer, upTo } of vectors)
      if (name === 'control') this.#control.saved(writer as ReplicaId, upTo);
      else this.#usage.saved(writer as WriterId, upTo);
    for (const { class: name, writer, upTo } of pieces)
      if (name === 'control') this.#control.savedPiece(writer as ReplicaId, upTo);
      else this.#usage.savedPiece(writer as WriterId, upTo);
  }

  /** They are not. */
  putBack({ vectors, pieces, gone, forgotten }: LazyRows): void {
    this.#isFlying = false;
    for (const { class: name, writer } of [...vectors, ...pieces])
      if (name === 'control') this.#control.add(writer as ReplicaId);
      else this.#usage.add(writer as WriterId);
    this.#gone.push(...gone);
    this.#forgotten.push(...forgotten);
  }
}

/** A usage register as it is written. */
export const usageRow = (
  { replica, run, epoch }: SlotId,
  { customer, sku, version, usage }: UsageRow,
): UsageRegisterRow => ({ replica, run, epoch, customer, sku, version, usage });
