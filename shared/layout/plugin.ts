/**
 * The memory of a plugin, and what a shell and a plugin say to each other in it (docs/plugin-api.md). It is a Wasm
 * memory of its own: the shell maps into it exactly what is named here, out of the guest's RAM and the VF's register
 * page, and nothing else is there. Plain literals: shell, plugins and TypeScript all read this file.
 *
 *      0x00_0000  nothing
 *      0x01_0000  state        256 KiB  configuration by the shell, rings named by the plugin, the plugin's own state
 *      0x05_0000  exchange      64 KiB  lists of buffers that change hands in a call
 *      0x06_0000  doorbells      4 KiB  the VF's register page
 *      0x07_0000  rings        1600 KiB 50 KiB for each queue
 *      0x20_0000  buffers        8 MiB  4096 packet buffers of 2 KiB
 */

/** What `abi()` answers. A change that old plugins or shells would misread makes it one higher. */
export const PLUGIN_ABI = 1;
export const PLUGIN_MEMORY_BYTES = 0xa00000;

export const PLUGIN_STATE = 0x10000;
export const PLUGIN_STATE_BYTES = 0x40000;
export const PLUGIN_EXCHANGE = 0x50000;
export const PLUGIN_EXCHANGE_BYTES = 0x10000;
export const PLUGIN_DOORBELLS = 0x60000;
export const PLUGIN_DOORBELLS_BYTES = 0x1000;
export const PLUGIN_RINGS = 0x70000;
export const PLUGIN_RINGS_BYTES = 0x190000;
export const PLUGIN_RING_STRIDE = 0xc800;
export const PLUGIN_BUFFERS = 0x200000;
export const PLUGIN_BUFFER_BYTES = 2048;
export const PLUGIN_BUFFER_COUNT = 4096;

export const PLUGIN_QUEUE_PAIRS_MAX = 16;
export const PLUGIN_RING_SIZE_MAX = 1024;

// Configuration, written by the shell before `start` (offsets from PLUGIN_STATE)
export const PC_QUEUE_PAIRS = 0;
/** u32: descriptors of each ring, a power of two; any number if VIRTIO_F_RING_PACKED is among the features. */
export const PC_RING_SIZE = 4;
/** u64: virtio features that were negotiated, but for those that a plugin has to accept (PC_ACCEPTED). */
export const PC_FEATURES = 8;
/** u64: how the device addresses the first byte of the rings, and of the buffers. */
export const PC_RINGS_IOVA = 16;
export const PC_BUFFERS_IOVA = 24;
/** u32: bytes of header buffers if frames are to be split, 0 if not. */
export const PC_HEADER_BYTES = 32;
/**
 * u64, written by the plugin in `start`: which of VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER and the offloads it takes up,
 * out of those in PC_FEATURES. A plugin that writes nothing has split rings without IN_ORDER, and finished frames.
 */
export const PC_ACCEPTED = 40;

// Rings, named by the plugin in `start`: 32 bytes for each queue {desc u64, avail u64, used u64, size u32}
export const PLUGIN_QUEUES = 0x10100;
export const PLUGIN_QUEUE_STRIDE = 32;
export const PQ_DESC = 0;
export const PQ_AVAIL = 8;
export const PQ_USED = 16;
export const PQ_SIZE = 24;

/** From here to the end of its state a plugin keeps what it likes. */
export const PLUGIN_PRIVATE = 0x10800;

// Exchange lists. A buffer is named by its number.
/** To the device, `tx`: {buffer u32, offset u32, length u32, flags u32}. */
export const LIST_TX = 0x50000;
/** Back from the device, `txDone`: {buffer u32}. */
export const LIST_DONE = 0x52000;
/** For the device to fill, `post`: {buffer u32}. */
export const LIST_POST = 0x54000;
/** Filled, `rx`: {buffer u32, offset u32, length u32, flags u32}. */
export const LIST_RX = 0x56000;
export const LIST_MAX = 256;
/** What a plugin names in LIST_DONE or LIST_RX when its device breaks the protocol: the shell then ends it. */
export const NO_BUFFER = 0xffffffff;
export const ENTRY_BYTES = 16;
export const ENTRY_BUFFER = 0;
export const ENTRY_OFFSET = 4;
export const ENTRY_LENGTH = 8;
export const ENTRY_FLAGS = 12;
/** The entry is a frame's last. */
export const ENTRY_EOP = 1;
/**
 * Of a frame's first entry: the 12 bytes before it are a virtio-net header (VIRTIO 1.2 §5.1.6), which says what the frame's
 * sender has left to be done. To the device: only what the plugin has accepted; the entry has all of the frame's headers,
 * and hdr_len is their length. From the device: only if the plugin has accepted GUEST_CSUM.
 */
export const ENTRY_NET_HDR = 2;
/** Of a received frame's first entry, with GUEST_CSUM: its checksum has been looked at, and is good. */
export const ENTRY_CSUM_VALID = 4;
/** A frame to be sent begins at least so far into its first buffer; a plugin may use what is before it. */
export const TX_HEADROOM = 64;
