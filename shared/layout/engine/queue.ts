/** A queue in the arena, as the engine sees it, and why it may have stopped. */

// Queue (320 bytes; the first two lines are what every burst reads) ---------------------------------------------

export const Q_STATE = 0;
export const Q_SIZE = 4;
/** Split: table, avail ring, used ring. Packed: ring, driver's and device's event area. Advanced: ring. */
export const Q_DESC = 8;
export const Q_AVAIL = 12;
export const Q_USED = 16;
/** u32: where the engine goes on: a free-running index (split), or a slot (the others). */
export const Q_LAST_AVAIL = 20;
/** u32: where the next used element goes, likewise; the driver sees it after `publish`. */
export const Q_USED_IDX = 24;
export const Q_FLAGS = 28;
export const Q_HDR_BYTES = 32;
/** u32: FLAVOUR_*. */
export const Q_FLAVOUR = 36;
/** The two regions that translated last: {iova u64, size u64, window u32} each. */
export const Q_REGION_IOVA = 40;
export const Q_REGION_SIZE = 48;
export const Q_REGION_WINDOW = 56;
export const Q_POOL = 60;
/**
 * u32: where the queue was when its driver was last interrupted, or last wanted no interrupt: a used index, or an advanced
 * ring's head.
 */
export const Q_SIGNALLED = 64;
/** u32: frames that wait to be published; 0: nothing does. */
export const Q_DIRTY = 68;
/** f64, ns: when something was last published. */
export const Q_PUBLISHED_NS = 72;
export const Q_REGION2_IOVA = 80;
export const Q_REGION2_SIZE = 88;
export const Q_REGION2_WINDOW = 96;
/** u32, packed: wrap counters, WRAP_* bits. */
export const Q_WRAP = 100;
/** Packed: the burst's first used element, written last {len u32, id u16, flags u16}, and its slot. */
export const Q_FIRST_USED = 104;
export const Q_FIRST_SLOT = 112;
/** u32: the group of the running batch that is for this queue (arena offset), 0 for none. */
export const Q_GROUP = 116;
/**
 * u32, of a queue that sends, which has no group, in the same place: the last pass in which it waited for the uplink's line;
 * 0: it is not in HELD_LIST.
 */
export const Q_HELD_PASS = 116;
/** u64: frames put in, or given back, since the queue started. */
export const Q_FRAMES = 120;
export const Q_CALL_PENDING = 128;
export const Q_ERROR = 132;
/** u64: what was wrong: a descriptor's index, or an address. */
export const Q_ERROR_DETAIL = 136;
/** IOVAs of the rings, so that they can be found again when the memory table changes. */
export const Q_DESC_IOVA = 144;
export const Q_AVAIL_IOVA = 152;
export const Q_USED_IOVA = 160;
export const Q_KICK_FD = 168;
/** u32: kicks in a row that found nothing to do. */
export const Q_IDLE_KICKS = 172;
/** Advanced: the queue's registers (arena offset); sizes of its receive buffers (SRRCTL); header bytes 0: no split. */
export const Q_REGISTERS = 176;
export const Q_PACKET_BYTES = 180;
export const Q_HEADER_BYTES = 184;
/**
 * u32: the driver's transmit ring that takes a queue's frames (arena offset), or the queue itself for a driver's receive
 * ring; 0: its frames go through the switch.
 */
export const Q_CARRY_TO = 188;
/** Driver pairs: the buffers of the ring's descriptors (arena offset), and their IOVA at the other end. */
export const Q_BUFFERS = 192;
/** u32: the direct path's state (engine/direct.ts), of both halves of a pair and of its guest's transmit queues; or 0. */
export const Q_DIRECT = 196;
export const Q_BUFFERS_IOVA = 200;
/**
 * Virtqueues, which have no buffers of their own, in the same places: the queue's part of the front-end's inflight memory
 * (arena offset), in which its position is kept, or 0; and its IOVA.
 */
export const Q_INFLIGHT = 192;
export const Q_INFLIGHT_IOVA = 200;
/** u32: a hold ring's buffers that have been handed on. */
export const Q_RELEASED = 208;
/** u32: frames that the queue's next batch may have, where the one before cost its whole share; 0: as many as there are. */
export const Q_BATCH_MOST = 212;
/** f64, ns: when the queue last had work. */
export const Q_WORKED_NS = 216;
/** u32: HEAT_HOT: polled; HEAT_COLD: its driver was asked for a kick, nobody looks before that; HEAT_NONE: not active. */
export const Q_HEAT = 224;

