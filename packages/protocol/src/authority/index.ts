export { Authority, FACTS_MAX, type AuthorityOptions, type FactsContent, type ReplicaStatus } from './authority.ts';
export {
  encodeFact,
  encodeFacts,
  factKey,
  isFactKey,
  parseFact,
  parseFacts,
  type Admit,
  type Ban,
  type Retire,
  type RosterFact,
} from './facts.ts';
export {
  checkInvite,
  createInvite,
  INVITE_ADDRESSES_MAX,
  INVITE_LENGTH_MAX,
  INVITE_MS,
  INVITE_MS_MAX,
  INVITE_MS_MIN,
  INVITE_PREFIX,
  INVITE_USES_MAX,
  inviteId,
  parseInvite,
  type CreatedInvite,
  type Grant,
  type Invite,
  type InviteAddress,
  type InviteOptions,
  type SignerFromSeed,
} from './invite.ts';
export { replicaIdOf } from './proof.ts';
export { nextRoster, type RosterChange, type RosterWarning } from './roster-change.ts';
export {
  createAdmit,
  createBan,
  createOwnRetire,
  createRetire,
  verifyAdmit,
  verifyBan,
  verifyFact,
  verifyRetire,
  type JoinerKeys,
} from './verify.ts';
