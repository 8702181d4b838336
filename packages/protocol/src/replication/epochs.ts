import type { Epoch, Random, ReplicaId } from '../base/index.ts';
import { BODY_BYTES_MAX, EPOCH_READS_MAX, EPOCHS_ASKED_MAX, EPOCHS_MS, SHOWN_EPOCHS_MAX } from './constants.ts';
import { shownBytes, type Frame } from './frames.ts';
import type { Allowance, Outbox } from './outbox.ts';
import type { ShownEpoch } from './types.ts';

type FrameOf<T extends Frame['type']> = Extract<Frame, { type: T }>;

/**
 * Sealed epochs for those who are behind: headers and checkpoints, which prove themselves to whoever knows the roster. One member
 * is asked at a time, the one that seems to have them first; whoever does not answer, or has no more, is passed over.
 */
export class Epochs {
  readonly #outbox: Outbox;
  readonly #random: Random;
  #from: Epoch = 0;
  /** Who was asked and has not answered. */
  #asked: ReplicaId | null = null;
  /** Who was asked since it was last said that epochs are lacking, without success. */
  readonly #failed = new Set<ReplicaId>();
  /** Grows with every question, so that older timers are stale. */
  #step = 0;
  /** Members for whom epochs are being read. */
  readonly #reading = new Set<ReplicaId>();

  constructor(outbox: Outbox, random: Random) {
    this.#outbox = outbox;
    this.#random = random;
  }

  /** Epochs are lacking from this one on. While a question is under way it stands. */
  behind(from: Epoch, hint: ReplicaId | undefined, live: readonly ReplicaId[]): void {
    if (this.#asked !== null) return;
    this.#from = from;
    this.#failed.clear();
    this.#ask(live, hint);
  }

  timer(step: number, live: readonly ReplicaId[]): void {
    if (step === this.#step && this.#asked !== null) this.#pass(live);
  }

  linkClosed(member: ReplicaId, live: readonly ReplicaId[]): void {
    this.#reading.delete(member);
    if (this.#asked === member) this.#pass(live);
  }

  onSealed(from: ReplicaId, { epochs }: FrameOf<'sealed'>, live: readonly ReplicaId[]): void {
    if (this.#asked !== from) return;
    if (epochs[0]?.epoch !== this.#from) return this.#pass(live);
    this.#asked = null;
    this.#outbox.add({ type: 'epochs', from, epochs });
  }

  /** Someone asks. Whoever gets no answer asks again, or another. */
  onEpochs(from: ReplicaId, frame: FrameOf<'epochs'>, allowance: Allowance, nowMs: number): void {
    if (this.#reading.has(from) || this.#reading.size >= EPOCH_READS_MAX || allowance.answer(nowMs) === null) return;
    this.#reading.add(from);
    this.#outbox.add({ type: 'readSealed', from: frame.from, to: from });
  }

  /** They were read: as many are sent as fit, one after the other. */
  read(to: ReplicaId, epochs: readonly ShownEpoch[], allowance: Allowance): void {
    if (!this.#reading.delete(to)) return;
    let bytes = 16;
    const end = epochs.findIndex((shown, i) => {
      bytes += shownBytes(shown);
      return bytes > BODY_BYTES_MAX || i >= SHOWN_EPOCHS_MAX || shown.epoch !== epochs[0]!.epoch + i;
    });
    allowance.charge(bytes);
    this.#outbox.send(to, { type: 'sealed', epochs: end < 0 ? epochs : epochs.slice(0, end) });
  }

  #pass(live: readonly ReplicaId[]): void {
    this.#failed.add(this.#asked!);
    this.#asked = null;
    if (this.#failed.size < EPOCHS_ASKED_MAX) this.#ask(live);
  }

  #ask(live: readonly ReplicaId[], hint?: ReplicaId): void {
    const others = live.filter((member) => !this.#failed.has(member));
    if (others.length === 0) return;
    const isHinted = hint !== undefined && others.includes(hint);
    this.#asked = isHinted ? hint : others[this.#random.below(others.length)]!;
    this.#outbox.send(this.#asked, { type: 'epochs', from: this.#from });
    this.#outbox.timer(EPOCHS_MS, { type: 'epochs', step: ++this.#step });
  }
}
