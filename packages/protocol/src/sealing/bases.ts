import type { Digest, Epoch, ReplicaId } from '../base/index.ts';
import { compareSlots, slotName } from '../usage/index.ts';
import type { Ballot, BallotState } from './ballots.ts';
import { composeValue, type Ground } from './compose.ts';
import { NO_ROWS } from './contents.ts';
import type { HeldSlot, SealingEffect } from './effects.ts';
import { encodeFrontier } from './frontier.ts';
import { heldSlots, reportOf, type Held, type NotYet } from './held.ts';
import type { Jobs } from './jobs.ts';
import type { Noted } from './noted.ts';
import { isIn, quorumOf } from './roster.ts';
import type { SealingRules } from './rules.ts';
import { followingReplicas, type Report, type Sealable, type Value } from './value.ts';

export interface BasesOptions {
  readonly self: ReplicaId;
  readonly noted: Noted;
  readonly rules: SealingRules;
  /** The chain moves on: what is asked for is as of now. */
  readonly ground: () => Ground;
  readonly slotsUpTo: (epoch: Epoch) => Iterable<HeldSlot>;
  readonly facts: () => { readonly bytes: Uint8Array };
  readonly jobs: Jobs;
  /** Whether a counted content is not on this disk. */
  readonly isLacking: (digest: Digest) => boolean;
}

/** Names the rows that a close speaks of. */
export const momentOfClose = (epoch: Epoch): string => `close ${epoch}:`;

/**
 * What a member can say of slots, and the values that follow: its reports with a close, its frontier with a promise, the value that
 * all closes determine at ballot 0, and the one that a majority's frontiers determine above. What it cannot read yet it asks for.
 */
export class Bases {
  readonly #options: BasesOptions;

  constructor(options: BasesOptions) {
    this.#options = options;
  }

