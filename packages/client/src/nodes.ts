import { NODES_MAX, nodeUrl, type Settings } from './options.ts';

/** Rest of a node after its first failure, in ms; doubled by each one after. */
const REST_BASE_MS = 500;
/** Longest rest, in ms: Envoy and nginx forget a failed upstream about as soon (base_ejection_time 30 s, fail_timeout 10 s). */
const REST_CAP_MS = 30_000;

/** A node as this client knows it. */
export class Node {
  readonly url: string;
  /** Calls of this client at it. */
  inFlight = 0;
  /** Jobs that it may do at the same time, as it said. */
  workers = 1;
  /** Jobs of everyone else there, as it said last. */
  others = 0;
  /** Failures without a success after them. */
  failures = 0;
  /** Better not asked before, in the ms of the clock. */
  restUntilMs = Number.NEGATIVE_INFINITY;
  /** Asked by it not to come before (`retry-after`), likewise. */
  heldUntilMs = Number.NEGATIVE_INFINITY;
  /** Whether it is another name of nodes that are known by their own: a balancer, `localhost`. */
  isAlias = false;

  constructor(url: string) {
    this.url = url;
  }

  /** Expected wait, in jobs for each worker. */
  get load(): number {
    return (this.others + this.inFlight) / this.workers;
  }

  /** Whether it may be asked. After failures it gets one call to prove itself, not all of them. */
  isReady(nowMs: number): boolean {
    return nowMs >= this.restUntilMs && nowMs >= this.heldUntilMs && (this.failures === 0 || this.inFlight === 0);
  }

  succeeded(): void {
    this.failures = 0;
    this.restUntilMs = Number.NEGATIVE_INFINITY;
  }

  failed(nowMs: number): void {
    this.restUntilMs = nowMs + Math.min(REST_CAP_MS, REST_BASE_MS * 2 ** this.failures);
    this.failures++;
  }
}

/** One entry of `GET /v1/nodes`. */
interface Listed {
  readonly replica: string;
  readonly url: string;
  readonly workers: number;
  /** Jobs that run or wait. */
  readonly jobs: number;
}

/** The nodes, and which of them to ask. */
export class Nodes {
  readonly #seeds: ReadonlyMap<string, Node>;
  readonly #random: () => number;
  #learned: ReadonlyMap<string, Node> = new Map();

  constructor({ urls, random }: Pick<Settings, 'urls' | 'random'>) {
    this.#seeds = new Map(urls.map((url) => [url, new Node(url)]));
    this.#random = random;
  }

  get all(): readonly Node[] {
    return [...new Map([...this.#seeds, ...this.#learned]).values()];
  }

  /**
   * The node for an attempt at that time: of two random ones the less loaded (M. Mitzenmacher, "The Power of Two Choices in
   * Randomized Load Balancing", 2001) among those that are ready, were not tried in this call, and are known by their own name;
   * if there are none, those wishes are given up from the last to the first. If all rest, the one that does so for the shortest time.
   */
  pick(tried: ReadonlySet<Node>, nowMs: number): Node {
    const rank = (node: Node): number =>
      (node.isReady(nowMs) ? 0 : 4) + (tried.has(node) ? 2 : 0) + (node.isAlias ? 1 : 0);
    const { all } = this;
    const best = Math.min(...all.map(rank));
    const equals = all.filter((node) => rank(node) === best);
    const until = ({ restUntilMs, heldUntilMs }: Node): number => Math.max(restUntilMs, heldUntilMs);
    return best < 4 ? this.#lessLoaded(equals) : equals.reduce((a, b) => (until(b) < until(a) ? b : a));
  }

  #lessLoaded(nodes: readonly Node[]): Node {
    const first = Math.floor(this.#random() * nodes.length);
    // Any but the first, each as likely.
    const second = (first + 1 + Math.floor(this.#random() * (nodes.length - 1))) % nodes.length;
    const [a, b] = [nodes[first]!, nodes[second]!];
    return b.load < a.load ? b : a;
  }

  /**
   * Takes over what a node says of all nodes. URLs that would carry the key where it should not go are passed over: `http` if the
   * client was given `https` only, and an address of "this machine" if it was given none.
   */
  learn(from: Node, replica: string | null, listing: unknown): void {
    const listed = parseListing(listing).filter(({ url }) => this.#isUsable(url));
    const known = new Map([...this.#seeds, ...this.#learned]);
    this.#learned = new Map(
      listed.map(({ url, workers, jobs }) => {
        const node = known.get(url) ?? new Node(url);
        node.workers = workers;
        node.others = Math.max(0, jobs - node.inFlight);
        return [url, node];
      }),
    );
    from.isAlias = !this.#learned.has(from.url) && listed.some((entry) => entry.replica === replica);
  }

  #isUsable(url: string): boolean {
    const seeds = [...this.#seeds.keys()];
    if (url.startsWith('http:') && seeds.every((seed) => seed.startsWith('https:'))) return false;
    return !isThisMachine(url) || seeds.some(isThisMachine);
  }
}

/** Loopback and "any" addresses: right only for a client on the same machine. */
const isThisMachine = (url: string): boolean =>
  /^(localhost|.*\.localhost|127\.[\d.]+|0\.0\.0\.0|\[::1?\]|\[::ffff:7f[0-9a-f]{2}:[0-9a-f]+\])$/.test(
    new URL(url).hostname,
  );

/** The entries that are of their form. */
function parseListing(listing: unknown): Listed[] {
  const nodes = (listing as { nodes?: unknown } | null)?.nodes;
  if (!Array.isArray(nodes)) return [];
  return nodes.slice(0, NODES_MAX).flatMap((entry: unknown) => {
    const { replica, url: text, load } = Object(entry) as Record<string, unknown>;
    const { workers, running, queued } = Object(load) as Record<string, unknown>;
    const url = typeof text === 'string' ? nodeUrl(text) : null;
    if (typeof replica !== 'string' || url === null) return [];
    return [{ replica, url, workers: Math.max(1, count(workers)), jobs: count(running) + count(queued) }];
  });
}

const count = (value: unknown): number => (Number.isSafeInteger(value) ? Math.max(0, value as number) : 0);
