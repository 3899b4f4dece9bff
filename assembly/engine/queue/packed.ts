/**
 * The device side of a packed virtqueue (virtio 1.2 §2.8): one ring of descriptors that both sides write in turn. A
 * descriptor is the device's if its AVAIL flag is the driver's wrap counter and its USED flag is not. Each descriptor's
 * length, id and flags are read in one load. The used descriptors of a burst are written at once but for the first,
 * which comes last and lets the driver see all of them.
 */
import { ADV_REG_NEXT, ADV_REG_POSITION } from "../../../shared/layout/advanced.ts";
import {
  B_STAGED,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_IN_ORDER,
  QUEUE_F_KEEP_POSITION,
  Q_AVAIL,
  Q_DESC,
  Q_FIRST_SLOT,
  Q_FIRST_USED,
  Q_FLAGS,
  Q_LAST_AVAIL,
  Q_REGISTERS,
  Q_SIZE,
  Q_USED,
  Q_USED_IDX,
  Q_WRAP,
  RECORD_STRIDE,
  R_DESCRIPTORS,
  R_ID,
  STAGED,
  STAGED_COUNT,
  STAGED_STRIDE,
  WRAP_AVAIL,
  WRAP_USED,
} from "../../../shared/layout/nic.ts";
import {
  RING_EVENT_FLAGS_DESC,
  RING_EVENT_FLAGS_DISABLE,
  RING_EVENT_FLAGS_ENABLE,
  VIRTQ_DESC_BYTES,
  VIRTQ_PACKED_DESC_F_AVAIL,
  VIRTQ_PACKED_DESC_F_USED,
  VIRTQ_PACKED_DESC_LEN,
} from "../../../shared/layout/virtio.ts";
import { recordAt } from "../batch/record.ts";
import { batch, context } from "../context.ts";
import { interrupt } from "./coalesce.ts";
import { isLogged, logIndex, logSlot, logUsedSlots } from "./dirty_log.ts";
import { announceInflight, keepPacked } from "./inflight.ts";
import { interruptedPacked, wantedPacked } from "./packed_events.ts";

/** Both flags that say whose a descriptor is. */
export const OWNER_FLAGS: u32 = VIRTQ_PACKED_DESC_F_AVAIL | VIRTQ_PACKED_DESC_F_USED;
/** No element waits to be published. */
export const NO_SLOT: u32 = 0xffffffff;

/** What OWNER_FLAGS are of a descriptor that the driver has made available, by its wrap counter (0 or not). */
@inline
export function availableFlags(wrap: u32): u32 {
  return wrap ? VIRTQ_PACKED_DESC_F_AVAIL : VIRTQ_PACKED_DESC_F_USED;
}

/** Length, id and flags of the descriptor in a slot, in one load: {length u32, id u16, flags u16}. */
@inline
export function metaOf(q: usize, slot: u32): u64 {
  return atomic.load<u64>(load<u32>(q, Q_DESC) + slot * VIRTQ_DESC_BYTES + VIRTQ_PACKED_DESC_LEN);
}

/** Whether a descriptor waits at the position; 1 stands for one or more. */
@inline
export function pendingPacked(q: usize): u32 {
  const flags = <u32> (metaOf(q, load<u32>(q, Q_LAST_AVAIL)) >> 48);
  return (flags & OWNER_FLAGS) == availableFlags(load<u32>(q, Q_WRAP) & WRAP_AVAIL) ? 1 : 0;
}

/** How many descriptors wait from the queue's position on; no more than `most` are looked at. */
export function countPacked(q: usize, most: u32): u32 {
  let position = load<u32>(q, Q_LAST_AVAIL) | ((load<u32>(q, Q_WRAP) & WRAP_AVAIL) << 16);
  let n: u32 = 0;
  for (; n < most && isAvailable(q, position); n++) position = positionAfter(q, position, 1);
  return n;
}

/** The position behind the descriptors that wait, of which no more than `most` are looked at. */
export function endOfPacked(q: usize, most: u32): u32 {
  const position = load<u32>(q, Q_LAST_AVAIL) | ((load<u32>(q, Q_WRAP) & WRAP_AVAIL) << 16);
  return positionAfter(q, position, countPacked(q, min(most, load<u32>(q, Q_SIZE))));
}

/** Whether a descriptor waits at `position`: a slot, and WRAP_AVAIL << 16 of its lap. */
@inline
export function isAvailable(q: usize, position: u32): bool {
  return (<u32> (metaOf(q, position & 0xffff) >> 48) & OWNER_FLAGS) == availableFlags(position >> 16);
}

/** Whether the descriptor at `position` is used, in the lap that its upper half says. */
@inline
export function isUsedAt(q: usize, position: u32): bool {
  return (<u32> (metaOf(q, position & 0xffff) >> 48) & OWNER_FLAGS) == (position >> 16 != 0 ? OWNER_FLAGS : 0);
}

