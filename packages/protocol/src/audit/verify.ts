import {
  base64,
  digestOf,
  equalBytes,
  fromUtf8,
  hex,
  utf8,
  WaggleError,
  type ClusterId,
  type Crypto,
  type CustomerId,
  type Digest,
  type Epoch,
} from '../base/index.ts';
import { parseFacts, verifyFact, type RosterFact } from '../authority/index.ts';
import {
  chainStart,
  clusterOf,
  outcomeOf,
  parseGenesis,
  parseHeader,
  parseRoster,
  parseSlotList,
  rosterDigest,
  type ChainState,
  type Cluster,
  type Outcome,
  type Roster,
  type RosterEntry,
  type SlotEntry,
} from '../sealing/index.ts';
import {
  appendToFrontier,
  frontierRoot,
  leafHash,
  parseLogProof,
  statementLeaf,
  verifyInclusion,
  type Frontier,
  type Statement,
} from '../transparency/index.ts';
import { parseSlot, slotName, type Slot } from '../usage/index.ts';
import { BUNDLE_FILES, countedFile, parseChainFile, slotFile, type Bundle, type ChainFile } from './bundle.ts';
import { parseStatement, totalsOf, type Totals } from './statement.ts';
import { named, readCheckpoint } from './checkpoint.ts';
import { verifySuccessor } from './succession.ts';

/** What a verifier knows after an epoch: enough to go on with the next, and to notice if history changes. */
export interface Verified {
  readonly cluster: Cluster;
  readonly chain: ChainState;
  readonly frontier: Frontier;
  /**
   * Whether it was verified from the genesis on without a gap. If not, `chain` knows only what the bundles themselves said was
   * counted before them.
   */
  readonly fromGenesis: boolean;
}

/** What was found in one good epoch. */
export interface EpochReport {
  readonly epoch: Epoch;
  readonly treeSize: number;
  readonly root: Uint8Array;
  readonly slots: number;
  readonly statements: number;
  /** Statements that come from earlier epochs. */
  readonly late: number;
  readonly totals: Totals;
  /** Members of the epoch's roster: a majority of them must cosign. */
  readonly roster: number;
  /** Replicas whose cosignature is on the checkpoint, first 8 digits. */
  readonly cosigners: readonly string[];
}

function file(bundle: Bundle, name: string): Uint8Array {
  const bytes = bundle.get(name);
  if (bytes === undefined) throw new WaggleError('BUNDLE_MALFORMED', `Expected the file ${name}, which is missing`);
  return bytes;
}

/**
 * Checks one sealed epoch, trusting nothing but `after` (what was verified before) or, without it, the genesis in the bundle
 * unless its id is given, and `known`, the roster of its epoch as the caller knows it (default: that of the genesis).
 * Everything is computed again: slots against their digests, statements from the slots, leaves from the statements, the root from
 * the leaves, and the checkpoint's signatures against the roster. Throws the first thing that is wrong:
 * `BUNDLE_MALFORMED`, `GENESIS_MISMATCH`, `HISTORY_CHANGED`, `ROSTER_MISMATCH`, `HEADER_MISMATCH`, `SLOT_MISMATCH`,
 * `CONSERVATION_BROKEN`, `STATEMENT_MISMATCH`, `ROOT_MISMATCH`, `CHECKPOINT_INVALID` or `QUORUM_MISSING`.
 */
