/*
 * A network of its own for the nodes of a cluster: a namespace for each node with two links, one over which clients ask it, and one
 * over which members talk. The latter can be plugged into another bridge: then the two sides do not reach each other. Takes root.
 */
import { execFileSync } from 'node:child_process';
import { demand } from './check.js';
import { reap } from './nodes.js';

const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
/** Names of links have at most 15 characters. */
const mark = `wb${(process.pid % 10_000).toString(36)}`;
const CLIENTS = '10.213.77';
const MEMBERS = '10.214.77';
const HTTP_PORT = 8080;
const SWARM_PORT = 7070;

export class Network {
  #count = 0;

  constructor() {
    demand(process.getuid?.() === 0, 'this part runs as root: it makes network namespaces');
    for (const bridge of ['c', 'a', 'b']) {
      const name = `${mark}${bridge}`;
      reap(`+link ${name}`);
      ip('link', 'add', name, 'type', 'bridge');
      ip('link', 'set', name, 'up');
    }
    ip('addr', 'add', `${CLIENTS}.254/24`, 'dev', `${mark}c`);
  }

  /** A place for node i, for a cluster's `placeOf`. */
  place(i) {
    const ns = `${mark}n${i}`;
    reap(`+ns ${ns}`);
    ip('netns', 'add', ns);
    ip('-n', ns, 'link', 'set', 'lo', 'up');
    for (const [kind, subnet, bridge] of [
      ['h', CLIENTS, 'c'],
      ['s', MEMBERS, 'a'],
    ]) {
      const outside = `${mark}${kind}${i}`;
      reap(`+link ${outside}`);
      ip('link', 'add', outside, 'type', 'veth', 'peer', 'name', `${kind}0`, 'netns', ns);
      ip('link', 'set', outside, 'master', `${mark}${bridge}`, 'up');
      ip('-n', ns, 'addr', 'add', `${subnet}.${i}/24`, 'dev', `${kind}0`);
      ip('-n', ns, 'link', 'set', `${kind}0`, 'up');
    }
    this.#count = Math.max(this.#count, i);
    const http = `${CLIENTS}.${i}:${HTTP_PORT}`;
    return { http, swarm: `${MEMBERS}.${i}:${SWARM_PORT}`, prefix: ['ip', 'netns', 'exec', ns] };
  }

  /** Nodes of these numbers reach each other and nobody else. */
  split(numbers) {
    for (const i of numbers) ip('link', 'set', `${mark}s${i}`, 'master', `${mark}b`);
  }

  /** All reach all again. */
  heal() {
    for (let i = 1; i <= this.#count; i++) ip('link', 'set', `${mark}s${i}`, 'master', `${mark}a`);
  }

  /** Takes it down. */
  close() {
    for (let i = 1; i <= this.#count; i++) ip('netns', 'delete', `${mark}n${i}`);
    for (const bridge of ['c', 'a', 'b']) ip('link', 'delete', `${mark}${bridge}`);
  }
}