/** The position `n` descriptors behind `position`, where `n` is no more than the ring has. */
@inline
export function positionAfter(q: usize, position: u32, n: u32): u32 {
  const size = load<u32>(q, Q_SIZE);
  const slot = (position & 0xffff) + n;
  return slot < size ? (position & 0xffff0000) | slot : ((position & 0xffff0000) ^ (WRAP_AVAIL << 16)) | (slot - size);
}

/** Moves the position of available descriptors by `n`, which is no more than the ring has. */
export function advanceAvail(q: usize, n: u32): void {
  const size = load<u32>(q, Q_SIZE);
  let slot = load<u32>(q, Q_LAST_AVAIL) + n;
  if (slot >= size) {
    slot -= size;
    store<u32>(q, load<u32>(q, Q_WRAP) ^ WRAP_AVAIL, Q_WRAP);
  }
  store<u32>(q, slot, Q_LAST_AVAIL);
}

/** Whether used descriptors go where available ones are taken: so they do unless somebody else began otherwise. */
@inline
export function isInStep(q: usize): bool {
  const wraps = load<u32>(q, Q_WRAP);
  return load<u32>(q, Q_LAST_AVAIL) == load<u32>(q, Q_USED_IDX) && ((wraps ^ (wraps >> 1)) & 1) == 0;
}

/** Moves both positions of a queue that is in step by `n`, which does not lead beyond the ring's end. */
export function advanceBoth(q: usize, n: u32): void {
  const slot = load<u32>(q, Q_LAST_AVAIL) + n;
  const wraps = slot == load<u32>(q, Q_SIZE);
  const next = wraps ? 0 : slot;
  store<u32>(q, next, Q_LAST_AVAIL);
  store<u32>(q, next, Q_USED_IDX);
  if (wraps) store<u32>(q, load<u32>(q, Q_WRAP) ^ (WRAP_AVAIL | WRAP_USED), Q_WRAP);
}

/**
 * Keeps a used descriptor, {len u32, id u16, flags u16}, until it is published: the burst's first with the queue, since
 * the driver sees the others behind it. An engine that dies before has written nothing, and its successor begins the
 * burst anew. Batches that need more than STAGED_COUNT have thousands of buffers of a few bytes: what is beyond is
 * written early, behind the first one. True if it went into the list.
 */
@inline
export function stageUsed(q: usize, slot: u32, element: u64): bool {
  if (load<u32>(q, Q_FIRST_SLOT) == NO_SLOT) {
    store<u32>(q, slot, Q_FIRST_SLOT);
    store<u64>(q, element, Q_FIRST_USED);
    return false;
  }
  endStaged(stageAt(nextStaged(1), load<u32>(q, Q_DESC) + slot * VIRTQ_DESC_BYTES, element));
  return true;
}

/** The place of the next used descriptor that is kept, with room for `n` more behind it. */
@inline
export function nextStaged(n: u32): usize {
  if (load<u32>(batch(), B_STAGED) + n > <u32> STAGED_COUNT) writeStaged();
  return context + STAGED + load<u32>(batch(), B_STAGED) * STAGED_STRIDE;
}

/** Keeps `element`, a used descriptor for the ring's `descriptor`, at the place `staged`; answers the next place. */
@inline
export function stageAt(staged: usize, descriptor: usize, element: u64): usize {
  store<u32>(staged, <u32> descriptor + VIRTQ_PACKED_DESC_LEN);
  store<u64>(staged, element, 8);
  return staged + STAGED_STRIDE;
}

/** Notes that used descriptors are kept up to the place `staged`. */
@inline
export function endStaged(staged: usize): void {
  store<u32>(batch(), <u32> (staged - context - STAGED) / STAGED_STRIDE, B_STAGED);
}

/** Writes the used descriptors that were kept, but the first of each queue, which still hides them from the driver. */
export function writeStaged(): void {
  const n = load<u32>(batch(), B_STAGED);
  let entry = context + STAGED;
  for (let i: u32 = 0; i < n; i++, entry += STAGED_STRIDE) {
    store<u64>(load<u32>(entry), load<u64>(entry, 8));
  }
  store<u32>(batch(), 0, B_STAGED);
}

/** Says, for whoever succeeds this engine, how far the queue's burst goes that is about to be published. */
export function announcePacked(q: usize): void {
  const registers: usize = load<u32>(q, Q_REGISTERS);
  if (registers != 0) store<u32>(registers, positionPacked(q), ADV_REG_NEXT);
  announceInflight(q);
}

/**
 * Writes a used descriptor for a chain of `descriptors`, `length` bytes of which were written, with `flags` beside the
 * owner's.
 */
