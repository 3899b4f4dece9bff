/**
 * The memory of a netdev port: the driver of a NIC pool's queue pair, with a file of the kernel behind it. Plain
 * literals: the Wasm module and its TypeScript side both read this file.
 *
 *      0x000_0000  nothing
 *      0x001_0000  control     64 KiB  configuration, the module's own state, counters, lists
 *      0x002_0000  I/O ring    64 KiB  io_uring's submission and completion rings, or the worker's own in its place
 *      0x003_0000  entries     64 KiB  submission entries
 *      0x004_0000  messages   192 KiB  a msghdr with its vectors and control data for each buffer (packet sockets)
 *      0x008_0000  XDP rings  256 KiB  an AF_XDP socket's four rings, mapped
 *      0x010_0000  virtqueues  64 KiB  ┐
 *      0x011_0000  rx buffers  17 MiB  │ a memory file: all that the NIC sees. IOVAs are offsets in this memory.
 *      0x121_0000  tx buffers  17 MiB  ┘
 *
 * With an AF_XDP socket, its packet memory (UMEM) is in the place of the buffers: chunks of 4 KiB, one for each receive
 * descriptor, and behind them those that the kernel fills.
 */

export const ND_MEMORY_BYTES = 0x2310000;

export const ND_CONTROL = 0x10000;
export const ND_IO_RING = 0x20000;
export const ND_IO_ENTRIES = 0x30000;
export const ND_MESSAGES = 0x40000;
export const ND_SHARED = 0x100000;
export const ND_SHARED_BYTES = ND_MEMORY_BYTES - ND_SHARED;

/**
 * Descriptors of each virtqueue; descriptor n has buffer n. Of AF_XDP's smaller buffers there are more: the kernel keeps
 * one until somebody at the other end has looked at the frame.
 */
export const ND_QUEUE_SIZE = 256;
export const ND_XDP_QUEUE_SIZE = 1024;

// Split virtqueues (virtio 1.2 §2.7), receive (from the NIC) and transmit (to it): table, avail ring, used ring.
export const ND_RX_DESC = 0x100000;
export const ND_RX_AVAIL = 0x104000;
export const ND_RX_USED = 0x105000;
export const ND_TX_DESC = 0x108000;
export const ND_TX_AVAIL = 0x10c000;
export const ND_TX_USED = 0x10d000;

/**
 * A buffer has room for the virtio-net header and a frame of 64 KiB with a tag. The header begins so far into it that
 * the frame begins a cache line, and that a tag can be put in before the frame.
 */
export const ND_RX_BUFFERS = 0x110000;
export const ND_TX_BUFFERS = 0x1210000;
export const ND_BUFFER_STRIDE = 0x11000;
export const ND_BUFFER_OFFSET = 52;
export const ND_BUFFER_ROOM = ND_BUFFER_STRIDE - ND_BUFFER_OFFSET;

// AF_XDP: rings {fill, completion, receive, transmit}, each with room of 64 KiB; chunks of the packet memory.
export const ND_XDP_RINGS = 0x80000;
export const ND_XDP_RING_STRIDE = 0x10000;
export const ND_XDP_FILL_SIZE = 2048;
export const ND_XDP_SEND_SIZE = ND_XDP_QUEUE_SIZE;
export const ND_CHUNK_BYTES = 4096;
export const ND_UMEM = ND_RX_BUFFERS;
export const ND_UMEM_BYTES = (ND_XDP_QUEUE_SIZE + ND_XDP_FILL_SIZE) * ND_CHUNK_BYTES;

// Control, offsets from ND_CONTROL ----------------------------------------------------------------------------------

// Configuration, written before `start`.
/** u64: native address of byte 0 of this memory. */
export const NC_BASE = 0;
/** u32: the file that is read and written, or its index among the registered ones (NC_ENTRY_FLAGS says which). */
export const NC_FILE = 8;
/** u32: flags of each submission entry. */
export const NC_ENTRY_FLAGS = 12;
/** u32: io_uring opcodes that read and write a frame, and their flags. */
export const NC_READ_OP = 16;
export const NC_WRITE_OP = 20;
export const NC_OP_FLAGS = 24;
/** u32: 1: frames are messages of a packet socket. */
export const NC_IS_PACKET = 28;
/** u32: where in this memory the I/O rings' indices are, their masks, and the completions. */
export const NC_SQ_HEAD = 32;
export const NC_SQ_TAIL = 36;
export const NC_SQ_MASK = 40;
export const NC_CQ_HEAD = 44;
export const NC_CQ_TAIL = 48;
export const NC_CQ_MASK = 52;
export const NC_CQ_ENTRIES = 56;
/** u32: how far receive buffers are apart. */
export const NC_RX_STRIDE = 60;
/** u32: descriptors of each virtqueue, a power of two. */
export const NC_QUEUE_SIZE = 184;
/** AF_XDP: for each ring, in the order above, {producer, consumer, flags, entries}: where in this memory they are. */
export const NC_XDP_RINGS = 64;
export const NC_XDP_RING_STRIDE = 16;

