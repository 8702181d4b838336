export { Replication } from './replication.ts';
export type { ReplicationStats } from './stats.ts';
export type {
  ClassName,
  DropRules,
  JoinedEffect,
  Lag,
  PerClass,
  ReplicationEffect,
  ReplicationInput,
  ReplicationOptions,
  ReplicationTimer,
  ShownEpoch,
} from './types.ts';
export { VERSION_MAJOR, VERSION_MAJOR_MIN } from './constants.ts';
