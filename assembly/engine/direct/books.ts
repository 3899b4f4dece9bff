/** The direct path's books: which of the guest's buffers is in which slot of the pair's rings (shared/layout/engine/direct.ts). */
import { ADV_DESC_BYTES, ADV_DIRECT_ADDRESS_BITS, ADV_DIRECT_BYTES_MASK } from "../../../shared/layout/advanced.ts";
import {
  DIRECT_BOOK_BYTES,
  DIRECT_HALT,
  DIRECT_HEADER_AT,
  DIRECT_HOST_BYTES,
  DIRECT_RX_BOOKS,
  DIRECT_TX_BOOKS,
  DRIVER_BUFFER_BYTES,
  FLAVOUR_PACKED,
  MEMORY_GONE,
  Q_BUFFERS,
  Q_BUFFERS_IOVA,
  Q_DESC,
  Q_DIRECT,
  Q_ERROR,
  Q_FLAVOUR,
  Q_HEADER_BYTES,
  Q_LAST_AVAIL,
  Q_STATE,
  Q_USED_IDX,
  Q_WRAP,
  QUEUE_ERROR,
  QUEUE_RUNNING,
  RING_UNMAPPED,
  WRAP_AVAIL,
  WRAP_USED,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_F_WRITE } from "../../../shared/layout/virtio.ts";
import { isLogged, logPointer } from "../queue/dirty_log.ts";
import { pushUsedPacked } from "../queue/packed.ts";
import { pushUsed } from "../queue/split.ts";

/** The direct path's state of a queue, 0 if it has none. */
@inline
export function stateOf(q: usize): usize {
  return load<u32>(q, Q_DIRECT);
}

/** Whether the path is halted in the direction that `bit`, HALT_*, says. */
@inline
export function isHalted(state: usize, bit: u32): bool {
  return (load<u32>(state, DIRECT_HALT) & bit) != 0;
}

/** The book of a transmit slot, of a receive slot. */
@inline
export function txBook(state: usize, slot: u32): usize {
  return state + DIRECT_TX_BOOKS + slot * DIRECT_BOOK_BYTES;
}

@inline
export function rxBook(state: usize, slot: u32): usize {
  return state + DIRECT_RX_BOOKS + slot * DIRECT_BOOK_BYTES;
}

/** Bytes of the guest's buffer in a receive slot that the NIC may use. */
@inline
export function postedBytes(book: usize): u32 {
  return min(load<u32>(book, 4), <u32> ADV_DIRECT_BYTES_MASK);
}

/** Opens the book of the transmit slot that ends a frame: when the NIC is done with it, `id` goes back to `q`. */
@inline
export function openBook(state: usize, slot: u32, q: usize, id: u32, places: u32): void {
  const book = txBook(state, slot);
  store<u64>(book, <u64> (<u32> q) | (<u64> id << 32));
  store<u32>(book, places, 8);
}

/** A slot's descriptor, and the host buffer that belongs to it. */
@inline
export function descriptorAt(q: usize, slot: u32): usize {
  return load<u32>(q, Q_DESC) + slot * ADV_DESC_BYTES;
}

@inline
export function hostBuffer(q: usize, slot: u32): usize {
  return load<u32>(q, Q_BUFFERS) + slot * DRIVER_BUFFER_BYTES;
}

/** What stands in a receive descriptor with its host buffer only. */
@inline
export function hostPlace(rx: usize, slot: u32): u64 {
  const address = load<u64>(rx, Q_BUFFERS_IOVA) + <u64> (slot * DRIVER_BUFFER_BYTES);
  return address | (<u64> DIRECT_HOST_BYTES << <u64> ADV_DIRECT_ADDRESS_BITS);
}

/** Makes a receive slot one that is to be filled, with its host buffer. */
@inline
export function repost(rx: usize, slot: u32): void {
  const descriptor = descriptorAt(rx, slot);
  const place = hostPlace(rx, slot);
  const header: u64 = load<u32>(rx, Q_HEADER_BYTES) == 0
    ? 0
    : load<u64>(rx, Q_BUFFERS_IOVA) + <u64> (slot * DRIVER_BUFFER_BYTES + DIRECT_HEADER_AT);
  store<u64>(descriptor, place);
  store<u64>(descriptor, header, 8);
}

/** Whether used elements may be written to a guest's queue: it runs, or has stopped with its rings still there. */
@inline
export function isWritable(q: usize): bool {
  const state = load<u32>(q, Q_STATE);
  if (state == QUEUE_RUNNING) return true;
  const error = load<u32>(q, Q_ERROR);
  return state == QUEUE_ERROR && error != RING_UNMAPPED && error != MEMORY_GONE;
}

/** Gives one buffer, of which `length` bytes were written, back to the guest; it sees it when the queue is published. */
@inline
export function giveBackOne(q: usize, id: u32, length: u32, flags: u32, places: u32): void {
  if (load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED) pushUsedPacked(q, id, length, flags, places);
  else pushUsed(q, id, length);
}

/** Gives the guest's buffer of a receive slot back, with a frame's `length` bytes, after `written` bytes were written to it. */
@inline
export function giveBackFilled(q: usize, book: usize, length: u32, written: u32): void {
  if (isLogged(q)) logPointer(q, load<u32>(book), written);
  giveBackOne(q, load<u32>(book, 8), length, VIRTQ_DESC_F_WRITE, load<u32>(book, 12));
}

/** The guest's last `n` buffers that were taken and not given back are as if nobody had taken them. All of them are so. */
export function untake(q: usize, n: u32): void {
  if (load<u32>(q, Q_FLAVOUR) != FLAVOUR_PACKED) {
    store<u32>(q, load<u32>(q, Q_LAST_AVAIL) - n, Q_LAST_AVAIL);
    return;
  }
  const wraps = load<u32>(q, Q_WRAP);
  const wrap: u32 = (wraps & WRAP_USED) != 0 ? WRAP_AVAIL : 0;
  store<u32>(q, load<u32>(q, Q_USED_IDX), Q_LAST_AVAIL);
  store<u32>(q, (wraps & ~<u32> WRAP_AVAIL) | wrap, Q_WRAP);
}
