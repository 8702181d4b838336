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
      return `This node's clock says that epoch ${alarm.epoch} is over, and the clocks of the members do not: it is not closed yet. Check the clock`;
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

/** Whether this process must not go on. */
export const endsNode = (alarm: Alarm): boolean => alarm.what === 'duplicate' && alarm.mustStop;