export function verifyBundle(
  bundle: Bundle,
  after: Verified | null,
  pinned: ClusterId | null,
  crypto: Crypto,
  known?: Roster,
): { readonly verified: Verified; readonly report: EpochReport } {
  const cluster = readCluster(bundle, after?.cluster.id ?? pinned, crypto);
  if (after === null) verifySuccessor(cluster, crypto);
  const chainFile = named('BUNDLE_MALFORMED', BUNDLE_FILES.chain, () =>
    parseChainFile(file(bundle, BUNDLE_FILES.chain)),
  );
  const chain = readChain(bundle, chainFile, cluster, after, known, crypto);
  const slotList = readSlotList(bundle, crypto);
  checkNames(bundle, slotList, chain);
  checkCounted(chainFile, slotList, chain);
  const contents = readContents(bundle, slotList, chain, crypto);
  const outcome = named('HEADER_MISMATCH', BUNDLE_FILES.header, () =>
    outcomeOf(
      cluster,
      chain,
      {
        header: file(bundle, BUNDLE_FILES.header),
        slotList,
        facts: file(bundle, BUNDLE_FILES.facts),
        nextRoster: file(bundle, BUNDLE_FILES.nextRoster),
      },
      (digest) => contents.get(digest)!,
      crypto,
    ),
  );
  checkFacts(file(bundle, BUNDLE_FILES.facts), cluster, chain.roster, outcome.next.roster, crypto);
  checkStatements(bundle, outcome);
  const frontier = appendToFrontier(
    crypto,
    chainFile.frontier,
    outcome.leaves.map((leaf) => leafHash(crypto, leaf)),
  );
  const { checkpoint, cosigners } = readCheckpoint(
    file(bundle, BUNDLE_FILES.checkpoint),
    cluster.origin,
    chain.roster,
    crypto,
  );
  const root = frontierRoot(crypto, frontier);
  if (checkpoint.size !== frontier.size || !equalBytes(checkpoint.root, root))
    throw new WaggleError(
      'ROOT_MISMATCH',
      `Expected tree size ${frontier.size} and root ${base64.encode(root)} after epoch ${chain.epoch}, received ${checkpoint.size} and ${base64.encode(checkpoint.root)}`,
    );
  return {
    verified: {
      cluster,
      chain: outcome.next,
      frontier,
      fromGenesis: after?.fromGenesis ?? chain.epoch === chainStart(cluster).epoch,
    },
    report: reportOf(chain, outcome, slotList.length, frontier.size, root, cosigners),
  };
}

function readCluster(bundle: Bundle, expected: ClusterId | null, crypto: Crypto): Cluster {
  const genesis = named('GENESIS_MISMATCH', BUNDLE_FILES.genesis, () =>
    parseGenesis(file(bundle, BUNDLE_FILES.genesis)),
  );
  const cluster = clusterOf(genesis, crypto);
  if (expected !== null && cluster.id !== expected)
    throw new WaggleError(
      'GENESIS_MISMATCH',
      `Expected the genesis of cluster ${expected}, received that of ${cluster.id}`,
    );
  return cluster;
}

/** The chain that this bundle continues: what was verified before, or what it says itself, of a roster that is known. */
function readChain(
  bundle: Bundle,
  said: ChainFile,
  cluster: Cluster,
  after: Verified | null,
  known: Roster | undefined,
  crypto: Crypto,
): ChainState {
  const roster = named('ROSTER_MISMATCH', BUNDLE_FILES.roster, () => parseRoster(file(bundle, BUNDLE_FILES.roster)));
  const isFirst = said.epoch === chainStart(cluster).epoch;
  const [expected, whose] =
    after !== null
      ? [after.chain.roster, 'that the epoch before decided']
      : known === undefined || isFirst
        ? [cluster.genesis.roster, 'of the genesis']
        : [known, 'that is known of it'];
  if (rosterDigest(roster, crypto) !== rosterDigest(expected, crypto))
    throw new WaggleError('ROSTER_MISMATCH', `Expected the roster ${whose} in epoch ${said.epoch}`);
  const counted = new Map(said.counted.map((slot) => [slotName(slot), slot.digest]));
  if (after === null) {
    const start = chainStart(cluster);
    if (said.epoch === start.epoch) return readStart(said, start);
    if (said.epoch < start.epoch)
      throw new WaggleError(
        'HEADER_MISMATCH',
        `Expected epochs from ${start.epoch} on, with which the cluster began, received ${said.epoch}`,
      );
    if (said.previous === null || said.frontier.size === 0)
      throw new WaggleError(
        'HEADER_MISMATCH',
        'Expected a previous header and a tree before every epoch but the first',
      );
    return { epoch: said.epoch, previous: said.previous, roster, format: said.format, counted, closed: new Map() };
  }
  const before = after.chain.counted;
  const same =
    said.epoch === after.chain.epoch &&
    said.previous === after.chain.previous &&
    said.format === after.chain.format &&
    said.frontier.size === after.frontier.size &&
    said.frontier.hashes.every((hash, i) => equalBytes(hash, after.frontier.hashes[i]!)) &&
    [...counted].every(([name, digest]) => before.get(name) === digest || (!after.fromGenesis && !before.has(name)));
  if (!same)
    throw new WaggleError(
      'HISTORY_CHANGED',
      `Expected epoch ${after.chain.epoch} after header ${after.chain.previous} and a tree of ${after.frontier.size} leaves, received epoch ${said.epoch} after header ${said.previous} and ${said.frontier.size} leaves, or another tree or count of slots`,
    );
  return after.fromGenesis ? after.chain : { ...after.chain, counted: new Map([...counted, ...before]) };
}