  /**
   * Reports of all other slots, but for those that their own closes speak for and that are still to be sealed. Undefined while they
   * are being computed; `rows` are those of the first time.
   */
  reports(epoch: Epoch, rows: readonly HeldSlot[], effects: SealingEffect[]): Report[] | undefined {
    const following = followingReplicas(this.#ground.chain);
    for (const { replica } of this.#ground.chain.roster) following.add(replica);
    const reports: Report[] = [];
    let isComputing = false;
    for (const held of heldSlots(this.#ground, this.#options.noted, rows, epoch).values()) {
      const { id } = held;
      const close = this.#options.noted.closes.get(id.epoch)?.get(id.replica);
      if (close?.run === id.run && id.epoch >= this.#ground.chain.epoch && isIn(this.#ground.chain.roster, id.replica))
        continue;
      const report = this.#reportOf(momentOfClose(epoch), held, following, effects);
      isComputing ||= report === 'computing';
      const counted = this.#ground.chain.counted.get(slotName(id));
      // What was counted comes from the own disk at once; what is still to be fetched a later close reports.
      if (report === 'uncountable') isComputing ||= !this.#options.isLacking(counted!);
      if (report !== null && typeof report === 'object') reports.push(report);
    }
    return isComputing ? undefined : reports.sort(compareSlots);
  }

  /** The value that the closes of the whole roster determine. */
  determined(effects: SealingEffect[]): Value | undefined {
    const { epoch, roster } = this.#ground.chain;
    const held = this.#options.noted.closes.get(epoch);
    const closes = roster.flatMap(({ replica }) => held?.get(replica) ?? []);
    if (closes.length < roster.length) return undefined;
    if (
      !this.#ground.contents.have(
        closes.map((close) => close.reports),
        effects,
      )
    )
      return undefined;
    return this.#options.noted.reading(epoch, null, () => {
      const reports = closes.flatMap((close) => this.#ground.contents.reports(close.reports));
      const facts = closes.map((close) => close.facts);
      return composeValue(this.#ground, { closes, reports, facts }, effects);
    });
  }

  /** What this member holds of all that no seal has counted wholly, pinned; null while that cannot be said. `highest` is the ballot in which it is asked. */
  frontier(highest: Ballot, effects: SealingEffect[]): Digest | null {
    const { epoch, roster } = this.#ground.chain;
    const own = this.#options.noted.closes.get(epoch)?.get(this.#options.self);
    if (own !== undefined && !this.#ground.contents.have([own.slot], effects)) return null;
    let isReading = false;
    const closes: Sealable[] = roster.flatMap(({ replica }) => {
      const close = this.#options.noted.closes.get(epoch)?.get(replica);
      const { contents } = this.#ground;
      if (close === undefined || !this.#options.rules.namesClose(contents.has(close.slot))) return [];
      if (contents.has(close.slot)) {
        // Of a content that is no slot no value could be sealed: its writer has not closed.
        const read = this.#options.noted.reading(epoch, replica, () => ({
          digest: contents.join(NO_ROWS, [close.slot], effects),
        }));
        isReading ||= read !== undefined && read.digest === undefined;
        if (read?.digest !== close.slot) return [];
      }
      const { run, slot, salt, formats } = close;
      return [{ replica, run, slot, salt, formats }];
    });
    if (isReading) return null;
    const named = new Set(closes.map((close) => slotName({ ...close, epoch })));
    const following = followingReplicas(this.#ground.chain);
    for (const { replica } of roster) following.add(replica);
    const slots: Report[] = [];
    // As of the first time that this ballot is the highest: what came before its promise is in it.
    const moment = `frontier ${epoch} ${highest.round} ${highest.replica}:`;
    this.#options.jobs.forget((name) => name.startsWith('frontier') && !name.startsWith(moment));
    let isComputing = false;
    for (const [name, held] of heldSlots(this.#ground, this.#options.noted, this.#options.slotsUpTo(epoch), epoch)) {
      if (named.has(name)) continue;
      const report = this.#reportOf(moment, held, following, effects);
      // It would say less than was counted: it waits until that is read.
      if (report === 'uncountable') return null;
      if (report === 'computing') isComputing = true;
      else if (report !== null) slots.push(report);
    }
    if (isComputing) return null;
    // The next frontier says what is held then.
    this.#options.jobs.forget((name) => name.startsWith(moment));
    this.#ground.contents.pinHeld(
      epoch,
      [...closes.map(({ slot }) => slot), ...slots.map(({ digest }) => digest)].filter((digest) =>
        this.#ground.contents.has(digest),
      ),
      effects,
    );
    const facts = this.#ground.contents.pin(epoch, this.#options.facts().bytes, effects);
    const frontier = { facts, closes, slots: slots.sort(compareSlots) };
    return this.#ground.contents.pin(epoch, encodeFrontier(frontier), effects);
  }

  holdsFrontier(epoch: Epoch, digest: Digest, effects: SealingEffect[]): boolean {
    if (!this.#ground.contents.have([digest], effects)) return false;
    const frontier = this.#options.noted.reading(epoch, null, () => this.#ground.contents.frontier(digest));
    if (frontier === undefined) return false;
    const { facts, closes, slots } = frontier;
    return this.#ground.contents.have(
      [facts, ...closes.map(({ slot }) => slot), ...slots.map((slot) => slot.digest)],
      effects,
    );
  }

  /** The join of frontiers: the close where a promise has one, else the most that is held of the slot. */
  recovered(promises: readonly BallotState[], effects: SealingEffect[]): Value | undefined {
    const frontiers = promises.flatMap(({ frontier }) =>
      frontier === null ? [] : this.#ground.contents.frontier(frontier),
    );
    const closes = new Map<ReplicaId, Sealable>();
    for (const frontier of frontiers)
      for (const close of frontier.closes)
        if (isIn(this.#ground.chain.roster, close.replica)) closes.set(close.replica, close);
    // Each promise brings the close of its member: with less someone did not say what it must.
    if (closes.size < quorumOf(this.#ground.chain.roster)) return undefined;
    const basis = {
      closes: [...closes.values()],
      reports: this.#options.rules.recoveredFrom(
        frontiers.flatMap(({ slots }) => slots),
        () => this.#reportedBy([...closes.keys()], effects),
      ),
      facts: frontiers.map(({ facts }) => facts),
    };
    return composeValue(this.#ground, basis, effects);
  }

  #reportOf(
    moment: string,
    held: Held,
    following: ReadonlySet<ReplicaId>,
    effects: SealingEffect[],
  ): Report | null | NotYet {
    const { noted, rules } = this.#options;
    return reportOf(this.#ground, noted, rules, moment, held, following, effects);
  }

  #reportedBy(replicas: readonly ReplicaId[], effects: SealingEffect[]): Report[] {
    const held = this.#options.noted.closes.get(this.#ground.chain.epoch);
    const digests = replicas.flatMap((replica) => held?.get(replica)?.reports ?? []);
    return this.#ground.contents.have(digests, effects)
      ? digests.flatMap((digest) => this.#ground.contents.reports(digest))
      : [];
  }

  get #ground(): Ground {
    return this.#options.ground();
  }
}