/** u32: how the call descriptor is raised, CALL_EVENTFD or CALL_SOCKET. */
export const Q_CALL_KIND = 228;
/** The queue's quarantine (shared/engine/quarantine.ts): u32 length of the last one, u32 offences, f64 when it ends. */
export const Q_QUARANTINE_MS = 232;
export const Q_OFFENCES = 236;
export const Q_QUARANTINE_END_NS = 240;
/** u32: the virtqueue's number: 2k receives, 2k+1 transmits (virtio 1.x §5.1.2). */
export const Q_INDEX = 248;
export const Q_CALL_FD = 252;

// Interrupts (queue/coalesce.ts)
/** u64: interrupts raised, and those that the driver wanted and got as part of another one. */
export const Q_CALLS = 256;
export const Q_CALLS_SAVED = 264;
/** u64: Q_FRAMES when the last interrupt was raised, and f64, ns: when that was. */
export const Q_CALLED_FRAMES = 272;
export const Q_CALLED_NS = 280;
/** f64, ns: when the deferred interrupt is raised at the latest, 0 for none. */
export const Q_DEFERRED_UNTIL_NS = 288;
/** u32: Q_FRAMES, its low half, before the first frames that it stands for, and how many these were. */
export const Q_DEFERRED_FRAMES = 296;
export const Q_DEFERRED_FIRST = 300;
/** f32, ns: time between two frames, lately. */
export const Q_GAP_NS = 304;
/** u32: where the queue is in DEFERRED_LIST, while it is. */
export const Q_DEFERRED_AT = 308;
/** u16: interrupts that are not deferred, since waiting brought nothing; how many of them there were the last time. */
export const Q_PROMPT = 312;
export const Q_PROMPT_LAST = 314;
/** u16: OFFLOAD_F_* that a transmit queue's driver may ask for, or that a receive queue's accepts. */
export const Q_OFFLOADS = 316;
/** u16: segments of the queue's first frame that its receiver has got already, where a receiver is waited for. */
export const Q_SEGMENTS_DONE = 318;

export const OFFLOAD_F_CSUM = 1;
export const OFFLOAD_F_TSO4 = 2;
export const OFFLOAD_F_TSO6 = 4;
export const OFFLOAD_F_ECN = 8;
export const OFFLOAD_F_USO4 = 16;
export const OFFLOAD_F_USO6 = 32;
/** Its driver is believed when it says that a checksum has been verified. */
export const OFFLOAD_F_VALID = 64;
/** Everything: what the NIC's own rings and driver pairs take and give. */
export const OFFLOADS_ALL = 127;

export const CALL_EVENTFD = 0;
export const CALL_SOCKET = 1;

export const WRAP_AVAIL = 1;
export const WRAP_USED = 2;
export const WRAP_SIGNALLED = 4;

export const HEAT_NONE = 0;
export const HEAT_HOT = 1;
export const HEAT_COLD = 2;

export const FLAVOUR_SPLIT = 0;
export const FLAVOUR_ADVANCED = 1;
/** The driver's side of an advanced pair: its transmit ring, and its receive ring. */
export const FLAVOUR_DRIVER_TX = 2;
export const FLAVOUR_DRIVER_RX = 3;
/** A packed virtqueue: Q_DESC is the ring, Q_AVAIL the driver's event suppression area, Q_USED the device's. */
export const FLAVOUR_PACKED = 4;
/** A driver pair's descriptors each have a buffer of this size. */
export const DRIVER_BUFFER_BYTES = 2048;
/** A buffer of a hold, or of a packet buffer. */
export const HOLD_BUFFER_BYTES = 512;

export const QUEUE_STOPPED = 0;
export const QUEUE_RUNNING = 1;
export const QUEUE_ERROR = 2;

export const QUEUE_F_EVENT_IDX = 1;
export const QUEUE_F_INDIRECT = 2;
export const QUEUE_F_MRG_RXBUF = 4;
export const QUEUE_F_IN_ORDER = 8;
/** A packed queue without a register page: its position is kept in its device area, where the driver does not look. */
export const QUEUE_F_KEEP_POSITION = 32;
/** The queue's driver is another engine, which interrupts its guest by its own rules: nothing is deferred for it. */
export const QUEUE_F_UNDEFERRED = 128;
/** The NIC's own ring of a pool that is held: what it takes is not yet delivered. */
export const QUEUE_F_HOLD = 16;
/** Of an advanced queue: its buffers are those of a guest whose rings its driver serves (advanced.ts). */
export const QUEUE_F_DIRECT = 64;
/** What is written for the queue is noted in its pool's dirty log (queue/dirty_log.ts). */
export const QUEUE_F_LOG = 256;

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
export const LOG_TOO_SMALL = 14;
export const LOG_GONE = 15;
