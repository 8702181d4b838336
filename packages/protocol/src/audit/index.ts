export * from './bundle.ts';
export { totalsOf, type Totals } from './statement.ts';
export * from './verify.ts';
