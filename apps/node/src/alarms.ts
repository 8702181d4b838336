import type { Epoch, ErrorCode, ReplicaId } from '@waggle/protocol/base';
import type { Alarm } from '@waggle/protocol/member';
import type { Evidence } from '@waggle/protocol/sealing';
import type { Clock, Refused } from '@waggle/runtime';

/**
 * What was found about the cluster, another process that wanted this node's data directory, a new piece of evidence, and why one
 * could not be written down.
 */
export type NodeAlarm =
  | Alarm
  | ({ readonly what: 'secondStart' } & Refused)
  | { readonly what: 'evidence'; readonly evidence: Evidence }
  | { readonly what: 'evidenceNotKept'; readonly why: string };

/** What a person is told of an alarm: what was found, and what to do. */
export function alarmText(alarm: NodeAlarm): string {
  switch (alarm.what) {
    case 'overtaken':
      return (
        'Members hold registers of this replica that this data directory does not: it was put back from an older copy. ' +
        'It serves and meters on, but changes nothing and votes no more. Start it again with --join and a new invite: it becomes ' +
        'a new replica, and what it holds of the old one still counts'
      );
    case 'conflict':
      return `Two processes write as ${alarm.writer}: one of them runs on a copy of its data directory`;
    case 'duplicate':
      return alarm.mustStop
        ? 'Another process, started before this one, writes as the same replica: this one runs on a copy of its data directory and stops'
        : 'Another process, started after this one, writes as the same replica: it runs on a copy of this data directory and should have stopped';
    case 'secondStart':
      return (
        `Another process${alarm.pid === null ? '' : ` (pid ${alarm.pid})`} wanted this data directory and was refused it ` +
        '(DATA_LOCKED): a second start of this node, or a start of another one with the wrong --data'
      );
    case 'clockAhead':
      return (
        `Epoch ${alarm.epoch} is open here, and by the clocks known here that lasts for more than another minute: this node's ` +
        'clock is ahead, or was. Check the clock. Until then all that is metered counts in that epoch'
      );
    case 'clockApart':
      return `${clockText(alarm.isOwn ? null : alarm.replica, alarm.aheadMs)}. Check that clock`;
    case 'banned':
      return 'The operator has banned this replica: no member connects to it any more';
    case 'retired':
      return 'This replica was retired: it votes no more once a seal has taken that up; what it meters still counts';
    case 'foreignVersion':
      return `Replica ${alarm.replica} speaks version ${alarm.major} of the protocol, of which nothing is understood here`;
    case 'malformed':
      return `Replica ${alarm.replica} wrote a register ${alarm.key} that no correct node writes (${alarm.code}); it has no effect`;
    case 'evidence':
      return evidenceText(alarm.evidence);
    case 'evidenceNotKept':
      return `Evidence could not be written to evidence.jsonl of the data directory: ${alarm.why}`;
  }
}

/** How far a clock is from the members' median, in whole seconds. `replica` is null for this node's own. */
export const clockText = (replica: ReplicaId | null, aheadMs: number): string =>
  `The clock of ${replica === null ? 'this node' : `replica ${replica}`} is ${Math.round(Math.abs(aheadMs) / 1000)} s ` +
  `${aheadMs > 0 ? 'ahead of' : 'behind'} the median of the members' clocks`;

const EVIDENCE: Record<Evidence['what'], string> = {
  malformed: 'wrote a close, ballot or seal that is not of its form, or named a content that is not what it says',
  closedTwice: 'closed its slot twice, with other figures',
  ahead: 'writes of epochs that are far from having begun: look at its clock',
  noVote: 'voted without a vote',
  otherRoot: 'signed another root than the one that was chosen',
};

/** What was refused, and by whom it came. Without a full stop. */
export const evidenceText = ({ epoch, replica, what, code }: Evidence): string =>
  `${replica === null ? 'Somebody' : `Replica ${replica}`} ${EVIDENCE[what]}, in epoch ${epoch} (${code}): it was refused`;

/** Whether this process must not go on. */
export const endsNode = (alarm: NodeAlarm): boolean => alarm.what === 'duplicate' && alarm.mustStop;

/** How long after it was seen an alarm of what is over by itself is told, in ms: each process is reported once. */
const SEEN_MS = 600_000;
/** Pairs of member and code whose frames are told of: of more the oldest goes. */
const MISBEHAVIOURS_MAX = 64;
const STANDING: ReadonlySet<NodeAlarm['what']> = new Set(['overtaken', 'duplicate', 'secondStart', 'clockAhead']);

/** What a member sent that no correct node sends, under one code. */
interface Misbehaviour {
  readonly from: ReplicaId;
  readonly code: ErrorCode;
  readonly count: number;
  readonly lastMs: number;
}

const misbehaviourText = ({ from, code, count, lastMs }: Misbehaviour): string => {
  const [frames, they] = count === 1 ? ['1 frame', 'it'] : [`${count} frames`, 'they'];
  const last = new Date(lastMs).toISOString();
  return `Replica ${from} sent ${frames} that no correct node sends (${code}), the last at ${last}: ${they} changed nothing.`;
};

/**
 * The alarms that stand: what was found and still holds, or was seen in the last ten minutes, for `/v1/cluster`. What the
 * cluster's registers say of a node (banned, retired) is read from them.
 */
export class StandingAlarms {
  readonly #clock: Pick<Clock, 'nowMs'>;
  readonly #standing = new Map<NodeAlarm['what'], { readonly alarm: NodeAlarm; readonly seenMs: number }>();
  /** By member and code, the latest last. */
  readonly #misbehaviours = new Map<string, Misbehaviour>();

  constructor(clock: Pick<Clock, 'nowMs'>) {
    this.#clock = clock;
  }

  raise(alarm: NodeAlarm): void {
    if (STANDING.has(alarm.what)) this.#standing.set(alarm.what, { alarm, seenMs: this.#clock.nowMs() });
  }

  /** A member sent what no correct node sends. */
  misbehaved(from: ReplicaId, code: ErrorCode): void {
    const name = `${from} ${code}`;
    const lastMs = this.#clock.nowMs();
    const before = this.#misbehaviours.get(name);
    this.#misbehaviours.delete(name);
    const count = before === undefined || lastMs - before.lastMs > SEEN_MS ? 1 : before.count + 1;
    this.#misbehaviours.set(name, { from, code, count, lastMs });
    if (this.#misbehaviours.size > MISBEHAVIOURS_MAX)
      this.#misbehaviours.delete(this.#misbehaviours.keys().next().value!);
  }

  /** Whether members hold registers of this replica that are not here: it must not change anything. */
  get isOvertaken(): boolean {
    return this.#standing.has('overtaken');
  }

  /** In words, while that epoch is open. */
  texts(openEpoch: Epoch): string[] {
    const nowMs = this.#clock.nowMs();
    const misbehaviours = [...this.#misbehaviours.values()].filter(({ lastMs }) => nowMs - lastMs <= SEEN_MS);
    return [...this.#standingTexts(openEpoch, nowMs), ...misbehaviours.map(misbehaviourText)];
  }

  #standingTexts(openEpoch: Epoch, nowMs: number): string[] {
    return [...this.#standing.values()].flatMap(({ alarm, seenMs }) => {
      if (alarm.what === 'clockAhead' && alarm.epoch < openEpoch) return [];
      if (alarm.what !== 'duplicate' && alarm.what !== 'secondStart') return [`${alarmText(alarm)}.`];
      return nowMs - seenMs > SEEN_MS ? [] : [`${alarmText(alarm)} (seen at ${new Date(seenMs).toISOString()}).`];
    });
  }
}
