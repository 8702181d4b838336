import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRandom } from '@waggle/protocol/base';
import { Nodes, type Node } from '../src/nodes.ts';
import { failure, json, scripted } from './support.ts';

const NONE: ReadonlySet<Node> = new Set();
const randomOf = (seed: number): (() => number) => {
  const random = seededRandom(seed);
  return () => random.below(2 ** 30) / 2 ** 30;
};
const entry = (replica: string, url: string, running = 0, workers = 4) => ({
  replica,
  url,
  load: { workers, running, queued: 0 },
});
const make = (...urls: string[]): Nodes => new Nodes({ urls, random: randomOf(1) });
const urlsOf = (nodes: Nodes): string[] => nodes.all.map(({ url }) => url).toSorted();

describe('the choice', () => {
  it('of two is the less loaded, by what they say and what is under way', () => {
    const nodes = make('http://a', 'http://b');
    nodes.learn(nodes.all[0]!, null, { nodes: [entry('1', 'http://a', 8), entry('2', 'http://b', 2)] });
    const [a, b] = nodes.all as [Node, Node];
    expect(nodes.pick(NONE, 0)).toBe(b);
    b.inFlight = 7;
    expect(nodes.pick(NONE, 0)).toBe(a);
  });

  it('counts calls of this client once, though the node reports them too', () => {
    const nodes = make('http://a');
    const [a] = nodes.all as [Node];
    a.inFlight = 3;
    nodes.learn(a, null, { nodes: [entry('1', 'http://a', 5, 2)] });
    expect(a.load).toBe(2.5);
  });

  it('spreads calls: with all equal, no node has more than a few beyond its share', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 20 }), fc.nat(), (count, seed) => {
        const urls = Array.from({ length: count }, (_, i) => `http://n${i}`);
        const nodes = new Nodes({ urls, random: randomOf(seed) });
        for (let i = 0; i < 50 * count; i++) nodes.pick(NONE, 0).inFlight++;
        const loads = nodes.all.map(({ inFlight }) => inFlight);
        expect(Math.max(...loads)).toBeLessThanOrEqual(50 + 6);
      }),
      { numRuns: 50 },
    );
  });

  it('is a node that is ready and was not tried, whenever there is one', () => {
    const state = fc.record({ tried: fc.boolean(), failures: fc.nat({ max: 3 }), heldMs: fc.nat({ max: 2_000 }) });
    fc.assert(
      fc.property(fc.array(state, { minLength: 1, maxLength: 8 }), fc.nat(), (states, seed) => {
        const nodes = new Nodes({ urls: states.map((_, i) => `http://n${i}`), random: randomOf(seed) });
        const tried = new Set<Node>();
        states.forEach((one, i) => {
          const node = nodes.all[i]!;
          for (let n = 0; n < one.failures; n++) node.failed(0);
          node.heldUntilMs = one.heldMs;
          if (one.tried) tried.add(node);
        });
        const nowMs = 1_000;
        const good = nodes.all.filter((node) => node.isReady(nowMs) && !tried.has(node));
        const ready = nodes.all.filter((node) => node.isReady(nowMs));
        const picked = nodes.pick(tried, nowMs);
        if (good.length > 0) expect(good).toContain(picked);
        else if (ready.length > 0) expect(ready).toContain(picked);
      }),
    );
  });
});

describe('a rest', () => {
  it('doubles with every failure up to half a minute, and ends with a success', () => {
    const [node] = make('http://a').all as [Node];
    const rests = Array.from({ length: 9 }, () => {
      node.failed(0);
      return node.restUntilMs;
    });
    expect(rests).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    expect([node.isReady(29_999), node.isReady(30_000)]).toEqual([false, true]);
    node.inFlight = 1;
    expect(node.isReady(30_000)).toBe(false);
    node.succeeded();
    expect(node.isReady(0)).toBe(true);
  });
});

