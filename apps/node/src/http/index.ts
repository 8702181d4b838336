export type { App } from './app.ts';
export { publicUrl, VERSION } from './self.ts';
export { buildServer, type ServerDeps } from './server.ts';
