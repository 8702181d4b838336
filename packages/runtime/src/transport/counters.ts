import type { TransportCounters } from './transport.ts';

/** The counters that the parts of a transport raise. */
export type Counts = { -readonly [K in Exclude<keyof TransportCounters, 'links'>]: number };

/** All at zero. */
export const newCounts = (): Counts => ({
  messagesIn: 0,
  messagesOut: 0,
  datagramsIn: 0,
  datagramsOut: 0,
  bytesIn: 0,
  bytesOut: 0,
  dials: 0,
  dialsFailed: 0,
  sendsRefused: 0,
  handshakesRefused: 0,
  malformed: 0,
});
