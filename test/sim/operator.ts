import type { ReplicaId } from '../../packages/protocol/src/base/index.ts';
import type { ReplicaStatus } from '../../packages/protocol/src/authority/index.ts';
import type { Write } from '../../packages/protocol/src/member/index.ts';
import { facts } from './cluster.ts';
import type { SimNode, World } from './node.ts';

/** How often the operator looks whether everyone knows, in ms. */
const LOOK_MS = 1_000;

/** Has the operator's word: says who belongs to the cluster, at one node or another, until all know it. */
export class Operator {
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  /** Lets a machine in, under the id that it has now: it starts when a member has accepted it. */
  admit(node: SimNode): void {
    const { cluster, random, trace } = this.#world;
    const { replica, name } = node;
    trace.add(`the operator admits ${name}`);
    const fact = facts.admit(cluster, name, random);
    this.#tell(replica, ['admitted', 'retired', 'banned'], fact, () => {
      if (node.replica !== replica || node.standing !== 'joining') return;
      const host = this.#members().find(({ disk }) => [...disk.control.values()].some(({ key }) => key === fact.key));
      if (host === undefined) return;
      node.welcome(host);
      node.start();
    });
  }

  /** Takes the vote from a replica. */
  retire(replica: ReplicaId): void {
    this.#world.trace.add(`the operator retires ${replica.slice(0, 8)}`);
    this.#tell(replica, ['retired', 'banned'], facts.retire(this.#world.cluster, replica));
  }

  /** Shuts a replica out. */
  ban(replica: ReplicaId): void {
    this.#world.trace.add(`the operator bans ${replica.slice(0, 8)}`);
    this.#tell(replica, ['banned'], facts.ban(this.#world.cluster, replica));
  }

  /** A replica gives its vote up by itself. */
  leave(node: SimNode): void {
    const { cluster, trace } = this.#world;
    const { replica, name } = node;
    trace.add(`${name} is to leave`);
    this.#tell(replica, ['retired', 'banned'], facts.leave(cluster, replica, name));
  }

  #members(): SimNode[] {
    return this.#world.nodes.filter(({ isUp, standing }) => isUp && standing === 'member');
  }

  /** Has one member after the other write a fact, unless it knows as much already; for ever, as disks may be lost. */
  #tell(replica: ReplicaId, known: readonly ReplicaStatus[], fact: Write, then = (): void => {}): void {
    const { agenda, random } = this.#world;
    const members = this.#members();
    const member = members[random.below(Math.max(1, members.length))];
    if (member !== undefined && !known.includes(member.member!.authority.statusOf(replica))) member.write([fact]);
    then();
    agenda.after(LOOK_MS, () => this.#tell(replica, known, fact, then));
  }
}
