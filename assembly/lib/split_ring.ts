/**
 * The device side of a split virtqueue (virtio 1.2 §2.7). A driver may change its rings while they are read, so every
 * field is loaded once into a local, checked, and the local is used. A chain has at most `size` descriptors, counted,
 * so no link structure can hold the engine. What a driver gets wrong is a verdict, never a trap.
 */
import {
  BAD_ADDRESS,
  BAD_CHAIN_LENGTH,
  BAD_DIRECTION,
  BAD_HEAD,
  BAD_INDIRECT,
  BAD_NEXT,
  CALL_LIST,
  CTL,
  CTL_CALL_COUNT,
  CTL_EVENT_COUNT,
  OK,
  PERM_READ,
  PERM_WRITE,
  Q_AVAIL,
  Q_CALL_PENDING,
  Q_CALLS,
  Q_DESC,
  Q_ERROR,
  Q_ERROR_DETAIL,
  Q_FLAGS,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIGNALLED,
  Q_SIZE,
  Q_STATE,
  Q_USED,
  Q_USED_IDX,
  QUEUE_ERROR,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_INDIRECT,
  SEGMENT_STRIDE,
  SEGMENTS_MAX,
} from "../../shared/layout/nic.ts";
import {
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_F_NO_NOTIFY,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../../shared/layout/virtio.ts";
import { contiguous, translate } from "./domain.ts";

/** The driver's avail index. An atomic load: a plain one could be hoisted out of a polling loop. */
@inline
export function availIdx(q: usize): u32 {
  return atomic.load<u16>(load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_IDX);
}

/** Stops queue `q` with a reason; the control thread is told, the other queues go on. */
export function failQueue(q: usize, reason: u32, detail: u64): void {
  if (load<u32>(q, Q_STATE) == QUEUE_ERROR) return;
  store<u32>(q, reason, Q_ERROR);
  store<u64>(q, detail, Q_ERROR_DETAIL);
  atomic.store<u32>(q, QUEUE_ERROR, Q_STATE);
  store<u32>(CTL, load<u32>(CTL, CTL_EVENT_COUNT) + 1, CTL_EVENT_COUNT);
}

/** Segments in the list so far, and what the last `gatherChain` added: bytes, and descriptors it walked. */
export let segmentCount: u32 = 0;
export let chainBytes: u64 = 0;
export let chainLength: u32 = 0;
/** What was wrong: the descriptor's index or address. */
export let badDetail: u64 = 0;

/** Appends the segments of one buffer; false if any part of it has no translation. */
function appendBuffer(q: usize, list: usize, iova: u64, length: u32, perm: u32): bool {
  let at = iova;
  let left = length;
  while (left > 0) {
    if (segmentCount == SEGMENTS_MAX) return false;
    let pointer: usize;
    let n = left;
    const offset = at - load<u64>(q, Q_REGION_IOVA);
    const size = load<u64>(q, Q_REGION_SIZE);
    if (offset < size && <u64> left <= size - offset) {
      pointer = load<u32>(q, Q_REGION_WINDOW) + <u32> offset;
    } else {
      pointer = translate(q, at, left, perm);
      if (pointer == 0) return false;
      n = contiguous;
    }
    const segment = list + segmentCount * SEGMENT_STRIDE;
    store<u32>(segment, pointer);
    store<u32>(segment, n, 4);
    segmentCount++;
    left -= n;
    at += n;
    // A buffer that wraps past 2^64 would start again at address 0.
    if (left > 0 && at == 0) return false;
  }
  chainBytes += length;
  return true;
}

/** Starts a new list of segments. */
@inline
export function clearSegments(): void {
  segmentCount = 0;
}

/**
 * Walks the chain at `head` and appends its {pointer u32, length u32} segments to `list`. All its buffers must be
 * device-writable if `writable`, device-readable if not: in a net queue no chain mixes them (§5.1.6).
 * A chain has at most `limit` descriptors and at most as many as the queue. Answers OK or the reason to stop the queue;
 * `badDetail` then says where.
 */
export function gatherChain(q: usize, head: u32, list: usize, writable: bool, limit: u32): u32 {
  const size = load<u32>(q, Q_SIZE);
  const longest = min(size, limit);
  const indirectAllowed = (load<u32>(q, Q_FLAGS) & QUEUE_F_INDIRECT) != 0;
  const perm: u32 = writable ? PERM_WRITE : PERM_READ;
  chainBytes = 0;
  chainLength = 0;
  badDetail = head;
  if (head >= size) return BAD_HEAD;

  let table = load<u32>(q, Q_DESC);
  let tableSize = size;
  let tableIova: u64 = 0;
  let inIndirect = false;
  let index = head;
  while (chainLength < longest) {
    let descriptor: usize = table + index * VIRTQ_DESC_BYTES;
    if (inIndirect) {
      // An indirect table may cross regions: each entry is translated by itself.
      descriptor = translate(q, tableIova + <u64> index * VIRTQ_DESC_BYTES, VIRTQ_DESC_BYTES, PERM_READ);
      if (descriptor == 0 || contiguous != VIRTQ_DESC_BYTES) return BAD_INDIRECT;
    }
    const iova = load<u64>(descriptor);
    const meta = load<u64>(descriptor, 8);
    const length = <u32> meta;
    const flags = <u32> (meta >> 32) & 0xffff;
    const next = <u32> (meta >> 48);

    if (flags & VIRTQ_DESC_F_INDIRECT) {
      // §2.7.5.3: no nesting, not with NEXT, and the table is made of whole descriptors.
      const entries = length / VIRTQ_DESC_BYTES;
      if (!indirectAllowed || inIndirect || (flags & VIRTQ_DESC_F_NEXT) != 0) return BAD_INDIRECT;
      if (length == 0 || length % VIRTQ_DESC_BYTES != 0 || entries > size) return BAD_INDIRECT;
      inIndirect = true;
      tableIova = iova;
      tableSize = entries;
      index = 0;
      continue;
    }
    chainLength++;
    if (((flags & VIRTQ_DESC_F_WRITE) != 0) != writable) {
      badDetail = index;
      return BAD_DIRECTION;
    }
    if (!appendBuffer(q, list, iova, length, perm)) {
      badDetail = iova;
      return BAD_ADDRESS;
    }
    if ((flags & VIRTQ_DESC_F_NEXT) == 0) return OK;
    if (next >= tableSize) {
      badDetail = next;
      return BAD_NEXT;
    }
    index = next;
  }
  return BAD_CHAIN_LENGTH;
}

/** The head at ring position `position` (a free-running index). */
@inline
export function availHead(q: usize, position: u32): u32 {
  const slot = position & (load<u32>(q, Q_SIZE) - 1);
  return load<u16>(load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING + slot * 2);
}

/** Writes one used element; the driver sees it when `publishUsed` moves the index. */
@inline
export function pushUsed(q: usize, head: u32, length: u32): void {
  const idx = load<u32>(q, Q_USED_IDX);
  const slot = idx & (load<u32>(q, Q_SIZE) - 1);
  store<u64>(
    load<u32>(q, Q_USED) + VIRTQ_USED_RING + slot * VIRTQ_USED_ELEM_BYTES,
    <u64> head | (<u64> length << 32),
  );
  store<u32>(q, idx + 1, Q_USED_IDX);
}

/**
 * Makes the written used elements visible and, if the driver asked to be interrupted for them (§2.7.7), puts the queue
 * on the call list. The atomic store is sequentially consistent: the driver's flags are read after it.
 */
export function publishUsed(q: usize): void {
  const used = load<u32>(q, Q_USED);
  const idx = load<u32>(q, Q_USED_IDX) & 0xffff;
  atomic.store<u16>(used + VIRTQ_USED_IDX, <u16> idx);
  const signalled = load<u32>(q, Q_SIGNALLED);
  store<u32>(q, idx, Q_SIGNALLED);
  const avail = load<u32>(q, Q_AVAIL);
  if (load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) {
    const event: u32 = atomic.load<u16>(avail + VIRTQ_AVAIL_RING + load<u32>(q, Q_SIZE) * 2);
    if (((idx - event - 1) & 0xffff) >= ((idx - signalled) & 0xffff)) return;
  } else {
    if (<u32> atomic.load<u16>(avail) & VIRTQ_AVAIL_F_NO_INTERRUPT) return;
  }
  store<u64>(q, load<u64>(q, Q_CALLS) + 1, Q_CALLS);
  if (load<u32>(q, Q_CALL_PENDING)) return;
  store<u32>(q, 1, Q_CALL_PENDING);
  const count = load<u32>(CTL, CTL_CALL_COUNT);
  store<u32>(CALL_LIST + count * 4, <u32> q);
  store<u32>(CTL, count + 1, CTL_CALL_COUNT);
}

/** Asks the driver for a kick when it adds buffers; true if it has added some meanwhile. */
export function armKick(q: usize): bool {
  const used = load<u32>(q, Q_USED);
  const last = load<u32>(q, Q_LAST_AVAIL) & 0xffff;
  if (load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) {
    const event = used + VIRTQ_USED_RING + load<u32>(q, Q_SIZE) * VIRTQ_USED_ELEM_BYTES;
    atomic.store<u16>(event, <u16> last);
  } else {
    atomic.store<u16>(used, 0);
  }
  return availIdx(q) != last;
}

/**
 * Tells the driver not to kick. With EVENT_IDX there is nothing to write: the event index stays behind, and a driver
 * that has passed it once does not meet it again for 65535 buffers.
 */
export function disarmKick(q: usize): void {
  const used = load<u32>(q, Q_USED);
  if (load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) return;
  atomic.store<u16>(used, VIRTQ_USED_F_NO_NOTIFY);
}

/** As `disarmKick`, for a queue that starts: its event index may hold anything. */
export function disarmKickAtStart(q: usize): void {
  disarmKick(q);
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) == 0) return;
  const event = load<u32>(q, Q_USED) + VIRTQ_USED_RING + load<u32>(q, Q_SIZE) * VIRTQ_USED_ELEM_BYTES;
  atomic.store<u16>(event, <u16> (load<u32>(q, Q_LAST_AVAIL) - 1));
}
