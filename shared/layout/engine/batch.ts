/** The running batch: frame records, deliveries, groups. Scratch memory of one worker. */

// Scratch: the running batch -----------------------------------------------------------------------------------------

export const TX_SEGMENTS = 0x900000;
export const RX_SEGMENTS = 0x980000;
/** Receive queues to publish, u32 pointers. */
export const DIRTY_LIST = 0xa00000;
/** What the batch is doing: B_*. */
export const BATCH = 0xa0f000;
/** A copied head of a frame, virtio-net header included. */
export const FRAME_HEAD = 0xa10000;
/** A frame's virtio-net header as the receiver gets it. */
export const OUT_VIRTIO_HDR = 0xa10120;
/** The copied head of a frame whose headers go into a buffer of their own. */
export const SPLIT_HEAD = 0xa10140;
export const SPLIT_HEAD_BYTES = 160;
/** A list of one segment, for a frame that lies in one piece. */
export const ONE_SEGMENT = 0xa101e0;
/** A decision that is not to be remembered. */
export const ONE_DECISION = 0xa101f0;
/** A frame that the engine sends of its own accord, FRAME_BYTES_LEAST long. */
export const ANNOUNCEMENT = 0xa10240;
export const FRAME_BYTES_LEAST = 60;
/** Chains that one frame fills: {head u32, bytes u32, descriptors u32}. */
export const RX_CHAINS = 0xa10280;
/** A frame's head as the receiver gets it: HEAD_COPY_BYTES_MAX and a tag. */
export const OUT_HEAD = 0xa10f00;
/** Copies of heads that were looked into, one for each record, four times as far from each other; O_* lie behind each. */
export const HEAD_COPIES = 0xa26000;
export const HEAD_COPY_STRIDE = 256;
/** Bytes of a head that is looked into: a tag, and behind it IPv6 with the target of a neighbour's advertisement. */
export const HEAD_COPY_BYTES = 96;
/** Of one whose checksum or segments the engine may have to finish: all headers up to the payload. */
export const HEAD_COPY_BYTES_MAX = 216;
/** The pieces of one segment of a frame that is cut: its headers, and where its payload lies. */
export const SEGMENT_PIECES = 0xa40000;
/** u32: the pools whose packet buffers hold frames. */
export const BUFFERED_LIST = 0xa4a000;
/** Pieces that a frame may have which is cut, and segments that it may be cut into. */
export const GSO_PIECES_MAX = 4096;
export const GSO_SEGMENTS_MAX = 2048;
/** Segments of a frame for many. */
export const FLOOD_SEGMENTS_MAX = 128;
/** Used descriptors of packed rings that are written when they are published: {arena offset u32, pad, element u64}. */
export const STAGED = 0xa1e000;
export const STAGED_COUNT = 2048;
export const STAGED_STRIDE = 16;
/** Frame records, 64 bytes each. */
export const RECORDS = 0xa12000;
/** Deliveries beside those that lie in the records themselves: a flooded frame has one for each receiver. */
export const DELIVERIES = 0xa18000;
/** Deliveries of a mirror's copies. */
export const MIRROR_DELIVERIES = 0xd43000;
export const MIRROR_DELIVERY_COUNT = 64;
/** Groups: the deliveries of one receive queue. */
export const GROUPS = 0xa1c000;

export const BATCH_FRAMES = 256;
export const RECORD_STRIDE = 64;
export const DELIVERY_COUNT = 1024;
export const DELIVERY_STRIDE = 16;
export const GROUP_COUNT = 256;
export const GROUP_STRIDE = 16;

// A frame's record: checked copies of what its owner could change.
// Bytes 0–15 are the frame's first ones.
/** u32: where the frame lies, if R_SEGMENTS is 1; otherwise its list of segments. */
export const R_DATA = 16;
export const R_LENGTH = 20;
/** u16: segments; then u16: RECORD_F_*. */
export const R_SEGMENTS = 24;
export const R_FLAGS = 26;
/** u32: the counter (C_*) of what is wrong with the frame whatever its addresses, 0 for nothing. */
export const R_DROP = 28;
/** u32: descriptors of the ring that the frame takes; not filled in for a split ring, where each takes one head. */
export const R_DESCRIPTORS = 32;
/** u32, advanced: how many of these, the first ones, are context descriptors. */
export const R_CONTEXTS = 36;
/** u32: what is given back: a split ring's head, a packed buffer id. */
export const R_ID = 40;
/** u64, advanced, in the same place: the descriptors whose driver wants a report, a bit each. */
export const R_REPORT = 40;
/** The frame's own delivery. */
export const R_DELIVERY = 48;

