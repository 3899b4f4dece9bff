/**
 * One frame into a direct receive ring (shared/layout/advanced.ts): with its virtio-net header in front, into as many
 * buffers as it needs, as mergeable ones are filled (virtio 1.2 §5.1.6.4). With split headers, header and virtio-net
 * header go into the header buffer, and the rest lies where it would lie otherwise; a frame that fits the header buffer
 * goes there whole.
 *
 * A descriptor is read once: its driver may exchange the buffer in it at any moment.
 */
import {
  ADV_DESC_BYTES,
  ADV_DIRECT_ADDRESS_BITS,
  ADV_DIRECT_BYTES_MASK,
  ADV_DIRECT_CHAIN_MAX,
  ADV_DIRECT_HEADER_SHIFT,
  ADV_DIRECT_MARK_SHIFT,
  ADV_DIRECT_STAT_MARK,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
} from "../../../shared/layout/advanced.ts";
import {
  BAD_ADDRESS,
  BAD_TAIL,
  C_RX_NO_BUFFER,
  C_RX_QUEUE_ERROR,
  C_RX_TOO_SMALL,
  OUT_VIRTIO_HDR,
  PERM_WRITE,
  Q_DESC,
  Q_FLAGS,
  Q_HEADER_BYTES,
  Q_LAST_AVAIL,
  Q_OFFLOADS,
  Q_SIZE,
  QUEUE_F_DIRECT,
  R_LENGTH,
  RX_CHAINS,
  RX_SEGMENTS,
  SPLIT_HEAD,
  SPLIT_HEAD_BYTES,
} from "../../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_BYTES } from "../../../shared/layout/virtio.ts";
import { appendBuffer, NOT_APPENDED, put, rewindOut } from "../batch/segments.ts";
import { context } from "../context.ts";
import { outLength, peekFrame, putFrame, putRest } from "../deliver/head.ts";
import { putOffload, putVirtioHeader } from "../deliver/virtio_header.ts";
import { spendReceive, UNITS_DESCRIPTOR, UNITS_UNUSUAL } from "../schedule/cost.ts";
import { pendingAdvanced } from "./advanced.ts";
import { headerLength } from "./advanced_receive.ts";
import { failQueue } from "./interrupts.ts";

/** The virtio-net header in front of each frame. */
export const FRONT: u32 = VIRTIO_NET_HDR_BYTES;
export const ADDRESS_MASK: u64 = (<u64> 1 << ADV_DIRECT_ADDRESS_BITS) - 1;
/** An entry of RX_CHAINS, for one descriptor of the frame in hand: bytes of the frame in it, and whether it had the MARK. */
const ENTRY_BYTES: u32 = 8;

/** Whether an advanced queue is a direct one. */
@inline
export function isDirect(q: usize): bool {
  return (load<u32>(q, Q_FLAGS) & QUEUE_F_DIRECT) != 0;
}

/** Bytes of the packet buffer in a descriptor's first half. */
@inline
export function bytesOf(where: u64): u32 {
  return <u32> (where >> <u64> ADV_DIRECT_ADDRESS_BITS) & ADV_DIRECT_BYTES_MASK;
}

/** The MARK in a descriptor's first half, as it is written back. */
@inline
export function markOf(where: u64): u32 {
  return where >> <u64> ADV_DIRECT_MARK_SHIFT != 0 ? ADV_DIRECT_STAT_MARK : 0;
}

/** Writes the second half of a descriptor back: the driver may look at any moment. */
@inline
export function writeBackDirect(descriptor: usize, length: u32, status: u32, apart: u32): void {
  const all = <u64> status | (<u64> length << 32) | (<u64> apart << <u64> ADV_DIRECT_HEADER_SHIFT);
  atomic.store<u64>(descriptor, all, 8);
}

