/** A pool in the arena: policy, receive queues, counters; and the regions of its domain. */

// Region of a domain (32 bytes) --------------------------------------------------------------------------------

export const REGION_IOVA = 0;
export const REGION_SIZE = 8;
export const REGION_WINDOW = 16;
export const REGION_PERM = 20;
export const PERM_READ = 1;
export const PERM_WRITE = 2;

// Pool (1 KiB): policy, then the RX queue list, then counters ----------------------------------------------------

export const P_FLAGS = 0;
/** u32: 0, or the VST tag's VLAN key (VID, and bit 12 set for an S-VLAN). */
export const P_VLAN = 4;
/** u32: the 802.1p priority of the VST tag. */
export const P_QOS = 8;
export const P_REGION_COUNT = 12;
/** u64: the six bytes as loaded from a frame (first byte lowest). */
export const P_MAC = 16;
/** f64: bytes a nanosecond, 0 for no limit; then the token bucket. */
export const P_RATE = 24;
export const P_TOKENS = 32;
export const P_TOKENS_AT_NS = 40;
export const P_BURST = 48;
/** u32, units: what a pass credits the pool with, its weight in the round (schedule/share.ts); 0: QUANTUM. */
export const P_QUANTUM = 56;
/** i32, units: what the pool may still spend. */
export const P_DEFICIT = 60;
export const P_LEARNED = 64;
export const P_RX_COUNT = 68;
/** u32 × 16: running RX queues, in order of their number. */
export const P_RX_QUEUES = 72;
/** u32: the pass in which the pool was last credited (its low half). */
export const P_CREDITED_PASS = 136;
/** u32: queues of the pool that had work in this pass; i32, units: what one of them may spend. */
export const P_WORKING = 140;
export const P_PART = 144;
/** u32: in every how many passes one of its queues has its turn. */
export const P_STRIDE = 148;
/** f64, ns: engine time spent on what the pool sent, and on putting frames into its receive queues. */
export const P_ENGINE_NS = 152;
export const P_RECEIVE_NS = 160;
/** u32: 0, or the VLAN key in which untagged frames of a pool travel that sees tags, and whose frames it gets untagged. */
export const P_NATIVE = 168;
/** u32: entries of the pool's address table; 0: its IP addresses are not checked. */
export const P_ADDRESS_COUNT = 172;
/** f64, broadcasts a nanosecond, 0 for no limit; then the token bucket, laid out as P_RATE … P_BURST. */
export const P_BROADCAST_RATE = 176;
/**
 * When the driver of the pool's receive queues is interrupted, and behind it (COALESCE_STRIDE) that of its transmit
 * queues: f64, ns: how long an interrupt may be deferred, 0: not at all; u32: frames after which it is not; u32:
 * COALESCE_ADAPTIVE or 0.
 */
export const P_COALESCE = 208;
export const COALESCE_STRIDE = 16;
export const COALESCE_FRAMES = 8;
export const COALESCE_FLAGS = 12;
export const COALESCE_ADAPTIVE = 1;
/** u32: the pool's packet buffer (arena offset of its queue), 0 for none; whether it is on the list of those in use. */
export const P_BUFFER = 240;
export const P_BUFFERED = 244;
/** u32: frames were dropped for want of a packet buffer. */
export const P_OVERRUN = 248;
/** u32: of a pool with several receive queues, the one whose frames its packet buffer holds. */
export const P_BUFFER_QUEUE = 252;
export const P_COUNTERS = 256;

export const POOL_F_ENABLED = 1;
export const POOL_F_SPOOF_CHECK = 2;
export const POOL_F_TRUST = 4;
export const POOL_F_PROMISC = 8;
export const POOL_F_LINK_UP = 16;
/** The uplink and the PF: frames keep their tag, every VLAN is theirs, no source policy. */
export const POOL_F_TRUNK_ALL = 32;
export const POOL_F_UPLINK = 64;
/** Addresses behind the pool are learned, though it has no source policy: the PF's, which is a switch's uplink. */
export const POOL_F_LEARN = 128;
/** While nobody drives the pool's queues its frames go to the PF's pool, or to the uplink: its guest is behind that. */
export const POOL_F_FALLBACK_PF = 512;
export const POOL_F_FALLBACK_UPLINK = 1024;
/** Of multicast frames the pool receives only those that its multicast table has, and broadcast. */
export const POOL_F_MULTICAST_FILTER = 256;

// Counters of a pool (u64 each, offsets from P_COUNTERS); names in counter_names.ts ------------------------------

