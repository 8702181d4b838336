export { openStore } from './store.ts';
export * from './types.ts';
