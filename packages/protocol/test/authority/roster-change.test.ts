import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { base64, hex, utf8, type ReplicaId } from '../../src/base/index.ts';
import {
  createBan,
  createOwnRetire,
  createRetire,
  encodeFact,
  inviteId,
  nextRoster,
  replicaIdOf,
  type Admit,
  type RosterFact,
  type RosterWarning,
} from '../../src/authority/index.ts';
import { encodeRoster, parseRoster, ROSTER_MAX, type Roster } from '../../src/sealing/index.ts';
import { nodeCrypto } from '../support.ts';
import { codeOf } from '../transparency/support.ts';
import { admit, CLUSTER, founder, invite, keysOf, OPERATOR, replicaOf } from './support.ts';

const FOUNDERS = ['A', 'B', 'C'];
/** Founders have capitals, newcomers do not. */
const idOf = (name: string): ReplicaId => (FOUNDERS.includes(name) ? founder(name).replica : replicaOf(name));
const rosterOf = (names: string): Roster => [...names].map(founder).sort((a, b) => (a.replica < b.replica ? -1 : 1));
const namesOf = (replicas: readonly { readonly replica: ReplicaId }[], names: readonly string[]): string =>
  names.filter((name) => replicas.some(({ replica }) => replica === idOf(name))).join('');

const open = invite({ uses: 100 });
const hashOf = (fact: RosterFact): string => hex.encode(nodeCrypto.sha256(utf8(encodeFact(fact))));

/** `+d` admits, `-A` retires by the operator, `~A` by itself, `!A` bans. */
const factOf = (text: string): RosterFact => {
  const name = text[1]!;
  if (text[0] === '+') return admit(open, name);
  if (text[0] === '!') return createBan(CLUSTER.id, idOf(name), OPERATOR);
  if (text[0] === '~') return createOwnRetire(CLUSTER.id, idOf(name), keysOf(name).transport);
  return createRetire(CLUSTER.id, idOf(name), OPERATOR);
};

describe('the next roster', () => {
  // From, facts, whose registers closers hold, to, warnings.
  it.each([
    ['A', '', '', 'A', ''],
    ['ABC', '', '', 'ABC', ''],
    ['A', '+d', 'd', 'A', 'waitsForThird d'],
    ['A', '+d +e', 'de', 'Ade', ''],
    ['A', '+d +e', 'd', 'A', 'waitsForThird d'],
    ['A', '+d +e', '', 'A', ''],
    ['AB', '+d', 'd', 'ABd', ''],
    ['ABC', '+d', 'd', 'ABCd', ''],
    ['ABC', '+d', '', 'ABC', ''],
    ['ABC', '-A', '', 'BC', 'rosterOfTwo'],
    ['ABC', '~A', '', 'BC', 'rosterOfTwo'],
    ['ABC', '!A', '', 'BC', 'rosterOfTwo'],
    ['AB', '', '', 'AB', 'rosterOfTwo'],
    ['AB', '-A', '', 'B', ''],
    ['ABC', '-A +d', 'd', 'BCd', ''],
    ['ABC', '-A -B +d', 'd', 'C', 'waitsForThird d'],
    ['ABC', '-A -B +d +e', 'de', 'Cde', ''],
    ['A', '-A', '', 'A', 'lastStays A'],
    ['A', '!A', '', 'A', 'lastStays A'],
    ['A', '-A +d', 'd', 'd', ''],
    ['A', '-A +d', '', 'A', 'lastStays A'],
    ['AB', '-A -B +d', 'd', 'd', ''],
    ['AB', '!A -B', '', 'B', 'lastStays B'],
    ['AB', '-A !B', '', 'A', 'lastStays A'],
    ['ABC', '!A !B ~C !C -B', '', founderNames('ABC')[0]!, `lastStays ${founderNames('ABC')[0]!}`],
    ['ABC', '+d -d', 'd', 'ABC', ''],
    ['ABC', '+d ~d', 'd', 'ABC', ''],
    ['ABC', '+d !d', 'd', 'ABC', ''],
    ['ABC', '-d -e !f', 'def', 'ABC', ''],
    ['ABC', '', 'def', 'ABC', ''],
  ])('of %s after "%s", having heard of "%s", is %s', (from, facts, heard, to, warnings) => {
    const change = nextRoster(
      rosterOf(from),
      facts.split(' ').filter(Boolean).map(factOf),
      new Set([...heard].map(idOf)),
      nodeCrypto,
    );
    const names = [...'ABCdef'];
    expect(namesOf(change.roster, names)).toBe(to);
    const said = change.warnings.map((warning) =>
      'replica' in warning ? `${warning.type} ${names.find((name) => idOf(name) === warning.replica)}` : warning.type,
    );
    expect(said.join(', ')).toBe(warnings);
  });

  it('admits one of two newcomers when nobody else stays: two would not do', () => {
    const facts = ['-A', '+d', '+e'].map(factOf);
    const { roster, warnings } = nextRoster(rosterOf('A'), facts, new Set([idOf('d'), idOf('e')]), nodeCrypto);
    const [first, second] = ['d', 'e'].sort((a, b) => (hashOf(factOf(`+${a}`)) < hashOf(factOf(`+${b}`)) ? -1 : 1));
    expect(namesOf(roster, [...'ABCde'])).toBe(first);
    expect(warnings).toEqual([{ type: 'waitsForThird', replica: idOf(second!) }]);
  });

  it('keeps the keys that a member has', () => {
    const fact = admit(open, 'd');
    const seen = new Set([fact.replica]);
    const { roster } = nextRoster(rosterOf('ABC'), [fact], seen, nodeCrypto);
    const changed = { ...fact, logKey: admit(open, 'e').logKey };
    for (const facts of [[changed], [fact, changed], [changed, fact]])
      expect(nextRoster(roster, facts, seen, nodeCrypto).roster).toEqual(roster);
  });

  it('has no more members than a roster may have, the lower hashes first', () => {
    const facts = Array.from({ length: 60 }, (_, i) => joiner(i));
    const seen = new Set(facts.map(({ replica }) => replica));
    const { roster, warnings } = nextRoster(rosterOf('ABC'), facts, seen, nodeCrypto);
    expect(parseRoster(encodeRoster(roster))).toEqual(roster);
    expect(roster).toHaveLength(ROSTER_MAX);
    const chosen = facts.toSorted((a, b) => (hashOf(a) < hashOf(b) ? -1 : 1));
    const expected = chosen.slice(0, ROSTER_MAX - 3).map(({ replica }) => replica);
    expect(roster.map(({ replica }) => replica)).toEqual(
      [...expected, ...'ABC'].map((x) => (x.length === 1 ? idOf(x) : (x as ReplicaId))).sort(),
    );
    const left = chosen.slice(ROSTER_MAX - 3).map(({ replica }) => replica);
    expect(warnings).toEqual(left.sort().map((replica) => ({ type: 'rosterFull', replica })));
  });

  it('has the bound that a roster has', () => {
    const entry = (i: number) => ({ ...founder('A'), replica: i.toString(16).padStart(32, '0') as ReplicaId });
    const of = (length: number) => encodeRoster(Array.from({ length }, (_, i) => entry(i)));
    expect(parseRoster(of(ROSTER_MAX))).toHaveLength(ROSTER_MAX);
    expect(codeOf(() => parseRoster(of(ROSTER_MAX + 1)))).toBe('DECODE_FAILED');
  });
});

