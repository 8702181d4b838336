import { nextRoster, parseFacts, type Authority } from '../authority/index.ts';
import { Sealing } from '../sealing/index.ts';
import type { Loaded, MemberOptions } from './types.ts';
import type { UsageBook } from './usage-book.ts';

interface Sources {
  readonly authority: Authority;
  readonly book: UsageBook;
  readonly isHeldUp: () => boolean;
}

/** The sealing of a node: over its usage, with the roster facts that it holds, from where its disk is on. */
export function newSealing(member: MemberOptions, loaded: Loaded, { authority, book, isHeldUp }: Sources): Sealing {
  const { cluster, replica, run, crypto, random, log, cosigner, inlineBytes } = member;
  return new Sealing({
    cluster,
    replica,
    run,
    crypto,
    random,
    logSigner: log,
    cosigner,
    slotsUpTo: (epoch) => book.slotsUpTo(epoch),
    facts: () => authority.facts(),
    provenFacts: (content) => authority.proven(content),
    nextRoster: (roster, facts, seen) => nextRoster(roster, facts.flatMap(parseFacts), seen, crypto).roster,
    chain: loaded.chain,
    edge: loaded.edge,
    firstEpoch: loaded.firstEpoch ?? loaded.chain.epoch,
    lacking: loaded.lacking,
    inlineBytes,
    isHeldUp,
  });
}
