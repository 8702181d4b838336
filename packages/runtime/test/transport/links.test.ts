import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MemberKey } from '@waggle/protocol/membership';
import { Links, type Candidate } from '../../src/transport/links.ts';

const KEYS = ['a', 'b'] as unknown as readonly [MemberKey, MemberKey];
const ignore = { connected: () => undefined, disconnected: () => undefined };

/** What is on its way to one side: in the order sent, over all connections, as all share one path. */
type Path = { readonly to: End; readonly frame: 'open' | 'close' }[];

/** One end of a connection between the two, which speaks as `Connection` does. */
class End implements Candidate {
  readonly key: MemberKey;
  isUnsaid: boolean;
  isClosed = false;
  other: End | undefined;
  readonly isInitiator: boolean;
  readonly #links: Links<End>;
  readonly #path: Path;

  constructor(links: Links<End>, key: MemberKey, isInitiator: boolean, path: Path) {
    this.#links = links;
    this.#path = path;
    this.key = key;
    this.isInitiator = isInitiator;
    this.isUnsaid = isInitiator;
    links.opening(this);
  }

  /** The handshake is answered: the one who dialled opens the channel. */
  speak(): void {
    this.isUnsaid = false;
    this.#send('open');
  }

  take(frame: 'open' | 'close'): void {
    if (this.isClosed) return;
    if (frame === 'close') return this.close();
    if (!this.isInitiator) this.#send('open');
    this.#links.opened(this);
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#send('close');
    this.#links.closed(this);
  }

  #send(frame: 'open' | 'close'): void {
    if (this.other !== undefined) this.#path.push({ to: this.other, frame });
  }
}

describe('links', () => {
  it('are one and the same at both sides, whoever dials and whatever comes first', () => {
    let crossed = 0;
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom<(0 | 1)[]>(0, 1), { minLength: 1, maxLength: 4 }),
        fc.infiniteStream(fc.nat()),
        (dials, chances) => {
          const sides = [new Links<End>(KEYS[0], ignore), new Links<End>(KEYS[1], ignore)] as const;
          const paths: readonly [Path, Path] = [[], []];
          const ends: End[] = [];
          const dial = (from: 0 | 1): void => {
            const to = from === 0 ? 1 : 0;
            const near = new End(sides[from], KEYS[to], true, paths[to]);
            const far = new End(sides[to], KEYS[from], false, paths[from]);
            near.other = far;
            far.other = near;
            ends.push(near, far);
          };
          const waiting: (0 | 1)[] = [...dials];
          for (;;) {
            const steps: (() => void)[] = [];
            // As the dialler does it: nobody dials who has a link, or a dial of which nothing has come yet.
            const from = waiting[0];
            const isDialling = ends.some(
              (end) => end.isInitiator && end.key === KEYS[1 - (from ?? 0)] && !end.isClosed,
            );
            if (from !== undefined)
              steps.push(() => {
                waiting.shift();
                if (sides[from].size === 0 && !isDialling) dial(from);
              });
            for (const end of ends) if (end.isUnsaid && !end.isClosed) steps.push(() => end.speak());
            for (const path of paths)
              if (path.length > 0)
                steps.push(() => {
                  const { to, frame } = path.shift()!;
                  to.take(frame);
                });
            if (steps.length === 0) break;
            steps[chances.next().value! % steps.length]!();
          }
          if (ends.length > 2) crossed++;
          expect(sides[0].get(KEYS[1])?.other).toBe(sides[1].get(KEYS[0]));
          expect([sides[0].keys(), sides[1].keys()]).toEqual([[KEYS[1]], [KEYS[0]]]);
          expect(ends.filter((end) => !end.isClosed)).toHaveLength(2);
        },
      ),
      { numRuns: 3_000 },
    );
    expect(crossed).toBeGreaterThan(100);
  });

  it('tell of a newer connection as of a link that went and one that came', () => {
    const told: string[] = [];
    const events = {
      connected: (key: MemberKey) => void told.push(`+${key}`),
      disconnected: (key: MemberKey) => void told.push(`-${key}`),
    };
    const links = new Links<End>(KEYS[0], events);
    const [first, second] = [new End(links, KEYS[1], false, []), new End(links, KEYS[1], false, [])];
    for (const end of [first, second]) end.take('open');
    expect([first.isClosed, second.isClosed, links.size]).toEqual([true, false, 1]);
    expect([links.has(first), links.has(second)]).toEqual([false, true]);
    second.close();
    expect(told).toEqual(['+b', '-b', '+b', '-b']);
    expect([links.size, links.get(KEYS[1])]).toEqual([0, undefined]);
  });
});