function founderNames(names: string): string[] {
  return [...names].sort((a, b) => (founder(a).replica < founder(b).replica ? -1 : 1));
}

/** A newcomer whose signatures nobody looks at. */
function joiner(i: number): Admit {
  const key = (purpose: string) => base64.encode(nodeCrypto.sha256(utf8(`${purpose} ${i}`)));
  const transportKey = key('transport');
  return {
    ...admit(open, 'd'),
    transportKey,
    logKey: key('log'),
    cosignerKey: key('cosigner'),
    replica: replicaIdOf(transportKey, nodeCrypto),
  };
}

describe('the uses of an invite', () => {
  const roster = rosterOf('ABC');
  const single = invite();
  const names = [...'defgh'];
  const byHash = (by = single, of = names) =>
    of.map((name) => ({ name, fact: admit(by, name) })).sort((a, b) => (hashOf(a.fact) < hashOf(b.fact) ? -1 : 1));
  const winners = (facts: readonly RosterFact[], from = roster): string => {
    const next = nextRoster(from, facts, new Set(facts.map(({ replica }) => replica)), nodeCrypto).roster;
    const voters = new Set(from.map(({ replica }) => replica));
    const newcomers = next.filter(({ replica }) => !voters.has(replica));
    return namesOf(newcomers, names);
  };

  it('go to the lowest hashes, whoever came first', () => {
    for (const uses of [1, 2, 3, 5, 9]) {
      const racers = byHash(invite({ uses }));
      const expected = racers
        .slice(0, uses)
        .map(({ name }) => name)
        .sort()
        .join('');
      fc.assert(
        fc.property(fc.shuffledSubarray([...racers, ...racers], { minLength: racers.length * 2 }), (order) => {
          expect(winners(order.map(({ fact }) => fact))).toBe(expected);
        }),
        { numRuns: 10 },
      );
    }
  });

  it('once taken stay taken: by a voter, a retired, a banned', () => {
    const racers = byHash();
    const [low, high] = [racers[0]!, racers.at(-1)!];
    const facts = [low.fact, high.fact];
    const voting = nextRoster(roster, [high.fact], new Set([high.fact.replica]), nodeCrypto).roster;
    expect(winners(facts)).toBe(low.name);
    expect(winners(facts, voting)).toBe('');
    expect(winners([...facts, factOf(`-${high.name}`)])).toBe('');
    expect(winners([...facts, factOf(`!${high.name}`)])).toBe('');
    const change = nextRoster(voting, facts, new Set([low.fact.replica]), nodeCrypto);
    expect(change.roster).toEqual(voting);
    expect(change.warnings).toEqual([{ type: 'inviteUsed', replica: low.fact.replica }]);
  });

  it('of two invites are two: whoever loses with one can come with another', () => {
    const racers = byHash();
    const loser = racers.at(-1)!;
    const facts = [racers[0]!.fact, loser.fact];
    expect(winners([...facts, admit(invite(), loser.name)])).toBe([racers[0]!.name, loser.name].sort().join(''));
  });
});

