export { openTransport, type TransportOptions } from './swarm-transport.ts';
export {
  ADMITTED_MAX,
  DATAGRAM_BYTES_MAX,
  memberKey,
  MESSAGE_BYTES_MAX,
  publicKeyOf,
  QUEUE_BYTES_MAX,
  QUEUE_MESSAGES_MAX,
  type Address,
  type JoinHandlers,
  type JoinLink,
  type Transport,
  type TransportCounters,
  type TransportHandlers,
} from './transport.ts';
