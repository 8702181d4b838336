/* The two that are compared, as processes to be started and lines to be read. */
import { fileURLToPath } from 'node:url';
import { hostOf } from './fixture.js';

const NODE = fileURLToPath(new URL('node.js', import.meta.url));
/** Serf encrypts, as our transport always does. */
const SERF_KEY = Buffer.alloc(16, 7).toString('base64');
const SERF_STATES = { EventMemberJoin: 'alive', EventMemberFailed: 'dead' };
const SERF_SEEDS = 3;

/** The command that starts node `i` of `nodes`. */
export const commands = {
  waggle: (i, nodes, startMs) => [process.execPath, [NODE, i, nodes, startMs].map(String)],
  serf: (i, nodes) => [
    'serf',
    [
      'agent',
      `-node=n${i}`,
      `-bind=${hostOf(i)}:7946`,
      `-rpc-addr=${hostOf(i)}:7373`,
      `-encrypt=${SERF_KEY}`,
      '-profile=lan',
      '-retry-interval=1s',
      ...Array.from(
        { length: Math.min(SERF_SEEDS, nodes - 1) },
        (_, k) => `-retry-join=${hostOf((i + k + 1) % nodes)}`,
      ),
    ],
  ],
};

/** What a line says: of whom which state, or a report, or that something went wrong; null if nothing. */
export const parsers = {
  waggle(line) {
    const [what, number, state] = line.split(' ');
    if (what === 'member') return { subject: Number(number), state };
    if (what === 'report') return { report: JSON.parse(line.slice('report '.length)) };
    return { unexpected: line };
  },
  serf(line) {
    const found = /serf: (Event\w+): n(\d+) /.exec(line);
    const state = SERF_STATES[found?.[1]];
    return state === undefined ? null : { subject: Number(found[2]), state };
  },
};
