/**
 * The RAM of the project's own guest, a virtual machine in miniature. It is a memory file that is mapped as the memory
 * of its Wasm; a guest physical address is an offset in it. Plain literals: TypeScript and AssemblyScript read this file.
 *
 *      0x000_0000  nothing
 *      0x001_0000  control          64 KiB  configuration, counters
 *      0x002_0000  ARP table        256 entries of 32 bytes
 *      0x002_4000  pings            8 of 16 KiB
 *      0x004_8000  generators       16 of 256 bytes
 *      0x006_0000  buffer owners    4096 bytes, then the stack of free ones
 *      0x006_5000  posted           1 KiB   which buffers are being given to the data path: the shell's own copy
 *      0x007_0000  flows            48 of 12 KiB
 *      0x010_0000  capture ring      1 MiB
 *      0x020_0000  virtio           state, exchange and rings of the shell's own data path
 *      0x040_0000  plugin           the same of the injected plugin
 *      0x060_0000  image slot        1 MiB  where the hypervisor puts a plugin's image
 *      0x070_0000  transmit queues  16 rings of 2048 entries of 16 bytes
 *      0x078_0000  scratch          two frames of 64 KiB
 *      0x080_0000  buffers           8 MiB  4096 packet buffers
 *      0x100_0000  user memory
 */

export const GUEST_RAM_BYTES_MIN = 0x1100000;

export const GC = 0x10000;
export const ARP_TABLE = 0x20000;
export const PINGS = 0x24000;
export const GENERATORS = 0x48000;
export const BUFFER_OWNERS = 0x60000;
export const FREE_STACK = 0x61000;
export const POSTED = 0x65000;
export const FLOWS = 0x70000;
export const CAPTURE = 0x100000;
export const CAPTURE_BYTES = 0x100000;
export const VIRTIO_AREA = 0x200000;
export const PLUGIN_AREA = 0x400000;
export const IMAGE_SLOT = 0x600000;
export const IMAGE_SLOT_BYTES = 0x100000;
export const TX_QUEUES = 0x700000;
export const TX_SCRATCH = 0x780000;
export const RX_SCRATCH = 0x7a0000;
/** The longest IP packet, its Ethernet header and tags; and some more. */
export const SCRATCH_BYTES = 0x11000;
export const BUFFERS = 0x800000;
export const USER_MEMORY = 0x1000000;

/** Where the parts of a data path's area lie: a plugin's memory without doorbells and buffers. */
export const AREA_STATE = 0x0;
export const AREA_EXCHANGE = 0x40000;
export const AREA_RINGS = 0x50000;

// Configuration (offsets from GC)
/** u64: the MAC address, first byte lowest. */
export const GC_MAC = 0;
/** u32 each: IPv4 address, netmask and gateway as numbers (10.0.0.1 is 0x0a000001). */
export const GC_IP = 8;
export const GC_MASK = 12;
export const GC_GATEWAY = 16;
export const GC_MTU = 20;
/** u32: VLAN of the guest's own tags, 0 for none. */
export const GC_VLAN = 24;
/** u32: whether the link is up. */
export const GC_LINK = 28;
export const GC_QUEUE_PAIRS = 32;
/** u32: the data path in use: 0 the shell's own (virtio), 1 the injected plugin. */
export const GC_PATH = 36;
/** u32: frames may be handed to the data path (0 while it changes). */
export const GC_RUNNING = 40;
/** i32: counts requests of the control thread. */
export const GC_REQUEST = 44;
/** u32: the worker sleeps, and does not mind. */
export const GC_ASLEEP = 48;
/** u32: whether frames are captured; capture positions, counted in bytes from the beginning. */
export const GC_CAPTURE = 52;
export const GC_CAPTURE_HEAD = 56;
export const GC_CAPTURE_TAIL = 60;
export const GC_CAPTURE_LOST = 64;
export const GC_FREE_COUNT = 80;
/** u32: buffers that each queue pair's receive ring is to have. */
export const GC_RX_WANTED = 84;
/** u32: a MAC or path change wants to be announced. */
export const GC_ANNOUNCE = 104;
/** u32: next IPv4 identification. */
export const GC_IP_ID = 108;
/** f64, ns: the time the worker saw last. */
export const GC_NOW_NS = 112;
/** Two u32 each, for the virtio path and the plugin: OFFLOAD_F_* that it may be asked for, and that it leaves to the host. */
export const GC_TX_OFFLOADS = 120;
export const GC_RX_OFFLOADS = 128;

/** For each queue pair, u32 each: transmit queue's next place to fill and to take from, buffers the data path has. */
export const GC_PAIRS = 1024;
export const PAIR_STRIDE = 32;
export const PAIR_TX_IN = 0;
export const PAIR_TX_OUT = 4;
export const PAIR_TX_HELD = 8;
/** Two of them: buffers that the virtio path has to fill, and the plugin. */
export const PAIR_RX_HELD = 12;

/** u64 each, from GC. */
export const GC_COUNTERS = 256;
export const G_RX_FRAMES = 0;
export const G_RX_BYTES = 8;
export const G_TX_FRAMES = 16;
export const G_TX_BYTES = 24;
export const G_RX_NOT_MINE = 32;
export const G_RX_BAD = 40;
export const G_RX_CHECKSUM = 48;
export const G_TX_NO_BUFFER = 56;
export const G_ARP_REQUESTS = 64;
export const G_ARP_REPLIES = 72;
export const G_ICMP_ECHOES = 80;
export const G_UDP_ECHOES = 88;
export const G_UDP_RX = 96;
/** Plugins that failed, or were ended, while they drove a VF. */
export const G_PLUGIN_FAULTS = 104;
/** Buffers that a data path had to send, and had not reported as sent when it ended. */
export const G_TX_LOST = 112;
/** Frames that left their checksum to the data path; frames of several datagrams, which leave their cutting too. */
export const G_TX_UNSUMMED = 120;
export const G_TX_LARGE = 128;
/** Frames that came without their checksum; frames of several segments. */
export const G_RX_UNSUMMED = 136;
export const G_RX_LARGE = 144;

