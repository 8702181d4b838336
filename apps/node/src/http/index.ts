export type { App } from './app.ts';
export { buildServer, type ServerDeps } from './server.ts';
