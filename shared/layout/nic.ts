/**
 * Where the NIC's state lives in its arena: one map, read by the engine (AssemblyScript) and by the control thread
 * (TypeScript). Plain integer literals only, because both compilers must read this file.
 *
 *      0x0000_0000  null page: a zero pointer is a bug, never a place
 *      0x0001_0000  control block        4 KiB   pause, generation, engine counters
 *      0x0002_0000  active list         64 KiB   u32 queue pointers, TX queues that are polled
 *      0x0003_0000  call list           64 KiB   u32 queue pointers whose driver wants an interrupt
 *      0x0004_0000  pools                1 KiB   each: policy, rx queue list, counters
 *      0x000a_0000  flow tables          256 B   each: automatic receive steering, one byte a flow
 *      0x0010_0000  decision caches      2 KiB   each: 64 recent (dst, src) -> pool verdicts
 *      0x0020_0000  VLAN bitmaps         1 KiB   each: 4096 bits C-VLAN, 4096 bits S-VLAN
 *      0x0030_0000  domains              2 KiB   each: 64 regions of 32 bytes
 *      0x0040_0000  filter table         1 MiB   65536 entries of 16 bytes
 *      0x0060_0000  queues               256 B   each, 32 to a pool
 *      0x0090_0000  scratch            1.2 MiB   segment lists and frame heads of the running burst
 *      0x00b0_0000  register pages       4 KiB   each: doorbells of a pool's advanced queues (advanced.ts)
 *      0x00c8_0000  multicast tables     512 B   each: 4096 bits, the addresses a VF wants to hear
 *      0x00cb_0000  trunks             512 B   each: source and sink of a pool, for an engine that is a driver itself
 *      0x0100_0000  windows                      guests' memory is mapped from here up
 */

// Sections -----------------------------------------------------------------------------------------------------

export const CTL = 0x10000;
export const ACTIVE_LIST = 0x20000;
export const CALL_LIST = 0x30000;
export const POOLS = 0x40000;
export const FLOW_TABLES = 0xa0000;
export const DECISIONS = 0x100000;
export const VLAN_BITMAPS = 0x200000;
export const DOMAINS = 0x300000;
export const FILTERS = 0x400000;
export const QUEUES = 0x600000;
export const SCRATCH = 0x900000;
export const REGISTER_PAGES = 0xb00000;
export const MULTICAST_TABLES = 0xc80000;
export const TRUNKS = 0xcb0000;
export const WINDOWS = 0x1000000;

// Counts and strides -------------------------------------------------------------------------------------------

/** VF pools are 0 … VF_MAX-1; then the PF's pool and the uplink's. */
export const VF_MAX = 256;
export const POOL_PF = 256;
export const POOL_UPLINK = 257;
export const POOL_COUNT = 258;

export const POOL_STRIDE = 1024;
export const FLOW_TABLE_STRIDE = 256;
export const DECISION_STRIDE = 32;
export const DECISIONS_PER_POOL = 64;
export const VLAN_BITMAP_STRIDE = 1024;
export const DOMAIN_STRIDE = 2048;
export const REGION_STRIDE = 32;
export const REGIONS_MAX = 64;
export const FILTER_STRIDE = 16;
export const FILTER_COUNT = 65536;
export const QUEUE_STRIDE = 256;
export const MULTICAST_TABLE_STRIDE = 512;
export const TRUNK_STRIDE = 512;
export const QUEUES_PER_POOL = 32;
export const QUEUE_PAIRS_MAX = 16;

/** virtio 1.x §2.7: a split queue holds at most 32768 descriptors; so does the longest chain. */
export const QUEUE_SIZE_MAX = 32768;
/** Segments of one chain: one a descriptor, and a few more where a buffer crosses two regions of its domain. */
export const SEGMENTS_MAX = 32832;
export const SEGMENT_STRIDE = 8;

// Control block (offsets from CTL) -----------------------------------------------------------------------------

/** i32: a number that counts up: odd while the engine is to stand still, even while it may run; PAUSE_END. */
export const CTL_PAUSE = 0;
/** i32: the last odd number for which the engine stood still. */
export const CTL_PARKED = 4;
/** u32: bumped by every control operation; caches of decisions carry it. */
export const CTL_GENERATION = 8;
export const CTL_ACTIVE_COUNT = 12;
export const CTL_CALL_COUNT = 16;
/** u32: bumped when a queue goes to `error`, so that the control thread looks. */
export const CTL_EVENT_COUNT = 20;
/** Written by the SIGBUS guard (shared/os/sigbus.ts): {count u32, pad u32, a bit for each 2 MiB, 2049 of them}. */
export const CTL_FAULTS = 256;
export const FAULTS_BYTES = 272;
/** u64: polls of all active queues, of them with work; frames taken from TX queues. */
export const CTL_PASSES = 40;
export const CTL_BUSY_PASSES = 48;
export const CTL_FRAMES = 56;
/** f64, ns: time spent on passes that found work (sampled), since start. */
export const CTL_BUSY_NS = 64;
/** f64, ns: monotonic time that the engine last saw, and the time it started. */
export const CTL_NOW_NS = 72;
export const CTL_START_NS = 80;
/** u64: times the worker slept; calls (interrupts) it raised; kicks without work. */
export const CTL_SLEEPS = 88;
export const CTL_CALLS = 96;
export const CTL_SPURIOUS_KICKS = 104;
/** u32: SWITCH_VEB or SWITCH_VEPA. */
export const CTL_SWITCH_MODE = 116;
/** u32: VFs that exist (pools 0 … n-1 are enabled). */
export const CTL_VF_COUNT = 120;
export const CTL_FILTER_COUNT = 124;
/** u32: queues that were held back by their pool's rate in the last pass. */
export const CTL_RATE_BLOCKED = 128;
/** u32: promiscuous pools. */
export const CTL_PROMISC_COUNT = 132;
/** f64, ns: time asleep in epoll since start. */
export const CTL_SLEPT_NS = 136;

