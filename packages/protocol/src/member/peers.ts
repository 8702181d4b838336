import { base64, present, WaggleError, type Digest, type Random, type ReplicaId } from '../base/index.ts';
import type { Authority } from '../authority/index.ts';
import type { ControlRegister, Registers, UsageRow, WriterId } from '../lattice/index.ts';
import {
  memberOf,
  Membership,
  type Effect as MembershipEffect,
  type Input as MembershipInput,
  type Member as Peer,
  type MemberKey,
  type MemberView,
} from '../membership/index.ts';
import {
  Replication,
  type ClassName,
  type DropRules,
  type JoinedEffect,
  type Lag,
  type ReplicationEffect,
  type ReplicationInput,
  type ReplicationStats,
} from '../replication/index.ts';
import { isIn, type Roster } from '../sealing/index.ts';
import { Clocks } from './clocks.ts';
import { decodeEnvelope, encodeEnvelope } from './envelope.ts';
import type { MemberEffect, MemberInput, MemberOptions, Now } from './types.ts';

/** How long after a start it is waited for those who cannot be compared with, in ms. */
const COMPARE_MS_MAX = 10_000;
/** Seeds that are pinged at once when a node starts. */
const SEEDS_MAX = 8;

/** What the other members brought, beside what goes out as it is. */
export type PeersEffect =
  | Extract<
      MemberEffect,
      { type: 'send' | 'datagram' | 'timer' | 'member' | 'misbehaviour' | 'alarm' | 'load' | 'visible' | 'readSealed' }
    >
  | Extract<ReplicationEffect, { type: 'epochs' }>
  | JoinedEffect
  /** A wanted content, checked against its digest. */
  | { readonly type: 'content'; readonly digest: Digest; readonly bytes: Uint8Array };

export type PeersInput =
  | Extract<MemberInput, { type: 'datagram' | 'message' | 'linkUp' | 'linkDown' | 'loopLag' | 'leave' }>
  | Extract<MemberInput, { type: 'timer' }>
  /** Who belongs to the cluster has changed, or this node starts. */
  | { readonly type: 'admitted' }
  /** To replication alone. */
  | Extract<
      ReplicationInput,
      { type: 'written' | 'held' | 'absent' | 'want' | 'unwant' | 'follow' | 'behind' | 'sealedRead' }
    >;

interface PeersOptions {
  readonly member: MemberOptions;
  readonly authority: Authority;
  readonly control: Registers<ControlRegister, ReplicaId>;
  readonly usage: Registers<UsageRow, WriterId>;
  readonly controlRules: DropRules<ControlRegister, ReplicaId>;
  readonly usageRules: DropRules<UsageRow, WriterId>;
  /** Who may vote on the epoch to be sealed next. */
  readonly roster: () => Roster;
}

/**
 * The other members as this node deals with them: membership says who is reachable, replication keeps the registers equal, and
 * every message brings a clock. Nothing goes on while there is nobody else.
 *
 * After a start this replica shows no control register of its own before it has compared with every member that it reaches, and
 * with a majority of the other voters: with a disk that went back it would give versions that others hold to other values (PROTOCOL
 * section 1). Members that do not answer hold that up for 10 s, not for ever: else one that is lost could stop the others.
 */
export class Peers {
  readonly #options: PeersOptions;
  readonly #random: Random;
  readonly #membership: Membership;
  readonly #replication: Replication;
  /** What the members' clocks say. */
  readonly clocks: Clocks;
  readonly #self: Peer;
  #isStarted = false;
  #isHidden: boolean;
  /** When somebody was first within reach. */
  #reachedMs: number | undefined;
  #isOvertaken = false;
  #live: readonly ReplicaId[] = [];

