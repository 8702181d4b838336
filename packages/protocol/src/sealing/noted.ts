import {
  jcs,
  parseJcs,
  utf8,
  WaggleError,
  type Digest,
  type Epoch,
  type ErrorCode,
  type Json,
  type ReplicaId,
} from '../base/index.ts';
import { parseBallotState, type BallotState } from './ballots.ts';
import { parseSeal, type SealRegister } from './certificate.ts';
import type { Contents } from './contents.ts';
import { closeJson, parseClose, type Close } from './value.ts';

/** Sealed epochs whose close, ballot and seal registers are still shown to members that are behind. */
export const REGISTERS_KEPT_EPOCHS = 8;

/** How far from having begun an epoch may be that others write of, in epochs: beyond what a wrong clock here explains. */
export const AHEAD_EPOCHS_MAX = 1_024;

/** Pieces of evidence kept: the first ones. */
const EVIDENCE_MAX = 64;

/** Something that no correct member writes: refused, and kept for people to look at. */
export interface Evidence {
  readonly epoch: Epoch;
  /** Who wrote it; null if that cannot be said. */
  readonly replica: ReplicaId | null;
  readonly what:
    /** A register or content that is not of its form, or does not follow from what it names. */
    | 'malformed'
    /** A second close of one epoch, unlike the first. */
    | 'closedTwice'
    /** Registers of epochs that are far from having begun: the first of them. */
    | 'ahead'
    /** A ballot of a replica that has no vote. */
    | 'noVote'
    /** A cosignature over another root than the one that was chosen. */
    | 'otherRoot';
  readonly code: ErrorCode;
}

/**
 * The registers of all replicas about epochs that are not sealed, or were lately. A later write of one replica replaces the earlier
 * one, but for closes, which are written once.
 */
export class Noted {
  readonly closes = new Map<Epoch, Map<ReplicaId, Close>>();
  readonly ballots = new Map<Epoch, Map<ReplicaId, BallotState>>();
  readonly seals = new Map<Epoch, Map<ReplicaId, SealRegister>>();
  readonly #evidence = new Map<string, Evidence>();

  get evidence(): Evidence[] {
    return [...this.#evidence.values()];
  }

  accuse(evidence: Evidence): void {
    const name = jcs({ ...evidence });
    if (this.#evidence.size < EVIDENCE_MAX) this.#evidence.set(name, evidence);
  }

  /** Runs a part that reads what others wrote; what they wrote wrongly is evidence, and the part gives undefined. */
  reading<T>(epoch: Epoch, replica: ReplicaId | null, part: () => T): T | undefined {
    try {
      return part();
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      this.accuse({ epoch, replica, what: 'malformed', code: error.code });
      return undefined;
    }
  }

  /**
   * Takes note of a register, when `sealing` is to be sealed next and no epoch after `last` is to be heard of. Gives the kind and epoch of sealing's own, null for others.
   * Throws `DECODE_FAILED` for one that is not of its form: nothing is noted then.
   */
  register(
    replica: ReplicaId,
    key: string,
    value: string,
    sealing: Epoch,
    last: Epoch,
  ): { readonly kind: 'close' | 'ballot' | 'seal'; readonly epoch: Epoch } | null {
    const match = /^(close|ballot|seal)\/(0|[1-9][0-9]{0,15})$/.exec(key);
    if (match === null) return null;
    const [, kind, number] = match as unknown as [string, 'close' | 'ballot' | 'seal', string];
    const epoch = Number(number);
    if (epoch > last) {
      const isKnown = this.evidence.some((known) => known.what === 'ahead' && known.replica === replica);
      if (!isKnown) this.accuse({ epoch, replica, what: 'ahead', code: 'DECODE_FAILED' });
      return null;
    }
    try {
      const json = parseJcs(utf8(value), `register ${key}`);
      if (kind === 'close') this.close(parseCloseOf(replica, epoch, json), sealing);
      else if (kind === 'ballot') put(this.ballots, epoch, replica, parseBallotState(json), sealing);
      else put(this.seals, epoch, replica, parseSeal(json), sealing);
    } catch (error) {
      if (error instanceof WaggleError) this.accuse({ epoch, replica, what: 'malformed', code: error.code });
      throw error;
    }
    return { kind, epoch };
  }

  close(close: Close, sealing: Epoch): void {
    const { replica, epoch } = close;
    const before = this.closes.get(epoch)?.get(replica);
    if (before === undefined) put(this.closes, epoch, replica, close, sealing);
    else if (jcs(closeJson(before)) !== jcs(closeJson(close)))
      this.accuse({ epoch, replica, what: 'closedTwice', code: 'DECODE_FAILED' });
  }

  /** Every close that is held, and by it the contents that are named for each slot. */
  *closesHeld(): Generator<Close> {
    for (const closes of this.closes.values()) yield* closes.values();
  }

  /** The contents that the closes of an epoch and of later ones name. */
  namedFrom(epoch: Epoch, contents: Contents): Set<Digest> {
    const named = new Set<Digest>();
    for (const close of this.closesHeld()) {
      if (close.epoch < epoch) continue;
      for (const digest of [close.slot, close.reports, close.facts]) named.add(digest);
      const reports = contents.has(close.reports)
        ? this.reading(close.epoch, close.replica, () => contents.reports(close.reports))
        : undefined;
      for (const { digest } of reports ?? []) named.add(digest);
    }
    return named;
  }

  /** Lets go of what is older than members that are behind may still want. */
  advance(sealing: Epoch): void {
    for (const map of [this.closes, this.ballots, this.seals])
      for (const epoch of map.keys()) if (epoch < sealing - REGISTERS_KEPT_EPOCHS) map.delete(epoch);
  }
}

function parseCloseOf(replica: ReplicaId, epoch: Epoch, json: Json): Close {
  const close = parseClose(json);
  if (close.replica !== replica || close.epoch !== epoch)
    throw new WaggleError(
      'DECODE_FAILED',
      `Expected a close of epoch ${epoch} by ${replica}, received ${close.epoch} by ${close.replica}`,
    );
  return close;
}

function put<T>(map: Map<Epoch, Map<ReplicaId, T>>, epoch: Epoch, replica: ReplicaId, value: T, sealing: Epoch): void {
  if (epoch < sealing - REGISTERS_KEPT_EPOCHS) return;
  const byReplica = map.get(epoch) ?? new Map<ReplicaId, T>();
  byReplica.set(replica, value);
  map.set(epoch, byReplica);
}
