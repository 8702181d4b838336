export { estimateCpuMicros } from './estimate.ts';
export { type PlannedPicture, planPicture, type SourceHeader } from './geometry.ts';
export { DEFAULT_LIMITS, type Limits } from './limits.ts';
export type { ResultHeader } from './messages.ts';
export { type OutputFormat, type Parameter, parsePlan, RESIZE_PARAMETERS, type ResizePlan } from './plan.ts';
export {
  createPool,
  type Job,
  type JobFigures,
  type JobOutcome,
  type Pool,
  type PoolEvent,
  type PoolOptions,
  type PoolStats,
} from './pool.ts';