  constructor(options: PeersOptions) {
    const { member, authority } = options;
    const { cluster, replica, run, crypto, random, transport } = member;
    this.#options = options;
    this.#random = random;
    this.#self = memberOf(base64.encode(transport.publicKey), replica);
    this.#isHidden = this.#others().length > 0;
    this.clocks = new Clocks(replica, {
      isVoter: (other) => isIn(options.roster(), other),
      isMember: (other) => authority.statusOf(other) === 'admitted',
      others: () => this.#others().filter((other) => authority.statusOf(other.replica) === 'admitted').length,
    });
    this.#membership = new Membership({ cluster: cluster.id, self: this.#self, run, random });
    this.#replication = new Replication({
      cluster: cluster.id,
      replica,
      run,
      crypto,
      random,
      control: options.control,
      usage: options.usage,
      // Its own fact may not have come to a newcomer yet.
      keyOf: (other) => authority.keyOf(other) ?? (other === replica ? transport.publicKey : undefined),
      boundTo: (other) => authority.boundTo(other),
      isHidden: this.#isHidden,
      controlRules: options.controlRules,
      usageRules: options.usageRules,
    });
  }

  /** Whether anybody else was ever admitted. */
  get isStarted(): boolean {
    return this.#isStarted;
  }

  /** Whether any other member is within reach. */
  get isReached(): boolean {
    return this.#live.length > 0;
  }

  /** This node and all others that it has heard of, in the order of their replica ids. */
  get members(): MemberView[] {
    return this.#membership.members();
  }

  /** How many contents are being looked for at others. */
  get wanted(): number {
    return this.#replication.wanted;
  }

  get stats(): Readonly<ReplicationStats> {
    return this.#replication.stats;
  }

  lag(member: ReplicaId, steadyMs: number): Lag {
    return this.#replication.lag(member, steadyMs);
  }

  /** The other members that are known to hold this node's own registers of a class up to a version. */
  heldBy(name: ClassName, version: number): ReplicaId[] {
    return this.#replication.heldBy(name, version);
  }

  /** Forgets a run by the rule of `usageRules.isForgotten`. */
  forget(writer: WriterId): void {
    this.#replication.forget(writer);
  }

  /** A message by which a banned member learns that it is; null for any other. */
  farewell(to: MemberKey, { wallMs }: Now): Uint8Array | null {
    const ban = this.#options.authority.banOf(to);
    const frame = ban === null ? null : this.#replication.frameOf(ban.key, ban.text);
    return frame === null ? null : encodeEnvelope({ channel: 'replication', wallMs, frame });
  }

  handle(input: PeersInput, now: Now): PeersEffect[] {
    switch (input.type) {
      case 'admitted':
        return this.#admitted(now);
      case 'datagram':
      case 'loopLag':
      case 'leave':
        return this.#member(input, now);
      case 'message':
        return this.#message(input.from, input.bytes, now);
      case 'linkUp': {
        const member = this.#replicaOf(input.member);
        if (!this.#isStarted) return [];
        const opened = member === undefined ? [] : this.#replicate({ type: 'linkOpened', member }, now);
        return [...this.#introduce(input.member, now), ...opened];
      }
      case 'linkDown': {
        const member = this.#replicaOf(input.member);
        return member === undefined ? [] : this.#replicate({ type: 'linkClosed', member }, now);
      }
      case 'timer':
        if (input.timer.core === 'membership') return this.#member(input.timer.input, now);
        return input.timer.core === 'replication' ? this.#replicate(input.timer.input, now) : [];
      default:
        return this.#replicate(input, now);
    }
  }

  #others(): Peer[] {
    const { authority, member } = this.#options;
    return authority
      .admittedReplicas()
      .filter(({ replica }) => replica !== member.replica)
      .map(({ transportKey, replica }) => memberOf(transportKey, replica));
  }

  #admitted(now: Now): PeersEffect[] {
    this.clocks.started(now.steadyMs);
    const others = this.#others();
    if (others.length === 0 && !this.#isStarted) return [];
    const effects = this.#member({ type: 'known', members: others }, now);
    if (this.#isStarted) return effects;
    this.#isStarted = true;
    const seeds: Peer[] = [];
    while (seeds.length < SEEDS_MAX && others.length > 0)
      seeds.push(others.splice(this.#random.below(others.length), 1)[0]!);
    effects.push(...this.#replicate({ type: 'start' }, now));
    effects.push(...this.#member({ type: 'join', seeds }, now));
    return effects;
  }

  #message(from: MemberKey, bytes: Uint8Array, now: Now): PeersEffect[] {
    const replica = this.#replicaOf(from);
    if (replica === undefined || this.#options.authority.statusOf(replica) === 'banned') return [];
    try {
      const { channel, wallMs, frame } = decodeEnvelope(bytes);
      this.clocks.heard(replica, wallMs, now.steadyMs);
      if (channel === 'membership') return this.#member({ type: 'exchange', from, bytes: frame }, now);
      return this.#replicate({ type: 'message', from: replica, bytes: frame }, now);
    } catch (error) {
      if (!(error instanceof WaggleError)) throw error;
      return [{ type: 'misbehaviour', from: replica, code: error.code }];
    }
  }

  /** Tells a member all that is held of the others, as it does (memberlist's push-pull). */
  #introduce(to: MemberKey, { wallMs }: Now): PeersEffect[] {
    return this.#membership.exchangeFrames().map((frame) => ({
      type: 'send',
      to,
      bytes: encodeEnvelope({ channel: 'membership', wallMs, frame }),
    }));
  }

  #member(input: MembershipInput, now: Now): PeersEffect[] {
    const effects = this.#membership
      .handle(input, now.steadyMs)
      .flatMap((effect) =>
        effect.type === 'twoRuns'
          ? this.#replicate({ ...effect, type: 'runs', member: effect.member.replica }, now)
          : [this.#translate(effect)],
      );
    if (effects.some(({ type }) => type === 'member')) effects.push(...this.#reach(now));
    return effects;
  }

  #translate(effect: Exclude<MembershipEffect, { type: 'twoRuns' }>): PeersEffect {
    if (effect.type === 'send') return { type: 'datagram', to: effect.to, bytes: effect.bytes };
    if (effect.type === 'notify') return { type: 'member', change: effect.change };
    return { type: 'timer', afterMs: effect.afterMs, timer: { core: 'membership', input: effect.input } };
  }

  /** Who is reachable has changed. */
  #reach(now: Now): PeersEffect[] {
    const views = this.members.filter(({ replica }) => replica !== this.#self.replica);
    const of = (...states: string[]): ReplicaId[] =>
      views.filter(({ state }) => states.includes(state)).map(({ replica }) => replica);
    this.#live = of('alive', 'suspect');
    if (this.#live.length > 0) this.#reachedMs ??= now.steadyMs;
    return this.#replicate({ type: 'members', live: this.#live, dead: of('dead'), left: of('left') }, now);
  }

  #replicate(input: ReplicationInput, now: Now): PeersEffect[] {
    const effects = this.#replication.handle(input, now.steadyMs).flatMap((effect) => this.#carry(effect, now));
    if (this.#mayShow(now)) {
      this.#isHidden = false;
      effects.push(...this.#replicate({ type: 'show' }, now));
    }
    return effects;
  }

  #carry(effect: ReplicationEffect, { wallMs }: Now): PeersEffect[] {
    switch (effect.type) {
      case 'send': {
        const bytes = encodeEnvelope({ channel: 'replication', wallMs, frame: effect.bytes });
        return [{ type: 'send', to: this.#keyOf(effect.to), bytes }];
      }
      case 'timer':
        return [{ type: 'timer', afterMs: effect.afterMs, timer: { core: 'replication', input: effect.input } }];
      case 'conflict': {
        const { class: name, writer, version } = effect;
        return [{ type: 'alarm', alarm: { what: 'conflict', class: name, writer, version } }];
      }
      case 'overtaken':
        if (this.#isOvertaken) return [];
        this.#isOvertaken = true;
        return [{ type: 'alarm', alarm: { what: 'overtaken', version: effect.version } }];
      case 'duplicate': {
        const { run } = effect;
        return [{ type: 'alarm', alarm: { what: 'duplicate', run, mustStop: run < this.#options.member.run } }];
      }
      case 'foreignVersion':
        return [{ type: 'alarm', alarm: { what: 'foreignVersion', replica: effect.from, major: effect.major } }];
      default:
        return [effect];
    }
  }

  /** Whether it has compared with all that it reaches, since the start, and with enough of the voters. */
  #mayShow({ steadyMs }: Now): boolean {
    if (!this.#isHidden || this.#isOvertaken || this.#live.length === 0) return false;
    const isCompared = (member: ReplicaId): boolean => this.#replication.isCompared(member);
    const compared = this.#live.filter(isCompared);
    if (compared.length === 0) return false;
    if (steadyMs - present(this.#reachedMs, 'a first time') >= COMPARE_MS_MAX) return true;
    const voters = this.#options.roster().filter(({ replica }) => replica !== this.#self.replica);
    // Of the others, not with itself: so somebody of every quorum that it has voted in is among them.
    const isMajority =
      voters.length === 0 || 2 * voters.filter(({ replica }) => isCompared(replica)).length > voters.length;
    return compared.length === this.#live.length && isMajority;
  }

  #replicaOf(key: MemberKey): ReplicaId | undefined {
    return this.#options.authority.replicaOf(key);
  }

  #keyOf(replica: ReplicaId): MemberKey {
    const key = present(this.#options.authority.keyOf(replica), `the key of member ${replica}`);
    return base64.encode(key) as MemberKey;
  }
}
