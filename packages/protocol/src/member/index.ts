export type { ShownEpoch } from '../replication/index.ts';
export type { ApartClock } from './clocks.ts';
export { Member } from './member.ts';
export type {
  Alarm,
  Batch,
  ControlRow,
  Loaded,
  MemberEffect,
  MemberInput,
  MemberOptions,
  MemberTimer,
  Now,
  UsageRegisterRow,
  VectorRow,
  Write,
} from './types.ts';
export type { UsageView } from './usage-book.ts';