describe('learning', () => {
  it('adds nodes, keeps what is known of them, and drops those that left; seeds stay', () => {
    const nodes = make('http://a');
    const [a] = nodes.all as [Node];
    nodes.learn(a, '1', { nodes: [entry('1', 'http://a/'), entry('2', 'http://b'), entry('3', 'http://c')] });
    expect(urlsOf(nodes)).toEqual(['http://a', 'http://b', 'http://c']);
    const b = nodes.all.find(({ url }) => url === 'http://b')!;
    b.failed(0);
    nodes.learn(a, '1', { nodes: [entry('2', 'http://b')] });
    expect(urlsOf(nodes)).toEqual(['http://a', 'http://b']);
    expect(nodes.all).toContain(b);
  });

  it('prefers nodes to a balancer before them, and falls back on it', () => {
    const nodes = make('http://balancer');
    const [balancer] = nodes.all as [Node];
    nodes.learn(balancer, '2', { nodes: [entry('1', 'http://a', 50), entry('2', 'http://b', 60)] });
    expect(nodes.pick(NONE, 0).url).toBe('http://a');
    for (const node of nodes.all) if (node !== balancer) node.failed(0);
    expect(nodes.pick(NONE, 0)).toBe(balancer);
  });

  it.each([
    [['https://a.example'], 'http://b.example'],
    [['https://a.example'], 'http://a.example'],
    [['http://a.example'], 'http://127.0.0.1:8080'],
    [['http://a.example'], 'http://localhost:8080'],
    [['http://a.example'], 'http://0.0.0.0:8080'],
    [['http://a.example'], 'http://[::1]:8080'],
    [['http://a.example'], 'http://[::]:8080'],
    [['http://a.example'], 'http://[::ffff:127.0.0.1]:8080'],
    [['http://a.example'], 'ftp://b.example'],
    [['http://a.example'], 'http://user:pass@b.example'],
    [['http://a.example'], 'nonsense'],
  ])('with %j the key is not sent to %s', (urls, url) => {
    const nodes = make(...urls);
    nodes.learn(nodes.all[0]!, '9', { nodes: [entry('9', url)] });
    expect(urlsOf(nodes)).toEqual(urls);
    expect(nodes.all[0]!.isAlias).toBe(false);
  });

  it('takes addresses of this machine from a node on this machine', () => {
    const nodes = make('http://localhost:8080');
    nodes.learn(nodes.all[0]!, '1', { nodes: [entry('1', 'http://127.0.0.1:8080')] });
    expect(nodes.pick(NONE, 0).url).toBe('http://127.0.0.1:8080');
  });

  it('survives whatever comes, and at most 256 nodes of it', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (listing) => {
        const nodes = make('http://a');
        nodes.learn(nodes.all[0]!, null, listing);
        nodes.learn(nodes.all[0]!, null, { nodes: [listing, null, { url: listing, replica: 'x', load: listing }] });
        expect(nodes.pick(NONE, 0)).toBeDefined();
      }),
    );
    const nodes = make('http://a');
    nodes.learn(nodes.all[0]!, null, { nodes: Array.from({ length: 999 }, (_, i) => entry(`${i}`, `http://n${i}`)) });
    expect(nodes.all).toHaveLength(257);
  });

  it('happens beside calls, at most every ten seconds, and its failure harms none', async () => {
    const { client, clock, asked } = scripted(
      ({ url }) => (url.endsWith('/v1/nodes') ? json({ nodes: [entry('2', 'http://b.example')] }) : json({})),
      { learn: true },
    );
    const learned = (): number => asked.filter(({ url }) => url.endsWith('/v1/nodes')).length;
    for (let i = 0; i < 5; i++) await clock.value(client.usage());
    expect(learned()).toBe(1);
    clock.pass(10_000);
    await clock.value(client.usage());
    expect(learned()).toBe(2);
    expect(asked.some(({ url }) => url.startsWith('http://b.example/v1/usage'))).toBe(true);

    const halfDead = scripted(
      ({ url }) =>
        url.startsWith('http://a.example')
          ? failure('ECONNREFUSED')
          : json({ nodes: [entry('2', 'http://b.example'), entry('3', 'http://c.example')] }),
      { learn: true, nodes: ['http://a.example', 'http://b.example'], random: () => 0 },
    );
    await halfDead.clock.value(halfDead.client.usage());
    expect(halfDead.asked.map(({ url }) => url).filter((url) => url.endsWith('/v1/nodes'))).toEqual([
      'http://a.example/v1/nodes',
      'http://b.example/v1/nodes',
    ]);

    const silent = scripted(({ url }) => (url.endsWith('/v1/nodes') ? 'hang' : json({})), { learn: true });
    await silent.clock.value(silent.client.usage());
    expect(silent.clock.nowMs()).toBe(0);
  });
});