export const PAUSE_END = -1;

export const SWITCH_VEB = 0;
export const SWITCH_VEPA = 1;

// What run() answers (bits) ------------------------------------------------------------------------------------

export const RUN_WORK = 1;
export const RUN_CALLS = 2;
export const RUN_PAUSE = 4;
export const RUN_EVENT = 8;
export const RUN_RATE_BLOCKED = 16;

// Queue (256 bytes; the first line is what every burst reads) --------------------------------------------------

export const Q_STATE = 0;
export const Q_SIZE = 4;
export const Q_DESC = 8;
export const Q_AVAIL = 12;
export const Q_USED = 16;
export const Q_LAST_AVAIL = 20;
/** u32 (16 bits used): next used entry to write; published to the ring at the end of a burst. */
export const Q_USED_IDX = 24;
export const Q_FLAGS = 28;
export const Q_HDR_BYTES = 32;
/** The region that translated last: {iova u64, size u64, window u32}. */
export const Q_REGION_IOVA = 40;
export const Q_REGION_SIZE = 48;
export const Q_REGION_WINDOW = 56;
export const Q_POOL = 60;
/** u32: used index when the driver was last interrupted (EVENT_IDX). */
export const Q_SIGNALLED = 64;
export const Q_DIRTY = 68;
export const Q_CALL_FD = 72;
export const Q_ERROR = 76;
export const Q_ERROR_DETAIL = 80;
/** u32: the virtqueue's number: 2k receives, 2k+1 transmits (virtio 1.x §5.1.2). */
export const Q_INDEX = 88;
/** The run: frames with these 12 bytes of addresses go to this RX queue, as they are. */
export const Q_RUN_RX = 92;
export const Q_RUN_DST = 96;
export const Q_RUN_SRC = 104;
export const Q_RUN_GENERATION = 108;
export const Q_CALLS = 112;
export const Q_CALL_PENDING = 120;
/** u32: kicks in a row that found nothing to do. */
export const Q_IDLE_KICKS = 124;
/** IOVAs of the rings, so that they can be found again when the memory table changes. */
export const Q_DESC_IOVA = 128;
export const Q_AVAIL_IOVA = 136;
export const Q_USED_IOVA = 144;
export const Q_KICK_FD = 152;
/** u32: the run's pool. */
export const Q_RUN_POOL = 156;
/** u32: FLAVOUR_SPLIT or FLAVOUR_ADVANCED. */
export const Q_FLAVOUR = 160;
/** Advanced: the queue's registers (arena offset); sizes of its receive buffers (SRRCTL); header bytes 0: no split. */
export const Q_REGISTERS = 164;
export const Q_PACKET_BYTES = 168;
export const Q_HEADER_BYTES = 172;

/** u32: where a wired queue's frames go: the sink (arena offset), or itself for a source; 0: through the switch. */
export const Q_WIRE = 176;
/** Trunks: the buffers of the ring's descriptors (arena offset), and their IOVA at the other end. */
export const Q_BUFFERS = 180;
export const Q_BUFFERS_IOVA = 184;

/** u32: a hold ring's buffers that have been handed on. */
export const Q_RELEASED = 192;

/** u32: how the call descriptor is raised, CALL_EVENTFD or CALL_SOCKET. */
export const Q_CALL_KIND = 196;
/** The queue's quarantine (shared/engine/quarantine.ts): u32 length of the last one, u32 offences, f64 when it ends. */
export const Q_QUARANTINE_MS = 200;
export const Q_OFFENCES = 204;
export const Q_QUARANTINE_END_NS = 208;

export const CALL_EVENTFD = 0;
export const CALL_SOCKET = 1;

export const FLAVOUR_SPLIT = 0;
export const FLAVOUR_ADVANCED = 1;
/** The driver's side of an advanced pair: its transmit ring, and its receive ring. */
export const FLAVOUR_SINK = 2;
export const FLAVOUR_SOURCE = 3;
/** A packed virtqueue: Q_DESC is the ring, Q_AVAIL the driver's event suppression area, Q_USED the device's. */
export const FLAVOUR_PACKED = 4;
/** A trunk's descriptors each have a buffer of this size. */
export const TRUNK_BUFFER_BYTES = 2048;

