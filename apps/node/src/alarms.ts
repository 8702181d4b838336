import type { Epoch, ReplicaId } from '@waggle/protocol/base';
import type { Alarm } from '@waggle/protocol/member';

/** What a person is told of an alarm: what was found, and what to do. */
export function alarmText(alarm: Alarm): string {
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
    case 'clockAhead':
      return (
        `Epoch ${alarm.epoch} is open here, and by the clocks of the members that lasts for more than another minute: this node's ` +
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
  }
}

/** How far a clock is from the members' median, in whole seconds. `replica` is null for this node's own. */
export const clockText = (replica: ReplicaId | null, aheadMs: number): string =>
  `The clock of ${replica === null ? 'this node' : `replica ${replica}`} is ${Math.round(Math.abs(aheadMs) / 1000)} s ` +
  `${aheadMs > 0 ? 'ahead of' : 'behind'} the median of the members' clocks`;

/** Whether this process must not go on. */
export const endsNode = (alarm: Alarm): boolean => alarm.what === 'duplicate' && alarm.mustStop;

/**
 * The alarms that stand: what was found and still holds, for `/v1/cluster`. What the cluster's registers say of a node (banned,
 * retired) is read from them.
 */
export class StandingAlarms {
  readonly #standing = new Map<Alarm['what'], Alarm>();

  raise(alarm: Alarm): void {
    if (['overtaken', 'duplicate', 'clockAhead'].includes(alarm.what)) this.#standing.set(alarm.what, alarm);
  }

  /** Whether members hold registers of this replica that are not here: it must not change anything. */
  get isOvertaken(): boolean {
    return this.#standing.has('overtaken');
  }

  /** In words, while that epoch is open. */
  texts(openEpoch: Epoch): string[] {
    return [...this.#standing.values()]
      .filter((alarm) => alarm.what !== 'clockAhead' || alarm.epoch >= openEpoch)
      .map((alarm) => `${alarmText(alarm)}.`);
  }
}
