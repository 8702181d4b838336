import type { Digest, Epoch, ReplicaId } from '../base/index.ts';
import type { SealRegister } from './certificate.ts';
import type { SealingStatus } from './effects.ts';
import type { Noted } from './noted.ts';
import { epochBounds, isIn, quorumOf, type Cluster, type Roster } from './roster.ts';
import type { ChainState } from './value.ts';
import { highestBallot } from './voting.ts';

/** How the sealing of the epoch to be sealed next goes, as far as the registers say. */
export function statusOf(
  { genesis }: Cluster,
  chain: ChainState,
  noted: Noted,
  self: ReplicaId,
  isOpen: boolean,
  isDecided: boolean,
): SealingStatus {
  const { epoch, roster } = chain;
  const missing = (map: ReadonlyMap<Epoch, ReadonlyMap<ReplicaId, unknown>>): ReplicaId[] =>
    roster.map(({ replica }) => replica).filter((replica) => map.get(epoch)?.has(replica) !== true);
  const unclosed = missing(noted.closes);
  const phase = isOpen ? 'open' : isDecided || unclosed.length === 0 ? 'sealing' : 'closing';
  const isVoter = (replica: ReplicaId): boolean => isIn(roster, replica);
  const votes = new Map([...(noted.ballots.get(epoch) ?? [])].filter(([replica]) => isVoter(replica)));
  return {
    epoch,
    phase,
    waitingFor: phase === 'open' ? [] : phase === 'closing' ? unclosed : missing(noted.seals),
    deadlineMs: epochBounds(genesis, epoch).endMs + genesis.sealGraceMs,
    ballot: highestBallot({ votes, isVoter }),
    mayLeave: !isVoter(self) && isHeldByMajority(chain, noted),
  };
}

/** Whether a majority of those who vote now hold the last seal, as their votes on later epochs and their signatures show. */
function isHeldByMajority({ epoch, roster }: ChainState, { seals, ballots }: Noted): boolean {
  const sealed = epoch - 1;
  const shows = (replica: ReplicaId): boolean =>
    [...seals].some(([of, registers]) => of >= sealed && registers.has(replica)) ||
    [...ballots].some(([of, registers]) => of > sealed && registers.has(replica));
  return roster.filter(({ replica }) => shows(replica)).length >= quorumOf(roster);
}

/** The header that a majority of a roster has cosigned, or null. */
export function cosignedBy(
  roster: Roster,
  seals: ReadonlyMap<ReplicaId, Pick<SealRegister, 'header'>> | undefined,
): Digest | null {
  const counts = new Map<Digest, number>();
  for (const { replica } of roster) {
    const header = seals?.get(replica)?.header;
    if (header === undefined) continue;
    const count = (counts.get(header) ?? 0) + 1;
    if (count >= quorumOf(roster)) return header;
    counts.set(header, count);
  }
  return null;
}
