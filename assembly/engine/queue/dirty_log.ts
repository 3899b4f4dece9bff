/**
 * The dirty log: a bitmap of the pages of a guest's memory that this engine has written, a bit for each 4 KiB of guest
 * address. Whoever moves a running guest reads and clears it, and sends those pages again. So a bit is set when the bytes
 * are in memory and before the driver is told of them (data, then bits, then the used index, then the bit of that): a page
 * whose bit was cleared too early would arrive without them.
 *
 * It costs one look at a queue's flags a burst where it is off. Where it is on, a bit that is set already is not set
 * again, which is right behind a fence: whoever clears it then finds the bytes.
 */
import {
  B_FENCE,
  FLAVOUR_PACKED,
  FRAME_OUT_BYTES_MAX,
  LOG_PAGE_SHIFT,
  LOG_TOO_SMALL,
  NOT_LOGGED,
  P_LOG,
  P_LOG_BYTES,
  P_LOG_USED,
  P_REGION_COUNT,
  DOMAIN_STRIDE,
  DOMAINS,
  Q_DESC,
  Q_DESC_IOVA,
  Q_FLAGS,
  Q_FLAVOUR,
  Q_INDEX,
  Q_POOL,
  Q_REGION2_IOVA,
  Q_REGION2_SIZE,
  Q_REGION2_WINDOW,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  QUEUE_F_LOG,
  R_LENGTH,
  RECORD_STRIDE,
  REGION_IOVA,
  REGION_SIZE,
  REGION_STRIDE,
  REGION_WINDOW,
  REGIONS_MAX,
  RX_SEGMENTS,
  SEGMENT_STRIDE,
} from "../../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_BYTES,
  VIRTQ_DESC_BYTES,
  VIRTQ_EVENT_BYTES,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../../../shared/layout/virtio.ts";
import { batch, context, poolAt } from "../context.ts";
import { spendReceive } from "../schedule/cost.ts";
import { failQueue } from "./interrupts.ts";

/** What a driver that rewrites its used ring could have logged for one frame. */
const WRITTEN_MAX: u32 = FRAME_OUT_BYTES_MAX + VIRTIO_NET_HDR_BYTES;

/** An address that no log holds. */
const NOWHERE: u64 = 0xffff_ffff_ffff_0000;

/** What was written before is in memory before anything is looked at that comes behind: a store that is one with all others. */
@inline
function fence(): void {
  atomic.store<u32>(batch(), 0, B_FENCE);
}

/** Whether what is written for queue `q` is logged. */
@inline
export function isLogged(q: usize): bool {
  return (load<u32>(q, Q_FLAGS) & QUEUE_F_LOG) != 0;
}

/** Sets the bits of `bytes` bytes at guest address `iova` of pool `p`; false if its log does not go so far. */
function setBits(p: usize, iova: u64, bytes: u32): bool {
  if (bytes == 0) return true;
  const log: usize = load<u32>(p, P_LOG);
  const first = iova >> LOG_PAGE_SHIFT;
  const last = (iova + bytes - 1) >> LOG_PAGE_SHIFT;
  if (last < first || last >> 3 >= <u64> load<u32>(p, P_LOG_BYTES)) return false;
  for (let page = first; page <= last;) {
    const end = min(last, page | 7);
    const bits: u32 = (2 << <u32> (end & 7)) - (1 << <u32> (page & 7));
    const at = log + <usize> (page >> 3);
    if ((<u32> atomic.load<u8>(at) & bits) != bits) atomic.or<u8>(at, <u8> bits);
    page = end + 1;
  }
  return true;
}

/** Logs a write for queue `q`. A log that does not hold it would have its guest arrive damaged, so the queue stops. */
function logAt(q: usize, iova: u64, bytes: u32): void {
  if (!setBits(poolAt(load<u32>(q, Q_POOL)), iova, bytes)) failQueue(q, LOG_TOO_SMALL, iova);
}

/** Logs `bytes` bytes at `iova` that somebody else has written for the guest of pool `pool`; false if the log is too small. */
export function logWritten(pool: u32, iova: u64, bytes: u32): bool {
  fence();
  return setBits(poolAt(pool), iova, bytes);
}

// Buffers -----------------------------------------------------------------------------------------------------------

/** What it costs to log a buffer, or a part of one, and to look at a region for its guest address. */
const UNITS_LOGGED: u32 = 8;
const UNITS_LOOK: u32 = 2;

/** The guest address of arena pointer `pointer`, which lies in the domain of queue `q`. */
function addressOf(q: usize, pointer: usize): u64 {
  const offset = <u64> (pointer - <usize> load<u32>(q, Q_REGION_WINDOW));
  if (offset < load<u64>(q, Q_REGION_SIZE)) return load<u64>(q, Q_REGION_IOVA) + offset;
  const offset2 = <u64> (pointer - <usize> load<u32>(q, Q_REGION2_WINDOW));
  if (offset2 < load<u64>(q, Q_REGION2_SIZE)) return load<u64>(q, Q_REGION2_IOVA) + offset2;
  const pool = load<u32>(q, Q_POOL);
  const count = min(load<u32>(poolAt(pool), P_REGION_COUNT), <u32> REGIONS_MAX);
  let region: usize = context + DOMAINS + pool * DOMAIN_STRIDE;
  let i: u32 = 0;
  let found = NOWHERE;
  for (; i < count && found == NOWHERE; i++, region += REGION_STRIDE) {
    const inside = <u64> (pointer - <usize> load<u32>(region, REGION_WINDOW));
    if (inside < load<u64>(region, REGION_SIZE)) found = load<u64>(region, REGION_IOVA) + inside;
  }
  spendReceive(i * UNITS_LOOK);
  return found;
}

