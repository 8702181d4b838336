export * from './bundle.ts';
export { encodeRosterChange, verifyRosters, type RosterChange, type RosterFrom } from './rosters.ts';
export { totalsOf, type Totals } from './statement.ts';
export { verifyBreak, verifySuccessor, type Succession } from './succession.ts';
export * from './verify.ts';
