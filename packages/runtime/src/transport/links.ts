import type { MemberKey } from '@waggle/protocol/membership';

/** What is needed of a connection here. */
export interface Candidate {
  /** The member at the other side. */
  readonly key: MemberKey;
  /** Whether nothing has left this side yet: the other has not been told of this connection. */
  readonly isUnsaid: boolean;
  /** Leads to `Links.closed`. */
  close(): void;
}

export interface LinkEvents {
  connected(key: MemberKey): void;
  disconnected(key: MemberKey): void;
}

/**
 * One link to each member, out of however many connections there are.
 *
 * Both sides dial, so two connections can cross. If each side kept the one that was newest to itself, they could keep different
 * ones and lose both. So one of the two decides, the one with the greater key: it keeps its newest and closes all others. The
 * other follows: it takes a connection for the link when the channel on it opens, and takes back only dials of which nothing
 * has left this node.
 */
export class Links<C extends Candidate> {
  readonly #self: MemberKey;
  readonly #events: LinkEvents;
  readonly #links = new Map<MemberKey, C>();
  readonly #opening = new Set<C>();

  constructor(self: MemberKey, events: LinkEvents) {
    this.#self = self;
    this.#events = events;
  }

  get size(): number {
    return this.#links.size;
  }

  keys(): MemberKey[] {
    return [...this.#links.keys()];
  }

  get(key: MemberKey): C | undefined {
    return this.#links.get(key);
  }

  /** Whether that connection is the link. */
  has(connection: C): boolean {
    return this.#links.get(connection.key) === connection;
  }

  /** A connection that may become the link. */
  opening(connection: C): void {
    this.#opening.add(connection);
  }

  /** The channel on it is open: it is the link, and the older one is gone. */
  opened(connection: C): void {
    const { key } = connection;
    this.#opening.delete(connection);
    const older = this.#links.get(key);
    this.#links.set(key, connection);
    if (older !== undefined) {
      older.close();
      this.#events.disconnected(key);
    }
    for (const other of this.#opening) if (other.key === key && (other.isUnsaid || this.#self > key)) other.close();
    this.#events.connected(key);
  }

  closed(connection: C): void {
    this.#opening.delete(connection);
    if (!this.has(connection)) return;
    this.#links.delete(connection.key);
    this.#events.disconnected(connection.key);
  }
}
