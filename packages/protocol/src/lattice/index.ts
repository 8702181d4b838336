export {
  addUsage,
  addUsageCapped,
  atLeast,
  DIMENSIONS,
  equalUsage,
  joinUsage,
  parseUsage,
  subtractUsage,
  ZERO_USAGE,
  type Dimension,
  type Usage,
} from './counts.ts';
export {
  controlSigningBytes,
  equalControl,
  equalUsageRow,
  parseUsageWriter,
  signControl,
  usageKey,
  usageWriter,
  verifyControl,
  type ControlRegister,
  type Register,
  type UsageRow,
  type WriterId,
} from './register.ts';
export { Registers, type Change, type Delta, type Joined, type RegistersOptions } from './registers.ts';
export type { Range } from './part.ts';
export { DELTA_BYTES_MAX, MESSAGE_BYTES_MAX } from './wire-delta.ts';
export {
  CONTROL_KEY_BYTES_MAX,
  CONTROL_VALUE_BYTES_MAX,
  controlRegisterBytes,
  decodeControlDelta,
  encodeControlDelta,
  type ControlDelta,
} from './control-codec.ts';
export { decodeUsageDelta, encodeUsageDelta, usageRowSizer, type UsageDelta } from './usage-codec.ts';
export { GCounter } from './g-counter.ts';
export { isLwwKey, LwwMap, lwwKey, lwwValue, parseLww, type LwwEntry } from './lww-map.ts';