/** Before the first epoch there is no tree, and nothing but what a predecessor had counted. */
function readStart(said: ChainFile, start: ChainState): ChainState {
  const isStart =
    said.previous === start.previous &&
    said.frontier.size === 0 &&
    said.format === start.format &&
    said.counted.every((slot) => start.counted.get(slotName(slot)) === slot.digest);
  if (!isStart)
    throw new WaggleError(
      'HEADER_MISMATCH',
      `Expected no tree, and header, format and counted slots as the genesis has them, before epoch ${start.epoch}`,
    );
  return start;
}

/** The slot list, held against the header at once, so that what it names can be trusted as much as the header. */
function readSlotList(bundle: Bundle, crypto: Crypto): SlotEntry[] {
  const header = named('HEADER_MISMATCH', BUNDLE_FILES.header, () => parseHeader(file(bundle, BUNDLE_FILES.header)));
  const bytes = file(bundle, BUNDLE_FILES.slotList);
  const digest = digestOf(crypto, bytes);
  if (digest !== header.slots.digest)
    throw new WaggleError(
      'HEADER_MISMATCH',
      `Expected SHA-256 ${header.slots.digest} of ${BUNDLE_FILES.slotList}, received ${digest}`,
    );
  return named('HEADER_MISMATCH', BUNDLE_FILES.slotList, () => parseSlotList(bytes));
}

/** Every file is one that the slot list or the format calls for. Counted slots are those that the list touches. */
function checkNames(bundle: Bundle, slotList: readonly SlotEntry[], chain: ChainState): void {
  const expected = new Set<string>(Object.values(BUNDLE_FILES));
  for (const entry of slotList) {
    expected.add(slotFile(entry));
    if (chain.counted.has(slotName(entry))) expected.add(countedFile(entry));
  }
  for (const name of expected) file(bundle, name);
  for (const name of bundle.keys())
    if (!expected.has(name)) throw new WaggleError('BUNDLE_MALFORMED', `Expected no file ${name}`);
}

/** A chain file speaks of exactly those slots of the slot list of which something was counted before. */
function checkCounted(said: ChainFile, slotList: readonly SlotEntry[], chain: ChainState): void {
  const expected = slotList.map(slotName).filter((name) => chain.counted.has(name));
  const received = said.counted.map(slotName);
  if (expected.join() !== received.join())
    throw new WaggleError(
      'BUNDLE_MALFORMED',
      `Expected the counted slots ${expected.join() || 'none'} in ${BUNDLE_FILES.chain}, received ${received.join() || 'none'}`,
    );
}

/** The contents that the slot list names, checked against their digests. */
function readContents(
  bundle: Bundle,
  slotList: readonly SlotEntry[],
  chain: ChainState,
  crypto: Crypto,
): Map<Digest, Slot> {
  const contents = new Map<Digest, Slot>();
  const read = (name: string, digest: Digest): void => {
    const bytes = file(bundle, name);
    const received = hex.encode(crypto.sha256(bytes));
    if (received !== digest)
      throw new WaggleError('SLOT_MISMATCH', `Expected SHA-256 ${digest} of ${name}, received ${received}`);
    contents.set(
      digest,
      named('SLOT_MISMATCH', name, () => parseSlot(bytes)),
    );
  };
  for (const entry of slotList) {
    read(slotFile(entry), entry.digest);
    const counted = chain.counted.get(slotName(entry));
    if (counted !== undefined) read(countedFile(entry), counted);
  }
  return contents;
}

/**
 * Who came was admitted by an invite of the operator's and not turned out since; who went was retired or banned. Each fact proves
 * itself. Whether a change should have been made or not is not said: the roster's majority answers for that.
 */
function checkFacts(bytes: Uint8Array, cluster: Cluster, before: Roster, after: Roster, crypto: Crypto): void {
  const facts = named('ROSTER_MISMATCH', BUNDLE_FILES.facts, () => parseFacts(bytes));
  for (const fact of facts)
    try {
      verifyFact(fact, cluster, crypto);
    } catch (cause) {
      if (!(cause instanceof WaggleError)) throw cause;
      throw new WaggleError('ROSTER_MISMATCH', `${BUNDLE_FILES.facts}: ${cause.message}`, { cause });
    }
  const isIn = (roster: Roster, replica: string): boolean => roster.some((entry) => entry.replica === replica);
  const about = (replica: string): RosterFact[] => facts.filter((fact) => fact.replica === replica);
  const isOut = (fact: RosterFact): boolean => fact.kind !== 'admit';
  for (const { replica } of before)
    if (!isIn(after, replica) && !about(replica).some(isOut))
      throw new WaggleError('ROSTER_MISMATCH', `Expected a fact that retires or bans ${replica}, which votes no more`);
  for (const entry of after) {
    if (isIn(before, entry.replica)) continue;
    const admits = about(entry.replica).filter((fact) => fact.kind === 'admit' && sameKeys(fact, entry));
    if (admits.length === 0 || about(entry.replica).some(isOut))
      throw new WaggleError('ROSTER_MISMATCH', `Expected a fact that admits ${entry.replica}, and none against it`);
  }
}

