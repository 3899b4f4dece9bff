/**
 * The device side of a split virtqueue (virtio 1.2 §2.7): its indices, its used ring, its notifications. A driver may
 * change its rings while they are read, so every field is loaded once into a local, checked, and the local is used.
 */
import {
  Q_AVAIL,
  Q_FLAGS,
  Q_LAST_AVAIL,
  Q_SIGNALLED,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_IN_ORDER,
  R_ID,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import {
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_F_NO_NOTIFY,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from "../../../shared/layout/virtio.ts";
import { recordAt } from "../batch/record.ts";
import { interrupt } from "./coalesce.ts";
import { isLogged, logElements, logIndex } from "./dirty_log.ts";
import { keepSplit } from "./inflight.ts";

/** The driver's avail index. An atomic load: a plain one could be hoisted out of a polling loop. */
@inline
export function availIdx(q: usize): u32 {
  return atomic.load<u16>(load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_IDX);
}

/** Heads that the driver has made available and nobody has taken; more than the ring has if it lies. */
@inline
export function pendingSplit(q: usize): u32 {
  return (availIdx(q) - load<u32>(q, Q_LAST_AVAIL)) & 0xffff;
}

/** The head at ring position `position` (a free-running index). */
@inline
export function availHead(q: usize, position: u32): u32 {
  const slot = position & (load<u32>(q, Q_SIZE) - 1);
  return load<u16>(load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING + slot * 2);
}

/**
 * Writes a used element unless it is there: a driver that uses its descriptors in turn gets the same ones in the same
 * slots each time round, and a line that nobody writes stays in both CPUs' caches.
 */
@inline
export function storeUsed(at: usize, element: u64): void {
  if (load<u64>(at) != element) store<u64>(at, element);
}

/** Writes one used element; the driver sees it when `publishSplit` moves the index. */
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

/** Gives the first `n` frames of the batch back. In order, one element stands for all of them (§2.7.9). */
export function completeSplit(q: usize, n: u32): void {
  const used: usize = load<u32>(q, Q_USED) + VIRTQ_USED_RING;
  const mask = load<u32>(q, Q_SIZE) - 1;
  const idx = load<u32>(q, Q_USED_IDX);
  if (load<u32>(q, Q_FLAGS) & QUEUE_F_IN_ORDER) {
    store<u64>(used + (idx & mask) * VIRTQ_USED_ELEM_BYTES, load<u32>(recordAt(n - 1), R_ID));
  } else {
    let record = recordAt(0);
    for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) {
      storeUsed(used + ((idx + i) & mask) * VIRTQ_USED_ELEM_BYTES, load<u32>(record, R_ID));
    }
  }
  store<u32>(q, idx + n, Q_USED_IDX);
  store<u32>(q, load<u32>(q, Q_LAST_AVAIL) + n, Q_LAST_AVAIL);
}

/**
 * Makes the written used elements visible, and sees to the interrupt that the driver may have asked for (§2.7.7). The
 * atomic store is sequentially consistent: the driver's flags are read after it.
 */
export function publishSplit(q: usize): void {
  const logs = isLogged(q);
  if (logs) logElements(q);
  atomic.store<u16>(load<u32>(q, Q_USED) + VIRTQ_USED_IDX, <u16> load<u32>(q, Q_USED_IDX));
  if (logs) logIndex(q);
  keepSplit(q);
  const given = wantedSplit(q);
  if (given != 0 && interrupt(q, given)) interruptedSplit(q);
}

/** Used elements for which the driver wants an interrupt that it has not had (§2.7.7); 0 if it wants none. */
export function wantedSplit(q: usize): u32 {
  const idx = load<u32>(q, Q_USED_IDX);
  const given = (idx - load<u32>(q, Q_SIGNALLED)) & 0xffff;
  const avail = load<u32>(q, Q_AVAIL);
  if (load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) {
    const event: u32 = atomic.load<u16>(avail + VIRTQ_AVAIL_RING + load<u32>(q, Q_SIZE) * 2);
    if (((idx - event - 1) & 0xffff) < given) return given;
  } else {
    if ((<u32> atomic.load<u16>(avail) & VIRTQ_AVAIL_F_NO_INTERRUPT) == 0) return given;
  }
  store<u32>(q, idx, Q_SIGNALLED);
  return 0;
}

/** The driver has been interrupted for all that is published. */
@inline
export function interruptedSplit(q: usize): void {
  store<u32>(q, load<u32>(q, Q_USED_IDX), Q_SIGNALLED);
}

/** Asks the driver for a kick when it adds buffers; true if it has added some meanwhile. */
export function armSplit(q: usize): bool {
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
 * Asks the driver of receive queue `q` for a kick when it has offered `ahead` more buffers than were taken. Without
 * EVENT_IDX it would kick for each, and is not asked.
 */
export function armAhead(q: usize, ahead: u32): void {
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) == 0) return;
  const event = load<u32>(q, Q_USED) + VIRTQ_USED_RING + load<u32>(q, Q_SIZE) * VIRTQ_USED_ELEM_BYTES;
  atomic.store<u16>(event, <u16> (load<u32>(q, Q_LAST_AVAIL) + ahead - 1));
}

/**
 * Tells the driver not to kick. With EVENT_IDX there is nothing to write: the event index stays behind, and a driver
 * that has passed it once does not meet it again for 65535 buffers.
 */
export function disarmSplit(q: usize): void {
  if (load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) return;
  atomic.store<u16>(load<u32>(q, Q_USED), VIRTQ_USED_F_NO_NOTIFY);
}

/** As `disarmSplit`, for a queue that starts: its event index may hold anything. */
export function disarmSplitAtStart(q: usize): void {
  disarmSplit(q);
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) == 0) return;
  const event = load<u32>(q, Q_USED) + VIRTQ_USED_RING + load<u32>(q, Q_SIZE) * VIRTQ_USED_ELEM_BYTES;
  atomic.store<u16>(event, <u16> (load<u32>(q, Q_LAST_AVAIL) - 1));
}