export const QUEUE_STOPPED = 0;
export const QUEUE_RUNNING = 1;
export const QUEUE_ERROR = 2;

export const QUEUE_F_EVENT_IDX = 1;
export const QUEUE_F_INDIRECT = 2;
export const QUEUE_F_MRG_RXBUF = 4;
export const QUEUE_F_IN_ORDER = 8;

// Why a queue stopped ------------------------------------------------------------------------------------------

export const OK = 0;
export const BAD_AVAIL_IDX = 1;
export const BAD_HEAD = 2;
export const BAD_NEXT = 3;
export const BAD_CHAIN_LENGTH = 4;
export const BAD_ADDRESS = 5;
export const BAD_DIRECTION = 6;
export const BAD_INDIRECT = 7;
export const BAD_HEADER = 8;
export const MEMORY_GONE = 9;
export const RING_UNMAPPED = 10;
export const BAD_TAIL = 12;
export const BAD_DESCRIPTOR = 13;

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
/** i32, bytes: share of a pass under contention (min rate), 0 for no weighting. */
export const P_QUANTUM = 56;
export const P_DEFICIT = 60;
export const P_LEARNED = 64;
export const P_RX_COUNT = 68;
/** u32 × 16: running RX queues, in order of their number. */
export const P_RX_QUEUES = 72;
/** u64: the pass before which the pool is not visited, because its last frames cost more than their share. */
export const P_RESUME_PASS = 136;
/** u32: the pass in which the pool's share was last credited. */
export const P_CREDITED_PASS = 144;
/** u32: frames one visit to one of the pool's TX queues may take, so that many queues are no larger share. */
export const P_VISIT_FRAMES = 148;
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
export const COUNTER_COUNT = 24;

// Filter entry (16 bytes): {key u64, pool u16, flags u16, seenSeconds u32} ----------------------------------------

/** key = MAC (48 bits, first byte lowest) | VLAN key << 48 | valid bit 63. */
export const FILTER_KEY = 0;
export const FILTER_POOL = 8;
export const FILTER_FLAGS = 10;
export const FILTER_SEEN_SECONDS = 12;
export const FILTER_F_LEARNED = 1;
/** VLAN key of an S-VLAN (802.1ad) has this bit; VLAN_ANY matches whatever VLANs the pool is a member of. */
export const VLAN_KEY_AD = 0x1000;
export const VLAN_ANY = 0x1fff;
/** A probe sequence longer than this is not searched: inserting fails instead. */
export const FILTER_PROBES_MAX = 64;
/** MACs a trusted VF may add by using them, and how long an unused one is kept. */
export const LEARNED_PER_POOL_MAX = 64;
export const LEARNED_PF_MAX = 4096;
export const LEARNED_AGE_SECONDS = 300;

// Decision cache entry (32 bytes): {dst+src[0..1] u64, src[2..5] u32, generation u32, pool u32} -------------------

export const D_DST = 0;
export const D_SRC = 8;
export const D_GENERATION = 12;
export const D_POOL = 16;

// Scratch --------------------------------------------------------------------------------------------------------

export const TX_SEGMENTS = 0x900000;
export const RX_SEGMENTS = 0x980000;
/** Touched RX queues of a burst, u32 pointers. */
export const TOUCHED_LIST = 0xa00000;
/** u64: the sum of what was read ahead, so that no compiler leaves the reading out. */
export const TOUCHED = 0xa0f000;
/** The copied head of the frame in hand: virtio-net header, then up to HEAD_BYTES_MAX of the frame. */
export const FRAME_HEAD = 0xa10000;
/** The Ethernet header as the receiver gets it, and its virtio-net header. */
export const OUT_HEAD = 0xa10100;
export const OUT_VIRTIO_HDR = 0xa10120;
/** The copied head of a frame whose headers go into a buffer of their own. */
export const SPLIT_HEAD = 0xa10140;
export const SPLIT_HEAD_BYTES = 160;
/** Chains that one frame fills: {head u32, bytes u32}. */
export const RX_CHAINS = 0xa10200;

// Limits -----------------------------------------------------------------------------------------------------------

/** Frames taken from a pool's TX queues together before the next pool has its turn. */
export const BURST_FRAMES = 256;
/** A frame without FCS; the longest that a 64 KiB virtio buffer could carry. */
export const FRAME_BYTES_MAX = 65536;
export const FRAME_BYTES_MIN = 14;
/** How much of a frame is copied before it is looked at: enough for tags, an IPv6 header and ports. */
export const HEAD_BYTES_MAX = 96;
/** Bytes one TX queue may move in one visit, and descriptors it may make the engine walk. */
export const BURST_BYTES = 131072;
export const BURST_WORK = 1024;
/** Receive buffers that one frame may fill (mergeable), and descriptors it may take to find room for one frame. */
export const RX_CHAINS_MAX = 256;
export const RX_WALK_MAX = 1024;
