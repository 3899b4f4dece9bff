/**
 * The driver's side of the port's two split virtqueues (virtio 1.2 §2.7), with EVENT_IDX. Descriptor n always has buffer
 * n, so there are no books of buffers: a receive descriptor is with the NIC or in a write, a transmit descriptor is with
 * the NIC, in a read, or in the ring of free ones.
 */
import * as N from "../../shared/layout/netdev.ts";
import * as V from "../../shared/layout/virtio.ts";
import { fail, get, set } from "./state.ts";

/** What `takeReceived` answers if there is nothing; no descriptor has that number. */
export const NONE: u32 = 0xffffffff;

const WITH_NIC: u32 = 0;
const WITH_PORT: u32 = 1;

@inline
function queueSize(): u32 {
  return get(N.NC_QUEUE_SIZE);
}

@inline
function mask(): u32 {
  return queueSize() - 1;
}

@inline
export function rxBuffer(id: u32): usize {
  return N.ND_RX_BUFFERS + id * get(N.NC_RX_STRIDE) + N.ND_BUFFER_OFFSET;
}

@inline
export function txBuffer(id: u32): usize {
  return N.ND_TX_BUFFERS + id * N.ND_BUFFER_STRIDE + N.ND_BUFFER_OFFSET;
}

/** Room in a receive buffer, the header included. */
@inline
function rxRoom(): u32 {
  return get(N.NC_RX_STRIDE) - N.ND_BUFFER_OFFSET;
}

/** Lays both rings out: the NIC gets every receive buffer, and every transmit descriptor is free. */
export function layOutQueues(): void {
  memory.fill(N.ND_RX_DESC, 0, N.ND_RX_BUFFERS - N.ND_RX_DESC);
  for (let id: u32 = 0; id < queueSize(); id++) freeTransmit(id);
  for (let id: u32 = 0; id < queueSize(); id++) {
    const descriptor: usize = N.ND_RX_DESC + id * V.VIRTQ_DESC_BYTES;
    store<u64>(descriptor, rxBuffer(id));
    store<u64>(descriptor, <u64> rxRoom() | (<u64> V.VIRTQ_DESC_F_WRITE << 32), 8);
    store<u8>(N.ND_RX_STATES + id, <u8> WITH_PORT);
    giveBackReceived(id);
  }
  publishReceive();
  leaveAlone();
}

// Frames from the NIC ------------------------------------------------------------------------------------------------

@inline
function rxUsedIdx(): u32 {
  return atomic.load<u16>(N.ND_RX_USED + V.VIRTQ_USED_IDX);
}

/** How many frames the NIC has handed over that nobody has taken. */
@inline
export function received(): u32 {
  return (rxUsedIdx() - get(N.NS_RX_USED)) & 0xffff;
}

/** Takes the next frame: its descriptor, and its length with the header << 32. The port fails if it cannot be. */
export function takeReceived(): u64 {
  const last = get(N.NS_RX_USED);
  const element = load<u64>(N.ND_RX_USED + V.VIRTQ_USED_RING + (last & mask()) * V.VIRTQ_USED_ELEM_BYTES);
  const id = <u32> element;
  const isOurs = id < queueSize() && <u32> load<u8>(N.ND_RX_STATES + id) == WITH_NIC;
  if (!isOurs || <u32> (element >> 32) > rxRoom()) {
    fail(N.FAULT_DEVICE, 0);
    return NONE;
  }
  store<u8>(N.ND_RX_STATES + id, <u8> WITH_PORT);
  set(N.NS_RX_USED, last + 1);
  return element;
}

/** Gives a receive buffer back to the NIC, which sees it after `publishReceive`. */
export function giveBackReceived(id: u32): void {
  const idx = get(N.NS_RX_AVAIL);
  store<u8>(N.ND_RX_STATES + id, <u8> WITH_NIC);
  store<u16>(N.ND_RX_AVAIL + V.VIRTQ_AVAIL_RING + (idx & mask()) * 2, <u16> id);
  set(N.NS_RX_AVAIL, idx + 1);
}

/**
 * Lets the NIC see the receive buffers that it was given; true if it wants a kick, since senders wait for them and it
 * sleeps. Otherwise it looks for them itself.
 */
export function publishReceive(): bool {
  const idx = get(N.NS_RX_AVAIL);
  const before = get(N.NS_RX_KICKED);
  if (idx == before) return false;
  atomic.store<u16>(N.ND_RX_AVAIL + V.VIRTQ_AVAIL_IDX, <u16> idx);
  set(N.NS_RX_KICKED, idx);
  return passesEvent(N.ND_RX_USED, idx, before);
}

