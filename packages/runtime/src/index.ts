export { systemClock, type Cancel, type Clock } from './clock.ts';
export { openDataDirectory, writePrivateFile, type DataDirectory, type Refused } from './data-directory.ts';
export { entropy } from './entropy.ts';
export { EVIDENCE_BYTES_MAX, evidenceName, openEvidence, type EvidenceFile, type EvidencePiece } from './evidence.ts';
export { createNodeKeys, createOperatorKey, readNodeKeys, readOperatorKey, type NodeKeys } from './keys.ts';
export { constantTimeEqual, nodeCrypto, signerFromSeed } from './node-crypto.ts';
export { openRecovery, type Recovery, type Surviving } from './recover.ts';
export { sweepSlots } from './retention.ts';
export * from './store/index.ts';
export type { Metering } from './driver/disk.ts';
export { Driver, type DriverOptions } from './driver/driver.ts';
export { encodeNodeEntry, NODE_KEY, parseNodeEntry, type NodeEntry, type NodeLoad } from './driver/directory.ts';
export * from './driver/epochs.ts';
export { Rosters } from './driver/rosters.ts';
export {
  META,
  takeStanding,
  type FoundingOptions,
  type InviteSource,
  type Standing,
  type StandingOptions,
} from './driver/founding.ts';
export { Welcome, type WelcomeOptions } from './joining/index.ts';