/** Puts one frame into as many descriptors as it needs; 0, or the counter that tells why not. */
export function receiveDirect(rx: usize, record: usize, head: u32, tag: u32): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const free = pendingAdvanced(rx);
  if (free > mask) {
    failQueue(rx, BAD_TAIL, free);
    return C_RX_QUEUE_ERROR;
  }
  const frameBytes = outLength(head, load<u32>(record, R_LENGTH));
  const split = splitOf(rx, record, head, tag, frameBytes);
  const apart: u32 = split == 0 ? 0 : FRONT + split;
  const count = reserve(rx, free, FRONT + frameBytes, apart);
  if (count == 0) return reserveRefusal;
  const header = context + OUT_VIRTIO_HDR;
  putVirtioHeader(header, FRONT, count);
  putOffload(header, record, head, <u32> load<u16>(rx, Q_OFFLOADS));
  rewindOut();
  put(header, FRONT);
  if (split != 0) {
    put(context + SPLIT_HEAD, split);
    putRest(record, head, split);
  } else {
    putFrame(record, head, tag);
  }
  const ring: usize = load<u32>(rx, Q_DESC);
  const first = load<u32>(rx, Q_LAST_AVAIL);
  for (let i: u32 = 0; i < count; i++) {
    const entry = context + RX_CHAINS + i * ENTRY_BYTES;
    const end: u32 = i + 1 == count ? ADV_RXD_STAT_EOP : 0;
    const status = ADV_RXD_STAT_DD | end | load<u32>(entry, 4);
    writeBackDirect(ring + ((first + i) & mask) * ADV_DESC_BYTES, load<u32>(entry), status, i == 0 ? apart : 0);
  }
  store<u32>(rx, (first + count) & mask, Q_LAST_AVAIL);
  return 0;
}

/** How many bytes of the frame go into the header buffer, 0 for none: its headers, or all of it. They are at SPLIT_HEAD. */
function splitOf(rx: usize, record: usize, head: u32, tag: u32, frameBytes: u32): u32 {
  const room = load<u32>(rx, Q_HEADER_BYTES);
  if (room <= FRONT) return 0;
  const known = min(frameBytes, <u32> SPLIT_HEAD_BYTES);
  peekFrame(record, head, tag, known, context + SPLIT_HEAD);
  if (frameBytes == known && FRONT + frameBytes <= room) return frameBytes;
  const split = headerLength(known);
  return FRONT + split <= room ? split : 0;
}

/** Why the last `reserve` found no room. */
let reserveRefusal: u32 = 0;

/**
 * Appends the buffers that `need` bytes take, the first `apart` of them in the header buffer, and notes what each
 * descriptor gets. Answers how many descriptors that are; 0: `reserveRefusal`.
 */
function reserve(rx: usize, free: u32, need: u32, apart: u32): u32 {
  const mask = load<u32>(rx, Q_SIZE) - 1;
  const ring: usize = load<u32>(rx, Q_DESC);
  const first = load<u32>(rx, Q_LAST_AVAIL);
  const list = context + RX_SEGMENTS;
  let segments: u32 = 0;
  let left = need;
  let n: u32 = 0;
  for (; left != 0 || n == 0; n++) {
    if (n == ADV_DIRECT_CHAIN_MAX) return refuse(C_RX_TOO_SMALL);
    if (n == free) return refuse(C_RX_NO_BUFFER);
    const descriptor = ring + ((first + n) & mask) * ADV_DESC_BYTES;
    const where = atomic.load<u64>(descriptor);
    const size = bytesOf(where);
    const skip: u32 = n == 0 ? apart : 0;
    // The headers' place stays empty in the packet buffer.
    if (size < skip || size == 0) return refuse(C_RX_TOO_SMALL);
    if (skip != 0) segments = appendBuffer(rx, list, 0, load<u64>(descriptor, 8), skip, PERM_WRITE);
    const address = (where & ADDRESS_MASK) + skip;
    const length = min(size, left);
    if (segments != NOT_APPENDED) segments = appendBuffer(rx, list, segments, address, length - skip, PERM_WRITE);
    if (segments == NOT_APPENDED) {
      failQueue(rx, BAD_ADDRESS, address);
      return refuse(C_RX_QUEUE_ERROR);
    }
    const entry = context + RX_CHAINS + n * ENTRY_BYTES;
    store<u32>(entry, length);
    store<u32>(entry, markOf(where), 4);
    left -= length;
  }
  spendReceive(UNITS_UNUSUAL + n * UNITS_DESCRIPTOR);
  return n;
}

function refuse(counter: u32): u32 {
  reserveRefusal = counter;
  return 0;
}
