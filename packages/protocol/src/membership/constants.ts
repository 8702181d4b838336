/*
 * memberlist: hashicorp/memberlist, `DefaultLANConfig`. SWIM: Das et al., DSN 2002. Lifeguard: Dadgar et al., 2017.
 */

/** First byte of every frame: raised when an encoding changes. */
export const MEMBERSHIP_VERSION = 1;

/** Members of a table at most, the node itself not counted. */
export const MEMBERS_MAX = 10_000;

/** Most bytes of one datagram: beyond the path MTU less the headers of UDX and its encryption they vanish silently. */
export const DATAGRAM_BYTES_MAX = 1_200;
/** Most bytes of one frame of a full-state exchange: a message between nodes is at most 64 KiB, head included. */
export const EXCHANGE_BYTES_MAX = 63 * 1024;
/** Updates in such a frame at most: 102 bytes each. */
export const EXCHANGE_UPDATES_MAX = 600;

/** Length of a protocol period, in ms (SWIM §3.1; memberlist ProbeInterval). Multiplied by local health + 1. */
export const PROBE_INTERVAL_MS = 1_000;
/** How long a probe waits for its ack before it asks others, in ms (memberlist ProbeTimeout). Multiplied likewise. */
export const PROBE_TIMEOUT_MS = 500;
/** Members asked to probe indirectly (SWIM §3.1; memberlist IndirectChecks). */
export const INDIRECT_PROBES = 3;
/** When a helper without an ack says nack, in ms: early enough not to race the deadline (swift-cluster-membership). */
export const NACK_AFTER_MS = 0.8 * PROBE_TIMEOUT_MS;
/** Indirect probes carried out for others at one time: ten times what 1 000 nodes with a third of them dead cause. */
export const RELAYS_MAX = 64;

/** Suspicion minimum = this · max(1, log10 N) · interval (memberlist SuspicionMult). */
export const SUSPICION_FACTOR = 4;
/** Suspicion maximum = this · minimum (memberlist SuspicionMaxTimeoutMult). */
export const SUSPICION_MAX_FACTOR = 6;
/** Confirmations that bring a suspicion to its minimum (memberlist: SuspicionMult − 2). */
export const CONFIRMATIONS = 2;
/**
 * Accusations a node may originate in a burst, and how long until it may make one more, in ms. A node probes one member a
 * period, so five are what it finds when a rack dies; a sick node that finds everyone dead gets no further.
 */
export const ACCUSATIONS_BURST = 5;
export const ACCUSATION_REFILL_MS = 5_000;

/** While there is news, how often some of it goes out beside probes, in ms, and to how many (memberlist GossipInterval, GossipNodes). */
export const GOSSIP_MS = 200;
export const GOSSIP_MEMBERS = 3;

/** Worst local health; the best is 0 (memberlist AwarenessMaxMultiplier 8, less one). */
export const HEALTH_MAX = 7;

/** An update goes out this · ceil(log10(N + 1)) times (memberlist RetransmitMult). */
export const RETRANSMIT_FACTOR = 4;

/** How long the dead and the left are remembered, in ms (serf ReconnectTimeout, foca remove_down_after: 24 h). */
export const REMEMBER_MS = 24 * 3_600_000;
/** Every how many periods old dead and left members are looked for. */
export const FORGET_PERIODS = 60;

/** Seeds that a join pings at once. */
export const JOIN_PINGS_MAX = 8;
/** Every how many periods a node pings one member it does not reach, so that healed partitions find each other. */
export const RECONNECT_PERIODS = 10;
/** How many it pings in every period while it reaches nobody. */
export const RECONNECT_ALONE = 3;

/** Datagrams of one sender that may overtake each other; what comes later than that is taken for a replay. */
export const REORDER_MAX = 32;

/** Highest incarnation: 2^35 − 1, five bytes as a varint. A member that refutes once a second gets there in 1 089 years. */
export const INCARNATION_MAX = 2 ** 35 - 1;

/** How long after a run of a member was first heard datagrams of an older one may still come late, in ms. */
export const RUN_SETTLED_MS = 2_000;
/** How far two datagrams of an older run lie apart at least, before its process is believed alive, in ms. */
export const RUN_OLDER_MS = 1_000;
/**
 * How long after the older process was last heard the newer one is told of it, in ms, and how often at most. So long after the
 * newer one was last heard, the older one alone is heard again.
 */
export const RUN_TWO_MS = 30_000;
export const RUN_TELL_MS = 1_000;