/** Logs `bytes` bytes at arena pointer `pointer`, which lie in one region of the domain of `q`. */
export function logPointer(q: usize, pointer: usize, bytes: u32): void {
  fence();
  logAt(q, addressOf(q, pointer), bytes);
}

/** Logs the first `bytes` bytes of RX_SEGMENTS, which were filled for queue `q`. */
export function logSegments(q: usize, bytes: u32): void {
  fence();
  let segment = context + RX_SEGMENTS;
  let n: u32 = 0;
  for (let left = bytes; left > 0; segment += SEGMENT_STRIDE, n++) {
    const part = min(left, load<u32>(segment, 4));
    logAt(q, addressOf(q, load<u32>(segment)), part);
    left -= part;
  }
  spendReceive(n * UNITS_LOGGED);
}

/** Logs the buffers of `n` used elements of split queue `q` from slot `first` on, each of one descriptor. */
export function logUsedBuffers(q: usize, first: u32, n: u32): void {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const used: usize = load<u32>(q, Q_USED) + VIRTQ_USED_RING;
  const table: usize = load<u32>(q, Q_DESC);
  fence();
  for (let i: u32 = 0; i < n; i++) {
    const element = load<u64>(used + ((first + i) & mask) * VIRTQ_USED_ELEM_BYTES);
    const descriptor = table + (<u32> element & mask) * VIRTQ_DESC_BYTES;
    logAt(q, load<u64>(descriptor), min(<u32> (element >> 32), WRITTEN_MAX));
  }
  spendReceive(n * UNITS_LOGGED);
}

/**
 * Logs the buffers of `n` slots of packed queue `q` from slot `first` on, which hold the frames from `record` on with
 * `extra` bytes each.
 */
export function logSlotBuffers(q: usize, first: u32, record: usize, n: u32, extra: u32): void {
  let descriptor: usize = load<u32>(q, Q_DESC) + first * VIRTQ_DESC_BYTES;
  let at = record;
  fence();
  for (let i: u32 = 0; i < n; i++, at += RECORD_STRIDE, descriptor += VIRTQ_DESC_BYTES) {
    logAt(q, load<u64>(descriptor), load<u32>(at, R_LENGTH) + extra);
  }
  spendReceive(n * UNITS_LOGGED);
}

// Rings -------------------------------------------------------------------------------------------------------------

/** Where the used ring of `q`, or its device event area, is logged; NOT_LOGGED: nowhere. */
@inline
function usedLogOf(q: usize): u64 {
  return load<u64>(poolAt(load<u32>(q, Q_POOL)) + load<u32>(q, Q_INDEX) * 8, P_LOG_USED);
}

/** Logs `bytes` bytes of the used ring of `q`, or of its device event area, from byte `offset` on. */
function logUsed(q: usize, offset: u32, bytes: u32): void {
  const at = usedLogOf(q);
  if (at != <u64> NOT_LOGGED) logAt(q, at + offset, bytes);
}

/** Logs `n` descriptors of packed queue `q` from slot `first` on, round its end if need be. */
function logSlots(q: usize, first: u32, n: u32): void {
  if (usedLogOf(q) == <u64> NOT_LOGGED) return;
  const ring = load<u64>(q, Q_DESC_IOVA);
  const there = min(n, load<u32>(q, Q_SIZE) - first);
  logAt(q, ring + first * VIRTQ_DESC_BYTES, there * VIRTQ_DESC_BYTES);
  logAt(q, ring, (n - there) * VIRTQ_DESC_BYTES);
}

/** Logs the elements of split queue `q` that are written and not published: the ring's own index says which. */
export function logElements(q: usize): void {
  const size = load<u32>(q, Q_SIZE);
  const end = load<u32>(q, Q_USED_IDX);
  const published: u32 = atomic.load<u16>(load<u32>(q, Q_USED) + VIRTQ_USED_IDX);
  const n = min((end - published) & 0xffff, size);
  const first = (end - n) & (size - 1);
  const there = min(n, size - first);
  logUsed(q, VIRTQ_USED_RING + first * VIRTQ_USED_ELEM_BYTES, there * VIRTQ_USED_ELEM_BYTES);
  logUsed(q, VIRTQ_USED_RING, (n - there) * VIRTQ_USED_ELEM_BYTES);
}

/** Logs the used descriptors of packed queue `q` from slot `first` to where the next one goes. */
export function logUsedSlots(q: usize, first: u32): void {
  const size = load<u32>(q, Q_SIZE);
  const end = load<u32>(q, Q_USED_IDX);
  logSlots(q, first, end > first ? end - first : end + size - first);
}

/** Logs the used descriptor in slot `slot` of packed queue `q`. */
export function logSlot(q: usize, slot: u32): void {
  logSlots(q, slot, 1);
}

/** Logs the index and the flags of the used ring of `q`, or its device event area. */
export function logIndex(q: usize): void {
  logUsed(q, 0, VIRTQ_EVENT_BYTES);
}

/** Logs where the driver of `q` is told whether to kick. */
export function logEvents(q: usize): void {
  logIndex(q);
  if (load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED) return;
  logUsed(q, VIRTQ_USED_RING + load<u32>(q, Q_SIZE) * VIRTQ_USED_ELEM_BYTES, 2);
}

/** Logs all that a device writes of the rings of `q`: it starts, or stops, or its log is new. */
export function logRings(q: usize): void {
  const size = load<u32>(q, Q_SIZE);
  fence();
  if (load<u32>(q, Q_FLAVOUR) == FLAVOUR_PACKED) {
    logSlots(q, 0, size);
    logIndex(q);
  } else {
    logUsed(q, 0, VIRTQ_USED_RING + size * VIRTQ_USED_ELEM_BYTES + 2);
  }
}
