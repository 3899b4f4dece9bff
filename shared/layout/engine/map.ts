/**
 * Where the NIC's state lives in its arena: one map, read by the engine (AssemblyScript) and by the control thread
 * (TypeScript). Plain integer literals only, because both compilers must read this file.
 *
 * Everything below `windows` is one worker's context: the engine adds the context's base to each of these offsets
 * (assembly/engine/context.ts). One worker has base 0. What is written into lists and queues as a "pointer" is an arena
 * offset, base included.
 *
 *      0x0000_0000  null page: a zero pointer is a bug, never a place
 *      0x0001_0000  control block        4 KiB   pause, generation, engine counters
 *      0x0002_0000  active list         32 KiB   u32 queue pointers, all queues that send
 *      0x0002_8000  hot list            32 KiB   u32 queue pointers, those of them that are polled
 *      0x0003_0000  call list           64 KiB   u32 queue pointers whose driver wants an interrupt
 *      0x0004_0000  pools                1 KiB   each: policy, rx queue list, counters
 *      0x0009_0000  deferred list       64 KiB   u32 queue pointers whose driver is interrupted a little later
 *      0x000a_0000  flow tables          256 B   each: automatic receive steering, one byte a flow
 *      0x0020_0000  VLAN bitmaps         1 KiB   each: 4096 bits C-VLAN, 4096 bits S-VLAN
 *      0x0030_0000  domains              2 KiB   each: 64 regions of 32 bytes
 *      0x0040_0000  filter table         1 MiB   65536 entries of 16 bytes
 *      0x0060_0000  queues               320 B   each, 32 to a pool and a gap
 *      0x0090_0000  scratch            1.2 MiB   the running batch: frame records, segment lists, groups
 *      0x00b0_0000  register pages       4 KiB   each: doorbells of a pool's advanced queues (advanced.ts)
 *      0x00c8_0000  multicast tables     512 B   each: 4096 bits, the addresses a VF wants to hear
 *      0x00cb_0000  driver pairs       640 B   each: both rings of a pool, for an engine that is a driver itself
 *      0x00ce_0000  address tables     512 B   each: 16 IP prefixes that a pool may send from
 *      0x00d1_0000  offload contexts   20 B   each: what an advanced queue's driver has set for its offloads
 *      0x00d4_0000  captures            13 KiB   who wants which frames copied, and where to (capture.ts)
 *      0x00d4_3000  mirrors              1 KiB   deliveries of copies (batch.ts)
 *      0x00d4_8000  held list        32 KiB   u32 queue pointers, whose frames wait for the uplink's line: a ring
 *      0x0100_0000  decision caches     16 KiB   each: 64 sets of 4 recent (addresses, tag) -> verdict
 *      0x0160_0000  windows                      guests' memory is mapped from here up
 */

// Sections -----------------------------------------------------------------------------------------------------

export const CTL = 0x10000;
export const ACTIVE_LIST = 0x20000;
export const HOT_LIST = 0x28000;
export const CALL_LIST = 0x30000;
export const POOLS = 0x40000;
export const DEFERRED_LIST = 0x90000;
export const FLOW_TABLES = 0xa0000;
export const VLAN_BITMAPS = 0x200000;
export const DOMAINS = 0x300000;
export const FILTERS = 0x400000;
export const QUEUES = 0x600000;
export const SCRATCH = 0x900000;
export const REGISTER_PAGES = 0xb00000;
export const MULTICAST_TABLES = 0xc80000;
export const DRIVER_PAIRS = 0xcb0000;
export const ADDRESS_TABLES = 0xce0000;
/** For each queue of QUEUES, in the same order: both contexts of an advanced transmit queue (queue/advanced_context.ts). */
export const OFFLOAD_CONTEXTS = 0xd10000;
export const HELD_LIST = 0xd48000;
export const DECISIONS = 0x1000000;
export const WINDOWS = 0x1600000;

// Counts and strides -------------------------------------------------------------------------------------------

/** VF pools are 0 … VF_MAX-1; then the PF's pool and the uplink's. */
export const VF_MAX = 256;
export const POOL_PF = 256;
export const POOL_UPLINK = 257;
export const POOL_COUNT = 258;

export const POOL_STRIDE = 1024;
export const HELD_COUNT = 8192;
export const FLOW_TABLE_STRIDE = 256;
export const DECISION_STRIDE = 64;
export const DECISION_WAYS = 4;
export const DECISIONS_PER_POOL = 256;
export const VLAN_BITMAP_STRIDE = 1024;
export const DOMAIN_STRIDE = 2048;
export const REGION_STRIDE = 32;
export const REGIONS_MAX = 64;
export const FILTER_STRIDE = 16;
export const FILTER_COUNT = 65536;
export const QUEUE_STRIDE = 320;
export const MULTICAST_TABLE_STRIDE = 512;
export const DRIVER_PAIR_STRIDE = 640;
export const ADDRESS_TABLE_STRIDE = 512;
/** A sixteenth of a queue's, so that the place follows from that of the queue; both contexts take 16 bytes of it. */
export const OFFLOAD_CONTEXT_STRIDE = 20;
/** 32 and a gap: without it the same queue of every pool would lie in the same sets of a CPU's cache. */
export const QUEUES_PER_POOL = 33;
export const QUEUE_PAIRS_MAX = 16;

/** virtio 1.x §2.7: a split queue holds at most 32768 descriptors; so does the longest chain. */
export const QUEUE_SIZE_MAX = 32768;
/** Segments of one chain: one a descriptor, and a few more where a buffer crosses two regions of its domain. */
export const SEGMENTS_MAX = 32832;
export const SEGMENT_STRIDE = 8;

// Limits -----------------------------------------------------------------------------------------------------------

/** A frame without FCS; the longest that a 64 KiB virtio buffer could carry. */
export const FRAME_BYTES_MAX = 65536;
/** One that is to be cut: the longest IP packet behind an Ethernet header and two tags. */
export const GSO_FRAME_BYTES_MAX = 65557;
/** As a receiver gets it: with the tag that the PF puts in. */
export const FRAME_OUT_BYTES_MAX = GSO_FRAME_BYTES_MAX + 4;
export const FRAME_BYTES_MIN = 14;
/** How much of a frame is copied before it is looked at: enough for tags, an IPv6 header and ports. */
export const HEAD_BYTES_MAX = 96;
/** Receive buffers that one frame may fill (mergeable), and descriptors it may take to find room for one frame. */
export const RX_CHAINS_MAX = 256;
export const RX_WALK_MAX = 1024;
