export { memberOf, type Member, type MemberId, type MemberKey, type MemberState } from './member.ts';
export { Membership } from './membership.ts';
export type { PeerState } from './table.ts';
export type {
  Effect,
  Input,
  MemberChange,
  MembershipCounts,
  MembershipOptions,
  MemberView,
  TimerInput,
} from './types.ts';
