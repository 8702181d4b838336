/** What can be broken on purpose, so that the checkers can be seen to bite. */
export const MUTATIONS = {
  ackBeforeWrite: 'the disk says that a batch is written before it is',
  forgetVotes: 'a start forgets closes, ballots and seals of epochs that are not sealed',
  countTwice: 'a metering is handed in twice',
  shrinkRows: 'the disk writes less usage than it was told',
  otherRoot: 'one node keeps another root of a sealed epoch than it was told',
  otherSalts: 'one node computes other statements than the rest',
  spoilContent: 'one node keeps other contents than it was told',
  loseLateRows: 'a start forgets the usage of earlier runs',
  neverSeal: 'the founder finds no room for a seal, ever',
  believeAnything: 'the verifier takes everything for good',
  forgetRevocations: 'a start does not fold revocations',
  skipFolds: 'one node does not fold every other register into its view',
  vectorsOnly: 'the disk writes how far registers are held, but not what others wrote',
} as const;
export type Mutation = keyof typeof MUTATIONS;

export const FAULTS = [
  'kill',
  'killAll',
  'killAtSeal',
  'partition',
  'oneWay',
  'slowLink',
  'breakLinks',
  'loss',
  'pause',
  'jump',
  'drift',
  'slowDisk',
  'fullDisk',
  'loseDisk',
] as const;
export type Fault = (typeof FAULTS)[number];

export interface SimOptions {
  readonly seed: number;
  /** 1 to 50, the founder included. */
  readonly nodes: number;
  /** Of faults, in virtual minutes; the healing comes after them. */
  readonly minutes: number;
  /** Those that may happen; all unless said. */
  readonly faults?: readonly Fault[];
  readonly mutation?: Mutation;
  /** Each event as it happens. */
  readonly onLine?: (line: string) => void;
}

export const START_MS = 1_700_000_000_000;
export const EPOCH_MS = 15_000;