/** Whether the NIC wants a kick for what lies between these avail indices of the ring with this used ring (§2.7.7.2). */
function passesEvent(used: usize, idx: u32, before: u32): bool {
  const at = used + V.VIRTQ_USED_RING + queueSize() * V.VIRTQ_USED_ELEM_BYTES;
  const event: u32 = atomic.load<u16>(at);
  return ((idx - event - 1) & 0xffff) < ((idx - before) & 0xffff);
}

// Frames to the NIC --------------------------------------------------------------------------------------------------

@inline
export function freeCount(): u32 {
  return get(N.NS_FREE_IN) - get(N.NS_FREE_OUT);
}

/** Takes a free transmit descriptor; there is one. */
export function takeFree(): u32 {
  const out = get(N.NS_FREE_OUT);
  set(N.NS_FREE_OUT, out + 1);
  return load<u16>(N.ND_FREE_LIST + (out & mask()) * 2);
}

/** A transmit descriptor is nobody's. */
export function freeTransmit(id: u32): void {
  const at = get(N.NS_FREE_IN);
  store<u16>(N.ND_FREE_LIST + (at & mask()) * 2, <u16> id);
  set(N.NS_FREE_IN, at + 1);
}

/** Hands `bytes` bytes from `at` on, in buffer `id`, to the NIC, which sees them after `publishTransmit`. */
export function offerTransmit(id: u32, at: usize, bytes: u32): void {
  const descriptor: usize = N.ND_TX_DESC + id * V.VIRTQ_DESC_BYTES;
  store<u64>(descriptor, at);
  store<u64>(descriptor, bytes, 8);
  const idx = get(N.NS_TX_AVAIL);
  store<u16>(N.ND_TX_AVAIL + V.VIRTQ_AVAIL_RING + (idx & mask()) * 2, <u16> id);
  set(N.NS_TX_AVAIL, idx + 1);
}

/** Lets the NIC see what it was handed; true if it wants a kick. */
export function publishTransmit(): bool {
  const idx = get(N.NS_TX_AVAIL);
  const before = get(N.NS_TX_KICKED);
  if (idx == before) return false;
  atomic.store<u16>(N.ND_TX_AVAIL + V.VIRTQ_AVAIL_IDX, <u16> idx);
  set(N.NS_TX_KICKED, idx);
  return passesEvent(N.ND_TX_USED, idx, before);
}

@inline
function txUsedIdx(): u32 {
  return atomic.load<u16>(N.ND_TX_USED + V.VIRTQ_USED_IDX);
}

/** Takes back a descriptor that the NIC has sent, which is free then; NONE if there is none. */
export function takeSent(): u32 {
  const last = get(N.NS_TX_USED);
  if (txUsedIdx() == (last & 0xffff)) return NONE;
  const id = load<u32>(N.ND_TX_USED + V.VIRTQ_USED_RING + (last & mask()) * V.VIRTQ_USED_ELEM_BYTES);
  if (untaken() == 0 || id >= queueSize()) {
    fail(N.FAULT_DEVICE, 0);
    return NONE;
  }
  set(N.NS_TX_USED, last + 1);
  freeTransmit(id);
  return id;
}

/** Frames that the NIC has been handed and has not taken. */
@inline
export function untaken(): u32 {
  return (get(N.NS_TX_AVAIL) - get(N.NS_TX_USED)) & 0xffff;
}

// Interrupts ---------------------------------------------------------------------------------------------------------

/** Asks for an interrupt at used index `rx` of the receive ring, and at `tx` of the transmit ring. */
@inline
function setEvents(rx: u32, tx: u32): void {
  atomic.store<u16>(N.ND_RX_AVAIL + V.VIRTQ_AVAIL_RING + queueSize() * 2, <u16> rx);
  atomic.store<u16>(N.ND_TX_AVAIL + V.VIRTQ_AVAIL_RING + queueSize() * 2, <u16> tx);
}

/**
 * No interrupts: the port looks by itself. An index that was passed is not met again for 65535 buffers, so this is only
 * needed at the start.
 */
function leaveAlone(): void {
  setEvents(get(N.NS_RX_USED) - 1, get(N.NS_TX_USED) - 1);
}

/**
 * Asks for an interrupt when a frame comes, and if `wantsRoom` when the NIC has taken one. True if there is something
 * to do already.
 */
export function armQueues(wantsRoom: bool): bool {
  const rx = get(N.NS_RX_USED);
  const tx = get(N.NS_TX_USED);
  setEvents(rx, wantsRoom ? tx : tx - 1);
  return rxUsedIdx() != (rx & 0xffff) || (wantsRoom && txUsedIdx() != (tx & 0xffff));
}