// ARP entry (32 bytes)
export const ARP_COUNT = 256;
export const ARP_STRIDE = 32;
export const ARP_IP = 0;
export const ARP_STATE = 4;
export const ARP_MAC = 8;
/** f64, ns: when the entry was confirmed, or last asked for. */
export const ARP_AT_NS = 16;
export const ARP_FREE = 0;
export const ARP_ASKED = 1;
export const ARP_KNOWN = 2;

// Ping (16 KiB): results follow at PING_RESULTS, f64 ns each, -1: no answer
export const PING_COUNT = 8;
export const PING_STRIDE = 0x4000;
export const PING_STATE = 0;
export const PING_TO = 4;
export const PING_WANTED = 8;
export const PING_SENT = 12;
export const PING_RECEIVED = 16;
export const PING_BYTES = 20;
export const PING_ID = 24;
export const PING_INTERVAL_NS = 32;
export const PING_TIMEOUT_NS = 40;
export const PING_NEXT_NS = 48;
export const PING_LAST_NS = 56;
export const PING_DUPLICATES = 64;
export const PING_RESULTS = 128;
export const PING_RESULTS_MAX = 1000;
export const PING_SENT_AT = 0x2000;
export const STATE_FREE = 0;
export const STATE_RUNNING = 1;
export const STATE_DONE = 2;

// Generator (256 bytes)
export const GENERATOR_COUNT = 16;
export const GENERATOR_STRIDE = 256;
export const GEN_STATE = 0;
export const GEN_TO = 4;
/** u16 each in u32: ports. */
export const GEN_SOURCE_PORT = 8;
export const GEN_PORT = 12;
/** u32: frame bytes, Ethernet header included. */
export const GEN_BYTES = 16;
export const GEN_FLOW = 20;
/** u64: frames to send (0: until stopped), and sent. */
export const GEN_WANTED = 24;
export const GEN_SENT = 32;
/** f64: frames a nanosecond (0: as fast as it goes); when it began, when it ends (0: never). */
export const GEN_RATE = 40;
export const GEN_BEGAN_NS = 48;
export const GEN_ENDS_NS = 56;
/** f64: ns at which the last frame was sent. */
export const GEN_LAST_NS = 64;
/** u32: frames that may be on their way (0: any number); those that have come back are counted by their flow. */
export const GEN_WINDOW = 72;
/** f64: with a rate, ns before which nothing is sent. */
export const GEN_NEXT_NS = 80;
/** u32: whether frames that are due together go out as one that is to be cut, where the data path takes such. */
export const GEN_SEGMENT = 88;
/** u32: frames of a burst at the most, and of one that is to be cut. */
export const GEN_BURST_MAX = 64;

// Flow (12 KiB): what came in of one generator's frames
export const FLOW_COUNT = 48;
export const FLOW_STRIDE = 0x3000;
export const FLOW_STATE = 0;
export const FLOW_ID = 4;
export const FLOW_FROM = 8;
/** u64 each. */
export const FLOW_RECEIVED = 16;
export const FLOW_BYTES = 24;
export const FLOW_DUPLICATES = 32;
export const FLOW_REORDERED = 40;
export const FLOW_NEXT = 48;
export const FLOW_CORRUPT = 64;
/** f64, ns. */
export const FLOW_FIRST_NS = 72;
export const FLOW_LAST_NS = 80;
export const FLOW_LATENCY_MIN = 88;
export const FLOW_LATENCY_MAX = 96;
export const FLOW_LATENCY_SUM = 104;
export const FLOW_LONGEST_GAP = 112;
/** 8192 bits: which of the last sequence numbers were seen. */
export const FLOW_SEEN = 0x400;
export const FLOW_WINDOW = 8192;
/** u32 × 1024: latencies in buckets, 32 to each power of two of nanoseconds from 2^5 on. */
export const FLOW_HISTOGRAM = 0x1000;
export const HISTOGRAM_BUCKETS = 1024;

/** Payload of a generator's frame: {magic u32, flow u32, sequence u64, sent at f64}. */
export const PROBE_MAGIC = 0x52464e31;
export const PROBE_BYTES = 24;
export const FRAME_BYTES_MIN = 66;
export const UDP_ECHO_PORT = 7;

// A queue pair's transmit queue: what waits to be handed to the data path, in the form of LIST_TX. Of a frame that leaves
// something to be done, the flags of the first entry say above the plugin's own where its transport header begins (u8),
// and the bytes of each segment's payload (u16), 0 if it is not to be cut.
export const TX_QUEUE_ENTRIES = 2048;
export const QUEUED_START_SHIFT = 8;
export const QUEUED_SIZE_SHIFT = 16;
export const TX_QUEUE_STRIDE = 0x8000;

// Buffer owners
export const OWNER_FREE = 0;
export const OWNER_HOST = 1;
export const OWNER_TX = 2;
/** And OWNER_RX + 1: the virtio path's receive buffers stay with it while a plugin has others. */
export const OWNER_RX = 3;

/** Capture record: {bytes u32, flags u32 (1: sent), at f64 ns}, then the frame, padded to 8. */
export const CAPTURE_HEADER_BYTES = 16;
export const CAPTURE_SNAP_BYTES = 2048;
