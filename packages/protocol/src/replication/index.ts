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
} from './types.ts';