const sameKeys = (a: RosterEntry, b: RosterEntry): boolean =>
  a.transportKey === b.transportKey && a.logKey === b.logKey && a.cosignerKey === b.cosignerKey;

function checkStatements(bundle: Bundle, outcome: Outcome): void {
  const text = named('STATEMENT_MISMATCH', BUNDLE_FILES.statements, () =>
    fromUtf8(file(bundle, BUNDLE_FILES.statements)),
  );
  const received = text.split('\n');
  const expected = [...outcome.statements.map((statement) => statement.text), ''];
  const i = Array.from({ length: Math.max(expected.length, received.length) }).findIndex(
    (_, line) => expected[line] !== received[line],
  );
  if (i < 0) return;
  const statement = outcome.statements[i];
  const where =
    statement === undefined
      ? `no line ${i + 1}`
      : `line ${i + 1} to be the statement of ${statement.customer} for epoch ${statement.epoch}`;
  throw new WaggleError('STATEMENT_MISMATCH', `Expected ${where} as the slots give it in ${BUNDLE_FILES.statements}`);
}

function reportOf(
  { epoch, roster }: ChainState,
  outcome: Outcome,
  slots: number,
  treeSize: number,
  root: Uint8Array,
  cosigners: readonly string[],
): EpochReport {
  // The texts are ours, made of checked figures.
  const usages = outcome.statements.map(({ text }) => (JSON.parse(text) as Pick<Statement, 'usage'>).usage);
  const totals = totalsOf(usages.flatMap((usage) => Object.values(usage)));
  const late = outcome.statements.filter((statement) => statement.epoch !== epoch).length;
  return {
    epoch,
    treeSize,
    root,
    slots,
    statements: outcome.statements.length,
    late,
    totals,
    roster: roster.length,
    cosigners,
  };
}

/** What was found of one good statement. */
export interface StatementReport {
  readonly customer: CustomerId;
  /** The epoch in which the usage happened, and the one whose seal counts it: the same unless it is late. */
  readonly epoch: Epoch;
  readonly sealedIn: Epoch;
  readonly totals: Totals;
  /** Of the checkpoint that the proof leads to. */
  readonly treeSize: number;
  readonly cosigners: readonly string[];
}

/**
 * Checks one customer's statement against its `.tlog-proof`, offline: the commitment of these very bytes is a leaf of the tree
 * that a majority of the roster cosigned. Throws `PROOF_INVALID`, `GENESIS_MISMATCH`, `CHECKPOINT_INVALID` or `QUORUM_MISSING`.
 */
export function verifyStatement(
  statement: Uint8Array,
  proof: Uint8Array,
  cluster: Cluster,
  roster: Roster,
  crypto: Crypto,
): StatementReport {
  const said = named('PROOF_INVALID', 'the statement', () => parseStatement(statement, cluster.genesis));
  if (said.cluster !== cluster.id)
    throw new WaggleError(
      'GENESIS_MISMATCH',
      `Expected a statement of cluster ${cluster.id}, received ${said.cluster}`,
    );
  const {
    index,
    hashes,
    checkpoint: note,
    extra,
  } = named('PROOF_INVALID', 'the proof', () => parseLogProof(fromUtf8(proof)));
  if (extra !== undefined)
    throw new WaggleError('PROOF_INVALID', 'Expected no extra data in the proof, which nothing signs');
  const { checkpoint, cosigners } = readCheckpoint(utf8(note), cluster.origin, roster, crypto);
  const leaf = leafHash(crypto, statementLeaf(fromUtf8(statement), said.sealedIn, crypto));
  verifyInclusion(crypto, { index, size: checkpoint.size, hashes }, leaf, checkpoint.root);
  return {
    customer: said.customer,
    epoch: said.epoch,
    sealedIn: said.sealedIn,
    totals: totalsOf(Object.values(said.usage)),
    treeSize: checkpoint.size,
    cosigners,
  };
}
