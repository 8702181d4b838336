import { DELTA_BYTES_MAX, MESSAGE_BYTES_MAX } from '../lattice/index.ts';

/** Version of the frames. A newer minor may bring types of frames that older nodes ignore; a newer major may change any. */
export const VERSION_MAJOR = 1;
export const VERSION_MINOR = 1;
/** The oldest major that is understood: the one before, once there is one. */
export const VERSION_MAJOR_MIN = Math.max(1, VERSION_MAJOR - 1);

/** Members that a rumor is sent to in one round (memberlist GossipNodes). */
export const FANOUT = 3;
/** How long own writes are gathered before they go out as one rumor, in ms. */
export const COALESCE_MS = 20;
/** Between the rounds of a rumor, in ms (memberlist LAN GossipInterval). */
export const GOSSIP_MS = 200;
/** How often one node sends one rumor in a cluster of `members` (memberlist RetransmitMult 4: `4 · ceil(log10(N + 1))`). */
export const rumorSendsMax = (members: number): number => 4 * Math.ceil(Math.log10(members + 1));
/** Rumors on their way at once. What is beyond is left to the exchange. */
export const RUMORS_MAX = 4_096;
export const RUMOR_BYTES_MAX = 512 * 1024;
/** The gap of one writer is asked for at most this often, in ms. */
export const GAP_MS = 200;

/** Between two exchanges that a node opens, in ms. */
export const EXCHANGE_MS = 1_000;
/** Every so many exchanges one goes to a member believed dead, so that healed partitions find each other. */
export const EXCHANGES_PER_DEAD = 10;
/** An exchange of which nothing was heard for so long is given up, in ms. */
export const EXCHANGE_IDLE_MS_MAX = 5_000;
/** How long exchanges with one member follow each other at once, in ms; then chance decides again. */
export const CATCH_UP_MS_MAX = 30_000;
/** Bytes of deltas in one direction, class and exchange (`deltaBytesMax`). */
export const ROUND_BYTES_MAX = 1024 * 1024;
/** Complete exchanges without progress after which a catch-up starts over whose source is gone: no one else has as much. */
export const STUCK_EXCHANGES_MAX = 8;
/** What one member is served in a second, in bytes: many rounds of catching up, but not a flood. */
export const SERVED_BYTES_PER_SECOND_MAX = 32 * 1024 * 1024;
/** What an answer costs of that at least, in bytes: digests are computed for it. */
export const ANSWER_BYTES_MIN = 4 * 1024;
/** Writers of one replica: its runs. Those that are counted leave, so only a crash loop without seals comes near. */
export const WRITERS_PER_REPLICA_MAX = 4_096;
/** Versions in one entry of a vector; a writer with more beyond its vector has several. */
export const ENTRY_VERSIONS_MAX = 4_096;
/** Pages of a vector in one answer. With more, each answer shows others. */
export const PAGES_MAX = 16;
/** Members of which a state is kept. */
export const PEERS_MAX = 10_000;

/** Bytes of encoded deltas, entries or a chunk in one frame: what leaves room for the frame's own fields. */
export const BODY_BYTES_MAX = MESSAGE_BYTES_MAX - 256;

/** A content is sent in chunks of this size, in bytes, the last one shorter. */
export const CHUNK_BYTES = DELTA_BYTES_MAX;
/** Chunks for one request: the window of a transfer. */
export const CHUNKS_PER_GET = 16;
/**
 * Bytes of windows that one member is asked for at once, one window at least: half of what may wait for a member on a link
 * (2 MiB), as what is beyond is refused, what follows a lost chunk is useless, and each loss costs `STALL_MS`.
 */
export const WINDOWS_BYTES_MAX = 1024 * 1024;
/** The largest content, and what is fetched at once: the statements of some 800 000 customers, or a slot of two million rows. */
export const CONTENT_BYTES_MAX = 512 * 1024 * 1024;
/** Contents in memory to be served, in bytes, or one that is larger; the rest is loaded when asked for. */
export const CONTENT_CACHE_BYTES_MAX = 128 * 1024 * 1024;
/** Contents fetched at once, and contents wanted at all. */
export const FETCHES_MAX = 16;
export const WANTED_MAX = 16_384;
/** Contents that are being loaded for others, and who may wait for each. */
export const LOADS_MAX = 256;
export const LOAD_WAITERS_MAX = 64;
/** How long to wait for who has a content, and before asking again when nobody had it (doubled each time), in ms. */
export const ASK_MS = 1_000;
export const RETRY_MS = 1_000;
export const RETRY_MS_MAX = 8_000;
/** A transfer of which nothing comes for so long, in ms, is asked for again; after so many times in a row, of someone else. */
export const STALL_MS = 1_000;
export const STALLS_MAX = 5;

/** How often, and how many times at most, members are asked again what they hold of this node's registers, in ms. */
export const FOLLOW_MS = 1_000;
export const FOLLOWS_MAX = 15;

/** Exchanges that a node opens at once while it has to compare with everybody after a start. */
export const COMPARES_MAX = 16;

/** Sealed epochs in one frame. */
export const SHOWN_EPOCHS_MAX = 1_024;
/** How long to wait for sealed epochs that were asked for, in ms, and how many members are asked for the same at most. */
export const EPOCHS_MS = 2_000;
export const EPOCHS_ASKED_MAX = 3;
/** Members for whom sealed epochs are being read from disk. */
export const EPOCH_READS_MAX = 16;

/** Other runs of this replica that are remembered as said. */
export const RUNS_MAX = 16;
/** A member that speaks a version which is not understood is told so at most this often, in ms. */
export const VERSIONS_MS = 10_000;