/** The frame lies in one piece, is not tiny, and nothing is wrong with it. */
export const RECORD_F_PLAIN = 1;
/** Plain or whole, and its first 16 bytes are those of the record before. */
export const RECORD_F_SAME = 2;
/** Not plain: its head was looked into, and goes on from its copy in HEAD_COPIES. */
export const RECORD_F_COPIED = 4;
/** Not plain: its sender left something to be finished, or says that its checksum is right: O_*. */
export const RECORD_F_OFFLOAD = 8;
/** As plain, but that its head goes on from its copy, and that a checksum may be left to be finished. */
export const RECORD_F_WHOLE = 16;

// What a frame's sender left to be finished, at the end of the record's place in HEAD_COPIES.
/** The virtio-net header, checked, without num_buffers. */
export const O_HEADER = 216;
/** u32: OFFLOAD_F_* that a receiver has to accept to get the frame as it is. */
export const O_NEEDS = 228;
/** u32: bytes of the head's copy, with RECORD_F_COPIED. */
export const O_COPIED = 232;
/** u16: where the IP header begins, and the payload behind the transport header. Only of a frame to be cut. */
export const O_NETWORK = 236;
export const O_PAYLOAD = 238;
/** u32: segments that the frame is cut into, and how many of them have been delivered. */
export const O_SEGMENTS = 240;
export const O_DONE = 244;

// A delivery (16 bytes): the first record, the next delivery of the group; u16 HEAD_*, u16 how many records, one after
// the other, are delivered alike; the tag that is put in.
export const N_RECORD = 0;
export const N_NEXT = 4;
export const N_HEAD = 8;
export const N_COUNT = 10;
export const N_TAG = 12;

// A group (16 bytes): receive queue, first and last delivery.
export const G_QUEUE = 0;
export const G_FIRST = 4;
export const G_LAST = 8;

// The batch
/** u32: units spent; of them on the receive side of the group in hand, and of the groups before it in this visit. */
export const B_UNITS = 0;
export const B_RECEIVE_UNITS = 4;
export const B_RECEIVE_SPENT = 28;
/** u32: segments in TX_SEGMENTS, groups, deliveries in use, entries of DIRTY_LIST. */
export const B_SEGMENTS = 8;
export const B_GROUPS = 12;
export const B_DELIVERIES = 16;
export const B_DIRTY = 20;
/** u32: bytes of the frames that were gathered. */
export const B_BYTES = 24;
/** What scatter did with a group: frames and bytes delivered, and frames that were not, by reason. */
export const B_DELIVERED = 104;
export const B_DELIVERED_BYTES = 108;
export const B_NO_BUFFER = 112;
export const B_TOO_SMALL = 116;
export const B_QUEUE_ERROR = 120;
export const B_MULTICAST = 124;
export const B_BROADCAST = 128;
/** u32: frames of the group that are done with, beside those of the common kind. */
export const B_DONE = 132;
/** u32: frames that were dropped because the receiver's chains take too long to walk. */
export const B_TOO_DEAR = 136;
/** u32: the counter that tells why the last scatter waits. */
export const B_WAITS_FOR = 144;
/** u32: written for the order of things alone. */
export const B_FENCE = 148;
/** u32: entries of STAGED. */
export const B_STAGED = 140;
/** u64: what was wrong: a descriptor's index, or an address. */
export const B_BAD_DETAIL = 56;
/** What the last walk of a chain found: u64 bytes, u32 descriptors, u32 segments of the list, u32 its buffer id. */
export const B_CHAIN_BYTES = 64;
export const B_CHAIN_DESCRIPTORS = 72;
export const B_CHAIN_SEGMENTS = 76;
export const B_CHAIN_ID = 80;
/** u32: bytes behind the address that `translate` found without a gap. */
export const B_CONTIGUOUS = 84;
/** u32: chains reserved for one frame. */
export const B_CHAINS = 88;
/** u32: descriptors that the last walk of a chain looked at, those of a table included. */
export const B_CHAIN_WALKED = 92;
/** u64: the sum of what was read ahead, so that no compiler leaves the reading out. */
export const B_READ_AHEAD = 96;

// How far a batch is, for whoever takes over from an engine that died in the middle of it (queue/adopt.ts).
/** u32: 1: all that the batch does is in its queues' own state, and is being made visible to the other sides. */
export const B_COMMIT = 152;
/** u32: the packet buffer (arena offset) that the batch is handed on from, 0: none; and what Q_RELEASED is behind it. */
export const B_COMMIT_BUFFER = 156;
export const B_COMMIT_RELEASED = 160;
/** u32: the advanced queue (arena offset) whose descriptors are being written back: they are visible one by one. */
export const B_WRITING = 164;
