/**
 * The direct path's state: emulated mode in which the NIC reads and writes the guest's own buffers. It lies in a driver
 * pair's window, behind the memory that the NIC sees too. For each slot of the pair's rings there is a *book*: what the
 * engine has to give back to the guest when the NIC is done with the slot. The NIC completes in order, so does the guest's
 * ring.
 *
 *      transmit ring     … sent and given back | SENT: the NIC's, or done and not looked at | tail: free …
 *      receive ring      … given back | next: slots with a guest's buffer | OFFERED: slots with a host buffer only …
 *
 * Each receive slot has a host buffer, always. When the guest has a buffer for it, its address goes into the descriptor,
 * with the MARK. If the NIC was quicker the frame is in the host buffer, and is copied to where the book says.
 */

/** u32: HALT_*: nothing more is sent, or offered: what is outstanding is being taken back. */
export const DIRECT_HALT = 0;
/** u32: the transmit slot whose completion is looked for next. */
export const DIRECT_SENT = 4;
/** u32: the receive slot that gets the guest's next buffer. */
export const DIRECT_OFFERED = 8;
/** u32: the guest's receive queue (arena offset) whose buffers are offered; 0: none are. */
export const DIRECT_RX_QUEUE = 12;
/** u32: the position of that queue whose buffer cannot be offered, + 1; 0: none. */
export const DIRECT_STUCK = 16;
/** u64: frames without a copy in this engine, and with one, each way. */
export const DIRECT_TX_FRAMES = 24;
export const DIRECT_TX_COPIED = 32;
export const DIRECT_RX_FRAMES = 40;
export const DIRECT_RX_COPIED = 48;
/** Books of transmit slots: {guest's queue u32, 0: none, id u32, places of its ring u32}, in a frame's last slot. */
export const DIRECT_TX_BOOKS = 0x1000;
/** Books of receive slots: {buffer u32, 0: none, bytes u32, id u32, places u32}. */
export const DIRECT_RX_BOOKS = 0x5000;
export const DIRECT_BOOK_BYTES = 16;
export const DIRECT_STATE_BYTES = 0x9000;

/**
 * What a host buffer takes of a frame, virtio-net header included: as much as the buffer of a driver that wants frames of
 * 1500 bytes with a tag. So the frame of any host buffer fits the guest's buffer of the same slot.
 */
export const DIRECT_HOST_BYTES = 1530;
/** Behind it: the slot's header buffer, and its size. */
export const DIRECT_HEADER_AT = 1536;
export const DIRECT_HEADER_BYTES = 256;

// Bits of DIRECT_HALT
export const HALT_TX = 1;
export const HALT_RX = 2;
