export { systemClock, type Cancel, type Clock } from './clock.ts';
export { openDataDirectory, writePrivateFile, type DataDirectory } from './data-directory.ts';
export { entropy } from './entropy.ts';
export { createNodeKeys, createOperatorKey, readNodeKeys, readOperatorKey, type NodeKeys } from './keys.ts';
export { constantTimeEqual, nodeCrypto, signerFromSeed } from './node-crypto.ts';
export * from './store/index.ts';
export { Driver, type DriverOptions, type Metering } from './driver/driver.ts';
export * from './driver/epochs.ts';
export { META, takeStanding, type FoundingOptions, type Standing } from './driver/founding.ts';
