/** What can be broken on purpose, so that the checkers can be seen to bite. */
export const MUTATIONS = {
  openAnything: 'links hand on messages that were changed on the way',
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

/** What can go wrong, and what an operator can do meanwhile. */
export const FAULTS = {
  kill: 'a process ends between any two writes, and comes back',
  killAll: 'all of them do, at once or as an epoch ends',
  killAtSeal: 'a process ends at its next write that says something about an epoch',
  loseMajority: 'more than half of the machines are down for a while',
  away: 'a machine is down for longer than registers of sealed epochs are kept',
  partition: 'the network falls apart in two',
  longPartition: 'one node that runs is cut off for longer than registers of sealed epochs are kept',
  oneWay: 'one half does not hear the other',
  slowLink: 'one link is slow, in one direction',
  breakLinks: 'all links of a node break',
  loss: 'datagrams are lost, doubled, late',
  loseMessages: 'single messages are lost on links that stand, as when a link has no room',
  corrupt: 'bytes change on the way',
  pause: 'a process stands still',
  longPause: 'a process stands still for longer than registers of sealed epochs are kept',
  jump: 'a clock is wrong, by minutes perhaps',
  drift: 'a clock is too fast or too slow',
  slowDisk: 'a disk is slow',
  fullDisk: 'a disk is full',
  fullForLong: 'a disk is full for many epochs',
  loseDisk: 'a disk is lost: another machine takes its place',
  restore: 'a data directory is replaced by an older copy of it, and the node notices',
  restoreUnnoticed: 'the same, and only the other members can tell; of a node that does not vote',
  join: 'another node is admitted',
  leave: 'a node retires itself, and goes once others hold what it counted',
  retire: 'the operator takes the vote from a node',
  ban: 'the operator bans a node',
} as const;
export type Fault = keyof typeof FAULTS;
export const FAULT_NAMES = Object.keys(FAULTS) as Fault[];

export interface SimOptions {
  readonly seed: number;
  /** 1 to 50 at the start, the founders included. */
  readonly nodes: number;
  /** Of them, how many are founders: the genesis' roster. 1 unless said. */
  readonly voters?: number;
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
/** How long an epoch waits for a member that has not closed it, in ms. */
export const SEAL_GRACE_MS = 5_000;