export function pushUsedPacked(q: usize, id: u32, length: u32, flags: u32, descriptors: u32): void {
  const slot = load<u32>(q, Q_USED_IDX);
  const wraps = load<u32>(q, Q_WRAP);
  const owner: u32 = wraps & WRAP_USED ? OWNER_FLAGS : 0;
  const element = <u64> length | (<u64> id << 32) | (<u64> (flags | owner) << 48);
  stageUsed(q, slot, element);
  const size = load<u32>(q, Q_SIZE);
  const next = slot + descriptors;
  store<u32>(q, next >= size ? next - size : next, Q_USED_IDX);
  if (next >= size) store<u32>(q, wraps ^ WRAP_USED, Q_WRAP);
}

/** Where the queue goes on, as SET_VRING_BASE has it: available and used index, each with its wrap counter. */
export function positionPacked(q: usize): u32 {
  const wraps = load<u32>(q, Q_WRAP);
  const avail = load<u32>(q, Q_LAST_AVAIL) | (wraps & WRAP_AVAIL ? 0x8000 : 0);
  return avail | ((load<u32>(q, Q_USED_IDX) | (wraps & WRAP_USED ? 0x8000 : 0)) << 16);
}

/** Gives the first `n` frames of the batch back. In order, one element stands for all of them (§2.8.8). */
export function completePacked(q: usize, n: u32): void {
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_IN_ORDER) != 0) completeInOrder(q, n);
  else completeEach(q, n);
}

function completeInOrder(q: usize, n: u32): void {
  let record = recordAt(0);
  let descriptors: u32 = 0;
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) descriptors += load<u32>(record, R_DESCRIPTORS);
  pushUsedPacked(q, load<u32>(recordAt(n - 1), R_ID), 0, 0, descriptors);
  advanceAvail(q, descriptors);
}

function completeEach(q: usize, n: u32): void {
  const ring: usize = load<u32>(q, Q_DESC);
  const size = load<u32>(q, Q_SIZE);
  let wraps = load<u32>(q, Q_WRAP);
  let slot = load<u32>(q, Q_USED_IDX);
  let descriptors: u32 = 0;
  let record = recordAt(0);
  let staged = nextStaged(n);
  for (let i: u32 = 0; i < n; i++, record += RECORD_STRIDE) {
    const owner: u64 = wraps & WRAP_USED ? <u64> OWNER_FLAGS << 48 : 0;
    const element = owner | (<u64> load<u32>(record, R_ID) << 32);
    if (i != 0) staged = stageAt(staged, ring + slot * VIRTQ_DESC_BYTES, element);
    else if (stageUsed(q, slot, element)) staged += STAGED_STRIDE;
    const taken = load<u32>(record, R_DESCRIPTORS);
    descriptors += taken;
    slot += taken;
    if (slot < size) continue;
    slot -= size;
    wraps ^= WRAP_USED;
  }
  endStaged(staged);
  store<u32>(q, slot, Q_USED_IDX);
  store<u32>(q, wraps, Q_WRAP);
  advanceAvail(q, descriptors);
}

/** Lets the driver see the used descriptors, and sees to the interrupt that it may have asked for. */
export function publishPacked(q: usize): void {
  const first = load<u32>(q, Q_FIRST_SLOT);
  if (first == NO_SLOT) return;
  const registers: usize = load<u32>(q, Q_REGISTERS);
  const position = positionPacked(q);
  const logs = isLogged(q);
  if (logs) logUsedSlots(q, first);
  // Sequentially consistent: after everything that it publishes, and before the driver's flags are read.
  atomic.store<u64>(
    load<u32>(q, Q_DESC) + first * VIRTQ_DESC_BYTES + VIRTQ_PACKED_DESC_LEN,
    load<u64>(q, Q_FIRST_USED),
  );
  store<u32>(q, NO_SLOT, Q_FIRST_SLOT);
  if (registers != 0) store<u32>(registers, position, ADV_REG_POSITION);
  keepPacked(q);
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_KEEP_POSITION) != 0) store<u16>(load<u32>(q, Q_USED), <u16> (position >> 16));
  if (logs) {
    logSlot(q, first);
    logIndex(q);
  }
  const given = wantedPacked(q);
  if (given != 0 && interrupt(q, given)) interruptedPacked(q);
}

/**
 * Asks the driver for a kick when it adds buffers; true if it has added some meanwhile. The position that goes with the
 * flags is the used one, which `resumeQueue` looks for, and which moves on with what is given back. With nothing in flight
 * the next buffer is there; with something in flight, as on the direct path, no position is waited for.
 */
export function armPacked(q: usize): bool {
  const waits = (load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) != 0 && isInStep(q);
  const how: u32 = waits ? RING_EVENT_FLAGS_DESC : RING_EVENT_FLAGS_ENABLE;
  atomic.store<u32>(load<u32>(q, Q_USED), (positionPacked(q) >> 16) | (how << 16));
  return pendingPacked(q) != 0;
}

/** Tells the driver not to kick. The position that is beside it then is nobody's but QUEUE_F_KEEP_POSITION's. */
export function disarmPacked(q: usize): void {
  atomic.store<u32>(load<u32>(q, Q_USED), (positionPacked(q) >> 16) | (RING_EVENT_FLAGS_DISABLE << 16));
}
