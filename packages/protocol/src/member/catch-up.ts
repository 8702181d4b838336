import type { Epoch, ReplicaId } from '../base/index.ts';
import type { ShownEpoch } from '../replication/index.ts';
import { epochBounds, type Genesis } from '../sealing/index.ts';
import type { Now } from './types.ts';

/** How long to wait before asking anybody when nothing gets on, and between two questions for a sign that others have more, in ms. */
const STALLED_MS = 5_000;
const SIGN_MS = 1_000;

/** How long after its end and grace an epoch is overdue, in ms. */
const OVERDUE_MS = 3_000;

/** Whom to ask for sealed epochs: anybody, or the one that seems to have them. */
export interface Question {
  readonly hint?: ReplicaId;
}

/** Sealed epochs that another member showed, handed to sealing one by one, and when to ask for more. All times are steady ms. */
export class CatchUp {
  readonly #genesis: Genesis;
  #shown: readonly ShownEpoch[] = [];
  #from: ReplicaId | undefined;
  /** The last one that was handed on, so that it is done once. */
  #handed: ShownEpoch | undefined;
  #sealing: Epoch = -1;
  #movedMs = 0;
  #askedMs = Number.NEGATIVE_INFINITY;

  constructor(genesis: Genesis) {
    this.#genesis = genesis;
  }

  received(from: ReplicaId, epochs: readonly ShownEpoch[], nowMs: number): void {
    this.#from = from;
    this.#shown = epochs;
    this.#movedMs = nowMs;
  }

  /** The shown epoch that is to be sealed next, once. */
  next(sealing: Epoch): ShownEpoch | null {
    const head = this.#shown.find(({ epoch }) => epoch === sealing);
    if (head === undefined || head === this.#handed) return null;
    this.#handed = head;
    return head;
  }

  /** After a step: all that was shown is sealed, so the same member is asked for what follows. */
  more(sealing: Epoch, nowMs: number): Question | null {
    this.#move(sealing, nowMs);
    const last = this.#shown.at(-1);
    if (last === undefined || last.epoch >= sealing) return null;
    this.#shown = [];
    return this.#ask(nowMs, this.#from);
  }

  /** A member has written a register of an epoch: whoever is two epochs further has seals that are lacking here. */
  sign(replica: ReplicaId, epoch: Epoch, sealing: Epoch, nowMs: number): Question | null {
    if (epoch <= sealing + 1 || this.#shown.length > 0 || nowMs - this.#askedMs < SIGN_MS) return null;
    return this.#ask(nowMs, replica);
  }

  /** Once in a while: asks first of all, and when an epoch is overdue and nothing gets on; what was shown may be of no use. */
  look(sealing: Epoch, { wallMs, steadyMs: nowMs }: Now): Question | null {
    this.#move(sealing, nowMs);
    if (this.#askedMs === Number.NEGATIVE_INFINITY) return this.#ask(nowMs);
    const dueMs = epochBounds(this.#genesis, sealing).endMs + this.#genesis.sealGraceMs + OVERDUE_MS;
    if (wallMs < dueMs || nowMs - Math.max(this.#movedMs, this.#askedMs) < STALLED_MS) return null;
    this.#shown = [];
    return this.#ask(nowMs);
  }

  #move(sealing: Epoch, nowMs: number): void {
    if (sealing === this.#sealing) return;
    this.#sealing = sealing;
    this.#movedMs = nowMs;
  }

  #ask(nowMs: number, hint?: ReplicaId): Question {
    this.#askedMs = nowMs;
    return hint === undefined ? {} : { hint };
  }
}