export const C_RX_FRAMES = 0;
export const C_RX_BYTES = 8;
export const C_TX_FRAMES = 16;
export const C_TX_BYTES = 24;
export const C_RX_MULTICAST = 32;
export const C_RX_BROADCAST = 40;
export const C_TX_MULTICAST = 48;
export const C_TX_BROADCAST = 56;
export const C_RX_NO_BUFFER = 64;
export const C_RX_TOO_SMALL = 72;
export const C_RX_NO_QUEUE = 80;
export const C_RX_LINK_DOWN = 88;
export const C_RX_QUEUE_ERROR = 96;
export const C_TX_LINK_DOWN = 104;
export const C_TX_SPOOFED = 112;
export const C_TX_BAD_SOURCE = 120;
export const C_TX_VLAN_TAGGED = 128;
export const C_TX_VLAN_DENIED = 136;
export const C_TX_RUNT = 144;
export const C_TX_OVERSIZE = 152;
export const C_TX_BAD_OFFLOAD = 160;
export const C_TX_NO_DESTINATION = 168;
export const C_TX_TO_SELF = 176;
export const C_TX_UNFETCHED = 184;
export const C_TX_PRUNED = 192;
export const C_RX_TOO_DEAR = 200;
export const C_TX_BROADCAST_LIMITED = 208;
export const C_TX_IP_SPOOFED = 216;
export const C_RX_INTERRUPTS = 224;
export const C_TX_INTERRUPTS = 232;
export const C_RX_INTERRUPTS_SAVED = 240;
export const C_TX_INTERRUPTS_SAVED = 248;
export const C_RX_STALLED = 256;
export const C_TX_HELD = 264;
export const COUNTER_COUNT = 34;

// Behind the counters: why what a packet buffer holds is not handed on (buffers.ts) -----------------------------

/** u32: the receive queue that has no room (0: none), how far its driver had offered then, CTL_GENERATION of that time. */
export const P_BLOCKED_QUEUE = 528;
export const P_BLOCKED_MARK = 532;
export const P_BLOCKED_GENERATION = 536;

// The dirty log of the pool's guest (queue/dirty_log.ts) ----------------------------------------------------------

/** u32: the bitmap (arena offset), and its bytes; queues with QUEUE_F_LOG have one. */
export const P_LOG = 544;
export const P_LOG_BYTES = 548;
/** u64 × 32, by queue: the address at which its used ring, or its device event area, is logged; NOT_LOGGED: it is not. */
export const P_LOG_USED = 552;
/** No place of a ring, since rings are aligned. */
export const NOT_LOGGED = 1;
/** A bit stands for 4 KiB. */
export const LOG_PAGE_SHIFT = 12;

// Who looks at the pool's frames: one word of 64 bits says whether anybody does --------------------------------------

/** u32: a bit for each capture of all of them, and, higher, of the dropped ones alone. */
export const P_WATCH = 808;
export const WATCH_ALL = 0xff;
export const WATCH_DROPPED_SHIFT = 8;
/** u32, behind P_WATCH: MIRROR_IN, MIRROR_OUT and the pool that gets copies; 0: there is no mirror. */
export const P_MIRROR = 812;
export const MIRROR_POOL = 0xffff;
export const MIRROR_IN = 0x10000;
export const MIRROR_OUT = 0x20000;

// How long the pool's frames wait in their rings (schedule/latency.ts) -----------------------------------------------

/** u64 each: samples up to 2^i µs, and in the last one the rest; f64, ns: their sum. */
export const P_LATENCY = 816;
export const LATENCY_BUCKETS = 17;
export const P_LATENCY_SUM = 952;
/** u32: the queue of which a sample is taken (0: none), where it stood, descriptors that are waited for; visits until one. */
export const P_SAMPLE_QUEUE = 960;
export const P_SAMPLE_FROM = 964;
export const P_SAMPLE_LEFT = 968;
export const P_SAMPLE_AFTER = 972;
/** f64, ns: when it began. */
export const P_SAMPLE_NS = 976;

// Senders that wait for the uplink's line (switch/line.ts) ------------------------------------------------------------

/** u32: transmit queues of the pool in HELD_LIST. */
export const P_HELD = 984;
/** Of the uplink: u32, how far its driver had offered when somebody found no room, and f64, ns: when that was; 0: there is room. */
export const P_FULL_MARK = 988;
export const P_FULL_SINCE_NS = 992;
/** Of the uplink, u32: what copies of frames for many may take of its line while others wait for it. */
export const P_COPY_CREDIT = 1000;