describe('any history', () => {
  const INVITES = [invite(), invite({ uses: 2 }), invite({ uses: 4 })];
  const names = [...'defghijk'];
  const step = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ type: fc.constant('admit' as const), name: fc.constantFrom(...names), by: fc.nat(2) }),
    },
    { weight: 3, arbitrary: fc.record({ type: fc.constant('seen' as const), name: fc.constantFrom(...names) }) },
    {
      weight: 2,
      arbitrary: fc.record({
        type: fc.constantFrom('-' as const, '!' as const, '~' as const),
        name: fc.constantFrom(...names, ...FOUNDERS),
      }),
    },
    { weight: 4, arbitrary: fc.record({ type: fc.constant('seal' as const), shuffle: fc.nat(1_000) }) },
  );

  const rotate = <T>(items: readonly T[], by: number): T[] => {
    const at = items.length === 0 ? 0 : by % items.length;
    return [...items.slice(at), ...items.slice(0, at), ...items.slice(0, by % 3)].toReversed();
  };
  const bytesOf = (change: { readonly roster: Roster; readonly warnings: readonly RosterWarning[] }) => [
    hex.encode(encodeRoster(change.roster)),
    change.warnings,
  ];

  it('keeps the rules', () => {
    let [grown, stayed, waited, spent] = [0, 0, 0, 0];
    fc.assert(
      fc.property(
        fc.constantFrom('A', 'AB', 'ABC'),
        fc.array(step, { minLength: 20, maxLength: 60 }),
        (from, steps) => {
          let roster = rosterOf(from);
          const facts: RosterFact[] = [];
          const seen = new Set<ReplicaId>();
          const everVoted = new Set<ReplicaId>();
          for (const now of steps) {
            if (now.type === 'admit') facts.push(admit(INVITES[now.by]!, now.name));
            else if (now.type === 'seen') seen.add(idOf(now.name));
            else if (now.type !== 'seal') facts.push(factOf(`${now.type}${now.name}`));
            else {
              const change = nextRoster(roster, facts, seen, nodeCrypto);
              const next = change.roster;
              const types = new Set(change.warnings.map(({ type }) => type));
              // The same bytes in whatever order the facts come, and no further change from the same facts.
              expect(bytesOf(nextRoster(roster, rotate(facts, now.shuffle), seen, nodeCrypto))).toEqual(
                bytesOf(change),
              );
              expect(nextRoster(next, facts, seen, nodeCrypto).roster).toEqual(next);
              expect(parseRoster(encodeRoster(next))).toEqual(next);
              const was = new Set(roster.map(({ replica }) => replica));
              const out = new Set(facts.flatMap(({ kind, replica }) => (kind === 'admit' ? [] : [replica])));
              const come = next.filter(({ replica }) => !was.has(replica));
              // Never nobody; two only by losing others.
              expect(next.length).toBeGreaterThan(0);
              if (next.length === 2) expect(come).toEqual([]);
              expect(types.has('rosterOfTwo')).toBe(next.length === 2);
              // Newcomers are admitted, heard of and in good standing; only retired or banned members go, and all but a last one.
              for (const { replica } of come) {
                expect(facts.some((fact) => fact.kind === 'admit' && fact.replica === replica)).toBe(true);
                expect(seen.has(replica) && !out.has(replica)).toBe(true);
              }
              const is = new Set(next.map(({ replica }) => replica));
              for (const { replica } of roster) if (!out.has(replica)) expect(is.has(replica)).toBe(true);
              const kept = next.filter(({ replica }) => out.has(replica));
              if (kept.length > 0) expect(next).toEqual(kept);
              expect(kept.length).toBe(types.has('lastStays') ? 1 : 0);
              for (const { replica } of next) everVoted.add(replica);
              grown += come.length;
              stayed += kept.length;
              waited += types.has('waitsForThird') ? 1 : 0;
              spent += types.has('inviteUsed') ? 1 : 0;
              roster = next;
            }
          }
          // No invite ever made more voters than it has uses.
          const invitesOf = new Map<ReplicaId, Set<string>>();
          for (const fact of facts)
            if (fact.kind === 'admit')
              invitesOf.set(
                fact.replica,
                (invitesOf.get(fact.replica) ?? new Set()).add(inviteId(fact.cluster, fact.grant, nodeCrypto)),
              );
          for (const { grant, cluster } of INVITES) {
            const id = inviteId(cluster, grant, nodeCrypto);
            const only = [...everVoted].filter((replica) => {
              const ids = invitesOf.get(replica);
              return ids?.size === 1 && ids.has(id);
            });
            expect(only.length).toBeLessThanOrEqual(grant.uses);
          }
        },
      ),
      { numRuns: 150 },
    );
    // The walks do go where the rules bite.
    for (const count of [grown, stayed, waited, spent]) expect(count).toBeGreaterThan(0);
  });
});
