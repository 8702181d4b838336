import { assert } from '../base/index.ts';
import { updateBytesMax } from './codec.ts';
import { CONFIRMATIONS, MEMBERS_MAX, RETRANSMIT_FACTOR } from './constants.ts';
import type { MemberId, Update } from './member.ts';

interface Broadcast {
  readonly update: Update;
  sent: number;
}

/** At one time of one member: its state, or the suspicion and its confirmations. */
const PER_MEMBER_MAX = 1 + CONFIRMATIONS;

/** How often an update goes out among so many live members, oneself counted (SWIM §4.1: λ · log n). */
export const retransmissions = (members: number): number => RETRANSMIT_FACTOR * Math.ceil(Math.log10(members + 1));

/** The news that goes along with probes and their answers (SWIM §4.1): fewest sent first, the older of those. */
export class Broadcasts {
  /** By how often they were sent, each in the order in which they got there. */
  readonly #bySent: Set<Broadcast>[] = [];
  readonly #byMember = new Map<MemberId, readonly Broadcast[]>();

  #sentCount = 0;

  /** Updates that went out so far, each as often as it did. */
  get sent(): number {
    return this.#sentCount;
  }

  /** Updates that wait. */
  get size(): number {
    let size = 0;
    for (const { length } of this.#byMember.values()) size += length;
    return size;
  }

  /** Takes an update in, in place of what it makes obsolete. Only what overrode, or confirmed, what was held. */
  put(update: Update): void {
    const held = this.#byMember.get(update.member) ?? [];
    const kept = held.filter((broadcast) => confirms(update, broadcast.update));
    for (const broadcast of held) if (!kept.includes(broadcast)) this.#bySent[broadcast.sent]!.delete(broadcast);
    assert(kept.length < PER_MEMBER_MAX, `at most ${PER_MEMBER_MAX} broadcasts of a member`);
    const fresh = { update, sent: 0 };
    this.#byMember.set(update.member, [...kept, fresh]);
    assert(this.#byMember.size <= MEMBERS_MAX + 1, `broadcasts of at most ${MEMBERS_MAX} members and oneself`);
    this.#level(0).add(fresh);
  }

  /** Forgets what waits about a member. */
  drop(member: MemberId): void {
    for (const broadcast of this.#byMember.get(member) ?? []) this.#bySent[broadcast.sent]!.delete(broadcast);
    this.#byMember.delete(member);
  }

  /** Updates for one datagram of at most that many bytes, none about `recipient`; each goes out `limit` times. */
  take(bytes: number, limit: number, recipient: MemberId): Update[] {
    const taken: Broadcast[] = [];
    let left = bytes;
    for (const level of this.#bySent)
      for (const broadcast of level) {
        const size = updateBytesMax(broadcast.update);
        if (size > left) break;
        if (broadcast.update.member === recipient) continue;
        taken.push(broadcast);
        left -= size;
      }
    for (const broadcast of taken) this.#sent(broadcast, limit);
    return taken.map(({ update }) => update);
  }

  #sent(broadcast: Broadcast, limit: number): void {
    this.#bySent[broadcast.sent]!.delete(broadcast);
    broadcast.sent++;
    this.#sentCount++;
    if (broadcast.sent < limit) {
      this.#level(broadcast.sent).add(broadcast);
      return;
    }
    const { member } = broadcast.update;
    const rest = this.#byMember.get(member)!.filter((other) => other !== broadcast);
    if (rest.length > 0) this.#byMember.set(member, rest);
    else this.#byMember.delete(member);
  }

  #level(sent: number): Set<Broadcast> {
    while (this.#bySent.length <= sent) this.#bySent.push(new Set());
    return this.#bySent[sent]!;
  }
}

/** Whether two accusations stand beside each other: of one incarnation, by different accusers. */
const confirms = (update: Update, held: Update): boolean =>
  update.state === 'suspect' &&
  held.state === 'suspect' &&
  update.incarnation === held.incarnation &&
  update.accuser !== held.accuser;
