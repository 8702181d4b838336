import type { Epoch, ReplicaId } from '../base/index.ts';
import { BALLOT_STATE_NEW, type BallotState } from './ballots.ts';
import type { Certificate } from './certificate.ts';
import type { Contents } from './contents.ts';
import type { SealingEffect } from './effects.ts';
import { encodeFrontier, frontierOfSealed } from './frontier.ts';
import { REGISTERS_KEPT_EPOCHS, type Noted } from './noted.ts';
import { quorumOf } from './roster.ts';
import type { SealingRules } from './rules.ts';
import { nextVote } from './voting.ts';

interface Sealed {
  readonly certificate: Certificate;
  note: string;
}

/**
 * The epochs that were sealed lately: more signatures may still come, and members that do not know of the seal may still need votes
 * to learn what was chosen. Nothing is left to choose, so a promise carries an empty frontier, and only the sealed value is accepted.
 */
export class Past {
  readonly #noted: Noted;
  readonly #contents: Contents;
  readonly #self: ReplicaId;
  readonly #rules: SealingRules;
  readonly #sealed = new Map<Epoch, Sealed>();
  /** Those of which a register came. */
  readonly #touched = new Set<Epoch>();

  constructor(noted: Noted, contents: Contents, self: ReplicaId, rules: SealingRules) {
    this.#noted = noted;
    this.#contents = contents;
    this.#self = self;
    this.#rules = rules;
  }

  add(epoch: Epoch, certificate: Certificate, note: string): void {
    this.#sealed.set(epoch, { certificate, note });
    this.#touched.add(epoch);
    for (const old of this.#sealed.keys()) if (old <= epoch - REGISTERS_KEPT_EPOCHS) this.#sealed.delete(old);
  }

  touch(epoch: Epoch): void {
    if (this.#sealed.has(epoch)) this.#touched.add(epoch);
  }

  /** What the registers that came ask for. `mayVote` says in which epochs this member may write now. */
  evaluate(
    mayVote: (epoch: Epoch) => boolean,
    write: (epoch: Epoch, state: BallotState) => SealingEffect,
    effects: SealingEffect[],
  ): void {
    for (const epoch of this.#touched) {
      const sealed = this.#sealed.get(epoch);
      if (sealed === undefined) continue;
      this.#improve(epoch, sealed, effects);
      if (!mayVote(epoch) || !this.#rules.servesSealed()) continue;
      const next = this.#vote(epoch, sealed, effects);
      if (next !== null) effects.push(write(epoch, next));
    }
    this.#touched.clear();
  }

  #improve(epoch: Epoch, sealed: Sealed, effects: SealingEffect[]): void {
    for (const replica of sealed.certificate.take(this.#noted.seals.get(epoch) ?? new Map()))
      this.#noted.accuse({ epoch, replica, what: 'otherRoot', code: 'CHECKPOINT_INVALID' });
    const note = sealed.certificate.note();
    if (note === null || note === sealed.note) return;
    sealed.note = note;
    effects.push({ type: 'improved', epoch, checkpoint: note });
  }

  #vote(epoch: Epoch, { certificate }: Sealed, effects: SealingEffect[]): BallotState | null {
    const { roster, header } = certificate;
    const voters = new Set(roster.map(({ replica }) => replica));
    if (!voters.has(this.#self)) return null;
    const votes = new Map([...(this.#noted.ballots.get(epoch) ?? [])].filter(([replica]) => voters.has(replica)));
    return nextVote(
      {
        self: this.#self,
        own: votes.get(this.#self) ?? BALLOT_STATE_NEW,
        votes,
        isVoter: (replica) => voters.has(replica),
        quorum: quorumOf(roster),
        isDue: false,
        holds: (value) => value === header,
        determined: () => null,
        frontier: () => this.#contents.pin(epoch, encodeFrontier(frontierOfSealed(this.#contents.empty)), effects),
        holdsFrontier: () => true,
        recovered: () => null,
      },
      this.#rules,
    );
  }
}
