export { createClient, type CallOptions, type Client, type WorkOptions } from './client.ts';
export type { PictureBody } from './body.ts';
export type { Clock } from './clock.ts';
export { WaggleClientError, type OwnCode } from './error.ts';
export type { Attempt, ClientOptions, Fetch, RetryOptions } from './options.ts';
export type * from './types.ts';