// The module's own state, u32 each.
/** Receive: the next used element to look at; the next place of the avail ring. */
export const NS_RX_USED = 128;
export const NS_RX_AVAIL = 132;
export const NS_TX_USED = 136;
export const NS_TX_AVAIL = 140;
/** The transmit avail index when the NIC was last asked whether it wants a kick. */
export const NS_TX_KICKED = 144;
/** The receive avail index when the NIC was last asked the same. */
export const NS_RX_KICKED = 188;
/** Transmit descriptors that nobody has: a ring of their numbers, those ever put in, those ever taken out. */
export const NS_FREE_IN = 148;
export const NS_FREE_OUT = 152;
/** Submitted and not completed. */
export const NS_IN_FLIGHT = 156;
/** How many reads the next round asks for; 0: there was nothing to read. How many brought something last time. */
export const NS_READS = 160;
export const NS_READS_GUESS = 180;
/** FAULT_*, and the errno that it came with. */
export const NS_FAULT = 164;
export const NS_ERRNO = 168;
/** The control thread's word for the worker: REQUEST_*. */
export const NS_REQUEST = 172;
/** i32: the worker's io_uring, so that it can be closed if the worker dies; 0: none. */
export const NS_RING_FD = 176;

/** 0, as in memory that is new: read nothing yet. */
export const REQUEST_RUN = 1;
/** Read no more, and say when everything that was read has been taken by the NIC. */
export const REQUEST_QUIET = 2;
/** Write what the NIC has handed over, and end. */
export const REQUEST_END = 3;

/** Counters, u64 each, in the order of their names in shared/netdev/counters.ts. */
export const ND_COUNTERS = 0x10400;
export const NCO_IN_FRAMES = 0;
export const NCO_IN_BYTES = 8;
export const NCO_OUT_FRAMES = 16;
export const NCO_OUT_BYTES = 24;
export const NCO_IN_CUT_OFF = 32;
export const NCO_IN_RUNT = 40;
export const NCO_IN_ERRORS = 48;
export const NCO_OUT_RUNT = 56;
export const NCO_OUT_BUSY = 64;
export const NCO_OUT_DOWN = 72;
export const NCO_OUT_TOO_LONG = 80;
export const NCO_OUT_REFUSED = 88;
export const NCO_CALLS = 96;
export const NCO_SLEEPS = 104;
export const NCO_KICKS = 112;

/**
 * Ring of free transmit descriptors, u16 each; what becomes of each receive descriptor, a byte each; the chunk that a
 * transmit descriptor stands for, u32 each (AF_XDP).
 */
export const ND_FREE_LIST = 0x11000;
export const ND_RX_STATES = 0x12000;
export const ND_TX_CHUNKS = 0x13000;

// io_uring (linux/io_uring.h): entries of both rings -----------------------------------------------------------------

export const ND_IO_ENTRY_COUNT = 256;
export const SQE_BYTES = 64;
/** The first eight bytes are {opcode u8, flags u8, priority u16, file u32}. */
export const SQE_OFFSET = 8;
export const SQE_ADDRESS = 16;
/** u32, and behind it u32: flags of the operation. */
export const SQE_LENGTH = 24;
export const SQE_USER_DATA = 32;
export const CQE_BYTES = 16;
export const CQE_RESULT = 8;

/** What a submission is, in the upper half of its user data; the buffer's number is in the lower one. */
export const DID_READ = 0;
export const DID_WRITE = 0x10000;

// A packet socket's message, for each buffer -------------------------------------------------------------------------

/** {struct msghdr 56 bytes, two struct iovec 32 bytes, control data}. */
export const MESSAGE_STRIDE = 192;
export const MESSAGE_VECTORS = 64;
export const MESSAGE_CONTROL = 96;
export const MESSAGE_CONTROL_BYTES = 96;
export const MSGHDR_BYTES = 56;
export const MSGHDR_VECTORS = 16;
export const MSGHDR_VECTOR_COUNT = 24;
export const MSGHDR_CONTROL = 32;
export const MSGHDR_CONTROL_BYTES = 40;
export const MSGHDR_FLAGS = 48;

// What a round answers, bits ----------------------------------------------------------------------------------------

/** Frames moved. */
export const STATUS_WORK = 1;
/** The NIC wants a kick. */
export const STATUS_KICK = 2;
/** The port cannot go on: NS_FAULT says why. */
export const STATUS_FAULT = 4;
/** AF_XDP: the kernel is to be told of frames to send. */
export const STATUS_SEND = 8;
/** The NIC wants to be told of receive buffers: there is room again. */
export const STATUS_ROOM = 16;

export const FAULT_NONE = 0;
/** The NIC has used a descriptor that it did not have, or written more than there was room for. */
export const FAULT_DEVICE = 1;
/** The file behind the port is gone. */
export const FAULT_FILE_GONE = 2;
