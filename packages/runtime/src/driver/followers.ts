import type { ReplicaId } from '@waggle/protocol/base';
import type { Timers } from './timers.ts';

interface Follower {
  readonly isEnough: () => boolean;
  finish(isEnough: boolean): void;
}

/** Those who wait until other members hold what this node wrote. */
export class Followers {
  readonly #timers: Timers;
  readonly #waiting = new Set<Follower>();

  constructor(timers: Timers) {
    this.#timers = timers;
  }

  /** Resolves when those who hold it are enough, or `timeoutMs` have passed; gives whether they are. */
  wait(
    held: () => readonly ReplicaId[],
    isEnough: (held: readonly ReplicaId[]) => boolean,
    timeoutMs: number,
  ): Promise<boolean> {
    if (isEnough(held())) return Promise.resolve(true);
    return new Promise((resolve) => {
      const follower: Follower = {
        isEnough: () => isEnough(held()),
        finish: (isHeld) => {
          this.#waiting.delete(follower);
          cancel();
          resolve(isHeld);
        },
      };
      const cancel = this.#timers.after(timeoutMs, () => follower.finish(follower.isEnough()));
      this.#waiting.add(follower);
    });
  }

  /** Somebody holds more than before. */
  check(): void {
    for (const follower of this.#waiting) if (follower.isEnough()) follower.finish(true);
  }

  /** Nobody will any more. */
  stop(): void {
    for (const follower of this.#waiting) follower.finish(follower.isEnough());
  }
}
