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
  OK,
  PERM_READ,
  PERM_WRITE,
  Q_AVAIL,
  Q_DESC,
  Q_FLAGS,
  Q_LAST_AVAIL,
  Q_SIGNALLED,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_INDIRECT,
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
import { raiseCall } from "./interrupts.ts";
import { appendBuffer, setBadDetail } from "./segments.ts";

/** The driver's avail index. An atomic load: a plain one could be hoisted out of a polling loop. */
@inline
export function availIdx(q: usize): u32 {
  return atomic.load<u16>(load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_IDX);
}

/** What the last `gatherChain` added: bytes, and descriptors it walked. */
export let chainBytes: u64 = 0;
export let chainLength: u32 = 0;

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
  setBadDetail(head);
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
      setBadDetail(index);
      return BAD_DIRECTION;
    }
    if (!appendBuffer(q, list, iova, length, perm)) {
      setBadDetail(iova);
      return BAD_ADDRESS;
    }
    chainBytes += length;
    if ((flags & VIRTQ_DESC_F_NEXT) == 0) return OK;
    if (next >= tableSize) {
      setBadDetail(next);
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
  raiseCall(q);
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
