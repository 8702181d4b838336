export { decodeAddresses, encodeAddresses } from './frames.ts';
export { joinCluster } from './join-cluster.ts';
export { Welcome, type WelcomeOptions } from './welcome.ts';
