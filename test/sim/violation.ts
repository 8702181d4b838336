/** The invariants of the protocol, by their numbers. */
export const INVARIANTS = {
  0: 'a correct node raises no alarm against another, crashes on nothing and keeps no more than it can write',
  1: 'one sealed value and one root per epoch, for ever, on every node',
  2: "a sealed slot is at most its writer's true content, and equals the closed content unless written off",
  3: 'after healing, what is sealed and what is not add up to what was acknowledged',
  4: 'what each voter acknowledged before its close, or else a majority held before the ballot, is in the seal',
  5: 'checkpoints are consistent; no replica cosigns two roots of one size',
  6: 'statements recompute from the contents of the slot list',
  7: 'a crash between any two disk writes takes back nothing that was said',
  8: 'every epoch is sealed within a bounded time',
  9: 'the verifier rejects any one-byte change',
  10: 'a revoked key is refused at every node that has seen the revocation',
  11: 'equal digests mean equal registers and equal views',
  12: 'a version vector never decreases and never claims what is not held',
} as const;

export type Invariant = keyof typeof INVARIANTS;

/** An invariant does not hold. */
export class Violation extends Error {
  override readonly name = 'Violation';
  readonly invariant: Invariant;
  constructor(invariant: Invariant, what: string) {
    super(`invariant ${invariant} (${INVARIANTS[invariant]}): ${what}`);
    this.invariant = invariant;
  }
}

export function demand(condition: boolean, invariant: Invariant, what: () => string): void {
  if (!condition) throw new Violation(invariant, what());
}
